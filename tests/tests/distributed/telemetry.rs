//! What a cluster tells: one trace over both processes, and metrics that are its programs' together.

use std::collections::BTreeSet;

use fanfare_proto::v1;
use fanfare_tests::api::named;
use fanfare_tests::collector::{Collector, attributes};
use fanfare_tests::metrics::{Families, expected, scrape, settled};
use fanfare_tests::server::Program;
use fanfare_tests::sink::{Answer, Script, Sink};
use fanfare_tests::{Fleet, Services};
use opentelemetry_proto::tonic::trace::v1::Span;

use super::stage::{endpoint, turn};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digit = |digit: u8| char::from_digit(digit.into(), 16).unwrap();
    digits.map(digit).collect()
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut named = spans.iter().filter(|span| span.name == name);
    match (named.next(), named.next()) {
        (Some(span), None) => span,
        _ => panic!("one {name}: {spans:#?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_one_trace_over_router_and_worker() {
    let _turn = turn().await;
    let collector = Collector::start().await;
    let mut fleet = Fleet::prepare(Services::shared().await);
    fleet.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url());
    fleet.env("OTEL_BSP_SCHEDULE_DELAY", "100");
    fleet.migrate().await.ok();
    fleet.add(Program::Router).await;
    fleet.add(Program::Worker).await;
    let sink = Sink::start(Script::then_ok([Answer::status(503)])).await;
    endpoint(&fleet.api(), &sink, "order.paid").await;
    let event = Some(named("e1", "order.paid", "{}"));
    let mut request = tonic::Request::new(v1::PublishRequest { event });
    let caller = format!("00-{TRACE}-{PARENT}-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", caller);
    fleet.api().events().publish(request).await.unwrap();
    sink.receives(1).await;

    let spans = collector.receives(4).await;
    assert_eq!(spans.len(), 4, "{spans:#?}");
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    let publish = one(&spans, "publish");
    assert_eq!(hex(&publish.parent_span_id), PARENT);
    let route = one(&spans, "route");
    assert_eq!(route.parent_span_id, publish.span_id);
    let posts: Vec<_> = spans.iter().filter(|span| span.name == "POST").collect();
    assert_eq!(posts.len(), 2);
    for post in posts {
        assert_eq!(post.parent_span_id, route.span_id);
        let theirs = format!("00-{TRACE}-{}-01", hex(&post.span_id));
        let got = sink.receipts().into_iter();
        let got: Vec<_> = got.filter(|r| r.header("traceparent") == theirs).collect();
        let [got] = &got[..] else {
            panic!("one POST went on from {theirs}: {got:?}")
        };
        assert_eq!(got.id(), attributes(post)["fanfare.delivery.id"]);
    }
    let services: BTreeSet<_> = collector.services().into_iter().collect();
    let both = ["fanfare-delivery-worker", "fanfare-router"].map(str::to_owned);
    assert_eq!(services, both.into());
    for exit in fleet.stop_all().await {
        assert_eq!(exit.code, Some(0), "{}", exit.log);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn router_and_worker_together_show_the_metrics_of_the_documentation() {
    let _turn = turn().await;
    let mut fleet = Fleet::start(Services::shared().await, 1, 1).await;
    let api = fleet.api().tenant("tenant-a");
    let good = Sink::start(Script::then_ok([])).await;
    let bad = Sink::start(Script::always(Answer::status(503))).await;
    let mut ids = vec![endpoint(&api, &good, "ta.n").await];
    ids.push(endpoint(&api, &bad, "ta.n").await);
    for _ in 0..2 {
        api.publish(named("id-a", "ta.n", "{}")).await.unwrap();
    }
    let conflict = api.publish(named("id-a", "ta.n", "[]")).await;
    conflict.expect_err("its id is another's");
    good.receives(1).await;
    bad.attempts(3).await;

    let worker = settled(fleet.server(Program::Worker, 0)).await;
    let router = scrape(fleet.server(Program::Router, 0)).await;
    let mut shown = Families::new();
    for (name, (kind, labels)) in [&router, &worker].into_iter().flat_map(|s| &s.families) {
        let both = shown
            .entry(name.clone())
            .or_insert_with(|| (kind.clone(), BTreeSet::new()));
        both.1.extend(labels.iter().cloned());
    }
    let mut expected = expected(&mut shown);
    // Said below the table: a cluster has one more.
    let lost = ("counter".to_owned(), BTreeSet::new());
    expected.insert("fanfare_log_records_lost_total".to_owned(), lost);
    assert_eq!(shown, expected);

    ids.extend(["tenant-", "id-a", "ta.n", "127.0.0.1"].map(str::to_owned));
    for series in router.series.union(&worker.series) {
        let named = ids.iter().find(|id| series.contains(id.as_str()));
        assert_eq!(named, None, "{series}");
    }
    for exit in fleet.stop_all().await {
        assert_eq!(exit.code, Some(0), "{}", exit.log);
    }
}
