//! What became of it: of an event, of each delivery it made, of one delivery.
//!
//! There is no row that says where a delivery stands; there are the rows that each step leaves
//! behind, and [`standing`] is the one place that reads them together. The retry row is the
//! authority wherever there is one; everything else tells of deliveries that never failed, were
//! never tried, or were given up on before they were.
//!
//! Rows of one delivery are read at different moments, so a delivery that moves meanwhile may be
//! shown where it was a moment ago; it is never shown in a state it did not have.
//!
//! Reads are batched and bounded by the caller's page. It writes nothing.

mod standing;

use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::{DeliveryId, EventKey, EventRef, EventType, SubscriptionId, Target, TenantId};
use fanfare_store::{
    AttemptRow, DeadLetter, EventFilter, EventRow, Parked, RetryRow, StoreError, Stores,
};
use futures::future::try_join_all;

pub use standing::{Standing, standing};

/// Attempts of one delivery that are shown.
pub const ATTEMPTS_SHOWN: usize = 100;
/// Events of one second that are searched for a delivery without rows.
const SEARCH_MAX: usize = 200;
/// History reads under way at once; the seam reads attempts delivery by delivery.
const READS_MAX: usize = 16;

/// A delivery and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Which.
    pub id: DeliveryId,
    /// Of which event.
    pub event: EventKey,
    /// Of which type; `None` when retention took the event.
    pub event_type: Option<EventType>,
    /// For whom.
    pub subscription: SubscriptionId,
    /// Replay generation.
    pub generation: u32,
    /// Where it stands.
    pub standing: Standing,
}

/// Answers what became of events and deliveries. Cheap to clone.
#[derive(Clone)]
pub struct Inquiry {
    stores: Stores,
}

/// Everything known about one delivery.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    retry: Option<RetryRow>,
    parked: Option<Parked>,
    dead: Option<DeadLetter>,
    /// The last attempt.
    last: Option<AttemptRow>,
}

impl Inquiry {
    /// Reads from `stores`.
    pub fn new(stores: Stores) -> Self {
        Self { stores }
    }

    /// Where the deliveries of `row` stand that are owed to `targets`, in their order.
    pub async fn deliveries(
        &self,
        row: &EventRow,
        targets: &[Target],
    ) -> Result<Vec<Delivery>, StoreError> {
        let ids = delivery_ids(row, targets);
        let rows = self.rows(&row.event.tenant, &ids).await?;
        let delivery = |((id, target), rows): ((DeliveryId, &Target), Rows)| Delivery {
            id,
            event: row.event.key(),
            event_type: Some(row.event.event.event_type.clone()),
            subscription: target.subscription,
            generation: 0,
            standing: rows.standing(),
        };
        Ok(ids
            .into_iter()
            .zip(targets)
            .zip(rows)
            .map(delivery)
            .collect())
    }

    /// Where the deliveries `ids` of `tenant` stand: one answer per id, `None` for one that left
    /// no row yet, or is not the tenant's.
    pub async fn by_id(
        &self,
        tenant: &TenantId,
        ids: &[DeliveryId],
    ) -> Result<Vec<Option<Delivery>>, StoreError> {
        let rows = self.rows(tenant, ids).await?;
        let found = ids.iter().zip(rows);
        let mut found: Vec<_> = found.map(|(id, rows)| rows.delivery(tenant, *id)).collect();
        self.name_types(found.iter_mut().flatten()).await?;
        Ok(found
            .into_iter()
            .map(|found| found.map(|(d, _)| d))
            .collect())
    }

    /// The last attempts of a delivery of `tenant`, by number.
    pub async fn attempts(
        &self,
        tenant: &TenantId,
        id: DeliveryId,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        self.stores
            .history
            .attempts(tenant, id, ATTEMPTS_SHOWN)
            .await
    }

    /// A delivery that left no row yet: found by its event, among those accepted in the second that
    /// its id names. `None` when it is not among the first of them.
    pub async fn untouched(
        &self,
        tenant: &TenantId,
        id: DeliveryId,
    ) -> Result<Option<Delivery>, StoreError> {
        let second = id.published();
        let filter = EventFilter {
            since: Some(second),
            until: Some(second.plus(Duration::from_secs(1))),
        };
        let page = self
            .stores
            .events
            .list(tenant, &filter, None, SEARCH_MAX)
            .await?;
        for summary in page.rows.iter().filter(|summary| summary.matched > 0) {
            let rows = self
                .stores
                .events
                .get(tenant, &summary.event.key.id)
                .await?;
            for row in rows {
                let targets = targets(&row);
                let ids = delivery_ids(&row, &targets);
                if let Some(at) = ids.iter().position(|other| *other == id) {
                    return Ok(self.deliveries(&row, &targets[at..=at]).await?.pop());
                }
            }
        }
        Ok(None)
    }

