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
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fanfare_event_log::LogError;

use crate::engine::Engine;
use crate::frame::SegmentHeader;
use crate::front::State;
use crate::retention::{self, Retention};

/// Prepared segments that follow the one being written.
const AHEAD: usize = 2;
/// Spare files kept to be used again; more are given back.
const SPARES_MAX: usize = 2;
/// How long between looks when nobody calls.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often it is looked for what may be dropped, while there is room.
const DROP_EVERY: Duration = Duration::from_secs(10);

/// The thread that prepares and drops segments.
pub(crate) struct Keeper {
    engine: Arc<Engine>,
    spares: Vec<PathBuf>,
    retention: Retention,
    dropped: Option<Instant>,
}

/// Why a segment is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It has outlived the retention.
    Old,
    /// The directory is over its limit.
    Over,
}

impl Keeper {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self {
            retention: Retention::new(&engine),
            engine,
            spares: Vec::new(),
            dropped: None,
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
        let cramped = free < config.free_bytes_min || self.used() > config.max_bytes;
        if cramped || self.dropped.is_none_or(|at| at.elapsed() >= DROP_EVERY) {
            self.dropped = Some(Instant::now());
            if let Err(error) = self.drop_segments() {
                tracing::warn!(%error, "what may be dropped is not known; nothing is");
            }
        }
        self.open_or_close(free);
        while self.engine.front.lock().prepared().0 < AHEAD {
            if !self.prepare(free) {
                break;
            }
        }
    }

    /// Events are refused without room, in the file system or under the directory's limit.
    fn open_or_close(&self, free: u64) {
        let (config, used) = (&self.engine.config, self.used());
        let closed = free < config.free_bytes_min || used > config.max_bytes;
        let before = self.engine.events_closed.swap(closed, Ordering::Relaxed);
        if closed && !before {
            tracing::warn!(
                free,
                used,
                max = config.max_bytes,
                "there is no room: events are refused"
            );
        } else if before && !closed {
            tracing::info!(free, used, "there is room again: events are taken");
        }
    }

    /// Bytes of the directory: the log with its spares, and the view.
    fn used(&self) -> u64 {
        let segments = self.engine.segments.list();
        let log: u64 = segments.iter().map(|segment| segment.capacity).sum();
        let spares = self.spares.len() as u64 * self.engine.config.segment_bytes;
        log + spares + self.engine.view.disk_bytes()
    }

    /// Drops what nobody needs and is old, or needed to get under the limit; oldest first.
    fn drop_segments(&mut self) -> Result<(), LogError> {
        let engine = self.engine.clone();
        expire_view(&engine);
        let floor = self.retention.floor(&engine)?;
        let (mut dropped, mut early) = (0u64, 0u64);
        for segment in engine.segments.list() {
            if segment.end() > floor {
                break;
            }
            match self.why(&segment) {
                Some(why) if !retention::is_owed(&engine, &segment)? => {
                    if !self.retire(&segment) {
                        break;
                    }
                    dropped += 1;
                    early += u64::from(why == Why::Over);
                }
                _ => {}
            }
        }
        if early > 0 {
            let (max, used) = (engine.config.max_bytes, self.used());
            tracing::warn!(
                segments = early,
                used,
                max,
                "dropped settled history before its time: the directory was over max_bytes"
            );
        } else if dropped > 0 {
            tracing::info!(
                segments = dropped,
                "dropped history that outlived the retention"
            );
        }
        Ok(())
    }

    fn why(&self, segment: &SegmentHeader) -> Option<Why> {
        let config = &self.engine.config;
        let written = self.engine.segments.written(segment.base);
        if written.is_ok_and(|at| retention::is_old(at, config.retention)) {
            Some(Why::Old)
        } else {
            (self.used() > config.max_bytes).then_some(Why::Over)
        }
    }

    /// Takes a segment out of the log; its file is used again, or given back.
    fn retire(&mut self, segment: &SegmentHeader) -> bool {
        let retired = self.engine.segments.retire(segment.base);
        let kept = retired.and_then(|spare| match spare {
            Some(spare) if self.spares.len() < SPARES_MAX => {
                self.spares.push(spare);
                Ok(())
            }
            Some(spare) => self.engine.segments.discard(&spare),
            None => Ok(()),
        });
        if let Err(error) = &kept {
            tracing::warn!(%error, "a segment could not be dropped");
        }
        kept.is_ok()
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

/// Tells the view what has outlived the retention; it vanishes when it is next merged.
fn expire_view(engine: &Engine) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let before = now.saturating_sub(engine.config.retention).as_micros();
    engine
        .view
        .expiry
        .set(i64::try_from(before).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests;
