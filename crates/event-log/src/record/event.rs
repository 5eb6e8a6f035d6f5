//! An accepted event as protobuf, written and read by hand: every event is encoded twice and
//! decoded twice on its way, and a generated message would copy each of its texts each time.
//!
//! ```text
//! message Event {
//!   string tenant = 1;  string id = 2;  string source = 3;  string event_type = 4;
//!   optional string subject = 5;  optional sint64 time = 6;  string data_content_type = 7;
//!   optional string data_schema = 8;  oneof data { bytes bytes = 9; bytes text = 10; }
//!   optional string ordering_key = 11;  map<string, string> extensions = 12;
//!   sint64 accept_time = 13;  bytes body_hash = 14;
//! }
//! ```
//!
//! Fields that are not known are skipped, as protobuf wants it. Times are in microseconds.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fanfare_domain::{
    AcceptedEvent, BodyHash, Data, Event, EventId, EventType, Source, TenantId, Timestamp,
};
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};

use super::RecordError;
use super::identity::{slice, text, zigzag};

/// Room for the attributes of most events.
const ATTRIBUTES: usize = 320;

/// The message of `accepted`, with `data` in place of its own.
pub(super) fn encode(accepted: &AcceptedEvent, data: &Data) -> Bytes {
    let event = &accepted.event;
    let mut out = BytesMut::with_capacity(ATTRIBUTES + data.bytes().len());
    put(&mut out, 1, accepted.tenant.as_str().as_bytes());
    put(&mut out, 2, event.id.as_str().as_bytes());
    put(&mut out, 3, event.source.as_str().as_bytes());
    put(&mut out, 4, event.event_type.as_str().as_bytes());
    put_some(&mut out, 5, event.subject.as_ref());
    if let Some(time) = event.time {
        put_time(&mut out, 6, time);
    }
    if !event.data_content_type.is_empty() {
        put(&mut out, 7, event.data_content_type.as_bytes());
    }
    put_some(&mut out, 8, event.data_schema.as_ref());
    match data {
        Data::None => {}
        Data::Bytes(bytes) => put(&mut out, 9, bytes),
        Data::Text(bytes) => put(&mut out, 10, bytes),
    }
    put_some(&mut out, 11, event.ordering_key.as_ref());
    for (name, value) in &event.extensions {
        put_pair(&mut out, 12, name, value);
    }
    if accepted.accept_time.micros() != 0 {
        put_time(&mut out, 13, accepted.accept_time);
    }
    put(&mut out, 14, &accepted.body_hash.0);
    out.freeze()
}

/// The event of a message. Its data is a slice of `message`: copy what is kept for long.
pub(super) fn decode(message: &Bytes) -> Result<AcceptedEvent, RecordError> {
    let fields = Fields::read(message).ok_or(RecordError::Damaged)?;
    fields.event(message).ok_or(RecordError::Damaged)
}

/// The fields of a message, borrowed from it.
#[derive(Default)]
struct Fields<'a> {
    tenant: &'a str,
    id: &'a str,
    source: &'a str,
    event_type: &'a str,
    subject: Option<&'a str>,
    time: Option<i64>,
    data_content_type: &'a str,
    data_schema: Option<&'a str>,
    bytes: Option<&'a [u8]>,
    text: Option<&'a [u8]>,
    ordering_key: Option<&'a str>,
    extensions: BTreeMap<String, String>,
    accept_time: i64,
    body_hash: &'a [u8],
}

impl<'a> Fields<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let mut fields = Self::default();
        let mut rest = message;
        while rest.has_remaining() {
            let (tag, wire_type) = decode_key(&mut rest).ok()?;
            match wire_type {
                WireType::LengthDelimited if tag <= 14 => {
                    fields.take_bytes(tag, slice(&mut rest)?)?;
                }
                WireType::Varint if tag == 6 => {
                    fields.time = Some(zigzag(decode_varint(&mut rest).ok()?));
                }
                WireType::Varint if tag == 13 => {
                    fields.accept_time = zigzag(decode_varint(&mut rest).ok()?);
                }
                _ => skip_field(wire_type, tag, &mut rest, DecodeContext::default()).ok()?,
            }
        }
        Some(fields)
    }

    fn take_bytes(&mut self, tag: u32, value: &'a [u8]) -> Option<()> {
        let text = || std::str::from_utf8(value).ok();
        match tag {
            1 => self.tenant = text()?,
            2 => self.id = text()?,
            3 => self.source = text()?,
            4 => self.event_type = text()?,
            5 => self.subject = Some(text()?),
            7 => self.data_content_type = text()?,
            8 => self.data_schema = Some(text()?),
            9 => (self.bytes, self.text) = (Some(value), None),
            10 => (self.bytes, self.text) = (None, Some(value)),
            11 => self.ordering_key = Some(text()?),
            12 => {
                let (name, value) = pair(value)?;
                self.extensions.insert(name.into(), value.into());
            }
            14 => self.body_hash = value,
            // A number's tag with a text's type, or 0, is nothing that we write.
            _ => return None,
        }
        Some(())
    }

    fn event(self, message: &Bytes) -> Option<AcceptedEvent> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let data = match (self.bytes, self.text) {
            (Some(bytes), _) => Data::Bytes(message.slice_ref(bytes)),
            (_, Some(text)) => Data::Text(message.slice_ref(text)),
            (None, None) => Data::None,
        };
        let event = Event {
            id: EventId::try_new(self.id).ok()?,
            source: Source::try_new(self.source).ok()?,
            event_type: EventType::try_new(self.event_type).ok()?,
            subject: owned(self.subject),
            time: self.time.map(Timestamp::from_micros),
            data_content_type: self.data_content_type.into(),
            data_schema: owned(self.data_schema),
            data,
            ordering_key: owned(self.ordering_key),
            extensions: self.extensions,
        };
        Some(AcceptedEvent {
            tenant: TenantId::try_new(self.tenant).ok()?,
            event,
            accept_time: Timestamp::from_micros(self.accept_time),
            body_hash: BodyHash(self.body_hash.try_into().ok()?),
        })
    }
}

fn put(out: &mut BytesMut, tag: u32, bytes: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

fn put_some(out: &mut BytesMut, tag: u32, text: Option<&String>) {
    if let Some(text) = text {
        put(out, tag, text.as_bytes());
    }
}

fn put_time(out: &mut BytesMut, tag: u32, time: Timestamp) {
    let micros = time.micros();
    encode_key(tag, WireType::Varint, out);
    encode_varint(((micros << 1) ^ (micros >> 63)).cast_unsigned(), out);
}

/// An entry of a map: a message of its key and its value, each left out when empty.
fn put_pair(out: &mut BytesMut, tag: u32, name: &str, value: &str) {
    let mut entry = BytesMut::with_capacity(name.len() + value.len() + 8);
    for (tag, text) in [(1, name), (2, value)] {
        if !text.is_empty() {
            put(&mut entry, tag, text.as_bytes());
        }
    }
    put(out, tag, &entry);
}

fn pair(mut entry: &[u8]) -> Option<(&str, &str)> {
    let (mut name, mut value) = ("", "");
    while entry.has_remaining() {
        let (tag, wire_type) = decode_key(&mut entry).ok()?;
        match (tag, wire_type) {
            (1, WireType::LengthDelimited) => name = text(&mut entry)?,
            (2, WireType::LengthDelimited) => value = text(&mut entry)?,
            _ => skip_field(wire_type, tag, &mut entry, DecodeContext::default()).ok()?,
        }
    }
    Some((name, value))
}
