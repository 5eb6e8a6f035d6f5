//! The process dies exactly between two steps. The binary under test is built with
//! `crash-points`, so that `FANFARE_CRASH_AT=name:n` kills it at the n-th pass of a point.

use rand::Rng;

use super::{REPEATS_MAX, Siege};

/// Between accepting an event (durable) and writing its row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_events_append_before_its_row() {
    dies_at("ingest.appended").await;
}

/// Between the row and the append of the deliveries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_row_before_the_deliveries_append() {
    dies_at("router.claimed").await;
}

/// Between the append of the deliveries and the commit of the input.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_deliveries_append_before_the_commit() {
    dies_at("router.appended").await;
}

/// Between the receiver's 200 and the settling of the delivery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_receivers_200_before_the_settle() {
    dies_at("worker.answered").await;
}

/// Runs, dies at `point`, runs on; a few times at different passes.
async fn dies_at(point: &str) {
    let mut siege = Siege::begin(|options| options).await;
    let mut deaths = 0;
    for pass_max in [1, 3, 40] {
        siege.world.stop().await;
        let pass = siege.rng.random_range(1..=pass_max);
        let at = format!("{point}:{pass}");
        siege
            .world
            .options()
            .environment
            .insert("FANFARE_CRASH_AT".to_owned(), at.clone());
        let exit = siege.dies().await;
        assert_eq!(
            exit.code, None,
            "it dies by a signal at {at}:\n{}",
            exit.log
        );
        deaths += 1;
        siege.world.options().environment.remove("FANFARE_CRASH_AT");
        siege.restart().await;
        siege.trial.load().advances(50).await;
    }
    siege.end().await.assert_clean(deaths * REPEATS_MAX);
}
