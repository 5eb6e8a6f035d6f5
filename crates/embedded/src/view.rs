//! The view: keyed state and packed rows, as the log says them.
//!
//! ```text
//!    submit ──▶ overlay: active ──rotate──▶ flushing ──▶ one LSM tree per space
//!                 newest ◀──────── a read looks here, from left to right ────────▶ oldest
//! ```
//!
//! - A change is in the view as soon as it has its place in the log. It reaches a tree only once it
//!   is durable in the log, so the trees never run ahead of what a crash leaves.
//! - There is one journal: the log. A generation goes straight into tables, and the position that
//!   all trees reflect is written down when all have taken it; after a crash the log is replayed
//!   from there. A tree that got further than the others says so itself and is not written twice.
//! - A write into a tree that fails (no room) leaves the generation where it is, readable; it is
//!   tried again. Nothing is lost by waiting: the log has it.
//!
//! Why not fjall: it is these same trees with a second journal, of 64 MiB and more, that would
//! hold everything once again, and that turns a full disk into a database that has to be reopened.

pub(crate) mod key;
mod merge;
pub(crate) mod overlay;
pub(crate) mod tree;

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use lsm_tree::{Cache, DescriptorTable};
use parking_lot::RwLock;

use crate::changes::{Change, Shape, Space, SpaceSpec, WrittenMicros, take_bytes};
use overlay::{Generation, Overlay};
use tree::{Shared, Tree};

/// Blocks of tables kept in memory.
const CACHE_BYTES: u64 = 16 << 20;
/// Table files kept open.
const FILES_MAX: usize = 128;

/// In which order a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Rising keys.
    Forward,
    /// Falling keys.
    Backward,
}

/// A range of keys or groups.
pub(crate) type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Rows of one group that were packed in one stretch of the log, in the order they were packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Whose rows they are.
    pub(crate) group: Bytes,
    /// Tells chunks of one group apart, and orders them.
    pub(crate) start: u64,
    /// The rows.
    pub(crate) rows: Vec<Bytes>,
}

/// All spaces.
pub(crate) struct View {
    overlay: RwLock<Overlay>,
    trees: Vec<Tree>,
    pub(crate) expiry: Arc<Expiry>,
}

/// What has outlived the retention: set by the clock of whoever drops it.
#[derive(Debug)]
pub(crate) struct Expiry(AtomicI64);

