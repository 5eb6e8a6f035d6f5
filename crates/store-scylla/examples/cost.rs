//! What a batch of each role's writes costs on a real node, against a bare driver that inserts the
//! same number of rows: `cargo run -p fanfare-store-scylla --example cost`.

#![allow(clippy::unwrap_used)] // a tool for developers

use std::time::{Duration, Instant};

use fanfare_domain::Tenure;
use fanfare_store::conformance::fixtures::{attempt, claim, event, place, retry, route, second};
use fanfare_store::{RetryState, Stores};
use fanfare_store_scylla::{CqlConfig, migrate, open};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::batch::{Batch, BatchType};

/// Rows of a batch, and batches measured.
const ROWS: u64 = 100;
const BATCHES: u64 = 200;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let config = CqlConfig {
        contact_points: fanfare_test_services::cql::shared().unwrap(),
        keyspace: format!("fanfare_cost_{}", std::process::id()),
        replication: 1,
        ..CqlConfig::default()
    };
    migrate(&config).await.unwrap();
    let stores = open(&config).await.unwrap();
    let bare = SessionBuilder::new().known_nodes(&config.contact_points);
    let bare = bare.build().await.unwrap();
    bare.use_keyspace(&config.keyspace, false).await.unwrap();
    for round in ["warm up", "measured"] {
        println!("{round}: us of this process per row, ms per batch of {ROWS}");
        let offset = if round == "measured" { 1_000_000 } else { 0 };
        measure("bare, a row of its own each", |n| own(&bare, offset + n)).await;
        measure("bare, one shared batch", |n| shared(&bare, offset + n)).await;
        measure("claim", |n| claims(&stores, offset + n)).await;
        measure("put retries", |n| retries(&stores, offset + n)).await;
        measure("append attempts", |n| attempts(&stores, offset + n)).await;
    }
    let drop = format!("DROP KEYSPACE {}", config.keyspace);
    bare.query_unpaged(drop, ()).await.unwrap();
}

async fn measure<F: Future<Output = ()>>(name: &str, batch: impl Fn(u64) -> F) {
    let (cpu, start) = (cpu(), Instant::now());
    for n in 0..BATCHES {
        batch(n * ROWS).await;
    }
    let rows = f64::from(u32::try_from(ROWS * BATCHES).unwrap());
    let micros = |d: Duration| d.as_secs_f64() * 1e6 / rows;
    let used = micros(self::cpu().saturating_sub(cpu));
    let took = micros(start.elapsed()) * f64::from(u32::try_from(ROWS).unwrap()) / 1e3;
    println!("  {name:<28} {used:6.1} us  {took:6.1} ms");
}

/// User and system time of this process (clock ticks of 10 ms).
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(") ").next().unwrap().split(' ');
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|f| f.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

async fn own(session: &Session, first: u64) {
    let insert = "INSERT INTO event (tenant, event_id, source, part, head, parts, body) VALUES (?, ?, ?, 0, ?, 1, ?)";
    let insert = session.prepare(insert).await.unwrap();
    let one = |n: u64| {
        let values = (
            "bare",
            format!("e-{n}"),
            "/shop",
            vec![1u8; 100],
            vec![2u8; 1100],
        );
        session.execute_unpaged(&insert, values)
    };
    futures::future::try_join_all((first..first + ROWS).map(one))
        .await
        .unwrap();
}

async fn shared(session: &Session, first: u64) {
    let insert = "INSERT INTO attempt (tenant, endpoint, slot, key, row) VALUES (?, ?, ?, ?, ?)";
    let insert = session.prepare(insert).await.unwrap();
    let mut batch = Batch::new(BatchType::Unlogged);
    let mut values = Vec::new();
    for n in first..first + ROWS {
        batch.append_statement(insert.clone());
        values.push((
            "bare",
            7i64,
            1i64,
            n.to_be_bytes().repeat(4),
            vec![1u8; 110],
        ));
    }
    session.batch(&batch, values).await.unwrap();
}

async fn claims(stores: &Stores, first: u64) {
    let data = "x".repeat(1024);
    let one = |n: u64| {
        let event = event(&format!("e-{n}"), &data);
        claim(&event, place(n), route(1, &[1]))
    };
    let claims = (first..first + ROWS).map(one).collect();
    stores
        .events
        .claim(&Tenure::unlimited(), claims)
        .await
        .unwrap();
}

async fn retries(stores: &Stores, first: u64) {
    let one = |n: u64| retry(n % 10, n, RetryState::DueAt(second(5)));
    let rows = (first..first + ROWS).map(one).collect();
    stores
        .retries
        .put(&Tenure::unlimited(), rows)
        .await
        .unwrap();
}

async fn attempts(stores: &Stores, first: u64) {
    let rows = (first..first + ROWS)
        .map(|n| attempt(7, second(0), n, 1))
        .collect();
    stores.history.append(rows).await.unwrap();
}
