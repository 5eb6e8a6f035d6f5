//! A worker that is frozen for longer than its session, and returns.

use std::time::Duration;

use fanfare_tests::server::Program;
use rustix::process::Signal;

use super::stage::{IN_FLIGHT_MAX, Stage};

/// Well beyond the session of 4 s.
const FREEZE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_frozen_worker_completes_late_commits_nothing() {
    let stage = Stage::two_and_two().await;
    stage.trial.load().advances(300).await;
    let worker = stage.fleet.server(Program::Worker, 0);
    worker.signal(Signal::STOP);
    // The length of the fault, not a wait for something.
    tokio::time::sleep(FREEZE).await;
    stage.trial.load().advances(100).await;
    worker.signal(Signal::CONT);
    stage.trial.load().advances(300).await;
    // What was in flight when it froze is the other's by then, and repeated by it; nothing more.
    stage.end().await.assert_clean(IN_FLIGHT_MAX);
}
