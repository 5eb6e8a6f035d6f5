//! How a role writes: in turns, each a decision and a batch that are ordered together.

use std::sync::Arc;

use fanfare_event_log::{LogError, LogErrorKind};
use fanfare_store::{StoreError, StoreErrorKind};

use crate::changes::Batch;
use crate::engine::{Engine, Placed};

/// Most bytes of rows that one frame holds, unless a single row is larger.
const PART_BYTES: usize = 256 << 10;

/// The engine as the roles see it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Journal {
    pub(super) engine: Arc<Engine>,
}

/// Why a turn wrote nothing.
pub(super) enum Refused {
    /// There is no room now: take the turn again when some was made.
    NoRoom,
    /// For good.
    Failed(StoreError),
}

impl<E: Into<StoreError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Journal {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Takes `turn` when there is room, and again for as long as it finds none. A turn that reads
    /// before it writes holds its role's lock; it never waits.
    pub(super) async fn write<T>(
        &self,
        mut turn: impl FnMut() -> Result<T, Refused> + Send,
    ) -> Result<T, StoreError> {
        loop {
            let made = self.engine.room();
            tokio::pin!(made);
            made.as_mut().enable();
            if self.engine.has_room() {
                match turn() {
                    Ok(answer) => return Ok(answer),
                    Err(Refused::Failed(error)) => return Err(error),
                    Err(Refused::NoRoom) => {}
                }
            }
            made.await;
        }
    }

    /// Orders a batch: from now on every read sees it.
    pub(super) fn submit(&self, batch: Batch) -> Result<Placed, Refused> {
        match self.engine.submit(batch) {
            Ok(placed) => Ok(placed),
            Err(error) if error.kind() == LogErrorKind::Unavailable => Err(Refused::NoRoom),
            Err(error) => Err(Refused::Failed(failed(error))),
        }
    }

    /// Most bytes of one part of a large write.
    pub(super) fn part_bytes(&self) -> usize {
        let segment = usize::try_from(self.engine.config.segment_bytes).unwrap_or(usize::MAX);
        PART_BYTES.min(segment / 4)
    }

    /// Runs what may read much, or from a slow disk, where it delays nobody.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let engine = self.engine.clone();
        let reading = tokio::task::spawn_blocking(move || read(&engine));
        reading
            .await
            .map_err(|panic| StoreError::because(StoreErrorKind::Unavailable, panic))?
    }
}

/// The log's word for what happened, as a store says it.
pub(super) fn failed(error: LogError) -> StoreError {
    let kind = match error.kind() {
        LogErrorKind::Full | LogErrorKind::TooLarge => StoreErrorKind::Full,
        LogErrorKind::Closed => StoreErrorKind::Closed,
        LogErrorKind::Corrupt => StoreErrorKind::Corrupt,
        LogErrorKind::LeaseLost => StoreErrorKind::NotOwner,
        LogErrorKind::Unavailable | LogErrorKind::Unknown | LogErrorKind::ProgressTooLarge => {
            StoreErrorKind::Unavailable
        }
    };
    StoreError::because(kind, error)
}
