//! What the log says about the view and the trees do not hold yet: one generation that grows and
//! at most one that is being written.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::changes::{Change, Space};

/// What an entry costs beside its bytes: the map's node, two `Bytes` and their shared counts.
const OVERHEAD: usize = 160;

/// A value, or that there is none any more.
pub(crate) type Entry = Option<Bytes>;

/// The newest changes.
#[derive(Debug)]
pub(crate) struct Overlay {
    pub(crate) active: Generation,
    pub(crate) flushing: Option<Arc<Generation>>,
}

/// All changes of a stretch of the log.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Position it starts at; names the chunks of its packed rows.
    pub(crate) start: u64,
    pub(crate) keyed: BTreeMap<Space, BTreeMap<Bytes, Entry>>,
    pub(crate) packed: BTreeMap<Space, BTreeMap<Bytes, Vec<Bytes>>>,
    bytes: usize,
}

impl Overlay {
    pub(crate) fn new(start: u64) -> Self {
        Self {
            active: Generation::new(start),
            flushing: None,
        }
    }

    /// What the newest generation that knows of `key` says.
    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Option<Entry> {
        let mut newest_first = [Some(&self.active), self.flushing.as_deref()].into_iter();
        newest_first.find_map(|generation| generation?.get(space, key))
    }

    /// Closes the growing generation at `position`; it has to be written before the next is.
    pub(crate) fn rotate(&mut self, position: u64) -> Arc<Generation> {
        let next = Generation::new(position);
        let full = Arc::new(std::mem::replace(&mut self.active, next));
        self.flushing = Some(full.clone());
        full
    }

    /// Bytes of both generations.
    pub(crate) fn bytes(&self) -> usize {
        self.active.bytes + self.flushing.as_ref().map_or(0, |g| g.bytes)
    }
}

impl Generation {
    fn new(start: u64) -> Self {
        Self {
            start,
            keyed: BTreeMap::new(),
            packed: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Bytes that it holds in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Put { space, key, value } => self.set(space, key, Some(value)),
            Change::Delete { space, key } => self.set(space, key, None),
            Change::Pack { space, group, row } => {
                self.bytes += row.len() + OVERHEAD / 2;
                let groups = self.packed.entry(space).or_default();
                if let Some(rows) = groups.get_mut(&group) {
                    rows.push(row);
                } else {
                    self.bytes += group.len() + OVERHEAD;
                    groups.insert(group, vec![row]);
                }
            }
        }
    }

    fn set(&mut self, space: Space, key: Bytes, entry: Entry) {
        let (key_len, len) = (key.len(), entry.as_ref().map_or(0, Bytes::len));
        let before = self.keyed.entry(space).or_default().insert(key, entry);
        match before {
            Some(before) => self.bytes -= before.map_or(0, |value| value.len()),
            None => self.bytes += key_len + OVERHEAD,
        }
        self.bytes += len;
    }

    fn get(&self, space: Space, key: &[u8]) -> Option<Entry> {
        self.keyed.get(&space)?.get(key).cloned()
    }

    /// Entries of a keyed space in a range, by rising key.
    pub(crate) fn range(
        &self,
        space: Space,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &Entry)> {
        let map = self.keyed.get(&space);
        map.into_iter()
            .flat_map(move |map| map.range::<[u8], _>(range))
    }

    /// Rows of the groups of a packed space in a range, by rising group.
    pub(crate) fn groups(
        &self,
        space: Space,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &Vec<Bytes>)> {
        let map = self.packed.get(&space);
        map.into_iter()
            .flat_map(move |map| map.range::<[u8], _>(range))
    }
}
