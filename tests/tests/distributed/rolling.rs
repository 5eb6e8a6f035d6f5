//! A rolling restart of everything under load: nothing is lost, and nothing is repeated.

use std::time::Duration;

use fanfare_tests::ledger::{Audience, Manners, Wants};
use fanfare_tests::server::Program;

use super::stage::Stage;

/// Far longer than everything else takes, shorter than an attempt may.
const SLOW: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_repeats_nothing() {
    let mut stage = Stage::two_and_two().await;
    roll(&mut stage).await;
    stage.end().await.assert_clean(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_around_a_slow_endpoint_repeats_nothing() {
    let Audience(mut all) = Audience::widespread();
    let slow = Manners {
        delay: SLOW,
        ..Manners::default()
    };
    all.push((Wants::new("default", &["order.created"]), slow));
    let last = all.len() - 1;
    let mut stage = Stage::two_and_two_for(&Audience(all)).await;
    roll(&mut stage).await;
    // Waiting for it would show nothing more.
    stage.trial.subscribers().behave(last, Manners::default());
    stage.end().await.assert_clean(0);
}

/// Restarts everything, one after the other.
pub(crate) async fn roll(stage: &mut Stage) {
    for program in [Program::Router, Program::Worker] {
        for number in 0..2 {
            stage.trial.load().advances(200).await;
            let exit = stage.fleet.stop(program, number).await;
            assert_eq!(exit.code, Some(0), "{}", exit.log);
            stage.spread();
            stage.trial.load().advances(200).await;
            stage.fleet.restart(program, number).await;
            stage.spread();
        }
    }
    stage.trial.load().advances(200).await;
}
