//! How a [`super::MemoryLog`] is read: under a lease, or along its tail.

use std::sync::Arc;

use async_trait::async_trait;
use fanfare_domain::{Place, Position};
use tokio::sync::watch;

use super::span::SpanLog;
use super::{Call, Shared};
use crate::error::{LogError, LogErrorKind};
use crate::local::{Hold, Member};
use crate::log::{
    Entry, Granted, Group, Phase, ReadLimit, Reader, Records, Stream, Tail, Tailed, Visibility,
};

pub(super) struct MemoryReader {
    shared: Arc<Shared>,
    member: Member,
    visibility: Visibility,
}

struct MemoryRecords {
    shared: Arc<Shared>,
    hold: Hold,
    visibility: Visibility,
    /// Index of the next record to return.
    next: u64,
    changed: watch::Receiver<()>,
}

pub(super) struct MemoryTail {
    shared: Arc<Shared>,
    stream: Stream,
    life: u64,
    /// Index of the next record to return, per span.
    next: Vec<u64>,
    /// The span to look at first, so that a busy one does not hide the others.
    turn: usize,
    /// Missed since the last call that returned.
    skipped: u64,
    changed: watch::Receiver<()>,
}

impl MemoryReader {
    pub(super) fn join(
        shared: Arc<Shared>,
        stream: Stream,
        group: &Group,
        visibility: Visibility,
    ) -> Self {
        let spans: Vec<_> = (0..shared.config.spans).map(|i| shared.span(i)).collect();
        {
            let mut state = shared.state.lock();
            let spans = state.stream(stream).iter_mut();
            spans.for_each(|s| s.join(group));
        }
        let member = shared.groups.join(stream, group, &spans);
        Self {
            shared,
            member,
            visibility,
        }
    }
}

#[async_trait]
impl Reader for MemoryReader {
    async fn next(&mut self) -> Result<Granted, LogError> {
        let hold = self.member.next().await.ok_or(LogErrorKind::Closed)?;
        let lease = hold.lease().clone();
        let mut state = self.shared.state.lock();
        let span = state.span(lease.stream, lease.span.index);
        let progress = span.progress(&lease.group);
        let records = MemoryRecords {
            shared: self.shared.clone(),
            hold,
            visibility: self.visibility,
            next: span.index_of(progress.watermark()),
            changed: self.shared.changed.subscribe(),
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

impl MemoryRecords {
    fn take_visible(&mut self, limit: ReadLimit) -> Vec<Entry> {
        let lease = self.hold.lease();
        let mut state = self.shared.state.lock();
        let span = state.span(lease.stream, lease.span.index);
        let (entries, _) = span.read(self.next, self.visibility, limit);
        if let Some(last) = entries.last() {
            self.next = span.index_of(Position(last.position.0 + 1));
        }
        entries
    }
}

#[async_trait]
impl Records for MemoryRecords {
    async fn read(&mut self, limit: ReadLimit) -> Result<Vec<Entry>, LogError> {
        loop {
            self.changed.borrow_and_update();
            let lease = self.hold.lease().clone();
            let faulted = tokio::select! {
                biased;
                () = lease.reached(Phase::Revoking) => return Ok(Vec::new()),
                faulted = self.shared.faulted(Call::Read) => faulted?,
            };
            if let Some(error) = faulted {
                return Err(error);
            }
            let entries = self.take_visible(limit);
            if !entries.is_empty() {
                return Ok(entries);
            }
            tokio::select! {
                () = lease.reached(Phase::Revoking) => {}
                _ = self.changed.changed() => {}
            }
        }
    }
}

impl MemoryTail {
    pub(super) fn new(shared: Arc<Shared>, stream: Stream) -> Self {
        let changed = shared.changed.subscribe();
        let (life, next) = {
            let mut state = shared.state.lock();
            let ends = state.stream(stream).iter().map(SpanLog::end).collect();
            (state.life, ends)
        };
        Self {
            shared,
            stream,
            life,
            next,
            turn: 0,
            skipped: 0,
            changed,
        }
    }

    /// What there is to see; `None` once the log crashed or was closed.
    fn visible(&mut self, limit: ReadLimit) -> Option<Tailed> {
        let mut state = self.shared.state.lock();
        if state.closed || state.life != self.life {
            return None;
        }
        let spans = state.stream(self.stream);
        let mut tailed = Tailed::default();
        let mut room = limit;
        for turn in 0..spans.len() {
            let index = (self.turn + turn) % spans.len();
            let (entries, skipped) = spans[index].read(self.next[index], Visibility::Durable, room);
            let read = u64::try_from(entries.len()).unwrap_or(0);
            self.next[index] += skipped + read;
            self.skipped += skipped;
            room.records = room.records.saturating_sub(entries.len());
            room.bytes = room.bytes.saturating_sub(size(&entries));
            tailed.entries.extend(entries.into_iter().map(|entry| {
                let place = Place {
                    span: u16::try_from(index).unwrap_or(u16::MAX),
                    position: entry.position,
                };
                (place, entry.bytes)
            }));
            if room.records == 0 || room.bytes == 0 {
                break;
            }
        }
        self.turn = (self.turn + 1) % spans.len();
        Some(tailed)
    }
}

fn size(entries: &[Entry]) -> usize {
    entries.iter().map(|e| e.bytes.len()).sum()
}

#[async_trait]
impl Tail for MemoryTail {
    async fn next(&mut self, limit: ReadLimit) -> Result<Tailed, LogError> {
        loop {
            self.changed.borrow_and_update();
            let mut tailed = self.visible(limit).ok_or(LogErrorKind::Closed)?;
            if !tailed.entries.is_empty() {
                tailed.skipped = std::mem::take(&mut self.skipped);
                return Ok(tailed);
            }
            let _ = self.changed.changed().await;
        }
    }
}
