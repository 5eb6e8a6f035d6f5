//! What the stores of the embedded engine cost: CPU of the whole process per operation, flushing
//! and merging of the view included, and how long a directory takes to open.
//!
//! `cargo run --release -p fanfare-embedded --example stores [-- DIR [PART]...]`, where a part is
//! one of append, claim, claim50, attempts, attempts1, retries, parked.

// Figures for people: two or three digits of them matter.
#![allow(clippy::cast_precision_loss)]
#![allow(clippy::unchecked_time_subtraction)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use fanfare_domain::{
    AcceptedEvent, Data, DeliveryId, DeliverySeed, EndpointId, Event, EventId, EventRef, EventType,
    Outcome, ParkedReason, Place, Shard, Source, SubscriptionId, Target, TenantId, Tenure,
    Timestamp,
};
use fanfare_embedded::{Embedded, EmbeddedConfig};
use fanfare_event_log::record::encode_event;
use fanfare_event_log::{Outgoing, Stream};
use fanfare_store::{AttemptRow, Claim, Parked, ParkedKey, RetryRow, RetryState, Route, Stores};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Events of one append, one claim and one batch of attempts.
const BATCH: u64 = 100;
const EVENTS: u64 = 300_000;
const ATTEMPTS: u64 = 2_000_000;
const PARKED: u64 = 1_000_000;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| std::env::temp_dir().join("fanfare-stores-cost"));
    let parts: Vec<_> = args.collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let embedded = open(&dir).await?;
    let stores = embedded.stores();
    if wanted("append") {
        log_alone(&embedded).await?;
    }
    if wanted("claim") {
        claimed(&embedded, 1).await?;
    }
    if wanted("claim50") {
        claimed(&embedded, 50).await?;
    }
    if wanted("attempts") {
        history(&stores, 50).await?;
    }
    if wanted("attempts1") {
        history(&stores, 1).await?;
    }
    if wanted("retries") {
        retried(&stores).await?;
    }
    if wanted("parked") {
        parked(&stores).await?;
    }
    restarted(embedded, &dir).await?;
    std::fs::remove_dir_all(&dir).context("cannot remove the data directory")
}

async fn open(dir: &std::path::Path) -> Result<Embedded> {
    let config = EmbeddedConfig {
        dir: dir.to_owned(),
        ..EmbeddedConfig::default()
    };
    let start = Instant::now();
    let embedded = Embedded::open(config).await?;
    println!(
        "open                        {:>8.0} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    Ok(embedded)
}

/// CPU of this process so far.
fn cpu() -> Duration {
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        usage.tv_sec.unsigned_abs(),
        u32::try_from(usage.tv_nsec).unwrap_or(0),
    )
}

/// Prints what `ops` operations cost that began at `start`.
fn report(what: &str, ops: u64, start: (Instant, Duration)) {
    let (wall, cpu) = (start.0.elapsed(), cpu() - start.1);
    let per = |time: Duration| time.as_secs_f64() * 1e6 / ops as f64;
    println!(
        "{what:<28}{:>8.2} us CPU {:>8.2} us wall",
        per(cpu),
        per(wall)
    );
}

fn begin() -> (Instant, Duration) {
    (Instant::now(), cpu())
}

fn event(run: &str, n: u64) -> AcceptedEvent {
    let event = Event {
        id: EventId::try_new(format!(
            "{run}-{:016x}-{n:08}",
            n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ))
        .expect("visible ASCII"),
        source: Source::try_new("/bench").expect("visible ASCII"),
        event_type: EventType::try_new("order.paid").expect("a type"),
        subject: None,
        time: None,
        data_content_type: "application/json".into(),
        data_schema: None,
        data: Data::Bytes(Bytes::from(vec![b'x'; 1024])),
        ordering_key: None,
        extensions: std::collections::BTreeMap::new(),
    };
    AcceptedEvent {
        tenant: TenantId::try_new("bench").expect("a tenant"),
        body_hash: fanfare_domain::BodyHash([n.to_le_bytes()[0]; 16]),
        event,
        accept_time: Timestamp::now(),
    }
}

