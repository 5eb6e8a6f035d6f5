//! A broker that its controller has not heard of for long is fenced: it answers, and says that there is no
//! broker and no leader at all. A client that believes it has nobody left to ask.

use std::sync::Arc;
use std::time::Duration;

use fanfare_event_log::conformance::fixtures::{available, record, within};
use fanfare_event_log::{EventLog, LogErrorKind, Stream};
use fanfare_event_log_kafka::{Hooks, KafkaConfig, KafkaLog};
use fanfare_test_services::kafka;

use crate::world;

/// Programs with a client of each kind.
const LOGS: usize = 4;
/// How often the broker is fenced, after not having been heard of for so long.
const FENCED: usize = 2;
const PAUSE: Duration = Duration::from_secs(8);

async fn append(log: &dyn EventLog) {
    let append = || async {
        match log.append(Stream::Events, vec![record(0, "x")]).await {
            Err(error) if error.kind() == LogErrorKind::Unknown => {
                Err(LogErrorKind::Unavailable.into())
            }
            other => other,
        }
    };
    available("append", append).await;
}

async fn open(config: &KafkaConfig) -> Arc<dyn EventLog> {
    let opening = async {
        loop {
            match KafkaLog::open(config.clone(), Hooks::default()).await {
                Ok(log) => return Arc::new(log),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    within("a log while the broker is not fenced", opening).await
}

/// However often the broker is fenced, every program finds it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_fenced_is_found_again() {
    let started = tokio::task::spawn_blocking(kafka::start_seldom_heard).await;
    let mut cluster = started.expect("not interrupted").expect("a broker");
    let config = KafkaConfig {
        publish_timeout_ms: 5_000,
        ..world::config_on(cluster.addresses())
    };
    let mut logs = Vec::new();
    for _ in 0..LOGS {
        logs.push(open(&config).await);
    }
    let mut busy = tokio::task::JoinSet::new();
    for log in &logs {
        let log = log.clone();
        busy.spawn(async move {
            loop {
                // Whatever comes of it.
                let _ = log.append(Stream::Events, vec![record(0, "busy")]).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    for _ in 0..FENCED {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.node(0).stop().expect("stopped");
        tokio::time::sleep(PAUSE).await;
        cluster.node(0).cont().expect("continued");
        tokio::time::sleep(Duration::from_secs(8)).await;
    }
    busy.shutdown().await;
    for (n, log) in logs.iter().enumerate() {
        within(&format!("log {n}"), append(&**log)).await;
    }
}
