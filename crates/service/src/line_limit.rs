//! A bound on log lines of one sort: a dead endpoint must not write one per attempt.
//!
//! It counts in whole seconds; lines that were held back are told with the next one.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::clock::Clock;

/// Lines of one sort. A static of whoever writes them.
#[derive(Debug)]
pub struct LineLimit {
    max: u32,
    second: AtomicU64,
    written: AtomicU32,
    held_back: AtomicU64,
}

impl LineLimit {
    /// At most `max` a second.
    pub const fn per_second(max: u32) -> Self {
        Self {
            max,
            second: AtomicU64::new(0),
            written: AtomicU32::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written now; how many were held back since the last one.
    pub fn admit(&self) -> Option<u64> {
        let now = Clock::system().now().seconds();
        self.admit_at(u64::try_from(now).unwrap_or_default())
    }

    /// Races between threads let a few lines more through, or less: no harm.
    fn admit_at(&self, second: u64) -> Option<u64> {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.written.store(0, Ordering::Relaxed);
        }
        if self.written.fetch_add(1, Ordering::Relaxed) < self.max {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_a_count() {
        let limit = LineLimit::per_second(2);
        let admitted: Vec<_> = (0..5).map(|_| limit.admit_at(10)).collect();
        assert_eq!(admitted, [Some(0), Some(0), None, None, None]);
        assert_eq!(limit.admit_at(11), Some(3));
        assert_eq!(limit.admit_at(11), Some(0));
        assert_eq!(limit.admit_at(11), None);
    }
}
