//! Retries that are due soon.
//!
//! [`Upcoming`] keeps the hints of the next minute in order, bounded; the loop ([`fire_all`])
//! refills it from the store and fires what is due: a hint fires only if the retry state still
//! names the same moment, and is forgotten only once a later state is written.
//!
//! The *cursor* is the moment before which every hint has fired and was forgotten. It is saved now
//! and then, so that a new owner starts there and not at the beginning of time; no hint is ever
//! written behind the last one saved.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::{DeliveryId, Timestamp};
use fanfare_service::Backoff;
use fanfare_store::{DueHint, RetryRow, RetryState, StoreError};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::letter::Origin;
use crate::owed::{self, Owed};
use crate::shift::Shift;

/// How far ahead hints are loaded.
const AHEAD: Duration = Duration::from_mins(1);
/// Most hints in memory that have not fired.
const SOON_MAX: usize = 4096;
/// Hints loaded at once, and fired at once.
const LOAD_MAX: usize = 1000;
const FIRE_MAX: usize = 128;
/// Longest sleep: the clock may jump.
const NAP: Duration = Duration::from_millis(250);
/// Between two looks at hints whose delivery is in hand.
const BUSY_NAP: Duration = Duration::from_millis(50);

/// The hints of the next minute; see the module.
pub(crate) struct Upcoming {
    soon: Mutex<Soon>,
    sooner: Notify,
}

struct Soon {
    /// Known and not fired.
    waiting: BTreeSet<DueHint>,
    /// Fired and not forgotten.
    fired: BTreeSet<DueHint>,
    /// About to be written.
    expected: BTreeSet<DueHint>,
    /// Every hint in the store up to this one is in `waiting` or `fired`.
    horizon: DueHint,
    /// A load up to here is under way.
    loading: Option<Timestamp>,
    /// The last cursor that was saved.
    saved: Timestamp,
}

impl Upcoming {
    /// Nothing is known; everything before `cursor` is done.
    pub(crate) fn new(cursor: Timestamp) -> Self {
        Self {
            soon: Mutex::new(Soon {
                waiting: BTreeSet::new(),
                fired: BTreeSet::new(),
                expected: BTreeSet::new(),
                horizon: first_at(cursor),
                loading: None,
                saved: cursor,
            }),
            sooner: Notify::new(),
        }
    }

    /// `due`, or the earliest moment that may still be written.
    pub(crate) fn not_behind(&self, due: Timestamp) -> Timestamp {
        due.max(self.soon.lock().saved)
    }

    /// These are about to be written: the cursor does not pass them.
    pub(crate) fn expect(&self, hints: &[DueHint]) {
        self.soon.lock().expected.extend(hints);
    }

    /// These are written.
    pub(crate) fn written(&self, hints: &[DueHint]) {
        let mut soon = self.soon.lock();
        for hint in hints {
            soon.expected.remove(hint);
            let known_until = soon.loading.unwrap_or_default().max(soon.horizon.due);
            if hint.due <= known_until {
                soon.waiting.insert(*hint);
            }
        }
        soon.trim();
        drop(soon);
        self.sooner.notify_one();
    }

    /// These fired and are no more.
    pub(crate) fn forgotten(&self, hints: &[DueHint]) {
        let mut soon = self.soon.lock();
        for hint in hints {
            soon.fired.remove(hint);
        }
    }

    /// The cursor to save now. Never ahead of `now`: what fails next must be allowed to be due
    /// before what is known of.
    pub(crate) fn cursor(&self, now: Timestamp) -> Timestamp {
        let mut soon = self.soon.lock();
        let firsts = [&soon.waiting, &soon.fired, &soon.expected];
        let first = firsts.into_iter().filter_map(|hints| hints.first());
        let cursor = first.fold(soon.horizon.due.min(now), |cursor, hint| {
            cursor.min(hint.due)
        });
        soon.saved = soon.saved.max(cursor);
        soon.saved
    }

    /// Where to load from, when it is time to.
    fn start_load(&self, now: Timestamp) -> Option<(DueHint, Timestamp)> {
        let mut soon = self.soon.lock();
        let until = now.plus(AHEAD);
        let is_time = soon.horizon.due < now.plus(AHEAD / 2) && soon.waiting.len() < SOON_MAX / 2;
        if !is_time {
            return None;
        }
        soon.loading = Some(until);
        Some((soon.horizon, until))
    }

    fn loaded(&self, hints: &[DueHint], until: Timestamp) {
        let mut soon = self.soon.lock();
        soon.loading = None;
        soon.horizon = match hints.last() {
            Some(last) if hints.len() >= LOAD_MAX => *last,
            _ => last_at(until),
        };
        let fired = std::mem::take(&mut soon.fired);
        soon.waiting
            .extend(hints.iter().filter(|hint| !fired.contains(hint)));
        soon.fired = fired;
        soon.trim();
    }

    fn load_failed(&self) {
        self.soon.lock().loading = None;
    }

    /// Takes what is due at `now`.
    fn due(&self, now: Timestamp) -> Vec<DueHint> {
        let mut soon = self.soon.lock();
        let mut due = Vec::new();
        while due.len() < FIRE_MAX
            && let Some(hint) = soon.waiting.first().copied()
            && hint.due <= now
        {
            soon.waiting.remove(&hint);
            soon.fired.insert(hint);
            due.push(hint);
        }
        due
    }

    /// Gives back what could not fire yet.
    fn put_back(&self, hints: &[DueHint]) {
        let mut soon = self.soon.lock();
        for hint in hints {
            soon.fired.remove(hint);
            soon.waiting.insert(*hint);
        }
    }

