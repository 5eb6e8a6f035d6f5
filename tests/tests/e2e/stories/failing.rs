//! When a subscriber refuses: retries, dead letters, redrives.

use std::ops::ControlFlow;
use std::time::Duration;

use fanfare_proto::v1;
use fanfare_proto::v1::{DeadLetterReason, DeliveryState, EndpointState};
use fanfare_tests::refusal::Refusal;
use fanfare_tests::sink::{Answer, Pace, Script};
use fanfare_tests::{World, eventually};

const SOON: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_refused_delivery_is_tried_again_under_the_same_id() {
    let world = World::start().await;
    let ledger = world.endpoint().fail(2).await;
    let published = world.publish("order.paid", r#"{"amount":1250}"#).await;
    ledger.receives(1).await;
    let posts = ledger.sink.receipts();
    assert_eq!(
        posts.iter().map(|post| post.answered).collect::<Vec<_>>(),
        [503, 503, 200]
    );
    for post in &posts {
        assert_eq!((post.id(), &post.body), (posts[0].id(), &posts[0].body));
        post.verify(&ledger.endpoint.secret)
            .expect("every attempt is signed");
    }
    let delivery = world.delivered(&published.id).await;
    assert_eq!(
        (delivery.attempt_count, delivery.id.as_str()),
        (3, posts[0].id())
    );
}

#[tokio::test]
async fn a_cut_connection_is_a_failure_like_any_other() {
    let world = World::start().await;
    let cut = Answer::ok().pace(Pace::Cut);
    let rude = world
        .endpoint()
        .script(Script::then_ok([cut.clone(), cut]))
        .await;
    let published = world.publish("order.paid", "{}").await;
    // The sink counts a cut as answered; what the server saw is in the attempts.
    rude.sink.attempts(3).await;
    let delivery = world.delivered(&published.id).await;
    let delivery = world.api().delivery(&delivery.id).await.expect("it exists");
    assert_eq!(
        delivery
            .attempts
            .last()
            .unwrap()
            .outcome
            .as_ref()
            .unwrap()
            .http_status,
        Some(200)
    );
}

#[tokio::test]
async fn when_the_schedule_runs_out_it_is_a_dead_letter_and_can_be_redriven() {
    let world = World::start().await;
    let down = world.endpoint().always(500).retrying(&[SOON, SOON]).await;
    let published = world.publish("order.paid", "{}").await;
    let dead = world.dead(&published.id).await;
    assert_eq!(
        dead.dead_letter_reason(),
        DeadLetterReason::AttemptsExhausted
    );
    assert_eq!(dead.attempt_count, 3);
    let listed = world
        .api()
        .every_delivery(&[DeliveryState::DeadLetter])
        .await
        .expect("listed");
    assert_eq!(listed.iter().map(|d| &d.id).collect::<Vec<_>>(), [&dead.id]);

    down.sink.follow(Script::ok());
    redrive(&world, &dead.id).await.expect("it is redriven");
    let post = &down.receives(1).await[0];
    assert_eq!(
        post.id(),
        dead.id,
        "the same delivery, so the same webhook-id"
    );
    let delivery = world.delivered(&published.id).await;
    assert_eq!(delivery.attempt_count, 4, "attempt numbers go on");
    let again = redrive(&world, &dead.id)
        .await
        .expect_err("it is delivered");
    assert_eq!(again.reason, "DELIVERY_NOT_REDRIVABLE");
}

#[tokio::test]
async fn gone_disables_the_endpoint_and_keeps_the_delivery() {
    let world = World::start().await;
    let old = world.endpoint().always(410).await;
    let first = world.publish("order.paid", "{}").await;
    let dead = world.dead(&first.id).await;
    assert_eq!(dead.dead_letter_reason(), DeadLetterReason::Gone);
    assert_eq!(dead.attempt_count, 1, "it is not tried again");
    let endpoint = world
        .endpoint_in(&old.endpoint.id, EndpointState::Disabled)
        .await;
    assert!(endpoint.state_reason.contains("410"), "{endpoint:?}");

    // Disabled: new events make no delivery until it is resumed. Another process knows within a second.
    eventually("an event without a delivery", async || {
        let next = world.publish("order.paid", "{}").await;
        match world.routed(&next.id).await.delivery_count {
            0 => ControlFlow::Break(()),
            count if world.is_one_process() => panic!("{count} deliveries"),
            count => ControlFlow::Continue(format!("{count} deliveries")),
        }
    })
    .await;
    old.sink.follow(Script::ok());
    let request = v1::ResumeEndpointRequest {
        id: old.endpoint.id.clone(),
    };
    world
        .api()
        .endpoints()
        .resume_endpoint(request)
        .await
        .expect("resumed");
    redrive(&world, &dead.id).await.expect("it is redriven");
    world.publish("order.paid", "{}").await;
    old.receives(2).await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let world = World::start().await;
    let busy = Answer::status(429).header("retry-after", "2");
    let limited = world.endpoint().script(Script::then_ok([busy])).await;
    world.publish("order.paid", "{}").await;
    limited.receives(1).await;
    let posts = limited.sink.receipts();
    let waited = posts[1]
        .arrived
        .duration_since(posts[0].arrived)
        .expect("time goes on");
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_never_followed() {
    let world = World::start().await;
    let elsewhere = world.endpoint().wants(&["nothing.at-all"]).await;
    let moved = Answer::status(302).header("location", &elsewhere.sink.url());
    let mover = world
        .endpoint()
        .script(Script::always(moved))
        .retrying(&[SOON])
        .await;
    let published = world.publish("order.paid", "{}").await;
    let dead = world.dead(&published.id).await;
    assert_eq!(dead.endpoint_id, mover.endpoint.id);
    assert_eq!(
        dead.last_outcome.expect("it was tried").http_status,
        Some(302)
    );
    assert_eq!(elsewhere.sink.receipts().len(), 0);
}

#[tokio::test]
async fn what_is_not_a_dead_letter_cannot_be_redriven() {
    let world = World::start().await;
    let unknown = redrive(&world, "dlv_00000000000000000000000000000000000000g").await;
    let refusal = unknown.expect_err("there is no such delivery");
    assert_eq!(refusal.reason, "DELIVERY_NOT_FOUND", "{refusal:?}");
}

async fn redrive(world: &World, id: &str) -> Result<(), Refusal> {
    let request = v1::RedriveDeliveriesRequest {
        ids: vec![id.to_owned()],
    };
    let response = world.api().deliveries().redrive_deliveries(request).await;
    let results = response.map_err(Refusal::of)?.into_inner().results;
    results[0]
        .error
        .as_ref()
        .map_or(Ok(()), |error| Err(Refusal::of_result(error)))
}
