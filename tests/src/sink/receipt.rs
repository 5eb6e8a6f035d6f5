//! One POST as a sink saw it.

use std::time::SystemTime;

use bytes::Bytes;
use hyper::HeaderMap;
use standardwebhooks::Webhook;

use super::{Answer, Arrival};

/// One POST that came, and what it was answered.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Path and query.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
    /// When it was read to its end.
    pub arrived: SystemTime,
    /// How often this sink has now seen its `webhook-id`: 1 for the first.
    pub attempt: u32,
    /// The status it was answered.
    pub answered: u16,
}

impl Receipt {
    pub(super) fn new(arrival: Arrival, attempt: u32, answer: &Answer) -> Self {
        Self {
            path: arrival.path,
            headers: arrival.headers,
            body: arrival.body,
            arrived: arrival.arrived,
            attempt,
            answered: answer.status,
        }
    }

    /// The delivery's id.
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// A header as text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        text(&self.headers, name)
    }

    /// Whether it was answered 2xx.
    pub fn accepted(&self) -> bool {
        (200..300).contains(&self.answered)
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// Whether the official library accepts its signature under `secret` now.
    pub fn verify(&self, secret: &str) -> Result<(), standardwebhooks::WebhookError> {
        // Theirs speaks http 1's HeaderMap, which is hyper's.
        Webhook::new(secret)?.verify(&self.body, &self.headers)
    }
}

/// A header as text; empty when it is missing or not text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
