//! Moves the view to disk: a generation at a time, then merges tables while nothing waits for it.
//!
//! A generation that cannot be written (no room) stays readable in memory and is tried again; new
//! changes wait once memory is full, so nothing runs ahead of what can be kept.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::front::State;
use crate::view::overlay::Generation;
use crate::view::tree::Tree;

/// How long between looks when nobody calls.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long before a write that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Runs of tables in one space above which flushing waits for merging.
const RUNS_MAX: usize = 24;
/// How often everything that may have expired is looked at within one retention, and the least
/// time between two such looks.
const SWEEPS: u32 = 8;
const SWEEP_EVERY_MIN: Duration = Duration::from_hours(1);
/// Merges of one space in a row before the others get their turn.
const MERGES_MAX: usize = 8;

/// The thread that writes generations.
pub(crate) struct Flusher(Arc<Engine>);

/// The thread that merges tables.
pub(crate) struct Compactor {
    engine: Arc<Engine>,
    swept: Instant,
}

impl Flusher {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self(engine)
    }

    /// Flushes whenever enough has gathered, and all there is before the engine closes.
    pub(crate) fn run(self) {
        loop {
            self.0.flush.wait(LOOK_EVERY);
            let state = self.0.front.lock().state;
            if state == State::Stopped {
                return;
            }
            if self.is_due(state) && !self.flush() {
                return;
            }
            if state == State::Closing {
                return;
            }
        }
    }

    fn is_due(&self, state: State) -> bool {
        let (bytes, start) = self.0.view.active();
        let behind = self.0.placed() - start;
        let config = &self.0.config;
        // Without room the log can only go on once older segments are free.
        let starved = self.0.front.lock().starved && behind > config.segment_bytes / 2;
        let full = bytes > config.view_buffer_bytes || behind > self.0.replay_max();
        full || starved || (state == State::Closing && behind > 0)
    }

    /// Writes the growing generation. False if the engine stopped first.
    fn flush(&self) -> bool {
        let (generation, end) = self.0.rotate_view();
        if !self.0.wait_durable(end) {
            return false;
        }
        while let Err(error) = self.write(&generation, end) {
            let state = self.0.front.lock().state;
            if state != State::Running {
                tracing::warn!(%error, "the view was not brought up to date; the log will");
                return false;
            }
            tracing::warn!(%error, "the view cannot be written; it is tried again");
            std::thread::sleep(RETRY_AFTER);
        }
        self.0.view.written();
        self.0.room_made();
        self.0.compact.raise();
        true
    }

    fn write(&self, generation: &Generation, end: u64) -> Result<(), FlushError> {
        self.make_sure_of_room(generation)?;
        self.wait_for_merging();
        self.0.view.write(generation, end)?;
        self.0.persisted(end)?;
        Ok(())
    }

    /// A write that fails half way leaves a file behind until the next start, so it is not even
    /// tried without room.
    fn make_sure_of_room(&self, generation: &Generation) -> Result<(), FlushError> {
        let free = self.0.disk.room(&self.0.config.dir)?.free;
        if free < 2 * generation.bytes() as u64 + (1 << 20) {
            return Err(FlushError::NoRoom(free));
        }
        Ok(())
    }

    fn wait_for_merging(&self) {
        let piled = || self.0.view.trees().iter().any(|t| t.runs() > RUNS_MAX);
        while piled() && self.0.front.lock().state == State::Running {
            self.0.compact.raise();
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum FlushError {
    #[error("only {0} bytes are free")]
    NoRoom(u64),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Tree(#[from] lsm_tree::Error),
}

impl Compactor {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            swept: Instant::now(),
        }
    }

    /// Merges after every flush until there is nothing to merge, and now and then sweeps out what
    /// lies where nothing is merged any more.
    pub(crate) fn run(mut self) {
        loop {
            self.engine.compact.wait(Duration::from_mins(1));
            if !self.merge() {
                return;
            }
            let every = (self.engine.config.retention / SWEEPS).max(SWEEP_EVERY_MIN);
            if self.swept.elapsed() >= every {
                self.swept = Instant::now();
                self.sweep();
            }
        }
    }

    /// Rewrites the trees whose entries expire.
    fn sweep(&self) {
        let expiring = |tree: &&Tree| tree.spec.written_micros.is_some();
        for tree in self.engine.view.trees().iter().filter(expiring) {
            if self.engine.front.lock().state != State::Running || !self.has_room(tree.disk_bytes())
            {
                return;
            }
            if let Err(error) = tree.sweep() {
                tracing::warn!(%error, space = tree.spec.name, "what outlived the retention was not removed");
            }
        }
    }

    /// Merges what there is to merge; false when the engine no longer runs.
    fn merge(&self) -> bool {
        for tree in self.engine.view.trees() {
            for _ in 0..MERGES_MAX {
                if self.engine.front.lock().state != State::Running {
                    return false;
                }
                if !self.has_room(tree.disk_bytes()) {
                    break;
                }
                let before = tree.shape();
                if let Err(error) = tree.compact() {
                    tracing::warn!(%error, space = tree.spec.name, "tables were not merged");
                    break;
                }
                if tree.shape() == before {
                    break;
                }
            }
        }
        true
    }

    /// A merge writes before it removes.
    fn has_room(&self, tree_bytes: u64) -> bool {
        let needed = tree_bytes.min(256 << 20);
        let room = self.engine.disk.room(&self.engine.config.dir);
        room.is_ok_and(|room| room.free > needed + self.engine.config.free_bytes_min)
    }
}

impl Engine {
    /// Closes the growing generation where the log is now.
    fn rotate_view(&self) -> (Arc<Generation>, u64) {
        let front = self.front.lock();
        let end = front.position;
        (self.view.rotate(end), end)
    }

    /// Where a restart would begin.
    pub(crate) fn persisted_position(&self) -> u64 {
        self.persisted.load(Ordering::Acquire)
    }
}
