//! Redrive records: dead letters that start a new chain, under the same ids.
//!
//! A new chain is a retry that is due now, so it goes the way of every retry. Attempt numbers go
//! on; the schedule starts anew.

use std::sync::Arc;

use fanfare_domain::{DeliveryId, Outcome, OutcomeKind, Timestamp};
use fanfare_event_log::RedriveRecord;
use fanfare_service::Backoff;
use fanfare_store::{DeadLetter, DueHint, RetryRow, RetryState, StoreError};

use crate::owed;
use crate::shift::Shift;

/// Starts the chains of `record`, or finds that they run already. Repeating it is safe.
///
/// Errors: the lease is lost or the store is closed.
pub(crate) async fn start_chains(
    shift: &Arc<Shift>,
    record: &RedriveRecord,
    ids: &[DeliveryId],
) -> Result<(), StoreError> {
    let states = owed::retry_states(shift, ids).await;
    let letters = dead_letters(shift, ids).await;
    let due = shift
        .desk
        .upcoming
        .not_behind(shift.crew.outfit.clock.now());
    let (mut chains, mut marked) = (Vec::new(), Vec::new());
    for (letter, state) in letters.into_iter().zip(states) {
        let Some(letter) = letter.filter(|letter| is_wanted(letter, record)) else {
            continue;
        };
        let is_open = |row: &RetryRow| matches!(row.state, RetryState::DueAt(_));
        if !state.as_ref().is_some_and(is_open) {
            chains.push(new_chain(&letter, state.as_ref(), due));
        }
        marked.push(DeadLetter {
            redriven: Some(record.at),
            ..letter
        });
    }
    write(shift, chains, marked).await
}

/// Of this tenant, and not redriven by this very record before a crash.
fn is_wanted(letter: &DeadLetter, record: &RedriveRecord) -> bool {
    letter.tenant == record.tenant && letter.redriven.is_none_or(|at| at < record.at)
}

async fn write(
    shift: &Arc<Shift>,
    chains: Vec<RetryRow>,
    marked: Vec<DeadLetter>,
) -> Result<(), StoreError> {
    if marked.is_empty() {
        return Ok(());
    }
    let (stores, tenure) = (&shift.stores, &shift.lease.tenure);
    let hints: Vec<DueHint> = chains.iter().filter_map(hint).collect();
    let upcoming = &shift.desk.upcoming;
    upcoming.expect(&hints);
    let put = || stores.retries.put(tenure, chains.clone());
    shift.write("start chains of dead letters", put).await?;
    let mark = || stores.dead_letters.put(tenure, marked.clone());
    shift.write("mark dead letters as redriven", mark).await?;
    upcoming.written(&hints);
    Ok(())
}

fn hint(row: &RetryRow) -> Option<DueHint> {
    match row.state {
        RetryState::DueAt(due) => Some(DueHint {
            due,
            delivery: row.delivery,
        }),
        _ => None,
    }
}

fn new_chain(letter: &DeadLetter, last: Option<&RetryRow>, due: Timestamp) -> RetryRow {
    let untried = || Outcome::failed(OutcomeKind::Internal, "it was never attempted");
    RetryRow {
        delivery: letter.delivery,
        tenant: letter.tenant.clone(),
        subscription: letter.subscription,
        event: letter.event.clone(),
        generation: letter.generation,
        attempts: letter.attempts,
        attempts_before: letter.attempts,
        first_attempt: due,
        last_outcome: last.map_or_else(untried, |row| row.last_outcome.clone()),
        state: RetryState::DueAt(due),
    }
}

async fn dead_letters(shift: &Shift, ids: &[DeliveryId]) -> Vec<Option<DeadLetter>> {
    let mut backoff = Backoff::new("read dead letters");
    loop {
        match shift.stores.dead_letters.get(ids).await {
            Ok(letters) => return letters,
            Err(error) => backoff.wait(&error).await,
        }
    }
}
