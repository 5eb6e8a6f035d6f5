//! One POST, exactly as a subscriber gets it.

use bytes::Bytes;
use fanfare_domain::{Data, DeliveryId, Envelope, Timestamp};
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
    let body = body(letter, callee.endpoint.envelope);
    let signature = prepared.signer.sign(&id, now, &body);
    let id = text(&id);

    let attributes = letter.attributes();
    let mut headers = HeaderMap::with_capacity(8 + prepared.headers.len() + attributes.len());
    let shared = prepared.headers.iter();
    headers.extend(shared.map(|(name, value)| (name.clone(), value.clone())));
    if let Some(content_type) = content_type(letter, callee.endpoint.envelope) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers.insert(WEBHOOK_ID, id.clone());
    headers.insert(WEBHOOK_TIMESTAMP, now.seconds().into());
    headers.insert(WEBHOOK_SIGNATURE, text(&signature));
    headers.insert(IDEMPOTENCY_KEY, id);
    trace(&mut headers, letter, delivery.id, attempt);
    if callee.endpoint.envelope == Envelope::Binary {
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

fn content_type(letter: &Letter, envelope: Envelope) -> Option<HeaderValue> {
    match (envelope, &letter.event.event.data) {
        (Envelope::Structured, _) => Some(envelope::STRUCTURED),
        (Envelope::Binary, Data::None) => None,
        (Envelope::Binary, _) => HeaderValue::from_str(&letter.event.event.data_content_type).ok(),
    }
}

/// A text of our own making: always visible ASCII.
fn text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// Goes on with the producer's trace, or starts one that every attempt of the delivery shares.
fn trace(headers: &mut HeaderMap, letter: &Letter, id: DeliveryId, attempt: u32) {
    let extensions = &letter.event.event.extensions;
    let given = extensions.get("traceparent").and_then(|t| trace_id(t));
    let bytes = id.as_bytes();
    let (own, mut span) = ([0; 16], [0; 8]);
    let mut own: [u8; 16] = own;
    own.copy_from_slice(&bytes[8..24]);
    span.copy_from_slice(&bytes[16..24]);
    let span = u64::from_be_bytes(span).wrapping_add(attempt.into()).max(1);
    let value = match given {
        Some((trace, flags)) => format!("00-{trace}-{span:016x}-{flags}"),
        None => format!("00-{:032x}-{span:016x}-01", u128::from_be_bytes(own)),
    };
    headers.insert(TRACEPARENT, text(&value));
    let state = extensions.get("tracestate").filter(|_| given.is_some());
    if let Some(state) = state.and_then(|s| HeaderValue::from_str(s).ok()) {
        headers.insert(TRACESTATE, state);
    }
}

/// Trace id and flags of a valid `traceparent` of version 00.
fn trace_id(traceparent: &str) -> Option<(&str, &str)> {
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut parts = traceparent.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let (parent, flags) = (parts.next()?, parts.next()?);
    let valid = version == "00" && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
    let zero = trace.bytes().all(|b| b == b'0');
    (valid && !zero && parts.next().is_none()).then_some((trace, flags))
}
