//! A log in memory: a backend like any other, for tests and for trying things out.
//!
//! It keeps the whole contract as long as the process lives. Durability is played: an append or a
//! commit resolves after a *sync* that covers it, which comes by itself ([`SyncMode::Automatic`]) or
//! when a test says so ([`SyncMode::Manual`]); [`MemoryLog::crash`] drops what no sync covered, ends
//! every reader and loses every lease. Calls can be made to fail or stall ([`MemoryLog::set_fault`]).
//!
//! Memory is bounded: records that every group settled are dropped, and past
//! [`MemoryConfig::max_bytes`] appends are refused as `Full`.

mod fault;
mod reading;
mod span;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fanfare_domain::{Position, Shard, ShardSet};
use parking_lot::Mutex;
use tokio::sync::watch;

pub use self::fault::{Call, Fault};
use self::reading::{MemoryReader, MemoryTail};
use self::span::SpanLog;
use crate::error::{LogError, LogErrorKind};
use crate::local::LocalGroups;
use crate::log::{EventLog, Group, Lease, Outgoing, Reader, Span, Stream, Tail, Visibility};
use crate::progress::Progress;

/// How a [`MemoryLog`] behaves.
#[derive(Clone, Debug)]
pub struct MemoryConfig {
    /// Spans of each stream; divides 256.
    pub spans: u16,
    /// When a record becomes durable.
    pub sync: SyncMode,
    /// Distance between the positions of neighbours; more than 1 makes gaps.
    pub position_step: u64,
    /// After how long a revoked lease is lost.
    pub revoke_deadline: Duration,
    /// See [`EventLog::progress_max_bytes`].
    pub progress_max_bytes: usize,
    /// Most bytes of one record.
    pub record_max_bytes: usize,
    /// Most bytes of all records kept.
    pub max_bytes: usize,
}

/// When a [`MemoryLog`] becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Right after every append and commit.
    Automatic,
    /// At [`MemoryLog::sync`].
    Manual,
}

/// A log in memory. Clones are the same log.
#[derive(Clone)]
pub struct MemoryLog(Arc<Shared>);

struct Shared {
    config: MemoryConfig,
    groups: LocalGroups,
    state: Mutex<State>,
    /// Told whenever something was appended, synced, crashed, closed, or a fault changed.
    changed: watch::Sender<()>,
}

struct State {
    events: Vec<SpanLog>,
    deliveries: Vec<SpanLog>,
    bytes: usize,
    /// Counts the crashes: who waits for a sync sees that there was one.
    life: u64,
    /// Counts everything that wants a sync, and how much of it has had one.
    written: u64,
    synced: u64,
    closed: bool,
    faults: HashMap<Call, Fault>,
}

/// Something written that wants to be durable.
#[derive(Clone, Copy)]
struct Ticket {
    life: u64,
    written: u64,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            spans: 4,
            sync: SyncMode::Automatic,
            position_step: 1,
            revoke_deadline: Duration::from_secs(45),
            progress_max_bytes: 4096,
            record_max_bytes: 4 * 1024 * 1024,
            max_bytes: 1024 * 1024 * 1024,
        }
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new(MemoryConfig::default())
    }
}

impl MemoryLog {
    /// An empty log.
    ///
    /// # Panics
    /// Unless the number of spans divides 256.
    pub fn new(config: MemoryConfig) -> Self {
        assert!(
            ShardSet::try_new(0, config.spans).is_some(),
            "{} spans do not divide 256 shards",
            config.spans
        );
        let step = config.position_step.max(1);
        let spans = || (0..config.spans).map(|_| SpanLog::new(step)).collect();
        let state = State {
            events: spans(),
            deliveries: spans(),
            bytes: 0,
            life: 0,
            written: 0,
            synced: 0,
            closed: false,
            faults: HashMap::new(),
        };
        Self(Arc::new(Shared {
            groups: LocalGroups::new(config.revoke_deadline),
            config,
            state: Mutex::new(state),
            changed: watch::channel(()).0,
        }))
    }

