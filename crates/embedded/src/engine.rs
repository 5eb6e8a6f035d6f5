//! The engine: takes records and changes in, orders them, and answers reads.
//!
//! One short lock orders everything: under it a batch gets its positions, its frames go into the
//! open group, its changes into the view's overlay, its records into the tail rings. No IO happens
//! under it. What was submitted is therefore visible at once and in one order; it is durable when
//! [`Placed::durable`] resolves.

mod ending;
mod opening;
mod reads;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use fanfare_domain::Position;
use fanfare_event_log::{LogError, LogErrorKind, Stream};
use parking_lot::{Condvar, Mutex};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot, watch};

use crate::EmbeddedConfig;
use crate::changes::{Batch, Change, Derive, Effect, Item, Ready, Space};
use crate::directory::{Checkpoint, Directory};
use crate::disk::Disk;
use crate::frame::Lane;
use crate::front::{Claim, Front, State};
use crate::reading::Quarantine;
use crate::ring::Ring;
use crate::segments::Segments;
use crate::view::View;
use crate::writer::Completed;

/// The engine's own space: what each group committed.
pub(crate) const PROGRESS: Space = Space(0);

/// Most bytes that wait to be written and synced. What a disk of 100 MB/s takes in 80 ms.
const UNSYNCED_MAX: usize = 8 << 20;
/// The view is brought up to date at least every so many segments, which bounds a replay.
const REPLAY_SEGMENTS: u64 = 8;

/// The engine; see the module.
pub(crate) struct Engine {
    pub(crate) front: Mutex<Front>,
    /// The writer waits here for something to do.
    pub(crate) work: Condvar,
    pub(crate) segments: Segments,
    pub(crate) quarantine: Quarantine,
    pub(crate) view: View,
    pub(crate) config: EmbeddedConfig,
    pub(crate) disk: Arc<dyn Disk>,
    directory: Mutex<Option<Directory>>,
    incarnation: u32,
    spans: u16,
    /// Events by span, then deliveries by span.
    rings: Vec<Mutex<Ring>>,
    derive: Box<dyn Derive>,
    durable: AtomicU64,
    /// Someone waits for this position to be durable who has put nothing into a group.
    wanted: AtomicU64,
    durable_lock: Mutex<()>,
    durable_grown: Condvar,
    /// Everything below it is in the view's trees, and a restart begins there.
    pub(crate) persisted: AtomicU64,
    /// New events are refused: the file system is nearly full.
    pub(crate) events_closed: AtomicBool,
    /// Asked for a look at the view's size, or at the segments.
    pub(crate) flush: Signal,
    pub(crate) keep: Signal,
    pub(crate) compact: Signal,
    /// Something was appended to a stream, or the engine stopped.
    placed_news: [Notify; 2],
    /// Records of a stream became durable, or the engine stopped.
    durable_news: [Notify; 2],
    /// Became durable, and the runtime is yet to be told.
    pub(crate) completed: Mutex<Completed>,
    pub(crate) completed_news: Notify,
    /// Room was made: a group was written, a generation flushed, a segment prepared.
    room: Notify,
    failure: watch::Sender<Option<String>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Wakes one thread.
#[derive(Default)]
pub(crate) struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

/// A batch that has its place.
pub(crate) struct Placed {
    /// Of the appended records, in order.
    pub(crate) positions: Vec<Position>,
    durable: oneshot::Receiver<()>,
}

impl Signal {
    /// Wakes the thread, or keeps it from sleeping next time.
    pub(crate) fn raise(&self) {
        let mut raised = self.raised.lock();
        if !*raised {
            *raised = true;
            self.changed.notify_one();
        }
    }

    /// Sleeps until raised, or for `most`.
    pub(crate) fn wait(&self, most: std::time::Duration) {
        let mut raised = self.raised.lock();
        if !*raised {
            self.changed.wait_for(&mut raised, most);
        }
        *raised = false;
    }
}

impl Placed {
    /// Resolves when the batch is durable. Errors: `Unknown`, when the engine stops first.
    pub(crate) async fn durable(self) -> Result<Vec<Position>, LogError> {
        match self.durable.await {
            Ok(()) => Ok(self.positions),
            Err(_) => Err(LogError::new(LogErrorKind::Unknown)),
        }
    }
}

impl Engine {
    /// How many spans each stream has.
    pub(crate) fn spans(&self) -> u16 {
        self.spans
    }

    /// Gives a batch its place. Never waits; see [`Engine::write`] for who can.
    ///
    /// Errors, with nothing of the batch taken: `TooLarge`, `Full`, `Unavailable` (wait for
    /// [`Engine::room`]), `Closed`.
    pub(crate) fn submit(&self, batch: Batch) -> Result<Placed, LogError> {
        let claim = claim(&batch);
        let ready = batch.ready(&*self.derive);
        self.place(ready, claim).map_err(|(_, error)| error)
    }

    /// Waits for room, then gives a batch its place. Dropped before that, nothing was taken.
    ///
    /// Errors, with nothing of the batch taken: `TooLarge`, `Full`, `Closed`.
    pub(crate) async fn write(&self, batch: Batch) -> Result<Placed, LogError> {
        let claim = claim(&batch);
        let mut ready = batch.ready(&*self.derive);
        loop {
            let made = self.room.notified();
            tokio::pin!(made);
            made.as_mut().enable();
            if self.has_room() {
                match self.place(ready, claim) {
                    Ok(placed) => return Ok(placed),
                    Err((back, error)) if error.kind() == LogErrorKind::Unavailable => ready = back,
                    Err((_, error)) => return Err(error),
                }
            }
            made.await;
        }
    }

