//! An event: one fact a producer published (CloudEvents 1.0 attributes and its data), its
//! identity, its body hash, and where the log put it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use crate::event_type::EventType;
use crate::id::{DeliverySeed, EventId, Source, TenantId};
use crate::invalid::{Invalid, Reason};
use crate::time::Timestamp;

/// Extension attributes that carry trace context; they do not belong to an event's body, so a
/// repeat under another trace is still the same event.
pub const TRACE_EXTENSIONS: [&str; 2] = ["traceparent", "tracestate"];

/// One fact a producer published. Field names are those of CloudEvents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Unique within the source.
    pub id: EventId,
    /// Where it comes from.
    pub source: Source,
    /// What happened.
    pub event_type: EventType,
    /// What it happened to, within the source.
    pub subject: Option<String>,
    /// When it happened, by the producer's word; absent means: when it was accepted.
    pub time: Option<Timestamp>,
    /// Media type of `data`; JSON when absent at the door.
    pub data_content_type: String,
    /// URI of a schema for `data`.
    pub data_schema: Option<String>,
    /// The payload, byte for byte.
    pub data: Data,
    /// CloudEvents `partitionkey`: events with the same key share a shard and an order.
    pub ordering_key: Option<String>,
    /// Further attributes, `[a-z0-9]{1,20}` each.
    pub extensions: BTreeMap<String, String>,
}

/// The payload of an event as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// No data attribute at all.
    None,
    /// Bytes; JSON when the content type says so.
    Bytes(Bytes),
    /// Text (UTF-8) that a structured envelope carries as a JSON string.
    Text(Bytes),
}

/// An event as accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedEvent {
    /// Owner.
    pub tenant: TenantId,
    /// The event, its `time` filled in.
    pub event: Event,
    /// When it was accepted; the second in its deliveries' ids.
    pub accept_time: Timestamp,
    /// See [`Event::body_hash`].
    pub body_hash: BodyHash,
}

/// Who an event is: CloudEvents' identity within a tenant. There is no second idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    /// Owner.
    pub tenant: TenantId,
    /// CloudEvents id.
    pub id: EventId,
    /// CloudEvents source.
    pub source: Source,
}

/// First 16 bytes of a SHA-256 over everything but `time` and trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BodyHash(pub [u8; 16]);

/// A place within one sequence of a log stream. Rises with every record; gaps are normal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Where the log put a record: which sequence of the stream, and where in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Index of the sequence (span) within its stream.
    pub span: u16,
    /// Position in that sequence.
    pub position: Position,
}

/// How a retry, a parked delivery or a dead letter finds the body, which is stored once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRef {
    /// Identity.
    pub key: EventKey,
    /// Where the accepted record lies in the events stream.
    pub place: Place,
}

/// Limits checked at the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLimits {
    /// Most bytes of data plus attributes. Default 256 KiB, hard cap 1 MiB.
    pub event_max_bytes: usize,
    /// Most extension attributes.
    pub extensions_max: usize,
    /// Most bytes of one attribute value (subject, schema, extension).
    pub attribute_max_bytes: usize,
}

impl Default for EventLimits {
    fn default() -> Self {
        Self {
            event_max_bytes: 256 * 1024,
            extensions_max: 20,
            attribute_max_bytes: 1024,
        }
    }
}

impl Data {
    /// The bytes that a binary-mode POST carries; empty when there is no data.
    pub fn bytes(&self) -> &Bytes {
        static EMPTY: Bytes = Bytes::new();
        match self {
            Self::None => &EMPTY,
            Self::Bytes(bytes) | Self::Text(bytes) => bytes,
        }
    }
}

impl AcceptedEvent {
    /// Its identity.
    pub fn key(&self) -> EventKey {
        self.event.key(&self.tenant)
    }

    /// Names its deliveries.
    pub fn delivery_seed(&self) -> DeliverySeed {
        let event = &self.event;
        DeliverySeed::new(&self.tenant, &event.source, &event.id, &self.body_hash)
    }
}

impl EventRef {
    /// Refers to the event accepted as `key` at `place`.
    pub fn new(key: EventKey, place: Place) -> Self {
        Self { key, place }
    }
}

impl Event {
    /// This event's identity under `tenant`.
    pub fn key(&self, tenant: &TenantId) -> EventKey {
        EventKey {
            tenant: tenant.clone(),
            id: self.id.clone(),
            source: self.source.clone(),
        }
    }

    /// Whether the content type declares JSON (`application/json`, `text/json` or `+json`).
    pub fn is_json(&self) -> bool {
        is_json(&self.data_content_type)
    }

    /// Whether the data is bytes that are no text. What declares JSON was checked to be some.
    pub fn is_binary(&self) -> bool {
        match &self.data {
            Data::Bytes(bytes) => !self.is_json() && std::str::from_utf8(bytes).is_err(),
            Data::None | Data::Text(_) => false,
        }
    }

