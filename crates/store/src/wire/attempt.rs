//! An attempt as a row of the group of its endpoint and published second, which are the first
//! [`GROUP`] bytes of its delivery's id.
//!
//! One is written per delivery, so it is small: a success is some 45 bytes when the backend finds
//! the event's names at its place ([`Naming::ByPlace`]), and holds them itself otherwise.

use std::time::Duration;

use bytes::Bytes;
use fanfare_domain::{
    AcceptedEvent, DeliveryId, EventRef, EventType, Outcome, Place, SubscriptionId, Timestamp,
};
use prost::Message;

use super::{
    EventRefWire, OutcomeWire, WireError, damaged, duration_micros, micros, pack, place, tenant,
    unpack,
};
use crate::history::AttemptRow;

/// Bytes of a delivery id that its group's key begins with.
pub const GROUP: usize = 12;

/// Where a reader finds the event's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// In the row.
    Whole,
    /// In the event's record at its place; an event that lies nowhere is named in the row.
    ByPlace,
}

/// An attempt as stored: all of an [`AttemptRow`] but, perhaps, the event's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// Attempt number.
    pub number: u32,
    /// What it came to.
    pub outcome: Outcome,
    /// Where the event lies.
    pub place: Place,
    named: Option<(EventRef, EventType)>,
    subscription: SubscriptionId,
    start: Timestamp,
    latency: Duration,
    retry_at: Option<Timestamp>,
    answer: Bytes,
    answer_truncated: bool,
}

#[derive(Clone, PartialEq, Message)]
struct AttemptWire {
    /// What the delivery's id has after the group's key.
    #[prost(fixed64, tag = "1")]
    hash_high: u64,
    #[prost(fixed32, tag = "2")]
    hash_low: u32,
    #[prost(fixed64, tag = "3")]
    subscription: u64,
    #[prost(uint32, tag = "4")]
    span: u32,
    #[prost(uint64, tag = "5")]
    position: u64,
    /// Absent for the first.
    #[prost(uint32, tag = "6")]
    number_less_1: u32,
    /// Microseconds after the published second.
    #[prost(sint64, tag = "7")]
    start: i64,
    #[prost(uint64, tag = "8")]
    latency: u64,
    #[prost(uint32, tag = "9")]
    http_status: u32,
    /// Absent for a success with a status.
    #[prost(message, optional, tag = "10")]
    outcome: Option<OutcomeWire>,
    /// Microseconds after the start.
    #[prost(sint64, optional, tag = "11")]
    next_attempt: Option<i64>,
    #[prost(bytes = "bytes", tag = "12")]
    answer: Bytes,
    #[prost(bool, tag = "13")]
    answer_truncated: bool,
    #[prost(message, optional, tag = "14")]
    named: Option<NamedWire>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedWire {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(message, required, tag = "2")]
    event: EventRefWire,
    #[prost(string, tag = "3")]
    event_type: String,
}

/// The key of the group that `delivery` belongs to.
pub fn group(delivery: &DeliveryId) -> [u8; GROUP] {
    let mut group = [0; GROUP];
    group.copy_from_slice(&delivery.as_bytes()[..GROUP]);
    group
}

/// The bytes of a row.
pub fn encode(row: &AttemptRow, naming: Naming) -> Vec<u8> {
    let (hash_high, hash_low) = hash(&row.delivery);
    let named = naming == Naming::Whole || row.event.place == Place::default();
    let plain = match row.outcome.http_status {
        Some(status) if row.outcome == Outcome::delivered(status) => u32::from(status),
        _ => 0,
    };
    let offset = |at: Timestamp, from: Timestamp| at.micros().wrapping_sub(from.micros());
    pack(&AttemptWire {
        hash_high,
        hash_low,
        subscription: row.subscription.0,
        span: row.event.place.span.into(),
        position: row.event.place.position.0,
        number_less_1: row.number.wrapping_sub(1),
        start: offset(row.start, row.delivery.published()),
        latency: duration_micros(row.latency),
        http_status: plain,
        outcome: (plain == 0).then(|| (&row.outcome).into()),
        next_attempt: row.next_attempt.map(|at| offset(at, row.start)),
        answer: row.answer.clone(),
        answer_truncated: row.answer_truncated,
        named: named.then(|| NamedWire {
            tenant: row.tenant.as_str().into(),
            event: (&row.event).into(),
            event_type: row.event_type.as_str().into(),
        }),
    })
}

/// From the bytes of a row of `group`.
pub fn decode(group: &[u8; GROUP], bytes: &[u8]) -> Result<Attempt, WireError> {
    let wire: AttemptWire = unpack(bytes)?;
    let mut delivery = [0; 24];
    delivery[..GROUP].copy_from_slice(group);
    delivery[GROUP..20].copy_from_slice(&wire.hash_high.to_be_bytes());
    delivery[20..].copy_from_slice(&wire.hash_low.to_be_bytes());
    let delivery = DeliveryId::from_bytes(delivery);
    let add = |from: Timestamp, by: i64| micros(from.micros().wrapping_add(by));
    let start = add(delivery.published(), wire.start);
    Ok(Attempt {
        delivery,
        number: wire.number_less_1.wrapping_add(1),
        outcome: match wire.outcome {
            Some(outcome) => outcome.try_into()?,
            None => Outcome::delivered(u16::try_from(wire.http_status).map_err(damaged)?),
        },
        place: place(wire.span, wire.position)?,
        named: wire.named.map(NamedWire::open).transpose()?,
        subscription: SubscriptionId(wire.subscription),
        start,
        latency: Duration::from_micros(wire.latency),
        retry_at: wire.next_attempt.map(|by| add(start, by)),
        answer: wire.answer,
        answer_truncated: wire.answer_truncated,
    })
}

impl Attempt {
    /// Whether the row names its event, so that nobody needs to look for it.
    pub fn is_named(&self) -> bool {
        self.named.is_some()
    }

    /// The attempt with its event's names: those of the row, else those of `event`; `None` when
    /// there are neither, as when the event is no longer kept.
    pub fn name(self, event: Option<&AcceptedEvent>) -> Option<AttemptRow> {
        let at_place = |event: &AcceptedEvent| {
            let names = EventRef::new(event.key(), self.place);
            (names, event.event.event_type.clone())
        };
        let (event, event_type) = self.named.or_else(|| event.map(at_place))?;
        Some(AttemptRow {
            tenant: event.key.tenant.clone(),
            delivery: self.delivery,
            subscription: self.subscription,
            event,
            event_type,
            number: self.number,
            start: self.start,
            latency: self.latency,
            outcome: self.outcome,
            next_attempt: self.retry_at,
            answer: self.answer,
            answer_truncated: self.answer_truncated,
        })
    }

    /// Drops the answer's body, which lists leave out.
    #[must_use]
    pub fn without_answer(mut self) -> Self {
        self.answer = Bytes::new();
        self
    }
}

impl NamedWire {
    fn open(self) -> Result<(EventRef, EventType), WireError> {
        let event = self.event.of(&tenant(&self.tenant)?)?;
        let event_type = EventType::try_new(self.event_type).map_err(damaged)?;
        Ok((event, event_type))
    }
}

fn hash(delivery: &DeliveryId) -> (u64, u32) {
    let (mut high, mut low) = ([0; 8], [0; 4]);
    high.copy_from_slice(&delivery.as_bytes()[GROUP..20]);
    low.copy_from_slice(&delivery.as_bytes()[20..]);
    (u64::from_be_bytes(high), u32::from_be_bytes(low))
}
