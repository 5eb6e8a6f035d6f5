//! The books: what attempts came to is judged, written down, and settled, a batch at a time.
//!
//! Order of writing, so that a crash between two writes repeats and never forgets: history, then
//! dead letters, then the retry state (whose hint comes first), then what is no longer needed
//! (hints, parked rows), then the record's part is settled. The history is the exception that may
//! be missed: while it cannot be written, attempts wait within a bound and are then dropped and
//! counted. Everything else waits for as long as the lease is good.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::{
    DeadLetterReason, EndpointId, EndpointState, Outcome, RetrySchedule, Timestamp, Verdict, retry,
};
use fanfare_event_log::Phase;
use fanfare_service::{Backoff, crash};
use fanfare_store::{
    AttemptRow, DeadLetter, DueHint, Entry, ParkedKey, RetryRow, RetryState, StoreError,
    StoreErrorKind, Write,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::attempt::Attempt;
use crate::letter::{Delivery, Origin};
use crate::shift::Shift;

/// How long outcomes are collected before they are written together.
const COLLECT: Duration = Duration::from_millis(2);
/// Most outcomes written together.
const BATCH_MAX: usize = 1_024;
/// Most attempts of history written in one call.
const HISTORY_BATCH_MAX: usize = 4_096;

/// Something that ended.
pub(crate) struct Entered {
    pub(crate) delivery: Delivery,
    pub(crate) end: End,
    /// Room in flight, given back once this is committed.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// How.
pub(crate) enum End {
    /// It was attempted.
    Attempted(Attempt),
    /// It is given up on without an attempt.
    Dead(DeadLetterReason),
}

/// What the books are told.
pub(crate) enum Told {
    /// Something ended.
    Entered(Box<Entered>),
    /// Say so when everything told before is written down.
    Flush(oneshot::Sender<()>),
}

/// What is to be written for a batch.
#[derive(Default)]
struct Page {
    history: Vec<AttemptRow>,
    dead: Vec<DeadLetter>,
    retries: Vec<RetryRow>,
    hints: Vec<DueHint>,
    unparked: BTreeMap<EndpointId, Vec<ParkedKey>>,
    gone: Vec<EndpointId>,
}

/// Writes until the lease is lost, or its task is ended.
pub(crate) async fn keep(shift: Arc<Shift>, mut told: mpsc::Receiver<Told>) {
    let mut messages = Vec::new();
    let mut backlog = VecDeque::new();
    while told.recv_many(&mut messages, BATCH_MAX).await > 0 {
        if messages.len() < BATCH_MAX / 8 {
            tokio::time::sleep(COLLECT).await;
            while messages.len() < BATCH_MAX
                && let Ok(more) = told.try_recv()
            {
                messages.push(more);
            }
        }
        let (mut batch, mut flushes) = (Vec::with_capacity(messages.len()), Vec::new());
        for message in messages.drain(..) {
            match message {
                Told::Entered(entered) => batch.push(*entered),
                Told::Flush(done) => flushes.push(done),
            }
        }
        if write_down(&shift, batch, &mut backlog).await.is_none() {
            return;
        }
        for done in flushes {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }
}

/// Writes a batch down and settles it; `None` when the lease is lost.
async fn write_down(
    shift: &Arc<Shift>,
    batch: Vec<Entered>,
    backlog: &mut VecDeque<AttemptRow>,
) -> Option<()> {
    crash::point("worker.answered");
    let page = page(shift, &batch);
    write_history(shift, page.history, backlog).await;
    write(shift, page.dead, page.retries, page.hints, page.unparked).await?;
    for endpoint in page.gone {
        shift.context.tasks.spawn(disable(shift.clone(), endpoint));
    }
    for entered in batch {
        shift.ended(&entered.delivery);
        if let Origin::Fresh(part) | Origin::Test(part) = entered.delivery.origin {
            shift
                .settler
                .settle(part.position, part.index, entered.permit);
        }
    }
    Some(())
}

fn page(shift: &Shift, batch: &[Entered]) -> Page {
    let now = shift.context.outfit.clock.now();
    let mut page = Page::default();
    for entered in batch {
        let delivery = &entered.delivery;
        match &entered.end {
            End::Attempted(attempt) => page.attempted(shift, delivery, attempt, now),
            End::Dead(reason) => page.give_up(delivery, *reason, None, now),
        }
        match &delivery.origin {
            Origin::Parked(key, _) => page
                .unparked
                .entry(delivery.endpoint())
                .or_default()
                .push(*key),
            Origin::Retry(hint, _) => page.hints.push(*hint),
            Origin::Fresh(_) | Origin::Test(_) => {}
        }
    }
    shift
        .context
        .instruments
        .dead_letters
        .add(page.dead.len() as u64, &[]);
    page
}

impl Page {
    fn attempted(&mut self, shift: &Shift, delivery: &Delivery, attempt: &Attempt, now: Timestamp) {
        let verdict = match delivery.origin {
            // A test is tried once, whatever comes of it.
            Origin::Test(_) => Verdict::Delivered,
            _ => judge(shift, delivery, attempt, now),
        };
        let next_attempt = match verdict {
            Verdict::RetryAt(at) => Some(at),
            _ => None,
        };
        self.history
            .push(history_row(delivery, attempt, next_attempt));
        match verdict {
            // A first try that worked needs no state: its history and its settling say it all.
            Verdict::Delivered if delivery.chain().is_none() => {}
            Verdict::Delivered => {
                self.retries
                    .push(retry_row(delivery, attempt, RetryState::Delivered(now)));
            }
            Verdict::RetryAt(at) => {
                self.retries
                    .push(retry_row(delivery, attempt, RetryState::DueAt(at)));
            }
            Verdict::DeadLetter(reason) => self.give_up(delivery, reason, Some(attempt), now),
            Verdict::DisableEndpoint => {
                self.give_up(delivery, DeadLetterReason::Gone, Some(attempt), now);
                self.gone.push(delivery.endpoint());
            }
        }
    }

    fn give_up(
        &mut self,
        delivery: &Delivery,
        reason: DeadLetterReason,
        attempt: Option<&Attempt>,
        now: Timestamp,
    ) {
        if matches!(delivery.origin, Origin::Test(_)) {
            return;
        }
        let made = attempt.map_or_else(|| delivery.attempts(), |attempt| attempt.number);
        self.dead.push(DeadLetter {
            delivery: delivery.id,
            tenant: delivery.letter.event.tenant.clone(),
            subscription: delivery.target.subscription,
            event: delivery.letter.reference.clone(),
            event_type: delivery.letter.event.event.event_type.clone(),
            generation: delivery.letter.generation,
            reason,
            at: now,
            attempts: made,
            redriven: None,
        });
        match (attempt, delivery.chain()) {
            (Some(attempt), _) => {
                self.retries
                    .push(retry_row(delivery, attempt, RetryState::DeadLetter(now)));
            }
            (None, Some(row)) => {
                self.retries.push(RetryRow {
                    state: RetryState::DeadLetter(now),
                    ..row.clone()
                });
            }
            (None, None) => {}
        }
    }
}

fn judge(shift: &Shift, delivery: &Delivery, attempt: &Attempt, now: Timestamp) -> Verdict {
    let (before, first) = match delivery.chain() {
        Some(row) => (row.attempts_before, row.first_attempt),
        None => (0, attempt.start),
    };
    let callee = shift.lanes.lane(delivery.endpoint()).callee();
    let own = callee
        .as_ref()
        .and_then(|callee| callee.endpoint.retry_schedule.as_ref());
    let schedule: &RetrySchedule = own.unwrap_or(&shift.context.schedule);
    let number = attempt.number.saturating_sub(before);
    retry::decide(
        &attempt.outcome,
        number,
        first,
        schedule,
        now,
        &mut rand::rng(),
    )
}

fn history_row(
    delivery: &Delivery,
    attempt: &Attempt,
    next_attempt: Option<Timestamp>,
) -> AttemptRow {
    AttemptRow {
        tenant: delivery.letter.event.tenant.clone(),
        delivery: delivery.id,
        subscription: delivery.target.subscription,
        event: delivery.letter.reference.clone(),
        event_type: delivery.letter.event.event.event_type.clone(),
        number: attempt.number,
        start: attempt.start,
        latency: attempt.latency,
        outcome: attempt.outcome.clone(),
        next_attempt,
        answer: attempt.answer.clone(),
        answer_truncated: attempt.truncated,
    }
}

fn retry_row(delivery: &Delivery, attempt: &Attempt, state: RetryState) -> RetryRow {
    let (before, first) = match delivery.chain() {
        Some(row) => (row.attempts_before, row.first_attempt),
        None => (0, attempt.start),
    };
    RetryRow {
        delivery: delivery.id,
        tenant: delivery.letter.event.tenant.clone(),
        subscription: delivery.target.subscription,
        event: delivery.letter.reference.clone(),
        generation: delivery.letter.generation,
        attempts: attempt.number,
        attempts_before: before,
        first_attempt: first,
        last_outcome: Outcome::clone(&attempt.outcome),
        state,
    }
}

/// Adds to the history what it can take; keeps the rest for later, within the bound.
async fn write_history(shift: &Shift, rows: Vec<AttemptRow>, backlog: &mut VecDeque<AttemptRow>) {
    backlog.extend(rows);
    while !backlog.is_empty() {
        let next: Vec<_> = backlog.iter().take(HISTORY_BATCH_MAX).cloned().collect();
        let count = next.len();
        if let Err(error) = shift.context.stores.history.append(next).await {
            let excess = backlog
                .len()
                .saturating_sub(shift.context.config.history_backlog);
            tracing::warn!(%error, dropped = excess, "the history cannot be written for now");
            backlog.drain(..excess);
            shift
                .context
                .instruments
                .history_dropped
                .add(excess as u64, &[]);
            return;
        }
        backlog.drain(..count);
    }
}

/// Writes everything else, for as long as the lease is good; `None` when it no longer is.
async fn write(
    shift: &Shift,
    dead: Vec<DeadLetter>,
    retries: Vec<RetryRow>,
    hints: Vec<DueHint>,
    unparked: BTreeMap<EndpointId, Vec<ParkedKey>>,
) -> Option<()> {
    let (stores, tenure) = (&shift.context.stores, &shift.lease.tenure);
    if !dead.is_empty() {
        persist(shift, "write dead letters", || {
            stores.dead_letters.put(tenure, dead.clone())
        })
        .await?;
    }
    if !retries.is_empty() {
        persist(shift, "write retry state", || {
            stores.retries.put(tenure, retries.clone())
        })
        .await?;
    }
    if !hints.is_empty() {
        persist(shift, "forget due hints", || {
            stores.retries.forget(tenure, hints.clone())
        })
        .await?;
    }
    for (endpoint, keys) in unparked {
        persist(shift, "remove parked rows", || {
            stores.parking.unpark(tenure, endpoint, keys.clone())
        })
        .await?;
    }
    Some(())
}

/// Repeats `write` until it worked; `None` when the lease is lost or the store closed.
pub(crate) async fn persist<F>(
    shift: &Shift,
    action: &'static str,
    write: impl Fn() -> F,
) -> Option<()>
where
    F: Future<Output = Result<(), StoreError>>,
{
    let mut backoff = Backoff::new(action);
    loop {
        match write().await {
            Ok(()) => return Some(()),
            Err(error) => {
                let over = matches!(
                    error.kind(),
                    StoreErrorKind::NotOwner | StoreErrorKind::Closed
                );
                if over || shift.lease.phase() == Phase::Lost {
                    tracing::info!(lease = ?shift.lease, %error, "what ended late is left to the next owner");
                    return None;
                }
                backoff.wait(&error).await;
            }
        }
    }
}

/// Disables an endpoint that answered 410 Gone. Decided again whenever the configuration moved.
async fn disable(shift: Arc<Shift>, id: EndpointId) {
    let context = &shift.context;
    let follower = &context.follower;
    let mut backoff = Backoff::new("disable an endpoint");
    loop {
        let catalog = follower.catalog();
        let Some(endpoint) = catalog
            .endpoint(id)
            .filter(|e| e.state != EndpointState::Disabled)
        else {
            return;
        };
        let head = catalog.head_of(&endpoint.tenant);
        let mut changed = fanfare_domain::Endpoint::clone(endpoint);
        changed.state = EndpointState::Disabled;
        changed.state_reason = "the endpoint answered 410 Gone".into();
        changed.update_time = context.outfit.clock.now();
        changed.version = head.0 + 1;
        let bucket = fanfare_store::config::bucket_of(&endpoint.tenant);
        let write = vec![Write::Put(Box::new(Entry::Endpoint(changed)))];
        match context.stores.config.write(bucket, head, write).await {
            Ok(_) => {
                let _ = follower.refresh().await;
                return;
            }
            Err(error) if error.kind() == StoreErrorKind::HeadMoved => {
                if let Err(error) = follower.refresh().await {
                    backoff.wait(&error).await;
                }
            }
            Err(error)
                if shift.lease.phase() == Phase::Lost || error.kind() == StoreErrorKind::Closed =>
            {
                return tracing::warn!(%error, "an endpoint that is gone was not disabled; its next 410 will");
            }
            Err(error) => backoff.wait(&error).await,
        }
    }
}
