//! How endpoints and subscriptions are printed.

use std::collections::BTreeMap;

use fanfare_proto::v1;
use serde::Serialize;

use super::value::{human, name, pairs, short_time, time};
use super::{Row, Sheet};

/// An endpoint; with its secret only in the answer to create and rotate-secret.
#[derive(Serialize)]
pub struct EndpointRow {
    id: String,
    name: String,
    url: String,
    state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    state_reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    secret: String,
    /// Names only mean something: values are never read back.
    headers: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    /// Absent: the server's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_schedule: Option<Vec<String>>,
    timeout: String,
    envelope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_time: Option<String>,
    etag: String,
    /// The subscription made with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription: Option<SubscriptionRow>,
    #[serde(skip)]
    created: String,
}

/// A subscription.
#[derive(Serialize)]
pub struct SubscriptionRow {
    id: String,
    endpoint_id: String,
    event_types: Vec<String>,
    live: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_time: Option<String>,
    etag: String,
    #[serde(skip)]
    created: String,
}

impl EndpointRow {
    /// As answered.
    pub fn new(endpoint: v1::Endpoint) -> Self {
        let state = name(endpoint.state().as_str_name(), "ENDPOINT_STATE_");
        let envelope = name(endpoint.envelope().as_str_name(), "ENVELOPE_");
        let schedule = endpoint.retry_schedule.as_ref();
        Self {
            state: state.unwrap_or_default(),
            envelope: envelope.unwrap_or_else(|| "binary".to_owned()),
            retry_schedule: schedule.map(|s| s.delays.iter().map(human).collect()),
            timeout: endpoint.timeout.as_ref().map(human).unwrap_or_default(),
            create_time: time(endpoint.create_time.as_ref()),
            created: short_time(endpoint.create_time.as_ref()),
            update_time: time(endpoint.update_time.as_ref()),
            headers: endpoint.headers,
            labels: endpoint.labels,
            id: endpoint.id,
            name: endpoint.name,
            url: endpoint.url,
            state_reason: endpoint.state_reason,
            secret: endpoint.secret,
            etag: endpoint.etag,
            subscription: None,
        }
    }

    /// With the subscription made in the same write.
    #[must_use]
    pub fn with(mut self, subscription: Option<v1::Subscription>) -> Self {
        self.subscription = subscription.map(SubscriptionRow::new);
        self
    }

    /// Lower-case name of the state.
    pub fn state(&self) -> &str {
        &self.state
    }

    fn standing(&self) -> String {
        match self.state_reason.as_str() {
            "" => self.state.clone(),
            reason => format!("{} ({reason})", self.state),
        }
    }
}

impl Row for EndpointRow {
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "STATE", "CREATED", "URL"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.name.clone(),
            self.standing(),
            self.created.clone(),
            self.url.clone(),
        ]
    }
}

impl Sheet for EndpointRow {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let subscription = self.subscription.as_ref();
        let wants = subscription.map(|s| format!("{} ({})", s.event_types.join(", "), s.id));
        let headers: Vec<_> = self.headers.keys().cloned().collect();
        let schedule = match &self.retry_schedule {
            None => "the server's default".to_owned(),
            Some(steps) if steps.is_empty() => "never".to_owned(),
            Some(steps) => steps.join(","),
        };
        vec![
            ("id", self.id.clone()),
            ("name", self.name.clone()),
            ("url", self.url.clone()),
            ("state", self.standing()),
            ("secret", self.secret.clone()),
            ("wants", wants.unwrap_or_default()),
            ("headers", headers.join(", ")),
            ("labels", pairs(&self.labels)),
            ("retried after", schedule),
            ("timeout", self.timeout.clone()),
            ("envelope", self.envelope.clone()),
            ("created", self.create_time.clone().unwrap_or_default()),
            ("updated", self.update_time.clone().unwrap_or_default()),
            ("etag", self.etag.clone()),
        ]
    }
}

impl SubscriptionRow {
    /// As answered.
    pub fn new(subscription: v1::Subscription) -> Self {
        Self {
            create_time: time(subscription.create_time.as_ref()),
            created: short_time(subscription.create_time.as_ref()),
            update_time: time(subscription.update_time.as_ref()),
            id: subscription.id,
            endpoint_id: subscription.endpoint_id,
            event_types: subscription.event_types,
            live: subscription.live,
            etag: subscription.etag,
        }
    }
}

impl Row for SubscriptionRow {
    const COLUMNS: &'static [&'static str] = &["ID", "ENDPOINT", "CREATED", "EVENT TYPES"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.endpoint_id.clone(),
            self.created.clone(),
            self.event_types.join(", "),
        ]
    }
}

impl Sheet for SubscriptionRow {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let live = if self.live { "yes" } else { "not yet" };
        vec![
            ("id", self.id.clone()),
            ("endpoint", self.endpoint_id.clone()),
            ("event types", self.event_types.join(", ")),
            ("live", live.to_owned()),
            ("created", self.create_time.clone().unwrap_or_default()),
            ("updated", self.update_time.clone().unwrap_or_default()),
            ("etag", self.etag.clone()),
        ]
    }
}
