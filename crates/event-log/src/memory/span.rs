//! The records of one span in memory, and what each group committed of them: plain values.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fanfare_domain::Position;

use crate::log::{Entry, Group, ReadLimit, Visibility};
use crate::progress::Progress;

/// One sequence of records. Positions are `index * step`, so that callers meet gaps.
#[derive(Debug)]
pub(super) struct SpanLog {
    step: u64,
    /// Index of the first record kept.
    first: u64,
    records: VecDeque<Bytes>,
    /// How many records from the very first on would survive a crash.
    synced: u64,
    groups: BTreeMap<Group, Committed>,
}

#[derive(Debug, Default)]
struct Committed {
    /// What a crash leaves.
    synced: Progress,
    /// What the next holder is granted.
    latest: Progress,
}

impl SpanLog {
    pub(super) fn new(step: u64) -> Self {
        Self {
            step,
            first: 0,
            records: VecDeque::new(),
            synced: 0,
            groups: BTreeMap::new(),
        }
    }

    pub(super) fn push(&mut self, bytes: Bytes) -> Position {
        self.records.push_back(bytes);
        Position((self.end() - 1) * self.step)
    }

    /// Everything so far survives a crash from now on.
    pub(super) fn sync(&mut self) {
        self.synced = self.end();
        for committed in self.groups.values_mut() {
            committed.synced = committed.latest.clone();
        }
    }

    /// Drops what is not synced; returns the bytes that were freed.
    pub(super) fn crash(&mut self) -> usize {
        for committed in self.groups.values_mut() {
            committed.latest = committed.synced.clone();
        }
        let kept = usize::try_from(self.synced - self.first).unwrap_or(usize::MAX);
        self.records.drain(kept..).map(|r| r.len()).sum()
    }

    /// From now on `group` counts among those that a record is kept for.
    pub(super) fn join(&mut self, group: &Group) {
        self.groups.entry(group.clone()).or_default();
    }

    pub(super) fn progress(&self, group: &Group) -> Progress {
        let committed = self.groups.get(group);
        committed.map(|c| c.latest.clone()).unwrap_or_default()
    }

    pub(super) fn commit(&mut self, group: &Group, progress: Progress) {
        self.groups.entry(group.clone()).or_default().latest = progress;
    }

    /// Drops the records that every group settled, durably; returns the bytes that were freed.
    pub(super) fn drop_settled(&mut self) -> usize {
        let settled = self.groups.values().map(|c| c.synced.watermark()).min();
        let settled = settled.map_or(0, |p| p.0.div_ceil(self.step));
        let count = settled.min(self.synced).saturating_sub(self.first);
        self.first += count;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.records.drain(..count).map(|r| r.len()).sum()
    }

    /// What is visible from index `from` on, within `limit`, and how many before it are gone.
    pub(super) fn read(
        &self,
        from: u64,
        visibility: Visibility,
        limit: ReadLimit,
    ) -> (Vec<Entry>, u64) {
        let start = from.max(self.first);
        let end = match visibility {
            Visibility::Ordered => self.end(),
            Visibility::Durable => self.synced,
        };
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for index in start..end {
            let at = usize::try_from(index - self.first).unwrap_or(usize::MAX);
            let record = &self.records[at];
            bytes += record.len();
            let full = entries.len() >= limit.records || bytes > limit.bytes;
            if full && !entries.is_empty() {
                break;
            }
            entries.push(Entry {
                position: Position(index * self.step),
                bytes: record.clone(),
            });
        }
        (entries, start - from)
    }

    /// Index of the first record at or after `position`.
    pub(super) fn index_of(&self, position: Position) -> u64 {
        position.0.div_ceil(self.step)
    }

    /// Index of the record after the last.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::try_from(self.records.len()).unwrap_or(0)
    }
}
