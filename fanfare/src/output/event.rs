//! How events are printed.

use std::collections::BTreeMap;

use fanfare_proto::v1;
use fanfare_proto::v1::event::Payload;
use serde::Serialize;
use serde_json::value::RawValue;

use super::delivery::DeliveryRow;
use super::value::{data, for_person, pairs, short_time, time};
use super::{Row, Sheet};

/// That an event was accepted.
#[derive(Serialize)]
pub struct PublishedRow {
    id: String,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    accept_time: Option<String>,
    duplicate: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// An event with its data.
#[derive(Serialize)]
pub struct EventRow {
    id: String,
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accept_time: Option<String>,
    data_content_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering_key: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extensions: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    #[serde(skip)]
    raw: Vec<u8>,
}

/// An event and what became of it.
#[derive(Serialize)]
pub struct EventSheet {
    #[serde(flatten)]
    event: EventRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    route_time: Option<String>,
    delivery_count: u32,
    deliveries: Vec<DeliveryRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conflicts: Vec<ConflictRow>,
}

/// A later publish under the same identity with another body.
#[derive(Serialize)]
struct ConflictRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    accept_time: Option<String>,
}

/// A line of a list of events.
#[derive(Serialize)]
pub struct EventSummaryRow {
    id: String,
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    accept_time: Option<String>,
    data_size: u64,
    delivery_count: u32,
    #[serde(skip)]
    accepted: String,
}

impl PublishedRow {
    /// As answered.
    pub fn new(response: v1::PublishResponse) -> Self {
        Self {
            accept_time: time(response.accept_time.as_ref()),
            id: response.id,
            source: response.source,
            duplicate: response.duplicate,
            notes: response.notes,
        }
    }
}

impl Sheet for PublishedRow {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let how = if self.duplicate {
            "accepted before; nothing is delivered twice"
        } else {
            "durable"
        };
        vec![
            ("published", self.id.clone()),
            ("source", self.source.clone()),
            ("accepted", self.accept_time.clone().unwrap_or_default()),
            ("state", how.to_owned()),
        ]
    }
}

impl EventRow {
    /// An event that was accepted at `accept_time`.
    pub fn new(event: v1::Event, accept_time: Option<&prost_types::Timestamp>) -> Self {
        let (data, data_base64, raw) = match event.payload {
            Some(Payload::Data(bytes)) => {
                let (data, base64) = data(&bytes);
                (data, base64, bytes.to_vec())
            }
            Some(Payload::Text(text)) => {
                let quoted = serde_json::value::to_raw_value(&text).ok();
                (quoted, None, text.into_bytes())
            }
            None => (None, None, Vec::new()),
        };
        Self {
            id: event.id,
            source: event.source,
            event_type: event.r#type,
            subject: event.subject,
            time: time(event.time.as_ref()),
            accept_time: time(accept_time),
            data_content_type: event.data_content_type,
            data_schema: event.data_schema,
            ordering_key: event.ordering_key,
            extensions: event.extensions,
            data,
            data_base64,
            raw,
        }
    }
}

impl Row for EventRow {
    const COLUMNS: &'static [&'static str] = &["ACCEPTED", "TYPE", "ID", "DATA"];

    fn cells(&self) -> Vec<String> {
        let data = for_person(&self.raw);
        let shown: String = data.chars().take(120).collect();
        let more = if shown.len() < data.len() { "…" } else { "" };
        vec![
            self.accept_time.clone().unwrap_or_default(),
            self.event_type.clone(),
            self.id.clone(),
            format!("{shown}{more}"),
        ]
    }
}

impl EventSheet {
    /// As answered; an answer always has its event.
    pub fn new(response: v1::GetEventResponse) -> Self {
        let accept_time = response.accept_time.as_ref();
        let conflict = |c: &v1::EventConflict| ConflictRow {
            accept_time: time(c.accept_time.as_ref()),
        };
        Self {
            event: EventRow::new(response.event.unwrap_or_default(), accept_time),
            route_time: time(response.route_time.as_ref()),
            delivery_count: response.delivery_count,
            conflicts: response.conflicts.iter().map(conflict).collect(),
            deliveries: response
                .deliveries
                .into_iter()
                .map(DeliveryRow::new)
                .collect(),
        }
    }

    /// The deliveries, for a table of their own.
    pub fn deliveries(&self) -> &[DeliveryRow] {
        &self.deliveries
    }

    /// What became of it, in words.
    fn fate(&self) -> String {
        match (&self.route_time, self.delivery_count) {
            (None, _) => "accepted, not routed yet".to_owned(),
            (Some(_), 0) => "routed; no subscription wanted it".to_owned(),
            (Some(_), 1) => "routed; 1 delivery".to_owned(),
            (Some(_), n) => format!("routed; {n} deliveries"),
        }
    }
}

impl Sheet for EventSheet {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let event = &self.event;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let conflicts = match self.conflicts.len() {
            0 => String::new(),
            n => format!("{n} later, under the same id with another body; not delivered"),
        };
        vec![
            ("id", event.id.clone()),
            ("source", event.source.clone()),
            ("type", event.event_type.clone()),
            ("subject", text(&event.subject)),
            ("time", text(&event.time)),
            ("accepted", text(&event.accept_time)),
            ("routed", text(&self.route_time)),
            ("content type", event.data_content_type.clone()),
            ("schema", text(&event.data_schema)),
            ("ordering key", text(&event.ordering_key)),
            ("extensions", pairs(&event.extensions)),
            ("data", for_person(&event.raw)),
            ("conflicts", conflicts),
            ("fate", self.fate()),
        ]
    }
}

impl EventSummaryRow {
    /// As listed.
    pub fn new(event: v1::EventSummary) -> Self {
        Self {
            accepted: short_time(event.accept_time.as_ref()),
            accept_time: time(event.accept_time.as_ref()),
            id: event.id,
            source: event.source,
            event_type: event.r#type,
            data_size: event.data_size,
            delivery_count: event.delivery_count,
        }
    }
}

impl Row for EventSummaryRow {
    const COLUMNS: &'static [&'static str] =
        &["ACCEPTED", "TYPE", "SOURCE", "BYTES", "DELIVERIES", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.accepted.clone(),
            self.event_type.clone(),
            self.source.clone(),
            self.data_size.to_string(),
            self.delivery_count.to_string(),
            self.id.clone(),
        ]
    }
}
