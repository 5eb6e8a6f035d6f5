//! Endpoints and subscriptions that change while deliveries are under way.

use fanfare_domain::EndpointState;

use crate::sink::{Gate, Sink};
use crate::world::{State, World, schedule};

/// A world where endpoint 1 has a delivery that is parked, one that is retrying and (answering
/// slowly) ones that wait, and what became of them after `change`.
async fn after(change: impl AsyncFn(&World, &fanfare_domain::Endpoint)) -> Vec<State> {
    let mut world = World::new();
    world.config.endpoint_in_flight = 1;
    world.start().await;
    let gate = Gate::shut();
    let failing = Sink::statuses(&[500]).await;
    let endpoint = world
        .endpoint_with(1, &failing.url, |e| {
            e.retry_schedule = Some(schedule(&[3_600_000]));
        })
        .await;
    let retrying = world.publish("{}", &[1]).await[0];
    world.becomes(retrying, State::Retrying(1)).await;
    world.set_state(&endpoint, EndpointState::Paused).await;
    let parked = world.publish("{}", &[1]).await[0];
    world.becomes(parked, State::Parked).await;

    let slow = Sink::behind(&gate).await;
    let other = world.endpoint(2, &slow.url).await;
    let under_way = world.publish("{}", &[2]).await[0];
    slow.receives(1).await;
    let waiting = world.publish("{}", &[2]).await[0];
    change(&world, &endpoint).await;
    change(&world, &other).await;
    let mut states = Vec::new();
    for id in [retrying, parked, waiting] {
        let state = crate::world::eventually(async || match world.state(id).await {
            State::Dead(reason, attempts) => Ok(State::Dead(reason, attempts)),
            other => Err(format!("{id} is {other:?}")),
        })
        .await;
        states.push(state);
    }
    gate.open();
    world.becomes(under_way, State::Delivered(1)).await;
    assert_eq!((failing.count(), slow.count()), (1, 1));
    states
}

#[tokio::test]
async fn disabling_ends_what_is_open() {
    let states = after(async |world, endpoint| {
        world.set_state(endpoint, EndpointState::Disabled).await;
    })
    .await;
    let dead = |attempts| State::Dead("endpoint_disabled", attempts);
    assert_eq!(states, [dead(1), dead(0), dead(0)]);
}

#[tokio::test]
async fn deleting_ends_what_is_open() {
    let states = after(async |world, endpoint| world.delete_endpoint(endpoint.id.0).await).await;
    let ended = |state: &State| {
        matches!(
            state,
            State::Dead("endpoint_deleted" | "subscription_deleted", _)
        )
    };
    assert!(states.iter().all(ended), "{states:?}");
}

#[tokio::test]
async fn deleting_a_subscription_ends_what_it_is_owed() {
    let states = after(async |world, endpoint| {
        world.delete_subscription(endpoint.id.0).await;
        world.set_state(endpoint, EndpointState::Active).await;
    })
    .await;
    let dead = |attempts| State::Dead("subscription_deleted", attempts);
    assert_eq!(states, [dead(1), dead(0), dead(0)]);
}

#[tokio::test]
async fn new_deliveries_of_a_disabled_endpoint_end_and_after_resuming_go_out() {
    let (mut world, sink) = (World::running().await, Sink::start().await);
    let endpoint = world.endpoint(1, &sink.url).await;
    world.set_state(&endpoint, EndpointState::Disabled).await;
    let id = world.publish("{}", &[1]).await[0];
    world.becomes(id, State::Dead("endpoint_disabled", 0)).await;
    world.set_state(&endpoint, EndpointState::Active).await;
    let next = world.publish("{}", &[1]).await[0];
    world.becomes(next, State::Delivered(1)).await;
    world.redrive(&[id]).await;
    world.becomes(id, State::Delivered(1)).await;
}

#[tokio::test]
async fn a_new_url_is_called_from_then_on() {
    let (mut world, old, new) = (
        World::running().await,
        Sink::start().await,
        Sink::start().await,
    );
    world.endpoint(1, &old.url).await;
    let id = world.publish("{}", &[1]).await[0];
    world.becomes(id, State::Delivered(1)).await;
    world.endpoint_with(1, &new.url, |e| e.version = 2).await;
    let id = world.publish("{}", &[1]).await[0];
    world.becomes(id, State::Delivered(1)).await;
    assert_eq!((old.count(), new.count()), (1, 1));
}

#[tokio::test]
async fn a_worker_behind_the_router_waits_for_the_configuration() {
    let (mut world, sink) = (World::running().await, Sink::start().await);
    let follower = world.follower.take().unwrap();
    world.endpoint(1, &sink.url).await;
    let id = world.publish("{}", &[1]).await[0];
    let known = world.publish("{}", &[1]).await[0];
    assert_eq!(world.state(id).await, State::Untold);
    follower.refresh().await.unwrap();
    world.becomes(id, State::Delivered(1)).await;
    world.becomes(known, State::Delivered(1)).await;
}

#[tokio::test]
async fn an_endpoint_of_another_tenant_is_never_called() {
    let (mut world, sink) = (World::running().await, Sink::start().await);
    let theirs = fanfare_domain::TenantId::try_new("other").unwrap();
    world
        .endpoint_with(1, &sink.url, |e| e.tenant = theirs)
        .await;
    let id = world.publish("{}", &[1]).await[0];
    world.becomes(id, State::Dead("endpoint_deleted", 0)).await;
    assert_eq!(sink.count(), 0);
}