    /// Hash of everything but `time` and trace context: two publishes with the same identity are
    /// a repeat when their hashes agree and a conflict when they do not.
    pub fn body_hash(&self) -> BodyHash {
        let mut hash = Sha256::new();
        let mut add = |tag: u8, part: &[u8]| {
            // Tag and length first: no two different events hash the same bytes.
            hash.update([tag]);
            hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(part);
        };
        add(1, self.event_type.as_str().as_bytes());
        add(2, self.data_content_type.as_bytes());
        for (tag, part) in [
            (3, &self.subject),
            (4, &self.data_schema),
            (5, &self.ordering_key),
        ] {
            if let Some(text) = part {
                add(tag, text.as_bytes());
            }
        }
        let own = |name: &&String| !TRACE_EXTENSIONS.contains(&name.as_str());
        for name in self.extensions.keys().filter(own) {
            add(6, name.as_bytes());
            add(7, self.extensions[name].as_bytes());
        }
        match &self.data {
            Data::None => add(8, &[]),
            Data::Bytes(bytes) => add(9, bytes),
            Data::Text(bytes) => add(10, bytes),
        }
        let digest = hash.finalize();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        BodyHash(first)
    }

    /// Checks what its typed fields do not check already: sizes, names, and that declared JSON is
    /// JSON of bounded depth. Returns the first violation.
    pub fn check(&self, limits: &EventLimits) -> Result<(), Invalid> {
        self.check_size(limits)?;
        self.check_attributes(limits)?;
        if self.is_json() && !matches!(self.data, Data::None) {
            check_json(self.data.bytes())?;
        }
        Ok(())
    }

    fn check_size(&self, limits: &EventLimits) -> Result<(), Invalid> {
        let attributes: usize = self.extensions.iter().map(|(k, v)| k.len() + v.len()).sum();
        let size = self.data.bytes().len() + attributes;
        if size > limits.event_max_bytes {
            return Err(Invalid::new(
                Reason::EventTooLarge,
                "event.data",
                format!(
                    "is {size} bytes, more than the limit of {}; send a reference to the data instead",
                    limits.event_max_bytes
                ),
            ));
        }
        Ok(())
    }

    fn check_attributes(&self, limits: &EventLimits) -> Result<(), Invalid> {
        let max = limits.attribute_max_bytes;
        let texts = [
            ("event.subject", self.subject.as_deref()),
            ("event.data_schema", self.data_schema.as_deref()),
            (
                "event.data_content_type",
                Some(self.data_content_type.as_str()),
            ),
            ("event.ordering_key", self.ordering_key.as_deref()),
        ];
        for (field, text) in texts {
            let max = if field == "event.ordering_key" {
                255
            } else {
                max
            };
            if text.is_some_and(|t| t.len() > max || t.chars().any(char::is_control)) {
                let rule = format!("must be at most {max} bytes without control characters");
                return Err(Invalid::new(Reason::EventFieldInvalid, field, rule));
            }
        }
        if self.extensions.len() > limits.extensions_max {
            let rule = format!("at most {} extensions are allowed", limits.extensions_max);
            return Err(Invalid::new(
                Reason::ExtensionInvalid,
                "event.extensions",
                rule,
            ));
        }
        self.extensions
            .iter()
            .try_for_each(|(name, value)| check_extension(name, value, max))
    }
}

/// Attribute names that are the event's own and so cannot be extensions.
const RESERVED: [&str; 11] = [
    "id",
    "source",
    "specversion",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "database64",
    "partitionkey",
];

fn check_extension(name: &str, value: &str, max: usize) -> Result<(), Invalid> {
    let field = || {
        format!(
            "event.extensions[{}]",
            name.chars().take(40).collect::<String>()
        )
    };
    let named = (1..=20).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !named || RESERVED.contains(&name) {
        let rule = "must be named by 1 to 20 of [a-z0-9] and not like an attribute of the event";
        return Err(Invalid::new(Reason::ExtensionInvalid, field(), rule));
    }
    if value.len() > max || value.chars().any(char::is_control) {
        let rule = format!("must be at most {max} bytes without control characters");
        return Err(Invalid::new(Reason::ExtensionInvalid, field(), rule));
    }
    Ok(())
}

/// Whether a media type declares JSON.
pub fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let Some((_, subtype)) = media.split_once('/') else {
        return false;
    };
    let subtype = subtype.to_ascii_lowercase();
    subtype == "json" || subtype.ends_with("+json")
}

/// Deepest nesting of declared JSON: what common parsers accept by default.
const JSON_DEPTH_MAX: usize = 128;

fn check_json(data: &[u8]) -> Result<(), Invalid> {
    let refused = |error: &dyn std::fmt::Display| {
        let rule =
            format!("is not valid JSON ({error}); fix it or set data_content_type to what it is");
        Invalid::new(Reason::DataNotJson, "event.data", rule)
    };
    // The parser does not look into the strings that it skips.
    let text = std::str::from_utf8(data).map_err(|error| refused(&error))?;
    // Skipping a value does not recurse, so hostile depth costs no stack.
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| refused(&error))?;
    if opens(data) > JSON_DEPTH_MAX && json_depth(data) > JSON_DEPTH_MAX {
        let rule = format!("is nested more than {JSON_DEPTH_MAX} levels deep; flatten it");
        return Err(Invalid::new(Reason::DataTooDeep, "event.data", rule));
    }
    Ok(())
}

/// How many arrays and objects may open in `data`: no fewer than nest, and counted many bytes at a
/// time, which spares nearly all events the exact look.
fn opens(data: &[u8]) -> usize {
    let opens = |byte: &&u8| matches!(byte, b'[' | b'{');
    data.iter().filter(opens).count()
}

/// Deepest nesting of arrays and objects in valid JSON.
fn json_depth(data: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in data {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests;
