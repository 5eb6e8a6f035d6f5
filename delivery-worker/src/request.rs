//! One POST, exactly as a subscriber gets it.

use bytes::Bytes;
use fanfare_domain::trace::attempt_span;
use fanfare_domain::{DeliveryId, Envelope, Timestamp};
use fanfare_service::traces;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;

use crate::callee::{Callee, Prepared};
use crate::envelope;
use crate::letter::{Delivery, Letter};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A request as hyper sends it.
pub(crate) type Post = Request<Full<Bytes>>;

/// Builds and signs attempt number `attempt` of `delivery` as of `now`.
pub(crate) fn post(
    callee: &Callee,
    prepared: &Prepared,
    delivery: &Delivery,
    attempt: u32,
    now: Timestamp,
) -> Post {
    let letter = &*delivery.letter;
    let id = delivery.id.to_string();
    let event = &letter.event.event;
    let envelope = envelope::of(event, callee.endpoint.envelope);
    let body = body(letter, envelope);
    let signature = prepared.signer.sign(&id, now, &body);
    let id = text(&id);

    let attributes = letter.attributes();
    let mut headers = HeaderMap::with_capacity(8 + prepared.headers.len() + attributes.len());
    let shared = prepared.headers.iter();
    headers.extend(shared.map(|(name, value)| (name.clone(), value.clone())));
    if let Some(content_type) = envelope::content_type(event, envelope) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers.insert(WEBHOOK_ID, id.clone());
    headers.insert(WEBHOOK_TIMESTAMP, now.seconds().into());
    headers.insert(WEBHOOK_SIGNATURE, text(&signature));
    headers.insert(IDEMPOTENCY_KEY, id);
    trace(&mut headers, letter, delivery.id, attempt);
    if envelope == Envelope::Binary {
        headers.extend(
            attributes
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }

    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = prepared.uri.clone();
    *request.headers_mut() = headers;
    request
}

fn body(letter: &Letter, envelope: Envelope) -> Bytes {
    match envelope {
        Envelope::Binary => letter.event.event.data.bytes().clone(),
        Envelope::Structured => letter.structured().clone(),
    }
}

/// A text of our own making: always visible ASCII.
fn text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// Goes on with the producer's trace, or the event's own, from the span of this attempt.
fn trace(headers: &mut HeaderMap, letter: &Letter, id: DeliveryId, attempt: u32) {
    let trace = letter.trace();
    // Nobody has decided while nothing is recorded here: the subscriber may record its part.
    let sampled = !traces::is_on() || traces::is_sampled(trace);
    let value = trace.traceparent(attempt_span(&id, attempt), sampled);
    headers.insert(TRACEPARENT, text(&value));
    let state = letter.event.event.extensions.get("tracestate");
    let state = state.filter(|_| trace.parent.is_some());
    if let Some(state) = state.and_then(|s| HeaderValue::from_str(s).ok()) {
        headers.insert(TRACESTATE, state);
    }
}
