//! Values for tests of stores: small, distinct, and full enough that a lost field is noticed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfare_domain::{
    AcceptedEvent, BodyHash, Data, DeadLetterReason, DeliveryId, DeliverySeed, Endpoint,
    EndpointId, EndpointState, Envelope, Event, EventId, EventKey, EventRef, EventType, Outcome,
    ParkedReason, Place, Position, RetrySchedule, Secret, Source, Subscription, SubscriptionId,
    Target, TenantId, Timestamp, TypePattern,
};

use crate::{AttemptRow, Claim, DeadLetter, Entry, Parked, ParkedKey, RetryRow, RetryState, Route};

/// A moment `n` seconds into the tests' time.
pub fn second(n: i64) -> Timestamp {
    Timestamp::from_millis((1_790_000_000 + n) * 1000)
}

/// A tenant by name.
pub fn tenant(name: &str) -> TenantId {
    TenantId::try_new(name).unwrap()
}

/// An event of tenant `acme` from `/shop`, accepted at `second(0)`; `data` tells bodies apart.
pub fn event(id: &str, data: &str) -> AcceptedEvent {
    event_of("acme", "/shop", id, data, second(0))
}

/// An event with everything set.
pub fn event_of(who: &str, source: &str, id: &str, data: &str, at: Timestamp) -> AcceptedEvent {
    let event = Event {
        id: EventId::try_new(id).unwrap(),
        source: Source::try_new(source).unwrap(),
        event_type: EventType::try_new("order.paid").unwrap(),
        subject: Some("order/1".into()),
        time: Some(at.minus(Duration::from_millis(1))),
        data_content_type: "application/json".into(),
        data_schema: Some("https://example.com/schema".into()),
        data: Data::Bytes(Bytes::copy_from_slice(data.as_bytes())),
        ordering_key: None,
        extensions: BTreeMap::from([("traceparent".into(), "00-a-b-01".into())]),
    };
    AcceptedEvent {
        tenant: tenant(who),
        body_hash: event.body_hash(),
        event,
        accept_time: at,
    }
}

/// A route to `endpoints`, by configuration head `head`.
pub fn route(head: u64, endpoints: &[u64]) -> Route {
    let target = |id: &u64| Target {
        endpoint: EndpointId(*id),
        subscription: SubscriptionId(*id + 1_000_000),
    };
    Route {
        route_time: second(1),
        matched: endpoints.iter().map(target).collect(),
        config_head: head,
    }
}

/// A claim of `event` as read at `place`.
pub fn claim(event: &AcceptedEvent, place: Place, route: Route) -> Claim {
    Claim {
        event: Arc::new(event.clone()),
        place,
        route,
    }
}

/// A place of span 0.
pub fn place(position: u64) -> Place {
    Place {
        span: 0,
        position: Position(position),
    }
}

/// The `n`-th delivery of `endpoint` among those published at `published`.
pub fn delivery(endpoint: u64, published: Timestamp, n: u64) -> DeliveryId {
    let id = EventId::try_new(format!("e-{n}")).unwrap();
    let source = Source::try_new("/shop").unwrap();
    let seed = DeliverySeed::new(&tenant("acme"), &source, &id, &BodyHash([7; 16]));
    seed.delivery(EndpointId(endpoint), SubscriptionId(n), published, 0)
}

/// A reference to the event of `delivery(_, _, n)`.
pub fn event_ref(n: u64) -> EventRef {
    let key = EventKey {
        tenant: tenant("acme"),
        id: EventId::try_new(format!("e-{n}")).unwrap(),
        source: Source::try_new("/shop").unwrap(),
    };
    EventRef::new(key, place(n))
}

/// Retry state of the `n`-th delivery of `endpoint`, in `state`.
pub fn retry(endpoint: u64, n: u64, state: RetryState) -> RetryRow {
    RetryRow {
        delivery: delivery(endpoint, second(0), n),
        tenant: tenant("acme"),
        subscription: SubscriptionId(n),
        event: event_ref(n),
        generation: 1,
        attempts: 3,
        attempts_before: 2,
        first_attempt: second(2),
        last_outcome: Outcome::status(503, Some(Duration::from_secs(30))),
        state,
    }
}