    /// The log is durable up to `end`.
    pub(crate) fn durable_reached(&self, end: u64) {
        self.durable.store(end, Ordering::Release);
        let _guard = self.durable_lock.lock();
        self.durable_grown.notify_all();
    }

    /// Blocks until the log is durable up to `end`; false if the engine stopped first.
    pub(crate) fn wait_durable(&self, end: u64) -> bool {
        self.wanted.fetch_max(end, Ordering::AcqRel);
        {
            let _front = self.front.lock();
            self.work.notify_one();
        }
        let mut guard = self.durable_lock.lock();
        while self.durable() < end {
            if self.failure.borrow().is_some() || self.front.lock().state == State::Stopped {
                return false;
            }
            self.durable_grown
                .wait_for(&mut guard, std::time::Duration::from_millis(100));
        }
        true
    }

    /// Whether someone waits for a sync of what was written without one.
    pub(crate) fn sync_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire) > self.durable()
    }

    /// Records of these streams became durable, and there is room for more.
    pub(crate) fn grown(&self, streams: [bool; 2]) {
        notify(&self.durable_news, streams);
        self.room.notify_waiters();
    }

    /// Resolves when room was made after it was enabled.
    pub(crate) fn room(&self) -> Notified<'_> {
        self.room.notified()
    }

    /// Tells those who wait for room to look again.
    pub(crate) fn room_made(&self) {
        self.room.notify_waiters();
    }

    /// A restart begins at `position` from now on.
    pub(crate) fn persisted(&self, position: u64) -> std::io::Result<()> {
        if let Some(directory) = &*self.directory.lock() {
            directory.set_checkpoint(Checkpoint {
                incarnation: self.incarnation,
                position,
            })?;
        }
        self.persisted.store(position, Ordering::Release);
        self.keep.raise();
        Ok(())
    }

    /// Bytes of log after which the view is brought up to date, whatever its size.
    pub(crate) fn replay_max(&self) -> u64 {
        REPLAY_SEGMENTS * self.config.segment_bytes
    }

    /// Gives everything its place, or gives everything back.
    fn place(&self, ready: Vec<Ready>, claim: Claim) -> Result<Placed, (Vec<Ready>, LogError)> {
        if claim == Claim::Events && self.events_closed.load(Ordering::Relaxed) {
            return Err((ready, LogErrorKind::Full.into()));
        }
        let reserve = self.config.segment_bytes / 2;
        let reserve = match claim {
            Claim::Events => 2 * reserve,
            Claim::Deliveries => reserve,
            Claim::Changes => 0,
        };
        let (sender, durable) = oneshot::channel();
        let mut positions = Vec::with_capacity(ready.len());
        let mut front = self.front.lock();
        if let Err(error) = front.check(ready.iter().map(|ready| ready.draft.len()), reserve) {
            drop(front);
            self.keep.raise();
            return Err((ready, error));
        }
        let base = front.base();
        let idle = !front.has_work();
        let mut changes: Vec<Change> = Vec::new();
        let mut streams = [false; 2];
        for Ready { draft, effect } in ready {
            let position = front.place(&draft);
            match effect {
                Effect::Record { bytes, derived } => {
                    streams[number(draft.lane.stream())] = true;
                    positions.push(Position(position));
                    changes.extend(derived.into_iter().map(|derived| derived.at(position)));
                    if let Some(ring) = self.ring(draft.lane) {
                        ring.lock().push(position, bytes, self.durable());
                    }
                }
                Effect::Changes(more) => changes.extend(more),
            }
        }
        if !changes.is_empty() {
            self.view.apply(changes);
        }
        front.wait(sender, streams);
        let turned = front.base() != base;
        let position = front.position;
        if idle {
            self.work.notify_one();
        }
        drop(front);
        if turned {
            self.keep.raise();
        }
        self.look_at_view(position);
        notify(&self.placed_news, streams);
        Ok(Placed { positions, durable })
    }

    fn look_at_view(&self, position: u64) {
        let (bytes, start) = self.view.active();
        if bytes > self.config.view_buffer_bytes
            || position.saturating_sub(start) > self.replay_max()
        {
            self.flush.raise();
        }
    }

    /// Whether what is submitted now is taken without running ahead of the disk.
    pub(crate) fn has_room(&self) -> bool {
        let front = self.front.lock();
        let closed = front.state != State::Running;
        let unsynced = front.unsynced <= UNSYNCED_MAX;
        drop(front);
        closed || (unsynced && self.view.pending_bytes() <= 3 * self.config.view_buffer_bytes)
    }

    pub(crate) fn ring(&self, lane: Lane) -> Option<&Mutex<Ring>> {
        let offset = number(lane.stream()) * usize::from(self.spans);
        self.rings.get(offset + usize::from(lane.span()))
    }
}

fn number(stream: Stream) -> usize {
    match stream {
        Stream::Events => 0,
        Stream::Deliveries => 1,
    }
}

fn notify(news: &[Notify; 2], streams: [bool; 2]) {
    for (news, there) in news.iter().zip(streams) {
        if there {
            news.notify_waiters();
        }
    }
}

fn claim(batch: &Batch) -> Claim {
    let of = |item: &Item| match item {
        Item::Record { lane, .. } if lane.stream() == Stream::Events => Claim::Events,
        Item::Record { .. } => Claim::Deliveries,
        Item::Changes(_) => Claim::Changes,
    };
    batch.items.iter().map(of).min().unwrap_or(Claim::Changes)
}
