//! Event rows: heads by identity, lines by tenant and second; bodies stay where they were appended.
//!
//! The lowest place of an identity wins because records are claimed in the order of their places.
//! What was appended and not claimed yet is known by a put that the engine derives from the record
//! itself; the claim removes it. It may outlive the claim (see `SpaceSpec::fleeting`), so heads are
//! asked first.

mod list;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fanfare_domain::{
    AcceptedEvent, BodyHash, EventId, EventKey, EventRef, Place, Position, TenantId, Tenure,
    Timestamp,
};
use fanfare_event_log::{Identity, Record};
use fanfare_store::events::{CONFLICTS_MAX, SOURCES_MAX};
use fanfare_store::wire::listed::Listed;
use fanfare_store::wire::{EventHead, Row};
use fanfare_store::{
    Claim, Claimed, Conflict, EventFilter, EventRow, EventRows, EventSummary, Known, Page,
    PageToken, StoreError, StoreErrorKind,
};
use parking_lot::Mutex;

use super::journal::{Journal, Refused, failed};
use super::keys::{self, KeyRange};
use super::{ACCEPTED, EVENTS, LISTED};
use crate::changes::{Batch, Derive, Derived, Stamp};
use crate::engine::Engine;
use crate::view::Direction;
pub(super) use list::listed_micros;

pub(super) struct Events {
    journal: Journal,
    /// A claim is a look and a write.
    turn: Mutex<()>,
}

/// Says of every appended event that it was accepted.
pub(crate) struct Accepted;

impl Derive for Accepted {
    fn derive(&self, span: u16, record: &Bytes, out: &mut Vec<Derived>) {
        // A record that is no event is the router's to report, not the view's.
        if let Some(identity) = Identity::of(record) {
            out.push(Derived {
                space: ACCEPTED,
                key: identity_key(identity.tenant, identity.id, identity.source),
                value: accepted_value(span, &identity),
                stamp: Stamp::Value,
            });
        }
    }
}

impl Events {
    pub(super) fn new(journal: Journal) -> Self {
        Self {
            journal,
            turn: Mutex::default(),
        }
    }

    /// `known`, if its record is durable. The view also shows what only has its place yet, or what
    /// was lost with a failed sync; a repeat is answered as accepted, so it must not rely on that.
    fn durable(&self, known: Known, place: Place) -> Option<Known> {
        (place.position.0 < self.journal.engine.durable()).then_some(known)
    }

    /// Claims the first of `claims` that fit into one part, in one turn.
    fn claim_part(&self, tenure: &Tenure, claims: &[Claim]) -> Result<Vec<Claimed>, Refused> {
        let _turn = self.turn.lock();
        let mut part = Part::new(&self.journal.engine);
        let mut answers = Vec::with_capacity(claims.len());
        for claim in claims {
            answers.push(part.claim(claim)?);
            if part.bytes >= self.journal.part_bytes() {
                break;
            }
        }
        StoreError::unless_owner(tenure)?;
        if !part.batch.is_empty() {
            self.journal.submit(part.batch)?;
        }
        Ok(answers)
    }
}

/// Claims that become one frame.
struct Part<'a> {
    engine: &'a Engine,
    /// Heads that this part writes: later claims see them.
    written: HashMap<Vec<u8>, EventHead>,
    batch: Batch,
    bytes: usize,
}

