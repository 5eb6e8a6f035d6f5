//! Reading: keyed state from the view, records from memory or from disk, and where the log is.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use fanfare_domain::Position;
use fanfare_event_log::{Entry, LogError, LogErrorKind, ReadLimit, Stream, Visibility};
use tokio::sync::Notify;

use super::{Engine, number};
use crate::changes::Space;
use crate::frame::Lane;
use crate::reading::{self, Stretch};
use crate::view::{Chunk, Direction, Range};

impl Engine {
    /// The value of a key, as of everything submitted so far.
    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, LogError> {
        self.view.get(space, key).map_err(view_error)
    }

    /// At most `limit` entries of a keyed space in a range. Entries written or deleted meanwhile
    /// may be in it or not.
    pub(crate) fn scan(
        &self,
        space: Space,
        range: Range<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, LogError> {
        let entries = self.view.scan(space, range, direction, limit);
        entries.map_err(view_error)
    }

    /// Chunks of a packed space whose groups lie in a range, until `rows` rows are there; the last
    /// chunk is whole.
    pub(crate) fn packed(
        &self,
        space: Space,
        range: Range<'_>,
        direction: Direction,
        rows: usize,
    ) -> Result<Vec<Chunk>, LogError> {
        let chunks = self.view.packed(space, range, direction, rows);
        chunks.map_err(view_error)
    }

    /// The record of the events stream at `position`, which some `append` returned; `None` when
    /// retention took it.
    pub(crate) fn read_at(&self, span: u16, position: Position) -> Result<Option<Bytes>, LogError> {
        if let Some(bytes) = self.read_recent(span, position) {
            return Ok(Some(bytes));
        }
        reading::read_one(&self.segments, position.0)
            .map_err(|e| LogError::because(LogErrorKind::Unavailable, e))
    }

    /// The record of the events stream at `position`, if it is in memory.
    pub(crate) fn read_recent(&self, span: u16, position: Position) -> Option<Bytes> {
        let ring = self.ring(Lane::new(Stream::Events, span))?;
        ring.lock().get(position.0)
    }

    /// The lane's records in `from..until` that are in memory; `None` if some are not.
    pub(crate) fn recent(
        &self,
        lane: Lane,
        from: u64,
        until: u64,
        limit: ReadLimit,
    ) -> Option<Vec<Entry>> {
        self.ring(lane)?.lock().read(from, until, limit)
    }

    /// Where memory begins for a lane.
    pub(crate) fn recent_from(&self, lane: Lane) -> u64 {
        self.ring(lane).map_or(0, |ring| ring.lock().floor())
    }

    /// Reads older records of a lane from disk. Blocks on the disk.
    pub(crate) fn older(&self, lane: Lane, from: u64, until: u64) -> Result<Stretch, LogError> {
        let until = until.min(self.durable());
        reading::read_lane(&self.segments, &self.quarantine, lane, from, until)
            .map_err(|e| LogError::because(LogErrorKind::Unavailable, e))
    }

    /// Everything below it is durable.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Everything below it has its place.
    pub(crate) fn placed(&self) -> u64 {
        self.front.lock().position
    }

    /// Told when a stream has more to see.
    pub(crate) fn news(&self, stream: Stream, visibility: Visibility) -> &Notify {
        match visibility {
            Visibility::Ordered => &self.placed_news[number(stream)],
            Visibility::Durable => &self.durable_news[number(stream)],
        }
    }
}

fn view_error(error: lsm_tree::Error) -> LogError {
    LogError::because(LogErrorKind::Unavailable, error)
}
