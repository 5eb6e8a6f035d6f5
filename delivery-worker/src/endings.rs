//! When an endpoint is disabled or deleted, or a subscription deleted, its open retries end at
//! once, as dead letters, and not when each comes due.
//!
//! What waits in a lane or is parked ends through its lane. This loop needs no memory across a
//! restart: a retry that it did not get to ends when it comes due.

use std::sync::Arc;

use fanfare_domain::EndpointId;
use fanfare_service::Backoff;
use fanfare_store::{DueHint, PageToken, RetryRow, RetryState};

use crate::owed::{self, Owed};
use crate::shift::Shift;
use crate::standing::Standing;

/// Retries looked at together.
const PAGE: usize = 200;

/// Looks through the open retries of endpoints that changed, for as long as it is polled.
pub(crate) async fn end_open(shift: &Arc<Shift>) {
    loop {
        let endpoint = shift.desk.changed().await;
        let mut after = None;
        loop {
            shift.desk.room().await;
            let (rows, next) = page(shift, endpoint, after.as_ref()).await;
            end_of(shift, rows).await;
            if next.is_none() {
                break;
            }
            after = next;
        }
    }
}

async fn page(
    shift: &Shift,
    endpoint: EndpointId,
    after: Option<&PageToken>,
) -> (Vec<RetryRow>, Option<PageToken>) {
    let mut backoff = Backoff::new("find open retries");
    loop {
        match shift.stores.retries.open(endpoint, after, PAGE).await {
            Ok(page) => return (page.rows, page.next),
            Err(error) => backoff.wait(&error).await,
        }
    }
}

/// Ends those of `rows` whose target is no more. One that is in hand ends with its attempt.
async fn end_of(shift: &Arc<Shift>, rows: Vec<RetryRow>) {
    let catalog = shift.crew.catalog();
    let mut ended = Vec::new();
    for row in rows {
        let (RetryState::DueAt(due), target) = (row.state, owed::target(&row)) else {
            continue;
        };
        let Standing::Ended(reason) = Standing::of(&catalog, &row.tenant, target) else {
            continue;
        };
        if shift.desk.take_in_hand(row.delivery) {
            let hint = DueHint {
                due,
                delivery: row.delivery,
            };
            ended.push((Owed::retry(hint, row), reason));
        }
    }
    owed::end_all(shift, ended).await;
}
