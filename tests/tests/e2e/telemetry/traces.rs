//! One event is one trace, from the producer's span to each POST.

use std::time::Duration;

use fanfare_proto::v1;
use fanfare_tests::World;
use fanfare_tests::api::named;
use fanfare_tests::collector::{Collector, attributes};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use tokio::net::TcpListener;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

async fn traced(collector: &str) -> World {
    World::with(|options| {
        options
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
    })
    .await
}

/// Publishes as part of a caller's trace.
async fn publish_within(world: &World, traceparent: &str) {
    let event = Some(named("e1", "order.paid", "{}"));
    let mut request = tonic::Request::new(v1::PublishRequest { event });
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", traceparent.parse().unwrap());
    let published = world.api().events().publish(request).await;
    published.expect("accepted");
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digit = |digit: u8| char::from_digit(digit.into(), 16).unwrap();
    digits.map(digit).collect()
}

fn named_spans<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn status(span: &Span) -> StatusCode {
    span.status.as_ref().map_or(StatusCode::Unset, Status::code)
}

/// `(endpoint, attempt)` of a POST's span.
fn whose(span: &Span) -> (String, String) {
    let about = attributes(span);
    let of = |name: &str| about[name].clone();
    (of("fanfare.endpoint.id"), of("fanfare.attempt"))
}

#[tokio::test]
async fn an_event_is_one_trace_from_the_caller_through_both_topics_to_every_post() {
    let collector = Collector::start().await;
    let world = traced(&collector.url()).await;
    let steady = world.endpoint().await;
    let shaky = world.endpoint().fail(1).await;
    publish_within(&world, &format!("00-{TRACE}-{PARENT}-01")).await;
    let posts = [steady.receives(1).await, shaky.receives(1).await];
    assert_eq!(shaky.sink.receipts().len(), 2);
    let spans = collector.receives(5).await;
    assert_eq!(spans.len(), 5, "{spans:#?}");
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    assert!(collector.services().iter().all(|name| name == "fanfare"));

    let [publish] = named_spans(&spans, "publish")[..] else {
        panic!("one publish: {spans:#?}")
    };
    assert_eq!(hex(&publish.parent_span_id), PARENT);
    assert_eq!(publish.kind(), SpanKind::Server);
    let about = attributes(publish);
    assert_eq!(about["messaging.message.id"], "e1");
    assert_eq!(about["messaging.operation.type"], "send");
    assert_eq!(about["cloudevents.event_type"], "order.paid");
    assert_eq!(about["fanfare.tenant"], "default");

    let [route] = named_spans(&spans, "route")[..] else {
        panic!("one route: {spans:#?}")
    };
    assert_eq!(route.parent_span_id, publish.span_id);
    assert_eq!(route.kind(), SpanKind::Consumer);
    let about = attributes(route);
    assert_eq!(about["messaging.operation.type"], "process");
    assert_eq!(about["fanfare.deliveries"], "2");

    let attempts = named_spans(&spans, "POST");
    let mut seen: Vec<_> = attempts.iter().map(|span| whose(span)).collect();
    let mut expected = vec![
        (steady.endpoint.id.clone(), "1".to_owned()),
        (shaky.endpoint.id.clone(), "1".to_owned()),
        (shaky.endpoint.id.clone(), "2".to_owned()),
    ];
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
    for span in &attempts {
        assert_eq!(span.parent_span_id, route.span_id);
        assert_eq!(span.kind(), SpanKind::Client);
        let about = attributes(span);
        assert_eq!(about["http.request.method"], "POST");
        assert_eq!(about["server.address"], "127.0.0.1");
        assert_eq!(about["messaging.message.id"], "e1");
        let is_first = whose(span) == (shaky.endpoint.id.clone(), "1".to_owned());
        let (code, answer) = if is_first {
            (StatusCode::Error, "503")
        } else {
            (StatusCode::Unset, "200")
        };
        assert_eq!(status(span), code, "{span:#?}");
        assert_eq!(about["http.response.status_code"], answer);
        assert_eq!(about.contains_key("error.type"), is_first);
        let resent = about.get("http.request.resend_count").map(String::as_str);
        assert_eq!(resent, (about["fanfare.attempt"] == "2").then_some("1"));
        // The subscriber goes on from this very attempt.
        let theirs = format!("00-{TRACE}-{}-01", hex(&span.span_id));
        let sinks = [steady.sink.receipts(), shaky.sink.receipts()].concat();
        let post = sinks.iter().find(|p| p.header("traceparent") == theirs);
        let post = post.unwrap_or_else(|| panic!("nobody got {theirs}"));
        assert_eq!(post.id(), about["fanfare.delivery.id"]);
        assert_eq!(post.answered.to_string(), answer);
    }
    assert!(
        posts
            .concat()
            .iter()
            .all(fanfare_tests::sink::Receipt::accepted)
    );
}

#[tokio::test]
async fn what_the_caller_does_not_sample_is_not_recorded_and_the_drain_sends_the_rest() {
    let collector = Collector::start().await;
    let mut world = World::with(|options| {
        options
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
            // Longer than the test: what comes is what the drain flushed.
            .env("OTEL_BSP_SCHEDULE_DELAY", "600000")
    })
    .await;
    let shop = world.endpoint().await;
    publish_within(&world, &format!("00-{TRACE}-{PARENT}-00")).await;
    shop.receives(1).await;
    world.publish("order.paid", "{}").await;
    let posts = shop.receives(2).await;
    assert_eq!(collector.spans(), []);
    let exit = world.stop().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    let spans = collector.spans();
    let mut names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["POST", "publish", "route"]);
    let trace = hex(&spans[0].trace_id);
    assert!(spans.iter().all(|span| hex(&span.trace_id) == trace));
    assert_eq!(named_spans(&spans, "publish")[0].parent_span_id, b"");
    let headers: Vec<_> = posts.iter().map(|p| p.header("traceparent")).collect();
    assert!(headers[0].starts_with(&format!("00-{TRACE}-")) && headers[0].ends_with("-00"));
    assert!(headers[1].starts_with(&format!("00-{trace}-")) && headers[1].ends_with("-01"));
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_nothing_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut world = traced(&format!("http://{}", silent.local_addr().unwrap())).await;
    let shop = world.endpoint().await;
    let began = std::time::Instant::now();
    for _ in 0..300 {
        world.publish("order.paid", "{}").await;
    }
    shop.receives(300).await;
    let exit = world.stop().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    assert!(began.elapsed() < Duration::from_secs(45), "{began:?}");
}
