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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fanfare_store::conformance::fixtures::{
        attempt, dead_letter, failed_attempt, parked, retry, second,
    };

    use super::*;

    /// The rows of one delivery.
    #[derive(Default)]
    struct Left {
        retry: Option<RetryState>,
        parked: bool,
        dead: Option<DeadLetter>,
        last: Option<AttemptRow>,
    }

    impl Left {
        fn standing(&self) -> Standing {
            let retry = self.retry.map(|state| retry(1, 1, state));
            let parked = self.parked.then(|| parked(1, 1));
            let (dead, last) = (self.dead.as_ref(), self.last.as_ref());
            standing(retry.as_ref(), parked.as_ref(), dead, last)
        }
    }

    fn delivered() -> AttemptRow {
        attempt(1, second(0), 1, 1)
    }

    fn failed(status: u16) -> AttemptRow {
        failed_attempt(delivered(), Outcome::status(status, None))
    }

    fn given_up(status: u16) -> AttemptRow {
        AttemptRow {
            next_attempt: None,
            ..failed(status)
        }
    }

    fn dead(redriven: Option<i64>) -> DeadLetter {
        DeadLetter {
            redriven: redriven.map(second),
            ..dead_letter(1, 1, second(50))
        }
    }

    /// The rows that `words` name.
    fn left(words: &str) -> Left {
        let mut left = Left::default();
        for word in words.split_whitespace() {
            match word {
                "due" => left.retry = Some(RetryState::DueAt(second(99))),
                "ended" => left.retry = Some(RetryState::DeadLetter(second(50))),
                "done" => left.retry = Some(RetryState::Delivered(second(60))),
                "parked" => left.parked = true,
                "dead" => left.dead = Some(dead(None)),
                "redriven" => left.dead = Some(dead(Some(51))),
                "ok" => left.last = Some(delivered()),
                "failed" => left.last = Some(failed(500)),
                "failed-last" => left.last = Some(given_up(500)),
                other => panic!("no row is called {other}"),
            }
        }
        left
    }

    fn check(rows: &str, want: DeliveryState) {
        let standing = left(rows).standing();
        assert_eq!(standing.state, want, "{rows}");
        let is = |state| want == state;
        let (dead, parked) = (is(DeliveryState::DeadLetter), is(DeliveryState::Parked));
        assert_eq!(standing.dead_letter_reason.is_some(), dead, "{rows}");
        assert_eq!(standing.parked_reason.is_some(), parked, "{rows}");
        let retrying = is(DeliveryState::Retrying);
        assert_eq!(standing.next_attempt.is_some(), retrying, "{rows}");
        let settled = dead || is(DeliveryState::Delivered);
        assert_eq!(standing.settled.is_some(), settled, "{rows}");
    }

    #[test]
    fn what_never_failed_is_told_by_the_other_rows() {
        check("", DeliveryState::Pending);
        check("ok", DeliveryState::Delivered);
        check("parked", DeliveryState::Parked);
        check("dead", DeliveryState::DeadLetter);
        check("redriven", DeliveryState::Pending);
        check("redriven parked", DeliveryState::Parked);
        check("redriven ok", DeliveryState::Delivered);
        // Its retry row is about to be seen.
        check("failed", DeliveryState::Retrying);
        // A test of an endpoint has no other row.
        check("failed-last", DeliveryState::DeadLetter);
    }

    #[test]
    fn the_retry_row_is_the_authority() {
        check("due failed", DeliveryState::Retrying);
        check("due failed parked", DeliveryState::Parked);
        check("done ok", DeliveryState::Delivered);
        // The history was lost, or a parked row was left behind by a crash.
        check("done", DeliveryState::Delivered);
        check("done parked", DeliveryState::Delivered);
        check("ended dead failed-last", DeliveryState::DeadLetter);
        // Retention took the letter first.
        check("ended", DeliveryState::DeadLetter);
    }

    #[test]
    fn a_redriven_dead_letter_is_open_until_it_ends_again() {
        check("ended redriven", DeliveryState::Pending);
        check("ended redriven parked", DeliveryState::Parked);
        check("due redriven failed", DeliveryState::Retrying);
        check("done redriven", DeliveryState::Delivered);
        check("ended dead", DeliveryState::DeadLetter);
    }

    #[test]
    fn attempts_are_the_most_that_any_row_knows_of() {
        let left = Left {
            retry: Some(RetryState::DueAt(second(99))),
            last: Some(failed(500)),
            ..Left::default()
        };
        assert_eq!(left.standing().attempts, 3);
        assert_eq!(Left::default().standing().attempts, 0);
    }

    #[test]
    fn a_first_try_settles_when_its_answer_came() {
        let left = Left {
            last: Some(delivered()),
            ..Left::default()
        };
        let took = Duration::from_micros(1234 + 876);
        assert_eq!(left.standing().settled, Some(second(0).plus(took)));
    }

    #[test]
    fn a_test_that_met_gone_says_so() {
        let left = Left {
            last: Some(given_up(410)),
            ..Left::default()
        };
        assert_eq!(
            left.standing().dead_letter_reason,
            Some(DeadLetterReason::Gone)
        );
    }
}
