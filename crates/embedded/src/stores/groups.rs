//! Groups of a packed space, newest first, each one whole whatever number of chunks it came in.

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::Bytes;
use fanfare_store::StoreError;

use super::journal::failed;
use super::keys::KeyRange;
use crate::changes::Space;
use crate::engine::Engine;
use crate::view::{Chunk, Direction};

/// Rows that are asked for at once.
const ROWS: usize = 512;

/// Walks down a range of groups.
pub(super) struct Groups<'a> {
    engine: &'a Engine,
    space: Space,
    range: KeyRange,
    /// Whole groups that were read and not handed out.
    ready: VecDeque<Group>,
    ended: bool,
}

/// A group's key and its rows, in the order they were packed.
pub(super) type Group = (Bytes, Vec<Bytes>);

impl<'a> Groups<'a> {
    pub(super) fn new(engine: &'a Engine, space: Space, range: KeyRange) -> Self {
        Self {
            engine,
            space,
            range,
            ready: VecDeque::new(),
            ended: false,
        }
    }

    /// The next lower group.
    pub(super) fn next(&mut self) -> Result<Option<Group>, StoreError> {
        if self.ready.is_empty() && !self.ended {
            self.read()?;
        }
        Ok(self.ready.pop_front())
    }

    fn read(&mut self) -> Result<(), StoreError> {
        let bounds = self.range.as_bounds();
        let chunks = self
            .engine
            .packed(self.space, bounds, Direction::Backward, ROWS);
        let chunks = chunks.map_err(failed)?;
        let rows: usize = chunks.iter().map(|chunk| chunk.rows.len()).sum();
        self.ended = rows < ROWS;
        let mut groups = gather(chunks);
        if !self.ended {
            // Of the lowest group there may be more chunks: it is read by itself.
            if groups.len() > 1 {
                groups.pop_back();
            } else if let Some((group, _)) = groups.pop_back() {
                let rows = whole(self.engine, self.space, &group)?;
                groups.push_back((group, rows));
            }
        }
        if let Some((lowest, _)) = groups.back() {
            self.range.to = Bound::Excluded(lowest.to_vec());
        }
        self.ready = groups;
        Ok(())
    }
}

/// All rows of one group, in the order they were packed.
pub(super) fn whole(engine: &Engine, space: Space, group: &[u8]) -> Result<Vec<Bytes>, StoreError> {
    let range = (Bound::Included(group), Bound::Included(group));
    let chunks = engine.packed(space, range, Direction::Forward, usize::MAX);
    Ok(chunks
        .map_err(failed)?
        .into_iter()
        .flat_map(|chunk| chunk.rows)
        .collect())
}

/// Chunks by falling group and start, as groups with rising starts.
fn gather(chunks: Vec<Chunk>) -> VecDeque<Group> {
    let mut groups: VecDeque<Group> = VecDeque::new();
    for mut chunk in chunks {
        match groups.back_mut() {
            Some((group, rows)) if *group == chunk.group => {
                chunk.rows.append(rows);
                *rows = chunk.rows;
            }
            _ => groups.push_back((chunk.group, chunk.rows)),
        }
    }
    groups
}
