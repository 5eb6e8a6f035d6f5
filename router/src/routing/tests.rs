use std::collections::BTreeMap;

use bytes::Bytes;
use fanfare_domain::{AcceptedEvent, Data, Event, EventId, EventType, Source, TenantId, Timestamp};

/// An event of tenant `acme` as the front door would accept it.
pub(super) fn accepted(id: &str, event_type: &str) -> AcceptedEvent {
    let event = Event {
        id: EventId::try_new(id).unwrap(),
        source: Source::try_new("/shop").unwrap(),
        event_type: EventType::try_new(event_type).unwrap(),
        subject: None,
        time: None,
        data_content_type: "application/json".into(),
        data_schema: None,
        data: Data::Bytes(Bytes::from_static(b"{}")),
        ordering_key: None,
        extensions: BTreeMap::new(),
    };
    AcceptedEvent {
        tenant: TenantId::try_new("acme").unwrap(),
        body_hash: event.body_hash(),
        event,
        accept_time: Timestamp::from_millis(1_790_000_000_000),
    }
}
