//! A line of the list of a tenant's events, as a row of the group of one tenant and second.
//!
//! It says where the event lies and how many matched; the rest is in the event's own record.

use fanfare_domain::{Place, Timestamp};
use prost::Message;

use super::{WireError, micros, pack, place, unpack};

/// A claimed event in its tenant's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// When it was accepted; its whole second is the group's.
    pub accept_time: Timestamp,
    /// Where it lies.
    pub place: Place,
    /// How many subscriptions matched.
    pub matched: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ListedWire {
    /// Microseconds after the group's second.
    #[prost(uint32, tag = "1")]
    micros: u32,
    #[prost(uint32, tag = "2")]
    span: u32,
    #[prost(uint64, tag = "3")]
    position: u64,
    #[prost(uint32, tag = "4")]
    matched: u32,
}

impl Listed {
    /// The bytes of its row.
    pub fn pack(&self) -> Vec<u8> {
        let micros = self.accept_time.micros().rem_euclid(1_000_000);
        pack(&ListedWire {
            micros: u32::try_from(micros).unwrap_or(0),
            span: self.place.span.into(),
            position: self.place.position.0,
            matched: self.matched,
        })
    }

    /// From the bytes of a row of the group of `second` (Unix time).
    pub fn unpack(second: i64, bytes: &[u8]) -> Result<Self, WireError> {
        let wire: ListedWire = unpack(bytes)?;
        let start = second.checked_mul(1_000_000).ok_or(WireError::Damaged)?;
        Ok(Self {
            accept_time: micros(start.saturating_add(wire.micros.into())),
            place: place(wire.span, wire.position)?,
            matched: wire.matched,
        })
    }
}
