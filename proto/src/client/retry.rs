//! Whether to try again, and when: pure decisions about one event.
//!
//! The server says whether a retry can help (`RetryInfo`) and that decides; without a word from
//! it, transport failures are retried. A repeat is always safe, because the event has an id.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::error::{PublishErrorKind, is_unreachable, reason};

/// How long and how often to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// No try begins later than this after the first. Default 30 s.
    pub give_up_after: Duration,
    /// Deadline of one try. Default 10 s.
    pub try_timeout: Duration,
    /// First pause; doubles with each try, with full jitter. Default 50 ms.
    pub pause_min: Duration,
    /// Longest pause, unless the server asks for more. Default 5 s.
    pub pause_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            give_up_after: Duration::from_secs(30),
            try_timeout: Duration::from_secs(10),
            pause_min: Duration::from_millis(50),
            pause_max: Duration::from_secs(5),
        }
    }
}

impl RetryPolicy {
    /// One try, no retries.
    pub fn once() -> Self {
        Self {
            give_up_after: Duration::ZERO,
            ..Self::default()
        }
    }

    /// How long to wait before try `tries + 1`.
    pub(super) fn pause(&self, tries: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.pause_min.saturating_mul(1 << tries.min(16));
        let most = doubled.min(self.pause_max);
        // Full jitter, on top of what the server asks for.
        let jitter = most.mul_f64(rand::rng().random_range(0.0..=1.0));
        asked.unwrap_or_default() + jitter
    }
}

/// The tries of one event.
#[derive(Debug)]
pub(super) struct Retries {
    policy: RetryPolicy,
    give_up: Instant,
    tries: u32,
    /// Whether a try may have published it.
    may_exist: bool,
}

/// What to do after a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Try again after this.
    Again(Duration),
    /// Give up; this is what is known.
    Over(PublishErrorKind),
}

impl Retries {
    pub(super) fn new(policy: &RetryPolicy) -> Self {
        Self {
            give_up: Instant::now() + policy.give_up_after,
            policy: policy.clone(),
            tries: 0,
            may_exist: false,
        }
    }

    /// Decides after a try that ended with `status` at `now`.
    pub(super) fn after(&mut self, status: &Status, now: Instant) -> Verdict {
        let reason = reason(status);
        self.may_exist |= leaves_open(status, reason.as_deref());
        let asked = status.get_details_retry_info().and_then(|i| i.retry_delay);
        let helps = match reason {
            Some(_) => asked.is_some(),
            None => is_transient(status.code()),
        };
        let pause = self.policy.pause(self.tries, asked);
        self.tries += 1;
        if helps && now + pause < self.give_up {
            return Verdict::Again(pause);
        }
        // A conflict says that the identity belongs to another body, whatever came before.
        let refused = !self.may_exist || reason.as_deref() == Some("EVENT_ID_CONFLICT");
        Verdict::Over(if refused {
            PublishErrorKind::Refused
        } else {
            PublishErrorKind::Unknown
        })
    }

    /// A try broke off without a word about this event: it may be published.
    pub(super) fn broke_off(&mut self) {
        self.may_exist = true;
    }
}

/// Whether a try that ended so may have published the event.
fn leaves_open(status: &Status, reason: Option<&str>) -> bool {
    match reason {
        Some("PUBLISH_UNKNOWN" | "DEADLINE_EXCEEDED" | "INTERNAL") => true,
        // Any other word of the server is a refusal.
        Some(_) => false,
        None => !is_unreachable(status) && !is_refusal(status.code()),
    }
}

/// Codes that a proxy or the transport gives only for calls that were not carried out.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::OutOfRange
    )
}

/// Codes without a word of the server that another try may not meet again.
fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Internal
            | Code::ResourceExhausted
    )
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    /// What a server says: a reason, and whether a retry can help.
    fn said(code: Code, reason: &str, retry: Option<Duration>) -> Status {
        let mut details = ErrorDetails::with_error_info(reason, "fanfare", []);
        if retry.is_some() {
            details.set_retry_info(retry);
        }
        Status::with_error_details(code, "", details)
    }

    const SOON: Option<Duration> = Some(Duration::from_millis(10));

    fn verdict(statuses: &[Status]) -> Vec<Verdict> {
        let mut retries = Retries::new(&RetryPolicy::default());
        let now = Instant::now();
        statuses.iter().map(|s| retries.after(s, now)).collect()
    }

    #[test]
    fn a_refusal_is_final_and_says_that_nothing_exists() {
        let refused = said(Code::InvalidArgument, "EVENT_TYPE_INVALID", None);
        assert_eq!(
            verdict(&[refused]),
            [Verdict::Over(PublishErrorKind::Refused)]
        );
        let full = said(Code::ResourceExhausted, "STORAGE_FULL", None);
        assert_eq!(verdict(&[full]), [Verdict::Over(PublishErrorKind::Refused)]);
    }

    #[test]
    fn the_server_decides_whether_and_when_a_retry_helps() {
        let busy = said(Code::ResourceExhausted, "OVERLOADED", SOON);
        let [Verdict::Again(pause)] = verdict(&[busy])[..] else {
            panic!("not retried");
        };
        assert!(pause >= Duration::from_millis(10));
        let [Verdict::Again(_)] = verdict(&[Status::unavailable("reset")])[..] else {
            panic!("a transport failure is retried");
        };
    }

    #[test]
    fn what_may_exist_is_never_called_refused_except_by_a_conflict() {
        let unknown = said(Code::Unavailable, "PUBLISH_UNKNOWN", SOON);
        let key = said(Code::Unauthenticated, "CREDENTIAL_INVALID", None);
        let conflict = said(Code::AlreadyExists, "EVENT_ID_CONFLICT", None);
        let end = |statuses: &[Status]| *verdict(statuses).last().unwrap();
        let over = Verdict::Over;
        assert_eq!(
            end(&[unknown.clone(), key.clone()]),
            over(PublishErrorKind::Unknown)
        );
        assert_eq!(
            end(&[Status::cancelled("reset"), key]),
            over(PublishErrorKind::Unknown)
        );
        assert_eq!(end(&[unknown, conflict]), over(PublishErrorKind::Refused));
    }

    #[test]
    fn no_try_begins_after_the_deadline() {
        let mut retries = Retries::new(&RetryPolicy::default());
        let busy = said(Code::ResourceExhausted, "OVERLOADED", SOON);
        let late = Instant::now() + Duration::from_secs(30);
        assert_eq!(
            retries.after(&busy, late),
            Verdict::Over(PublishErrorKind::Refused)
        );
        let mut once = Retries::new(&RetryPolicy::once());
        assert_eq!(
            once.after(&busy, Instant::now()),
            Verdict::Over(PublishErrorKind::Refused)
        );
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let policy = RetryPolicy::default();
        for tries in 0..200 {
            let most = policy.pause_min.saturating_mul(1 << tries.min(16));
            assert!(policy.pause(tries, None) <= most.min(policy.pause_max));
        }
        let asked = Duration::from_mins(1);
        assert!(policy.pause(0, Some(asked)) >= asked);
    }
}
