//! Binary mode: attributes are `ce-*` headers, the body is the data.

use bytes::Bytes;
use fanfare_proto::v1;
use http::{HeaderMap, HeaderValue, header};

use super::{check_required, set_attribute};
use crate::front::errors::Refusal;

/// The event that `headers` and `body` make. Data is absent when the body is empty and no content
/// type is declared.
pub(super) fn event(headers: &HeaderMap, body: Bytes) -> Result<v1::Event, Refusal> {
    let mut event = v1::Event::default();
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else {
            continue;
        };
        if attribute == "datacontenttype" {
            let rule = "goes into the content-type header in binary mode";
            return Err(Refusal::field("EVENT_FIELD_INVALID", name.as_str(), rule));
        }
        set_attribute(&mut event, attribute, single(headers, name.as_str())?)?;
    }
    check_required(&event)?;
    let declared = headers.contains_key(header::CONTENT_TYPE);
    if declared {
        event.data_content_type = single(headers, header::CONTENT_TYPE.as_str())?;
    }
    if declared || !body.is_empty() {
        event.payload = Some(v1::event::Payload::Data(body));
    }
    Ok(event)
}

/// The one value of a header, decoded.
fn single(headers: &HeaderMap, name: &str) -> Result<String, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => {
            let text = if name.starts_with("ce-") {
                decode(value)
            } else {
                plain(value)
            };
            text.ok_or_else(|| {
                invalid(
                    name,
                    "must be ASCII, with other characters percent-encoded UTF-8",
                )
            })
        }
        _ => Err(invalid(name, "must be given once")),
    }
}

fn invalid(name: &str, rule: &str) -> Refusal {
    Refusal::field("EVENT_FIELD_INVALID", name, rule)
}

fn plain(value: &HeaderValue) -> Option<String> {
    value.to_str().ok().map(str::to_owned)
}

/// Undoes the header encoding of the CloudEvents HTTP binding: an optional quoted string, then
/// percent-encoded UTF-8. A `%` that starts no escape stands for itself, as the binding asks.
fn decode(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    let quoted = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let bytes = match quoted {
        Some(inner) => percent_decode(unescape(inner).as_bytes()),
        None => percent_decode(text.as_bytes()),
    };
    String::from_utf8(bytes).ok()
}

fn unescape(quoted: &str) -> String {
    let mut out = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

fn percent_decode(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    while let Some((first, rest)) = bytes.split_first() {
        let escape = match (first, rest) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        if let Some((high, low)) = escape {
            out.push(high << 4 | low);
            bytes = &rest[2..];
        } else {
            out.push(*first);
            bytes = rest;
        }
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}
