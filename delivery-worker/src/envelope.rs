//! An event as CloudEvents over HTTP: binary mode (attributes as `ce-*` headers) and structured
//! mode (the whole event as JSON).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fanfare_domain::{Data, Envelope, Event, Timestamp};
use http::{HeaderName, HeaderValue};

/// Content type of the structured mode.
const STRUCTURED: HeaderValue =
    HeaderValue::from_static("application/cloudevents+json; charset=utf-8");

/// What carries the event to an endpoint that chose `chosen`. Bytes that are no text go structured,
/// as base64: the official libraries read a body as UTF-8 before they verify it.
pub fn of(event: &Event, chosen: Envelope) -> Envelope {
    if event.is_binary() {
        Envelope::Structured
    } else {
        chosen
    }
}

/// The content type of the body, if there is one.
pub fn content_type(event: &Event, envelope: Envelope) -> Option<HeaderValue> {
    match (envelope, &event.data) {
        (Envelope::Structured, _) => Some(STRUCTURED),
        (Envelope::Binary, Data::None) => None,
        (Envelope::Binary, _) => HeaderValue::from_str(&event.data_content_type).ok(),
    }
}

/// The attributes as headers, values encoded as the HTTP binding says, in a fixed order.
pub fn attributes(event: &Event) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::with_capacity(8 + event.extensions.len());
    headers.push((
        HeaderName::from_static("ce-specversion"),
        HeaderValue::from_static("1.0"),
    ));
    each_attribute(event, |name, value| {
        // Names are [a-z0-9]+ since the door, and values were just encoded: neither can fail, and
        // an attribute that did would be missing rather than split a request.
        if let (Some(name), Ok(value)) = (header(name), HeaderValue::try_from(encoded(value))) {
            headers.push((name, value));
        }
    });
    headers
}

/// What an attribute's header is called; of those that every event has nothing is made anew.
fn header(attribute: &str) -> Option<HeaderName> {
    let known = match attribute {
        "id" => "ce-id",
        "source" => "ce-source",
        "type" => "ce-type",
        "time" => "ce-time",
        "subject" => "ce-subject",
        "dataschema" => "ce-dataschema",
        "partitionkey" => "ce-partitionkey",
        extension => return HeaderName::try_from(format!("ce-{extension}")).ok(),
    };
    Some(HeaderName::from_static(known))
}

/// The whole event as JSON: JSON data as the raw slice that was published, text as a string,
/// anything else as `data_base64`.
pub fn structured(event: &Event) -> Bytes {
    let mut out = String::with_capacity(256 + event.data.bytes().len());
    out.push_str("{\"specversion\":\"1.0\"");
    each_attribute(event, |name, value| member(&mut out, name, value));
    if !matches!(event.data, Data::None) {
        member(&mut out, "datacontenttype", &event.data_content_type);
    }
    match (&event.data, as_text(event)) {
        (Data::None, _) => {}
        (_, Some(json)) if event.is_json() => {
            out.push_str(",\"data\":");
            out.push_str(json);
        }
        (Data::Text(_), Some(text)) => member(&mut out, "data", text),
        (data, _) => member(&mut out, "data_base64", &STANDARD.encode(data.bytes())),
    }
    out.push('}');
    Bytes::from(out)
}

/// Calls `take` with the name and text of every attribute but specversion and datacontenttype.
fn each_attribute(event: &Event, mut take: impl FnMut(&str, &str)) {
    take("id", event.id.as_str());
    take("source", event.source.as_str());
    take("type", event.event_type.as_str());
    if let Some(time) = event.time {
        take("time", &rfc3339(time));
    }
    let optional = [
        ("subject", &event.subject),
        ("dataschema", &event.data_schema),
        ("partitionkey", &event.ordering_key),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            take(name, value);
        }
    }
    for (name, value) in &event.extensions {
        take(name, value);
    }
}

fn rfc3339(time: Timestamp) -> String {
    time.to_string()
}

fn as_text(event: &Event) -> Option<&str> {
    std::str::from_utf8(event.data.bytes()).ok()
}

fn member(out: &mut String, name: &str, value: &str) {
    // Writing into a String cannot fail, and neither can serializing a str.
    let value = serde_json::to_string(value).unwrap_or_default();
    let _ = write!(out, ",\"{name}\":{value}");
}

/// Percent-encodes what the HTTP binding says: space, `"`, `%`, and everything but printable
/// ASCII, as UTF-8.
fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b' ' | b'"' | b'%' => push_encoded(&mut out, byte),
            0x21..=0x7e => out.push(char::from(byte)),
            _ => push_encoded(&mut out, byte),
        }
    }
    out
}

fn push_encoded(out: &mut String, byte: u8) {
    let _ = write!(out, "%{byte:02X}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fanfare_domain::{EventId, EventType, Source};
    use serde_json::{Value, json};

    use super::*;

    fn event(content_type: &str, data: Data) -> Event {
        Event {
            id: EventId::try_new("e-1").unwrap(),
            source: Source::try_new("/shop").unwrap(),
            event_type: EventType::try_new("order.paid").unwrap(),
            subject: Some("Straße 1 \"100%\"".into()),
            time: Some(Timestamp::from_millis(1_790_000_000_123)),
            data_content_type: content_type.into(),
            data_schema: None,
            data,
            ordering_key: Some("k".into()),
            extensions: BTreeMap::from([("region".into(), "eu".into())]),
        }
    }

    #[test]
    fn header_values_are_encoded_as_the_binding_says() {
        let headers = attributes(&event("application/json", Data::None));
        let value = |name: &str| {
            let (_, value) = headers.iter().find(|(n, _)| n == name).unwrap();
            value.to_str().unwrap()
        };
        assert_eq!(value("ce-subject"), "Stra%C3%9Fe%201%20%22100%25%22");
        assert_eq!(value("ce-specversion"), "1.0");
        assert_eq!(value("ce-id"), "e-1");
        assert_eq!(value("ce-time"), "2026-09-21T14:13:20.123Z");
        assert_eq!(value("ce-partitionkey"), "k");
        assert_eq!(value("ce-region"), "eu");
    }

    #[test]
    fn json_data_is_the_raw_slice() {
        let raw = "{ \"a\" : 1.0e2,\n \"a\": \"\\u00e4\" }";
        let body = structured(&event("application/json", Data::Bytes(raw.into())));
        let text = std::str::from_utf8(&body).unwrap();
        assert!(text.contains(&format!("\"data\":{raw}")), "{text}");
        let parsed: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(parsed["subject"], "Straße 1 \"100%\"");
        assert_eq!(parsed["datacontenttype"], "application/json");
        assert_eq!(parsed["specversion"], "1.0");
    }

    #[test]
    fn text_is_a_string_and_bytes_are_base64() {
        let member = |content_type: &str, data: Data| {
            let body = structured(&event(content_type, data));
            let mut value: Value = serde_json::from_slice(&body).unwrap();
            let object = value.as_object_mut().unwrap();
            (object.remove("data"), object.remove("data_base64"))
        };
        let text = Data::Text("a\"b\n".into());
        assert_eq!(member("text/plain", text), (Some(json!("a\"b\n")), None));
        let bytes = Data::Bytes(Bytes::from_static(&[0xff, 0]));
        assert_eq!(member("image/png", bytes), (None, Some(json!("/wA="))));
        assert_eq!(member("application/json", Data::None), (None, None));
    }
}
