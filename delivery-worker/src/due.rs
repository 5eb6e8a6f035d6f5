//! What is due again: hints that agree with the retry state fire into their endpoint's lane.
//!
//! The scan goes round in bounded pages, so that what cannot fire (its lane is full) never hides
//! what is due behind it. A hint is forgotten only when its delivery was written down again, so a
//! crash fires it again and nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::{
    AcceptedEvent, BodyHash, Data, DeadLetterReason, EndpointId, Event, EventRef, EventType,
    Target, Timestamp,
};
use fanfare_store::{DueHint, RetryRow, RetryState, StoreError};

use crate::books::{End, persist};
use crate::letter::{Delivery, Letter, Origin};
use crate::shift::Shift;
use crate::standing::Standing;

/// Between two looks at what is due.
const INTERVAL: Duration = Duration::from_millis(50);
/// Most hints looked at at once, and fired at most per look.
const PAGE: usize = 256;
/// Most retries in memory: in lanes or under way.
const FIRING_MAX: usize = 5_000;

/// Fires what is due for as long as it is polled.
pub(crate) async fn scan(shift: Arc<Shift>) {
    let mut after = None;
    loop {
        match look(&shift, after).await {
            Ok(Some(last)) => after = Some(last),
            Ok(None) => {
                after = None;
                tokio::time::sleep(INTERVAL).await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for what is due; trying again");
                tokio::time::sleep(INTERVAL * 20).await;
            }
        }
    }
}

/// Looks at one page; the last hint of a full page, `None` at the end.
async fn look(shift: &Arc<Shift>, after: Option<DueHint>) -> Result<Option<DueHint>, StoreError> {
    if shift.firing.lock().len() >= FIRING_MAX {
        return Ok(None);
    }
    let (stores, now) = (&shift.context.stores, shift.context.outfit.clock.now());
    let hints = stores
        .retries
        .due(shift.lease.span.shards, after, now, PAGE)
        .await?;
    let last = (hints.len() == PAGE)
        .then(|| hints.last().copied())
        .flatten();
    let fresh: Vec<DueHint> = {
        let firing = shift.firing.lock();
        // What has no room now is found again on the next round.
        let can_fire = |hint: &DueHint| {
            !firing.contains(&hint.delivery)
                && shift.lanes.lane(hint.delivery.endpoint()).has_room()
        };
        hints.into_iter().filter(can_fire).collect()
    };
    if fresh.is_empty() {
        return Ok(last);
    }
    let ids: Vec<_> = fresh.iter().map(|hint| hint.delivery).collect();
    let rows = stores.retries.get(&ids).await?;
    let mut agreed: Vec<(DueHint, RetryRow)> = Vec::new();
    let mut stale = Vec::new();
    for (hint, row) in fresh.into_iter().zip(rows) {
        match row {
            Some(row) if row.state == RetryState::DueAt(hint.due) => agreed.push((hint, row)),
            _ => stale.push(hint),
        }
    }
    if !stale.is_empty() {
        let _ = persist(shift, "forget stale hints", || {
            stores.retries.forget(&shift.lease.tenure, stale.clone())
        })
        .await;
    }
    fire(shift, agreed).await?;
    Ok(last)
}

async fn fire(shift: &Arc<Shift>, agreed: Vec<(DueHint, RetryRow)>) -> Result<(), StoreError> {
    let refs: Vec<EventRef> = agreed.iter().map(|(_, row)| row.event.clone()).collect();
    let bodies = shift.context.stores.events.bodies(&refs).await?;
    let mut parking = Vec::new();
    for ((hint, row), body) in agreed.into_iter().zip(bodies) {
        if !shift.firing.lock().insert(row.delivery) {
            continue;
        }
        let gone = body.is_none();
        let event = body.unwrap_or_else(|| Arc::new(lost_event(&row.event)));
        let delivery = Delivery {
            id: row.delivery,
            target: Target {
                endpoint: row.delivery.endpoint(),
                subscription: row.subscription,
            },
            letter: Arc::new(Letter::new(event, row.event.place, row.generation)),
            origin: Origin::Retry(hint, Box::new(row)),
        };
        if gone {
            shift
                .enter(delivery, End::Dead(DeadLetterReason::Expired), None)
                .await;
        } else {
            parking.extend(shift.offer(delivery).await);
        }
    }
    if !parking.is_empty() {
        shift.park(parking).await;
    }
    Ok(())
}

/// Ends the open retries of an endpoint that was disabled or deleted.
pub(crate) async fn end_open(shift: &Arc<Shift>, endpoint: EndpointId) {
    if !shift
        .lease
        .span
        .shards
        .contains(fanfare_domain::Shard::of_endpoint(endpoint))
    {
        return;
    }
    let catalog = shift.context.follower.catalog();
    let Standing::Ended(reason) = Standing::of_endpoint(catalog.endpoint(endpoint)) else {
        return;
    };
    let mut after = None;
    loop {
        let page = shift
            .context
            .stores
            .retries
            .open(endpoint, after.as_ref(), PAGE)
            .await;
        let Ok(page) = page else { return };
        let refs: Vec<EventRef> = page.rows.iter().map(|row| row.event.clone()).collect();
        let Ok(bodies) = shift.context.stores.events.bodies(&refs).await else {
            return;
        };
        for (row, body) in page.rows.into_iter().zip(bodies) {
            let RetryState::DueAt(due) = row.state else {
                continue;
            };
            if !shift.firing.lock().insert(row.delivery) {
                continue;
            }
            let event = body.unwrap_or_else(|| Arc::new(lost_event(&row.event)));
            let letter = Letter::new(event, row.event.place, row.generation);
            let delivery = Delivery {
                id: row.delivery,
                target: Target {
                    endpoint,
                    subscription: row.subscription,
                },
                letter: Arc::new(letter),
                origin: Origin::Retry(
                    DueHint {
                        due,
                        delivery: row.delivery,
                    },
                    Box::new(row),
                ),
            };
            shift.enter(delivery, End::Dead(reason), None).await;
        }
        after = page.next;
        if after.is_none() {
            return;
        }
    }
}

/// What is left of an event whose body is not at hand: enough to name it in a dead letter.
pub(crate) fn lost_event(reference: &EventRef) -> AcceptedEvent {
    let key = &reference.key;
    AcceptedEvent {
        tenant: key.tenant.clone(),
        event: Event {
            id: key.id.clone(),
            source: key.source.clone(),
            event_type: EventType::try_new("unknown").expect("a valid type"),
            subject: None,
            time: None,
            data_content_type: String::new(),
            data_schema: None,
            data: Data::None,
            ordering_key: None,
            extensions: std::collections::BTreeMap::new(),
        },
        accept_time: Timestamp::default(),
        body_hash: BodyHash([0; 16]),
    }
}
