//! The publish core: from what a producer sent to a durable record and an answer.
//!
//! Everything that publishes goes through here, one event or a thousand, so that all of it groups
//! into the same commits of the log: one append for what was read together, never a task or an
//! append per event. In order: check the event, recognise a repeat or a conflict, append, answer.
//!
//! Invariants: nothing is answered as accepted before its append resolved; a failed append is
//! never answered as refused when the record may have been written; two concurrent publishes of
//! one identity make one record unless the first one fails. Dropping a publish half-way (the
//! caller is gone) frees its identities; its record may still be written, and a repeat is then
//! dropped by the router.

mod recent;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfare_domain::trace::TRACEPARENT;
use fanfare_domain::{
    AcceptedEvent, Data, Event, EventId, EventKey, EventLimits, Shard, Source, TenantId, Timestamp,
};
use fanfare_event_log::record::encode_event;
use fanfare_event_log::{EventLog, LogError, Outgoing, Stream};
use fanfare_proto::v1;
use fanfare_service::{Clock, LineLimit, crash};
use fanfare_store::{EventRows, Known};
use tonic::Code;

use super::caller::Caller;
use super::config::FrontConfig;
use super::errors::Refusal;
use super::instruments::Instruments;
use super::wire::{self, Named};
use crate::traced;
use recent::{Claim, Claims, Identity, Recent};

/// Publishes events.
pub(crate) struct Ingest {
    log: Arc<dyn EventLog>,
    rows: Arc<dyn EventRows>,
    recent: Recent,
    limits: EventLimits,
    clock: Clock,
    room: Room,
    instruments: Instruments,
}

/// An event that passed every check that looks at it alone.
#[derive(Debug)]
pub(crate) struct Checked {
    event: AcceptedEvent,
    /// `None`: named here, so nobody else can have published it.
    identity: Option<Identity>,
    shard: Shard,
}

/// An event to publish, or why it cannot be.
pub(crate) type Arrival = Result<Checked, Refused>;

/// An event that was refused, and the order it belonged to.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) ordering_key: Option<String>,
}

/// What became of one event.
pub(crate) type Outcome = Result<Accepted, Refusal>;

/// An event that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) id: EventId,
    pub(crate) source: Source,
    /// When it was accepted first.
    pub(crate) accept_time: Timestamp,
    /// Whether that was before this call.
    pub(crate) duplicate: bool,
    /// What a person should know about its data.
    pub(crate) note: Option<&'static str>,
}

impl Ingest {
    pub(crate) fn new(
        config: &FrontConfig,
        log: Arc<dyn EventLog>,
        rows: Arc<dyn EventRows>,
        clock: Clock,
        instruments: Instruments,
    ) -> Self {
        Self {
            log,
            rows,
            recent: Recent::new(config.recent_events),
            limits: config.event_limits(),
            clock,
            room: Room::new(config.publishing_max.as_usize()),
            instruments,
        }
    }

    /// Checks what a producer sent. Pure but for the clock.
    pub(crate) fn check(&self, caller: &Caller, message: Option<v1::Event>) -> Arrival {
        let Some(message) = message else {
            let refusal = Refusal::field("EVENT_FIELD_INVALID", "event", "must be given");
            return Err(Refused::unordered(refusal));
        };
        let (ordering_key, id) = (message.ordering_key.clone(), message.id.clone());
        self.check_event(caller, message).map_err(|refusal| {
            tell_refused(&caller.tenant, &id, &refusal);
            Refused {
                refusal,
                ordering_key,
            }
        })
    }

    fn check_event(&self, caller: &Caller, message: v1::Event) -> Result<Checked, Refusal> {
        let now = self.clock.now();
        let (mut event, named) = wire::event_from(message, caller, now)?;
        event.check(&self.limits)?;
        // The event's own word is nearer to what happened than that of the call that carries it.
        if let Some(traceparent) = &caller.traceparent {
            let extensions = &mut event.extensions;
            let absent = extensions.entry(TRACEPARENT.into());
            absent.or_insert_with(|| traceparent.to_string());
        }
        let key = event.key(&caller.tenant);
        Ok(Checked {
            identity: (named == Named::ByProducer).then(|| self.recent.identity(&key)),
            shard: Shard::of_event(&key, &event),
            event: AcceptedEvent {
                tenant: key.tenant,
                body_hash: event.body_hash(),
                accept_time: now,
                event,
            },
        })
    }

