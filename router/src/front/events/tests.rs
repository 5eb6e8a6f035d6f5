//! What GetEvent tells apart, over memory backends and a clock that stands still.

use fanfare_domain::{AcceptedEvent, Tenure};
use fanfare_event_log::memory::MemoryLog;
use fanfare_service::Clock;
use fanfare_store::conformance::fixtures;
use fanfare_store::memory::MemoryStores;
use fanfare_store::{Claimed, Route};
use tokio_util::task::TaskTracker;
use tonic_types::StatusExt as _;

use super::super::config::FrontConfig;
use super::super::instruments::Instruments;
use super::*;

fn events() -> Events {
    let (config, log) = (FrontConfig::default(), Arc::new(MemoryLog::default()));
    let (stores, drain) = (MemoryStores::new().stores(), CancellationToken::new());
    let ingest = Ingest::new(
        &config,
        log.clone(),
        stores.events.clone(),
        Clock::manual(fixtures::second(0)),
        Instruments::new(&opentelemetry::global::meter("test")),
    );
    Events {
        ingest: Arc::new(ingest),
        tails: Tails::new(log, TaskTracker::new(), drain.clone()),
        inquiry: Inquiry::new(stores.clone()),
        limits: publish_stream::Unanswered::of(&config),
        stores,
        drain,
    }
}

/// A request of `acme`, whose credential is called `shop`.
fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller {
        tenant: fixtures::tenant("acme"),
        credential: "shop".into(),
        traceparent: None,
    });
    request
}

async fn accept(events: &Events, id: &str, source: &str) -> v1::PublishResponse {
    let event = v1::Event {
        id: id.into(),
        source: source.into(),
        r#type: "order.paid".into(),
        ..v1::Event::default()
    };
    let request = asked(v1::PublishRequest { event: Some(event) });
    events.publish(request).await.unwrap().into_inner()
}

async fn get(events: &Events, id: &str, source: &str) -> Result<v1::GetEventResponse, Status> {
    let request = v1::GetEventRequest {
        id: id.into(),
        source: source.into(),
    };
    let answer = events.get_event(asked(request)).await;
    answer.map(Response::into_inner)
}

/// What the router writes down about `event`, the record at `position`.
async fn route(events: &Events, event: &AcceptedEvent, position: u64, route: Route) {
    let claim = fixtures::claim(event, fixtures::place(position), route);
    let tenure = Tenure::unlimited();
    let claimed = events.stores.events.claim(&tenure, vec![claim]).await;
    assert_eq!(claimed.unwrap(), [Claimed::Fresh]);
}

fn refused(answer: Result<v1::GetEventResponse, Status>) -> (Code, String, String) {
    let status = answer.expect_err("it should be refused");
    let reason = status
        .get_error_details()
        .error_info()
        .unwrap()
        .reason
        .clone();
    (status.code(), reason, status.message().to_owned())
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_not_routed_within_a_second_is_said_to_be_on_its_way() {
    let events = events();
    let accepted = accept(&events, "e1", "/till").await;
    let started = Instant::now();
    let told = get(&events, "e1", "/till").await.unwrap();
    assert!(started.elapsed() >= ROUTE_WAIT, "{:?}", started.elapsed());
    let event = told.event.unwrap();
    assert_eq!((&*event.id, &*event.source), ("e1", "/till"));
    assert_eq!(told.accept_time, accepted.accept_time);
    assert_eq!(told.route_time, None);
    assert_eq!((told.deliveries.len(), told.delivery_count), (0, 0));

    // Without a source, the one that a publish without a source has.
    accept(&events, "e2", "").await;
    let told = get(&events, "e2", "").await.unwrap();
    assert_eq!(told.event.unwrap().source, "/shop");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_nobody_knows_is_not_called_one_that_does_not_exist() {
    let events = events();
    accept(&events, "e1", "/till").await;
    for (id, source) in [("e1", ""), ("e1", "/shop"), ("e2", "/till")] {
        let (code, reason, message) = refused(get(&events, id, source).await);
        assert_eq!((code, &*reason), (Code::NotFound, "EVENT_NOT_FOUND"));
        assert!(message.contains("ask again"), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_routed_while_it_is_asked_for_is_described_at_once() {
    let events = events();
    accept(&events, "e1", "/shop").await;
    let started = Instant::now();
    let routed = async {
        tokio::time::sleep(ROUTE_WAIT / 2).await;
        let event = fixtures::event("e1", "{}");
        route(&events, &event, 0, fixtures::route(1, &[])).await;
    };
    let (told, ()) = tokio::join!(get(&events, "e1", ""), routed);
    let told = told.unwrap();
    assert!(started.elapsed() < ROUTE_WAIT, "{:?}", started.elapsed());
    // Routed, and nobody wanted it.
    assert!(told.route_time.is_some());
    assert_eq!((told.deliveries.len(), told.delivery_count), (0, 0));
}

#[tokio::test]
async fn the_first_deliveries_are_described_and_all_are_counted() {
    let events = events();
    let endpoints: Vec<u64> = (1..=101).collect();
    let event = fixtures::event("e1", "{}");
    route(&events, &event, 0, fixtures::route(1, &endpoints)).await;
    let told = get(&events, "e1", "").await.unwrap();
    assert_eq!(told.deliveries.len(), DELIVERIES_SHOWN);
    assert_eq!(told.delivery_count, 101);
    let pending = v1::DeliveryState::Pending;
    assert!(told.deliveries.iter().all(|d| d.state() == pending));
}

#[tokio::test]
async fn an_id_of_several_sources_needs_the_source() {
    let events = events();
    let owners = [("acme", "/shop"), ("acme", "/till"), ("other", "/own")];
    for (position, (tenant, source)) in (0..).zip(owners) {
        let event = fixtures::event_of(tenant, source, "e1", "{}", fixtures::second(0));
        route(&events, &event, position, fixtures::route(1, &[])).await;
    }
    let (code, reason, message) = refused(get(&events, "e1", "").await);
    let want = (Code::FailedPrecondition, "EVENT_ID_AMBIGUOUS");
    assert_eq!((code, &*reason), want);
    assert!(message.ends_with("name one of /shop /till"), "{message}");
    let told = get(&events, "e1", "/till").await.unwrap();
    assert_eq!(told.event.unwrap().source, "/till");
}
