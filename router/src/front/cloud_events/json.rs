//! Structured and batch mode: the CloudEvents JSON format.
//!
//! An envelope is read as a list of its members with raw values, so that `data` keeps its bytes
//! and a member that is given twice is noticed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fanfare_domain::event::is_json;
use fanfare_proto::v1;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{check_required, missing, set_attribute};
use crate::front::errors::Refusal;

/// Reads one event. Its data is a slice of `body`.
pub(super) fn event(body: &Bytes) -> Result<v1::Event, Refusal> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(|e| malformed(&e))?;
    envelope.event(body)
}

/// Reads a batch of at most `max` events: each on its own, so that one that is malformed does not
/// spoil the others.
pub(super) fn batch(body: &Bytes, max: usize) -> Result<Vec<Result<v1::Event, Refusal>>, Refusal> {
    let raw: Vec<&RawValue> = serde_json::from_slice(body).map_err(|e| malformed(&e))?;
    if raw.len() > max {
        let rule = format!(
            "has {} events, more than the limit of {max}; send fewer at once",
            raw.len()
        );
        return Err(Refusal::field("BATCH_TOO_LARGE", "body", rule));
    }
    let one = |raw: &RawValue| {
        let envelope: Envelope<'_> = serde_json::from_str(raw.get()).map_err(|e| malformed(&e))?;
        envelope.event(body)
    };
    Ok(raw.into_iter().map(one).collect())
}

fn malformed(error: &serde_json::Error) -> Refusal {
    let rule = format!("is not a CloudEvent in JSON ({error})");
    Refusal::field("REQUEST_INVALID", "body", rule)
}

/// The members of a JSON object, in their order, none twice.
struct Envelope<'a>(Vec<(String, &'a RawValue)>);

impl Envelope<'_> {
    fn event(self, body: &Bytes) -> Result<v1::Event, Refusal> {
        let mut event = v1::Event::default();
        let (mut data, mut base64) = (None, None);
        if !self.0.iter().any(|(name, _)| name == "specversion") {
            return Err(missing("specversion"));
        }
        for (name, raw) in self.0 {
            match &*name {
                _ if raw.get() == "null" && name != "data" => {}
                "data" => data = Some(raw),
                "data_base64" => base64 = Some(raw),
                _ => set_attribute(&mut event, &name, attribute(&name, raw)?)?,
            }
        }
        check_required(&event)?;
        event.payload = match (data, base64) {
            (None, None) => None,
            (Some(raw), None) => Some(payload(&event.data_content_type, raw, body)?),
            (None, Some(raw)) => Some(v1::event::Payload::Data(decoded(raw)?)),
            (Some(_), Some(_)) => {
                let rule = "must not be given together with data_base64";
                return Err(Refusal::field("EVENT_FIELD_INVALID", "event.data", rule));
            }
        };
        Ok(event)
    }
}

/// An attribute's value in its canonical string form: strings, integers and booleans have one.
fn attribute(name: &str, raw: &RawValue) -> Result<String, Refusal> {
    let text = raw.get();
    let refused = || {
        let rule = "must be a string, an integer or a boolean";
        Refusal::field("EVENT_FIELD_INVALID", format!("event.{name}"), rule)
    };
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).map_err(|_| refused()),
        Some(b't' | b'f') => Ok(text.to_owned()),
        _ => text
            .parse::<i32>()
            .map(|_| text.to_owned())
            .map_err(|_| refused()),
    }
}

/// The data: the raw slice when it is JSON, the string's text when it is not.
fn payload(
    content_type: &str,
    raw: &RawValue,
    body: &Bytes,
) -> Result<v1::event::Payload, Refusal> {
    if content_type.is_empty() || is_json(content_type) {
        return Ok(v1::event::Payload::Data(
            body.slice_ref(raw.get().as_bytes()),
        ));
    }
    serde_json::from_str(raw.get()).map(v1::event::Payload::Text).map_err(|_| {
        let rule = "must be a JSON string, since datacontenttype is not JSON; binary goes into data_base64";
        Refusal::field("EVENT_FIELD_INVALID", "event.data", rule)
    })
}

fn decoded(raw: &RawValue) -> Result<Bytes, Refusal> {
    let text: Option<String> = serde_json::from_str(raw.get()).ok();
    let bytes = text.and_then(|text| STANDARD.decode(text).ok());
    bytes.map(Bytes::from).ok_or_else(|| {
        Refusal::field(
            "EVENT_FIELD_INVALID",
            "event.data_base64",
            "must be a string of standard base64",
        )
    })
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(String, &'de RawValue)> = Vec::with_capacity(12);
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if members.iter().any(|(known, _)| *known == name) {
                        let shown: String = name.chars().take(40).collect();
                        return Err(serde::de::Error::custom(format!(
                            "{shown:?} is given twice"
                        )));
                    }
                    // Far more than an event can have: keeps the search above cheap.
                    if members.len() >= 64 {
                        return Err(serde::de::Error::custom("more than 64 members"));
                    }
                    members.push((name, value));
                }
                Ok(Envelope(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}
