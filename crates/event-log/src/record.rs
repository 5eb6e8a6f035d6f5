//! What we write into a log.
//!
//! ```text
//!   0      1      2            6
//!   major  kind   CRC-32C      protobuf body
//!   u8     u8     u32 LE       of major, kind and body
//! ```
//!
//! Within a major version the protobuf only gains fields. A reader that meets a major it does not
//! know must hold the shard and alarm: a newer writer is about ([`RecordError::UnknownVersion`]).
//! Bytes whose checksum is wrong are quarantined raw, then settled ([`RecordError::Damaged`]).

mod event;
mod identity;

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use fanfare_domain::{
    AcceptedEvent, Data, DeliveryId, EndpointId, Place, Position, SubscriptionId, Target, TenantId,
    Timestamp,
};
pub use identity::Identity;
use prost::Message;

/// Version that this code writes, and the highest it reads.
const MAJOR: u8 = 1;
const HEADER: usize = 6;
/// Most parts of one delivery record: one bit each in [`crate::Unsettled`].
pub const PARTS_MAX: usize = 64;
/// Largest data that a delivery record carries inline.
pub const INLINE_MAX: usize = 64 * 1024;

/// A record of either stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Events stream: an accepted event.
    Event(AcceptedEvent),
    /// Deliveries stream: an event owed to 1..=64 targets of one span.
    Delivery(DeliveryRecord),
    /// Deliveries stream: 1..=64 dead letters of one span to deliver again.
    Redrive(RedriveRecord),
    /// Deliveries stream: one POST to one target, now and never again, whatever its state: how
    /// the management API tests an endpoint. Its attempt is kept in the history.
    Test(DeliveryRecord),
}

/// An event owed to some targets.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryRecord {
    /// The event; its data is [`Data::None`] when it is not `inline`.
    pub event: Arc<AcceptedEvent>,
    /// Whether `event` has its data; otherwise it is fetched from the event row.
    pub inline: bool,
    /// Where the event's own record lies.
    pub place: Place,
    /// When it was routed.
    pub route_time: Timestamp,
    /// Head of the tenant's configuration bucket that it was routed by.
    pub config_head: u64,
    /// Replay generation: 0 for the original.
    pub generation: u32,
    /// Who is owed; part i of the record is `targets[i]`.
    pub targets: Vec<Target>,
}

/// Dead letters to deliver again, under the same ids.
#[derive(Clone, Debug, PartialEq)]
pub struct RedriveRecord {
    /// Owner.
    pub tenant: TenantId,
    /// When it was asked for.
    pub at: Timestamp,
    /// Which; part i of the record is `deliveries[i]`.
    pub deliveries: Vec<DeliveryId>,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Written by a newer major version: hold the shard and alarm.
    UnknownVersion(u8),
    /// Not what was written: quarantine.
    Damaged,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVersion(major) => {
                write!(f, "record version {major} is newer than this program")
            }
            Self::Damaged => f.write_str("record bytes are damaged"),
        }
    }
}

impl std::error::Error for RecordError {}

impl Record {
    /// How many parts settle on their own: 1..=64.
    pub fn parts(&self) -> u32 {
        u32::try_from(self.part_count()).unwrap_or(u32::MAX)
    }

    fn part_count(&self) -> usize {
        match self {
            Self::Event(_) => 1,
            Self::Delivery(record) | Self::Test(record) => record.targets.len(),
            Self::Redrive(record) => record.deliveries.len(),
        }
    }

    /// The bytes to append.
    ///
    /// # Panics
    /// With no parts or more than [`PARTS_MAX`]: nobody could read such a record, so it must not
    /// be written.
    pub fn encode(&self) -> Bytes {
        assert!(
            (1..=PARTS_MAX).contains(&self.part_count()),
            "a record has 1 to 64 parts, not {}",
            self.part_count()
        );
        match self {
            Self::Event(event) => encode_event(event),
            Self::Delivery(record) => frame(2, &DeliveryWire::from(record)),
            Self::Redrive(record) => frame(3, &RedriveWire::from(record)),
            Self::Test(record) => frame(4, &DeliveryWire::from(record)),
        }
    }

    /// Reads bytes back. The data is a slice of `bytes`: copy what is kept for long.
    pub fn decode(bytes: &Bytes) -> Result<Self, RecordError> {
        let (kind, body) = unframe(bytes)?;
        let damaged = |_| RecordError::Damaged;
        match kind {
            1 => event::decode(&body).map(Self::Event),
            2 => DeliveryWire::decode(body)
                .map_err(damaged)?
                .try_into()
                .map(Self::Delivery),
            3 => RedriveWire::decode(body)
                .map_err(damaged)?
                .try_into()
                .map(Self::Redrive),
            4 => DeliveryWire::decode(body)
                .map_err(damaged)?
                .try_into()
                .map(Self::Test),
            // A kind is added with a new major, so within ours there are no others.
            _ => Err(RecordError::Damaged),
        }
    }
}

/// Encodes an accepted event as the events stream does, for stores that keep it.
pub fn encode_event(event: &AcceptedEvent) -> Bytes {
    let body = event::encode(event, &event.event.data);
    framed(1, body.len(), |out| out.put_slice(&body))
}

