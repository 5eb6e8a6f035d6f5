//! The index of subscriptions alone, 100k of them under one tenant: time per event and memory per
//! subscription, beside the catalog that every process holds anyway.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fanfare_domain::{
    Endpoint, EndpointId, EndpointState, Envelope, EventType, Secret, Subscription, SubscriptionId,
    TenantId, Timestamp, TypePattern,
};
use fanfare_router::matching::{Feed, Matcher};
use fanfare_store::config::{WRITE_MAX, bucket_of};
use fanfare_store::{Catalog, Entry, Follower, Head, MemoryStores, Observer, Write};
use serde::{Deserialize, Serialize};

use crate::report::{Report, Row};
use crate::{child, process};

const SUBSCRIPTIONS: u64 = 100_000;
const TYPES: u64 = 20_000;
const EVENTS: u64 = 500_000;
const FURTHER_INDEXES: u64 = 8;

#[derive(Debug, Serialize, Deserialize)]
struct Matching {
    micros_per_event: f64,
    targets_per_event: f64,
    bytes_per_subscription: f64,
}

/// In a process of its own.
pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    let found: Matching = child::answer(&["matching"]).await?;
    report.add(
        Row::new("matching with 100k subscriptions, time per event", "<= 10 us")
            .value(found.micros_per_event, "us", 10.0)
            .note(format!(
                "one tenant, {TYPES} types, a quarter of the subscriptions with wildcards; {:.1} targets per event",
                found.targets_per_event
            )),
    );
    report.add(
        Row::new("the same, memory per subscription", "<= 400 B")
            .value(found.bytes_per_subscription, "B", 400.0)
            .note("growth of resident memory by the index, beside the catalog".into()),
    );
    Ok(())
}

/// The process.
pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(matching())?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
async fn matching() -> Result<Matching> {
    let tenant = TenantId::try_new("bench").map_err(|e| anyhow::anyhow!("{e:?}"))?;
    let writes = writes(&tenant)?;
    let stores = MemoryStores::new().stores();
    let bucket = bucket_of(&tenant);
    let mut head = Head::default();
    for some in writes.chunks(WRITE_MAX) {
        head = stores.config.write(bucket, head, some.to_vec()).await?;
    }
    let follower = Follower::start(stores.config.clone(), Vec::new()).await?;
    let catalog = follower.catalog();

    let used = index(&writes, &catalog);
    let (micros_per_event, targets_per_event) = time(&used.0, &tenant)?;
    // The first ones take up what was freed before; the further ones show what one needs.
    let first = (0..FURTHER_INDEXES).map(|_| index(&writes, &catalog));
    let mut indexes: Vec<_> = first.collect();
    let before = process::resident(std::process::id())?;
    indexes.extend((0..FURTHER_INDEXES).map(|_| index(&writes, &catalog)));
    let grown = process::resident(std::process::id())?.saturating_sub(before);
    Ok(Matching {
        micros_per_event,
        targets_per_event,
        bytes_per_subscription: grown as f64 / (FURTHER_INDEXES * SUBSCRIPTIONS) as f64,
    })
}

/// Microseconds and targets per event.
fn time(matcher: &Matcher, tenant: &TenantId) -> Result<(f64, f64)> {
    let types = (0..TYPES).map(|n| EventType::try_new(event_type(n)));
    let types = types
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| anyhow::anyhow!("{e:?}"))?;
    let (mut targets, started) = (0, Instant::now());
    for event_type in types.iter().cycle().take(usize::try_from(EVENTS)?) {
        targets += black_box(matcher.matched(tenant, event_type)).targets.len();
    }
    let micros = started.elapsed().as_secs_f64() * 1e6;
    Ok((micros / EVENTS as f64, targets as f64 / EVENTS as f64))
}

fn index(writes: &[Write], catalog: &Catalog) -> (Matcher, Feed) {
    let (matcher, mut feed) = Matcher::new();
    for some in writes.chunks(WRITE_MAX) {
        feed.changed(some, catalog);
    }
    (matcher, feed)
}

fn event_type(n: u64) -> String {
    format!("area{}.thing{}.happened{n}", n % 200, n % 2000)
}

/// Three quarters want one exact type; the rest everything of one thing, of one kind.
fn pattern(n: u64) -> String {
    match n % 8 {
        0 => format!("area{}.thing{}.*", n % 200, n % 2000),
        1 => format!("area{}.*.happened{}", n % 200, n % TYPES),
        _ => event_type(n % TYPES),
    }
}

fn writes(tenant: &TenantId) -> Result<Vec<Write>> {
    let mut rng = rand::rng();
    let endpoints = (0..SUBSCRIPTIONS / 10).map(|n| {
        Entry::Endpoint(Endpoint {
            id: EndpointId(n),
            tenant: tenant.clone(),
            name: String::new(),
            url: "https://example.com/hook".into(),
            state: EndpointState::Active,
            state_reason: String::new(),
            secret: Secret::generate(&mut rng),
            old_secrets: Vec::new(),
            headers: BTreeMap::new(),
            labels: BTreeMap::new(),
            retry_schedule: None,
            timeout: Duration::from_secs(15),
            envelope: Envelope::Binary,
            create_time: Timestamp::from_micros(0),
            update_time: Timestamp::from_micros(0),
            version: 1,
        })
    });
    let endpoints: Vec<_> = endpoints.collect();
    let subscriptions = (0..SUBSCRIPTIONS).map(|n| {
        let pattern = TypePattern::try_new(pattern(n)).ok().context("a pattern")?;
        Ok(Entry::Subscription(Subscription {
            id: SubscriptionId(n),
            tenant: tenant.clone(),
            endpoint: EndpointId(n % (SUBSCRIPTIONS / 10)),
            event_types: vec![pattern],
            create_time: Timestamp::from_micros(0),
            update_time: Timestamp::from_micros(0),
            version: 1,
        }))
    });
    endpoints
        .into_iter()
        .map(Ok)
        .chain(subscriptions)
        .map(|entry: Result<Entry>| Ok(Write::Put(Box::new(entry?))))
        .collect()
}