    /// What this process remembers of having accepted under `key`.
    pub(crate) fn accepted(&self, key: &EventKey) -> Option<Known> {
        self.recent.settled(self.recent.identity(key))
    }

    /// Publishes one event.
    pub(crate) async fn publish(&self, arrival: Arrival) -> Outcome {
        let mut outcomes = self.publish_all(vec![arrival]).await;
        // One outcome per arrival.
        outcomes.pop().unwrap_or_else(|| Err(internal()))
    }

    /// Publishes events; one outcome each, in their order. Not atomic. A refused event holds back
    /// the later ones of its ordering key.
    ///
    /// Cancel safe in that nothing is left claimed; what was appended may be written.
    pub(crate) async fn publish_all(&self, arrivals: Vec<Arrival>) -> Vec<Outcome> {
        let bytes = arrivals.iter().flatten().map(Checked::size).sum();
        let Some(_room) = self.room.take(bytes) else {
            self.instruments.refused("OVERLOADED", arrivals.len());
            return arrivals
                .iter()
                .map(|_| Err(Refusal::overloaded()))
                .collect();
        };
        let mut batch = Batch::new(arrivals);
        while batch.has_open() {
            self.publish_open(&mut batch).await;
        }
        let outcomes = batch.into_outcomes();
        self.instruments.published(&outcomes);
        outcomes
    }

    /// One round: appends what is nobody else's, then waits for what others are publishing.
    async fn publish_open(&self, batch: &mut Batch) {
        let mut claims = self.recent.claims();
        let mut waits = Vec::new();
        let fresh: Vec<(usize, Checked)> = batch
            .take_open()
            .into_iter()
            .filter_map(|(index, checked)| {
                self.claim(&mut claims, batch, &mut waits, index, checked)
            })
            .collect();
        if !fresh.is_empty() {
            self.append(&mut claims, batch, fresh).await;
        }
        drop(claims);
        for wait in waits {
            wait.await;
        }
    }

    /// Decides about one event: its outcome if it is known, a later round if it must wait;
    /// otherwise it is ours to append.
    fn claim(
        &self,
        claims: &mut Claims<'_>,
        batch: &mut Batch,
        waits: &mut Vec<tokio::sync::futures::OwnedNotified>,
        index: usize,
        checked: Checked,
    ) -> Option<(usize, Checked)> {
        match batch.order_of(&checked) {
            Order::Free => {}
            Order::Held => {
                batch.settle(index, checked.ordering_key(), Err(held()));
                return None;
            }
            Order::Waiting => {
                batch.postpone(index, checked);
                return None;
            }
        }
        let Some(identity) = checked.identity else {
            return Some((index, checked));
        };
        let known = match claims.claim(identity) {
            Claim::Known(known) => known,
            Claim::Theirs(wait) => {
                waits.push(wait);
                batch.postpone(index, checked);
                return None;
            }
            Claim::Ours => match self.rows.known(&checked.event.key()) {
                None => return Some((index, checked)),
                Some(known) => {
                    claims.settle(identity, known);
                    known
                }
            },
        };
        let outcome = checked.repeated(known);
        let refusal = outcome.as_ref().err();
        if let Some(refusal) = refusal {
            let key = checked.event.key();
            tell_refused(&key.tenant, key.id.as_str(), refusal);
        }
        let error = refusal.map(Refusal::reason);
        traced::published(&checked.event, self.clock.now(), error);
        batch.settle(index, checked.ordering_key(), outcome);
        None
    }

