//! Configuration: endpoints and subscriptions, and the feed that tells every process of a change.
//!
//! Tenants hash into [`BUCKETS`] buckets. Each bucket has a *head*: a number that every change
//! raises by one. A write names the head it was decided on and is refused when that has moved, so
//! checks made on a snapshot (quota, unique names, the endpoint a subscription points to) hold.
//! Followers confirm the heads several times a second and read the changes they lack.

use async_trait::async_trait;
use fanfare_domain::{Endpoint, EndpointId, Shard, Subscription, SubscriptionId, TenantId};
use std::time::Duration;

use crate::error::StoreError;

/// How many buckets tenants hash into; stored, so it never changes.
pub const BUCKETS: u8 = 16;
/// Changes a bucket keeps for followers; one that is further behind loads the bucket again.
pub const CHANGES_KEPT: u64 = 10_000;
/// Most entries of one write.
pub const WRITE_MAX: usize = 100;

/// The bucket of a tenant.
pub fn bucket_of(tenant: &TenantId) -> u8 {
    Shard::of_tenant(tenant).0 % BUCKETS
}

/// Number of the last change of a bucket; 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head(pub u64);

/// Something configured, in its current version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An endpoint.
    Endpoint(Endpoint),
    /// A subscription.
    Subscription(Subscription),
    /// A `request_id` that made an entry, so that repeating a Create answers with what it made.
    Request {
        /// Owner.
        tenant: TenantId,
        /// The caller's id of the request: 1..=64 visible ASCII bytes.
        request_id: String,
        /// Hash of the request, to refuse another request under the same id.
        hash: [u8; 16],
        /// What it made: an endpoint's or a subscription's number.
        made: u64,
        /// When, in microseconds; kept for 24 h.
        at_micros: i64,
    },
}

/// What an entry is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKey {
    /// An endpoint.
    Endpoint(TenantId, EndpointId),
    /// A subscription.
    Subscription(TenantId, SubscriptionId),
    /// A request.
    Request(TenantId, String),
}

/// One change of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Create or replace.
    Put(Box<Entry>),
    /// Delete; deleting what is not there is fine.
    Delete(EntryKey),
}

impl Entry {
    /// What it is known by.
    pub fn key(&self) -> EntryKey {
        match self {
            Self::Endpoint(e) => EntryKey::Endpoint(e.tenant.clone(), e.id),
            Self::Subscription(s) => EntryKey::Subscription(s.tenant.clone(), s.id),
            Self::Request {
                tenant, request_id, ..
            } => EntryKey::Request(tenant.clone(), request_id.clone()),
        }
    }
}

/// Configuration and its change feed.
#[async_trait]
pub trait Configuration: Send + Sync {
    /// The head of every bucket, by index: what a follower confirms.
    async fn heads(&self) -> Result<Vec<Head>, StoreError>;

    /// Everything in a bucket, and the head it reflects. Not paged: configuration fits in memory
    /// by design, and every follower holds it there.
    async fn load(&self, bucket: u8) -> Result<(Head, Vec<Entry>), StoreError>;

    /// The changes of a bucket after `after`, by rising number; `None` when some are no longer
    /// kept and the bucket must be loaded again.
    async fn changes(
        &self,
        bucket: u8,
        after: Head,
    ) -> Result<Option<Vec<(Head, Vec<Write>)>>, StoreError>;

    /// Writes all of `writes` (1..=[`WRITE_MAX`], one bucket) if the bucket's head is still
    /// `expected`; atomic and durable when it resolves; answers the new head.
    ///
    /// Errors: `HeadMoved` (nothing was written), `Unavailable`, `Full`.
    async fn write(
        &self,
        bucket: u8,
        expected: Head,
        writes: Vec<Write>,
    ) -> Result<Head, StoreError>;

    /// How long after a write resolved some other process may still use the older configuration.
    /// Zero when there is none.
    fn propagation(&self) -> Duration;
}
