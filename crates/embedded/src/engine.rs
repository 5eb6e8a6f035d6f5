//! The engine: takes records and changes in, orders them, and answers reads.
//!
//! One short lock orders everything: under it a batch gets its positions, its frames go into the
//! open group, its changes into the view's overlay, its records into the tail rings. No IO happens
//! under it. What was submitted is therefore visible at once and in one order; it is durable when
//! [`Placed::durable`] resolves.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use fanfare_domain::Position;
use fanfare_event_log::{Entry, LogError, LogErrorKind, ReadLimit, Stream, Visibility};
use parking_lot::{Condvar, Mutex};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot, watch};

use crate::changes::{Batch, Change, Derive, Effect, Item, Ready, Space, SpaceSpec};
use crate::directory::{Checkpoint, Directory};
use crate::disk::Disk;
use crate::flusher::{Compactor, Flusher};
use crate::frame::{Kind, Lane, SegmentHeader};
use crate::front::{Claim, Front, State};
use crate::reading::{self, Quarantine, Stretch};
use crate::recovery::{self, Frame};
use crate::ring::Ring;
use crate::segments::Segments;
use crate::space::Keeper;
use crate::view::{Chunk, Direction, Range, View};
use crate::writer::{self, Completed, Writer};
use crate::{EmbeddedConfig, OpenError};

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
    /// Opens the directory with the given spaces, recovers, and starts the threads.
    pub(crate) async fn open(
        config: EmbeddedConfig,
        disk: impl Disk,
        spaces: &[SpaceSpec],
        derive: impl Derive,
    ) -> Result<Arc<Self>, OpenError> {
        let spaces = spaces.to_vec();
        let opening = tokio::task::spawn_blocking(move || {
            Self::recover(config, Arc::new(disk), &spaces, Box::new(derive))
        });
        let engine = opening
            .await
            .map_err(|panic| OpenError::io(Path::new("the data directory"), panic))??;
        engine.clone().start();
        Ok(engine)
    }

    fn recover(
        config: EmbeddedConfig,
        disk: Arc<dyn Disk>,
        spaces: &[SpaceSpec],
        derive: Box<dyn Derive>,
    ) -> Result<Arc<Self>, OpenError> {
        check(&config)?;
        let directory = Directory::open(&config.dir, config.spans)?;
        let checkpoint = Checkpoint {
            incarnation: directory.checkpoint()?.incarnation + 1,
            ..directory.checkpoint()?
        };
        directory.set_checkpoint(checkpoint)?;
        let log = directory.log();
        let (segments, spares) =
            Segments::load(disk.clone(), &log).map_err(|e| OpenError::io(&log, e))?;
        let specs: Vec<_> = [SpaceSpec::keyed(PROGRESS.0, "progress")]
            .into_iter()
            .chain(spaces.iter().copied())
            .collect();
        let position = checkpoint.position;
        let view = View::open(&directory.view(), &specs, position)
            .map_err(|e| OpenError::io(&directory.view(), e))?;
        let quarantine = Quarantine::new(directory.quarantine());
        let first = segments.list().first().map(SegmentHeader::first);
        let start = position.max(first.unwrap_or(0));
        let replay = |frame: Frame| replay(&view, &*derive, &frame);
        let incarnation = checkpoint.incarnation;
        let recovered = recovery::recover(&segments, &quarantine, start, incarnation, replay)
            .map_err(|e| OpenError::io(&log, e))?;
        if recovered.torn > 0 {
            let torn = recovered.torn;
            tracing::warn!(bytes = torn, "cut a group that a crash left half written");
        }
        recovery::make_durable(&segments, start, recovered.end)
            .map_err(|e| OpenError::io(&log, e))?;
        let front = front(&config, &segments, spares, incarnation, recovered.end)
            .map_err(|e| OpenError::io(&log, e))?;
        let end = front.position;
        let spans = directory.spans;
        let rings = (0..2 * spans).map(|_| Mutex::new(Ring::new(end, config.tail_bytes)));
        Ok(Arc::new(Self {
            front: Mutex::new(front),
            work: Condvar::new(),
            segments,
            quarantine,
            view,
            disk,
            directory: Mutex::new(Some(directory)),
            incarnation,
            spans,
            rings: rings.collect(),
            derive,
            durable: AtomicU64::new(end),
            wanted: AtomicU64::new(0),
            durable_lock: Mutex::new(()),
            durable_grown: Condvar::new(),
            persisted: AtomicU64::new(position),
            events_closed: AtomicBool::new(false),
            flush: Signal::default(),
            keep: Signal::default(),
            compact: Signal::default(),
            placed_news: [Notify::new(), Notify::new()],
            durable_news: [Notify::new(), Notify::new()],
            completed: Mutex::default(),
            completed_news: Notify::new(),
            room: Notify::new(),
            failure: watch::Sender::new(None),
            threads: Mutex::default(),
            config,
        }))
    }

    fn start(self: Arc<Self>) {
        tokio::spawn(writer::complete(self.clone()));
        let writer = Writer::new(self.clone());
        let flusher = Flusher::new(self.clone());
        let compactor = Compactor::new(self.clone());
        let keeper = Keeper::new(self.clone());
        let threads = [
            thread("fanfare-log", move || writer.run()),
            thread("fanfare-view", move || flusher.run()),
            thread("fanfare-compact", move || compactor.run()),
            thread("fanfare-room", move || keeper.run()),
        ];
        let mut running = self.threads.lock();
        for started in threads {
            match started {
                Ok(handle) => running.push(handle),
                Err(error) => self.fail(&format!("a thread could not be started ({error})")),
            }
        }
    }

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

    /// Whether appends are still taken.
    pub(crate) fn is_running(&self) -> bool {
        self.front.lock().state == State::Running
    }

    /// Whether the writer may still make something durable.
    pub(crate) fn is_writing(&self) -> bool {
        self.front.lock().state != State::Stopped
    }

    /// Resolves with a sentence when the engine stopped by itself.
    pub(crate) fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        let mut failure = self.failure.subscribe();
        async move {
            let failed = match failure.wait_for(Option::is_some).await {
                Ok(sentence) => sentence.clone(),
                Err(_) => None,
            };
            match failed {
                Some(sentence) => sentence,
                None => std::future::pending().await,
            }
        }
    }

    /// Closes in order; see [`crate::Embedded::close`].
    pub(crate) async fn close(self: &Arc<Self>) {
        let engine = self.clone();
        let closing = tokio::task::spawn_blocking(move || engine.end(State::Closing));
        if let Err(panic) = closing.await {
            tracing::error!(%panic, "the engine was not closed in order");
        }
    }

    /// Stops taking anything and waits for the threads. [`State::Closing`] writes what was taken;
    /// [`State::Stopped`] forgets it, as a crash would.
    pub(crate) fn end(&self, state: State) {
        {
            let mut front = self.front.lock();
            if front.state != State::Stopped {
                front.state = state;
            }
        }
        self.wake_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the engine panicked");
            }
        }
        self.front.lock().state = State::Stopped;
        self.wake_all();
        *self.directory.lock() = None;
    }

    /// Stops everything because of `sentence`.
    pub(crate) fn fail(&self, sentence: &str) {
        tracing::error!("{sentence}");
        {
            let mut front = self.front.lock();
            front.state = State::Stopped;
            // Dropping the waiters tells them that nobody knows.
            drop(front.take());
        }
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                *failure = Some(sentence.to_owned());
            }
            first
        });
        self.wake_all();
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

    fn wake_all(&self) {
        {
            let _front = self.front.lock();
            self.work.notify_all();
        }
        self.flush.raise();
        self.keep.raise();
        self.compact.raise();
        self.durable_grown.notify_all();
        notify(&self.placed_news, [true; 2]);
        self.grown([true; 2]);
        self.completed_news.notify_one();
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

/// What a replayed frame means to the view.
fn replay(view: &View, derive: &dyn Derive, frame: &Frame) {
    match frame.kind {
        Kind::Record if frame.lane.stream() == Stream::Events => {
            let mut derived = Vec::new();
            derive.derive(frame.lane.span(), &frame.payload, &mut derived);
            for derived in derived {
                view.replay(frame.position, derived.at(frame.position));
            }
        }
        Kind::Changes => match crate::changes::decode(&frame.payload) {
            Some(changes) => changes
                .into_iter()
                .for_each(|change| view.replay(frame.position, change)),
            None => tracing::error!(frame.position, "changes of an unknown form were skipped"),
        },
        Kind::Record | Kind::Seal | Kind::End => {}
    }
}

/// The front at `end`, in the segment that it lies in or the one that has to follow.
fn front(
    config: &EmbeddedConfig,
    segments: &Segments,
    spares: Vec<std::path::PathBuf>,
    incarnation: u32,
    end: u64,
) -> std::io::Result<Front> {
    let capacity = config.segment_bytes;
    let mut fitting = spares
        .into_iter()
        .filter(|spare| segments.spare_fits(spare, capacity));
    let here = match segments.find(end) {
        Some(segment) => segments.target(&segment)?,
        None => {
            let header = SegmentHeader {
                base: end,
                capacity,
            };
            segments.prepare(header, fitting.next().as_deref())?
        }
    };
    let mut ahead = VecDeque::new();
    let mut after = here.header.end();
    while let Some(next) = segments.find(after) {
        after = next.header.end();
        ahead.push_back(segments.target(&next)?);
    }
    let position = end.max(here.header.first());
    Ok(Front::new(incarnation, position, here, ahead))
}

fn claim(batch: &Batch) -> Claim {
    let of = |item: &Item| match item {
        Item::Record { lane, .. } if lane.stream() == Stream::Events => Claim::Events,
        Item::Record { .. } => Claim::Deliveries,
        Item::Changes(_) => Claim::Changes,
    };
    batch.items.iter().map(of).min().unwrap_or(Claim::Changes)
}

fn check(config: &EmbeddedConfig) -> Result<(), OpenError> {
    let segment = config.segment_bytes;
    if !(1 << 16..=256 << 20).contains(&segment) || !segment.is_multiple_of(4096) {
        return Err(OpenError::invalid(
            "segment_bytes must be a multiple of 4 KiB from 64 KiB to 256 MiB",
        ));
    }
    if config.spans == 0 || !256u16.is_multiple_of(config.spans) {
        return Err(OpenError::invalid("spans must divide 256"));
    }
    if config.max_bytes < 4 * segment {
        return Err(OpenError::invalid("max_bytes must be at least 4 segments"));
    }
    Ok(())
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(run)
}

fn view_error(error: lsm_tree::Error) -> LogError {
    LogError::because(LogErrorKind::Unavailable, error)
}
