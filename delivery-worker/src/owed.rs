//! Deliveries that are known by reference only (due again, or parked): their bodies are fetched in
//! batches and they go into their lanes, or end.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfare_domain::{
    AcceptedEvent, BodyHash, Data, DeadLetterReason, DeliveryId, Event, EventRef, EventType,
    SubscriptionId, Target, Timestamp,
};
use fanfare_service::Backoff;
use fanfare_store::RetryRow;

use crate::desk::{Aside, Done, Fate};
use crate::letter::{Delivery, Letter, Origin};
use crate::shift::Shift;

/// A delivery without its body.
pub(crate) struct Owed {
    pub(crate) id: DeliveryId,
    pub(crate) subscription: SubscriptionId,
    pub(crate) event: EventRef,
    pub(crate) generation: u32,
    pub(crate) origin: Origin,
}

/// Fetches the bodies of `owed` and offers each to its lane. One whose body retention took ends.
pub(crate) async fn bring(shift: &Arc<Shift>, owed: Vec<Owed>) {
    if owed.is_empty() {
        return;
    }
    for (delivery, is_whole) in with_bodies(shift, owed).await {
        if is_whole {
            shift.crew.offer_again(&shift.desk, delivery);
        } else {
            end(shift, delivery, DeadLetterReason::Expired);
        }
    }
}

/// Ends `owed`, whose event is fetched only to be named.
pub(crate) async fn end_all(shift: &Arc<Shift>, owed: Vec<(Owed, DeadLetterReason)>) {
    if owed.is_empty() {
        return;
    }
    let (owed, reasons): (Vec<_>, Vec<_>) = owed.into_iter().unzip();
    let deliveries = with_bodies(shift, owed).await;
    for ((delivery, _), reason) in deliveries.into_iter().zip(reasons) {
        end(shift, delivery, reason);
    }
}

/// The retry state of each; waits while the store is away.
pub(crate) async fn retry_states(shift: &Shift, ids: &[DeliveryId]) -> Vec<Option<RetryRow>> {
    if ids.is_empty() {
        return Vec::new();
    }
    let mut backoff = Backoff::new("read retry state");
    loop {
        match shift.stores.retries.get(ids).await {
            Ok(rows) => return rows,
            Err(error) => backoff.wait(&error).await,
        }
    }
}

/// The events behind `refs`; waits while the store is away.
pub(crate) async fn bodies(shift: &Shift, refs: &[EventRef]) -> Vec<Option<Arc<AcceptedEvent>>> {
    let mut backoff = Backoff::new("fetch the bodies of events");
    loop {
        match shift.stores.events.bodies(refs).await {
            Ok(bodies) => return bodies,
            Err(error) => backoff.wait(&error).await,
        }
    }
}

/// Each with its letter, and whether that has the event's body.
async fn with_bodies(shift: &Shift, owed: Vec<Owed>) -> Vec<(Delivery, bool)> {
    let refs: Vec<EventRef> = owed.iter().map(|owed| owed.event.clone()).collect();
    let bodies = bodies(shift, &refs).await;
    let mut last: Option<Arc<Letter>> = None;
    let mut out = Vec::with_capacity(owed.len());
    for (owed, body) in owed.into_iter().zip(bodies) {
        let is_whole = body.is_some();
        // Neighbours are often deliveries of one event: they share their letter.
        let same = |letter: &Arc<Letter>| {
            letter.reference == owed.event && letter.generation == owed.generation
        };
        let letter = last.take().filter(same).unwrap_or_else(|| {
            let event = body.unwrap_or_else(|| Arc::new(nameless(&owed.event)));
            Arc::new(Letter::new(event, owed.event.place, owed.generation))
        });
        last = Some(letter.clone());
        let delivery = Delivery {
            id: owed.id,
            target: Target {
                endpoint: owed.id.endpoint(),
                subscription: owed.subscription,
            },
            letter,
            origin: owed.origin,
        };
        out.push((delivery, is_whole));
    }
    out
}

/// Who is owed what `row` is about.
pub(crate) fn target(row: &RetryRow) -> Target {
    Target {
        endpoint: row.delivery.endpoint(),
        subscription: row.subscription,
    }
}

fn end(shift: &Shift, delivery: Delivery, reason: DeadLetterReason) {
    shift.desk.hand_in(Done {
        delivery,
        fate: Fate::Aside(Aside::End(reason)),
        permit: None,
    });
}

/// An event of which only the reference is left: enough to name it in a dead letter.
fn nameless(reference: &EventRef) -> AcceptedEvent {
    let key = &reference.key;
    AcceptedEvent {
        tenant: key.tenant.clone(),
        event: Event {
            id: key.id.clone(),
            source: key.source.clone(),
            event_type: EventType::try_new("expired").expect("a word is a type"),
            subject: None,
            time: None,
            data_content_type: String::new(),
            data_schema: None,
            data: Data::None,
            ordering_key: None,
            extensions: BTreeMap::new(),
        },
        accept_time: Timestamp::default(),
        body_hash: BodyHash([0; 16]),
    }
}
