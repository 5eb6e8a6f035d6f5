//! How long the owner of a shard may still write.
//!
//! A log fences a lost lease by itself; a store does not. So every owner's write carries its
//! [`Tenure`]: the adapter checks it immediately before the write and stamps the row with a
//! number that only rises, so that a frozen owner that wakes up neither writes nor wins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The right to write for some shards, until its deadline passes or it is ended.
///
/// Cheap to clone; all clones share the deadline and the stamps. The monotonic clock is used, so
/// a clock that is set back does not lengthen a tenure.
#[derive(Clone, Debug)]
pub struct Tenure(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    /// Microseconds after `origin` until which the owner may write; 0 = ended, MAX = until ended.
    deadline: AtomicU64,
    /// The last stamp given out.
    stamp: AtomicU64,
}

impl Tenure {
    /// A tenure that lasts until it is ended: for a backend whose owner cannot change unnoticed.
    pub fn unlimited() -> Self {
        Self(Arc::new(Inner {
            origin: Instant::now(),
            deadline: AtomicU64::new(u64::MAX),
            stamp: AtomicU64::new(0),
        }))
    }

    /// A tenure of `length` from now, whose stamps start above `last_stamp`.
    pub fn lasting(length: Duration, last_stamp: u64) -> Self {
        let tenure = Self(Arc::new(Inner {
            origin: Instant::now(),
            deadline: AtomicU64::new(1),
            stamp: AtomicU64::new(last_stamp),
        }));
        tenure.extend(length);
        tenure
    }

    /// Moves the deadline to `length` from now, unless the tenure has ended.
    pub fn extend(&self, length: Duration) {
        self.extend_until(Instant::now() + length);
    }

    /// Moves the deadline to `deadline`, unless the tenure has ended or lasts longer already. For
    /// an owner that knows until when it may write: however late this is called, it grants no more.
    pub fn extend_until(&self, deadline: Instant) {
        let until = deadline
            .saturating_duration_since(self.0.origin)
            .as_micros();
        let until = u64::try_from(until).unwrap_or(u64::MAX).max(1);
        let raise = |now: u64| (now != 0).then_some(until.max(now));
        // An error only says that the tenure has ended, which is then the answer of `is_current`.
        let _ = self
            .0
            .deadline
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, raise);
    }

    /// Ends it now and for ever.
    pub fn end(&self) {
        self.0.deadline.store(0, Ordering::Release);
    }

    /// Whether the owner may still write.
    pub fn is_current(&self) -> bool {
        match self.0.deadline.load(Ordering::Acquire) {
            0 => false,
            u64::MAX => true,
            until => self.0.origin.elapsed().as_micros() < u128::from(until),
        }
    }

    /// Stamps from now on are higher than `stamp`, which a former owner may have given out.
    pub fn raise(&self, stamp: u64) {
        self.0.stamp.fetch_max(stamp, Ordering::AcqRel);
    }

    /// A write timestamp in microseconds that is higher than every one before it, and not below
    /// `now_micros`.
    pub fn stamp(&self, now_micros: u64) -> u64 {
        let next = |last: u64| Some(now_micros.max(last + 1));
        match self
            .0
            .stamp
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
        {
            Ok(last) | Err(last) => now_micros.max(last + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_tenure_stays_ended() {
        let tenure = Tenure::lasting(Duration::from_mins(1), 0);
        assert!(tenure.is_current());
        tenure.end();
        tenure.extend(Duration::from_mins(1));
        assert!(!tenure.is_current());
    }

    #[test]
    fn a_tenure_that_nobody_extends_runs_out() {
        let tenure = Tenure::lasting(Duration::ZERO, 0);
        while tenure.is_current() {
            std::hint::spin_loop();
        }
        tenure.extend(Duration::from_mins(1));
        assert!(tenure.is_current(), "extending is what keeps it");
    }

    #[test]
    fn a_deadline_in_the_past_extends_nothing() {
        let tenure = Tenure::lasting(Duration::ZERO, 0);
        let passed = Instant::now();
        while tenure.is_current() || passed.elapsed().is_zero() {
            std::hint::spin_loop();
        }
        tenure.extend_until(passed);
        assert!(!tenure.is_current());
        tenure.extend_until(Instant::now() + Duration::from_mins(1));
        tenure.extend_until(passed);
        assert!(tenure.is_current(), "a deadline never moves back");
    }

    #[test]
    fn stamps_only_rise_even_when_the_clock_falls() {
        let tenure = Tenure::lasting(Duration::from_secs(1), 100);
        let stamps: Vec<_> = [5, 200, 150, 150].map(|now| tenure.stamp(now)).into();
        assert_eq!(stamps, [101, 200, 201, 202]);
        tenure.raise(300);
        tenure.raise(250);
        assert_eq!(tenure.stamp(150), 301);
    }
}
