//! An accepted event and its line in a list, for a backend that keeps bodies apart from the log.

use bytes::Bytes;
use fanfare_domain::{AcceptedEvent, BodyHash, Data, Event, EventId, EventType, Source, TenantId};
use prost::Message;

use super::{EventRefWire, Kind, Row, WireError, damaged, fixed, micros, open, seal, tenant};
use crate::events::EventSummary;

#[derive(Clone, PartialEq, Message)]
struct BodyWire {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(string, tag = "3")]
    source: String,
    #[prost(string, tag = "4")]
    event_type: String,
    #[prost(string, optional, tag = "5")]
    subject: Option<String>,
    #[prost(sint64, optional, tag = "6")]
    time: Option<i64>,
    #[prost(string, tag = "7")]
    data_content_type: String,
    #[prost(string, optional, tag = "8")]
    data_schema: Option<String>,
    #[prost(oneof = "DataWire", tags = "9, 10")]
    data: Option<DataWire>,
    #[prost(string, optional, tag = "11")]
    ordering_key: Option<String>,
    #[prost(btree_map = "string, string", tag = "12")]
    extensions: std::collections::BTreeMap<String, String>,
    #[prost(sint64, tag = "13")]
    accept_time: i64,
    #[prost(bytes = "vec", tag = "14")]
    body_hash: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum DataWire {
    #[prost(bytes = "bytes", tag = "9")]
    Bytes(Bytes),
    #[prost(bytes = "bytes", tag = "10")]
    Text(Bytes),
}

#[derive(Clone, PartialEq, Message)]
struct SummaryWire {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(message, required, tag = "2")]
    event: EventRefWire,
    #[prost(string, tag = "3")]
    event_type: String,
    #[prost(sint64, tag = "4")]
    accept_time: i64,
    #[prost(uint64, tag = "5")]
    size: u64,
    #[prost(uint32, tag = "6")]
    matched: u32,
}

impl Row for AcceptedEvent {
    fn seal(&self) -> Vec<u8> {
        let event = &self.event;
        let data = match &event.data {
            Data::None => None,
            Data::Bytes(bytes) => Some(DataWire::Bytes(bytes.clone())),
            Data::Text(text) => Some(DataWire::Text(text.clone())),
        };
        let wire = BodyWire {
            tenant: self.tenant.as_str().into(),
            id: event.id.as_str().into(),
            source: event.source.as_str().into(),
            event_type: event.event_type.as_str().into(),
            subject: event.subject.clone(),
            time: event.time.map(fanfare_domain::Timestamp::micros),
            data_content_type: event.data_content_type.clone(),
            data_schema: event.data_schema.clone(),
            data,
            ordering_key: event.ordering_key.clone(),
            extensions: event.extensions.clone(),
            accept_time: self.accept_time.micros(),
            body_hash: self.body_hash.0.to_vec(),
        };
        seal(Kind::Body, &wire)
    }

    fn open(bytes: &[u8]) -> Result<Self, WireError> {
        let wire: BodyWire = open(Kind::Body, bytes)?;
        let event = Event {
            id: EventId::try_new(wire.id).map_err(damaged)?,
            source: Source::try_new(wire.source).map_err(damaged)?,
            event_type: EventType::try_new(wire.event_type).map_err(damaged)?,
            subject: wire.subject,
            time: wire.time.map(micros),
            data_content_type: wire.data_content_type,
            data_schema: wire.data_schema,
            data: match wire.data {
                None => Data::None,
                Some(DataWire::Bytes(bytes)) => Data::Bytes(bytes),
                Some(DataWire::Text(text)) => Data::Text(text),
            },
            ordering_key: wire.ordering_key,
            extensions: wire.extensions,
        };
        Ok(Self {
            tenant: TenantId::try_new(wire.tenant).map_err(damaged)?,
            event,
            accept_time: micros(wire.accept_time),
            body_hash: BodyHash(fixed(&wire.body_hash)?),
        })
    }
}

impl Row for EventSummary {
    fn seal(&self) -> Vec<u8> {
        let wire = SummaryWire {
            tenant: self.event.key.tenant.as_str().into(),
            event: (&self.event).into(),
            event_type: self.event_type.as_str().into(),
            accept_time: self.accept_time.micros(),
            size: self.size,
            matched: self.matched,
        };
        seal(Kind::Summary, &wire)
    }

    fn open(bytes: &[u8]) -> Result<Self, WireError> {
        let wire: SummaryWire = open(Kind::Summary, bytes)?;
        Ok(Self {
            event: wire.event.of(&tenant(&wire.tenant)?)?,
            event_type: EventType::try_new(wire.event_type).map_err(damaged)?,
            accept_time: micros(wire.accept_time),
            size: wire.size,
            matched: wire.matched,
        })
    }
}
