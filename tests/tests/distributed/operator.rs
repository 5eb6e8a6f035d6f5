//! What an operator does to topics and groups while it runs, or by mistake.

use fanfare_test_services::kafka;
use fanfare_tests::server::Program;

use super::stage::{REPEATS_MAX, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the log's own suite has the heart of it: make test-faults"]
async fn partitions_that_are_added_stay_unused() {
    let mut stage = Stage::two_and_two().await;
    stage.trial.load().advances(100).await;
    let brokers = stage.fleet.services.brokers.join(",");
    for topic in ["events.0", "deliveries"] {
        let topic = format!("{}.{topic}", stage.fleet.name());
        let arguments = [
            "--bootstrap-server",
            &brokers,
            "--alter",
            "--topic",
            &topic,
            "--partitions",
            "8",
        ];
        kafka::tool("topics", &arguments).unwrap();
    }
    stage.trial.load().advances(200).await;
    // Who starts now sees them, and says so.
    for program in [Program::Router, Program::Worker] {
        assert_eq!(stage.fleet.stop(program, 1).await.code, Some(0));
        stage.spread();
        stage.fleet.restart(program, 1).await;
        stage.spread();
        let log = stage.fleet.server(program, 1).log().text();
        assert!(log.contains("they stay unused"), "{log}");
    }
    stage.trial.load().advances(200).await;
    // The brokers rebalance the groups when the partitions come; a drain that takes part in it
    // repeats nothing.
    stage.end().await.assert_clean(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the log's own suite has the heart of it: make test-faults"]
async fn deleted_offsets_never_mean_the_beginning() {
    let mut stage = Stage::two_and_two().await;
    stage.trial.load().advances(2000).await;
    let brokers = stage.fleet.services.brokers.join(",");
    for exit in stage.fleet.stop_all().await {
        assert_eq!(exit.code, Some(0), "{}", exit.log);
    }
    for group in ["router.events", "worker.deliveries"] {
        let group = format!("{}.{group}", stage.fleet.name());
        let arguments = [
            "--bootstrap-server",
            &brokers,
            "--delete",
            "--group",
            &group,
        ];
        kafka::tool("consumer-groups", &arguments).unwrap();
    }
    for program in [Program::Router, Program::Worker] {
        for number in 0..2 {
            stage.fleet.restart(program, number).await;
        }
    }
    stage.spread();
    stage.trial.load().advances(100).await;
    // The checkpoint of a clean stop is exact.
    let audit = stage.end().await;
    assert!(
        audit.owed > 2 * REPEATS_MAX,
        "it would prove nothing: {audit}"
    );
    audit.assert_clean(0);
}
