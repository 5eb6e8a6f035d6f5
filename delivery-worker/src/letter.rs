//! What is under way in memory: an event as a [`Letter`], shared by all its deliveries, and each
//! [`Delivery`] with where it came from, which says what must be written when it ends.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use fanfare_domain::{
    AcceptedEvent, DeliveryId, DeliverySeed, EndpointId, EventRef, EventTrace, Place, Position,
    Target,
};
use fanfare_store::{DueHint, ParkedKey, RetryRow};
use http::{HeaderName, HeaderValue};

use crate::envelope;

/// An event on its way, and what all its POSTs have in common, prepared once.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) event: Arc<AcceptedEvent>,
    pub(crate) reference: EventRef,
    pub(crate) generation: u32,
    attributes: OnceLock<Vec<(HeaderName, HeaderValue)>>,
    structured: OnceLock<Bytes>,
    trace: OnceLock<EventTrace>,
}

/// One event owed to one subscription.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) id: DeliveryId,
    pub(crate) target: Target,
    pub(crate) letter: Arc<Letter>,
    pub(crate) origin: Origin,
}

/// Where a delivery came from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A part of a delivery record: its first attempt.
    Fresh(Part),
    /// The part of a test record: one attempt, whatever comes of it.
    Test(Part),
    /// Parked; with its retry state when it failed before.
    Parked(ParkedKey, Option<Box<RetryRow>>),
    /// Due again.
    Retry(DueHint, Box<RetryRow>),
}

/// A part of a record of the span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) position: Position,
    pub(crate) index: u32,
}

impl Letter {
    pub(crate) fn new(event: Arc<AcceptedEvent>, place: Place, generation: u32) -> Self {
        Self {
            reference: EventRef::new(event.key(), place),
            event,
            generation,
            attributes: OnceLock::new(),
            structured: OnceLock::new(),
            trace: OnceLock::new(),
        }
    }

    /// Names its deliveries.
    pub(crate) fn seed(&self) -> DeliverySeed {
        self.event.delivery_seed()
    }

    /// The id of its delivery to `target`; `seed` is [`Letter::seed`].
    pub(crate) fn delivery_id(&self, seed: &DeliverySeed, target: Target) -> DeliveryId {
        seed.delivery(
            target.endpoint,
            target.subscription,
            self.event.accept_time,
            self.generation,
        )
    }

    /// The headers that carry its attributes.
    pub(crate) fn attributes(&self) -> &[(HeaderName, HeaderValue)] {
        self.attributes
            .get_or_init(|| envelope::attributes(&self.event.event))
    }

    /// The whole event as JSON.
    pub(crate) fn structured(&self) -> &Bytes {
        self.structured
            .get_or_init(|| envelope::structured(&self.event.event))
    }

    /// Where its spans belong.
    pub(crate) fn trace(&self) -> &EventTrace {
        self.trace.get_or_init(|| EventTrace::of(&self.event))
    }

    /// Bytes that it keeps in memory, about.
    pub(crate) fn size(&self) -> usize {
        self.event.event.data.bytes().len() + 512
    }
}

impl Delivery {
    pub(crate) fn endpoint(&self) -> EndpointId {
        self.target.endpoint
    }

    /// Its retry state, when it failed before.
    pub(crate) fn chain(&self) -> Option<&RetryRow> {
        match &self.origin {
            Origin::Fresh(_) | Origin::Test(_) => None,
            Origin::Parked(_, row) => row.as_deref(),
            Origin::Retry(_, row) => Some(row),
        }
    }

    /// Attempts made so far.
    pub(crate) fn attempts(&self) -> u32 {
        self.chain().map_or(0, |row| row.attempts)
    }
}
