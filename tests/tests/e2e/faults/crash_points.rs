//! The process dies exactly between two steps. The binary under test is built with
//! `crash-points`, so that `FANFARE_CRASH_AT=name:n` kills it at the n-th pass of a point.

use fanfare_tests::World;
use fanfare_tests::api::named;
use rand::Rng;
use tonic::Code;

use super::{REPEATS_MAX, Siege};

/// Most deaths until one leaves an event without its row.
const DEATHS_MAX: usize = 40;

/// Between accepting an event (durable) and answering; its row may be there already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_events_append_before_its_answer() {
    dies_at("ingest.appended").await;
}

/// Between the append of an event and its row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_events_append_before_its_row() {
    dies_at("router.read").await;
}

/// A life that ends at the first read writes no row, so an event that is known in the next one,
/// and was published once, was in the log without one. Not every death leaves such an event: the
/// router reads what has its place and may not be written yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_its_row_is_delivered() {
    let mut world = World::start().await;
    let shop = world.endpoint().await;
    for death in 0..DEATHS_MAX {
        let id = format!("e-{death}");
        world.stop().await;
        let environment = &mut world.options().environment;
        environment.insert("FANFARE_CRASH_AT".to_owned(), "router.read".to_owned());
        world.restart().await;
        let answer = world.api().publish(named(&id, "order.paid", "{}")).await;
        let exit = world.exits().await;
        assert_eq!(exit.code, None, "it dies by a signal:\n{}", exit.log);
        world.options().environment.remove("FANFARE_CRASH_AT");
        world.restart().await;
        match world.api().event(&id).await {
            Ok(_) => {
                world.delivered(&id).await;
                assert_eq!(shop.receives_in_all(&world).await.len(), 1);
                return;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::NotFound, "{status}");
                assert!(answer.is_err(), "an accepted event is lost");
            }
        }
    }
    panic!("no death of {DEATHS_MAX} left an event without its row");
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
