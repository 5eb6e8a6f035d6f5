//! The shard's own checkpoint: what decides where to begin when the group's offsets are gone.

use async_trait::async_trait;
use fanfare_event_log::{Group, Progress, Span, Stream};

/// Why a checkpoint could not be loaded.
pub type CheckpointError = Box<dyn std::error::Error + Send + Sync>;

/// Where checkpoints are kept. Implemented over the store by whoever opens the log.
#[async_trait]
pub trait Checkpoints: Send + Sync {
    /// What is known about a span whose committed offset is missing: a new group, or one whose
    /// offsets expired or were deleted. `None` says that it was never consumed; it then begins at
    /// its first record.
    ///
    /// An error holds the span: it is asked for again, and nothing is granted meanwhile.
    async fn load(
        &self,
        stream: Stream,
        group: &Group,
        span: Span,
    ) -> Result<Option<Progress>, CheckpointError>;
}

/// For groups that may begin at the first record there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCheckpoints;

#[async_trait]
impl Checkpoints for NoCheckpoints {
    async fn load(
        &self,
        _: Stream,
        _: &Group,
        _: Span,
    ) -> Result<Option<Progress>, CheckpointError> {
        Ok(None)
    }
}
