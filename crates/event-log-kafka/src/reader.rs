//! The reading side of the seam: a membership, and the records of a lease.

use std::sync::Arc;

use async_trait::async_trait;
use fanfare_event_log::{Entry, Granted, Lease, LogError, Phase, ReadLimit, Reader, Records};

use crate::member::Member;
use crate::member::slot::Slot;

/// Membership. Dropping it leaves without waiting.
pub(crate) struct KafkaReader(Arc<Member>);

/// The records of one lease. Dropping it lets go.
pub(crate) struct KafkaRecords {
    lease: Lease,
    slot: Arc<Slot>,
    member: Arc<Member>,
}

impl KafkaReader {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        Self(member)
    }
}

#[async_trait]
impl Reader for KafkaReader {
    async fn next(&mut self) -> Result<Granted, LogError> {
        self.0.next().await
    }

    async fn leave(&mut self) {
        self.0.start_to_leave();
        self.0.ended().await;
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.0.start_to_leave();
    }
}

impl KafkaRecords {
    pub(crate) fn new(lease: Lease, slot: Arc<Slot>, member: Arc<Member>) -> Self {
        Self {
            lease,
            slot,
            member,
        }
    }
}

#[async_trait]
impl Records for KafkaRecords {
    async fn read(&mut self, limit: ReadLimit) -> Result<Vec<Entry>, LogError> {
        // Nothing is taken from the queue before an await, so a dropped read loses nothing.
        while self.lease.phase() == Phase::Held {
            let entries = self.slot.take(self.lease.epoch, limit)?;
            if !entries.is_empty() {
                return Ok(entries);
            }
            tokio::select! {
                () = self.slot.ready() => {}
                () = self.lease.reached(Phase::Revoking) => {}
            }
        }
        Ok(Vec::new())
    }
}

impl Drop for KafkaRecords {
    fn drop(&mut self) {
        self.member.release(self.lease.span.index, self.lease.epoch);
    }
}
