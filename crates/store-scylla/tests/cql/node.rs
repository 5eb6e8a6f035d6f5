//! One node for all tests of this process, with one migrated keyspace that a test has to itself
//! for as long as it runs: making tables takes seconds, emptying the few that were used does not.

use std::sync::Arc;

use fanfare_store::conformance::CHANGES_KEPT_IN_TESTS;
use fanfare_store_scylla::{CqlConfig, migrate};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard};

const TABLES: &[&str] = &[
    "event",
    "event_by_time",
    "attempt",
    "dead_letter",
    "dead_letter_by_time",
    "retry",
    "due",
    "parked",
    "parked_at",
    "parked_queue",
    "calendar",
    "shard",
    "config",
    "layout",
];

static MIGRATED: OnceCell<Arc<Mutex<()>>> = OnceCell::const_new();

/// The right to the keyspace.
pub(crate) type Turn = OwnedMutexGuard<()>;

/// `host:port` of the node.
pub(crate) async fn addresses() -> Vec<String> {
    let shared = tokio::task::spawn_blocking(fanfare_test_services::cql::shared);
    shared.await.unwrap().unwrap()
}

/// How a keyspace of this process is reached.
pub(crate) async fn config(name: &str) -> CqlConfig {
    CqlConfig {
        contact_points: addresses().await,
        keyspace: format!("fanfare_{name}_{}", std::process::id()),
        replication: 1,
        changes_kept: CHANGES_KEPT_IN_TESTS,
        request_timeout_ms: 20_000,
        ..CqlConfig::default()
    }
}

/// The keyspace, empty, and the right to it.
pub(crate) async fn empty() -> (CqlConfig, Turn) {
    let config = config("suite").await;
    let turns = MIGRATED.get_or_init(|| async {
        migrate(&config).await.unwrap();
        Arc::default()
    });
    let turn = turns.await.clone().lock_owned().await;
    let session = raw(&config).await;
    for table in TABLES {
        let name = format!("{}.{table}", config.keyspace);
        let any = session.query_unpaged(format!("SELECT * FROM {name} LIMIT 1"), ());
        if any.await.unwrap().into_rows_result().unwrap().rows_num() > 0 {
            session
                .query_unpaged(format!("TRUNCATE {name}"), ())
                .await
                .unwrap();
        }
    }
    (config, turn)
}

/// A session that is not Fanfare's.
pub(crate) async fn raw(config: &CqlConfig) -> Session {
    let builder = SessionBuilder::new().known_nodes(&config.contact_points);
    builder.build().await.unwrap()
}