impl<'a> Part<'a> {
    fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            written: HashMap::new(),
            batch: Batch::default(),
            bytes: 0,
        }
    }

    fn claim(&mut self, claim: &Claim) -> Result<Claimed, StoreError> {
        let event = &claim.event.event;
        let tenant = claim.event.tenant.as_str();
        let key = identity_key(tenant, event.id.as_str(), event.source.as_str());
        let Some(mut head) = self.head(&key)? else {
            self.first(key, claim);
            return Ok(Claimed::Fresh);
        };
        if head.place == claim.place {
            return Ok(head.route.map_or(Claimed::Fresh, Claimed::Own));
        }
        if head.known.body_hash == claim.event.body_hash {
            return Ok(Claimed::Repeat);
        }
        let known = head.conflicts.iter().any(|c| c.place == claim.place);
        if !known && head.conflicts.len() < CONFLICTS_MAX {
            head.conflicts.push(Conflict {
                place: claim.place,
                body_hash: claim.event.body_hash,
                accept_time: claim.event.accept_time,
            });
            self.put(key, head);
        }
        Ok(Claimed::Conflict)
    }

    fn head(&self, key: &[u8]) -> Result<Option<EventHead>, StoreError> {
        if let Some(head) = self.written.get(key) {
            return Ok(Some(head.clone()));
        }
        head(self.engine, key)
    }

    fn first(&mut self, key: Vec<u8>, claim: &Claim) {
        let matched = u32::try_from(claim.route.matched.len()).unwrap_or(u32::MAX);
        let listed = Listed {
            accept_time: claim.event.accept_time,
            place: claim.place,
            matched,
        };
        let group = list::group(&claim.event.tenant, claim.event.accept_time);
        self.batch.pack(LISTED, group, listed.pack());
        self.batch.delete(ACCEPTED, key.clone());
        let head = EventHead {
            place: claim.place,
            known: Known {
                body_hash: claim.event.body_hash,
                accept_time: claim.event.accept_time,
            },
            route: Some(claim.route.clone()),
            conflicts: Vec::new(),
        };
        self.put(key, head);
    }

    fn put(&mut self, key: Vec<u8>, head: EventHead) {
        let mut value = head.known.accept_time.key().to_vec();
        value.extend_from_slice(&head.seal());
        self.bytes += 2 * key.len() + value.len();
        self.batch.put(EVENTS, key.clone(), value);
        self.written.insert(key, head);
    }
}

#[async_trait]
impl EventRows for Events {
    fn known(&self, key: &EventKey) -> Option<Known> {
        let names = identity_key(key.tenant.as_str(), key.id.as_str(), key.source.as_str());
        // "Not known here" is the answer to a view that cannot be read: the claim will tell.
        match head(&self.journal.engine, &names) {
            Ok(Some(head)) => self.durable(head.known, head.place),
            Ok(None) => {
                let accepted = self.journal.engine.get(ACCEPTED, &names).ok()??;
                let (known, place) = parse_accepted(&accepted)?;
                self.durable(known, place)
            }
            Err(_) => None,
        }
    }

    async fn claim(&self, tenure: &Tenure, claims: Vec<Claim>) -> Result<Vec<Claimed>, StoreError> {
        let mut answers = Vec::with_capacity(claims.len());
        while answers.len() < claims.len() || claims.is_empty() {
            let rest = &claims[answers.len()..];
            let part = self.journal.write(|| self.claim_part(tenure, rest)).await?;
            answers.extend(part);
            if claims.is_empty() {
                break;
            }
        }
        Ok(answers)
    }

    async fn get(&self, tenant: &TenantId, id: &EventId) -> Result<Vec<EventRow>, StoreError> {
        let prefix = keys::names(&[id.as_str(), tenant.as_str()]);
        self.journal
            .blocking(move |engine| rows(engine, &prefix))
            .await
    }

