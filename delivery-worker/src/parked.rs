//! Parked deliveries come back: fetched in order, a batch at a time, for lanes that have room.
//!
//! Invariant: none is tried before the commit that settles its record. Until then its row is all that
//! keeps a next owner, who would read the record again, from trying it once more.

use std::sync::Arc;

use fanfare_domain::{DeliveryId, EndpointId};
use fanfare_event_log::record::PARTS_MAX;
use fanfare_service::Backoff;
use fanfare_store::{Parked, ParkedKey, RetryRow, RetryState};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::letter::Origin;
use crate::owed::{self, Owed};
use crate::shift::Shift;

/// Endpoints whose rows are fetched at the same time.
const FETCHES_MAX: usize = 8;

/// Fetches what lanes ask for, for as long as it is polled.
pub(crate) async fn bring_back(shift: &Arc<Shift>) {
    let mut fetches = FuturesUnordered::new();
    loop {
        tokio::select! {
            endpoint = shift.desk.parked_wanted(), if fetches.len() < FETCHES_MAX => {
                fetches.push(fetch(shift, endpoint));
            }
            Some(()) = fetches.next(), if !fetches.is_empty() => {}
        }
    }
}

/// Tells the lanes who has parked rows from before this shift.
pub(crate) async fn take_over(shift: &Arc<Shift>) {
    let mut backoff = Backoff::new("find what is parked");
    let endpoints = loop {
        match shift.stores.parking.endpoints(shift.desk.shards).await {
            Ok(endpoints) => break endpoints,
            Err(error) => backoff.wait(&error).await,
        }
    };
    for endpoint in endpoints {
        shift.crew.found_parked(&shift.desk, endpoint);
    }
}

async fn fetch(shift: &Arc<Shift>, endpoint: EndpointId) {
    shift.desk.room().await;
    let key = (shift.desk.shift, endpoint);
    let Some(batch) = shift.crew.with_lanes(|lanes| lanes.batch(key)) else {
        return;
    };
    let mut backoff = Backoff::new("read parked deliveries");
    let rows = loop {
        let peeking = shift
            .stores
            .parking
            .peek(endpoint, batch.after, batch.limit);
        match peeking.await {
            Ok(rows) => break rows,
            Err(error) => backoff.wait(&error).await,
        }
    };
    let last = rows.last().map(|row| row.key);
    let rows: Vec<Parked> = rows
        .into_iter()
        .filter(|row| shift.desk.take_in_hand(row.delivery))
        .collect();
    shift
        .crew
        .with_lanes(|lanes| lanes.take_in_hand(key, rows.len()));
    bring(shift, rows).await;
    shift
        .crew
        .alter(|lanes, moves| lanes.fetched(key, batch, last, Instant::now(), moves));
}

async fn bring(shift: &Arc<Shift>, rows: Vec<Parked>) {
    let ids: Vec<DeliveryId> = rows.iter().map(|row| row.delivery).collect();
    let states = owed::retry_states(shift, &ids).await;
    for row in &rows {
        settled(shift, row).await;
    }
    let now = shift.crew.outfit.clock.now();
    let (mut owed, mut left_over) = (Vec::new(), Vec::new());
    for (row, state) in rows.into_iter().zip(states) {
        match state {
            // It was tried since it was parked, and only its row was left: the hint of that try,
            // or its end, is durable.
            Some(state) if !is_due(&state, now) => left_over.push(row),
            state => owed.push(Owed::parked(row, state)),
        }
    }
    if !left_over.is_empty() {
        drop_rows(shift, left_over).await;
    }
    owed::bring(shift, owed).await;
}

/// Waits until nobody reads again what the row was parked from.
async fn settled(shift: &Shift, row: &Parked) {
    let ParkedKey { place, part } = row.key;
    // A retry parks under its event's place, in a part that no record has; its state tells of it.
    if place.span == shift.lease.span.index && (part as usize) < PARTS_MAX {
        shift.settler.committed(place.position, part).await;
    }
}

fn is_due(row: &RetryRow, now: fanfare_domain::Timestamp) -> bool {
    matches!(row.state, RetryState::DueAt(due) if due <= now)
}

/// Removes rows of one endpoint whose deliveries go on elsewhere.
async fn drop_rows(shift: &Shift, rows: Vec<Parked>) {
    let endpoint = rows[0].endpoint;
    let keys: Vec<_> = rows.iter().map(|row| row.key).collect();
    let parking = &shift.stores.parking;
    let removing = || parking.unpark(&shift.lease.tenure, endpoint, keys.clone());
    // A lost lease leaves them to the next owner.
    let _ = shift.write("remove parked rows", removing).await;
    let ids: Vec<DeliveryId> = rows.iter().map(|row| row.delivery).collect();
    shift.desk.let_go(&ids);
    let key = (shift.desk.shift, endpoint);
    shift
        .crew
        .alter(|lanes, _| lanes.parked_settled(key, rows.len()));
}

impl Owed {
    fn parked(row: Parked, state: Option<RetryRow>) -> Self {
        Self {
            id: row.delivery,
            subscription: row.subscription,
            event: row.event,
            generation: row.generation,
            origin: Origin::Parked(row.key, state.map(Box::new)),
        }
    }
}
