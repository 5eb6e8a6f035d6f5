//! Changing endpoints and subscriptions: in force for the next event, whatever was under way.

use std::time::Duration;

use fanfare_proto::v1;
use fanfare_proto::v1::{DeadLetterReason, DeliveryState, EndpointState};
use fanfare_tests::World;
use fanfare_tests::sink::{Answer, Receipt, Script};

#[tokio::test]
async fn paused_deliveries_wait_and_go_out_on_resume() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let mut endpoints = world.api().endpoints();
    let id = shop.endpoint.id.clone();
    let pause = v1::PauseEndpointRequest {
        id: id.clone(),
        reason: "moving house".to_owned(),
    };
    let paused = endpoints
        .pause_endpoint(pause)
        .await
        .expect("paused")
        .into_inner();
    assert_eq!(
        paused.endpoint.expect("it exists").state(),
        EndpointState::Paused
    );
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(world.publish("order.paid", &n.to_string()).await.id);
    }
    for id in &ids {
        let parked = world.delivery_in(id, DeliveryState::Parked).await;
        assert_eq!(parked.parked_reason(), v1::ParkedReason::Paused);
    }
    assert_eq!(shop.sink.receipts().len(), 0);
    endpoints
        .resume_endpoint(v1::ResumeEndpointRequest { id })
        .await
        .expect("resumed");
    shop.receives(20).await;
}

#[tokio::test]
async fn a_rotated_secret_signs_beside_the_old_one() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let old = &shop.endpoint.secret;
    let mut endpoints = world.api().endpoints();
    let mut rotate = async |overlap: Option<Duration>| {
        let request = v1::RotateEndpointSecretRequest {
            id: shop.endpoint.id.clone(),
            secret: String::new(),
            overlap: overlap.map(|overlap| overlap.try_into().expect("short")),
        };
        let rotated = endpoints
            .rotate_endpoint_secret(request)
            .await
            .expect("rotated");
        rotated.into_inner().endpoint.expect("it exists").secret
    };
    let new = rotate(None).await;
    assert_ne!(*old, new);
    world.publish("order.paid", "{}").await;
    let post = &shop.sink.receives(1).await[0];
    post.verify(old).expect("the old secret still signs");
    post.verify(&new).expect("the new secret signs");

    let newest = rotate(Some(Duration::ZERO)).await;
    world.publish("order.paid", "{}").await;
    let post = &shop.sink.receives(2).await[1];
    post.verify(&newest).expect("the newest secret signs");
    post.verify(&new)
        .expect_err("an overlap of zero ends the one before at once");
}

#[tokio::test]
async fn a_changed_pattern_holds_for_the_next_event() {
    let world = World::start().await;
    let shop = world.endpoint().wants(&["order.paid"]).await;
    let subscription = v1::Subscription {
        event_types: vec!["invoice.*".to_owned()],
        ..shop.subscription.clone()
    };
    let request = v1::UpdateSubscriptionRequest {
        subscription: Some(subscription),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["event_types".to_owned()],
        }),
    };
    world
        .api()
        .subscriptions()
        .update_subscription(request)
        .await
        .expect("updated");
    world.publish("order.paid", "{}").await;
    world.publish("invoice.sent", "{}").await;
    assert_eq!(shop.receives(1).await[0].header("ce-type"), "invoice.sent");
}

#[tokio::test]
async fn a_moved_endpoint_gets_its_retries_at_the_new_address() {
    let world = World::start().await;
    let old = world.endpoint().always(503).await;
    let new = fanfare_tests::sink::Sink::start(Script::ok()).await;
    let published = world.publish("order.paid", "{}").await;
    old.sink.attempts(1).await;
    let request = v1::UpdateEndpointRequest {
        endpoint: Some(v1::Endpoint {
            id: old.endpoint.id.clone(),
            url: new.url(),
            ..v1::Endpoint::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["url".to_owned()],
        }),
    };
    world
        .api()
        .endpoints()
        .update_endpoint(request)
        .await
        .expect("updated");
    let posts = new.receives(1).await;
    posts[0]
        .verify(&old.endpoint.secret)
        .expect("the secret is the same");
    assert_eq!(world.delivered(&published.id).await.id, posts[0].id());
}

#[tokio::test]
async fn deleting_an_endpoint_makes_its_open_deliveries_dead_letters() {
    let world = World::start().await;
    let later = Duration::from_hours(1);
    let down = world.endpoint().always(503).retrying(&[later]).await;
    let published = world.publish("order.paid", "{}").await;
    world
        .delivery_in(&published.id, DeliveryState::Retrying)
        .await;
    let request = v1::DeleteEndpointRequest {
        id: down.endpoint.id.clone(),
        etag: String::new(),
    };
    world
        .api()
        .endpoints()
        .delete_endpoint(request)
        .await
        .expect("deleted");
    let dead = world.dead(&published.id).await;
    assert_eq!(dead.dead_letter_reason(), DeadLetterReason::EndpointDeleted);
    let after = world.publish("order.paid", "{}").await;
    assert_eq!(world.routed(&after.id).await.delivery_count, 0);
}

#[tokio::test]
async fn a_deleted_subscription_gets_nothing_more() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let witness = world.endpoint().await;
    world.publish("order.paid", "1").await;
    shop.receives(1).await;
    let request = v1::DeleteSubscriptionRequest {
        id: shop.subscription.id.clone(),
        etag: String::new(),
    };
    world
        .api()
        .subscriptions()
        .delete_subscription(request)
        .await
        .expect("deleted");
    world.publish("order.paid", "2").await;
    witness.receives(2).await;
    let bodies: Vec<_> = shop
        .sink
        .receipts()
        .into_iter()
        .map(|post: Receipt| post.body)
        .collect();
    assert_eq!(bodies, ["1"]);
}

#[tokio::test]
async fn a_change_based_on_an_old_version_is_refused() {
    let world = World::start().await;
    let shop = world.endpoint().script(Script::always(Answer::ok())).await;
    let rename = |name: &str| v1::UpdateEndpointRequest {
        endpoint: Some(v1::Endpoint {
            id: shop.endpoint.id.clone(),
            name: name.to_owned(),
            etag: shop.endpoint.etag.clone(),
            ..v1::Endpoint::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["name".to_owned()],
        }),
    };
    let mut endpoints = world.api().endpoints();
    endpoints
        .update_endpoint(rename("first"))
        .await
        .expect("the first change");
    let status = endpoints
        .update_endpoint(rename("second"))
        .await
        .expect_err("an old etag");
    let refusal = fanfare_tests::refusal::Refusal::of(status);
    assert_eq!(
        (refusal.code, &*refusal.reason),
        (tonic::Code::Aborted, "ETAG_MISMATCH")
    );
}