    async fn bodies(
        &self,
        refs: &[EventRef],
    ) -> Result<Vec<Option<Arc<AcceptedEvent>>>, StoreError> {
        let engine = &self.journal.engine;
        let recent = |r: &EventRef| engine.read_recent(r.place.span, r.place.position);
        let found: Vec<_> = refs.iter().map(recent).collect();
        if found.iter().all(Option::is_some) {
            let bodies = refs.iter().zip(found);
            return Ok(bodies.map(|(r, bytes)| owned_body(r, bytes)).collect());
        }
        let refs = refs.to_vec();
        let read = move |engine: &Engine| {
            let body = |r: &EventRef| Ok(owned_body(r, record_at(engine, r.place)?));
            refs.iter().map(body).collect()
        };
        self.journal.blocking(read).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<EventSummary>, StoreError> {
        let after = after.map(PageToken::key).transpose()?;
        let (tenant, filter) = (tenant.clone(), filter.clone());
        let list = move |engine: &Engine| list::page(engine, &tenant, &filter, after, limit);
        self.journal.blocking(list).await
    }
}

/// The accepted event whose record lies at `place`; `None` when retention took it.
pub(super) fn body_at(engine: &Engine, place: Place) -> Result<Option<AcceptedEvent>, StoreError> {
    Ok(record_at(engine, place)?.and_then(|bytes| event(&bytes)))
}

/// When an event was accepted that has a head.
pub(super) fn event_micros(_: &[u8], value: &[u8]) -> Option<i64> {
    value
        .first_chunk::<8>()
        .map(|key| Timestamp::from_key(*key).micros())
}

/// When an event was accepted that was never claimed.
pub(super) fn accepted_micros(_: &[u8], value: &[u8]) -> Option<i64> {
    parse_accepted(value).map(|(known, _)| known.accept_time.micros())
}

fn record_at(engine: &Engine, place: Place) -> Result<Option<Bytes>, StoreError> {
    engine.read_at(place.span, place.position).map_err(failed)
}

fn event(bytes: &Bytes) -> Option<AcceptedEvent> {
    match Record::decode(bytes) {
        Ok(Record::Event(event)) => Some(event),
        _ => None,
    }
}

/// The body that `r` refers to, if these are its bytes. Its data is a slice of them.
fn owned_body(r: &EventRef, bytes: Option<Bytes>) -> Option<Arc<AcceptedEvent>> {
    let event = event(&bytes?)?;
    (event.key() == r.key).then(|| Arc::new(event))
}

/// The id first: it is what tells keys apart soonest.
fn identity_key(tenant: &str, id: &str, source: &str) -> Vec<u8> {
    keys::names(&[id, tenant, source])
}

fn head(engine: &Engine, key: &[u8]) -> Result<Option<EventHead>, StoreError> {
    let value = engine.get(EVENTS, key).map_err(failed)?;
    value.map(|value| open_head(&value)).transpose()
}

fn open_head(value: &[u8]) -> Result<EventHead, StoreError> {
    let (_, head) = value
        .split_first_chunk::<8>()
        .ok_or(StoreErrorKind::Corrupt)?;
    Ok(EventHead::open(head)?)
}

/// The rows of one tenant's event id. What was only accepted is read first: a claim meanwhile
/// moves it to the heads, which are read after.
fn rows(engine: &Engine, prefix: &[u8]) -> Result<Vec<EventRow>, StoreError> {
    let range = KeyRange::prefix(prefix);
    let scan = |space| {
        let entries = engine.scan(space, range.as_bounds(), Direction::Forward, SOURCES_MAX);
        entries.map_err(failed)
    };
    let (accepted, claimed) = (scan(ACCEPTED)?, scan(EVENTS)?);
    let mut heads = Vec::new();
    for (key, value) in &claimed {
        heads.push((key, open_head(value)?));
    }
    for (key, value) in &accepted {
        let unclaimed = || parse_accepted(value).map(|(known, place)| unclaimed(known, place));
        if !claimed.iter().any(|(claimed, _)| claimed == key) {
            heads.extend(unclaimed().map(|head| (key, head)));
        }
    }
    let mut rows = Vec::new();
    for (_, head) in heads.into_iter().take(SOURCES_MAX) {
        let body = body_at(engine, head.place)?;
        rows.extend(body.map(|event| EventRow {
            event,
            place: head.place,
            route: head.route,
            conflicts: head.conflicts,
        }));
    }
    Ok(rows)
}

fn unclaimed(known: Known, place: Place) -> EventHead {
    EventHead {
        place,
        known,
        route: None,
        conflicts: Vec::new(),
    }
}

/// Version, span, hash and accept time; the engine adds the position.
fn accepted_value(span: u16, identity: &Identity<'_>) -> Vec<u8> {
    let mut value = Vec::with_capacity(35);
    value.push(1);
    value.extend_from_slice(&span.to_be_bytes());
    value.extend_from_slice(&identity.body_hash.0);
    value.extend_from_slice(&identity.accept_time.key());
    value
}

fn parse_accepted(value: &[u8]) -> Option<(Known, Place)> {
    let rest = value.strip_prefix(&[1])?;
    let (span, rest) = rest.split_first_chunk::<2>()?;
    let (hash, rest) = rest.split_first_chunk::<16>()?;
    let (time, position) = rest.split_first_chunk::<8>()?;
    let known = Known {
        body_hash: BodyHash(*hash),
        accept_time: Timestamp::from_key(*time),
    };
    let place = Place {
        span: u16::from_be_bytes(*span),
        position: Position(u64::from_be_bytes(position.try_into().ok()?)),
    };
    Some((known, place))
}
