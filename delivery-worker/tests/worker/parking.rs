//! What does not fit its lane waits durably and comes back in order.

use fanfare_domain::{DeliveryId, EndpointState};
use fanfare_event_log::memory::{Call, Fault};

use crate::sink::{Gate, Received, Sink};
use crate::world::{State, World, eventually};

#[tokio::test]
async fn what_does_not_fit_parks_and_comes_back_in_order() {
    let mut world = World::new();
    // One at a time, so that order can be seen.
    world.config.endpoint_in_flight = 1;
    world.config.queue_max = 16;
    world.start().await;
    let gate = Gate::shut();
    let sink = Sink::behind(&gate).await;
    world.endpoint(1, &sink.url).await;
    let mut ids = Vec::new();
    for _ in 0..300 {
        ids.extend(world.publish("{}", &[1]).await);
    }
    world.becomes(ids[299], State::Parked).await;
    gate.open();
    let received: Vec<String> = sink.receives(300).await.iter().map(Received::id).collect();
    let published: Vec<String> = ids.iter().map(DeliveryId::to_string).collect();
    assert_eq!(received, published);
    eventually(async || {
        let parked = world.stores.parking.find(&ids).await.unwrap();
        let left = parked.iter().flatten().count();
        (left == 0)
            .then_some(())
            .ok_or_else(|| format!("{left} rows are left"))
    })
    .await;
    // And then straight through again.
    let id = world.publish("{}", &[1]).await[0];
    world.becomes(id, State::Delivered(1)).await;
    world.all_settled(301).await;
    assert_eq!(sink.count(), 301);
}

#[tokio::test]
async fn what_comes_while_the_parked_come_back_is_sent_after_them() {
    let mut world = World::new();
    world.config.endpoint_in_flight = 1;
    world.config.queue_max = 64;
    world.start().await;
    let gate = Gate::shut();
    let sink = Sink::behind(&gate).await;
    world.endpoint(1, &sink.url).await;
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.extend(world.publish("{}", &[1]).await);
    }
    world.becomes(ids[199], State::Parked).await;
    gate.open();
    while ids.len() < 1000 {
        ids.extend(world.publish("{}", &[1]).await);
        // As fast as they are sent: something new is there whenever somebody looks.
        sink.receives(ids.len() - 200).await;
    }
    let received: Vec<String> = sink.receives(1000).await.iter().map(Received::id).collect();
    let published: Vec<String> = ids.iter().map(DeliveryId::to_string).collect();
    assert_eq!(received, published);
    world.all_settled(1000).await;
}

/// However much is owed at once: what the worker cannot send yet it does not read, and only what an
/// endpoint holds up is worth a detour through the store.
#[tokio::test]
async fn a_burst_for_the_healthy_parks_nothing() {
    let mut world = World::new();
    world.config.in_flight = 8;
    world.config.queue_max = 200;
    let sink = Sink::start().await;
    let everybody: Vec<u64> = (1..=20).collect();
    for id in &everybody {
        world.endpoint(*id, &sink.url).await;
    }
    for _ in 0..100 {
        world.publish("{}", &everybody).await;
    }
    world.start().await;
    sink.receives(2000).await;
    world.all_settled(100).await;
    let metrics = world.metrics.render();
    assert!(
        metrics.contains("fanfare_delivery_parked_total 0"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_paused_endpoint_parks_and_resumes() {
    let (mut world, sink) = (World::running().await, Sink::start().await);
    let endpoint = world.endpoint(1, &sink.url).await;
    world.set_state(&endpoint, EndpointState::Paused).await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.extend(world.publish("{}", &[1]).await);
    }
    for id in &ids {
        world.becomes(*id, State::Parked).await;
    }
    world.all_settled(100).await;
    assert_eq!(sink.count(), 0);
    world.set_state(&endpoint, EndpointState::Active).await;
    sink.receives(100).await;
    for id in &ids {
        world.becomes(*id, State::Delivered(1)).await;
    }
    assert_eq!(sink.count(), 100);
}

/// Its row is all that tells the next owner of the record: delivered and removed before the commit, it
/// would be delivered again.
#[tokio::test]
async fn what_is_parked_is_not_tried_before_that_is_committed() {
    let (mut world, sink, other) = (
        World::running().await,
        Sink::start().await,
        Sink::start().await,
    );
    let endpoint = world.endpoint(1, &sink.url).await;
    world.endpoint(2, &other.url).await;
    world.set_state(&endpoint, EndpointState::Paused).await;
    world.log.set_fault(Call::Commit, Some(Fault::Stall));
    let id = world.publish("{}", &[1]).await[0];
    world.becomes(id, State::Parked).await;
    world.set_state(&endpoint, EndpointState::Active).await;
    // Time enough for it to be tried: another endpoint gets a few, one after the other.
    for count in 1..=20 {
        world.publish("{}", &[2]).await;
        other.receives(count).await;
    }
    assert_eq!(sink.count(), 0);
    world.log.set_fault(Call::Commit, None);
    world.becomes(id, State::Delivered(1)).await;
    assert_eq!(sink.count(), 1);
}

#[tokio::test]
async fn pausing_parks_what_waits_and_what_is_due() {
    let mut world = World::new();
    world.config.endpoint_in_flight = 1;
    world.start().await;
    let gate = Gate::shut();
    let sink = Sink::behind(&gate).await;
    let endpoint = world.endpoint(1, &sink.url).await;
    let first = world.publish("{}", &[1]).await[0];
    sink.receives(1).await;
    let second = world.publish("{}", &[1]).await[0];
    world.set_state(&endpoint, EndpointState::Paused).await;
    world.becomes(second, State::Parked).await;
    gate.open();
    world.becomes(first, State::Delivered(1)).await;
    world.set_state(&endpoint, EndpointState::Active).await;
    world.becomes(second, State::Delivered(1)).await;

    let failing = Sink::statuses(&[500, 200]).await;
    let other = world
        .endpoint_with(2, &failing.url, |e| {
            e.retry_schedule = Some(crate::world::schedule(&[300]));
        })
        .await;
    let id = world.publish("{}", &[2]).await[0];
    world.becomes(id, State::Retrying(1)).await;
    world.set_state(&other, EndpointState::Paused).await;
    world.becomes(id, State::Parked).await;
    world.set_state(&other, EndpointState::Active).await;
    world.becomes(id, State::Delivered(2)).await;
    assert_eq!(failing.count(), 2);
}

#[tokio::test]
async fn what_is_parked_survives_a_restart() {
    let (mut world, sink) = (World::running().await, Sink::start().await);
    let endpoint = world.endpoint(1, &sink.url).await;
    world.set_state(&endpoint, EndpointState::Paused).await;
    let id = world.publish("{}", &[1]).await[0];
    world.becomes(id, State::Parked).await;
    world.crash().await;
    world.follower = None;
    world.set_state(&endpoint, EndpointState::Active).await;
    world.start().await;
    world.becomes(id, State::Delivered(1)).await;
    world.all_settled(1).await;
    assert_eq!(sink.count(), 1);
}
