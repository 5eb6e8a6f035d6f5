//! How many senders a lane is worth, from how fast its endpoint answers.
//!
//! One connection that is answered within a millisecond carries a thousand POSTs a second; ten of
//! them carry no more when the machine is busy, and cost more each, since every one has buffers
//! and a socket of its own to pull through the caches (a quarter more CPU per delivery, measured
//! with 50 endpoints). So a lane gets one sender, and another for every millisecond of the
//! shortest latency of the last seconds. While nothing is answered it widens on its own: one slow
//! answer holds up what waits behind it for [`STALL`] at the most.
//!
//! Pure: it is told the time. Nothing limits a lane that has not delivered lately.

use std::time::Duration;

use tokio::time::Instant;

/// Latency that one sender is worth.
const STEP: Duration = Duration::from_millis(1);
/// Without an answer for another of these the lane gets another sender.
pub(super) const STALL: Duration = Duration::from_millis(10);
/// The shortest latency is remembered for one to two of these.
const WINDOW: Duration = Duration::from_secs(1);

/// What is known of a lane's endpoint.
#[derive(Clone, Debug)]
pub(super) struct Width {
    /// Shortest latency in this window, and in the one before it.
    fastest: [Option<Duration>; 2],
    window_start: Instant,
    /// When it was last answered, or became busy.
    moved: Instant,
}

impl Width {
    /// Of a lane that becomes busy now, and of which nothing is known.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            fastest: [None; 2],
            window_start: now,
            moved: now,
        }
    }

    /// It was not busy, and is now.
    pub(super) fn busy(&mut self, now: Instant) {
        self.moved = now;
    }

    /// It delivered after `latency`.
    pub(super) fn delivered(&mut self, latency: Duration, now: Instant) {
        self.moved = now;
        let age = now.saturating_duration_since(self.window_start);
        if age >= WINDOW {
            let before = self.fastest[0].filter(|_| age < 2 * WINDOW);
            self.fastest = [None, before];
            self.window_start = now;
        }
        let fastest = self.fastest[0].map_or(latency, |known| known.min(latency));
        self.fastest[0] = Some(fastest);
    }

    /// It failed: what it answered before says nothing any more.
    pub(super) fn failed(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// How many senders it is worth now, at least 1; `None` when nothing is known.
    pub(super) fn senders(&self, now: Instant) -> Option<usize> {
        let fastest = self.fastest.iter().flatten().min()?;
        let stalled = now.saturating_duration_since(self.moved);
        let steps =
            fastest.as_micros() / STEP.as_micros() + stalled.as_micros() / STALL.as_micros();
        Some(usize::try_from(steps).map_or(usize::MAX, |steps| steps.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_fast_endpoint_is_worth_one_sender_and_a_slow_one_more() {
        let start = Instant::now();
        for (latency, senders) in [(0, 1), (1, 2), (9, 10), (200, 201)] {
            let mut width = Width::new(start);
            assert_eq!(width.senders(start), None, "nothing is known");
            width.delivered(ms(latency), start);
            assert_eq!(width.senders(start), Some(senders), "{latency} ms");
        }
    }

    #[test]
    fn the_shortest_latency_counts_until_it_is_old() {
        let start = Instant::now();
        let mut width = Width::new(start);
        width.delivered(ms(0), start);
        width.delivered(ms(5), start + ms(500));
        assert_eq!(width.senders(start + ms(500)), Some(1));
        width.delivered(ms(5), start + ms(1500));
        assert_eq!(
            width.senders(start + ms(1500)),
            Some(1),
            "of the window before"
        );
        width.delivered(ms(5), start + ms(2600));
        assert_eq!(width.senders(start + ms(2600)), Some(6));
        width.delivered(ms(3), start + ms(9000));
        assert_eq!(width.senders(start + ms(9000)), Some(4));
    }

    #[test]
    fn it_widens_while_nothing_is_answered_and_after_a_failure() {
        let start = Instant::now();
        let mut width = Width::new(start);
        width.delivered(ms(0), start);
        assert_eq!(width.senders(start + ms(35)), Some(4));
        width.busy(start + ms(35));
        assert_eq!(width.senders(start + ms(35)), Some(1));
        width.failed(start + ms(40));
        assert_eq!(width.senders(start + ms(40)), None);
    }
}
