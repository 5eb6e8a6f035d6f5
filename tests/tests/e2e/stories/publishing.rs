//! However an event is published, it arrives signed, once, byte for byte.

use fanfare_proto::client::{self, Client};
use fanfare_proto::v1;
use fanfare_proto::v1::publish_result::Result as Outcome;
use fanfare_tests::World;
use fanfare_tests::api::{event, named};
use fanfare_tests::refusal::Refusal;
use futures::StreamExt;

/// White space and number forms that a parser would not give back.
const ODD_JSON: &str =
    "{ \"amount\" : 1250.00,\n\t\"name\": \"Zo\\u00eb \u{1F389}\", \"amount\": 1e3 }";

#[tokio::test]
async fn one_event_arrives_as_one_signed_post() {
    let world = World::start().await;
    let shop = world.endpoint().wants(&["order.paid"]).await;
    let published = world.publish("order.paid", ODD_JSON).await;
    let [post] = &shop.receives(1).await[..] else {
        panic!("one POST")
    };
    assert_eq!(post.body, ODD_JSON);
    assert!(
        post.id().starts_with("dlv_") && !post.id().contains('.'),
        "{}",
        post.id()
    );
    assert_eq!(post.header("idempotency-key"), post.id());
    assert_eq!(post.header("content-type"), "application/json");
    assert_eq!(post.header("ce-specversion"), "1.0");
    assert_eq!(post.header("ce-id"), published.id);
    assert_eq!(post.header("ce-type"), "order.paid");
    assert_eq!(post.header("ce-source"), published.source);
    assert!(!post.header("ce-time").is_empty());
    assert!(post.header("user-agent").starts_with("Fanfare/"));
    assert!(post.header("traceparent").starts_with("00-"));
}

#[tokio::test]
async fn attributes_travel_as_cloudevents_headers() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let mut sent = named("evt-1", "order.paid", "{}");
    sent.source = "/shop/eu".to_owned();
    sent.subject = Some("order 17 für Zoë".to_owned());
    sent.time = Some(std::time::SystemTime::UNIX_EPOCH.into());
    sent.ordering_key = Some("customer-9".to_owned());
    sent.extensions
        .insert("region".to_owned(), "eu-west-1".to_owned());
    world.api().publish(sent).await.expect("accepted");
    let post = &shop.receives(1).await[0];
    assert_eq!(post.header("ce-id"), "evt-1");
    assert_eq!(post.header("ce-source"), "/shop/eu");
    // CloudEvents' HTTP binding: what is not printable ASCII is percent-encoded.
    assert_eq!(
        post.header("ce-subject"),
        "order%2017%20f%C3%BCr%20Zo%C3%AB"
    );
    assert!(
        post.header("ce-time").starts_with("1970-01-01T00:00:00"),
        "{post:?}"
    );
    assert_eq!(post.header("ce-partitionkey"), "customer-9");
    assert_eq!(post.header("ce-region"), "eu-west-1");
}

#[tokio::test]
async fn a_batch_answers_for_each_event() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let events = vec![
        named("a", "order.paid", "1"),
        named("b", "order/paid", "2"), // no such type name
        named("c", "order.paid", "3"),
        named("a", "order.paid", "1"), // a repeat
    ];
    let request = v1::PublishBatchRequest { events };
    let results = world
        .api()
        .events()
        .publish_batch(request)
        .await
        .expect("answered");
    let results = results.into_inner().results;
    let accepted: Vec<_> = results.iter().map(accepted).collect();
    assert_eq!(accepted, [Some("a"), None, Some("c"), Some("a")]);
    let Some(Outcome::Error(error)) = &results[1].result else {
        panic!("{results:?}")
    };
    assert_eq!(Refusal::of_result(error).reason, "EVENT_TYPE_INVALID");
    assert_eq!(
        shop.receives_in_all(&world).await.len(),
        2,
        "the repeat is not delivered again"
    );
}

#[tokio::test]
async fn a_stream_answers_in_order_and_a_refusal_does_not_end_it() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let requests = (1..=500).map(|n| {
        let event_type = if n % 100 == 0 {
            "not a type"
        } else {
            "order.paid"
        };
        let event = named(&format!("e{n}"), event_type, n.to_string());
        v1::PublishStreamRequest {
            sequence: n * 3,
            event: Some(event),
        }
    });
    let requests = futures::stream::iter(requests.collect::<Vec<_>>());
    let mut responses = world
        .api()
        .events()
        .publish_stream(requests)
        .await
        .unwrap()
        .into_inner();
    let mut results = Vec::new();
    while let Some(response) = responses.next().await {
        results.extend(response.expect("the stream does not break").results);
    }
    let sequences: Vec<_> = results.iter().map(|result| result.sequence).collect();
    assert_eq!(sequences, (1..=500).map(|n| n * 3).collect::<Vec<u64>>());
    assert_eq!(
        results
            .iter()
            .filter(|result| accepted(result).is_some())
            .count(),
        495
    );
    shop.receives(495).await;
}

