//! Kills, drains, stores that go away: nothing is lost, little is repeated, no second chain.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::sink::{Gate, Received, Sink};
use crate::world::{State, World, eventually, schedule};

fn counts(received: &[Received]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for one in received {
        *counts.entry(one.id()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_drain_leaves_no_repeat() {
    let (mut world, sink) = (World::running().await, Sink::start().await);
    for id in 1..=5 {
        world.endpoint(id, &sink.url).await;
    }
    for round in 0..5u32 {
        for _ in 0..200 {
            world.publish("{}", &[1, 2, 3, 4, 5]).await;
        }
        sink.receives(usize::try_from(round).unwrap() * 1000 + 300)
            .await;
        world.drain().await;
        world.start().await;
    }
    sink.receives(5000).await;
    world.all_settled(1000).await;
    let counts = counts(&sink.received());
    assert_eq!(counts.len(), 5000);
    assert!(counts.values().all(|n| *n == 1));
}

#[tokio::test]
async fn a_kill_loses_nothing_and_repeats_what_was_in_flight() {
    let mut world = World::new();
    world.config.in_flight = 20;
    world.start().await;
    let sink = Sink::start().await;
    for id in 1..=5 {
        world.endpoint(id, &sink.url).await;
    }
    for _ in 0..400 {
        world.publish("{}", &[1, 2, 3, 4, 5]).await;
    }
    for kill in 1..=4 {
        sink.receives(kill * 300).await;
        world.crash().await;
        world.start().await;
    }
    sink.receives(2000).await;
    world.all_settled(400).await;
    let counts = counts(&sink.received());
    assert_eq!(counts.len(), 2000);
    let repeats = sink.count() - 2000;
    assert!(repeats <= 4 * 20, "{repeats} repeats of at most {}", 4 * 20);
}

#[tokio::test]
async fn a_delivery_that_failed_before_a_kill_has_one_chain() {
    let mut world = World::running().await;
    let (gate, failing) = (Gate::shut(), Sink::statuses(&[500, 500, 200]).await);
    let hanging = Sink::behind(&gate).await;
    world.endpoint(1, &hanging.url).await;
    world
        .endpoint_with(2, &failing.url, |e| {
            e.retry_schedule = Some(schedule(&[700, 100]));
        })
        .await;
    // The first keeps the watermark down, so that the second is read again.
    world.publish("{}", &[1]).await;
    hanging.receives(1).await;
    let id = world.publish("{}", &[2]).await[0];
    world.becomes(id, State::Retrying(1)).await;
    world.crash().await;
    world.start().await;
    world.becomes(id, State::Delivered(3)).await;
    assert_eq!(failing.count(), 3);
    gate.open();
    world.all_settled(2).await;
    let numbers: Vec<u32> = world.attempts(id).await.iter().map(|a| a.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test]
async fn a_retry_survives_a_restart_and_its_cursor() {
    let (mut world, sink) = (World::running().await, Sink::statuses(&[500, 200]).await);
    world
        .endpoint_with(1, &sink.url, |e| e.retry_schedule = Some(schedule(&[1000])))
        .await;
    let id = world.publish("{}", &[1]).await[0];
    world.becomes(id, State::Retrying(1)).await;
    world.drain().await;
    world.start().await;
    world.becomes(id, State::Delivered(2)).await;
    assert_eq!(sink.count(), 2);
}

#[tokio::test]
async fn while_the_store_is_away_successes_go_on_and_failures_wait() {
    let (mut world, good, bad) = (
        World::running().await,
        Sink::start().await,
        Sink::statuses(&[500, 200]).await,
    );
    world.endpoint(1, &good.url).await;
    world.endpoint(2, &bad.url).await;
    let warm = world.publish("{}", &[1]).await[0];
    world.becomes(warm, State::Delivered(1)).await;
    let head = world.head().await;
    world.memory.go_away();
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(world.publish_blind(head, &[1]).await[0]);
    }
    let failed = world.publish_blind(head, &[2]).await[0];
    good.receives(51).await;
    bad.receives(1).await;
    eventually(async || {
        let unsettled = world.progress().unsettled.len();
        (unsettled == 1)
            .then_some(())
            .ok_or_else(|| format!("{unsettled} are unsettled"))
    })
    .await;
    world.memory.come_back();
    // Its body was never in the store: that it says so shows that the failure was written.
    world.becomes(failed, State::Dead("expired", 1)).await;
    for id in ids {
        world.becomes(id, State::Delivered(1)).await;
    }
    world.all_settled(world.appended()).await;
}

#[tokio::test]
async fn a_lost_lease_commits_nothing_late_and_the_next_owner_delivers() {
    let mut world = World::running().await;
    let gate = Gate::shut();
    let sink = Sink::behind(&gate).await;
    world.endpoint(1, &sink.url).await;
    let id = world.publish("{}", &[1]).await[0];
    sink.receives(1).await;
    // The old worker lives on without its lease; its attempt comes back late.
    world.log.crash();
    world.start().await;
    sink.receives(2).await;
    gate.open();
    world.becomes(id, State::Delivered(1)).await;
    world.all_settled(1).await;
    assert_eq!(sink.count(), 2);
}

#[tokio::test]
async fn a_damaged_record_is_settled_and_a_newer_one_holds_the_span() {
    let (mut world, sink) = (World::running().await, Sink::start().await);
    world.endpoint(1, &sink.url).await;
    world
        .append_bytes(Bytes::from_static(b"not a record at all"))
        .await;
    let id = world.publish("{}", &[1]).await[0];
    world.becomes(id, State::Delivered(1)).await;
    world.all_settled(2).await;

    let record = world
        .record(
            &crate::world::test_event(),
            fanfare_domain::Place::default(),
            &[1],
        )
        .await;
    let mut newer = fanfare_event_log::Record::Delivery(record)
        .encode()
        .to_vec();
    newer[0] = 9;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..2]), &newer[6..]);
    newer[2..6].copy_from_slice(&crc.to_le_bytes());
    world.append_bytes(newer.into()).await;
    world.publish("{}", &[1]).await;
    // Held: read by nobody, and still a drain ends at once.
    world.drain().await;
    assert_eq!(sink.count(), 1);
    assert_eq!(world.progress().ceiling.0, 2);
}
