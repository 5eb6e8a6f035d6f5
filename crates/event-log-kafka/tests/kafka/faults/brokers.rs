//! Brokers that are killed, stopped, or too few.

use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::Position;
use fanfare_event_log::conformance::fixtures::{
    Consumer, Member, append, available, commit, eventually, read, record, spread, texts, within,
};
use fanfare_event_log::{EventLog, LogErrorKind, Phase, Progress, Stream};
use fanfare_event_log_kafka::KafkaConfig;
use fanfare_test_services::{Cluster, kafka};

use crate::world;

async fn cluster(brokers: usize) -> Cluster {
    let started = tokio::task::spawn_blocking(move || kafka::start(brokers));
    started.await.expect("not interrupted").expect("brokers")
}

fn blocking<T>(operate: impl FnOnce() -> anyhow::Result<T>) -> T {
    operate().unwrap_or_else(|error| panic!("{error:#}"))
}

/// Appends until it is taken, as producers do after an indeterminate answer.
async fn append_again(log: &dyn EventLog, text: &str) -> Position {
    let append = || async {
        let batch = vec![record(0, text.to_owned())];
        match log.append(Stream::Events, batch).await {
            Err(error) if error.kind() == LogErrorKind::Unknown => {
                Err(LogErrorKind::Unavailable.into())
            }
            other => other,
        }
    };
    available("append", append).await[0]
}

/// Acknowledged records and commits outlive the broker; leases are won back, or never lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_killed_and_comes_back() {
    let mut cluster = cluster(1).await;
    let config = world::config_on(cluster.addresses());
    let log: Arc<dyn EventLog> = Arc::new(world::open(&config).await);
    let consumer = Consumer::of_events(&log).await;
    let before = spread("before", 20);
    append(&*log, before.clone()).await;
    consumer.sees(&texts(before.iter().map(|r| &r.bytes))).await;

    tokio::task::block_in_place(|| blocking(|| cluster.node(0).restart()));
    append_again(&*log, "after").await;
    consumer.sees(&["after".to_owned()]).await;
    consumer.leave().await;
    let fresh = Consumer::of_events(&log).await;
    append_again(&*log, "last").await;
    fresh.sees(&["last".to_owned()]).await;
    let seen = fresh.seen();
    assert!(
        seen.iter().all(|s| !s.text.starts_with("before")),
        "what was settled came again: {seen:?}"
    );
}

/// A broker that does not answer proves nothing: the lease is over by the end of the session.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_the_broker_does_not_confirm_runs_out() {
    let mut cluster = cluster(1).await;
    let config = KafkaConfig {
        session_timeout_ms: 3_000,
        commit_timeout_ms: 1_000,
        ..world::config_on(cluster.addresses())
    };
    let log: Arc<dyn EventLog> = Arc::new(world::open(&config).await);
    let position = append(&*log, vec![record(0, "a")]).await[0];
    let mut member = Member::of_events(&log).await;
    let mut granted = member.next_of(&*log, Stream::Events, 0).await;
    read(&mut granted, 1).await;

    // Idle for several sessions it is kept: the member shows life by itself.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(granted.lease.tenure.is_current(), "lost while idle");
    assert_eq!(granted.lease.phase(), Phase::Held);

    cluster.node(0).stop().expect("stopped");
    let stopped = tokio::time::Instant::now();
    within("the lease to run out", granted.lease.reached(Phase::Lost)).await;
    assert!(!granted.lease.tenure.is_current());
    assert!(
        stopped.elapsed() < Duration::from_secs(10),
        "{:?}",
        stopped.elapsed()
    );
    cluster.node(0).cont().expect("continued");

    let progress = Progress {
        ceiling: Position(position.0 + 1),
        unsettled: Vec::new(),
    };
    let refused = log
        .commit(&granted.lease, &progress)
        .await
        .expect_err("over");
    assert_eq!(refused.kind(), LogErrorKind::LeaseLost);
    let mut again = member.next_of(&*log, Stream::Events, 0).await;
    assert!(again.lease.epoch > granted.lease.epoch);
    read(&mut again, 1).await;
    commit(&*log, &again, &progress).await;
}

/// With too few replicas nothing is acknowledged; with one broker of three down, everything is.
#[tokio::test(flavor = "multi_thread")]
async fn too_few_replicas_acknowledge_nothing() {
    let mut cluster = cluster(3).await;
    let base = KafkaConfig {
        replication_factor: 3,
        publish_timeout_ms: 5_000,
        ..world::config_on(cluster.addresses())
    };
    let strict = KafkaConfig {
        topic_prefix: format!("{}-strict", base.topic_prefix),
        min_insync_replicas: 3,
        ..base.clone()
    };
    let usual = KafkaConfig {
        min_insync_replicas: 2,
        ..base
    };
    let strict: Arc<dyn EventLog> = Arc::new(world::open(&strict).await);
    let usual: Arc<dyn EventLog> = Arc::new(world::open(&usual).await);
    append_again(&*strict, "all three").await;
    append_again(&*usual, "all three").await;

    tokio::task::block_in_place(|| blocking(|| cluster.node(2).kill()));
    let refused = strict
        .append(Stream::Events, vec![record(0, "two of three")])
        .await;
    let kind = refused.expect_err("acknowledged by too few").kind();
    assert!(
        matches!(kind, LogErrorKind::Unknown | LogErrorKind::Unavailable),
        "{kind:?}"
    );
    append_again(&*usual, "two of three").await;
    let consumer = Consumer::of_events(&usual).await;
    consumer
        .sees(&["all three".into(), "two of three".into()])
        .await;

    tokio::task::block_in_place(|| blocking(|| cluster.node(2).restart()));
    append_again(&*strict, "three again").await;
    let consumer = Consumer::of_events(&strict).await;
    consumer
        .sees(&["all three".into(), "three again".into()])
        .await;
    eventually("every span is held", || {
        let held = consumer.held().len();
        (held == 4).then_some(()).ok_or(format!("{held} held"))
    })
    .await;
}