#[tokio::test]
async fn each_matching_subscription_gets_the_event_and_no_other() {
    let world = World::start().await;
    let exact = world.endpoint().wants(&["order.paid"]).await;
    let one_part = world.endpoint().wants(&["order.*"]).await;
    let any_depth = world.endpoint().wants(&["order.**"]).await;
    let everything = world.endpoint().wants(&["**"]).await;
    let several = world
        .endpoint()
        .wants(&["order.paid", "order.*", "invoice.*"])
        .await;
    for event_type in [
        "order",
        "order.paid",
        "order.paid.late",
        "orders.paid",
        "invoice.sent",
    ] {
        world.publish(event_type, "{}").await;
    }
    everything.receives(5).await;
    let expect = async |subscriber: &fanfare_tests::world::Subscriber, types: &[&str]| {
        let posts = subscriber.receives(types.len()).await;
        let mut got: Vec<_> = posts.iter().map(|post| post.header("ce-type")).collect();
        got.sort_unstable();
        assert_eq!(got, types);
    };
    expect(&exact, &["order.paid"]).await;
    expect(&one_part, &["order.paid"]).await;
    expect(&any_depth, &["order.paid", "order.paid.late"]).await;
    // Several patterns of one subscription that match are one delivery.
    expect(&several, &["invoice.sent", "order.paid"]).await;
    expect(
        &everything,
        &[
            "invoice.sent",
            "order",
            "order.paid",
            "order.paid.late",
            "orders.paid",
        ],
    )
    .await;
}

#[tokio::test]
async fn publishing_again_is_one_event_and_another_body_is_refused() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let first = world
        .api()
        .publish(named("e1", "order.paid", "{}"))
        .await
        .expect("accepted");
    let again = world
        .api()
        .publish(named("e1", "order.paid", "{}"))
        .await
        .expect("accepted");
    assert!(!first.duplicate && again.duplicate);
    assert_eq!((first.id, first.accept_time), (again.id, again.accept_time));
    let other = world.api().publish(named("e1", "order.paid", "{ }")).await;
    let refusal = Refusal::of(other.expect_err("another body"));
    assert_eq!(
        (refusal.code, &*refusal.reason),
        (tonic::Code::AlreadyExists, "EVENT_ID_CONFLICT")
    );
    // Another source is another event.
    let mut elsewhere = named("e1", "order.paid", "{ }");
    elsewhere.source = "/elsewhere".to_owned();
    assert!(
        !world
            .api()
            .publish(elsewhere)
            .await
            .expect("accepted")
            .duplicate
    );
    assert_eq!(shop.receives_in_all(&world).await.len(), 2);
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let world = World::start().await;
    let acme = world.endpoint().tenant("acme").await;
    let umbrella = world.endpoint().tenant("umbrella").await;
    let api = world.api().tenant("acme");
    let published = api
        .publish(event("order.paid", "{}"))
        .await
        .expect("accepted");
    let posts = acme.receives(1).await;
    let elsewhere = world.api().tenant("umbrella");
    for status in [
        elsewhere
            .event(&published.id)
            .await
            .expect_err("another tenant's event"),
        elsewhere
            .delivery(posts[0].id())
            .await
            .expect_err("another tenant's delivery"),
    ] {
        assert_eq!(status.code(), tonic::Code::NotFound, "{status:?}");
    }
    assert_eq!(umbrella.sink.receipts().len(), 0);
}

fn accepted(result: &v1::PublishResult) -> Option<&str> {
    match &result.result {
        Some(Outcome::Accepted(response)) => Some(&response.id),
        _ => None,
    }
}

#[tokio::test]
async fn the_rust_client_publishes_one_by_one_in_batches_and_in_a_stream() {
    let mut world = World::start().await;
    let shop = world.endpoint().await;
    let client = Client::builder(world.url())
        .connect()
        .await
        .expect("it connects");
    let order = || client::event("order.paid", "{}");
    let mut ids = vec![client.publish(order()).await.expect("accepted")];
    let answers = client.publish_batch(vec![order(), order()]).await;
    ids.extend(answers.into_iter().map(|answer| answer.expect("accepted")));
    let publisher = client.publisher();
    for _ in 0..100 {
        ids.push(publisher.send(order()).await.await.expect("accepted"));
    }
    publisher.close().await;
    let posts = shop.receives(ids.len()).await;
    let mut got: Vec<_> = posts.iter().map(|post| post.header("ce-id")).collect();
    let mut expected: Vec<_> = ids.iter().map(client::EventId::as_str).collect();
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected);

    let refused = client
        .publish(client::event("no/type", "{}"))
        .await
        .expect_err("refused");
    assert_eq!(refused.kind(), client::PublishErrorKind::Refused);
    world.stop().await;
}
