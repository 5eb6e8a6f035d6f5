//! Events that cannot be accepted.

use fanfare_proto::v1;
use fanfare_tests::World;
use fanfare_tests::api::{event, named};
use fanfare_tests::http::post;
use fanfare_tests::refusal::Refusal;
use tonic::Code;

use super::refused;

/// A bad event, what is wrong with it, the expected reason, and a part of the field's name.
type Bad = (&'static str, v1::Event, &'static str, &'static str);

fn bad_events() -> Vec<Bad> {
    [bad_types(), bad_data(), bad_names()].concat()
}

fn bad_types() -> Vec<Bad> {
    let long = "a".repeat(1_000_000);
    let types = [
        ("a slash", "order/paid"),
        ("an empty part", "order..paid"),
        ("a parent directory", "../../etc/passwd"),
        ("a NUL", "order\0paid"),
        ("nothing", ""),
        ("1 MB", &long),
        ("CQL", "x'; DROP TABLE event;--"),
    ];
    types
        .map(|(what, name)| (what, event(name, "{}"), "EVENT_TYPE_INVALID", "type"))
        .to_vec()
}

fn bad_data() -> Vec<Bad> {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let large = format!("\"{}\"", "x".repeat(300 << 10));
    let data: [(_, Vec<u8>, _); 5] = [
        ("no JSON", b"{\"a\":}".to_vec(), "DATA_NOT_JSON"),
        (
            "JSON that ends early",
            b"{\"a\":1".to_vec(),
            "DATA_NOT_JSON",
        ),
        ("not UTF-8", b"\"\xff\"".to_vec(), "DATA_NOT_JSON"),
        ("deep JSON", deep.into(), "DATA_TOO_DEEP"),
        ("300 KiB", large.into(), "EVENT_TOO_LARGE"),
    ];
    data.map(|(what, data, reason)| (what, event("order.paid", data), reason, "data"))
        .to_vec()
}

fn bad_names() -> Vec<Bad> {
    let with = |id: &str, extension: &str| {
        let mut event = named(id, "order.paid", "{}");
        event
            .extensions
            .insert(extension.to_owned(), "eu".to_owned());
        event
    };
    vec![
        (
            "an id with a space",
            with("a b", "region"),
            "EVENT_ID_INVALID",
            "id",
        ),
        (
            "an id of 256 bytes",
            with(&"i".repeat(256), "region"),
            "EVENT_ID_INVALID",
            "id",
        ),
        (
            "an extension in capitals",
            with("a", "Region"),
            "EXTENSION_INVALID",
            "extensions",
        ),
        (
            "an extension that is an attribute",
            with("a", "id"),
            "EXTENSION_INVALID",
            "extensions",
        ),
    ]
}

#[tokio::test]
async fn over_grpc() {
    let world = World::start().await;
    let everything = world.endpoint().await;
    for (what, event, reason, field) in bad_events() {
        let answer = world.api().publish(event.clone()).await;
        let refusal = Refusal::of(answer.expect_err(what));
        expect(what, &refusal, reason, field);
        let request = v1::PublishBatchRequest {
            events: vec![event],
        };
        let answer = world
            .api()
            .events()
            .publish_batch(request)
            .await
            .expect(what)
            .into_inner();
        let Some(v1::publish_result::Result::Error(error)) = &answer.results[0].result else {
            panic!("{what}: {answer:?}")
        };
        expect(what, &Refusal::of_result(error), reason, field);
    }
    nothing_written(&world, &everything).await;
}

#[tokio::test]
async fn over_http() {
    let world = World::start().await;
    let everything = world.endpoint().await;
    let url = format!("{}/v1/events", world.url());
    let json = "application/cloudevents+json";
    let event = |kind: &str, data: &str| {
        format!(r#"{{"specversion":"1.0","id":"e","source":"/s","type":"{kind}","data":{data}}}"#)
    };
    let typed = |kind: &str| event(kind, "{}");
    let data = |data: &str| event("order.paid", data);
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let large = format!("\"{}\"", "x".repeat(300 << 10));
    let long = "a".repeat(1_000_000);
    let no_json = typed("order.paid").replace(r#""data":{}"#, r#""data_base64":"eyJhIjp9""#);
    let cases = [
        (
            json,
            typed("order/paid"),
            (400, "EVENT_TYPE_INVALID", "event.type"),
        ),
        (json, typed(".."), (400, "EVENT_TYPE_INVALID", "event.type")),
        (
            json,
            typed("order\\u0000paid"),
            (400, "EVENT_TYPE_INVALID", "event.type"),
        ),
        (json, typed(""), (400, "EVENT_FIELD_INVALID", "event.type")),
        (json, typed(&long), (413, "EVENT_TOO_LARGE", "body")),
        (json, no_json, (400, "DATA_NOT_JSON", "event.data")),
        (json, data(&deep), (400, "DATA_TOO_DEEP", "event.data")),
        (json, data(&large), (413, "EVENT_TOO_LARGE", "event.data")),
        (json, data("{} trailing"), (400, "REQUEST_INVALID", "body")),
        (json, data("\"a\0b\""), (400, "REQUEST_INVALID", "body")),
        (json, "{".to_owned(), (400, "REQUEST_INVALID", "body")),
        (json, "[]".to_owned(), (400, "REQUEST_INVALID", "body")),
        (
            "text/plain",
            "hello".to_owned(),
            (400, "REQUEST_INVALID", "ce-specversion"),
        ),
    ];
    for (content_type, body, expected) in cases {
        refused_over_http(&url, &[("content-type", content_type)], body, expected).await;
    }
    nothing_written(&world, &everything).await;
}

#[tokio::test]
async fn over_http_in_binary_mode() {
    let world = World::start().await;
    let everything = world.endpoint().await;
    let url = format!("{}/v1/events", world.url());
    let headers = |event_type| {
        [
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "e"),
            ("ce-source", "/s"),
            ("ce-type", event_type),
        ]
    };
    let cases = [
        (
            "order.paid",
            "{\"a\":}",
            (400, "DATA_NOT_JSON", "event.data"),
        ),
        (
            "order.paid",
            "{\"a\":1",
            (400, "DATA_NOT_JSON", "event.data"),
        ),
        (
            "../../etc/passwd",
            "{}",
            (400, "EVENT_TYPE_INVALID", "event.type"),
        ),
        (
            "order%00paid",
            "{}",
            (400, "EVENT_TYPE_INVALID", "event.type"),
        ),
    ];
    for (event_type, body, expected) in cases {
        refused_over_http(&url, &headers(event_type), body.to_owned(), expected).await;
    }
    nothing_written(&world, &everything).await;
}

/// Status, code and field are these, and a person is told what to do.
async fn refused_over_http(
    url: &str,
    headers: &[(&str, &str)],
    body: String,
    expected: (u16, &str, &str),
) {
    let answer = post(url, headers, body).await.expect("an answer");
    let error = &answer.json()["error"];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let (code, field) = (text(&error["code"]), text(&error["violations"][0]["field"]));
    assert_eq!((answer.status, &*code, &*field), expected, "{error}");
    assert!(text(&error["message"]).len() > 10, "{error}");
}

#[tokio::test]
async fn on_the_command_line() {
    let world = World::start().await;
    let everything = world.endpoint().await;
    let large = world.dir().join("large.json");
    std::fs::write(&large, format!("\"{}\"", "x".repeat(300 << 10))).expect("a file");
    let large = large.to_string_lossy().into_owned();
    let long = "a".repeat(100_000);
    let cases: &[(&[&str], &str)] = &[
        (&["order/paid", "--data", "{}"], "EVENT_TYPE_INVALID"),
        (&["..", "--data", "{}"], "EVENT_TYPE_INVALID"),
        (&[&long, "--data", "{}"], "EVENT_TYPE_INVALID"),
        (&["order.paid", "--data", "{\"a\":}"], "DATA_NOT_JSON"),
        (&["order.paid", "--data-file", &large], "EVENT_TOO_LARGE"),
        (
            &["order.paid", "--data", "{}", "--id", "a b"],
            "EVENT_ID_INVALID",
        ),
        (
            &["order.paid", "--data", "{}", "--extension", "Region=eu"],
            "EXTENSION_INVALID",
        ),
    ];
    for (arguments, code) in cases {
        let command = [&["-o", "json", "event", "publish"], *arguments].concat();
        let (exit, error) = refused(&world.fanfare(&command).await);
        assert_eq!((exit, error["code"].as_str()), (1, Some(*code)), "{error}");
        assert!(error["violations"][0]["field"].is_string(), "{error}");
    }
    nothing_written(&world, &everything).await;
}

#[tokio::test]
async fn the_same_id_with_another_body_is_a_conflict() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let publish = async |data: &str| {
        let publish = [
            "-o",
            "json",
            "event",
            "publish",
            "order.paid",
            "--id",
            "e1",
            "--data",
            data,
        ];
        world.fanfare(&publish).await
    };
    publish("1").await.ok();
    publish("1").await.ok();
    let (exit, error) = refused(&publish("2").await);
    assert_eq!(
        (exit, error["code"].as_str()),
        (1, Some("EVENT_ID_CONFLICT")),
        "{error}"
    );
    let posts = shop.receives_in_all(&world).await;
    assert_eq!(
        posts.iter().map(|post| &post.body[..]).collect::<Vec<_>>(),
        [b"1"]
    );
}

#[tokio::test]
async fn too_many_events_at_once() {
    let world = World::start().await;
    let everything = world.endpoint().await;
    let events = (0..1_001)
        .map(|n| named(&n.to_string(), "order.paid", "{}"))
        .collect();
    let request = v1::PublishBatchRequest { events };
    let answer = world.api().events().publish_batch(request).await;
    let refusal = Refusal::of(answer.expect_err("more than 1,000"));
    expect("a batch of 1,001", &refusal, "BATCH_TOO_LARGE", "events");
    nothing_written(&world, &everything).await;
}

#[tokio::test]
async fn a_sequence_that_does_not_rise() {
    let world = World::start().await;
    let request = |sequence| v1::PublishStreamRequest {
        sequence,
        event: Some(event("order.paid", "{}")),
    };
    let requests = futures::stream::iter([request(5), request(5)]);
    let mut answers = world
        .api()
        .events()
        .publish_stream(requests)
        .await
        .unwrap()
        .into_inner();
    let mut reasons = Vec::new();
    loop {
        match answers.message().await {
            Ok(Some(answer)) => reasons.extend(answer.results.into_iter().filter_map(reason)),
            Ok(None) => break,
            Err(status) => {
                reasons.push(Refusal::of(status).reason);
                break;
            }
        }
    }
    assert_eq!(reasons, ["SEQUENCE_INVALID"]);
}

fn reason(result: v1::PublishResult) -> Option<String> {
    match result.result {
        Some(v1::publish_result::Result::Error(error)) => Some(Refusal::of_result(&error).reason),
        _ => None,
    }
}

fn expect(what: &str, refusal: &Refusal, reason: &str, field: &str) {
    assert_eq!(
        (refusal.code, &*refusal.reason),
        (Code::InvalidArgument, reason),
        "{what}: {refusal:?}"
    );
    let named = refusal
        .fields
        .iter()
        .any(|(name, advice)| name.contains(field) && !advice.is_empty());
    assert!(named, "{what}: the field is named: {refusal:?}");
    assert!(
        refusal.retry_after.is_none(),
        "{what}: a retry cannot help: {refusal:?}"
    );
}

/// Nothing was accepted, stored or delivered, and the server goes on.
async fn nothing_written(world: &World, everything: &fanfare_tests::world::Subscriber) {
    let posts = everything.receives_in_all(world).await;
    assert!(posts.is_empty(), "{posts:?}");
    let request = v1::ListEventsRequest::default();
    let listed = world
        .api()
        .events()
        .list_events(request)
        .await
        .expect("listed")
        .into_inner();
    assert_eq!(
        listed.events.len(),
        1,
        "only the last event that the test itself sent: {listed:?}"
    );
}
