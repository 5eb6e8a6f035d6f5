//! When to try again, and when to stop: a pure function of the outcome and the history.

use std::time::Duration;

use rand::Rng;

use crate::delivery::DeadLetterReason;
use crate::invalid::{Invalid, Reason};
use crate::outcome::{Outcome, OutcomeKind};
use crate::time::Timestamp;

/// A delivery's whole retrying, `Retry-After` included, ends after this.
pub const RETRYING_MAX: Duration = Duration::from_hours(7 * 24);
/// `Retry-After` is clamped to this range.
pub const RETRY_AFTER_RANGE: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_hours(24));
/// Most steps of a schedule.
pub const STEPS_MAX: usize = 30;
/// Each delay is lengthened by up to this share, so that retries of one moment spread.
const JITTER: f64 = 0.2;

/// Delays between the tries after the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySchedule(Vec<Duration>);

/// What becomes of a delivery after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was delivered.
    Delivered,
    /// Try again then.
    RetryAt(Timestamp),
    /// Give up.
    DeadLetter(DeadLetterReason),
    /// Give up, and the endpoint with it (410 Gone).
    DisableEndpoint,
}

impl Default for RetrySchedule {
    /// 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h: about three days.
    fn default() -> Self {
        let minutes = |m: u64| Duration::from_secs(m * 60);
        let hours = |h: u64| minutes(h * 60);
        Self(vec![
            Duration::from_secs(5),
            minutes(5),
            minutes(30),
            hours(2),
            hours(5),
            hours(10),
            hours(14),
            hours(20),
            hours(24),
        ])
    }
}

impl RetrySchedule {
    /// Validates: 0 to 30 steps of 100 ms to 24 h, at most 7 days together. No step: never retried.
    pub fn try_new(steps: Vec<Duration>) -> Result<Self, Invalid> {
        let range = Duration::from_millis(100)..=Duration::from_hours(24);
        let total: Duration = steps.iter().sum();
        if steps.len() > STEPS_MAX
            || steps.iter().any(|s| !range.contains(s))
            || total > RETRYING_MAX
        {
            let rule = "must be at most 30 delays of 100ms to 24h, together at most 7 days, for example 5s,5m,30m";
            return Err(Invalid::new(
                Reason::ScheduleInvalid,
                "retry_schedule",
                rule,
            ));
        }
        Ok(Self(steps))
    }

    /// The delays.
    pub fn steps(&self) -> &[Duration] {
        &self.0
    }
}

/// Decides after attempt number `attempt` (the first is 1) of a delivery first tried at `first`.
///
/// Jitter only lengthens a delay (full jitter of up to 20 %), and never past [`RETRYING_MAX`].
pub fn decide(
    outcome: &Outcome,
    attempt: u32,
    first: Timestamp,
    schedule: &RetrySchedule,
    now: Timestamp,
    rng: &mut impl Rng,
) -> Verdict {
    if outcome.is_delivered() {
        return Verdict::Delivered;
    }
    if outcome.http_status == Some(410) {
        return Verdict::DisableEndpoint;
    }
    let step = usize::try_from(attempt)
        .ok()
        .and_then(|a| schedule.0.get(a.checked_sub(1)?));
    let Some(step) = step else {
        return Verdict::DeadLetter(last_reason(outcome));
    };
    let spread = step.mul_f64(1.0 + JITTER * rng.random::<f64>());
    let delay = match slow_down(outcome) {
        Some(asked) => spread.max(asked),
        None => spread,
    };
    let at = now.plus(delay);
    if at > first.plus(RETRYING_MAX) {
        return Verdict::DeadLetter(last_reason(outcome));
    }
    Verdict::RetryAt(at)
}

/// `Retry-After` counts on the statuses that mean "slow down", clamped.
fn slow_down(outcome: &Outcome) -> Option<Duration> {
    let slow = matches!(outcome.http_status, Some(429 | 502 | 503 | 504));
    let (min, max) = RETRY_AFTER_RANGE;
    outcome
        .retry_after
        .filter(|_| slow)
        .map(|asked| asked.clamp(min, max))
}

fn last_reason(outcome: &Outcome) -> DeadLetterReason {
    match outcome.kind {
        OutcomeKind::EgressDenied => DeadLetterReason::EgressDenied,
        _ => DeadLetterReason::AttemptsExhausted,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const FIRST: Timestamp = Timestamp::from_millis(1_000_000);

    fn verdict(outcome: &Outcome, attempt: u32, now: Timestamp) -> Verdict {
        decide(
            outcome,
            attempt,
            FIRST,
            &RetrySchedule::default(),
            now,
            &mut StdRng::seed_from_u64(1),
        )
    }

    fn delay(outcome: &Outcome, attempt: u32) -> Duration {
        match verdict(outcome, attempt, FIRST) {
            Verdict::RetryAt(at) => at.since(FIRST),
            other => panic!("expected a retry, got {other:?}"),
        }
    }

    #[test]
    fn each_failed_try_waits_its_step_and_a_little_more() {
        let failed = Outcome::status(500, None);
        for (i, step) in RetrySchedule::default().steps().iter().enumerate() {
            let delay = delay(&failed, u32::try_from(i).unwrap() + 1);
            assert!(
                delay >= *step && delay <= step.mul_f64(1.2),
                "{delay:?} for {step:?}"
            );
        }
        assert_eq!(
            verdict(&failed, 10, FIRST),
            Verdict::DeadLetter(DeadLetterReason::AttemptsExhausted)
        );
    }

    #[test]
    fn gone_disables_and_success_ends() {
        assert_eq!(
            verdict(&Outcome::status(410, None), 1, FIRST),
            Verdict::DisableEndpoint
        );
        assert_eq!(
            verdict(&Outcome::delivered(204), 3, FIRST),
            Verdict::Delivered
        );
    }

    #[test]
    fn retry_after_is_honoured_within_bounds_and_only_where_it_means_slow_down() {
        let hour = Duration::from_hours(1);
        assert_eq!(delay(&Outcome::status(503, Some(hour)), 1), hour);
        assert_eq!(
            delay(&Outcome::status(429, Some(Duration::MAX)), 1),
            Duration::from_hours(24)
        );
        assert!(delay(&Outcome::status(500, Some(hour)), 1) < hour);
        assert!(delay(&Outcome::status(503, Some(Duration::ZERO)), 1) >= Duration::from_secs(5));
    }

    #[test]
    fn retrying_ends_after_seven_days_whatever_the_schedule() {
        let late = FIRST.plus(RETRYING_MAX);
        let failed = Outcome::failed(OutcomeKind::Timeout, "");
        assert_eq!(
            verdict(&failed, 2, late),
            Verdict::DeadLetter(DeadLetterReason::AttemptsExhausted)
        );
    }

    #[test]
    fn a_denied_address_is_named_in_the_end() {
        let denied = Outcome::failed(OutcomeKind::EgressDenied, "");
        assert_eq!(
            verdict(&denied, 10, FIRST),
            Verdict::DeadLetter(DeadLetterReason::EgressDenied)
        );
    }

    #[test]
    fn bad_schedules_are_refused() {
        let s = Duration::from_secs;
        for bad in [
            vec![s(0)],
            vec![s(86_401)],
            vec![s(1); 31],
            vec![s(86_400); 8],
        ] {
            assert!(RetrySchedule::try_new(bad).is_err());
        }
        assert!(RetrySchedule::try_new(vec![]).is_ok());
    }
}
