//! Where a delivery stands: a pure function of the rows that it left behind.

use fanfare_domain::{DeadLetterReason, DeliveryState, Outcome, ParkedReason, Timestamp};
use fanfare_store::{AttemptRow, DeadLetter, Parked, RetryRow, RetryState};

/// Where a delivery stands, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which of the five states.
    pub state: DeliveryState,
    /// Set for a dead letter.
    pub dead_letter_reason: Option<DeadLetterReason>,
    /// Set while it is parked.
    pub parked_reason: Option<ParkedReason>,
    /// Attempts made.
    pub attempts: u32,
    /// When the next attempt is due, while it is retrying.
    pub next_attempt: Option<Timestamp>,
    /// When it was delivered or given up on.
    pub settled: Option<Timestamp>,
    /// What the last attempt came to.
    pub last_outcome: Option<Outcome>,
}

/// Reads the rows together; `last` is the last attempt in the history.
///
/// The retry row is the authority. A parked row beside one that is due says what the retry waits
/// for. A dead letter that was redriven since is open again.
pub fn standing(
    retry: Option<&RetryRow>,
    parked: Option<&Parked>,
    dead: Option<&DeadLetter>,
    last: Option<&AttemptRow>,
) -> Standing {
    let counts = [
        retry.map(|row| row.attempts),
        dead.map(|row| row.attempts),
        last.map(|row| row.number),
    ];
    let outcome = retry.map(|row| &row.last_outcome);
    let base = Standing {
        state: DeliveryState::Pending,
        dead_letter_reason: None,
        parked_reason: None,
        attempts: counts.into_iter().flatten().max().unwrap_or(0),
        next_attempt: None,
        settled: None,
        last_outcome: outcome.or(last.map(|row| &row.outcome)).cloned(),
    };
    match retry.map(|row| row.state) {
        Some(RetryState::Delivered(at)) => base.delivered(at),
        Some(RetryState::DueAt(due)) => match parked {
            Some(parked) => base.parked(parked),
            None => base.retrying(due),
        },
        Some(RetryState::DeadLetter(at)) => match dead {
            Some(dead) if is_redriven(dead) => base.open(parked),
            Some(dead) => base.dead(dead.reason, at),
            // Its dead letter is written with it, or retention took it.
            None => base.dead(DeadLetterReason::AttemptsExhausted, at),
        },
        None => never_retried(base, parked, dead, last),
    }
}

/// Deliveries that never failed, were never tried, or were given up on before they were.
fn never_retried(
    base: Standing,
    parked: Option<&Parked>,
    dead: Option<&DeadLetter>,
    last: Option<&AttemptRow>,
) -> Standing {
    let ended = last.map(|row| row.start.plus(row.latency));
    match (last, dead) {
        (Some(row), _) if row.outcome.is_delivered() => base.delivered(ended.unwrap_or(row.start)),
        (_, Some(dead)) if !is_redriven(dead) => base.dead(dead.reason, dead.at),
        // Parked, and it may have been tried before: what waits is open.
        _ if parked.is_some() => base.open(parked),
        (_, Some(_)) | (None, None) => base.open(None),
        (Some(row), None) => match (row.next_attempt, ended) {
            (Some(next), _) => base.retrying(next),
            // A test of an endpoint: one try, and no more.
            (None, Some(at)) => base.dead(last_reason(&row.outcome), at),
            (None, None) => base,
        },
    }
}

fn is_redriven(dead: &DeadLetter) -> bool {
    dead.redriven.is_some_and(|at| at >= dead.at)
}

fn last_reason(outcome: &Outcome) -> DeadLetterReason {
    match outcome.http_status {
        Some(410) => DeadLetterReason::Gone,
        _ => DeadLetterReason::AttemptsExhausted,
    }
}

impl Standing {
    fn delivered(self, at: Timestamp) -> Self {
        Self {
            state: DeliveryState::Delivered,
            settled: Some(at),
            ..self
        }
    }

    fn retrying(self, due: Timestamp) -> Self {
        Self {
            state: DeliveryState::Retrying,
            next_attempt: Some(due),
            ..self
        }
    }

    fn parked(self, parked: &Parked) -> Self {
        Self {
            state: DeliveryState::Parked,
            parked_reason: Some(parked.reason),
            ..self
        }
    }

    fn dead(self, reason: DeadLetterReason, at: Timestamp) -> Self {
        Self {
            state: DeliveryState::DeadLetter,
            dead_letter_reason: Some(reason),
            settled: Some(at),
            ..self
        }
    }

    /// Neither settled nor due: parked if it is, pending otherwise.
    fn open(self, parked: Option<&Parked>) -> Self {
        match parked {
            Some(parked) => self.parked(parked),
            None => self,
        }
    }
}
