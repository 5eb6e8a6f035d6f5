//! A log with topics of its own on a broker that all tests of this process share.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fanfare_event_log_kafka::{Hooks, KafkaConfig, KafkaLog};
use fanfare_test_services::kafka;

/// A configuration for one broker, whose topics nobody else uses.
pub(crate) async fn config() -> KafkaConfig {
    write_log();
    let servers = tokio::task::spawn_blocking(kafka::shared);
    let servers = servers.await.expect("not interrupted").expect("a broker");
    config_on(servers)
}

/// The same on other brokers.
pub(crate) fn config_on(servers: Vec<String>) -> KafkaConfig {
    write_log();
    KafkaConfig {
        bootstrap_servers: servers,
        topic_prefix: unique("t"),
        event_topics: 1,
        event_partitions: 4,
        delivery_partitions: 2,
        replication_factor: 1,
        min_insync_replicas: 1,
        linger_ms: 0,
        session_timeout_ms: 10_000,
        heartbeat_interval_ms: 200,
        drain_timeout_ms: 20_000,
        ..KafkaConfig::default()
    }
}

/// Opens a log without further hooks.
pub(crate) async fn open(config: &KafkaConfig) -> KafkaLog {
    let opened = KafkaLog::open(config.clone(), Hooks::default()).await;
    opened.unwrap_or_else(|error| panic!("{error}"))
}

/// A name that no other test uses, in this run or another.
fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("after 1970").as_millis();
    format!("{prefix}{now:x}-{:x}-{count}", std::process::id())
}

/// What the log writes, where `RUST_LOG` asks for it.
fn write_log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let writer = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer();
    // Another test of this process was first.
    let _ = writer.try_init();
}
