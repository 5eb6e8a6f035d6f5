//! What the owner of a span keeps about it beside the log's own progress.

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
