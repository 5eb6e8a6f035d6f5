//! Parked deliveries: what waits for its endpoint, first in first out by log position.

use async_trait::async_trait;
use fanfare_domain::{
    DeliveryId, EndpointId, EventRef, ParkedReason, Place, ShardSet, SubscriptionId, TenantId,
    Tenure, Timestamp,
};

use crate::error::StoreError;

/// Where a delivery stands in its endpoint's queue: by the place of the delivery record and the
/// part within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParkedKey {
    /// Place of the delivery record.
    pub place: Place,
    /// Part of that record.
    pub part: u32,
}

/// A delivery that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// Its place in the queue.
    pub key: ParkedKey,
    /// Which delivery.
    pub delivery: DeliveryId,
    /// Owner.
    pub tenant: TenantId,
    /// For whom.
    pub subscription: SubscriptionId,
    /// Where the body is.
    pub event: EventRef,
    /// Replay generation of the delivery.
    pub generation: u32,
    /// Why it waits.
    pub reason: ParkedReason,
    /// Since when.
    pub since: Timestamp,
}

/// Parked deliveries.
#[async_trait]
pub trait Parking: Send + Sync {
    /// Parks. A delivery is parked under one key; parking it again under that key leaves one row.
    async fn park(&self, tenure: &Tenure, rows: Vec<Parked>) -> Result<(), StoreError>;

    /// The head of an endpoint's queue after `after`, in order, at most `limit`. Costs what it
    /// returns, however much was drained before.
    async fn peek(
        &self,
        endpoint: EndpointId,
        after: Option<ParkedKey>,
        limit: usize,
    ) -> Result<Vec<Parked>, StoreError>;

    /// Removes drained rows; removing what is not there is fine.
    async fn unpark(
        &self,
        tenure: &Tenure,
        endpoint: EndpointId,
        keys: Vec<ParkedKey>,
    ) -> Result<(), StoreError>;

    /// Of `ids`, which are parked and why: one answer each.
    async fn find(&self, ids: &[DeliveryId]) -> Result<Vec<Option<Parked>>, StoreError>;

    /// The endpoints of `shards` that have anything parked: what a new owner must drain.
    async fn endpoints(&self, shards: ShardSet) -> Result<Vec<EndpointId>, StoreError>;
}
