//! Groups that the brokers balance (KIP-848): the stories of death and of restarts with them.

use fanfare_test_services::kafka;
use fanfare_tests::server::Program;

use super::rolling::roll;
use super::stage::{IN_FLIGHT_MAX, Stage};

/// Two and two in such groups. The dead are missed after four seconds, as in the other stories:
/// here it is the brokers that say so, for each group.
async fn stage() -> Stage {
    let chosen = [("FANFARE__KAFKA__GROUP_PROTOCOL", "consumer")];
    let stage = Stage::with_own_where(0, 0, &chosen).await;
    let brokers = stage.fleet.services.brokers.join(",");
    let of_brokers = [
        "--bootstrap-server",
        &brokers,
        "--list",
        "--type",
        "consumer",
    ];
    let balanced = kafka::tool("consumer-groups", &of_brokers).unwrap();
    for group in ["router.events", "worker.deliveries"] {
        let group = format!("{}.{group}", stage.fleet.name());
        assert!(balanced.contains(&group), "{group} is none of: {balanced}");
        let arguments = [
            "--bootstrap-server",
            &brokers,
            "--alter",
            "--entity-type",
            "groups",
            "--entity-name",
            &group,
            "--add-config",
            "consumer.session.timeout.ms=4000",
        ];
        kafka::tool("configs", &arguments).unwrap();
    }
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_repeats_nothing() {
    let mut stage = stage().await;
    roll(&mut stage).await;
    stage.end().await.assert_clean(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_loses_nothing() {
    let mut stage = stage().await;
    stage.trial.load().advances(300).await;
    stage.fleet.kill(Program::Worker, 0).await;
    stage.trial.load().advances(300).await;
    stage.fleet.restart(Program::Worker, 0).await;
    stage.trial.load().advances(300).await;
    stage.end().await.assert_clean(IN_FLIGHT_MAX);
}
