//! Waiting for something that is away: ever longer, never spinning, saying so without flooding.

use std::fmt;
use std::time::Duration;

/// First and longest delay.
const DELAYS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Delays between the tries of one action.
pub struct Backoff {
    action: &'static str,
    next: Duration,
}

impl Backoff {
    /// For trying to `action` ("append deliveries").
    pub fn new(action: &'static str) -> Self {
        Self {
            action,
            next: DELAYS.0,
        }
    }

    /// It worked: the next failure waits shortly again.
    pub fn reset(&mut self) {
        if self.next > DELAYS.0 {
            tracing::info!(action = self.action, "possible again");
        }
        self.next = DELAYS.0;
    }

    /// Says that `error` was met and waits, twice as long each time. Cancel safe.
    pub async fn wait(&mut self, error: &(dyn std::error::Error + Send + Sync)) {
        let delay = self.next;
        self.next = (delay * 2).min(DELAYS.1);
        let (action, error) = (self.action, chain(error));
        if delay == DELAYS.0 || delay == DELAYS.1 {
            tracing::warn!(action, %error, "cannot for now; waiting");
        } else {
            tracing::debug!(action, %error, "still cannot; waiting");
        }
        tokio::time::sleep(delay).await;
    }
}

/// An error with what is behind it, on one line.
fn chain(error: &(dyn std::error::Error + Send + Sync)) -> impl fmt::Display {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
