//! The event-log seam over the engine.
//!
//! Groups and leases are those of [`fanfare_event_log::local`]: every consumer lives in this
//! process, because the directory is locked. Progress is a key of the view, written under the lock
//! that takes leases away. Epochs start anew with the process: no lease survives it.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fanfare_domain::{Place, Position, Shard, ShardSet};
use fanfare_event_log::local::{Hold, LocalGroups, Member};
use fanfare_event_log::{
    Entry, EventLog, Granted, Group, Lease, LogError, LogErrorKind, Outgoing, Phase, Progress,
    ReadLimit, Reader, Records, Span, Stream, Tail, Tailed, Visibility,
};

use crate::changes::Batch;
use crate::engine::{Engine, PROGRESS};
use crate::frame::Lane;
use crate::view::Direction;

/// Most bytes of one commit's unsettled list.
const PROGRESS_MAX: usize = 256 << 10;
/// Most groups of one stream. There is one; tests make a few.
const GROUPS_MAX: usize = 64;
/// How long the holder of a revoked lease has to finish: the longest attempt and some.
const REVOKE_DEADLINE: Duration = Duration::from_secs(45);

/// The log half of the engine.
pub(crate) struct EmbeddedLog {
    engine: Arc<Engine>,
    groups: LocalGroups,
}

impl EmbeddedLog {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self::with_revoke_deadline(engine, REVOKE_DEADLINE)
    }

    pub(crate) fn with_revoke_deadline(engine: Arc<Engine>, deadline: Duration) -> Self {
        Self {
            engine,
            groups: LocalGroups::new(deadline),
        }
    }

    /// Ends every membership and loses every lease.
    pub(crate) fn close(&self) {
        self.groups.close();
    }

    /// Takes a lease away, as from a holder that froze.
    #[cfg(test)]
    pub(crate) fn lose(&self, lease: &Lease) {
        self.groups.lose(lease);
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    fn spans(&self, _stream: Stream) -> Vec<Span> {
        spans(self.engine.spans())
    }

    fn span_of(&self, _stream: Stream, shard: Shard, _subject: &str) -> Span {
        span(
            self.engine.spans(),
            u16::from(shard.0) % self.engine.spans(),
        )
    }

    async fn append(
        &self,
        stream: Stream,
        batch: Vec<Outgoing>,
    ) -> Result<Vec<Position>, LogError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let spans = self.engine.spans();
        let mut records = Batch::default();
        for record in batch {
            records.append(stream, u16::from(record.shard.0) % spans, record.bytes);
        }
        self.engine.write(records).await?.durable().await
    }

    async fn join(
        &self,
        stream: Stream,
        group: &Group,
        visibility: Visibility,
    ) -> Result<Box<dyn Reader>, LogError> {
        if !self.engine.is_running() {
            return Err(LogErrorKind::Closed.into());
        }
        let spans = spans(self.engine.spans());
        Ok(Box::new(EmbeddedReader {
            member: self.groups.join(stream, group, &spans),
            engine: self.engine.clone(),
            visibility,
        }))
    }

    async fn tail(&self, stream: Stream) -> Result<Box<dyn Tail>, LogError> {
        if !self.engine.is_running() {
            return Err(LogErrorKind::Closed.into());
        }
        let durable = self.engine.durable();
        let seen = (0..self.engine.spans()).map(|span| {
            let ring = self.engine.ring(Lane::new(stream, span));
            ring.map_or(0, |ring| ring.lock().count_below(durable))
        });
        Ok(Box::new(EmbeddedTail {
            seen: seen.collect(),
            turn: 0,
            stream,
            engine: self.engine.clone(),
        }))
    }

    async fn commit(&self, lease: &Lease, progress: &Progress) -> Result<(), LogError> {
        let encoded = Bytes::from(progress.encode());
        if encoded.len() > PROGRESS_MAX {
            return Err(LogErrorKind::ProgressTooLarge.into());
        }
        let key = progress_key(lease.stream, lease.span.index, &lease.group);
        loop {
            let room = self.engine.room();
            tokio::pin!(room);
            room.as_mut().enable();
            let mut put = Batch::default();
            put.put(PROGRESS, key.clone(), encoded.clone());
            match self.groups.while_good(lease, || self.engine.submit(put)) {
                None => return Err(self.lost()),
                Some(Err(error)) if error.kind() == LogErrorKind::Unavailable => {}
                Some(placed) => return placed?.durable().await.map(drop),
            }
            room.await;
        }
    }

    fn progress_max_bytes(&self) -> usize {
        PROGRESS_MAX
    }
}

