//! What is kept of an event beside its body: where it lies, what tells it from others of its
//! identity, and who matched it.

use std::sync::Arc;

use fanfare_domain::{BodyHash, EndpointId, Place, SubscriptionId, Target, Timestamp};
use prost::Message;

use super::{Kind, Row, WireError, fixed, micros, open, place, seal};
use crate::events::{Conflict, Known, Route};

/// An event's row without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHead {
    /// Where the winning record lies.
    pub place: Place,
    /// What is known of it.
    pub known: Known,
    /// Who matched; `None` until it is claimed.
    pub route: Option<Route>,
    /// Later publishes with another body.
    pub conflicts: Vec<Conflict>,
}

#[derive(Clone, PartialEq, Message)]
struct RecordWire {
    #[prost(uint32, tag = "1")]
    span: u32,
    #[prost(uint64, tag = "2")]
    position: u64,
    #[prost(bytes = "vec", tag = "3")]
    body_hash: Vec<u8>,
    #[prost(sint64, tag = "4")]
    accept_time: i64,
}

#[derive(Clone, PartialEq, Message)]
struct RouteWire {
    #[prost(sint64, tag = "1")]
    route_time: i64,
    #[prost(uint64, tag = "2")]
    config_head: u64,
    /// Endpoint and subscription of each target, in turn.
    #[prost(fixed64, repeated, tag = "3")]
    matched: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct EventHeadWire {
    #[prost(message, required, tag = "1")]
    record: RecordWire,
    #[prost(message, optional, tag = "2")]
    route: Option<RouteWire>,
    #[prost(message, repeated, tag = "3")]
    conflicts: Vec<RecordWire>,
}

impl Row for EventHead {
    fn seal(&self) -> Vec<u8> {
        let conflict = |c: &Conflict| record(c.place, c.body_hash, c.accept_time);
        let wire = EventHeadWire {
            record: record(self.place, self.known.body_hash, self.known.accept_time),
            route: self.route.as_ref().map(RouteWire::from),
            conflicts: self.conflicts.iter().map(conflict).collect(),
        };
        seal(Kind::EventHead, &wire)
    }

    fn open(bytes: &[u8]) -> Result<Self, WireError> {
        let wire: EventHeadWire = open(Kind::EventHead, bytes)?;
        let conflicts = wire.conflicts.into_iter().map(Conflict::try_from);
        let Conflict {
            place,
            body_hash,
            accept_time,
        } = wire.record.try_into()?;
        Ok(Self {
            place,
            known: Known {
                body_hash,
                accept_time,
            },
            route: wire.route.map(Route::try_from).transpose()?,
            conflicts: conflicts.collect::<Result<_, _>>()?,
        })
    }
}

fn record(place: Place, body_hash: BodyHash, accept_time: Timestamp) -> RecordWire {
    RecordWire {
        span: place.span.into(),
        position: place.position.0,
        body_hash: body_hash.0.to_vec(),
        accept_time: accept_time.micros(),
    }
}

impl TryFrom<RecordWire> for Conflict {
    type Error = WireError;

    fn try_from(wire: RecordWire) -> Result<Self, WireError> {
        Ok(Self {
            place: place(wire.span, wire.position)?,
            body_hash: BodyHash(fixed(&wire.body_hash)?),
            accept_time: micros(wire.accept_time),
        })
    }
}

impl From<&Route> for RouteWire {
    fn from(route: &Route) -> Self {
        let pair = |t: &Target| [t.endpoint.0, t.subscription.0];
        Self {
            route_time: route.route_time.micros(),
            config_head: route.config_head,
            matched: route.matched.iter().flat_map(pair).collect(),
        }
    }
}

impl TryFrom<RouteWire> for Route {
    type Error = WireError;

    fn try_from(wire: RouteWire) -> Result<Self, WireError> {
        if !wire.matched.len().is_multiple_of(2) {
            return Err(WireError::Damaged);
        }
        let target = |pair: &[u64]| Target {
            endpoint: EndpointId(pair[0]),
            subscription: SubscriptionId(pair[1]),
        };
        let matched: Arc<[Target]> = wire.matched.chunks_exact(2).map(target).collect();
        Ok(Self {
            route_time: micros(wire.route_time),
            matched,
            config_head: wire.config_head,
        })
    }
}