/// The `n`-th parked delivery of `endpoint`, at place `n`.
pub fn parked(endpoint: u64, n: u64) -> Parked {
    Parked {
        endpoint: EndpointId(endpoint),
        key: ParkedKey {
            place: place(n),
            part: 3,
        },
        delivery: delivery(endpoint, second(0), n),
        tenant: tenant("acme"),
        subscription: SubscriptionId(n),
        event: event_ref(n),
        generation: 2,
        reason: ParkedReason::Unhealthy,
        since: second(5),
    }
}

/// A successful attempt on `delivery(endpoint, published, n)`.
pub fn attempt(endpoint: u64, published: Timestamp, n: u64, number: u32) -> AttemptRow {
    AttemptRow {
        tenant: tenant("acme"),
        delivery: delivery(endpoint, published, n),
        subscription: SubscriptionId(n),
        event: event_ref(n),
        event_type: EventType::try_new("order.paid").unwrap(),
        number,
        start: published.plus(Duration::from_micros(1234)),
        latency: Duration::from_micros(876),
        outcome: Outcome::delivered(204),
        next_attempt: None,
        answer: Bytes::from_static(b"ok"),
        answer_truncated: false,
    }
}

/// The same, failed with `outcome` and to be tried again.
pub fn failed_attempt(mut row: AttemptRow, outcome: Outcome) -> AttemptRow {
    row.outcome = outcome;
    row.next_attempt = Some(row.start.plus(Duration::from_secs(5)));
    row.answer = Bytes::from_static(b"\x00\xffbusy");
    row.answer_truncated = true;
    row
}

/// The dead letter of the `n`-th delivery of `endpoint`, given up on at `at`.
pub fn dead_letter(endpoint: u64, n: u64, at: Timestamp) -> DeadLetter {
    DeadLetter {
        delivery: delivery(endpoint, second(0), n),
        tenant: tenant("acme"),
        subscription: SubscriptionId(n),
        event: event_ref(n),
        event_type: EventType::try_new("order.paid").unwrap(),
        generation: 4,
        reason: DeadLetterReason::Gone,
        at,
        attempts: 10,
        redriven: None,
    }
}

/// An endpoint with everything set.
pub fn endpoint(owner: &TenantId, id: u64) -> Endpoint {
    let secret = |byte: &str| Secret::parse(&format!("whsec_{}", byte.repeat(32))).unwrap();
    Endpoint {
        id: EndpointId(id),
        tenant: owner.clone(),
        name: "shop".into(),
        url: format!("https://example.com/hook/{id}"),
        state: EndpointState::Paused,
        state_reason: "because".into(),
        secret: secret("A"),
        old_secrets: vec![(secret("B"), second(7)), (secret("C"), second(6))],
        headers: BTreeMap::from([("x-team".into(), "billing".into())]),
        labels: BTreeMap::from([("env".into(), "prod".into())]),
        retry_schedule: Some(
            RetrySchedule::try_new(vec![Duration::from_millis(500), Duration::from_secs(5)])
                .unwrap(),
        ),
        timeout: Duration::from_millis(2500),
        envelope: Envelope::Structured,
        create_time: second(3),
        update_time: second(4),
        version: 9,
    }
}

/// A subscription of `endpoint`.
pub fn subscription(owner: &TenantId, id: u64, endpoint: u64) -> Subscription {
    Subscription {
        id: SubscriptionId(id),
        tenant: owner.clone(),
        endpoint: EndpointId(endpoint),
        event_types: ["order.*", "all"]
            .map(|p| TypePattern::try_new(p).unwrap())
            .into(),
        create_time: second(3),
        update_time: second(4),
        version: 8,
    }
}

/// A request that made `made`.
pub fn request(owner: &TenantId, request_id: &str, made: u64) -> Entry {
    Entry::Request {
        tenant: owner.clone(),
        request_id: request_id.into(),
        hash: [3; 16],
        made,
        at_micros: 1_790_000_000_000_001,
    }
}