impl EmbeddedLog {
    /// Why a lease is not good: it was lost, or everything is closed.
    fn lost(&self) -> LogError {
        if self.engine.is_running() {
            LogErrorKind::LeaseLost.into()
        } else {
            LogErrorKind::Closed.into()
        }
    }
}

struct EmbeddedReader {
    engine: Arc<Engine>,
    member: Member,
    visibility: Visibility,
}

#[async_trait]
impl Reader for EmbeddedReader {
    async fn next(&mut self) -> Result<Granted, LogError> {
        let hold = self.member.next().await.ok_or(LogErrorKind::Closed)?;
        let lease = hold.lease().clone();
        let progress = progress(&self.engine, lease.stream, lease.span.index, &lease.group)?;
        let records = EmbeddedRecords {
            engine: self.engine.clone(),
            lane: Lane::new(lease.stream, lease.span.index),
            lease: lease.clone(),
            visibility: self.visibility,
            next: progress.watermark().0,
            read: VecDeque::new(),
            _hold: hold,
        };
        Ok(Granted {
            lease,
            progress,
            records: Box::new(records),
        })
    }

    async fn leave(&mut self) {
        self.member.leave().await;
    }
}

struct EmbeddedRecords {
    engine: Arc<Engine>,
    lane: Lane,
    lease: Lease,
    visibility: Visibility,
    /// Where the next record is looked for.
    next: u64,
    /// Records that were read from disk and not returned yet.
    read: VecDeque<Entry>,
    /// Dropped with the records, which lets go of the lease.
    _hold: Hold,
}

#[async_trait]
impl Records for EmbeddedRecords {
    async fn read(&mut self, limit: ReadLimit) -> Result<Vec<Entry>, LogError> {
        let engine = self.engine.clone();
        loop {
            let news = engine.news(self.lane.stream(), self.visibility).notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if self.lease.phase() != Phase::Held {
                return Ok(Vec::new());
            }
            if !self.read.is_empty() {
                return Ok(take(&mut self.read, limit));
            }
            let until = match self.visibility {
                Visibility::Ordered => u64::MAX,
                Visibility::Durable => engine.durable(),
            };
            match engine.recent(self.lane, self.next, until, limit) {
                None => self.read_older().await?,
                Some(entries) => {
                    if let Some(last) = entries.last() {
                        self.next = last.position.0 + 1;
                        return Ok(entries);
                    }
                    if !engine.is_running() {
                        return Err(LogErrorKind::Closed.into());
                    }
                    tokio::select! {
                        () = self.lease.reached(Phase::Revoking) => {}
                        () = news => {}
                    }
                }
            }
        }
    }
}

impl EmbeddedRecords {
    /// Reads what memory no longer has, on a thread that may wait for the disk.
    async fn read_older(&mut self) -> Result<(), LogError> {
        let (engine, lane, from) = (self.engine.clone(), self.lane, self.next);
        let read = move || engine.older(lane, from, engine.recent_from(lane));
        let stretch = tokio::task::spawn_blocking(read)
            .await
            .map_err(|panic| LogError::because(LogErrorKind::Unavailable, panic))??;
        self.next = stretch.next;
        self.read = stretch.entries.into();
        Ok(())
    }
}

struct EmbeddedTail {
    engine: Arc<Engine>,
    stream: Stream,
    /// How many records of each span were seen or missed.
    seen: Vec<u64>,
    /// The span to look at first, so that a busy one does not hide the others.
    turn: usize,
}

