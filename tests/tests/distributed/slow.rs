//! Everything completes out of order around one slow endpoint, and the worker is killed.

use std::time::Duration;

use fanfare_tests::ledger::{Audience, Manners, Wants};
use fanfare_tests::server::Program;

use super::stage::{IN_FLIGHT_MAX, Stage};

/// Far longer than everything else takes, shorter than an attempt may.
const SLOW: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_repeats_what_was_in_flight_and_not_what_lies_behind_a_slow_one() {
    let slow = Manners {
        delay: SLOW,
        ..Manners::default()
    };
    let audience = Audience(vec![
        (Wants::new("default", &["order.**"]), Manners::default()),
        (Wants::new("default", &["invoice.sent"]), Manners::default()),
        (Wants::new("default", &["chat"]), slow),
    ]);
    let mut stage = Stage::one_and_one(&audience).await;
    // Long enough that slow ones hold the watermark back, with far more than what is in flight
    // settled above it.
    let settled = 20 * IN_FLIGHT_MAX as u64;
    stage.trial.load().advances(settled).await;
    stage.fleet.kill(Program::Worker, 0).await;
    // What will be repeated is decided; waiting for the slow one would show nothing more.
    stage.trial.subscribers().behave(2, Manners::default());
    stage.fleet.restart(Program::Worker, 0).await;
    stage.end().await.assert_clean(IN_FLIGHT_MAX);
}