fn frame(kind: u8, message: &impl Message) -> Bytes {
    // Encoding into a growing buffer cannot run out of room, the only error there is.
    framed(kind, message.encoded_len(), |out| {
        let _ = message.encode(out);
    })
}

fn framed(kind: u8, len: usize, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + len);
    out.put_u8(MAJOR);
    out.put_u8(kind);
    out.put_u32_le(0);
    body(&mut out);
    let crc = checksum(&out);
    out[2..HEADER].copy_from_slice(&crc.to_le_bytes());
    out.freeze()
}

fn unframe(bytes: &Bytes) -> Result<(u8, Bytes), RecordError> {
    if bytes.len() < HEADER {
        return Err(RecordError::Damaged);
    }
    let mut crc = [0; 4];
    crc.copy_from_slice(&bytes[2..HEADER]);
    if u32::from_le_bytes(crc) != checksum(bytes) {
        return Err(RecordError::Damaged);
    }
    match bytes[0] {
        MAJOR => {}
        major if major > MAJOR => return Err(RecordError::UnknownVersion(major)),
        _ => return Err(RecordError::Damaged),
    }
    Ok((bytes[1], bytes.slice(HEADER..)))
}

fn checksum(framed: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&framed[..2]), &framed[HEADER..])
}

#[derive(Clone, PartialEq, Message)]
struct DeliveryWire {
    /// An event as the events stream has it, read and written by [`event`].
    #[prost(bytes = "bytes", tag = "1")]
    event: Bytes,
    #[prost(bool, tag = "2")]
    inline: bool,
    #[prost(uint32, tag = "3")]
    place_span: u32,
    #[prost(uint64, tag = "4")]
    place_position: u64,
    #[prost(sint64, tag = "5")]
    route_time: i64,
    #[prost(uint64, tag = "6")]
    config_head: u64,
    #[prost(uint32, tag = "7")]
    generation: u32,
    /// Endpoint and subscription of each target, in turn.
    #[prost(fixed64, repeated, tag = "8")]
    targets: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct RedriveWire {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(sint64, tag = "2")]
    at: i64,
    #[prost(bytes = "vec", repeated, tag = "3")]
    deliveries: Vec<Vec<u8>>,
}

impl From<&DeliveryRecord> for DeliveryWire {
    fn from(record: &DeliveryRecord) -> Self {
        let data = match record.inline {
            true => &record.event.event.data,
            false => &Data::None,
        };
        Self {
            event: event::encode(&record.event, data),
            inline: record.inline,
            place_span: record.place.span.into(),
            place_position: record.place.position.0,
            route_time: record.route_time.micros(),
            config_head: record.config_head,
            generation: record.generation,
            targets: record
                .targets
                .iter()
                .flat_map(|t| [t.endpoint.0, t.subscription.0])
                .collect(),
        }
    }
}

impl TryFrom<DeliveryWire> for DeliveryRecord {
    type Error = RecordError;

    fn try_from(wire: DeliveryWire) -> Result<Self, RecordError> {
        let targets: Vec<_> = wire
            .targets
            .chunks_exact(2)
            .map(|pair| Target {
                endpoint: EndpointId(pair[0]),
                subscription: SubscriptionId(pair[1]),
            })
            .collect();
        if targets.is_empty() || targets.len() > PARTS_MAX || !wire.targets.len().is_multiple_of(2)
        {
            return Err(RecordError::Damaged);
        }
        Ok(Self {
            event: Arc::new(event::decode(&wire.event)?),
            inline: wire.inline,
            place: Place {
                span: u16::try_from(wire.place_span).map_err(|_| RecordError::Damaged)?,
                position: Position(wire.place_position),
            },
            route_time: Timestamp::from_micros(wire.route_time),
            config_head: wire.config_head,
            generation: wire.generation,
            targets,
        })
    }
}

impl From<&RedriveRecord> for RedriveWire {
    fn from(record: &RedriveRecord) -> Self {
        Self {
            tenant: record.tenant.as_str().into(),
            at: record.at.micros(),
            deliveries: record
                .deliveries
                .iter()
                .map(|id| id.as_bytes().to_vec())
                .collect(),
        }
    }
}

impl TryFrom<RedriveWire> for RedriveRecord {
    type Error = RecordError;

    fn try_from(wire: RedriveWire) -> Result<Self, RecordError> {
        let id = |bytes: Vec<u8>| {
            bytes
                .try_into()
                .map(DeliveryId::from_bytes)
                .map_err(|_| RecordError::Damaged)
        };
        let deliveries = wire
            .deliveries
            .into_iter()
            .map(id)
            .collect::<Result<Vec<_>, _>>()?;
        if deliveries.is_empty() || deliveries.len() > PARTS_MAX {
            return Err(RecordError::Damaged);
        }
        Ok(Self {
            tenant: TenantId::try_new(&wire.tenant).map_err(|_| RecordError::Damaged)?,
            at: Timestamp::from_micros(wire.at),
            deliveries,
        })
    }
}

#[cfg(test)]
mod tests;
