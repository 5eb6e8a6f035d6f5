//! What a subscriber gets.

use bytes::Bytes;
use fanfare_domain::{Data, Envelope, Secret, Timestamp};
use serde_json::Value;
use standardwebhooks::Webhook;
use std::time::Duration;

use crate::sink::{Received, Sink, status};
use crate::world::{State, World, secret, soon};

fn verify(received: &Received, secret: &Secret) {
    let webhook = Webhook::new(&secret.reveal()).unwrap();
    webhook.verify(&received.body, &received.headers).unwrap();
}

#[tokio::test]
async fn a_post_carries_the_data_byte_for_byte_signed_and_named() {
    let (mut world, sink) = (World::running().await, Sink::start().await);
    world
        .endpoint_with(1, &sink.url, |e| {
            e.headers.insert("x-team".into(), "billing".into());
        })
        .await;
    let data = "{ \"amount\" :\n 1250.00, \"name\": \"Zoë\" }";
    let ids = world.publish(data, &[1]).await;
    let received = sink.receives(1).await.remove(0);
    assert_eq!(received.body, data);
    assert_eq!(received.path, "/hook?x=1");
    verify(&received, &secret());
    let id = ids[0].to_string();
    for (name, value) in [
        ("content-type", "application/json"),
        ("webhook-id", &id),
        ("idempotency-key", &id),
        ("user-agent", "Fanfare/0.1"),
        ("x-team", "billing"),
        ("ce-specversion", "1.0"),
        ("ce-id", "e-1"),
        ("ce-type", "order.paid"),
        ("ce-source", "/shop"),
        ("ce-subject", "order%201"),
    ] {
        assert_eq!(received.header(name), value, "{name}");
    }
    assert!(Timestamp::parse_rfc3339(received.header("ce-time")).is_some());
    assert_eq!(received.header("traceparent").len(), 55);
    world.becomes(ids[0], State::Delivered(1)).await;
    let attempt = world.attempts(ids[0]).await.remove(0);
    assert_eq!(attempt.answer, "ok");
    assert_eq!(attempt.outcome.http_status, Some(200));
}

#[tokio::test]
async fn a_structured_envelope_is_the_whole_event_signed() {
    let (mut world, sink) = (World::running().await, Sink::start().await);
    world
        .endpoint_with(1, &sink.url, |e| e.envelope = Envelope::Structured)
        .await;
    world.publish("{\"a\": 1}", &[1]).await;
    let bytes = Data::Bytes(Bytes::from_static(&[0xff, 0x00]));
    world
        .publish_event(bytes, &[1], |e| e.data_content_type = "image/png".into())
        .await;
    for received in sink.receives(2).await {
        verify(&received, &secret());
        assert!(
            received
                .header("content-type")
                .starts_with("application/cloudevents+json")
        );
        assert!(!received.headers.contains_key("ce-id"));
        let event: Value = serde_json::from_slice(&received.body).unwrap();
        assert_eq!(event["specversion"], "1.0");
        match event["datacontenttype"].as_str().unwrap() {
            "image/png" => assert_eq!(event["data_base64"], "/wA="),
            _ => assert_eq!(event["data"]["a"], 1),
        }
    }
}

#[tokio::test]
async fn only_bytes_that_are_no_text_go_structured_whatever_the_envelope() {
    let (mut world, sink) = (World::running().await, Sink::start().await);
    world.endpoint(1, &sink.url).await;
    for (bytes, content_type) in [(&[0xff, 0x00][..], "image/png"), (b"a,b\n", "text/csv")] {
        let data = Data::Bytes(Bytes::from_static(bytes));
        world
            .publish_event(data, &[1], |e| e.data_content_type = content_type.into())
            .await;
    }
    for received in sink.receives(2).await {
        verify(&received, &secret());
        if received.header("content-type") == "text/csv" {
            assert_eq!(received.body, "a,b\n");
            assert_eq!(received.header("ce-type"), "order.paid");
        } else {
            assert!(!received.headers.contains_key("ce-type"));
            let event: Value = serde_json::from_slice(&received.body).unwrap();
            assert_eq!(event["datacontenttype"], "image/png");
            assert_eq!(event["data_base64"], "/wA=");
        }
    }
}

#[tokio::test]
async fn a_large_body_is_fetched_and_arrives_whole() {
    let (mut world, sink) = (World::running().await, Sink::start().await);
    world.endpoint(1, &sink.url).await;
    let data = format!("\"{}\"", "x".repeat(200_000));
    world.publish(&data, &[1]).await;
    assert_eq!(sink.receives(1).await[0].body, data);
}

#[tokio::test]
async fn a_new_secret_signs_beside_the_old_one() {
    let (mut world, sink) = (World::running().await, Sink::start().await);
    let new = Secret::generate(&mut rand::rng());
    let overlap = Duration::from_hours(1);
    world
        .endpoint_with(1, &sink.url, |e| {
            e.rotate_secret(new.clone(), overlap, Timestamp::now());
        })
        .await;
    world.publish("{}", &[1]).await;
    let received = sink.receives(1).await.remove(0);
    verify(&received, &secret());
    verify(&received, &new);
}

#[tokio::test]
async fn deliveries_of_one_endpoint_share_a_connection() {
    let (mut world, sink) = (World::running().await, Sink::start().await);
    world.endpoint(1, &sink.url).await;
    for n in 1..=20 {
        let ids = world.publish("{}", &[1]).await;
        world.becomes(ids[0], State::Delivered(1)).await;
        assert_eq!(sink.count(), n);
    }
    assert_eq!(sink.connections(), 1);
}

#[tokio::test]
async fn one_event_reaches_every_endpoint_once() {
    let (mut world, sink) = (World::running().await, Sink::start().await);
    let endpoints: Vec<u64> = (1..=50).collect();
    for id in &endpoints {
        world.endpoint(*id, &sink.url).await;
    }
    for _ in 0..20 {
        world.publish("{}", &endpoints).await;
    }
    let mut ids: Vec<String> = sink.receives(1000).await.iter().map(Received::id).collect();
    world.all_settled(20).await;
    assert_eq!(sink.count(), 1000);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1000);
}

#[tokio::test]
async fn what_is_answered_is_kept_within_bounds() {
    let mut world = World::running().await;
    let sink = Sink::answering(|n, _| {
        let mut answer = status(if n == 0 { 200 } else { 500 });
        *answer.body_mut() = vec![b'x'; 40_000].into();
        answer
    })
    .await;
    world.endpoint(1, &sink.url).await;
    for kept in [1024, 16 * 1024] {
        let id = world.publish("{}", &[1]).await[0];
        sink.receives(1).await;
        let attempt = crate::world::eventually(async || {
            world
                .attempts(id)
                .await
                .pop()
                .ok_or("no attempt".to_owned())
        })
        .await;
        assert_eq!(attempt.answer.len(), kept);
        assert!(attempt.answer_truncated);
    }
}

#[tokio::test]
async fn a_test_record_is_one_attempt_whatever_the_state() {
    let (world, sink) = (World::running().await, Sink::statuses(&[500]).await);
    let endpoint = world.endpoint(1, &sink.url).await;
    world
        .set_state(&endpoint, fanfare_domain::EndpointState::Paused)
        .await;
    let event = crate::world::test_event();
    let record = world
        .record(&event, fanfare_domain::Place::default(), &[1])
        .await;
    world.append(&fanfare_event_log::Record::Test(record)).await;
    sink.receives(1).await;
    soon(world.all_settled(1)).await;
    assert_eq!(sink.count(), 1);
}