    async fn rows(&self, tenant: &TenantId, ids: &[DeliveryId]) -> Result<Vec<Rows>, StoreError> {
        let (retries, parked, dead) = tokio::try_join!(
            self.stores.retries.get(ids),
            self.stores.parking.find(ids),
            self.stores.dead_letters.get(ids),
        )?;
        let last = self.last_attempts(tenant, ids).await?;
        let rows = retries.into_iter().zip(parked).zip(dead).zip(last);
        Ok(rows
            .map(|(((retry, parked), dead), last)| Rows {
                retry,
                parked,
                dead,
                last,
            })
            .collect())
    }

    async fn last_attempts(
        &self,
        tenant: &TenantId,
        ids: &[DeliveryId],
    ) -> Result<Vec<Option<AttemptRow>>, StoreError> {
        let mut last = Vec::with_capacity(ids.len());
        for some in ids.chunks(READS_MAX) {
            let mut reads = Vec::with_capacity(some.len());
            for id in some {
                reads.push(self.stores.history.attempts(tenant, *id, 1));
            }
            let attempts = try_join_all(reads).await?;
            last.extend(attempts.into_iter().map(|mut attempts| attempts.pop()));
        }
        Ok(last)
    }

    /// Fills in the types that the rows themselves do not name.
    async fn name_types<'a>(
        &self,
        found: impl Iterator<Item = &'a mut (Delivery, EventRef)>,
    ) -> Result<(), StoreError> {
        let mut unnamed: Vec<_> = found.filter(|(d, _)| d.event_type.is_none()).collect();
        let refs: Vec<_> = unnamed.iter().map(|(_, event)| event.clone()).collect();
        if refs.is_empty() {
            return Ok(());
        }
        let bodies = self.stores.events.bodies(&refs).await?;
        for ((delivery, _), body) in unnamed.iter_mut().zip(bodies) {
            delivery.event_type = body.map(|body| body.event.event_type.clone());
        }
        Ok(())
    }
}

/// The ids of the deliveries of `row` that are owed to `targets`.
pub fn delivery_ids(row: &EventRow, targets: &[Target]) -> Vec<DeliveryId> {
    let event = &row.event;
    let seed = event.delivery_seed();
    let id = |t: &Target| seed.delivery(t.endpoint, t.subscription, event.accept_time, 0);
    targets.iter().map(id).collect()
}

/// Whom `row` is owed to; nobody before it is routed.
pub fn targets(row: &EventRow) -> Arc<[Target]> {
    row.route.as_ref().map_or_else(
        || Arc::new([]) as Arc<[Target]>,
        |route| route.matched.clone(),
    )
}

impl Rows {
    fn standing(&self) -> Standing {
        standing(
            self.retry.as_ref(),
            self.parked.as_ref(),
            self.dead.as_ref(),
            self.last.as_ref(),
        )
    }

    /// The delivery that the rows tell of, and where its event is; `None` when there is no row of
    /// this tenant.
    fn delivery(&self, tenant: &TenantId, id: DeliveryId) -> Option<(Delivery, EventRef)> {
        let event_type = self
            .dead
            .as_ref()
            .map(|dead| &dead.event_type)
            .or(self.last.as_ref().map(|last| &last.event_type));
        let facts = [
            self.retry
                .as_ref()
                .map(|r| (&r.tenant, &r.event, r.subscription, r.generation)),
            self.parked
                .as_ref()
                .map(|p| (&p.tenant, &p.event, p.subscription, p.generation)),
            self.dead
                .as_ref()
                .map(|d| (&d.tenant, &d.event, d.subscription, d.generation)),
            self.last
                .as_ref()
                .map(|a| (&a.tenant, &a.event, a.subscription, 0)),
        ];
        let (owner, event, subscription, generation) = facts.into_iter().flatten().next()?;
        let delivery = Delivery {
            id,
            event: event.key.clone(),
            event_type: event_type.cloned(),
            subscription,
            generation,
            standing: self.standing(),
        };
        (owner == tenant).then(|| (delivery, event.clone()))
    }
}