impl Expiry {
    /// Nothing has.
    pub(crate) fn never() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }

    /// What was written before has.
    pub(crate) fn set(&self, before_micros: i64) {
        self.0.store(before_micros, Ordering::Relaxed);
    }

    pub(crate) fn before_micros(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl View {
    /// Opens the trees of `spaces` under `dir`; the log is to be replayed from `position`.
    pub(crate) fn open(dir: &Path, spaces: &[SpaceSpec], position: u64) -> lsm_tree::Result<Self> {
        let expiry = Arc::new(Expiry::never());
        let shared = Shared {
            cache: Arc::new(Cache::with_capacity_bytes(CACHE_BYTES)),
            files: Arc::new(DescriptorTable::new(FILES_MAX)),
            expiry: expiry.clone(),
        };
        let trees = open_trees(dir, spaces, &shared)?;
        // A tree may be ahead of the others after a crash. The first generation is named as if it
        // started where that tree ends, or its chunks would replace that tree's newest.
        let start = trees.iter().map(Tree::position).fold(position, u64::max);
        Ok(Self {
            overlay: RwLock::new(Overlay::new(start, spaces)),
            trees,
            expiry,
        })
    }

    /// Applies changes in the order of the log. The caller holds whatever orders the log.
    pub(crate) fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let mut overlay = self.overlay.write();
        for change in changes {
            overlay.active.apply(change);
        }
    }

    /// Applies a change that the log says again after a crash, unless its tree has it.
    pub(crate) fn replay(&self, position: u64, change: Change) {
        let space = match &change {
            Change::Put { space, .. }
            | Change::Delete { space, .. }
            | Change::Pack { space, .. } => *space,
        };
        let known = self
            .tree(space)
            .is_none_or(|tree| tree.position() > position);
        if !known {
            self.overlay.write().active.apply(change);
        }
    }

    /// Bytes of changes that are in no tree yet.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.overlay.read().bytes()
    }

    /// Bytes of the growing generation, and where it starts.
    pub(crate) fn active(&self) -> (usize, u64) {
        let overlay = self.overlay.read();
        (overlay.active.bytes(), overlay.active.start)
    }

    /// Closes the growing generation at `position`. The caller holds whatever orders the log.
    pub(crate) fn rotate(&self, position: u64) -> Arc<Generation> {
        self.overlay.write().rotate(position)
    }

    /// Writes a generation, which ends at `end` and is durable in the log, into the trees. After
    /// an error it may be called again.
    pub(crate) fn write(&self, generation: &Generation, end: u64) -> lsm_tree::Result<()> {
        for tree in &self.trees {
            if tree.position() < end {
                tree.write(generation, end)?;
            }
        }
        Ok(())
    }

    /// Forgets the generation that was written.
    pub(crate) fn written(&self) {
        self.overlay.write().flushing = None;
    }

    /// The trees, to compact them.
    pub(crate) fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// Bytes on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.trees.iter().map(Tree::disk_bytes).sum()
    }

    /// The value of a key.
    pub(crate) fn get(&self, space: Space, key: &[u8]) -> lsm_tree::Result<Option<Bytes>> {
        let newest = self.overlay.read().get(space, key);
        match (newest, self.tree(space)) {
            (Some(entry), _) => Ok(entry),
            (None, Some(tree)) => tree.get(key),
            (None, None) => Ok(None),
        }
    }

    /// At most `limit` entries of a keyed space in a range. A change made meanwhile may be missed.
    pub(crate) fn scan(
        &self,
        space: Space,
        range: Range<'_>,
        direction: Direction,
        limit: usize,
    ) -> lsm_tree::Result<Vec<(Bytes, Bytes)>> {
        let mut out = Vec::new();
        let mut range = (range.0.map(<[u8]>::to_vec), range.1.map(<[u8]>::to_vec));
        while out.len() < limit {
            let read = self.scan_once(space, &range, direction, limit - out.len(), &mut out)?;
            let Some(seen) = read else {
                break;
            };
            match direction {
                Direction::Forward => range.0 = Bound::Excluded(seen.to_vec()),
                Direction::Backward => range.1 = Bound::Excluded(seen.to_vec()),
            }
        }
        Ok(out)
    }

    /// Chunks of a packed space whose groups lie in a range, by group and start, until `rows` rows
    /// are there; the last chunk is given whole.
    pub(crate) fn packed(
        &self,
        space: Space,
        range: Range<'_>,
        direction: Direction,
        rows: usize,
    ) -> lsm_tree::Result<Vec<Chunk>> {
        // The overlay is read first: what moves into a tree meanwhile is found twice, and the
        // chunk's start tells.
        let mut newest = self.packed_overlay(space, range, direction, rows);
        let stored = self.tree(space).map(|tree| tree.range(chunk_range(range)));
        let stored = stored.into_iter().flatten();
        let parse = |entry: lsm_tree::Result<(Bytes, Bytes)>| {
            let (key, value) = entry?;
            Ok(chunk(&key, &value))
        };
        match direction {
            Direction::Forward => merge::chunks(&mut newest, stored.map(parse), direction, rows),
            Direction::Backward => {
                merge::chunks(&mut newest, stored.rev().map(parse), direction, rows)
            }
        }
    }

    /// One round of a scan: reads a bounded part of the growing generation and merges it with the
    /// rest up to where that part ends. Returns where to go on, if there may be more.
    fn scan_once(
        &self,
        space: Space,
        range: &(Bound<Vec<u8>>, Bound<Vec<u8>>),
        direction: Direction,
        limit: usize,
        out: &mut Vec<(Bytes, Bytes)>,
    ) -> lsm_tree::Result<Option<Bytes>> {
        let most = limit.saturating_mul(2).max(64);
        let bounds = (as_slice(&range.0), as_slice(&range.1));
        if is_empty(bounds) {
            return Ok(None);
        }
        let (active, flushing) = {
            let overlay = self.overlay.read();
            let entries = overlay.active.range(space, bounds);
            let owned = |(key, entry): (&Bytes, &overlay::Entry)| (key.clone(), entry.clone());
            let active: Vec<_> = match direction {
                Direction::Forward => entries.take(most).map(owned).collect(),
                Direction::Backward => entries.rev().take(most).map(owned).collect(),
            };
            (active, overlay.flushing.clone())
        };
        let cut = (active.len() == most).then(|| active[most - 1].0.clone());
        let sources = merge::Sources {
            active,
            flushing: flushing.as_deref(),
            tree: self.tree(space),
        };
        sources.merge(space, range, direction, limit, cut, out)
    }

    fn packed_overlay(
        &self,
        space: Space,
        range: Range<'_>,
        direction: Direction,
        rows: usize,
    ) -> Vec<Chunk> {
        if is_empty(range) {
            return Vec::new();
        }
        let overlay = self.overlay.read();
        let generations = [overlay.flushing.as_deref(), Some(&overlay.active)];
        let mut out = Vec::new();
        for generation in generations.into_iter().flatten() {
            let own = |(group, rows): (&Bytes, &Vec<Bytes>)| Chunk {
                group: group.clone(),
                start: generation.start,
                rows: rows.clone(),
            };
            let mut seen = 0;
            let mut enough = |chunk: &Chunk| {
                let more = seen < rows;
                seen += chunk.rows.len();
                more
            };
            let groups = generation.groups(space, range);
            match direction {
                Direction::Forward => out.extend(groups.map(own).take_while(&mut enough)),
                Direction::Backward => out.extend(groups.rev().map(own).take_while(&mut enough)),
            }
        }
        out.sort_by(|a, b| merge::order(direction, a, b));
        out
    }

    fn tree(&self, space: Space) -> Option<&Tree> {
        self.trees.iter().find(|tree| tree.spec.space == space)
    }
}

