//! Commits a span's progress every few milliseconds while its records settle in any order.
//!
//! What holds a place for a record in flight (a permit) is handed over with its settlement and
//! dropped only when a commit that covers it is acknowledged: after a crash at most what was in
//! flight is read again. One commit is outstanding at a time.

use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::Position;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::{LogError, LogErrorKind};
use crate::log::{EventLog, Lease};
use crate::progress::{Progress, Tracker};

/// How long to wait before a commit that the log could not take is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Room left in a commit for what one more read can add: 64 records of at most 20 bytes each.
const ROOM_MARGIN: usize = 64 * 20;

/// Tracks and commits one leased span. `P` is what is held for a part until its commit.
pub struct Settler<P> {
    log: Arc<dyn EventLog>,
    lease: Lease,
    interval: Duration,
    state: Mutex<State<P>>,
    /// Something was settled or taken since the last commit, or the end was announced.
    changed: Notify,
    /// A commit was acknowledged.
    committed: Notify,
}

struct State<P> {
    tracker: Tracker,
    held: Vec<P>,
    dirty: bool,
    finishing: bool,
}

impl<P: Send> Settler<P> {
    /// Continues from `progress` under `lease`; commits at most every `interval`.
    pub fn new(
        log: Arc<dyn EventLog>,
        lease: Lease,
        progress: &Progress,
        interval: Duration,
    ) -> Self {
        let tracker = Tracker::resume(progress);
        Self {
            log,
            lease,
            interval,
            state: Mutex::new(State {
                tracker,
                held: Vec::new(),
                dirty: false,
                finishing: false,
            }),
            changed: Notify::new(),
            committed: Notify::new(),
        }
    }

    /// See [`Tracker::take`]. A record with nothing open is settled by being taken.
    pub fn take(&self, position: Position, parts: u32) -> u64 {
        let mut state = self.state.lock();
        let open = state.tracker.take(position, parts);
        if open == 0 {
            state.dirty = true;
            self.changed.notify_one();
        }
        open
    }

    /// Part `part` of the record at `position` is settled; `permit` is dropped once a commit
    /// covers it.
    pub fn settle(&self, position: Position, part: u32, permit: P) {
        let mut state = self.state.lock();
        state.tracker.settle(position, part);
        state.held.push(permit);
        state.dirty = true;
        self.changed.notify_one();
    }

    /// How many records are taken and not settled.
    pub fn open_records(&self) -> usize {
        self.state.lock().tracker.open_records()
    }

    /// Waits until at least 64 more unsettled records would fit into a commit: what a reader does
    /// before it reads. Cancel safe.
    pub async fn room(&self) {
        let max = self.log.progress_max_bytes().saturating_sub(ROOM_MARGIN);
        loop {
            let committed = self.committed.notified();
            if self.state.lock().tracker.progress().encoded_len() <= max {
                return;
            }
            committed.await;
        }
    }

    /// Commits until [`Settler::finish`] was called and what is settled is committed, or the lease
    /// is lost. Not cancel safe in that a dropped run stops committing; nothing is lost by it.
    ///
    /// Errors: `LeaseLost`, `Closed`, `Corrupt`, `ProgressTooLarge`; others are waited out.
    pub async fn run(&self) -> Result<(), LogError> {
        loop {
            let Some((progress, held)) = self.next_commit().await else {
                return Ok(());
            };
            self.commit(&progress).await?;
            drop(held);
            self.committed.notify_waiters();
        }
    }

    /// Announces the end: `run` commits what is settled by then, and returns.
    pub fn finish(&self) {
        self.state.lock().finishing = true;
        self.changed.notify_one();
    }

    async fn next_commit(&self) -> Option<(Progress, Vec<P>)> {
        loop {
            let (dirty, finishing) = {
                let state = self.state.lock();
                (state.dirty, state.finishing)
            };
            match (dirty, finishing) {
                (true, _) => break,
                (false, true) => return None,
                (false, false) => self.changed.notified().await,
            }
        }
        if !self.state.lock().finishing {
            tokio::time::sleep(self.interval).await;
        }
        let mut state = self.state.lock();
        state.dirty = false;
        Some((state.tracker.progress(), std::mem::take(&mut state.held)))
    }

    async fn commit(&self, progress: &Progress) -> Result<(), LogError> {
        loop {
            match self.log.commit(&self.lease, progress).await {
                Err(error)
                    if matches!(
                        error.kind(),
                        LogErrorKind::Unavailable | LogErrorKind::Unknown | LogErrorKind::Full
                    ) =>
                {
                    tokio::time::sleep(RETRY_DELAY).await;
                }
                other => return other,
            }
        }
    }
}
