//! Which event bodies are still owed: those of open retries and of parked deliveries. A segment
//! that holds one is kept, however full the directory is.
//!
//! One key per reference, by the position of the event's record, set and removed in the very frame
//! that opens and ends the reference: asking about a segment is one look-up.

use std::ops::{Bound, Range};

use bytes::Bytes;
use fanfare_domain::{DeliveryId, EventRef};
use fanfare_event_log::LogError;

use super::OWED;
use crate::changes::Batch;
use crate::engine::Engine;
use crate::view::Direction;

/// Who needs the body.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum By {
    /// A delivery that is tried again.
    Retry = 1,
    /// A delivery that waits.
    Parked = 2,
}

/// Whether a body in these positions is still owed.
pub(crate) fn is_owed(engine: &Engine, positions: Range<u64>) -> Result<bool, LogError> {
    let (from, to) = (positions.start.to_be_bytes(), positions.end.to_be_bytes());
    let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
    let first = engine.scan(OWED, range, Direction::Forward, 1)?;
    Ok(!first.is_empty())
}

/// From now on the body is owed.
pub(super) fn owe(batch: &mut Batch, by: By, event: &EventRef, delivery: DeliveryId) {
    batch.put(OWED, key(by, event, delivery), Bytes::new());
}

/// It no longer is.
pub(super) fn release(batch: &mut Batch, by: By, event: &EventRef, delivery: DeliveryId) {
    batch.delete(OWED, key(by, event, delivery));
}

fn key(by: By, event: &EventRef, delivery: DeliveryId) -> Vec<u8> {
    let mut key = Vec::with_capacity(33);
    key.extend_from_slice(&event.place.position.0.to_be_bytes());
    key.push(by as u8);
    key.extend_from_slice(delivery.as_bytes());
    key
}
