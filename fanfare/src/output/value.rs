//! How single values of the gRPC surface are printed: times, durations, names, payloads.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanfare_domain::Timestamp;
use fanfare_service::HumanDuration;
use serde_json::value::RawValue;

/// RFC 3339, or nothing for a time that is not set.
pub fn time(of: Option<&prost_types::Timestamp>) -> Option<String> {
    of.map(|t| timestamp(t).to_string())
}

/// As our own type.
pub fn timestamp(of: &prost_types::Timestamp) -> Timestamp {
    let micros = of.seconds.saturating_mul(1_000_000);
    Timestamp::from_micros(micros.saturating_add(i64::from(of.nanos) / 1000))
}

/// As the wire's type.
pub fn wire_time(of: Timestamp) -> prost_types::Timestamp {
    let nanos = of.micros().rem_euclid(1_000_000) * 1000;
    prost_types::Timestamp {
        seconds: of.seconds(),
        nanos: i32::try_from(nanos).unwrap_or(0),
    }
}

/// A time for a column: whole seconds.
pub fn short_time(of: Option<&prost_types::Timestamp>) -> String {
    of.map(|t| Timestamp::from_millis(timestamp(t).seconds() * 1000).to_string())
        .unwrap_or_default()
}

/// As our own type; negative ones are zero.
pub fn duration(of: &prost_types::Duration) -> Duration {
    Duration::try_from(*of).unwrap_or_default()
}

/// As the wire's type.
pub fn wire_duration(of: HumanDuration) -> prost_types::Duration {
    prost_types::Duration::try_from(of.0).unwrap_or_default()
}

/// As people write it: `15s`.
pub fn human(of: &prost_types::Duration) -> String {
    HumanDuration(duration(of)).to_string()
}

/// Milliseconds, to the microsecond.
pub fn millis(of: &prost_types::Duration) -> f64 {
    let micros = u32::try_from(duration(of).as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}

/// `DELIVERY_STATE_DEAD_LETTER` without its prefix and in lower case; nothing for unspecified.
pub fn name(wire: &str, prefix: &str) -> Option<String> {
    let name = wire.strip_prefix(prefix).unwrap_or(wire).to_lowercase();
    (name != "unspecified").then_some(name)
}

/// Data as JSON in one line if it is JSON, otherwise as base64: exactly one of the two.
pub fn data(bytes: &[u8]) -> (Option<Box<RawValue>>, Option<String>) {
    let text = std::str::from_utf8(bytes).ok();
    // Line ends occur only between JSON's tokens, where a space means the same.
    let one_line = text.map(|text| text.replace(['\n', '\r'], " "));
    match one_line.and_then(|text| RawValue::from_string(text).ok()) {
        Some(raw) => (Some(raw), None),
        None => (None, Some(STANDARD.encode(bytes))),
    }
}

/// Bytes for a person: as text if they are text, otherwise how many there are.
pub fn for_person(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.trim_end().to_owned(),
        Err(_) => format!("({} bytes that are not text)", bytes.len()),
    }
}

/// `a=1, b=2`.
pub fn pairs<'a>(of: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let mut sorted: Vec<_> = of.into_iter().collect();
    sorted.sort();
    let mut text = String::new();
    for (name, value) in sorted {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{name}={value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_json_in_one_line_as_it_was_or_base64() {
        let (raw, base64) = data(b"{\"b\": 1.0,\n \"a\": 123456789012345678901}");
        assert_eq!(
            raw.unwrap().get(),
            "{\"b\": 1.0,  \"a\": 123456789012345678901}"
        );
        assert!(base64.is_none());
        let (raw, base64) = data(&[0xff, 0x00]);
        assert!(raw.is_none());
        assert_eq!(base64.unwrap(), "/wA=");
    }

    #[test]
    fn names_lose_their_prefix() {
        assert_eq!(
            name("DELIVERY_STATE_DEAD_LETTER", "DELIVERY_STATE_").as_deref(),
            Some("dead_letter")
        );
        assert_eq!(name("BLAME_UNSPECIFIED", "BLAME_"), None);
    }

    #[test]
    fn times_survive_the_wire() {
        let at = Timestamp::parse_rfc3339("2026-01-02T03:04:05.678901Z").unwrap();
        assert_eq!(timestamp(&wire_time(at)), at);
        assert_eq!(
            time(Some(&wire_time(at))).unwrap(),
            "2026-01-02T03:04:05.678901Z"
        );
        let before = Timestamp::from_micros(-1);
        assert_eq!(timestamp(&wire_time(before)), before);
    }
}
