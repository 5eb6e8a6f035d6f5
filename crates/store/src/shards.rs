//! What the owner of a span keeps about it beside the log's own progress.

use std::time::Duration;

use async_trait::async_trait;
use fanfare_domain::{Tenure, Timestamp};

use crate::error::StoreError;

/// State of one span of the deliveries or events stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardState {
    /// Encoded progress as of the last checkpoint: where a group starts whose own progress was
    /// lost. Never "from the beginning".
    pub checkpoint: Option<Vec<u8>>,
    /// Every hint due before it has fired and was forgotten: scans start here.
    pub due_cursor: Timestamp,
    /// Highest write stamp given out; a new owner's tenure starts above it.
    pub last_stamp: u64,
}

/// How long a span's owner may go on after it last saved the state: its stamps run ahead of
/// `last_stamp` by no more.
const STAMPS_AHEAD: Duration = Duration::from_secs(10);

impl ShardState {
    /// Raises a new owner's stamps above all that its predecessor may have given out, whatever the
    /// two clocks say: otherwise its first writes would lose against older ones. Answers the state
    /// that the new owner must save before it writes anything else, so that its own successor goes
    /// on above it, however soon that comes. `now_micros` is the new owner's clock.
    #[must_use]
    pub fn succeed(&self, tenure: &Tenure, now_micros: u64) -> Self {
        if self.last_stamp > 0 {
            let ahead = u64::try_from(STAMPS_AHEAD.as_micros()).unwrap_or(u64::MAX);
            tenure.raise(self.last_stamp.saturating_add(ahead));
        }
        Self {
            last_stamp: tenure.stamp(now_micros),
            ..self.clone()
        }
    }
}

/// State per (stream name, span index).
#[async_trait]
pub trait ShardStates: Send + Sync {
    /// The state; the default for one never saved.
    async fn load(&self, stream: &str, span: u16) -> Result<ShardState, StoreError>;

    /// Replaces it.
    async fn save(
        &self,
        tenure: &Tenure,
        stream: &str,
        span: u16,
        state: ShardState,
    ) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_owner_whose_clock_is_behind_still_stamps_above_the_old_one() {
        let old = Tenure::unlimited();
        let state = ShardState {
            last_stamp: old.stamp(1_000_000_000),
            ..ShardState::default()
        };
        let later = old.stamp(1_000_000_000 + 9_000_000);
        let new = Tenure::unlimited();
        let saved = state.succeed(&new, 5);
        assert!(saved.last_stamp > later);
        // It writes, and is followed by a third before it saves again.
        let written = new.stamp(6);
        let third = Tenure::unlimited();
        assert!(saved.succeed(&third, 7).last_stamp > written);
    }
}
