//! What a subscriber gets, and what it may choose about it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fanfare_proto::v1;
use fanfare_tests::World;
use fanfare_tests::api::{event, named};
use serde_json::json;

#[tokio::test]
async fn structured_mode_puts_the_whole_event_into_the_signed_body() {
    let world = World::start().await;
    let shop = world.endpoint().structured().await;
    let mut sent = named("e1", "order.paid", r#"{"amount": 1250.00}"#);
    sent.source = "/shop".to_owned();
    sent.subject = Some("order-17".to_owned());
    world.api().publish(sent).await.expect("accepted");
    let post = &shop.receives(1).await[0];
    assert!(
        post.header("content-type")
            .starts_with("application/cloudevents+json")
    );
    let body = post.json();
    assert_eq!(body["specversion"], "1.0");
    assert_eq!(body["id"], "e1");
    assert_eq!(body["source"], "/shop");
    assert_eq!(body["type"], "order.paid");
    assert_eq!(body["subject"], "order-17");
    assert_eq!(body["datacontenttype"], "application/json");
    assert_eq!(body["data"], json!({"amount": 1250.00}));
    // The data is the publisher's own bytes, not a parser's idea of them.
    let text = String::from_utf8(post.body.to_vec()).expect("UTF-8");
    assert!(text.contains(r#"{"amount": 1250.00}"#), "{text}");
}

#[tokio::test]
async fn binary_data_and_text_travel_in_structured_mode() {
    let world = World::start().await;
    let shop = world.endpoint().structured().await;
    let bytes = [0_u8, 159, 146, 150, 255];
    let mut image = named("image", "photo.taken", bytes.to_vec());
    image.data_content_type = "image/png".to_owned();
    let mut note = event("note.left", "");
    note.payload = Some(v1::event::Payload::Text("Zoë \"was\" here".to_owned()));
    note.data_content_type = "text/plain".to_owned();
    world.api().publish(image).await.expect("accepted");
    world.api().publish(note).await.expect("accepted");
    let posts = shop.receives(2).await;
    let of_type = |name: &str| {
        posts
            .iter()
            .map(fanfare_tests::sink::Receipt::json)
            .find(|body| body["type"] == name)
            .unwrap()
    };
    assert_eq!(
        of_type("photo.taken")["data_base64"],
        STANDARD.encode(bytes)
    );
    assert_eq!(of_type("note.left")["data"], "Zoë \"was\" here");
}

#[tokio::test]
async fn an_endpoints_own_headers_are_sent_and_never_read_back() {
    let world = World::start().await;
    let shop = world
        .endpoint()
        .change(|endpoint| {
            endpoint
                .headers
                .insert("authorization".to_owned(), "Bearer s3cret".to_owned());
            endpoint
                .headers
                .insert("x-team".to_owned(), "shop".to_owned());
        })
        .await;
    world.publish("order.paid", "{}").await;
    let post = &shop.receives(1).await[0];
    assert_eq!(post.header("authorization"), "Bearer s3cret");
    assert_eq!(post.header("x-team"), "shop");
    let request = v1::GetEndpointRequest {
        id: shop.endpoint.id.clone(),
    };
    let read = world
        .api()
        .endpoints()
        .get_endpoint(request)
        .await
        .unwrap()
        .into_inner();
    let endpoint = read.endpoint.expect("it exists");
    assert_eq!(endpoint.headers["authorization"], "");
    assert_eq!(endpoint.secret, "");
}

#[tokio::test]
async fn an_event_of_the_largest_size_arrives() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    // 256 KiB is the default limit of an event; its attributes need a little of it.
    let text = format!("\"{}\"", "é".repeat(127 * 1024));
    world.publish("order.paid", &text).await;
    assert_eq!(shop.receives(1).await[0].body, text);
}

#[tokio::test]
async fn a_slow_subscriber_does_not_hold_up_another() {
    let world = World::start().await;
    let gate = fanfare_tests::sink::Gate::shut();
    let stuck = world.endpoint().gated(&gate).await;
    let quick = world.endpoint().await;
    for n in 0..100 {
        world.publish("order.paid", &n.to_string()).await;
    }
    // All of them arrive while every POST to the other is still open.
    quick.receives(100).await;
    assert_eq!(stuck.sink.accepted().len(), stuck.sink.open());
    gate.open();
    stuck.receives(100).await;
}

#[tokio::test]
async fn a_test_of_an_endpoint_is_one_signed_post_now() {
    let world = World::start().await;
    let shop = world.endpoint().wants(&["order.paid"]).always(500).await;
    let request = v1::TestEndpointRequest {
        id: shop.endpoint.id.clone(),
        event: None,
    };
    let tested = world
        .api()
        .endpoints()
        .test_endpoint(request)
        .await
        .expect("tested")
        .into_inner();
    let attempt = tested.attempt.expect("an attempt was made");
    let outcome = attempt.outcome.expect("it came to something");
    assert_eq!(outcome.http_status, Some(500));
    assert!(!outcome.will_retry);
    let post = &shop.sink.attempts(1).await[0];
    assert_eq!(post.id(), tested.delivery_id);
    post.verify(&shop.endpoint.secret).expect("it is signed");
}

#[tokio::test]
async fn the_total_deadline_covers_the_body() {
    let world = World::start().await;
    let drip = fanfare_tests::sink::Answer::ok().trickling(Duration::from_millis(50));
    let slow = world
        .endpoint()
        .script(fanfare_tests::sink::Script::then_ok([drip]))
        .change(|endpoint| endpoint.timeout = Duration::from_secs(1).try_into().ok())
        .await;
    let published = world.publish("order.paid", "{}").await;
    // The first answer says 200 and never ends: a failure, retried.
    slow.receives(2).await;
    let delivery = world.delivered(&published.id).await;
    let delivery = world.api().delivery(&delivery.id).await.expect("it exists");
    let kinds: Vec<_> = delivery
        .attempts
        .iter()
        .map(|a| a.outcome.clone().unwrap().kind())
        .collect();
    assert_eq!(
        kinds,
        [v1::OutcomeKind::Timeout, v1::OutcomeKind::Delivered]
    );
}
