//! The wall clock as a value that is passed in, so that a test can set it and make it jump.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use fanfare_domain::Timestamp;

/// Tells the time. Clones tell the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The machine's clock.
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `start` until it is moved.
    pub fn manual(start: Timestamp) -> Self {
        Self(Some(Arc::new(AtomicI64::new(start.micros()))))
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            None => Timestamp::now(),
            Some(micros) => Timestamp::from_micros(micros.load(Ordering::Acquire)),
        }
    }

    /// Sets a manual clock, backwards too.
    ///
    /// # Panics
    /// On the machine's clock.
    pub fn set(&self, now: Timestamp) {
        let micros = self.0.as_ref().expect("only a manual clock can be set");
        micros.store(now.micros(), Ordering::Release);
    }

    /// Moves a manual clock forward.
    ///
    /// # Panics
    /// On the machine's clock.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().plus(by));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told_and_for_all_clones() {
        let clock = Clock::manual(Timestamp::from_millis(1_000));
        let other = clock.clone();
        clock.advance(Duration::from_secs(1));
        assert_eq!(other.now(), Timestamp::from_millis(2_000));
        other.set(Timestamp::from_millis(5));
        assert_eq!(clock.now(), Timestamp::from_millis(5));
    }

    #[test]
    fn the_system_clock_is_after_this_was_written() {
        assert!(Clock::system().now() > Timestamp::parse_rfc3339("2025-01-01T00:00:00Z").unwrap());
    }
}
