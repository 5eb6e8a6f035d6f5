//! Retries: the schedule, what endpoints ask for, how it ends, and starting anew.

use std::time::Duration;

use fanfare_domain::{EndpointState, OutcomeKind, Timestamp};
use fanfare_service::Clock;
use fanfare_store::RetryState;

use crate::sink::{Sink, status};
use crate::world::{State, World, eventually, schedule};

#[tokio::test]
async fn failures_are_retried_on_schedule_until_it_works() {
    let (mut world, sink) = (
        World::running().await,
        Sink::statuses(&[500, 503, 200]).await,
    );
    world.endpoint(1, &sink.url).await;
    let id = world.publish("{\"n\":1}", &[1]).await[0];
    world.becomes(id, State::Delivered(3)).await;
    let attempts = eventually(async || {
        let attempts = world.attempts(id).await;
        (attempts.len() == 3)
            .then_some(attempts)
            .ok_or("too few attempts".to_owned())
    })
    .await;
    let numbers: Vec<u32> = attempts.iter().map(|a| a.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    for (pair, step) in attempts.windows(2).zip([100, 150]) {
        let waited = pair[1].start.since(pair[0].start);
        assert!(waited >= Duration::from_millis(step), "{waited:?}");
        assert!(pair[0].next_attempt.is_some());
    }
    let received = sink.received();
    assert!(
        received
            .iter()
            .all(|r| r.id() == id.to_string() && r.body == "{\"n\":1}")
    );
}

#[tokio::test]
async fn an_exhausted_schedule_is_a_dead_letter_and_a_redrive_starts_anew() {
    let (mut world, sink) = (
        World::running().await,
        Sink::statuses(&[500, 500, 500, 500, 200]).await,
    );
    world.endpoint(1, &sink.url).await;
    let id = world.publish("{}", &[1]).await[0];
    world
        .becomes(id, State::Dead("attempts_exhausted", 3))
        .await;
    world.redrive(&[id]).await;
    world.becomes(id, State::Delivered(5)).await;
    let letter = world.dead_letter(id).await.unwrap();
    assert!(letter.redriven.is_some());
    assert_eq!(world.retry(id).await.unwrap().attempts_before, 3);
    assert_eq!(sink.count(), 5);
}

#[tokio::test]
async fn a_redrive_of_what_is_open_or_unknown_changes_nothing() {
    let (mut world, sink) = (World::running().await, Sink::statuses(&[500, 200]).await);
    world
        .endpoint_with(1, &sink.url, |e| e.retry_schedule = Some(schedule(&[400])))
        .await;
    let id = world.publish("{}", &[1]).await[0];
    world.becomes(id, State::Retrying(1)).await;
    world.redrive(&[id]).await;
    world.becomes(id, State::Delivered(2)).await;
    world.all_settled(2).await;
    assert_eq!(sink.count(), 2);
}

#[tokio::test]
async fn no_schedule_means_no_retry() {
    let (mut world, sink) = (World::running().await, Sink::statuses(&[500]).await);
    world
        .endpoint_with(1, &sink.url, |e| e.retry_schedule = Some(schedule(&[])))
        .await;
    let id = world.publish("{}", &[1]).await[0];
    world
        .becomes(id, State::Dead("attempts_exhausted", 1))
        .await;
    world.all_settled(1).await;
    assert_eq!(sink.count(), 1);
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let mut world = World::running().await;
    let sink = Sink::answering(|_, _| {
        let mut answer = status(429);
        answer.headers_mut().insert("retry-after", 3600.into());
        answer
    })
    .await;
    world.endpoint(1, &sink.url).await;
    let id = world.publish("{}", &[1]).await[0];
    world.becomes(id, State::Retrying(1)).await;
    let row = world.retry(id).await.unwrap();
    let RetryState::DueAt(due) = row.state else {
        panic!("{row:?}");
    };
    let waits = due.since(row.first_attempt);
    assert!(
        waits >= Duration::from_hours(1) && waits < Duration::from_secs(3700),
        "{waits:?}"
    );
}

#[tokio::test]
async fn a_retry_far_ahead_fires_when_its_time_comes() {
    let mut world = World::new();
    world.clock = Clock::manual(Timestamp::now());
    world.start().await;
    let sink = Sink::statuses(&[500, 200]).await;
    world
        .endpoint_with(1, &sink.url, |e| {
            e.retry_schedule = Some(schedule(&[3_600_000]));
        })
        .await;
    let id = world.publish("{}", &[1]).await[0];
    world.becomes(id, State::Retrying(1)).await;
    assert_eq!(sink.count(), 1);
    world.clock.advance(Duration::from_hours(2));
    world.becomes(id, State::Delivered(2)).await;
}

#[tokio::test]
async fn gone_is_a_dead_letter_and_disables_the_endpoint() {
    let (mut world, sink) = (World::running().await, Sink::statuses(&[410]).await);
    let endpoint = world.endpoint(1, &sink.url).await;
    let id = world.publish("{}", &[1]).await[0];
    world.becomes(id, State::Dead("gone", 1)).await;
    let follower = world.follower.clone().unwrap();
    eventually(async || {
        follower.refresh().await.unwrap();
        let now = follower.catalog().endpoint(endpoint.id).unwrap().clone();
        (now.state == EndpointState::Disabled && now.version > endpoint.version)
            .then_some(())
            .ok_or_else(|| format!("{:?}", now.state))
    })
    .await;
}

#[tokio::test]
async fn an_expired_event_ends_its_retry() {
    let (mut world, sink) = (World::running().await, Sink::statuses(&[500]).await);
    world
        .endpoint_with(1, &sink.url, |e| e.retry_schedule = Some(schedule(&[300])))
        .await;
    let id = world.publish("{}", &[1]).await[0];
    world.becomes(id, State::Retrying(1)).await;
    world.memory.expire_events(Timestamp::now());
    world.becomes(id, State::Dead("expired", 1)).await;
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let mut world = World::running().await;
    let inner = Sink::start().await;
    let to = inner.url.clone();
    let sink = Sink::answering(move |_, _| {
        let mut answer = status(302);
        answer.headers_mut().insert("location", to.parse().unwrap());
        answer
    })
    .await;
    world.endpoint(1, &sink.url).await;
    let id = world.publish("{}", &[1]).await[0];
    world
        .becomes(id, State::Dead("attempts_exhausted", 3))
        .await;
    let attempt = world.attempts(id).await.remove(0);
    assert_eq!(attempt.outcome.kind, OutcomeKind::HttpStatus);
    assert_eq!(attempt.outcome.http_status, Some(302));
    assert_eq!(inner.connections(), 0);
}
