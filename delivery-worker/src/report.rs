//! What is told of a delivery on its way: a span per attempt, and a line, with the ids that one
//! looks for, when something is not as it should be.
//!
//! Neither waits for anything, and lines are bounded per second: a dead endpoint is told of, not
//! recited. What is not told here is in the history and in the metrics all the same.

use fanfare_domain::trace::attempt_span;
use fanfare_domain::{Timestamp, Verdict};
use fanfare_service::LineLimit;
use fanfare_service::traces::{self, Kind, Span};
use opentelemetry::KeyValue;

use crate::attempt::Attempt;
use crate::callee::Callee;
use crate::letter::{Delivery, Origin};
use crate::plan::Plan;

/// Lines a second of each sort.
const LINES_MAX: u32 = 10;

/// An attempt has ended.
pub(crate) fn attempted(
    callee: &Callee,
    delivery: &Delivery,
    attempt: &Attempt,
    verdict: &Verdict,
) {
    let trace = delivery.letter.trace();
    traces::record(trace, || span(callee, delivery, attempt));
    if !attempt.outcome.is_delivered() {
        failed(delivery, attempt, verdict);
    }
}

/// What is parked and what was given up is durable.
pub(crate) fn wrote(plan: &Plan) {
    static PARKED: LineLimit = LineLimit::per_second(LINES_MAX);
    static DEAD: LineLimit = LineLimit::per_second(LINES_MAX);
    for parked in &plan.parked {
        let Some(held_back) = PARKED.admit() else {
            continue;
        };
        tracing::info!(
            event_id = %parked.event.key.id,
            delivery_id = %parked.delivery,
            endpoint_id = %parked.endpoint,
            tenant = %parked.tenant,
            reason = ?parked.reason,
            held_back,
            "a delivery is parked"
        );
    }
    for letter in &plan.dead_letters {
        let Some(held_back) = DEAD.admit() else {
            continue;
        };
        tracing::warn!(
            event_id = %letter.event.key.id,
            delivery_id = %letter.delivery,
            endpoint_id = %letter.delivery.endpoint(),
            tenant = %letter.tenant,
            reason = letter.reason.as_str(),
            attempts = letter.attempts,
            held_back,
            "a delivery is a dead letter"
        );
    }
}

fn failed(delivery: &Delivery, attempt: &Attempt, verdict: &Verdict) {
    static FAILED: LineLimit = LineLimit::per_second(LINES_MAX);
    let Some(held_back) = FAILED.admit() else {
        return;
    };
    let key = &delivery.letter.reference.key;
    tracing::info!(
        event_id = %key.id,
        delivery_id = %delivery.id,
        endpoint_id = %delivery.endpoint(),
        tenant = %key.tenant,
        attempt = attempt.number,
        outcome = attempt.outcome.kind.as_str(),
        http_status = attempt.outcome.http_status,
        // Not `message`: that is the line itself.
        detail = attempt.outcome.message,
        next = next(verdict),
        held_back,
        "an attempt failed"
    );
}

fn next(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Delivered => "nothing",
        Verdict::RetryAt(_) => "retry",
        Verdict::DeadLetter(_) => "dead_letter",
        Verdict::DisableEndpoint => "disable_endpoint",
    }
}

fn span(callee: &Callee, delivery: &Delivery, attempt: &Attempt) -> Span {
    let trace = delivery.letter.trace();
    // A test is published by nobody and routed by nothing.
    let is_test = matches!(delivery.origin, Origin::Test(_));
    let failed = !attempt.outcome.is_delivered();
    let latency = i64::try_from(attempt.latency.as_micros()).unwrap_or(i64::MAX);
    Span {
        name: "POST",
        kind: Kind::Client,
        id: attempt_span(&delivery.id, attempt.number),
        parent: (!is_test).then_some((trace.route, true)),
        start: attempt.start,
        end: Timestamp::from_micros(attempt.start.micros().saturating_add(latency)),
        attributes: attributes(callee, delivery, attempt),
        error: failed.then(|| attempt.outcome.message.clone()),
    }
}

fn attributes(callee: &Callee, delivery: &Delivery, attempt: &Attempt) -> Vec<KeyValue> {
    let key = &delivery.letter.reference.key;
    let mut attributes = Vec::with_capacity(12);
    attributes.extend([
        KeyValue::new("http.request.method", "POST"),
        KeyValue::new("messaging.message.id", key.id.as_str().to_owned()),
        KeyValue::new("fanfare.tenant", key.tenant.as_str().to_owned()),
        KeyValue::new("fanfare.delivery.id", delivery.id.to_string()),
        KeyValue::new("fanfare.endpoint.id", delivery.endpoint().to_string()),
        KeyValue::new("fanfare.attempt", i64::from(attempt.number)),
    ]);
    if let Some(address) = callee.address() {
        // Never the URL: its path and query may be a secret.
        attributes.push(KeyValue::new("server.address", address.host.to_string()));
        attributes.push(KeyValue::new("server.port", i64::from(address.port)));
    }
    if attempt.number > 1 {
        let resent = i64::from(attempt.number - 1);
        attributes.push(KeyValue::new("http.request.resend_count", resent));
    }
    if let Some(status) = attempt.outcome.http_status {
        let status = i64::from(status);
        attributes.push(KeyValue::new("http.response.status_code", status));
    }
    if !attempt.outcome.is_delivered() {
        attributes.push(KeyValue::new("error.type", attempt.outcome.kind.as_str()));
    }
    attributes
}
