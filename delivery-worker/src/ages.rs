//! How long the oldest unsettled record has been owed: the number that says whether deliveries
//! move at all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_domain::{Position, Timestamp};
use parking_lot::Mutex;

/// Records between two that are remembered.
const STEP: u64 = 64;
/// Most that are remembered.
const REMEMBERED_MAX: usize = 16 * 1024;

/// Some records of a span and when they were routed, by rising position.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    taken: Mutex<VecDeque<(Position, Timestamp)>>,
    oldest_micros: AtomicU64,
}

impl Ages {
    /// A record was taken.
    pub(crate) fn taken(&self, position: Position, routed: Timestamp) {
        let mut taken = self.taken.lock();
        let is_near = |last: &(Position, Timestamp)| position.0 < last.0.0 + STEP;
        if taken.len() < REMEMBERED_MAX && !taken.back().is_some_and(is_near) {
            taken.push_back((position, routed));
        }
    }

    /// Everything below `watermark` is settled.
    pub(crate) fn settled_below(&self, watermark: Position, now: Timestamp) {
        let mut taken = self.taken.lock();
        // The last one at or before the watermark stands for the records up to the next one.
        while taken.get(1).is_some_and(|next| next.0 <= watermark) {
            taken.pop_front();
        }
        let is_over = taken.len() == 1 && taken[0].0.0 + STEP <= watermark.0;
        if is_over || (taken.len() == 1 && taken[0].0 < watermark) {
            taken.clear();
        }
        let oldest = taken
            .front()
            .map_or(Duration::ZERO, |(_, at)| now.since(*at));
        let micros = u64::try_from(oldest.as_micros()).unwrap_or(u64::MAX);
        self.oldest_micros.store(micros, Ordering::Relaxed);
    }

    /// The age, as of the last look.
    pub(crate) fn oldest(&self) -> Duration {
        Duration::from_micros(self.oldest_micros.load(Ordering::Relaxed))
    }
}
