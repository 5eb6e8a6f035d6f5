//! How much may be open at once, over all spans of this process: deliveries until their event is
//! committed, bytes until they are durable. An event that owes more than there is room for takes
//! all of it, so it waits its turn and then works.

use std::sync::Arc;

use fanfare_service::ByteSize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module.
pub(super) struct Room {
    deliveries: Arc<Semaphore>,
    deliveries_max: u32,
    kibibytes: Arc<Semaphore>,
    kibibytes_max: u32,
}

/// Room that one event's deliveries take.
pub(super) struct Taken {
    /// Held until a commit covers the event.
    pub(super) deliveries: OwnedSemaphorePermit,
    /// Held until its deliveries are durable.
    pub(super) bytes: OwnedSemaphorePermit,
}

impl Room {
    pub(super) fn new(deliveries_max: u32, bytes_max: ByteSize) -> Self {
        let kibibytes_max = u32::try_from(bytes_max.0 / 1024).unwrap_or(u32::MAX).max(1);
        Self {
            deliveries: semaphore(deliveries_max),
            deliveries_max,
            kibibytes: semaphore(kibibytes_max),
            kibibytes_max,
        }
    }

    /// Waits, first come first served, for room for an event's deliveries. Cancel safe.
    pub(super) async fn take(&self, deliveries: usize, bytes: usize) -> Option<Taken> {
        let deliveries = share(deliveries, self.deliveries_max);
        let kibibytes = share(bytes.div_ceil(1024), self.kibibytes_max);
        // The semaphores are never closed; `None` would only end the span's task.
        Some(Taken {
            deliveries: self
                .deliveries
                .clone()
                .acquire_many_owned(deliveries)
                .await
                .ok()?,
            bytes: self
                .kibibytes
                .clone()
                .acquire_many_owned(kibibytes)
                .await
                .ok()?,
        })
    }
}

fn semaphore(permits: u32) -> Arc<Semaphore> {
    let permits = usize::try_from(permits).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

fn share(asked: usize, max: u32) -> u32 {
    u32::try_from(asked).unwrap_or(u32::MAX).clamp(1, max)
}
