//! Rows of deliveries that did not succeed at once: retry state, parked, dead letters.

use fanfare_domain::{
    DeadLetterReason, DeliveryId, EventRef, EventType, ParkedReason, SubscriptionId, Timestamp,
};
use prost::Message;

use super::{
    EventRefWire, Kind, OutcomeWire, Row, WireError, damaged, fixed, micros, open, place, seal,
    tenant,
};
use crate::dead_letters::DeadLetter;
use crate::parking::{Parked, ParkedKey};
use crate::retries::{RetryRow, RetryState};

/// What every one of them says of its delivery.
#[derive(Clone, PartialEq, Message)]
struct DeliveryWire {
    #[prost(bytes = "vec", tag = "1")]
    delivery: Vec<u8>,
    #[prost(string, tag = "2")]
    tenant: String,
    #[prost(fixed64, tag = "3")]
    subscription: u64,
    #[prost(message, required, tag = "4")]
    event: EventRefWire,
    #[prost(uint32, tag = "5")]
    generation: u32,
}

impl DeliveryWire {
    fn new(
        delivery: DeliveryId,
        subscription: SubscriptionId,
        event: &EventRef,
        generation: u32,
    ) -> Self {
        Self {
            delivery: delivery.as_bytes().to_vec(),
            tenant: event.key.tenant.as_str().into(),
            subscription: subscription.0,
            event: event.into(),
            generation,
        }
    }

    fn id(&self) -> Result<DeliveryId, WireError> {
        fixed(&self.delivery).map(DeliveryId::from_bytes)
    }
}

#[derive(Clone, PartialEq, Message)]
struct RetryWire {
    #[prost(message, required, tag = "1")]
    delivery: DeliveryWire,
    #[prost(uint32, tag = "2")]
    attempts: u32,
    #[prost(uint32, tag = "3")]
    attempts_before: u32,
    #[prost(sint64, tag = "4")]
    first_attempt: i64,
    #[prost(message, required, tag = "5")]
    last_outcome: OutcomeWire,
    #[prost(oneof = "StateWire", tags = "6, 7, 8")]
    state: Option<StateWire>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum StateWire {
    #[prost(sint64, tag = "6")]
    DueAt(i64),
    #[prost(sint64, tag = "7")]
    Delivered(i64),
    #[prost(sint64, tag = "8")]
    DeadLetter(i64),
}

impl Row for RetryRow {
    fn seal(&self) -> Vec<u8> {
        let state = match self.state {
            RetryState::DueAt(at) => StateWire::DueAt(at.micros()),
            RetryState::Delivered(at) => StateWire::Delivered(at.micros()),
            RetryState::DeadLetter(at) => StateWire::DeadLetter(at.micros()),
        };
        let wire = RetryWire {
            delivery: DeliveryWire::new(
                self.delivery,
                self.subscription,
                &self.event,
                self.generation,
            ),
            attempts: self.attempts,
            attempts_before: self.attempts_before,
            first_attempt: self.first_attempt.micros(),
            last_outcome: (&self.last_outcome).into(),
            state: Some(state),
        };
        seal(Kind::Retry, &wire)
    }

    fn open(bytes: &[u8]) -> Result<Self, WireError> {
        let wire: RetryWire = open(Kind::Retry, bytes)?;
        let tenant = tenant(&wire.delivery.tenant)?;
        Ok(Self {
            delivery: wire.delivery.id()?,
            subscription: SubscriptionId(wire.delivery.subscription),
            event: wire.delivery.event.of(&tenant)?,
            tenant,
            generation: wire.delivery.generation,
            attempts: wire.attempts,
            attempts_before: wire.attempts_before,
            first_attempt: micros(wire.first_attempt),
            last_outcome: wire.last_outcome.try_into()?,
            state: match wire.state.ok_or(WireError::Damaged)? {
                StateWire::DueAt(at) => RetryState::DueAt(micros(at)),
                StateWire::Delivered(at) => RetryState::Delivered(micros(at)),
                StateWire::DeadLetter(at) => RetryState::DeadLetter(micros(at)),
            },
        })
    }
}

/// The endpoint is that of the delivery.
#[derive(Clone, PartialEq, Message)]
struct ParkedWire {
    #[prost(message, required, tag = "1")]
    delivery: DeliveryWire,
    #[prost(uint32, tag = "2")]
    span: u32,
    #[prost(uint64, tag = "3")]
    position: u64,
    #[prost(uint32, tag = "4")]
    part: u32,
    #[prost(uint32, tag = "5")]
    reason: u32,
    #[prost(sint64, tag = "6")]
    since: i64,
}

impl Row for Parked {
    fn seal(&self) -> Vec<u8> {
        let wire = ParkedWire {
            delivery: DeliveryWire::new(
                self.delivery,
                self.subscription,
                &self.event,
                self.generation,
            ),
            span: self.key.place.span.into(),
            position: self.key.place.position.0,
            part: self.key.part,
            reason: self.reason.code().into(),
            since: self.since.micros(),
        };
        seal(Kind::Parked, &wire)
    }

    fn open(bytes: &[u8]) -> Result<Self, WireError> {
        let wire: ParkedWire = open(Kind::Parked, bytes)?;
        let tenant = tenant(&wire.delivery.tenant)?;
        let delivery = wire.delivery.id()?;
        let reason = u8::try_from(wire.reason).map_err(damaged)?;
        Ok(Self {
            endpoint: delivery.endpoint(),
            key: ParkedKey {
                place: place(wire.span, wire.position)?,
                part: wire.part,
            },
            delivery,
            subscription: SubscriptionId(wire.delivery.subscription),
            event: wire.delivery.event.of(&tenant)?,
            tenant,
            generation: wire.delivery.generation,
            reason: ParkedReason::from_code(reason).ok_or(WireError::Damaged)?,
            since: micros(wire.since),
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct DeadLetterWire {
    #[prost(message, required, tag = "1")]
    delivery: DeliveryWire,
    #[prost(string, tag = "2")]
    event_type: String,
    #[prost(uint32, tag = "3")]
    reason: u32,
    #[prost(sint64, tag = "4")]
    at: i64,
    #[prost(uint32, tag = "5")]
    attempts: u32,
    #[prost(sint64, optional, tag = "6")]
    redriven: Option<i64>,
}

impl Row for DeadLetter {
    fn seal(&self) -> Vec<u8> {
        let wire = DeadLetterWire {
            delivery: DeliveryWire::new(
                self.delivery,
                self.subscription,
                &self.event,
                self.generation,
            ),
            event_type: self.event_type.as_str().into(),
            reason: self.reason.code().into(),
            at: self.at.micros(),
            attempts: self.attempts,
            redriven: self.redriven.map(Timestamp::micros),
        };
        seal(Kind::DeadLetter, &wire)
    }

    fn open(bytes: &[u8]) -> Result<Self, WireError> {
        let wire: DeadLetterWire = open(Kind::DeadLetter, bytes)?;
        let tenant = tenant(&wire.delivery.tenant)?;
        let reason = u8::try_from(wire.reason).map_err(damaged)?;
        Ok(Self {
            delivery: wire.delivery.id()?,
            subscription: SubscriptionId(wire.delivery.subscription),
            event: wire.delivery.event.of(&tenant)?,
            tenant,
            event_type: EventType::try_new(wire.event_type).map_err(damaged)?,
            generation: wire.delivery.generation,
            reason: DeadLetterReason::from_code(reason).ok_or(WireError::Damaged)?,
            at: micros(wire.at),
            attempts: wire.attempts,
            redriven: wire.redriven.map(micros),
        })
    }
}
