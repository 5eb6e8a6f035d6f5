//! The newest records in memory, so that a reader that keeps up never touches the disk.
//!
//! A ring holds a suffix of its lane: everything at or above its *floor*. What is not durable yet
//! is never evicted, because it cannot be read anywhere else; it is bounded by what may be
//! unsynced. The bytes are the caller's own: nothing is copied.

use std::collections::VecDeque;

use bytes::Bytes;
use fanfare_domain::Position;
use fanfare_event_log::{Entry, ReadLimit};

/// What an entry costs beside its bytes.
const OVERHEAD: usize = 48;

/// The newest records of one lane.
#[derive(Debug)]
pub(crate) struct Ring {
    entries: VecDeque<(u64, Bytes)>,
    bytes: usize,
    bytes_max: usize,
    /// Every record of the lane at or above it is here.
    floor: u64,
    /// How many were let go.
    gone: u64,
}

/// What a follower sees that counts records instead of remembering positions.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    pub(crate) entries: Vec<Entry>,
    /// How many it missed.
    pub(crate) skipped: u64,
}

impl Ring {
    /// A ring for the records from `floor` on.
    pub(crate) fn new(floor: u64, bytes_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max,
            floor,
            gone: 0,
        }
    }

    /// Adds a record, which lies above all others; lets go of old ones below `durable`.
    pub(crate) fn push(&mut self, position: u64, record: Bytes, durable: u64) {
        self.bytes += record.len() + OVERHEAD;
        self.entries.push_back((position, record));
        while self.bytes > self.bytes_max {
            match self.entries.front() {
                Some((oldest, _)) if *oldest < durable && self.entries.len() > 1 => {}
                _ => break,
            }
            if let Some((oldest, record)) = self.entries.pop_front() {
                self.bytes -= record.len() + OVERHEAD;
                self.floor = oldest + 1;
                self.gone += 1;
            }
        }
    }

    /// Where the ring starts.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// The records in `from..until` within `limit`; `None` if the ring starts above `from`.
    pub(crate) fn read(&self, from: u64, until: u64, limit: ReadLimit) -> Option<Vec<Entry>> {
        if from < self.floor {
            return None;
        }
        let start = self
            .entries
            .partition_point(|(position, _)| *position < from);
        Some(self.read_index(start, until, limit))
    }

    /// What a follower that has seen or missed `seen` records sees next, below `until`.
    pub(crate) fn follow(&self, seen: u64, until: u64, limit: ReadLimit) -> Followed {
        let start = usize::try_from(seen.saturating_sub(self.gone)).unwrap_or(usize::MAX);
        Followed {
            entries: self.read_index(start.min(self.entries.len()), until, limit),
            skipped: self.gone.saturating_sub(seen),
        }
    }

    /// How many records lie below `position`, those included that were let go.
    pub(crate) fn count_below(&self, position: u64) -> u64 {
        let here = self.entries.partition_point(|(at, _)| *at < position);
        self.gone + here as u64
    }

    fn read_index(&self, start: usize, until: u64, limit: ReadLimit) -> Vec<Entry> {
        let mut out = Vec::new();
        let mut bytes = 0;
        for (position, record) in self.entries.range(start..) {
            bytes += record.len();
            let over = out.len() >= limit.records || bytes > limit.bytes;
            if *position >= until || (over && !out.is_empty()) {
                break;
            }
            out.push(Entry {
                position: Position(*position),
                bytes: record.clone(),
            });
        }
        out
    }

    /// The record at `position`, if it is here.
    pub(crate) fn get(&self, position: u64) -> Option<Bytes> {
        let at = self
            .entries
            .binary_search_by_key(&position, |(p, _)| *p)
            .ok()?;
        Some(self.entries[at].1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(records: u64) -> Ring {
        let mut ring = Ring::new(100, 4 * (OVERHEAD + 1));
        for n in 0..records {
            ring.push(100 + n * 10, Bytes::from(vec![0; 1]), 100 + n * 10);
        }
        ring
    }

    fn positions(read: Option<Vec<Entry>>) -> Option<Vec<u64>> {
        read.map(|entries| entries.iter().map(|e| e.position.0).collect())
    }

    const ALL: ReadLimit = ReadLimit {
        records: 100,
        bytes: 100,
    };

    #[test]
    fn keeps_the_newest() {
        let ring = ring(6);
        assert_eq!(ring.floor(), 111);
        assert_eq!(positions(ring.read(100, 1000, ALL)), None);
        assert_eq!(
            positions(ring.read(111, 1000, ALL)),
            Some(vec![120, 130, 140, 150])
        );
        assert_eq!(positions(ring.read(131, 150, ALL)), Some(vec![140]));
        assert_eq!(positions(ring.read(160, 1000, ALL)), Some(vec![]));
        assert_eq!(ring.count_below(141), 5);
        let followed = ring.follow(0, 140, ALL);
        assert_eq!((followed.skipped, followed.entries.len()), (2, 2));
        let followed = ring.follow(5, 1000, ALL);
        assert_eq!((followed.skipped, followed.entries.len()), (0, 1));
        assert!(ring.get(140).is_some() && ring.get(141).is_none());
    }

    #[test]
    fn never_lets_go_of_what_is_not_durable() {
        let mut ring = Ring::new(0, 1);
        (0..10).for_each(|n| ring.push(n, Bytes::from(vec![0; 9]), 0));
        assert_eq!(ring.floor(), 0);
        ring.push(10, Bytes::new(), 5);
        assert_eq!(ring.floor(), 5);
    }

    #[test]
    fn a_limit_is_kept_but_one_record_always_comes() {
        let ring = ring(3);
        let limit = |records, bytes| ReadLimit { records, bytes };
        assert_eq!(
            positions(ring.read(100, 1000, limit(2, 100))),
            Some(vec![100, 110])
        );
        assert_eq!(
            positions(ring.read(100, 1000, limit(100, 2))),
            Some(vec![100, 110])
        );
        assert_eq!(
            positions(ring.read(100, 1000, limit(1, 0))),
            Some(vec![100])
        );
    }
}