    /// Makes everything written so far durable.
    pub fn sync(&self) {
        self.0.sync();
    }

    /// Dies and comes back: drops what is not synced, answers waiting calls with `Unknown`, ends
    /// every reader and tail, loses every lease.
    pub fn crash(&self) {
        self.0.groups.reset(|| {
            let mut state = self.0.state.lock();
            state.life += 1;
            let freed: usize = state.every_span().map(SpanLog::crash).sum();
            state.bytes -= freed;
            state.synced = state.written;
        });
        self.0.changed.send_replace(());
    }

    /// Stops for good: every call answers `Closed`.
    pub fn close(&self) {
        self.0.groups.close();
        self.0.state.lock().closed = true;
        self.0.changed.send_replace(());
    }

    /// Makes calls of a kind go wrong until told otherwise.
    pub fn set_fault(&self, call: Call, fault: Option<Fault>) {
        let mut state = self.0.state.lock();
        match fault {
            Some(fault) => state.faults.insert(call, fault),
            None => state.faults.remove(&call),
        };
        drop(state);
        self.0.changed.send_replace(());
    }

    /// Takes `lease` away at once, as from a holder that died or froze.
    pub fn lose(&self, lease: &Lease) {
        self.0.groups.lose(lease);
    }

    /// Bytes of all records kept.
    pub fn bytes(&self) -> usize {
        self.0.state.lock().bytes
    }

    /// What was last committed by `group` on span `span`.
    pub fn progress(&self, stream: Stream, group: &Group, span: u16) -> Progress {
        self.0.state.lock().span(stream, span).progress(group)
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn spans(&self, _stream: Stream) -> Vec<Span> {
        (0..self.0.config.spans).map(|i| self.0.span(i)).collect()
    }

    fn span_of(&self, _stream: Stream, shard: Shard, _subject: &str) -> Span {
        self.0.span(u16::from(shard.0) % self.0.config.spans)
    }

    async fn append(
        &self,
        stream: Stream,
        batch: Vec<Outgoing>,
    ) -> Result<Vec<Position>, LogError> {
        let fault = self.0.faulted(Call::Append).await?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let (positions, ticket) = self.0.write(stream, batch)?;
        self.0.synced(ticket).await?;
        fault.map_or(Ok(positions), Err)
    }

    async fn join(
        &self,
        stream: Stream,
        group: &Group,
        visibility: Visibility,
    ) -> Result<Box<dyn Reader>, LogError> {
        if let Some(error) = self.0.faulted(Call::Join).await? {
            return Err(error);
        }
        let reader = MemoryReader::join(self.0.clone(), stream, group, visibility);
        Ok(Box::new(reader))
    }

    async fn tail(&self, stream: Stream) -> Result<Box<dyn Tail>, LogError> {
        if let Some(error) = self.0.faulted(Call::Join).await? {
            return Err(error);
        }
        Ok(Box::new(MemoryTail::new(self.0.clone(), stream)))
    }

    async fn commit(&self, lease: &Lease, progress: &Progress) -> Result<(), LogError> {
        let fault = self.0.faulted(Call::Commit).await?;
        if progress.encoded_len() > self.0.config.progress_max_bytes {
            return Err(LogErrorKind::ProgressTooLarge.into());
        }
        let write = || self.0.write_progress(lease, progress);
        let ticket = self.0.groups.while_good(lease, write);
        self.0
            .synced(ticket.ok_or(LogErrorKind::LeaseLost)?)
            .await?;
        fault.map_or(Ok(()), Err)
    }

    fn progress_max_bytes(&self) -> usize {
        self.0.config.progress_max_bytes
    }
}

impl Shared {
    fn span(&self, index: u16) -> Span {
        let shards = ShardSet::try_new(index, self.config.spans).unwrap_or(ShardSet::ALL);
        Span { index, shards }
    }

