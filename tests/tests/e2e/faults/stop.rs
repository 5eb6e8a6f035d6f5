//! SIGTERM: what is in flight ends, what is queued stays, and nothing is repeated afterwards.

use std::time::Duration;

use fanfare_tests::ledger::{Audience, Manners, until};

use super::{IN_FLIGHT_MAX, REPEATS_MAX, Siege};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_with_a_full_queue_repeats_nothing() {
    let slow = Audience::mixed().taking(Duration::from_millis(100));
    let mut siege = Siege::before(slow, |options| options).await;
    for _ in 0..3 {
        // Far more is owed than can be in flight.
        siege.trial.load().advances(20 * IN_FLIGHT_MAX as u64).await;
        let subscribers = siege.trial.subscribers();
        until("POSTs in flight", || subscribers.open() as u64, 10).await;
        let exit = siege.world.stop().await;
        assert_eq!(exit.code, Some(0), "{}", exit.log);
        siege.restart().await;
    }
    // The rest may come quickly.
    for index in 0..siege.trial.subscribers().wants().len() {
        siege.trial.subscribers().behave(index, Manners::default());
    }
    siege.end().await.assert_clean(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once_and_loses_nothing() {
    let slow = Audience::mixed().taking(Duration::from_secs(10));
    let mut siege = Siege::before(slow, |options| options).await;
    siege.trial.load().advances(200).await;
    let subscribers = siege.trial.subscribers();
    until("POSTs in flight", || subscribers.open() as u64, 10).await;
    siege.world.server().signal(rustix::process::Signal::TERM);
    siege.world.server().signal(rustix::process::Signal::INT);
    siege.world.exits().await;
    for index in 0..siege.trial.subscribers().wants().len() {
        siege.trial.subscribers().behave(index, Manners::default());
    }
    siege.restart().await;
    siege.end().await.assert_clean(REPEATS_MAX);
}
