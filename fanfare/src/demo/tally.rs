//! The count at the end: what the server owed by its own word, against what the receiver's
//! journal says arrived.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use fanfare_proto::v1;
use futures::future::try_join_all;
use tokio::time::Instant;

use super::journal::Journal;
use crate::connect::Server;
use crate::failure::Failure;

/// How long deliveries may take to end: the retries, and room.
const SETTLE_WAIT: Duration = Duration::from_secs(30);
/// Calls under way at once.
const ASK_MAX: usize = 16;

/// What became of everything that was published.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) published: usize,
    pub(super) owed: usize,
    /// Arrived and taken, with a good signature.
    pub(super) delivered: usize,
    pub(super) dead_letters: usize,
    /// Neither, and the server does not say that it still tries.
    pub(super) lost: usize,
    /// Still under way when the wait was over.
    pub(super) open: usize,
    /// Taken more than once.
    pub(super) repeated: usize,
}

/// Waits until every delivery of `events` has ended, then counts.
pub(super) async fn of(
    events: &[String],
    server: &Server,
    journal: &Journal,
) -> Result<Tally, Failure> {
    let until = Instant::now() + SETTLE_WAIT;
    loop {
        let answers = ask(events, server).await?;
        let tally = count(&answers, journal);
        if tally.open == 0 || Instant::now() >= until {
            return Ok(tally);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn ask(events: &[String], server: &Server) -> Result<Vec<v1::GetEventResponse>, Failure> {
    let mut answers = Vec::with_capacity(events.len());
    for some in events.chunks(ASK_MAX) {
        let calls = some.iter().map(|id| {
            let mut client = server.events();
            let request = v1::GetEventRequest {
                id: id.clone(),
                source: String::new(),
            };
            async move { client.get_event(request).await }
        });
        let some = try_join_all(calls).await.map_err(|s| server.failed(&s))?;
        answers.extend(some.into_iter().map(tonic::Response::into_inner));
    }
    Ok(answers)
}

fn count(answers: &[v1::GetEventResponse], journal: &Journal) -> Tally {
    let arrived: HashMap<_, _> = journal.deliveries().into_iter().collect();
    let ids: HashSet<_> = answers
        .iter()
        .filter_map(|a| a.event.as_ref())
        .map(|event| event.id.as_str())
        .collect();
    let ours = || arrived.values().filter(|d| ids.contains(d.event.as_str()));
    let mut tally = Tally {
        published: answers.len(),
        repeated: ours().map(|d| d.taken.saturating_sub(1) as usize).sum(),
        ..Tally::default()
    };
    for answer in answers {
        tally.owed += answer.delivery_count as usize;
        tally.open += usize::from(answer.route_time.is_none());
        for delivery in &answer.deliveries {
            let taken = arrived.get(&delivery.id).is_some_and(|d| d.taken > 0);
            match delivery.state() {
                v1::DeliveryState::DeadLetter => tally.dead_letters += 1,
                v1::DeliveryState::Delivered if taken => tally.delivered += 1,
                // Said to be delivered, and nobody got it.
                v1::DeliveryState::Delivered => tally.lost += 1,
                _ => tally.open += 1,
            }
        }
    }
    tally
}
