//! Which segments may be dropped: a look at everyone who may still need one.
//!
//! A segment goes when all of this holds:
//!
//! - a restart does not replay it: it lies below the position that the view reflects;
//! - every record in it is settled: it lies below what each group has yet to read;
//! - no delivery in the log that is not settled refers to an event in it (see [`Routed`]), and no
//!   open retry or parked delivery does ([`owed`]);
//! - it is older than the retention, or the directory is over its limit.
//!
//! What this is not: it drops nothing itself, that is [`space`](crate::space). When a look fails
//! nothing is dropped. A dead letter's body goes with its segment: by age never before
//! `dead_letter_retention` is over, early only while the directory is over its limit. Keyed state
//! does not go with a segment: what an identity was published with is known for the whole retention.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use fanfare_event_log::{LogError, ReadLimit, Stream};

use crate::engine::Engine;
use crate::frame::{Lane, SegmentHeader};
use crate::log::lowest_watermark;
use crate::stores::owed;

/// Stretches read from disk in one look at one lane: about 16 MiB.
const STRETCHES_MAX: usize = 64;

/// What is remembered between two looks.
pub(crate) struct Retention {
    events: Vec<Unsettled>,
    deliveries: Vec<Unsettled>,
    routed: Routed,
}

/// Where a lane's first record that may not be settled lies.
struct Unsettled {
    lane: Lane,
    /// There is none below.
    looked: u64,
}

/// How far events were routed, by how far the log was written. A delivery that was appended after
/// a note refers to an event at or above the note's: all before had their deliveries by then.
#[derive(Default)]
struct Routed {
    notes: VecDeque<Note>,
}

#[derive(Clone, Copy)]
struct Note {
    written: u64,
    routed: u64,
}

impl Retention {
    pub(crate) fn new(engine: &Engine) -> Self {
        let lanes = |stream| {
            let lane = move |span| Unsettled {
                lane: Lane::new(stream, span),
                looked: 0,
            };
            (0..engine.spans()).map(lane).collect()
        };
        Self {
            events: lanes(Stream::Events),
            deliveries: lanes(Stream::Deliveries),
            routed: Routed::default(),
        }
    }

    /// Nothing below it is needed by a restart, by a group, or by a delivery in the log.
    pub(crate) fn floor(&mut self, engine: &Engine) -> Result<u64, LogError> {
        let written = engine.durable();
        let events = lowest(engine, &mut self.events)?;
        let deliveries = lowest(engine, &mut self.deliveries)?;
        let step = engine.config.segment_bytes;
        let referred = self.routed.floor(deliveries);
        self.routed.note(
            Note {
                written,
                routed: events,
            },
            step,
        );
        let needed = [events, deliveries, referred, engine.persisted_position()];
        Ok(needed.into_iter().min().unwrap_or(0))
    }
}

/// Whether an open retry or a parked delivery refers to an event of `segment`.
pub(crate) fn is_owed(engine: &Engine, segment: &SegmentHeader) -> Result<bool, LogError> {
    owed::is_owed(engine, segment.base..segment.end())
}

/// Whether what was last written at `written` has outlived `retention`. A clock that was set back
/// keeps it longer.
pub(crate) fn is_old(written: SystemTime, retention: Duration) -> bool {
    written.elapsed().is_ok_and(|age| age >= retention)
}

fn lowest(engine: &Engine, lanes: &mut [Unsettled]) -> Result<u64, LogError> {
    let mut lowest = engine.durable();
    for lane in lanes {
        lowest = lowest.min(lane.first(engine)?);
    }
    Ok(lowest)
}

impl Unsettled {
    /// Position of the first record at or above the watermark of every group, or where the log
    /// ends. A lane that nobody has consumed yet is all unsettled.
    fn first(&mut self, engine: &Engine) -> Result<u64, LogError> {
        let end = engine.durable();
        let mut from = self.looked.max(lowest_watermark(engine, self.lane)?);
        for _ in 0..STRETCHES_MAX {
            if let Some(recent) = engine.recent(self.lane, from, end, FIRST) {
                self.looked = recent.first().map_or(end, |entry| entry.position.0);
                return Ok(self.looked);
            }
            let stretch = engine.older(self.lane, from, engine.recent_from(self.lane))?;
            if let Some(entry) = stretch.entries.first() {
                self.looked = entry.position.0;
                return Ok(self.looked);
            }
            from = stretch.next;
        }
        // The next look goes on from here.
        self.looked = from;
        Ok(from)
    }
}

/// One record is enough.
const FIRST: ReadLimit = ReadLimit {
    records: 1,
    bytes: 1,
};

impl Routed {
    /// No delivery at or above `deliveries` refers to an event below the answer. Forgets the notes
    /// that no later question needs.
    fn floor(&mut self, deliveries: u64) -> u64 {
        while self
            .notes
            .get(1)
            .is_some_and(|next| next.written <= deliveries)
        {
            self.notes.pop_front();
        }
        let first = self.notes.front();
        let first = first.filter(|note| note.written <= deliveries);
        first.map_or(0, |note| note.routed)
    }

    /// Takes a note for every `step` of the log, so that there are no more than segments.
    fn note(&mut self, note: Note, step: u64) {
        let last = self.notes.back();
        if last.is_none_or(|last| note.written - last.written >= step) {
            self.notes.push_back(note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_hold_the_events_that_were_not_routed_when_they_were_written() {
        let mut routed = Routed::default();
        assert_eq!(
            routed.floor(1000),
            0,
            "nothing is known of what a restart found"
        );
        for (written, events) in [(100, 90), (200, 150), (300, 300)] {
            routed.note(
                Note {
                    written,
                    routed: events,
                },
                50,
            );
        }
        assert_eq!(routed.floor(99), 0);
        assert_eq!(routed.floor(250), 150);
        assert_eq!(routed.floor(400), 300);
        routed.note(
            Note {
                written: 310,
                routed: 310,
            },
            50,
        );
        assert_eq!(routed.floor(400), 300, "too near to the last one");
    }
}
