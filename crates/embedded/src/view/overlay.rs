//! What the log says about the view and the trees do not hold yet: one generation that grows and
//! at most one that is being written.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::key::{Key, Probe, Sorted, sorted};
use crate::changes::{Change, Space, SpaceSpec};

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
    pub(crate) keyed: BTreeMap<Space, BTreeMap<Key, Entry>>,
    pub(crate) packed: BTreeMap<Space, BTreeMap<Key, Vec<Bytes>>>,
    fleeting: Fleeting,
    bytes: usize,
}

/// The spaces in which a delete takes back a put; see [`SpaceSpec::fleeting`].
#[derive(Clone, Copy, Debug)]
struct Fleeting(u64);

impl Fleeting {
    fn contains(self, space: Space) -> bool {
        self.0 & (1 << (space.0 & 63)) != 0
    }
}

impl Overlay {
    pub(crate) fn new(start: u64, spaces: &[SpaceSpec]) -> Self {
        let fleeting = spaces.iter().filter(|spec| spec.fleeting);
        let fleeting = fleeting.fold(0, |set, spec| set | 1 << (spec.space.0 & 63));
        Self {
            active: Generation::new(start, Fleeting(fleeting)),
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
        let next = Generation::new(position, self.active.fleeting);
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
    fn new(start: u64, fleeting: Fleeting) -> Self {
        Self {
            start,
            keyed: BTreeMap::new(),
            packed: BTreeMap::new(),
            fleeting,
            bytes: 0,
        }
    }

    /// Bytes that it holds in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Put { space, key, value } => self.set(space, key, Some(value)),
            Change::Delete { space, key } => self.set(space, key, None),
            Change::Pack { space, group, row } => {
                self.bytes += row.len() + OVERHEAD / 2;
                let groups = self.packed.entry(space).or_default();
                if let Some(rows) = groups.get_mut(&Probe::new(&group) as &dyn Sorted) {
                    rows.push(row);
                } else {
                    self.bytes += group.len() + OVERHEAD;
                    groups.insert(Key::new(group), vec![row]);
                }
            }
        }
    }

    fn set(&mut self, space: Space, key: Bytes, entry: Entry) {
        let map = self.keyed.entry(space).or_default();
        if entry.is_none() && self.fleeting.contains(space) {
            let put = &Probe::new(&key) as &dyn Sorted;
            if let Some(Some(value)) = map.get(put) {
                self.bytes -= key.len() + OVERHEAD + value.len();
                map.remove(put);
                return;
            }
        }
        let (key_len, len) = (key.len(), entry.as_ref().map_or(0, Bytes::len));
        match map.insert(Key::new(key), entry) {
            Some(before) => self.bytes -= before.map_or(0, |value| value.len()),
            None => self.bytes += key_len + OVERHEAD,
        }
        self.bytes += len;
    }

    fn get(&self, space: Space, key: &[u8]) -> Option<Entry> {
        let map = self.keyed.get(&space)?;
        map.get(&Probe::new(key) as &dyn Sorted).cloned()
    }

    /// Entries of a keyed space in a range, by rising key.
    pub(crate) fn range(
        &self,
        space: Space,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &Entry)> {
        let (from, to) = (Probe::bound(range.0), Probe::bound(range.1));
        let map = self.keyed.get(&space).into_iter();
        map.flat_map(move |map| map.range::<dyn Sorted, _>((sorted(&from), sorted(&to))))
            .map(|(key, entry)| (key.bytes(), entry))
    }

    /// Rows of the groups of a packed space in a range, by rising group.
    pub(crate) fn groups(
        &self,
        space: Space,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &Vec<Bytes>)> {
        let (from, to) = (Probe::bound(range.0), Probe::bound(range.1));
        let map = self.packed.get(&space).into_iter();
        map.flat_map(move |map| map.range::<dyn Sorted, _>((sorted(&from), sorted(&to))))
            .map(|(key, rows)| (key.bytes(), rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Space = Space(1);
    const FLEETING: Space = Space(2);

    fn put(space: Space) -> Change {
        Change::Put {
            space,
            key: "key".into(),
            value: "value".into(),
        }
    }

    fn delete(space: Space) -> Change {
        let key = "key".into();
        Change::Delete { space, key }
    }

    fn overlay() -> Overlay {
        let spaces = [
            SpaceSpec::keyed(KEPT.0, "kept"),
            SpaceSpec::keyed(FLEETING.0, "fleeting").fleeting(),
        ];
        Overlay::new(0, &spaces)
    }

    #[test]
    fn a_delete_is_remembered_unless_its_put_is_here_and_fleeting() {
        let mut overlay = overlay();
        for space in [KEPT, FLEETING] {
            overlay.active.apply(put(space));
            overlay.active.apply(delete(space));
        }
        assert_eq!(overlay.get(KEPT, b"key"), Some(None));
        assert_eq!(overlay.get(FLEETING, b"key"), None);
        overlay.active.apply(put(FLEETING));
        overlay.rotate(1);
        overlay.active.apply(delete(FLEETING));
        assert_eq!(overlay.get(FLEETING, b"key"), Some(None));
    }

    #[test]
    fn what_is_taken_back_takes_no_memory() {
        let mut overlay = overlay();
        for _ in 0..3 {
            overlay.active.apply(put(FLEETING));
            overlay.active.apply(delete(FLEETING));
        }
        assert_eq!(overlay.bytes(), 0);
        overlay.active.apply(delete(FLEETING));
        overlay.active.apply(delete(FLEETING));
        assert_eq!(overlay.bytes(), 3 + OVERHEAD);
    }
}
