//! Merges what the generations and the trees say, the newest word first.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::ops::Bound;

use bytes::Bytes;

use super::overlay::{Entry, Generation};
use super::tree::Tree;
use super::{Chunk, Direction, as_slice};
use crate::changes::Space;

/// Where entries of a keyed space come from, newest first.
pub(crate) struct Sources<'a> {
    /// A part of the growing generation, in the order of the scan.
    pub(crate) active: Vec<(Bytes, Entry)>,
    pub(crate) flushing: Option<&'a Generation>,
    pub(crate) tree: Option<&'a Tree>,
}

type Item = lsm_tree::Result<(Bytes, Entry)>;

impl Sources<'_> {
    /// Adds at most `limit` live entries to `out`, none beyond `cut`, where the growing
    /// generation's part ends. Returns where to go on, if the scan stopped there.
    pub(crate) fn merge(
        self,
        space: Space,
        range: &(Bound<Vec<u8>>, Bound<Vec<u8>>),
        direction: Direction,
        limit: usize,
        cut: Option<Bytes>,
        out: &mut Vec<(Bytes, Bytes)>,
    ) -> lsm_tree::Result<Option<Bytes>> {
        let bounds = (as_slice(&range.0), as_slice(&range.1));
        let flushing = self
            .flushing
            .into_iter()
            .flat_map(|g| g.range(space, bounds));
        let flushing = flushing.map(|(key, entry)| Ok((key.clone(), entry.clone())));
        let tree = self
            .tree
            .into_iter()
            .flat_map(|tree| tree.range(range.clone()));
        let tree = tree.map(|entry| entry.map(|(key, value)| (key, Some(value))));
        let (flushing, tree): (
            Box<dyn Iterator<Item = Item>>,
            Box<dyn Iterator<Item = Item>>,
        ) = match direction {
            Direction::Forward => (Box::new(flushing), Box::new(tree)),
            Direction::Backward => (Box::new(flushing.rev()), Box::new(tree.rev())),
        };
        let active: Box<dyn Iterator<Item = Item>> = Box::new(self.active.into_iter().map(Ok));
        let mut sources = [active.peekable(), flushing.peekable(), tree.peekable()];
        let full = out.len() + limit;
        while let Some((key, entry)) = next(&mut sources, direction)? {
            if cut.as_ref().is_some_and(|cut| before(direction, cut, &key)) {
                return Ok(cut);
            }
            if let Some(value) = entry {
                out.push((key, value));
            }
            if out.len() == full {
                return Ok(None);
            }
        }
        Ok(cut)
    }
}

/// The next key of all sources, with what the newest of them says about it.
fn next(
    sources: &mut [Peekable<Box<dyn Iterator<Item = Item> + '_>>],
    direction: Direction,
) -> lsm_tree::Result<Option<(Bytes, Entry)>> {
    let mut first: Option<Bytes> = None;
    for source in sources.iter_mut() {
        match source.peek() {
            Some(Ok((key, _))) if first.as_ref().is_none_or(|f| before(direction, key, f)) => {
                first = Some(key.clone());
            }
            Some(Err(_)) => {
                if let Some(Err(error)) = source.next() {
                    return Err(error);
                }
            }
            Some(Ok(_)) | None => {}
        }
    }
    let Some(first) = first else {
        return Ok(None);
    };
    let mut newest = None;
    for source in sources.iter_mut() {
        let same = matches!(source.peek(), Some(Ok((key, _))) if *key == first);
        if same && let Some(Ok((_, entry))) = source.next() {
            newest.get_or_insert(entry);
        }
    }
    Ok(newest.map(|entry| (first, entry)))
}

fn before(direction: Direction, a: &Bytes, b: &Bytes) -> bool {
    match direction {
        Direction::Forward => a < b,
        Direction::Backward => a > b,
    }
}

/// How two chunks follow each other.
pub(crate) fn order(direction: Direction, a: &Chunk, b: &Chunk) -> Ordering {
    let forward = (&a.group, a.start).cmp(&(&b.group, b.start));
    match direction {
        Direction::Forward => forward,
        Direction::Backward => forward.reverse(),
    }
}

/// Merges chunks in memory, in order, with stored ones, until `rows` rows are there. A chunk that
/// is in both is the same.
pub(crate) fn chunks(
    newest: &mut Vec<Chunk>,
    stored: impl Iterator<Item = lsm_tree::Result<Chunk>>,
    direction: Direction,
    rows: usize,
) -> lsm_tree::Result<Vec<Chunk>> {
    let mut out = Vec::new();
    let mut seen = 0;
    let mut newest = newest.drain(..).peekable();
    let mut stored = stored.peekable();
    while seen < rows {
        let next = match (newest.peek(), stored.peek()) {
            (_, Some(Err(_))) | (None, Some(_)) => stored.next().transpose()?,
            (Some(_), None) => newest.next(),
            (Some(new), Some(Ok(old))) => match order(direction, new, old) {
                Ordering::Less => newest.next(),
                Ordering::Equal => {
                    stored.next().transpose()?;
                    newest.next()
                }
                Ordering::Greater => stored.next().transpose()?,
            },
            (None, None) => None,
        };
        let Some(chunk) = next else {
            break;
        };
        seen += chunk.rows.len();
        out.push(chunk);
    }
    Ok(out)
}