#[async_trait]
impl Tail for EmbeddedTail {
    async fn next(&mut self, limit: ReadLimit) -> Result<Tailed, LogError> {
        let engine = self.engine.clone();
        loop {
            let news = engine.news(self.stream, Visibility::Durable).notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let tailed = self.visible(limit);
            if !tailed.entries.is_empty() {
                return Ok(tailed);
            }
            if !engine.is_running() {
                return Err(LogErrorKind::Closed.into());
            }
            news.await;
        }
    }
}

impl EmbeddedTail {
    fn visible(&mut self, limit: ReadLimit) -> Tailed {
        let durable = self.engine.durable();
        let spans = self.seen.len();
        let mut tailed = Tailed::default();
        let mut room = limit;
        for turn in 0..spans {
            let index = (self.turn + turn) % spans;
            let span = u16::try_from(index).unwrap_or(u16::MAX);
            let Some(ring) = self.engine.ring(Lane::new(self.stream, span)) else {
                continue;
            };
            let followed = ring.lock().follow(self.seen[index], durable, room);
            let read = followed.entries.len();
            self.seen[index] += followed.skipped + read as u64;
            tailed.skipped += followed.skipped;
            room.records = room.records.saturating_sub(read);
            let bytes: usize = followed.entries.iter().map(|e| e.bytes.len()).sum();
            room.bytes = room.bytes.saturating_sub(bytes);
            let placed = followed.entries.into_iter().map(|entry| {
                let position = entry.position;
                (Place { span, position }, entry.bytes)
            });
            tailed.entries.extend(placed);
            if room.records == 0 || room.bytes == 0 {
                break;
            }
        }
        self.turn = (self.turn + 1) % spans;
        tailed
    }
}

/// The first records within `limit`, at least one.
fn take(read: &mut VecDeque<Entry>, limit: ReadLimit) -> Vec<Entry> {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += entry.bytes.len();
        bytes <= limit.bytes
    };
    let count = read.iter().take(limit.records).take_while(fits).count();
    read.drain(..count.max(1)).collect()
}

/// What a group committed last on a span; the default if it never did.
pub(crate) fn progress(
    engine: &Engine,
    stream: Stream,
    span: u16,
    group: &Group,
) -> Result<Progress, LogError> {
    match engine.get(PROGRESS, &progress_key(stream, span, group))? {
        None => Ok(Progress::default()),
        Some(bytes) => Progress::decode(&bytes).ok_or_else(|| LogErrorKind::Corrupt.into()),
    }
}

/// The lowest watermark that a group committed on a lane; 0 while none did. Groups are few and
/// lasting: one that never comes back would hold the lane's records for ever.
pub(crate) fn lowest_watermark(engine: &Engine, lane: Lane) -> Result<u64, LogError> {
    let from = progress_prefix(lane.stream(), lane.span());
    let to = progress_prefix(lane.stream(), lane.span() + 1);
    let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
    let groups = engine.scan(PROGRESS, range, Direction::Forward, GROUPS_MAX)?;
    let mut lowest = None;
    for (_, bytes) in groups {
        let progress = Progress::decode(&bytes).ok_or(LogErrorKind::Corrupt)?;
        let watermark = progress.watermark().0;
        lowest = Some(lowest.map_or(watermark, |lowest: u64| lowest.min(watermark)));
    }
    Ok(lowest.unwrap_or(0))
}

pub(crate) fn progress_key(stream: Stream, span: u16, group: &Group) -> Vec<u8> {
    let mut key = progress_prefix(stream, span);
    key.extend_from_slice(group.0.as_bytes());
    key
}

fn progress_prefix(stream: Stream, span: u16) -> Vec<u8> {
    let mut key = vec![b'p', u8::from(stream == Stream::Deliveries)];
    key.extend_from_slice(&span.to_be_bytes());
    key
}

fn spans(count: u16) -> Vec<Span> {
    (0..count).map(|index| span(count, index)).collect()
}

fn span(count: u16, index: u16) -> Span {
    let shards = ShardSet::try_new(index, count).unwrap_or(ShardSet::ALL);
    Span { index, shards }
}

#[cfg(test)]
mod tests;
