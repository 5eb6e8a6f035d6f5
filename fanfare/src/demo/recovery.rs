//! What the last run left open, and what becomes of it.
//!
//! What is owed is worked out from the journal alone: every event that was acknowledged, to every
//! endpoint that wants its type and takes anything. It is under way if the receiver has not taken
//! it. So the server is not asked whether the server lost something.

use std::collections::HashSet;
use std::time::Duration;

use fanfare_proto::v1;
use tokio::time::Instant;

use super::endpoints::{Behaviour, CAST};
use super::journal::{Event, Journal, LastRun};
use super::publisher::Publisher;
use super::screen::Screen;
use super::tally;
use crate::connect::Server;
use crate::failure::Failure;

/// How long it may take: the retries of the demo last 2 seconds.
const ARRIVE_WAIT: Duration = Duration::from_mins(1);

/// How often what was given up is looked for, and how much of it at a time.
const REDRIVE_EVERY: Duration = Duration::from_secs(1);
const REDRIVE_MAX: i32 = 1000;

/// What was open when this run started.
#[derive(Debug)]
pub(super) struct Open {
    last_run: LastRun,
    /// Event and endpoint: acknowledged, and not taken.
    owed: HashSet<(String, String)>,
    /// Published without an answer: it may or may not have been accepted.
    unknown: Vec<(String, Event)>,
    /// Everything the journal knows of.
    events: usize,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Deliveries that were under way, of how many events in all.
    pub(super) under_way: usize,
    pub(super) events: usize,
    pub(super) lost: usize,
    pub(super) repeated: usize,
    /// Of those under way, how many had been given up.
    pub(super) redriven: usize,
    pub(super) took: Duration,
}

/// Reads the journal before the server starts, which at once goes on with what is open.
pub(super) fn open_at_start(journal: &Journal) -> Open {
    let events = journal.events();
    let (accepted, unknown): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|(_, event)| event.accepted);
    Open {
        last_run: journal.last_run(),
        events: accepted.len() + unknown.len(),
        owed: missing(&accepted, journal),
        unknown,
    }
}

/// Repeats what had no answer, waits until everything has arrived, and says so.
pub(super) async fn look_after(
    open: Open,
    publisher: &Publisher,
    server: &Server,
    journal: &Journal,
    screen: &Screen,
) -> Result<(), Failure> {
    if open.last_run == LastRun::None {
        return Ok(());
    }
    let started = Instant::now();
    screen.recovering(
        open.last_run == LastRun::Killed,
        open.owed.len(),
        open.unknown.len(),
    );
    for (id, event) in &open.unknown {
        publisher.repeat(id, &event.kind, &event.data).await?;
    }
    let mut missing_now = missing(&journal.events(), journal);
    let (mut redriven, mut looked) = (0, None::<Instant>);
    while !missing_now.is_empty() && started.elapsed() < ARRIVE_WAIT {
        if looked.is_none_or(|looked| looked.elapsed() > REDRIVE_EVERY) {
            redriven += redrive(&missing_now, server).await?;
            looked = Some(Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        missing_now = missing(&journal.events(), journal);
    }
    let ids: Vec<_> = journal.events().into_iter().map(|(id, _)| id).collect();
    let tally = tally::of(&ids, server, journal).await?;
    screen.recovered(&Recovered {
        under_way: open.owed.len(),
        events: open.events,
        lost: missing_now.len() + tally.lost,
        repeated: tally.repeated,
        redriven,
        took: started.elapsed(),
    });
    if missing_now.is_empty() {
        journal.forget_all();
    }
    Ok(())
}

/// Redrives what was given up on the way. A server that runs by itself goes on trying while there is no
/// receiver, and the demo's retries are soon over. How many there were.
async fn redrive(missing: &HashSet<(String, String)>, server: &Server) -> Result<usize, Failure> {
    let request = v1::ListDeliveriesRequest {
        page_size: REDRIVE_MAX,
        states: vec![v1::DeliveryState::DeadLetter.into()],
        ..v1::ListDeliveriesRequest::default()
    };
    let failed = |status: tonic::Status| server.failed(&status);
    let listed = server.deliveries().list_deliveries(request).await;
    let given_up = listed.map_err(failed)?.into_inner().deliveries;
    let ids: Vec<_> = given_up
        .into_iter()
        .filter(|delivery| missing.iter().any(|(event, _)| *event == delivery.event_id))
        .map(|delivery| delivery.id)
        .collect();
    if ids.is_empty() {
        return Ok(0);
    }
    let request = v1::RedriveDeliveriesRequest { ids };
    let answer = server.deliveries().redrive_deliveries(request).await;
    let results = answer.map_err(failed)?.into_inner().results;
    Ok(results.iter().filter(|one| one.error.is_none()).count())
}

/// Which endpoints have not taken which of `events`. An endpoint that is gone takes nothing.
fn missing(events: &[(String, Event)], journal: &Journal) -> HashSet<(String, String)> {
    let taken: HashSet<_> = journal
        .deliveries()
        .into_iter()
        .filter(|(_, delivery)| delivery.taken > 0)
        .map(|(_, delivery)| (delivery.event, delivery.endpoint))
        .collect();
    let takers = || CAST.iter().filter(|role| role.behaviour != Behaviour::Gone);
    let owed = events.iter().flat_map(|(id, event)| {
        let wanting = takers().filter(|role| role.wants(&event.kind));
        wanting.map(|role| (id.clone(), role.name.to_owned()))
    });
    owed.filter(|pair| !taken.contains(pair)).collect()
}
