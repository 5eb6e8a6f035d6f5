//! Rows as bytes, for every backend that stores bytes: one versioned, checksummed protobuf per
//! kind of row.
//!
//! ```text
//!   sealed row        major u8 · CRC-32C u32 LE of kind, major and body · protobuf body
//!   row of a group    major u8 · protobuf body
//! ```
//!
//! The kind is part of the checksum and not of the bytes: a row that is read as another kind is as
//! damaged as one with a flipped bit. Rows of a group ([`attempt`], [`listed`]) are written per
//! delivery and per event, and leave out what their group's key says already; they carry no
//! checksum of their own, since whoever packs rows into blocks has one per block.
//!
//! Within a major version the protobuf only gains fields. A reader that meets a higher major says
//! [`WireError::NewerVersion`]: a newer program wrote it.

pub mod attempt;
mod body;
mod config;
mod deliveries;
mod event;
pub mod listed;
#[cfg(test)]
mod tests;

use std::fmt;

pub use event::EventHead;
use fanfare_domain::{EventId, EventKey, EventRef, Outcome, OutcomeKind, Place, Position, Source};
use fanfare_domain::{TenantId, Timestamp};
use prost::Message;

use crate::error::{StoreError, StoreErrorKind};
use crate::shards::ShardState;

/// Version that this code writes, and the highest it reads.
const MAJOR: u8 = 1;
const HEADER: usize = 5;

/// Why bytes are not a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Not what was written.
    Damaged,
    /// Written by a newer program, in this major version.
    NewerVersion(u8),
}

/// A row that is stored on its own.
pub trait Row: Sized {
    /// Its bytes.
    fn seal(&self) -> Vec<u8>;

    /// From its bytes.
    fn open(bytes: &[u8]) -> Result<Self, WireError>;
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => f.write_str("a stored row is damaged"),
            Self::NewerVersion(major) => {
                write!(f, "row version {major} is newer than this program")
            }
        }
    }
}

impl std::error::Error for WireError {}

impl From<WireError> for StoreError {
    fn from(error: WireError) -> Self {
        Self::because(StoreErrorKind::Corrupt, error)
    }
}

/// What kind of row is sealed. Numbers are stored in checksums and never reused.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Entry = 1,
    Change = 2,
    EventHead = 3,
    Retry = 4,
    Parked = 5,
    DeadLetter = 6,
    ShardState = 7,
    Body = 8,
    Summary = 9,
}

fn seal(kind: Kind, body: &impl Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + body.encoded_len());
    out.extend_from_slice(&[MAJOR, 0, 0, 0, 0]);
    // Encoding into a growing buffer cannot run out of room, the only error there is.
    let _ = body.encode(&mut out);
    let crc = checksum(kind, MAJOR, &out[HEADER..]);
    out[1..HEADER].copy_from_slice(&crc.to_le_bytes());
    out
}

fn open<M: Message + Default>(kind: Kind, bytes: &[u8]) -> Result<M, WireError> {
    let (header, body) = bytes.split_at_checked(HEADER).ok_or(WireError::Damaged)?;
    let major = header[0];
    if header[1..] != checksum(kind, major, body).to_le_bytes() {
        return Err(WireError::Damaged);
    }
    if major > MAJOR {
        return Err(WireError::NewerVersion(major));
    }
    M::decode(body).map_err(|_| WireError::Damaged)
}

fn checksum(kind: Kind, major: u8, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[kind as u8, major]), body)
}

/// The bytes of a row of a group.
fn pack(body: &impl Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + body.encoded_len());
    out.push(MAJOR);
    // As in `seal`.
    let _ = body.encode(&mut out);
    out
}

fn unpack<M: Message + Default>(bytes: &[u8]) -> Result<M, WireError> {
    match bytes.split_first() {
        Some((&MAJOR, body)) => M::decode(body).map_err(|_| WireError::Damaged),
        Some((major, _)) if *major > MAJOR => Err(WireError::NewerVersion(*major)),
        _ => Err(WireError::Damaged),
    }
}

