//! Event rows: the body of an event, stored once, and who matched it.
//!
//! There is no claim at the door. The router claims each event it reads; of several records with
//! one identity the lowest place wins, the others are repeats (same body hash) or conflicts.

use std::sync::Arc;

use async_trait::async_trait;
use fanfare_domain::{
    AcceptedEvent, BodyHash, EventId, EventKey, EventRef, EventType, Place, Target, TenantId,
    Tenure, Timestamp,
};

use crate::error::StoreError;
use crate::page::{Page, PageToken};

/// Most conflicts kept of one identity.
pub const CONFLICTS_MAX: usize = 10;
/// Most rows (sources) that one event id answers with.
pub const SOURCES_MAX: usize = 10;

/// What the router found for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// When it was routed.
    pub route_time: Timestamp,
    /// Who is owed a delivery; in a fixed order.
    pub matched: Arc<[Target]>,
    /// The configuration it was routed by: heads are per tenant bucket, this is the tenant's.
    pub config_head: u64,
}

/// The router's claim of one accepted record.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What was read from the log.
    pub event: Arc<AcceptedEvent>,
    /// Where it was read.
    pub place: Place,
    /// What the snapshot says about it.
    pub route: Route,
}

/// What a claim came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The row is written: deliver to `route.matched` of the claim.
    Fresh,
    /// This very record was claimed before (a crash came between): deliver to what matched then.
    Own(Route),
    /// An earlier record has the same identity and body: drop this one.
    Repeat,
    /// An earlier record has the same identity and another body: recorded, never delivered.
    Conflict,
}

/// A later publish under an identity whose body differs: visible, never delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Where its record lies.
    pub place: Place,
    /// Its hash.
    pub body_hash: BodyHash,
    /// When it was accepted.
    pub accept_time: Timestamp,
}

/// Everything known about one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// The event.
    pub event: AcceptedEvent,
    /// Where its winning record lies.
    pub place: Place,
    /// `None`: accepted, not routed yet (only a backend that shares its journal with the log can
    /// tell; others have no row until then).
    pub route: Option<Route>,
    /// Later publishes with another body; at most [`CONFLICTS_MAX`] are kept.
    pub conflicts: Vec<Conflict>,
}

/// What a backend knows of an identity without a round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Hash of the winning body.
    pub body_hash: BodyHash,
    /// When it was accepted.
    pub accept_time: Timestamp,
}

/// A line of a list of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSummary {
    /// Identity and place.
    pub event: EventRef,
    /// Type.
    pub event_type: EventType,
    /// When it was accepted.
    pub accept_time: Timestamp,
    /// Bytes of data.
    pub size: u64,
    /// How many subscriptions matched.
    pub matched: u32,
}

/// Which events to list.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Accepted at or after.
    pub since: Option<Timestamp>,
    /// Accepted before.
    pub until: Option<Timestamp>,
}

impl EventRow {
    /// Its line in a list.
    pub fn summary(&self) -> EventSummary {
        let matched = self.route.as_ref().map_or(0, |route| route.matched.len());
        EventSummary {
            event: EventRef::new(self.event.key(), self.place),
            event_type: self.event.event.event_type.clone(),
            accept_time: self.event.accept_time,
            size: self.event.event.data.bytes().len() as u64,
            matched: u32::try_from(matched).unwrap_or(u32::MAX),
        }
    }
}

impl EventFilter {
    /// Whether an event accepted then is wanted.
    pub fn admits(&self, accepted: Timestamp) -> bool {
        self.since.is_none_or(|since| accepted >= since)
            && self.until.is_none_or(|until| accepted < until)
    }
}

/// Event rows. Kept for the event retention, which is at least 7 days. A backend that bounds its
/// room may give up the body of a settled event sooner ([`EventRows::bodies`] and
/// [`EventRows::get`] then answer as after the retention), never its identity:
/// [`EventRows::claim`] recognises it for the whole retention.
#[async_trait]
pub trait EventRows: Send + Sync {
    /// What is known of an identity at once, for the front door: `None` means *not known here*,
    /// never *does not exist*. Only what is durable is known: the answer to a repeat is an ack.
    /// Must not block for longer than a local read.
    fn known(&self, key: &EventKey) -> Option<Known>;

    /// Claims records of the span that `tenure` is for, in order; one answer each. Claims of one
    /// identity in one batch see each other. Repeating a claim answers as the first time, `Own`
    /// instead of `Fresh`. Claims of one span come by rising place, but for repeats.
    async fn claim(&self, tenure: &Tenure, claims: Vec<Claim>) -> Result<Vec<Claimed>, StoreError>;

    /// Every row of `id`, one per source, at most [`SOURCES_MAX`].
    async fn get(&self, tenant: &TenantId, id: &EventId) -> Result<Vec<EventRow>, StoreError>;

    /// The bodies behind `refs`, one answer each; `None` when retention took it.
    async fn bodies(
        &self,
        refs: &[EventRef],
    ) -> Result<Vec<Option<Arc<AcceptedEvent>>>, StoreError>;

    /// Events of a tenant, newest first. `limit` 1..=[`crate::PAGE_MAX`].
    async fn list(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<EventSummary>, StoreError>;
}
