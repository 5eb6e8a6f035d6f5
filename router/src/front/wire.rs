//! Between the messages of the gRPC surface and the values of the domain: events and times.

use bytes::Bytes;
use fanfare_domain::{
    AcceptedEvent, Data, Event, EventId, EventType, Invalid, Reason, Source, Timestamp, TypePattern,
};
use fanfare_proto::v1;
use uuid::Uuid;

use super::caller::Caller;

/// Seconds of 0001-01-01 and 9999-12-31T23:59:59: what RFC 3339 can say.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Who named an event: a name made here cannot come a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// The producer.
    ByProducer,
    /// This server, because the producer did not.
    Here,
}

/// Reads an event of a producer, filling in what may be left out: id, source, time, content type.
///
/// Checks the fields that have a type of their own; sizes and contents are [`Event::check`]'s.
pub(crate) fn event_from(
    message: v1::Event,
    caller: &Caller,
    now: Timestamp,
) -> Result<(Event, Named), Invalid> {
    let (id, named) = match &*message.id {
        "" => (made_id()?, Named::Here),
        id => (EventId::try_new(id)?, Named::ByProducer),
    };
    let source = match &*message.source {
        "" => source_of(caller)?,
        source => Source::try_new(source)?,
    };
    let time = message.time.map(|time| time_from("event.time", &time));
    let event = Event {
        id,
        source,
        event_type: EventType::try_new(&message.r#type)?,
        subject: message.subject,
        time: Some(time.transpose()?.unwrap_or(now)),
        data_content_type: content_type(message.data_content_type),
        data_schema: message.data_schema,
        data: match message.payload {
            None => Data::None,
            Some(v1::event::Payload::Data(bytes)) => Data::Bytes(bytes),
            Some(v1::event::Payload::Text(text)) => Data::Text(Bytes::from(text)),
        },
        ordering_key: message.ordering_key,
        extensions: message.extensions,
    };
    Ok((event, named))
}

/// The source of events whose producer names none.
pub(crate) fn source_of(caller: &Caller) -> Result<Source, Invalid> {
    Source::try_new(format!("/{}", caller.credential))
}

/// An event as a message.
pub(crate) fn event_to(accepted: AcceptedEvent) -> v1::Event {
    let event = accepted.event;
    v1::Event {
        id: event.id.as_str().into(),
        source: event.source.as_str().into(),
        r#type: event.event_type.as_str().into(),
        subject: event.subject,
        time: event.time.map(time_to),
        data_content_type: event.data_content_type,
        data_schema: event.data_schema,
        payload: payload_to(event.data),
        ordering_key: event.ordering_key,
        extensions: event.extensions,
    }
}

fn payload_to(data: Data) -> Option<v1::event::Payload> {
    match data {
        Data::None => None,
        Data::Bytes(bytes) => Some(v1::event::Payload::Data(bytes)),
        // Text was a string when it came in.
        Data::Text(bytes) => Some(match String::from_utf8(bytes.to_vec()) {
            Ok(text) => v1::event::Payload::Text(text),
            Err(error) => v1::event::Payload::Data(error.into_bytes().into()),
        }),
    }
}

/// A time of a message; `field` is its path in the request.
pub(crate) fn time_from(field: &str, time: &prost_types::Timestamp) -> Result<Timestamp, Invalid> {
    let micros = u32::try_from(time.nanos).map(|nanos| i64::from(nanos / 1_000));
    match micros {
        Ok(micros) if SECONDS.contains(&time.seconds) && micros < 1_000_000 => {
            Ok(Timestamp::from_micros(time.seconds * 1_000_000 + micros))
        }
        _ => Err(Invalid::new(
            Reason::EventFieldInvalid,
            field,
            "must be a time from year 1 to 9999, with 0 to 999,999,999 nanoseconds",
        )),
    }
}

/// A time as a message.
pub(crate) fn time_to(time: Timestamp) -> prost_types::Timestamp {
    let nanos = time.micros().rem_euclid(1_000_000) * 1_000;
    prost_types::Timestamp {
        seconds: time.seconds(),
        nanos: i32::try_from(nanos).unwrap_or_default(),
    }
}

/// Patterns of a filter; none selects everything.
pub(crate) fn patterns_from(texts: &[String]) -> Result<Vec<TypePattern>, Invalid> {
    if texts.len() > fanfare_domain::catalog::PATTERNS_MAX {
        let rule = format!("at most {} patterns", fanfare_domain::catalog::PATTERNS_MAX);
        return Err(Invalid::new(Reason::PatternInvalid, "event_types", rule));
    }
    texts.iter().map(TypePattern::try_new).collect()
}

/// Whether any of `patterns` selects `event_type`; none selects everything.
pub(crate) fn selects(patterns: &[TypePattern], event_type: &EventType) -> bool {
    patterns.is_empty() || patterns.iter().any(|p| p.matches(event_type))
}

fn content_type(given: String) -> String {
    match &*given {
        "" => "application/json".into(),
        _ => given,
    }
}

/// A UUIDv7: sorts by time.
fn made_id() -> Result<EventId, Invalid> {
    let mut buffer = Uuid::encode_buffer();
    EventId::try_new(Uuid::now_v7().as_hyphenated().encode_lower(&mut buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_wire_and_absurd_ones_do_not() {
        for micros in [0, 1, -1, 1_790_000_000_123_456, -62_135_596_800_000_000] {
            let time = Timestamp::from_micros(micros);
            assert_eq!(time_from("t", &time_to(time)).unwrap(), time);
        }
        for (seconds, nanos) in [(i64::MIN, 0), (i64::MAX, 0), (0, -1), (0, 1_000_000_000)] {
            let time = prost_types::Timestamp { seconds, nanos };
            assert_eq!(
                time_from("event.time", &time).unwrap_err().field,
                "event.time"
            );
        }
    }

    #[test]
    fn what_a_producer_leaves_out_is_filled_in() {
        let caller = Caller {
            tenant: fanfare_domain::TenantId::try_new("acme").unwrap(),
            credential: "shop".into(),
            traceparent: None,
        };
        let now = Timestamp::from_millis(7);
        let message = v1::Event {
            r#type: "order.paid".into(),
            ..v1::Event::default()
        };
        let (event, named) = event_from(message, &caller, now).unwrap();
        assert_eq!(named, Named::Here);
        assert_eq!(event.id.as_str().len(), 36);
        assert_eq!(event.source.as_str(), "/shop");
        assert_eq!(event.time, Some(now));
        assert!(event.is_json());
        assert_eq!(event.data, Data::None);
    }
}
