//! SIGKILL of a router and of a worker under load.

use std::time::Duration;

use fanfare_tests::server::Program;
use rand::Rng;

use super::stage::{REPEATS_MAX, Stage};

/// Kills of each.
const KILLS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_routers_and_workers_lose_nothing() {
    let mut stage = Stage::two_and_two().await;
    for _ in 0..KILLS {
        for program in [Program::Router, Program::Worker] {
            let more = stage.rng.random_range(1..200);
            stage.trial.load().advances(more).await;
            let nap = stage.rng.random_range(0..20_000);
            tokio::time::sleep(Duration::from_micros(nap)).await;
            let victim = stage.rng.random_range(0..2);
            stage.fleet.kill(program, victim).await;
            stage.spread();
            stage.trial.load().advances(100).await;
            stage.fleet.restart(program, victim).await;
            stage.spread();
        }
    }
    stage.end().await.assert_clean(2 * KILLS * REPEATS_MAX);
}
