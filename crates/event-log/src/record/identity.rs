//! Who an event record is about, read without its data and without copying anything: what a
//! backend asks of every record that it appends.

use fanfare_domain::{BodyHash, Timestamp};
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::{HEADER, MAJOR};

/// The names, hash and time of an accepted event; borrowed from its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Owner.
    pub tenant: &'a str,
    /// CloudEvents id.
    pub id: &'a str,
    /// CloudEvents source.
    pub source: &'a str,
    /// Hash of the body.
    pub body_hash: BodyHash,
    /// When it was accepted.
    pub accept_time: Timestamp,
}

impl<'a> Identity<'a> {
    /// Of the bytes of a record that holds an accepted event, whose checksum is somebody else's
    /// care; `None` for any other bytes.
    pub fn of(record: &'a [u8]) -> Option<Self> {
        let (header, mut body) = record.split_at_checked(HEADER)?;
        if header[..2] != [MAJOR, 1] {
            return None;
        }
        let (mut tenant, mut id, mut source, mut hash) = (None, None, None, None);
        let mut accept_micros = 0;
        while body.has_remaining() {
            let (tag, wire_type) = decode_key(&mut body).ok()?;
            match (tag, wire_type) {
                (1, WireType::LengthDelimited) => tenant = Some(text(&mut body)?),
                (2, WireType::LengthDelimited) => id = Some(text(&mut body)?),
                (3, WireType::LengthDelimited) => source = Some(text(&mut body)?),
                (13, WireType::Varint) => accept_micros = zigzag(decode_varint(&mut body).ok()?),
                (14, WireType::LengthDelimited) => hash = Some(slice(&mut body)?),
                _ => skip_field(wire_type, tag, &mut body, DecodeContext::default()).ok()?,
            }
        }
        Some(Self {
            tenant: tenant?,
            id: id?,
            source: source?,
            body_hash: BodyHash(hash?.try_into().ok()?),
            accept_time: Timestamp::from_micros(accept_micros),
        })
    }
}

pub(super) fn slice<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(body).ok()?).ok()?;
    let (taken, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(taken)
}

pub(super) fn text<'a>(body: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(slice(body)?).ok()
}

pub(super) fn zigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fanfare_domain::{
        AcceptedEvent, Data, Event, EventId, EventType, Source, TenantId, Timestamp,
    };

    use super::*;
    use crate::record::{Record, encode_event};

    fn event() -> AcceptedEvent {
        let event = Event {
            id: EventId::try_new("e-1").unwrap(),
            source: Source::try_new("/shop").unwrap(),
            event_type: EventType::try_new("order.paid").unwrap(),
            subject: Some("s".into()),
            time: Some(Timestamp::from_micros(-5)),
            data_content_type: "text/plain".into(),
            data_schema: None,
            data: Data::Bytes("data".into()),
            ordering_key: None,
            extensions: BTreeMap::from([("a".into(), "b".into())]),
        };
        AcceptedEvent {
            tenant: TenantId::try_new("acme").unwrap(),
            body_hash: event.body_hash(),
            event,
            accept_time: Timestamp::from_micros(-1_790_000_000_000_001),
        }
    }

    #[test]
    fn it_is_that_of_the_event() {
        let event = event();
        let bytes = encode_event(&event);
        let expected = Identity {
            tenant: "acme",
            id: "e-1",
            source: "/shop",
            body_hash: event.body_hash,
            accept_time: event.accept_time,
        };
        assert_eq!(Identity::of(&bytes), Some(expected));
    }

    #[test]
    fn other_bytes_have_none() {
        let bytes = encode_event(&event());
        for cut in 0..bytes.len() {
            let _ = Identity::of(&bytes[..cut]);
        }
        assert_eq!(Identity::of(&[]), None);
        let redrive = Record::Redrive(crate::RedriveRecord {
            tenant: TenantId::try_new("acme").unwrap(),
            at: Timestamp::from_micros(1),
            deliveries: vec![fanfare_domain::DeliveryId::from_bytes([1; 24])],
        });
        assert_eq!(Identity::of(&redrive.encode()), None);
    }
}