    async fn append(
        &self,
        claims: &mut Claims<'_>,
        batch: &mut Batch,
        fresh: Vec<(usize, Checked)>,
    ) {
        let records = fresh.iter().map(|(_, checked)| checked.record()).collect();
        let started = std::time::Instant::now();
        let appended = self.log.append(Stream::Events, records).await;
        self.instruments.appended(started.elapsed());
        crash::point("ingest.appended");
        if let Err(error) = &appended {
            report(error);
            // What waits for another round would go the same way.
            batch.settle_open(&Refusal::of_append(error));
        } else {
            let identities = fresh
                .iter()
                .filter_map(|(_, checked)| Some((checked.identity?, checked.known())));
            claims.settle_all(identities);
        }
        let end = self.clock.now();
        for (index, checked) in fresh {
            let outcome = match &appended {
                Ok(_) => Ok(checked.accepted()),
                Err(error) => Err(Refusal::of_append(error)),
            };
            let error = outcome.as_ref().err().map(Refusal::reason);
            traced::published(&checked.event, end, error);
            batch.settle(index, checked.ordering_key(), outcome);
        }
    }
}

impl Checked {
    /// The order it belongs to.
    pub(crate) fn ordering_key(&self) -> Option<&str> {
        self.event.event.ordering_key.as_deref()
    }

    /// Bytes it occupies on its way, roughly.
    pub(crate) fn size(&self) -> usize {
        512 + self.event.event.data.bytes().len()
    }

    fn record(&self) -> Outgoing {
        Outgoing {
            shard: self.shard,
            subject: self.event.event.event_type.subject().into(),
            // Copies the data: nothing of the request's buffer is held from here on.
            bytes: encode_event(&self.event),
        }
    }

    fn known(&self) -> Known {
        Known {
            body_hash: self.event.body_hash,
            accept_time: self.event.accept_time,
        }
    }

    fn accepted(&self) -> Accepted {
        Accepted {
            id: self.event.event.id.clone(),
            source: self.event.event.source.clone(),
            accept_time: self.event.accept_time,
            duplicate: false,
            note: note(&self.event.event),
        }
    }

    /// The answer when this identity was published before.
    fn repeated(&self, known: Known) -> Outcome {
        if known.body_hash != self.event.body_hash {
            let what = format!(
                "another event with the id {} and the source {} was published at {}; use another id, \
                 or repeat that event unchanged",
                self.event.event.id, self.event.event.source, known.accept_time
            );
            return Err(Refusal::new(Code::AlreadyExists, "EVENT_ID_CONFLICT", what));
        }
        Ok(Accepted {
            accept_time: known.accept_time,
            duplicate: true,
            ..self.accepted()
        })
    }
}

impl Refused {
    /// A refusal of something that belongs to no order.
    pub(crate) fn unordered(refusal: Refusal) -> Self {
        Self {
            refusal,
            ordering_key: None,
        }
    }
}

/// What a person should know about data that is not JSON, the only kind that the libraries of
/// subscribers are made for.
fn note(event: &Event) -> Option<&'static str> {
    if event.is_json() || matches!(event.data, Data::None) {
        None
    } else if event.is_binary() {
        Some(
            "the data is binary: every subscriber gets it in a structured envelope, as data_base64",
        )
    } else {
        Some(
            "the data is not JSON: it is delivered and signed as it is, but the official Standard \
             Webhooks libraries parse JSON only",
        )
    }
}

/// The refusal of an event behind a refused one of its ordering key.
pub(crate) fn held() -> Refusal {
    let what = "an earlier event of this ordering key in the same call was refused; publish that \
                one first, then this one again";
    Refusal::new(Code::Aborted, "ORDER_HELD", what)
}

fn internal() -> Refusal {
    Refusal::new(
        Code::Internal,
        "INTERNAL",
        "the event got no outcome; please report this",
    )
}

/// A line, of which there are few a second, about an event that its producer must change.
fn tell_refused(tenant: &TenantId, id: &str, refusal: &Refusal) {
    static REFUSED: LineLimit = LineLimit::per_second(10);
    let Some(held_back) = REFUSED.admit() else {
        return;
    };
    // Not checked yet, perhaps: only so much of it, and nothing that a terminal obeys.
    let event_id: String = id.chars().filter(|c| !c.is_control()).take(255).collect();
    let reason = refusal.reason();
    tracing::info!(event_id, %tenant, reason, held_back, "a publish is refused");
}

