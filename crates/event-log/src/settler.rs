//! Commits a span's progress every few milliseconds while its records settle in any order.
//!
//! What holds a place for a record in flight (a permit) is handed over with its settlement and
//! dropped only when a commit that covers it is acknowledged: after a crash at most what was in
//! flight is read again. One commit is outstanding at a time.
//!
//! A log that is away is waited for, and so is a commit that is too large, which more settlements
//! make smaller; meanwhile permits are held, so that whoever takes them stops by itself.

use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::Position;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::{LogError, LogErrorKind};
use crate::log::{EventLog, Lease, Phase};
use crate::progress::{Progress, Tracker, UNSETTLED_MAX_BYTES};

/// How long to wait before a commit that the log could not take is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Room left in a commit for what one more read can add.
const ROOM_MARGIN: usize = 64 * UNSETTLED_MAX_BYTES;

/// Tracks and commits one leased span. `P` is what is held for a part until its commit.
pub struct Settler<P> {
    log: Arc<dyn EventLog>,
    lease: Lease,
    interval: Duration,
    state: Mutex<State<P>>,
    /// Something was settled or taken since the last commit. Only `run` waits for it.
    changed: Notify,
    finishing: CancellationToken,
    /// A commit was acknowledged, or there will be none any more.
    committed: Notify,
}

struct State<P> {
    tracker: Tracker,
    /// For settlements that the next commit covers.
    held: Vec<P>,
    /// For those that the commit under way covers. Kept here, and not by [`Settler::run`]: when a
    /// commit is refused, or `run` is dropped, nothing is given back before the settler goes.
    covered: Vec<P>,
    /// What the last commit that was acknowledged says, or what was inherited.
    acknowledged: Progress,
    dirty: bool,
    /// `run` has returned.
    ended: bool,
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
                covered: Vec::new(),
                acknowledged: progress.clone(),
                dirty: false,
                ended: false,
            }),
            changed: Notify::new(),
            finishing: CancellationToken::new(),
            committed: Notify::new(),
        }
    }

    /// See [`Tracker::take`]. A record with nothing open is settled by being taken.
    pub fn take(&self, position: Position, parts: u32) -> u64 {
        let mut state = self.state.lock();
        let open = state.tracker.take(position, parts);
        if open == 0 {
            self.mark_dirty(&mut state);
        }
        open
    }

    /// Part `part` of the record at `position` is settled; `permit` is dropped once a commit
    /// covers it.
    pub fn settle(&self, position: Position, part: u32, permit: P) {
        let mut state = self.state.lock();
        state.tracker.settle(position, part);
        state.held.push(permit);
        self.mark_dirty(&mut state);
    }

    /// How many records are taken and not settled.
    pub fn open_records(&self) -> usize {
        self.state.lock().tracker.open_records()
    }

    /// What a commit would record now.
    pub fn progress(&self) -> Progress {
        self.state.lock().tracker.progress()
    }

    /// Waits until an acknowledged commit says that part `part` of the record at `position` is
    /// settled: no later holder is given it again. Returns without that when [`Settler::run`] has
    /// ended. Cancel safe.
    pub async fn committed(&self, position: Position, part: u32) {
        loop {
            let committed = self.committed.notified();
            {
                let state = self.state.lock();
                if state.ended || state.acknowledged.is_settled(position, part) {
                    return;
                }
            }
            committed.await;
        }
    }

    /// Waits until at least 64 more unsettled records would fit into a commit: what a reader does
    /// before it reads. Returns at once when a read would bring nothing anyway, because the lease
    /// is no longer held or [`Settler::run`] has ended. Cancel safe.
    pub async fn room(&self) {
        let max = self.log.progress_max_bytes().saturating_sub(ROOM_MARGIN);
        loop {
            let committed = self.committed.notified();
            if self.has_room(max) {
                return;
            }
            tokio::select! {
                () = committed => {}
                () = self.lease.reached(Phase::Revoking) => return,
            }
        }
    }

    fn has_room(&self, max: usize) -> bool {
        let state = self.state.lock();
        // With nothing open, all there is was inherited: only reading it makes it smaller.
        state.ended || state.tracker.open_records() == 0 || state.tracker.fits(max)
    }

    /// Commits until [`Settler::finish`] was called and what is settled is committed, or the lease
    /// is lost. Not cancel safe in that a dropped run stops committing; nothing is lost by it.
    ///
    /// Errors: `LeaseLost`, `Closed`, `Corrupt`; others are waited out, but for a
    /// `ProgressTooLarge` at the end.
    pub async fn run(&self) -> Result<(), LogError> {
        let ended = self.commit_all().await;
        self.state.lock().ended = true;
        self.committed.notify_waiters();
        ended
    }

    /// Announces the end: `run` commits what is settled by then, and returns.
    pub fn finish(&self) {
        self.finishing.cancel();
    }

    async fn commit_all(&self) -> Result<(), LogError> {
        while let Some(progress) = self.next_commit().await {
            match self.log.commit(&self.lease, &progress).await {
                Ok(()) => {
                    let covered = {
                        let mut state = self.state.lock();
                        state.acknowledged = progress;
                        std::mem::take(&mut state.covered)
                    };
                    // What a permit does when it is dropped must not meet our lock.
                    drop(covered);
                    self.committed.notify_waiters();
                }
                Err(error) => self.wait_out(error).await?,
            }
        }
        Ok(())
    }

    /// What to commit next; `None` at the end.
    async fn next_commit(&self) -> Option<Progress> {
        while !self.state.lock().dirty {
            if self.finishing.is_cancelled() {
                return None;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = self.finishing.cancelled() => {}
            }
        }
        tokio::select! {
            () = tokio::time::sleep(self.interval) => {}
            () = self.finishing.cancelled() => {}
        }
        let mut state = self.state.lock();
        state.dirty = false;
        let State { held, covered, .. } = &mut *state;
        covered.append(held);
        Some(state.tracker.progress())
    }

    /// Returns when committing again makes sense.
    async fn wait_out(&self, error: LogError) -> Result<(), LogError> {
        match error.kind() {
            LogErrorKind::Unavailable | LogErrorKind::Unknown | LogErrorKind::Full => {
                tokio::time::sleep(RETRY_DELAY).await;
            }
            LogErrorKind::ProgressTooLarge if !self.finishing.is_cancelled() => {
                tokio::select! {
                    () = self.changed.notified() => {}
                    () = self.finishing.cancelled() => {}
                }
            }
            _ => return Err(error),
        }
        self.state.lock().dirty = true;
        Ok(())
    }

    fn mark_dirty(&self, state: &mut State<P>) {
        if !std::mem::replace(&mut state.dirty, true) {
            self.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