/// For values that were valid when they were written.
fn damaged<E>(_: E) -> WireError {
    WireError::Damaged
}

fn tenant(text: &str) -> Result<TenantId, WireError> {
    TenantId::try_new(text).map_err(damaged)
}

fn micros(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(damaged)
}

fn place(span: u32, position: u64) -> Result<Place, WireError> {
    Ok(Place {
        span: u16::try_from(span).map_err(damaged)?,
        position: Position(position),
    })
}

/// An event by reference; its tenant is that of the row.
#[derive(Clone, PartialEq, Message)]
struct EventRefWire {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    source: String,
    #[prost(uint32, tag = "3")]
    span: u32,
    #[prost(uint64, tag = "4")]
    position: u64,
}

impl From<&EventRef> for EventRefWire {
    fn from(event: &EventRef) -> Self {
        Self {
            id: event.key.id.as_str().into(),
            source: event.key.source.as_str().into(),
            span: event.place.span.into(),
            position: event.place.position.0,
        }
    }
}

impl EventRefWire {
    fn of(self, tenant: &TenantId) -> Result<EventRef, WireError> {
        let key = EventKey {
            tenant: tenant.clone(),
            id: EventId::try_new(self.id).map_err(damaged)?,
            source: Source::try_new(self.source).map_err(damaged)?,
        };
        Ok(EventRef::new(key, place(self.span, self.position)?))
    }
}

/// An outcome; a plain 2xx is a status and nothing else.
#[derive(Clone, PartialEq, Message)]
struct OutcomeWire {
    /// Absent for delivered.
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(uint32, optional, tag = "2")]
    http_status: Option<u32>,
    #[prost(uint64, optional, tag = "3")]
    retry_after_micros: Option<u64>,
    #[prost(string, tag = "4")]
    message: String,
}

impl From<&Outcome> for OutcomeWire {
    fn from(outcome: &Outcome) -> Self {
        let kind = match outcome.kind {
            OutcomeKind::Delivered => 0,
            other => other.code(),
        };
        Self {
            kind: kind.into(),
            http_status: outcome.http_status.map(u32::from),
            retry_after_micros: outcome.retry_after.map(duration_micros),
            message: outcome.message.clone(),
        }
    }
}

impl TryFrom<OutcomeWire> for Outcome {
    type Error = WireError;

    fn try_from(wire: OutcomeWire) -> Result<Self, WireError> {
        let kind = match u8::try_from(wire.kind).map_err(damaged)? {
            0 => OutcomeKind::Delivered,
            code => OutcomeKind::from_code(code).ok_or(WireError::Damaged)?,
        };
        let status = wire.http_status.map(u16::try_from);
        Ok(Self {
            kind,
            http_status: status.transpose().map_err(damaged)?,
            retry_after: wire
                .retry_after_micros
                .map(std::time::Duration::from_micros),
            message: wire.message,
        })
    }
}

fn duration_micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Clone, PartialEq, Message)]
struct ShardStateWire {
    #[prost(bytes = "vec", optional, tag = "1")]
    checkpoint: Option<Vec<u8>>,
    #[prost(sint64, tag = "2")]
    due_cursor: i64,
    #[prost(uint64, tag = "3")]
    last_stamp: u64,
}

impl Row for ShardState {
    fn seal(&self) -> Vec<u8> {
        let wire = ShardStateWire {
            checkpoint: self.checkpoint.clone(),
            due_cursor: self.due_cursor.micros(),
            last_stamp: self.last_stamp,
        };
        seal(Kind::ShardState, &wire)
    }

    fn open(bytes: &[u8]) -> Result<Self, WireError> {
        let wire: ShardStateWire = open(Kind::ShardState, bytes)?;
        Ok(Self {
            checkpoint: wire.checkpoint,
            due_cursor: micros(wire.due_cursor),
            last_stamp: wire.last_stamp,
        })
    }
}
