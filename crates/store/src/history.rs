//! History: every attempt, for the support person. Batched, and never on the way of a delivery:
//! losing it loses no webhook. An attempt is kept for no longer than its event: a backend may find
//! the event's names through its place instead of repeating them in every row.

use async_trait::async_trait;
use bytes::Bytes;
use fanfare_domain::{
    Blame, DeliveryId, EndpointId, EventRef, EventType, Outcome, SubscriptionId, TenantId,
    Timestamp,
};
use std::time::Duration;

use crate::error::StoreError;
use crate::page::{Page, PageToken};

/// Most bytes kept of a failure's answer, and of a success's.
pub const ANSWER_MAX: (usize, usize) = (16 * 1024, 1024);

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    /// Owner.
    pub tenant: TenantId,
    /// Which delivery; carries endpoint and published second.
    pub delivery: DeliveryId,
    /// For whom.
    pub subscription: SubscriptionId,
    /// What was delivered; at [`Place::default`](fanfare_domain::Place) when it lies in no log (a test of an endpoint).
    pub event: EventRef,
    /// Of which type.
    pub event_type: EventType,
    /// 1 for the first.
    pub number: u32,
    /// When it started.
    pub start: Timestamp,
    /// From start to the end of the answer.
    pub latency: Duration,
    /// What it came to.
    pub outcome: Outcome,
    /// When the next try is due; `None` after the last.
    pub next_attempt: Option<Timestamp>,
    /// Start of the answer's body, raw.
    pub answer: Bytes,
    /// Whether more came than is kept.
    pub answer_truncated: bool,
}

/// Which attempts to list.
#[derive(Clone, Debug)]
pub struct AttemptFilter {
    /// Of this endpoint.
    pub endpoint: EndpointId,
    /// Of events published at or after.
    pub since: Option<Timestamp>,
    /// Of events published before.
    pub until: Option<Timestamp>,
    /// Only failures with this blame.
    pub blame: Option<Blame>,
}

impl AttemptFilter {
    /// Whether `row`, which is of this endpoint, is wanted.
    pub fn admits(&self, row: &AttemptRow) -> bool {
        let published = row.delivery.published();
        self.since.is_none_or(|since| published >= since)
            && self.until.is_none_or(|until| published < until)
            && self.blame.is_none_or(|b| row.outcome.blame() == Some(b))
    }
}

/// Attempts.
#[async_trait]
pub trait History: Send + Sync {
    /// Adds attempts; adding one again (same delivery and number) replaces it.
    async fn append(&self, rows: Vec<AttemptRow>) -> Result<(), StoreError>;

    /// The attempts of one delivery by number, the last `limit` of them.
    async fn attempts(
        &self,
        tenant: &TenantId,
        delivery: DeliveryId,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError>;

    /// Attempts of one endpoint, by published second, newest first; attempts of one delivery are
    /// adjacent. Answers are left out.
    async fn list(
        &self,
        tenant: &TenantId,
        filter: &AttemptFilter,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<AttemptRow>, StoreError>;
}