async fn append(embedded: &Embedded, events: &[AcceptedEvent]) -> Result<Vec<Place>> {
    let outgoing = |event: &AcceptedEvent| Outgoing {
        shard: Shard(0),
        subject: "order".into(),
        bytes: encode_event(event),
    };
    let batch = events.iter().map(outgoing).collect();
    let positions = embedded.log().append(Stream::Events, batch).await?;
    Ok(positions
        .into_iter()
        .map(|position| Place { span: 0, position })
        .collect())
}

/// Appends, which also tell the view what was accepted.
async fn log_alone(embedded: &Embedded) -> Result<()> {
    let start = begin();
    for batch in 0..EVENTS / BATCH {
        let events: Vec<_> = (batch * BATCH..(batch + 1) * BATCH)
            .map(|n| event("log", n))
            .collect();
        append(embedded, &events).await?;
    }
    report("append", EVENTS, start);
    Ok(())
}

async fn claimed(embedded: &Embedded, targets: u64) -> Result<()> {
    let stores = embedded.stores();
    let tenure = Tenure::unlimited();
    let target = |n| Target {
        endpoint: EndpointId(n),
        subscription: SubscriptionId(n),
    };
    let matched: Arc<[Target]> = (0..targets).map(target).collect();
    let run = format!("claim-{targets}");
    let start = begin();
    for batch in 0..EVENTS / BATCH {
        let events: Vec<_> = (batch * BATCH..(batch + 1) * BATCH)
            .map(|n| event(&run, n))
            .collect();
        let places = append(embedded, &events).await?;
        let claim = |(event, place)| Claim {
            event: Arc::new(event),
            place,
            route: Route {
                route_time: Timestamp::now(),
                matched: matched.clone(),
                config_head: 7,
            },
        };
        let claims = events.into_iter().zip(places).map(claim).collect();
        stores.events.claim(&tenure, claims).await?;
    }
    report(&format!("append and claim, 1:{targets}"), EVENTS, start);
    Ok(())
}

fn delivery(seed: &DeliverySeed, endpoint: u64) -> DeliveryId {
    seed.delivery(
        EndpointId(endpoint),
        SubscriptionId(endpoint),
        Timestamp::now(),
        0,
    )
}

fn seed(event: &AcceptedEvent) -> DeliverySeed {
    let key = event.key();
    DeliverySeed::new(&key.tenant, &key.source, &key.id, &event.body_hash)
}

/// Attempts as the worker hands them over: a few milliseconds' worth at a time.
async fn history(stores: &Stores, targets: u64) -> Result<()> {
    let mut made = Duration::ZERO;
    let start = begin();
    for batch in 0..ATTEMPTS / BATCH {
        let making = cpu();
        let mut rows = Vec::new();
        while (rows.len() as u64) < BATCH {
            let event = event("history", batch);
            let reference = EventRef::new(
                event.key(),
                Place {
                    span: 0,
                    position: fanfare_domain::Position(batch * 1200 + 64),
                },
            );
            let seed = seed(&event);
            for endpoint in 0..targets.min(BATCH) {
                rows.push(attempt(
                    &event,
                    &reference,
                    delivery(&seed, endpoint),
                    rows.len(),
                ));
            }
        }
        made += cpu() - making;
        stores.history.append(rows).await?;
    }
    report(
        &format!("attempt, 1:{targets}"),
        ATTEMPTS,
        (start.0, start.1 + made),
    );
    Ok(())
}

fn attempt(event: &AcceptedEvent, at: &EventRef, delivery: DeliveryId, n: usize) -> AttemptRow {
    AttemptRow {
        tenant: event.tenant.clone(),
        delivery,
        subscription: SubscriptionId(n as u64),
        event: at.clone(),
        event_type: event.event.event_type.clone(),
        number: 1,
        start: Timestamp::now(),
        latency: Duration::from_micros(1234),
        outcome: Outcome::delivered(200),
        next_attempt: None,
        answer: Bytes::from_static(b"ok"),
        answer_truncated: false,
    }
}

