//! Retry state: the authority on every delivery whose first attempt failed. A due entry is only a
//! hint: it fires if it still agrees with the state, so a crash or a zombie can never start a
//! second chain.

use async_trait::async_trait;
use fanfare_domain::{
    DeliveryId, EndpointId, EventRef, Outcome, ShardSet, SubscriptionId, TenantId, Tenure,
    Timestamp,
};

use crate::error::StoreError;
use crate::page::{Page, PageToken};

/// The authoritative state of one delivery that failed at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryRow {
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
    /// Attempts made so far, all chains together; the next attempt's number is one higher.
    pub attempts: u32,
    /// Attempts made before this chain (0 unless redriven): the schedule counts from here.
    pub attempts_before: u32,
    /// When this chain's first attempt was made.
    pub first_attempt: Timestamp,
    /// What the last attempt came to.
    pub last_outcome: Outcome,
    /// Where it stands.
    pub state: RetryState,
}

/// Where a failed delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryState {
    /// Its next attempt is due then.
    DueAt(Timestamp),
    /// Delivered in the end; kept until event retention so that a stale hint or a repeat of the
    /// delivery record finds it settled.
    Delivered(Timestamp),
    /// Given up on; its dead letter says why.
    DeadLetter(Timestamp),
}

/// A hint that a delivery may be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DueHint {
    /// When.
    pub due: Timestamp,
    /// What.
    pub delivery: DeliveryId,
}

/// Retry state and due hints.
#[async_trait]
pub trait Retries: Send + Sync {
    /// Upserts rows. For a row in [`RetryState::DueAt`] the hint is durable before the state.
    async fn put(&self, tenure: &Tenure, rows: Vec<RetryRow>) -> Result<(), StoreError>;

    /// The authority, one answer per id.
    async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<Option<RetryRow>>, StoreError>;

    /// Hints of `shards` with `after < hint` and `hint.due <= until`, rising, at most `limit`.
    /// Costs what is due, not what is stored. Hints that no longer agree with the state may be
    /// among them.
    async fn due(
        &self,
        shards: ShardSet,
        after: Option<DueHint>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueHint>, StoreError>;

    /// Removes hints that have fired or were found stale.
    async fn forget(&self, tenure: &Tenure, hints: Vec<DueHint>) -> Result<(), StoreError>;

    /// Rows of one endpoint that are [`RetryState::DueAt`], in any order, at most `limit`
    /// (1..=[`crate::PAGE_MAX`]): for an endpoint that was disabled or deleted, and for lists.
    async fn open(
        &self,
        endpoint: EndpointId,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<RetryRow>, StoreError>;
}
