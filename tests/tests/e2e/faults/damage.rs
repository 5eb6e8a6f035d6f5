//! What a bad disk leaves behind: a torn write after the end, a tail cut off, a flipped bit.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use fanfare_tests::api::event;
use fanfare_tests::bad_disk::{flip_bit_in, scribble, tail_of_log, truncate};
use fanfare_tests::ledger::Dead;
use fanfare_tests::sink::Gate;
use fanfare_tests::{World, eventually};
use rand::Rng;

use super::{REPEATS_MAX, Siege, ended};

/// A crash of the machine may leave any part of the last, unsynced write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_write_after_the_end_is_cut_off() {
    let mut siege = Siege::begin(|options| options).await;
    let rounds = 5;
    for _ in 0..rounds {
        siege
            .trial
            .load()
            .advances(siege.rng.random_range(20..200))
            .await;
        siege.world.kill().await;
        let mut torn = vec![0; siege.rng.random_range(1..5_000)];
        siege.rng.fill(&mut torn[..]);
        let (file, end) = tail_of_log(siege.world.data_dir());
        // Frames begin at multiples of 8.
        scribble(&file, end.next_multiple_of(8), &torn);
        siege.restart().await;
    }
    siege.end().await.assert_clean((rounds + 1) * REPEATS_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_tail_of_what_was_settled_loses_nothing() {
    let mut siege = Siege::begin(|options| options).await;
    siege.trial.load().advances(500).await;
    let closing = siege.trial.close().await;
    assert_eq!(closing.settles().await.lost, 0);
    for _ in 0..5 {
        siege.world.kill().await;
        let (file, end) = tail_of_log(siege.world.data_dir());
        truncate(&file, end - siege.rng.random_range(1..64));
        siege.world.restart().await;
        // Under a tenant whose events nobody in the trial wants.
        let api = siege.world.api().tenant("nobody");
        api.publish(event("order.paid", "{}"))
            .await
            .expect("it goes on");
    }
    let exit = siege.world.stop().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    let audit = closing.audit(&Dead::new());
    assert_eq!(
        (audit.lost, audit.phantom, audit.wrong),
        (0, 0, 0),
        "{audit}"
    );
    assert!(audit.dup <= 6 * REPEATS_MAX, "{audit}");
}

/// A bit that rots in a record never reaches a subscriber: the record is read from elsewhere or
/// set aside, and the log says so; everything around it arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_never_delivered() {
    let mut world = World::start().await;
    let gate = Gate::shut();
    let stuck = world.endpoint().gated(&gate).await;
    let body = |n: usize| format!(r#"{{"mark":"mark-{n:04}","filler":"{}"}}"#, "x".repeat(200));
    let mut bodies = BTreeMap::new();
    for n in 0..50 {
        bodies.insert(world.publish("order.paid", &body(n)).await.id, body(n));
    }
    stuck.sink.attempts(1).await;
    world.kill().await;
    flip_bit_in(world.data_dir(), b"mark-0030");
    gate.open();
    world.restart().await;
    eventually("all but the damaged one", async || {
        let mut ids: Vec<_> = stuck
            .sink
            .accepted()
            .iter()
            .map(|post| post.header("ce-id").to_owned())
            .collect();
        ids.sort();
        ids.dedup();
        if ids.len() >= 49 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(ids.len())
        }
    })
    .await;
    for post in stuck.sink.receipts() {
        assert_eq!(post.body, bodies[post.header("ce-id")], "never altered");
        post.verify(&stuck.endpoint.secret).expect("signed");
    }
    let log = world.stop().await.log;
    assert!(
        log.contains("damaged") || log.contains("quarantine"),
        "it says so:\n{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_was_only_prepared_may_be_missing() {
    let mut siege = Siege::begin(|options| options).await;
    siege.trial.load().advances(200).await;
    siege.world.kill().await;
    let (file, end) = tail_of_log(siege.world.data_dir());
    truncate(&file, end.next_multiple_of(8));
    siege.restart().await;
    siege.trial.load().advances(200).await;
    let closing = siege.trial.close().await;
    ended(&mut siege.world, &closing)
        .await
        .assert_clean(2 * REPEATS_MAX);
}