    /// Waits until something may be due. Cancel safe.
    async fn wait(&self, now: Timestamp) {
        let next = self.soon.lock().waiting.first().map(|hint| hint.due);
        let nap = next.map_or(NAP, |due| due.since(now).min(NAP));
        tokio::select! {
            () = tokio::time::sleep(nap) => {}
            () = self.sooner.notified() => {}
        }
    }
}

impl Soon {
    /// Forgets the latest beyond the bound: they are loaded again when their time comes nearer.
    fn trim(&mut self) {
        while self.waiting.len() > SOON_MAX {
            self.waiting.pop_last();
            if let Some(last) = self.waiting.last() {
                self.horizon = self.horizon.min(*last);
            }
        }
    }
}

fn first_at(due: Timestamp) -> DueHint {
    DueHint {
        due,
        delivery: DeliveryId::from_bytes([0; 24]),
    }
}

fn last_at(due: Timestamp) -> DueHint {
    DueHint {
        due,
        delivery: DeliveryId::from_bytes([0xff; 24]),
    }
}

/// Fires what is due for as long as it is polled.
pub(crate) async fn fire_all(shift: &Arc<Shift>) {
    let upcoming = &shift.desk.upcoming;
    let clock = &shift.crew.outfit.clock;
    let mut backoff = Backoff::new("find what is due");
    loop {
        if let Err(error) = load(shift).await {
            backoff.wait(&error).await;
            continue;
        }
        backoff.reset();
        let due = upcoming.due(clock.now());
        if due.is_empty() {
            upcoming.wait(clock.now()).await;
            continue;
        }
        // Few hints in memory: their deliveries end before more are taken in hand.
        shift.desk.room().await;
        let busy = fire(shift, due).await;
        if !busy.is_empty() {
            upcoming.put_back(&busy);
            tokio::time::sleep(BUSY_NAP).await;
        }
    }
}

async fn load(shift: &Shift) -> Result<(), StoreError> {
    let upcoming = &shift.desk.upcoming;
    let Some((after, until)) = upcoming.start_load(shift.crew.outfit.clock.now()) else {
        return Ok(());
    };
    let shards = shift.desk.shards;
    let loading = shift
        .stores
        .retries
        .due(shards, Some(after), until, LOAD_MAX);
    match loading.await {
        Ok(hints) => {
            upcoming.loaded(&hints, until);
            Ok(())
        }
        Err(error) => {
            upcoming.load_failed();
            Err(error)
        }
    }
}

/// Fires hints that agree with the retry state and forgets the others; answers those whose
/// delivery is in hand already.
async fn fire(shift: &Arc<Shift>, hints: Vec<DueHint>) -> Vec<DueHint> {
    let (hints, busy): (Vec<_>, Vec<_>) = hints
        .into_iter()
        .partition(|hint| shift.desk.take_in_hand(hint.delivery));
    let ids: Vec<DeliveryId> = hints.iter().map(|hint| hint.delivery).collect();
    let rows = owed::retry_states(shift, &ids).await;
    let (mut owed, mut stale) = (Vec::new(), Vec::new());
    for (hint, row) in hints.into_iter().zip(rows) {
        match row {
            Some(row) if agree(hint, &row) => owed.push(Owed::retry(hint, row)),
            _ => stale.push(hint),
        }
    }
    if !stale.is_empty() {
        forget(shift, stale).await;
    }
    owed::bring(shift, owed).await;
    busy
}

fn agree(hint: DueHint, row: &RetryRow) -> bool {
    row.state == RetryState::DueAt(hint.due)
}

async fn forget(shift: &Shift, hints: Vec<DueHint>) {
    let ids: Vec<DeliveryId> = hints.iter().map(|hint| hint.delivery).collect();
    let retries = &shift.stores.retries;
    let forgetting = || retries.forget(&shift.lease.tenure, hints.clone());
    // A lost lease leaves them to the next owner.
    if shift.write("forget stale hints", forgetting).await.is_ok() {
        shift.desk.upcoming.forgotten(&hints);
    }
    shift.desk.let_go(&ids);
}

impl Owed {
    /// What a hint and its state say is due.
    pub(crate) fn retry(hint: DueHint, row: RetryRow) -> Self {
        Self {
            id: row.delivery,
            subscription: row.subscription,
            event: row.event.clone(),
            generation: row.generation,
            origin: Origin::Retry(hint, Box::new(row)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000 + seconds * 1000)
    }

    fn hint(seconds: i64) -> DueHint {
        first_at(at(seconds))
    }

    fn loaded(now: i64) -> Upcoming {
        let upcoming = Upcoming::new(Timestamp::default());
        let (_, until) = upcoming.start_load(at(now)).unwrap();
        upcoming.loaded(&[], until);
        upcoming
    }

    #[test]
    fn a_saved_cursor_puts_off_nothing_that_fails_after_it() {
        let upcoming = loaded(0);
        assert_eq!(upcoming.cursor(at(5)), at(5));
        assert_eq!(upcoming.not_behind(at(6)), at(6));
    }

    #[test]
    fn the_cursor_waits_for_what_is_open_and_for_what_is_being_written() {
        let upcoming = loaded(0);
        upcoming.expect(&[hint(3)]);
        assert_eq!(upcoming.cursor(at(5)), at(3));
        upcoming.written(&[hint(3)]);
        assert_eq!(upcoming.due(at(5)), [hint(3)]);
        assert_eq!(upcoming.cursor(at(6)), at(3));
        upcoming.forgotten(&[hint(3)]);
        assert_eq!(upcoming.cursor(at(7)), at(7));
        assert_eq!(upcoming.not_behind(at(2)), at(7), "the clock was set back");
    }
}
