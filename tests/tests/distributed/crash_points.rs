//! Death at the bad moments, in a cluster.

use fanfare_tests::server::Program;

use super::stage::{REPEATS_MAX, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_dies_between_accepting_and_answering() {
    dies(Program::Router, "ingest.appended").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_dies_between_reading_and_claim() {
    dies(Program::Router, "router.read").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_dies_between_claim_and_append() {
    dies(Program::Router, "router.claimed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_dies_between_append_and_commit() {
    dies(Program::Router, "router.appended").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_between_answer_and_settlement() {
    dies(Program::Worker, "worker.answered").await;
}

/// One of the two dies at `point`, twice; then it is started without.
async fn dies(program: Program, point: &str) {
    let mut stage = Stage::two_and_two().await;
    stage.trial.load().advances(100).await;
    let exit = stage.fleet.stop(program, 1).await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    stage.spread();
    for count in [3, 40] {
        stage.fleet.plan(program, 1, point, count);
        if point.starts_with("ingest.") {
            // Producers stay with a router that answers: they are sent to this one.
            stage.fleet.restart(program, 1).await;
            stage.trial.moved(&stage.fleet.server(program, 1).url());
        }
        let exit = stage.fleet.dies(program, 1).await;
        assert_eq!(exit.code, None, "it was to be killed: {}", exit.log);
        stage.spread();
    }
    stage.fleet.plan(program, 1, "", 0);
    stage.fleet.restart(program, 1).await;
    stage.spread();
    stage.trial.load().advances(100).await;
    stage.end().await.assert_clean(2 * REPEATS_MAX);
}