/// A delivery that fails once and is then delivered.
async fn retried(stores: &Stores) -> Result<()> {
    let tenure = Tenure::unlimited();
    let event = event("retry", 1);
    let reference = EventRef::new(event.key(), Place::default());
    let rows = |batch: u64, state: fn(Timestamp) -> RetryState| -> Vec<RetryRow> {
        let row = |n| RetryRow {
            delivery: delivery(&seed(&event), n),
            tenant: event.tenant.clone(),
            subscription: SubscriptionId(n),
            event: reference.clone(),
            generation: 0,
            attempts: 1,
            attempts_before: 0,
            first_attempt: Timestamp::now(),
            last_outcome: Outcome::status(503, None),
            state: state(Timestamp::now()),
        };
        (batch * BATCH..(batch + 1) * BATCH).map(row).collect()
    };
    let start = begin();
    for batch in 0..EVENTS / BATCH {
        let due = rows(batch, RetryState::DueAt);
        stores.retries.put(&tenure, due).await?;
        let until = Timestamp::now();
        let hints = stores
            .retries
            .due(fanfare_domain::ShardSet::ALL, None, until, 100)
            .await?;
        stores.retries.forget(&tenure, hints).await?;
        stores
            .retries
            .put(&tenure, rows(batch, RetryState::Delivered))
            .await?;
    }
    report("retried and delivered", EVENTS, start);
    Ok(())
}

async fn parked(stores: &Stores) -> Result<()> {
    let tenure = Tenure::unlimited();
    let event = event("parked", 1);
    let seed = seed(&event);
    let start = begin();
    for batch in 0..PARKED / BATCH {
        let row = |n| Parked {
            endpoint: EndpointId(n % 50),
            key: ParkedKey {
                place: Place {
                    span: 0,
                    position: fanfare_domain::Position(n * 1200),
                },
                part: 0,
            },
            delivery: seed.delivery(EndpointId(n % 50), SubscriptionId(n), Timestamp::now(), 0),
            tenant: event.tenant.clone(),
            subscription: SubscriptionId(n),
            event: EventRef::new(
                event.key(),
                Place {
                    span: 0,
                    position: fanfare_domain::Position(n * 1200),
                },
            ),
            generation: 0,
            reason: ParkedReason::Unhealthy,
            since: Timestamp::now(),
        };
        let rows = (batch * BATCH..(batch + 1) * BATCH).map(row).collect();
        stores.parking.park(&tenure, rows).await?;
    }
    report("park", PARKED, start);
    Ok(())
}

/// Opens the directory again, once closed in order and once killed; then drains what is parked.
async fn restarted(embedded: Embedded, dir: &std::path::Path) -> Result<()> {
    embedded.close().await;
    let embedded = open(dir).await?;
    ready(&embedded.stores()).await?;
    drop(embedded);
    let embedded = open(dir).await?;
    let stores = embedded.stores();
    ready(&stores).await?;
    let start = begin();
    let mut drained = 0;
    for endpoint in (0..50).map(EndpointId) {
        loop {
            let rows = stores.parking.peek(endpoint, None, 100).await?;
            if rows.is_empty() {
                break;
            }
            drained += rows.len() as u64;
            let keys = rows.iter().map(|row| row.key).collect();
            stores
                .parking
                .unpark(&Tenure::unlimited(), endpoint, keys)
                .await?;
        }
    }
    if drained > 0 {
        anyhow::ensure!(drained == PARKED, "{drained} were parked");
        report("peek and unpark", PARKED, start);
    }
    embedded.close().await;
    Ok(())
}

/// What a new owner asks before it goes to work.
async fn ready(stores: &Stores) -> Result<()> {
    let start = Instant::now();
    let all = fanfare_domain::ShardSet::ALL;
    let waiting = stores.parking.endpoints(all).await?.len();
    let due = stores
        .retries
        .due(all, None, Timestamp::now(), 100)
        .await?
        .len();
    let took = start.elapsed().as_secs_f64() * 1e3;
    println!("ready: {waiting} endpoints, {due} due {took:>8.0} ms");
    Ok(())
}
