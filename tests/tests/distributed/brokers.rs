//! Three brokers, of which one at a time has trouble.

use std::time::Duration;

use fanfare_test_services::kafka;
use fanfare_tests::ledger::Audit;

use super::stage::Stage;

/// How long a broker is paused.
const PAUSE: Duration = Duration::from_secs(30);
/// How long it is silent: longer than a publish may take, shorter than a session.
const SILENCE: Duration = Duration::from_secs(5);

/// Publishes give up on a broker that is silent, and are repeated; a router waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_silent_for_longer_than_a_publish_may_take_repeats_nothing() {
    let times = [
        ("FANFARE__KAFKA__PUBLISH_TIMEOUT_MS", "2000"),
        ("FANFARE__KAFKA__SESSION_TIMEOUT_MS", "20000"),
    ];
    let mut stage = Stage::with_own_where(1, 0, &times).await;
    for _ in 0..2 {
        stage.trial.load().advances(300).await;
        stage.brokers(|kafka| kafka.node(0).stop());
        tokio::time::sleep(SILENCE).await;
        stage.brokers(|kafka| kafka.node(0).cont());
    }
    stage.trial.load().advances(300).await;
    stage.end().await.assert_clean(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make test-faults"]
async fn brokers_are_killed_paused_and_lose_their_lead() {
    let mut stage = Stage::with_own(3, 0).await;
    let load = stage.trial.load();
    load.advances(200).await;
    for broker in 0..3 {
        stage.brokers(|kafka| kafka.node(broker).kill());
        stage.trial.load().advances(200).await;
        stage.brokers(|kafka| kafka.node(broker).restart());
        stage.trial.load().advances(100).await;
    }
    // Whoever leads is not who led when they were made: moved back.
    let brokers = stage.fleet.services.brokers.join(",");
    let arguments = [
        "--bootstrap-server",
        &brokers,
        "--election-type",
        "PREFERRED",
        "--all-topic-partitions",
    ];
    kafka::tool("leader-election", &arguments).unwrap();
    stage.trial.load().advances(200).await;
    stage.brokers(|kafka| kafka.node(0).stop());
    tokio::time::sleep(PAUSE).await;
    stage.trial.load().advances(100).await;
    stage.brokers(|kafka| kafka.node(0).cont());
    stage.trial.load().advances(100).await;
    lossless(&stage.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make test-faults"]
async fn too_few_replicas_refuse_and_lose_nothing() {
    let mut stage =
        Stage::with_own_where(3, 0, &[("FANFARE__KAFKA__MIN_INSYNC_REPLICAS", "3")]).await;
    stage.trial.load().advances(200).await;
    stage.brokers(|kafka| kafka.node(2).kill());
    stage.until_unready("replicas in sync").await;
    stage.brokers(|kafka| kafka.node(2).restart());
    stage.until_ready().await;
    stage.trial.load().advances(200).await;
    lossless(&stage.end().await);
}

/// A producer that got no answer appends again, under the same ids: repeats are not bounded by what
/// was in flight, and reported.
fn lossless(audit: &Audit) {
    audit.assert_clean(usize::MAX);
}