fn chunk(key: &Bytes, value: &Bytes) -> Chunk {
    let (group, start) = tree::split_chunk_key(key).unwrap_or_default();
    let mut rest: &[u8] = value;
    let mut rows = Vec::new();
    while let Some(row) = take_bytes(&mut rest) {
        rows.push(value.slice_ref(row));
    }
    Chunk { group, start, rows }
}

/// All at once: each syncs some small files, and the disk does that together as fast as one.
fn open_trees(dir: &Path, spaces: &[SpaceSpec], shared: &Shared) -> lsm_tree::Result<Vec<Tree>> {
    std::thread::scope(|scope| {
        let open = |spec: &SpaceSpec| {
            let (dir, spec) = (dir.join(spec.name), *spec);
            scope.spawn(move || Tree::open(&dir, spec, shared))
        };
        let opening: Vec<_> = spaces.iter().map(open).collect();
        let opened = opening.into_iter().map(|thread| match thread.join() {
            Ok(tree) => tree,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        opened.collect()
    })
}

/// The keys of the chunks of a range of groups.
fn chunk_range(range: Range<'_>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let low = |group: &[u8]| tree::chunk_key(group, 0);
    let high = |group: &[u8]| tree::chunk_key(group, u64::MAX);
    let from = match range.0 {
        Bound::Included(group) => Bound::Included(low(group)),
        Bound::Excluded(group) => Bound::Excluded(high(group)),
        Bound::Unbounded => Bound::Unbounded,
    };
    let to = match range.1 {
        Bound::Included(group) => Bound::Included(high(group)),
        Bound::Excluded(group) => Bound::Excluded(low(group)),
        Bound::Unbounded => Bound::Unbounded,
    };
    (from, to)
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// Whether a range holds nothing: maps panic on some of these.
fn is_empty(range: Range<'_>) -> bool {
    match range {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from >= to,
        _ => false,
    }
}

/// Every space that `shape` fits is fine; packed and keyed changes are told apart by [`Change`].
impl SpaceSpec {
    /// A keyed space whose entries stay until they are deleted.
    pub(crate) const fn keyed(space: u8, name: &'static str) -> Self {
        Self {
            space: Space(space),
            name,
            shape: Shape::Keyed,
            written_micros: None,
            fleeting: false,
        }
    }

    /// A packed space.
    pub(crate) const fn packed(space: u8, name: &'static str) -> Self {
        Self {
            space: Space(space),
            name,
            shape: Shape::Packed,
            written_micros: None,
            fleeting: false,
        }
    }

    /// A key of this space is put and soon deleted for good. Where both meet in memory neither
    /// reaches the disk; a key that was put more than once may then come back, which its readers
    /// must bear.
    pub(crate) const fn fleeting(mut self) -> Self {
        self.fleeting = true;
        self
    }

    /// Entries vanish some time after the retention: `written_micros` says when one was written.
    pub(crate) const fn expiring(mut self, written_micros: WrittenMicros) -> Self {
        self.written_micros = Some(written_micros);
        self
    }
}
