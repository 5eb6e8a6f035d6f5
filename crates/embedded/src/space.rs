//! Room: prepares segments before they are needed, drops what is settled and old, and says when
//! there is no more.
//!
//! ```text
//!    dropped ◀─┤ settled, old ├─ settled ─┤ unsettled ├─ being written ─┤ prepared ├
//!               whole segments, oldest first; never one that a restart, a group or a
//!               reference still needs
//! ```
//!
//! Because segments are written once from end to end when they are prepared, a full disk shows
//! here, not in the middle of a write. Then events are refused while half a segment and more is
//! left for what accepted events still need, and settlements may use the very last of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::Engine;
use crate::frame::SegmentHeader;
use crate::front::State;

/// Prepared segments that follow the one being written.
const AHEAD: usize = 2;
/// Spare files kept to be used again; more are given back.
const SPARES_MAX: usize = 2;
/// How long between looks when nobody calls.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The thread that prepares and drops segments.
pub(crate) struct Keeper {
    engine: Arc<Engine>,
    spares: Vec<PathBuf>,
}

impl Keeper {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            spares: Vec::new(),
        }
    }

    /// Looks whenever a segment was begun, the view was flushed, or a second has passed.
    pub(crate) fn run(mut self) {
        loop {
            if self.engine.front.lock().state != State::Running {
                return;
            }
            self.look();
            self.engine.keep.wait(LOOK_EVERY);
        }
    }

    fn look(&mut self) {
        let config = &self.engine.config;
        let free = match self.engine.disk.room(&config.dir) {
            Ok(room) => room.free,
            Err(error) => {
                tracing::warn!(%error, "how much room is left is not known");
                0
            }
        };
        let closed = free < config.free_bytes_min;
        let before = self.engine.events_closed.swap(closed, Ordering::Relaxed);
        if closed && !before {
            tracing::warn!(free, "the disk is nearly full: events are refused");
        } else if before && !closed {
            tracing::info!(free, "there is room again: events are taken");
        }
        while self.engine.front.lock().prepared().0 < AHEAD {
            if !self.prepare(free) {
                break;
            }
        }
    }

    /// Prepares one segment; false if there is no room for it.
    fn prepare(&mut self, free: u64) -> bool {
        let config = &self.engine.config;
        let header = SegmentHeader {
            base: self.engine.front.lock().prepared().1,
            capacity: config.segment_bytes,
        };
        let spare = self.spares.pop();
        let done = match &spare {
            Some(spare) => self.engine.segments.prepare(header, Some(spare)),
            None if free < header.capacity + (1 << 20) => {
                self.engine.front.lock().starved = true;
                self.engine.flush.raise();
                return false;
            }
            None => self.engine.segments.prepare(header, None),
        };
        match done {
            Ok(target) => {
                self.engine.front.lock().extend(target);
                self.engine.room_made();
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a segment could not be prepared");
                self.engine.front.lock().starved = true;
                self.engine.flush.raise();
                false
            }
        }
    }
}