    /// What `call` shall answer although it happened; an error when it shall not happen.
    async fn faulted(&self, call: Call) -> Result<Option<LogError>, LogError> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let (closed, fault) = {
                let state = self.state.lock();
                (state.closed, state.faults.get(&call).copied())
            };
            match fault {
                _ if closed => return Err(LogErrorKind::Closed.into()),
                None => return Ok(None),
                Some(Fault::Refuse(kind)) => return Err(kind.into()),
                Some(Fault::LoseAnswer) => return Ok(Some(LogErrorKind::Unknown.into())),
                Some(Fault::Stall) => {
                    let _ = changed.changed().await;
                }
            }
        }
    }

    /// Places a batch; the positions, and what [`Shared::synced`] waits for.
    fn write(
        &self,
        stream: Stream,
        batch: Vec<Outgoing>,
    ) -> Result<(Vec<Position>, Ticket), LogError> {
        let over = |o: &Outgoing| o.bytes.len() > self.config.record_max_bytes;
        if batch.iter().any(over) {
            return Err(LogErrorKind::TooLarge.into());
        }
        let bytes: usize = batch.iter().map(|o| o.bytes.len()).sum();
        let mut state = self.state.lock();
        if state.bytes + bytes > self.config.max_bytes {
            return Err(LogErrorKind::Full.into());
        }
        state.bytes += bytes;
        let place = |o: Outgoing| {
            let index = u16::from(o.shard.0) % self.config.spans;
            state.span(stream, index).push(o.bytes)
        };
        let positions = batch.into_iter().map(place).collect();
        let ticket = state.ticket();
        drop(state);
        self.changed.send_replace(());
        Ok((positions, ticket))
    }

    fn write_progress(&self, lease: &Lease, progress: &Progress) -> Ticket {
        let mut state = self.state.lock();
        let span = state.span(lease.stream, lease.span.index);
        span.commit(&lease.group, progress.clone());
        state.ticket()
    }

    /// Waits for the sync that covers `ticket`. `Unknown` after a crash in between.
    async fn synced(&self, ticket: Ticket) -> Result<(), LogError> {
        let mut changed = self.changed.subscribe();
        if self.config.sync == SyncMode::Automatic {
            // What a dropped call wrote stays unsynced until the next one.
            tokio::task::yield_now().await;
            self.sync();
        }
        loop {
            changed.borrow_and_update();
            {
                let state = self.state.lock();
                match () {
                    () if state.life != ticket.life => return Err(LogErrorKind::Unknown.into()),
                    () if state.synced >= ticket.written => return Ok(()),
                    () if state.closed => return Err(LogErrorKind::Unknown.into()),
                    () => {}
                }
            }
            let _ = changed.changed().await;
        }
    }

    fn sync(&self) {
        let mut state = self.state.lock();
        state.synced = state.written;
        state.every_span().for_each(SpanLog::sync);
        let freed: usize = state.every_span().map(SpanLog::drop_settled).sum();
        state.bytes -= freed;
        drop(state);
        self.changed.send_replace(());
    }
}

impl State {
    fn stream(&mut self, stream: Stream) -> &mut [SpanLog] {
        match stream {
            Stream::Events => &mut self.events,
            Stream::Deliveries => &mut self.deliveries,
        }
    }

    fn span(&mut self, stream: Stream, index: u16) -> &mut SpanLog {
        &mut self.stream(stream)[usize::from(index)]
    }

    fn every_span(&mut self) -> impl Iterator<Item = &mut SpanLog> {
        self.events.iter_mut().chain(&mut self.deliveries)
    }

    /// For what was just written.
    fn ticket(&mut self) -> Ticket {
        self.written += 1;
        Ticket {
            life: self.life,
            written: self.written,
        }
    }
}

#[cfg(test)]
mod tests;
