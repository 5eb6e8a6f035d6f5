//! The vocabulary of Fanfare as plain values: what an event, an endpoint, a subscription, a
//! delivery and an attempt *are*, and every decision that depends on values alone.
//!
//! This crate never does IO, never reads a clock, never rolls dice: `now` and randomness are
//! arguments. Everything in it is therefore cheap to test, and both services decide alike.
//!
//! Reading order: [`id`], [`event_type`], [`event`], [`catalog`], [`delivery`], [`outcome`],
//! [`retry`]; then [`shard`] (who meets whom) and [`tenure`] (who may still write).

pub mod catalog;
pub mod delivery;
pub mod event;
pub mod event_type;
pub mod id;
pub mod invalid;
pub mod outcome;
pub mod retry;
pub mod secret;
pub mod shard;
pub mod tenure;
pub mod time;
pub mod trace;

pub use catalog::{Endpoint, EndpointState, Envelope, Subscription};
pub use delivery::{DeadLetterReason, DeliveryState, ParkedReason, Target};
pub use event::{
    AcceptedEvent, BodyHash, Data, Event, EventKey, EventLimits, EventRef, Place, Position,
};
pub use event_type::{EventType, TypePattern};
pub use id::{DeliveryId, DeliverySeed, EndpointId, EventId, Source, SubscriptionId, TenantId};
pub use invalid::{Invalid, Reason};
pub use outcome::{Blame, Outcome, OutcomeKind};
pub use retry::{RetrySchedule, Verdict};
pub use secret::Secret;
pub use shard::{SHARDS, Shard, ShardSet};
pub use tenure::Tenure;
pub use time::Timestamp;
pub use trace::EventTrace;
