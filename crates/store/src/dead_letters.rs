//! Dead letters: deliveries given up on, kept with their reason, redrivable.

use async_trait::async_trait;
use fanfare_domain::{
    DeadLetterReason, DeliveryId, EndpointId, EventRef, EventType, SubscriptionId, TenantId,
    Tenure, Timestamp,
};

use crate::error::StoreError;
use crate::page::{Page, PageToken};

/// A delivery given up on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// Owner.
    pub tenant: TenantId,
    /// For whom.
    pub subscription: SubscriptionId,
    /// Where the body is.
    pub event: EventRef,
    /// Of which type.
    pub event_type: EventType,
    /// Replay generation of the delivery.
    pub generation: u32,
    /// Why.
    pub reason: DeadLetterReason,
    /// When.
    pub at: Timestamp,
    /// Attempts made.
    pub attempts: u32,
    /// When it was last redriven; the row stays and is replaced if it dies again.
    pub redriven: Option<Timestamp>,
}

/// Dead letters.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Upserts by delivery.
    async fn put(&self, tenure: &Tenure, rows: Vec<DeadLetter>) -> Result<(), StoreError>;

    /// One answer per id.
    async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<Option<DeadLetter>>, StoreError>;

    /// Dead letters of a tenant that were not redriven since, newest first; of one endpoint if
    /// given.
    async fn list(
        &self,
        tenant: &TenantId,
        endpoint: Option<EndpointId>,
        since: Option<Timestamp>,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<DeadLetter>, StoreError>;
}
