//! Spans of an event's way through the router. Who they are is a pure function of the event: see
//! [`EventTrace`].

use fanfare_domain::{AcceptedEvent, EventTrace, Place, Timestamp};
use fanfare_service::traces::{self, Kind, Span};
use opentelemetry::KeyValue;

/// `event` was published: durable by `end`, or refused because of `error`.
pub(crate) fn published(event: &AcceptedEvent, end: Timestamp, error: Option<&str>) {
    if !traces::is_on() {
        return;
    }
    let trace = EventTrace::of(event);
    traces::record(&trace, || Span {
        name: "publish",
        kind: Kind::Server,
        id: trace.publish,
        parent: trace.parent.map(|parent| (parent.span, true)),
        start: event.accept_time,
        end,
        attributes: attributes(event, "publish", "send"),
        error: error.map(str::to_owned),
    });
}

/// `event`, read at `place`, was routed: what it owes to `deliveries` subscriptions is durable.
pub(crate) fn routed(
    event: &AcceptedEvent,
    place: Place,
    deliveries: usize,
    start: Timestamp,
    end: Timestamp,
) {
    if !traces::is_on() {
        return;
    }
    let trace = EventTrace::of(event);
    traces::record(&trace, || {
        let mut attributes = attributes(event, "route", "process");
        let span = i64::from(place.span);
        let position = i64::try_from(place.position.0).unwrap_or(i64::MAX);
        let owed = i64::try_from(deliveries).unwrap_or(i64::MAX);
        attributes.push(KeyValue::new("fanfare.span", span));
        attributes.push(KeyValue::new("fanfare.position", position));
        attributes.push(KeyValue::new("fanfare.deliveries", owed));
        Span {
            name: "route",
            kind: Kind::Consumer,
            id: trace.route,
            parent: Some((trace.publish, true)),
            start,
            end,
            attributes,
            error: None,
        }
    });
}

fn attributes(event: &AcceptedEvent, name: &'static str, sort: &'static str) -> Vec<KeyValue> {
    let (tenant, event) = (&event.tenant, &event.event);
    vec![
        KeyValue::new("messaging.system", "fanfare"),
        KeyValue::new("messaging.destination.name", "events"),
        KeyValue::new("messaging.operation.name", name),
        KeyValue::new("messaging.operation.type", sort),
        KeyValue::new("messaging.message.id", event.id.as_str().to_owned()),
        KeyValue::new("cloudevents.event_source", event.source.as_str().to_owned()),
        KeyValue::new(
            "cloudevents.event_type",
            event.event_type.as_str().to_owned(),
        ),
        KeyValue::new("fanfare.tenant", tenant.as_str().to_owned()),
    ]
}