fn report(error: &LogError) {
    let source = std::error::Error::source(error);
    tracing::warn!(%error, ?source, "events were not appended");
}

/// What is published by one call, on its way from arrivals to outcomes.
struct Batch {
    outcomes: Vec<Option<Outcome>>,
    /// What has no outcome yet, by rising index.
    open: Vec<(usize, Checked)>,
    /// Ordering keys that are not free, while there are any.
    orders: HashMap<String, Order>,
}

/// Whether an event may go now, as far as the order of its key is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Free,
    /// An earlier event of its key was refused.
    Held,
    /// An earlier event of its key waits for the next round.
    Waiting,
}

impl Batch {
    fn new(arrivals: Vec<Arrival>) -> Self {
        let mut batch = Self {
            outcomes: Vec::with_capacity(arrivals.len()),
            open: Vec::with_capacity(arrivals.len()),
            orders: HashMap::new(),
        };
        for (index, arrival) in arrivals.into_iter().enumerate() {
            batch.outcomes.push(None);
            match arrival {
                // Refused before anything is appended: an earlier one of its key goes on.
                Err(refused) => {
                    batch.settle(index, refused.ordering_key.as_deref(), Err(refused.refusal));
                }
                Ok(checked) if batch.order_of(&checked) == Order::Held => {
                    batch.settle(index, checked.ordering_key(), Err(held()));
                }
                Ok(checked) => batch.open.push((index, checked)),
            }
        }
        // From here on the arrivals before a refused one may still be refused, those behind it
        // have been.
        batch.orders.clear();
        batch
    }

    fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The open events, for another round.
    fn take_open(&mut self) -> Vec<(usize, Checked)> {
        self.orders.retain(|_, order| *order == Order::Held);
        std::mem::take(&mut self.open)
    }

    fn order_of(&self, checked: &Checked) -> Order {
        match checked.ordering_key() {
            Some(key) if !self.orders.is_empty() => {
                self.orders.get(key).copied().unwrap_or(Order::Free)
            }
            _ => Order::Free,
        }
    }

    /// Leaves an event for the next round, and what follows it in its order too.
    fn postpone(&mut self, index: usize, checked: Checked) {
        if let Some(key) = checked.ordering_key() {
            self.orders.insert(key.into(), Order::Waiting);
        }
        self.open.push((index, checked));
    }

    fn settle(&mut self, index: usize, ordering_key: Option<&str>, outcome: Outcome) {
        if let (Err(_), Some(key)) = (&outcome, ordering_key) {
            self.orders.insert(key.into(), Order::Held);
        }
        self.outcomes[index] = Some(outcome);
    }

    fn settle_open(&mut self, refusal: &Refusal) {
        for (index, _) in std::mem::take(&mut self.open) {
            self.outcomes[index] = Some(Err(refusal.clone()));
        }
    }

    fn into_outcomes(self) -> Vec<Outcome> {
        let outcomes = self.outcomes.into_iter();
        outcomes
            .map(|outcome| outcome.unwrap_or_else(|| Err(internal())))
            .collect()
    }
}

/// A bound on the bytes that are on their way into the log.
struct Room {
    max: usize,
    taken: AtomicUsize,
}

struct Taken<'a>(&'a Room, usize);

impl Room {
    fn new(max: usize) -> Self {
        Self {
            max,
            taken: AtomicUsize::new(0),
        }
    }

    /// Takes `bytes` until the answer is dropped; `None` when there is no room.
    fn take(&self, bytes: usize) -> Option<Taken<'_>> {
        let before = self.taken.fetch_add(bytes, Ordering::AcqRel);
        let taken = Taken(self, bytes);
        (before + bytes <= self.max).then_some(taken)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(self.1, Ordering::AcqRel);
    }
}
