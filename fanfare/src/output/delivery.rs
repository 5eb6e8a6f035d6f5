//! How deliveries, attempts and outcomes are printed.

use fanfare_proto::v1;
use serde::Serialize;

use super::value::{for_person, millis, name, short_time, time};
use super::{Row, Sheet};

/// A delivery; its attempts only where they were asked for.
#[derive(Clone, Serialize)]
pub struct DeliveryRow {
    /// `dlv_…`.
    pub id: String,
    event_id: String,
    event_source: String,
    event_type: String,
    /// `ep_…`.
    pub endpoint_id: String,
    subscription_id: String,
    generation: u32,
    /// Lower-case name of the state.
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked_reason: Option<String>,
    attempt_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settle_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_outcome: Option<OutcomeRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptRow>,
    #[serde(skip)]
    created: String,
}

/// One try.
#[derive(Clone, Serialize)]
pub struct AttemptRow {
    number: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
    latency_ms: f64,
    outcome: OutcomeRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_body_base64: Option<String>,
    response_truncated: bool,
    #[serde(skip)]
    answer: String,
}

/// What a try came to.
#[derive(Clone, Serialize)]
pub struct OutcomeRow {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    blame: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    will_retry: bool,
}

/// What became of a request to redrive.
#[derive(Serialize)]
pub struct RedriveRow {
    id: String,
    redriven: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl DeliveryRow {
    /// As answered.
    pub fn new(delivery: v1::Delivery) -> Self {
        let state = name(delivery.state().as_str_name(), "DELIVERY_STATE_");
        let dead = name(
            delivery.dead_letter_reason().as_str_name(),
            "DEAD_LETTER_REASON_",
        );
        let parked = name(delivery.parked_reason().as_str_name(), "PARKED_REASON_");
        Self {
            state: state.unwrap_or_default(),
            dead_letter_reason: dead,
            parked_reason: parked,
            next_attempt_time: time(delivery.next_attempt_time.as_ref()),
            create_time: time(delivery.create_time.as_ref()),
            created: short_time(delivery.create_time.as_ref()),
            settle_time: time(delivery.settle_time.as_ref()),
            last_outcome: delivery.last_outcome.map(OutcomeRow::new),
            attempts: delivery.attempts.into_iter().map(AttemptRow::new).collect(),
            id: delivery.id,
            event_id: delivery.event_id,
            event_source: delivery.event_source,
            event_type: delivery.event_type,
            endpoint_id: delivery.endpoint_id,
            subscription_id: delivery.subscription_id,
            generation: delivery.generation,
            attempt_count: delivery.attempt_count,
        }
    }

    /// Whether nothing more will happen to it by itself.
    pub fn is_final(&self) -> bool {
        matches!(self.state.as_str(), "delivered" | "dead_letter")
    }

    /// The tries that were asked for.
    pub fn attempts(&self) -> &[AttemptRow] {
        &self.attempts
    }

    /// What changed if it differs: for a list that is watched.
    pub fn mark(&self) -> (String, u32) {
        (self.state.clone(), self.attempt_count)
    }

    /// The state with its reason.
    fn standing(&self) -> String {
        let reason = self
            .dead_letter_reason
            .as_ref()
            .or(self.parked_reason.as_ref());
        match reason {
            Some(reason) => format!("{} ({reason})", self.state),
            None => self.state.clone(),
        }
    }

    fn last(&self) -> String {
        self.last_outcome
            .as_ref()
            .map(OutcomeRow::text)
            .unwrap_or_default()
    }
}

impl Row for DeliveryRow {
    const COLUMNS: &'static [&'static str] = &[
        "CREATED", "STATE", "TRIES", "LAST", "TYPE", "ENDPOINT", "ID",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.created.clone(),
            self.standing(),
            self.attempt_count.to_string(),
            self.last(),
            self.event_type.clone(),
            self.endpoint_id.clone(),
            self.id.clone(),
        ]
    }
}

impl Sheet for DeliveryRow {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let generation = match self.generation {
            0 => String::new(),
            n => n.to_string(),
        };
        vec![
            ("id", self.id.clone()),
            ("event", self.event_id.clone()),
            ("source", self.event_source.clone()),
            ("type", self.event_type.clone()),
            ("endpoint", self.endpoint_id.clone()),
            ("subscription", self.subscription_id.clone()),
            ("generation", generation),
            ("state", self.standing()),
            ("tries", self.attempt_count.to_string()),
            ("next try", text(&self.next_attempt_time)),
            ("created", text(&self.create_time)),
            ("settled", text(&self.settle_time)),
            ("last outcome", self.last()),
        ]
    }
}

impl AttemptRow {
    /// As answered.
    pub fn new(attempt: v1::Attempt) -> Self {
        let body = attempt.response_body;
        let text = std::str::from_utf8(&body).ok().map(str::to_owned);
        let (_, base64) = match &text {
            Some(_) => (None, None),
            None => super::value::data(&body),
        };
        Self {
            number: attempt.number,
            start_time: time(attempt.start_time.as_ref()),
            latency_ms: attempt.latency.as_ref().map_or(0.0, millis),
            outcome: OutcomeRow::new(attempt.outcome.unwrap_or_default()),
            answer: for_person(&body),
            response_body: text.filter(|text| !text.is_empty()),
            response_body_base64: base64,
            response_truncated: attempt.response_truncated,
        }
    }

    /// Whether the endpoint took it.
    pub fn is_delivered(&self) -> bool {
        self.outcome.kind == "delivered"
    }

    /// The outcome in words.
    pub fn outcome(&self) -> String {
        self.outcome.text()
    }
}

impl Row for AttemptRow {
    const COLUMNS: &'static [&'static str] = &["TRY", "STARTED", "TOOK", "OUTCOME", "ANSWER"];

    fn cells(&self) -> Vec<String> {
        let answer: String = self.answer.chars().take(60).collect();
        vec![
            self.number.to_string(),
            self.start_time.clone().unwrap_or_default(),
            format!("{:.1} ms", self.latency_ms),
            self.outcome.text(),
            answer,
        ]
    }
}

impl OutcomeRow {
    /// As answered.
    pub fn new(outcome: v1::Outcome) -> Self {
        Self {
            kind: name(outcome.kind().as_str_name(), "OUTCOME_KIND_").unwrap_or_default(),
            blame: name(outcome.blame().as_str_name(), "BLAME_"),
            http_status: outcome.http_status,
            message: outcome.message,
            will_retry: outcome.will_retry,
        }
    }

    /// In a few words.
    fn text(&self) -> String {
        match (self.http_status, self.message.as_str()) {
            (Some(status), _) => status.to_string(),
            (None, "") => self.kind.clone(),
            (None, message) => format!("{}: {message}", self.kind),
        }
    }
}

impl RedriveRow {
    /// As answered.
    pub fn new(result: v1::RedriveResult) -> Self {
        Self {
            id: result.id,
            redriven: result.error.is_none(),
            message: result.error.map(|error| error.message),
        }
    }

    /// Whether it will be delivered again.
    pub fn is_redriven(&self) -> bool {
        self.redriven
    }
}

impl Row for RedriveRow {
    const COLUMNS: &'static [&'static str] = &["ID", "RESULT"];

    fn cells(&self) -> Vec<String> {
        let result = self
            .message
            .clone()
            .unwrap_or_else(|| "redriven".to_owned());
        vec![self.id.clone(), result]
    }
}
