//! A disk that fills up, and one that cannot sync.

use std::ops::ControlFlow;

use fanfare_tests::api::event;
use fanfare_tests::bad_disk::{FailingSync, SmallDisk};
use fanfare_tests::ledger::{Audience, Mix, Trial, seed};
use fanfare_tests::refusal::Refusal;
use fanfare_tests::server::Options;
use fanfare_tests::{World, eventually};
use tempfile::TempDir;

use super::{REPEATS_MAX, Siege, bounded, ended};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_recovers() {
    let disk = SmallDisk::mount(64);
    disk.take_room(16);
    let on_it = |options: Options| Options {
        dir: disk.path().join("data"),
        ..bounded(options)
    };
    let mut world = World::with(on_it).await;
    // Every event is large, so that it is soon full.
    let mix = Mix {
        large: 1_000,
        ..Mix::mixed()
    };
    let trial = Trial::start(seed(), &world.url(), &mix, &Audience::mixed()).await;
    let refusal = eventually("a publish to be refused", async || {
        match publish(&world).await {
            Err(refusal) if refusal.reason == "STORAGE_FULL" => ControlFlow::Break(refusal),
            other => ControlFlow::Continue(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(refusal.code, tonic::Code::ResourceExhausted);
    assert!(
        refusal.retry_after.is_none(),
        "trying again does not make room: {refusal:?}"
    );
    assert!(!refusal.message.is_empty(), "{refusal:?}");
    let closing = trial.close().await;
    disk.give_room();
    eventually("a publish to be accepted", async || {
        match publish(&world).await {
            Ok(()) => ControlFlow::Break(()),
            Err(refusal) => ControlFlow::Continue(format!("{refusal:?}")),
        }
    })
    .await;
    let audit = ended(&mut world, &closing).await;
    assert!(audit.refused > 0, "the disk was not full for long: {audit}");
    audit.assert_clean(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_stops_the_process_and_loses_nothing() {
    let dir = TempDir::new().expect("a temporary directory");
    let shim = FailingSync::new(dir.path());
    let mut siege = Siege::begin(|options| shim.under(options)).await;
    for _ in 0..3 {
        siege.trial.load().advances(200).await;
        shim.fail();
        let exit = siege.world.exits().await;
        assert_eq!(exit.code, Some(1), "{}", exit.log);
        assert!(
            exit.log.contains("the log could not be written"),
            "it says why:\n{}",
            exit.log
        );
        shim.heal();
        siege.restart().await;
    }
    siege.end().await.assert_clean(4 * REPEATS_MAX);
}

/// An event that nobody wants.
async fn publish(world: &World) -> Result<(), Refusal> {
    let event = event("nobody.wants.this", "{}");
    let api = world.api().tenant("nobody");
    api.publish(event).await.map(drop).map_err(Refusal::of)
}
