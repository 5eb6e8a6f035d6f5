//! What an attempt came to. A failed webhook is data, not an error: `Err` is reserved for our own
//! faults, which never count against an endpoint.

use std::fmt;
use std::time::Duration;

/// The result of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What happened.
    pub kind: OutcomeKind,
    /// The HTTP status, when there was an answer.
    pub http_status: Option<u16>,
    /// `Retry-After` as the endpoint asked, unclamped.
    pub retry_after: Option<Duration>,
    /// One sentence for the support person; no secrets, no control characters.
    pub message: String,
}

/// What happened, by the place where it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutcomeKind {
    /// 2xx.
    Delivered,
    /// Another status.
    HttpStatus,
    /// The total deadline passed.
    Timeout,
    /// The name did not resolve.
    Dns,
    /// No connection, or it broke.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// Not HTTP, or over the caps.
    BadResponse,
    /// The egress guard refused the address.
    EgressDenied,
    /// Our own fault.
    Internal,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The subscriber's side.
    Endpoint,
    /// A rule of ours or of the tenant refused it.
    Policy,
    /// Fanfare or its machine.
    Us,
}

impl Outcome {
    /// A 2xx answer.
    pub fn delivered(status: u16) -> Self {
        Self {
            kind: OutcomeKind::Delivered,
            http_status: Some(status),
            retry_after: None,
            message: String::new(),
        }
    }

    /// Another status; `retry_after` as parsed from the answer.
    pub fn status(status: u16, retry_after: Option<Duration>) -> Self {
        let message = format!("the endpoint answered {status}");
        Self {
            kind: OutcomeKind::HttpStatus,
            http_status: Some(status),
            retry_after,
            message,
        }
    }

    /// A failure without an answer.
    pub fn failed(kind: OutcomeKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            http_status: None,
            retry_after: None,
            message: message.into(),
        }
    }

    /// Whether the delivery is done.
    pub fn is_delivered(&self) -> bool {
        self.kind == OutcomeKind::Delivered
    }

    /// Whose fault it is; `None` when it is nobody's.
    pub fn blame(&self) -> Option<Blame> {
        match self.kind {
            OutcomeKind::Delivered => None,
            OutcomeKind::EgressDenied => Some(Blame::Policy),
            OutcomeKind::Internal => Some(Blame::Us),
            _ => Some(Blame::Endpoint),
        }
    }
}

/// `(value, stored number, name)` of each kind; numbers are stored and never reused.
const KINDS: [(OutcomeKind, u8, &str); 9] = [
    (OutcomeKind::Delivered, 1, "delivered"),
    (OutcomeKind::HttpStatus, 2, "http_status"),
    (OutcomeKind::Timeout, 3, "timeout"),
    (OutcomeKind::Dns, 4, "dns"),
    (OutcomeKind::Connect, 5, "connect"),
    (OutcomeKind::Tls, 6, "tls"),
    (OutcomeKind::BadResponse, 7, "bad_response"),
    (OutcomeKind::EgressDenied, 8, "egress_denied"),
    (OutcomeKind::Internal, 9, "internal"),
];

impl OutcomeKind {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|(kind, ..)| *kind)
    }

    /// The number it is stored as.
    pub fn code(self) -> u8 {
        KINDS
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or(0, |(_, code, _)| *code)
    }

    /// From a stored number.
    pub fn from_code(code: u8) -> Option<Self> {
        KINDS
            .iter()
            .find(|(_, c, _)| *c == code)
            .map(|(kind, ..)| *kind)
    }

    /// Name as in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        KINDS
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or("", |(.., name)| *name)
    }
}

impl Blame {
    /// Name as in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Policy => "policy",
            Self::Us => "us",
        }
    }
}

impl fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
