//! Event rows: the body once, in the event's own partition, and a line in its tenant's list.
//!
//! A claim is a read and a write without a condition: claims of one identity come through one span,
//! whose owner is alone and in order, so the lowest place comes first; its writes carry rising
//! stamps, and a former owner's late write loses. (Records of one identity under different ordering
//! keys may lie in different spans. Their bodies differ by that key; two owners that claim them in
//! the same moments may both find nothing, and both are delivered.)

mod verdict;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use fanfare_domain::{AcceptedEvent, EventId, EventKey, EventRef, TenantId, Tenure, Timestamp};
use fanfare_store::events::SOURCES_MAX;
use fanfare_store::wire::{EventHead, Row};
use fanfare_store::{
    Claim, Claimed, EventFilter, EventRow, EventRows, EventSummary, Known, Page, PageToken,
    StoreError, StoreErrorKind,
};
use parking_lot::Mutex;
use scylla::statement::prepared::PreparedStatement;

use crate::calendar::{Calendar, Kind};
use crate::error::OpenError;
use crate::newest::{self, Listing};
use crate::session::{Cql, Put, each, stamp, ttl};
use verdict::Verdict;

/// Bytes of a body in one row.
const PART_BYTES: usize = 256 * 1024;
/// Identities remembered for the front door, twice.
const RECENT_MAX: usize = 16 * 1024;
/// Heads asked for by one request: the node that gets it reads as many partitions.
const HEADS_MAX: usize = 20;
const NEVER: i64 = i64::MAX / 2_000_000;

pub(crate) struct Events {
    cql: Arc<Cql>,
    calendar: Arc<Calendar>,
    statements: Statements,
    recent: Mutex<Recent>,
    ttl: i32,
}

struct Statements {
    heads: PreparedStatement,
    rows: PreparedStatement,
    body: PreparedStatement,
    insert: PreparedStatement,
    reseal: PreparedStatement,
    enlist: PreparedStatement,
    below: PreparedStatement,
}

/// The last identities claimed here: a young generation and the one before.
#[derive(Default)]
struct Recent {
    young: HashMap<EventKey, Known>,
    old: HashMap<EventKey, Known>,
}

impl Recent {
    fn get(&self, key: &EventKey) -> Option<Known> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    fn put(&mut self, key: EventKey, known: Known) {
        if self.young.len() >= RECENT_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, known);
    }
}

impl Events {
    pub(crate) async fn open(
        cql: &Arc<Cql>,
        calendar: &Arc<Calendar>,
        days: u32,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            statements: Statements::prepare(cql).await?,
            cql: cql.clone(),
            calendar: calendar.clone(),
            recent: Mutex::default(),
            ttl: ttl(days),
        })
    }

    /// The heads that are stored of `keys`, some of one tenant and source by each request.
    async fn heads(&self, keys: &[EventKey]) -> Result<HashMap<EventKey, EventHead>, StoreError> {
        let mut keys: Vec<&EventKey> = keys.iter().collect();
        keys.sort_by_key(|key| (&key.tenant, &key.source, &key.id));
        keys.dedup();
        let alike = keys.chunk_by(|a, b| (&a.tenant, &a.source) == (&b.tenant, &b.source));
        let requests = alike.flat_map(|keys| keys.chunks(HEADS_MAX));
        let found = each(requests, |keys| self.heads_alike(keys)).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The same of keys that have tenant and source in common.
    async fn heads_alike(
        &self,
        keys: &[&EventKey],
    ) -> Result<Vec<(EventKey, EventHead)>, StoreError> {
        let Some(first) = keys.first() else {
            return Ok(Vec::new());
        };
        let ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
        let values = (first.tenant.as_str(), ids, first.source.as_str());
        let rows: Vec<(String, Vec<u8>)> = self.cql.rows(&self.statements.heads, values).await?;
        let open = |(id, head): (String, Vec<u8>)| {
            let key = EventKey {
                tenant: first.tenant.clone(),
                id: EventId::try_new(id).map_err(|_| StoreErrorKind::Corrupt)?,
                source: first.source.clone(),
            };
            Ok((key, EventHead::open(&head)?))
        };
        rows.into_iter().map(open).collect()
    }

    /// The first row and the further parts of a body.
    fn rows(&self, claim: &Claim, head: Vec<u8>) -> Vec<Put<EventValues>> {
        let key = claim.event.key();
        let body = claim.event.seal();
        let parts: Vec<&[u8]> = body.chunks(PART_BYTES).collect();
        let count = i16::try_from(parts.len()).unwrap_or(i16::MAX);
        let mut head = Some(head);
        let put = |(part, bytes): (i16, &[u8])| Put {
            bytes: 128 + bytes.len(),
            values: (
                key.tenant.as_str().to_owned(),
                key.id.as_str().to_owned(),
                key.source.as_str().to_owned(),
                part,
                head.take(),
                count,
                bytes.to_vec(),
                self.ttl,
            ),
        };
        // The first part is what makes the event known: a batch writes it last.
        let mut puts: Vec<_> = (0..).zip(parts).map(put).collect();
        puts.rotate_left(1);
        puts
    }

    async fn write(&self, tenure: &Tenure, verdict: &Verdict<'_>) -> Result<(), StoreError> {
        let stamp = stamp(tenure)?;
        let sealed = |key: &EventKey| {
            let head = verdict.heads.get(key);
            head.map(Row::seal).unwrap_or_default()
        };
        let (mut parts, mut firsts) = (Vec::new(), Vec::new());
        for claim in &verdict.fresh {
            let mut rows = self.rows(claim, sealed(&claim.event.key()));
            firsts.extend(rows.pop());
            parts.extend(rows);
        }
        let reseal = |key: &EventKey| {
            let head = sealed(key);
            Put {
                bytes: 128 + head.len(),
                values: (
                    self.ttl,
                    head,
                    key.tenant.as_str().to_owned(),
                    key.id.as_str().to_owned(),
                    key.source.as_str().to_owned(),
                ),
            }
        };
        let resealed = verdict.resealed.iter().map(reseal).collect();
        if !parts.is_empty() {
            let insert = &self.statements.insert;
            self.cql.put(Some(tenure), stamp, insert, parts).await?;
        }
        let (first, reseal, listed) = futures::join!(
            self.cql
                .put(Some(tenure), stamp, &self.statements.insert, firsts),
            self.cql
                .put(Some(tenure), stamp, &self.statements.reseal, resealed),
            self.enlist(tenure, stamp, &verdict.listed),
        );
        first.and(reseal).and(listed)
    }

    async fn enlist(
        &self,
        tenure: &Tenure,
        stamp: i64,
        listed: &[(&Claim, usize)],
    ) -> Result<(), StoreError> {
        let slots = listed.iter().map(|(claim, _)| {
            let tenant = claim.event.tenant.as_str().to_owned();
            (Kind::Events, tenant, slot(claim))
        });
        self.calendar.note(slots).await?;
        let put = |(claim, matched): &(&Claim, usize)| {
            let tenant = claim.event.tenant.as_str().to_owned();
            let summary = EventSummary {
                event: EventRef::new(claim.event.key(), claim.place),
                event_type: claim.event.event.event_type.clone(),
                accept_time: claim.event.accept_time,
                size: claim.event.event.data.bytes().len() as u64,
                matched: u32::try_from(*matched).unwrap_or(u32::MAX),
            };
            let row = summary.seal();
            Put {
                bytes: 64 + row.len(),
                values: (tenant, slot(claim), list_key(claim), row, self.ttl),
            }
        };
        let puts = listed.iter().map(put).collect();
        let enlist = &self.statements.enlist;
        self.cql.put(Some(tenure), stamp, enlist, puts).await
    }

    async fn body(&self, key: &EventKey) -> Result<Option<Arc<AcceptedEvent>>, StoreError> {
        let values = (key.tenant.as_str(), key.id.as_str(), key.source.as_str());
        let rows: Vec<(i16, Vec<u8>)> = self.cql.rows(&self.statements.body, values).await?;
        // Retention takes the rows of one write together, yet not in one moment.
        let Some((count, _)) = rows
            .first()
            .filter(|(n, _)| usize::from(n.unsigned_abs()) == rows.len())
        else {
            return Ok(None);
        };
        debug_assert!(*count > 0, "a body has a part");
        let bytes = match rows.as_slice() {
            [(_, only)] => AcceptedEvent::open(only)?,
            parts => AcceptedEvent::open(
                &parts
                    .iter()
                    .flat_map(|(_, b)| b.clone())
                    .collect::<Vec<_>>(),
            )?,
        };
        Ok(Some(Arc::new(bytes)))
    }
}

/// Tenant, id, source, part, head of the first part, parts, body, time to live.
type EventValues = (
    String,
    String,
    String,
    i16,
    Option<Vec<u8>>,
    i16,
    Vec<u8>,
    i32,
);

impl Statements {
    async fn prepare(cql: &Cql) -> Result<Self, OpenError> {
        let event = "FROM event WHERE tenant = ? AND event_id = ?";
        Ok(Self {
            heads: cql
                .prepare(
                    "SELECT event_id, head FROM event \
                     WHERE tenant = ? AND event_id IN ? AND source = ? AND part = 0",
                )
                .await?,
            rows: cql
                .prepare(&format!("SELECT source, part, head {event} LIMIT ?"))
                .await?,
            body: cql
                .prepare(&format!("SELECT parts, body {event} AND source = ?"))
                .await?,
            insert: cql
                .prepare(
                    "INSERT INTO event (tenant, event_id, source, part, head, parts, body) \
                     VALUES (?, ?, ?, ?, ?, ?, ?) USING TTL ?",
                )
                .await?,
            reseal: cql
                .prepare(
                    "UPDATE event USING TTL ? SET head = ? \
                     WHERE tenant = ? AND event_id = ? AND source = ? AND part = 0",
                )
                .await?,
            enlist: cql
                .prepare("INSERT INTO event_by_time (tenant, slot, key, row) VALUES (?, ?, ?, ?) USING TTL ?")
                .await?,
            below: cql
                .prepare("SELECT key, row FROM event_by_time WHERE tenant = ? AND slot = ? AND key < ? LIMIT ?")
                .await?,
        })
    }
}

#[async_trait]
impl EventRows for Events {
    fn known(&self, key: &EventKey) -> Option<Known> {
        self.recent.lock().get(key)
    }

    async fn claim(&self, tenure: &Tenure, claims: Vec<Claim>) -> Result<Vec<Claimed>, StoreError> {
        StoreError::unless_owner(tenure)?;
        let keys: Vec<_> = claims.iter().map(|claim| claim.event.key()).collect();
        let heads = self.heads(&keys).await?;
        let (verdict, answers) = Verdict::of(&claims, heads);
        self.write(tenure, &verdict).await?;
        let mut recent = self.recent.lock();
        for (key, head) in verdict.heads {
            recent.put(key, head.known);
        }
        Ok(answers)
    }

    async fn get(&self, tenant: &TenantId, id: &EventId) -> Result<Vec<EventRow>, StoreError> {
        let limit = i32::try_from(SOURCES_MAX * 8).unwrap_or(i32::MAX);
        let values = (tenant.as_str(), id.as_str(), limit);
        let rows: Vec<(String, i16, Option<Vec<u8>>)> =
            self.cql.rows(&self.statements.rows, values).await?;
        let firsts = rows.into_iter().filter_map(|(source, part, head)| {
            head.filter(|_| part == 0).map(|head| (source, head))
        });
        let row = |(source, head): (String, Vec<u8>)| async move {
            let head = EventHead::open(&head)?;
            let key = EventKey {
                tenant: tenant.clone(),
                id: id.clone(),
                source: fanfare_domain::Source::try_new(source)
                    .map_err(|_| StoreErrorKind::Corrupt)?,
            };
            let body = self.body(&key).await?;
            Ok(body.map(|event| EventRow {
                event: (*event).clone(),
                place: head.place,
                route: head.route,
                conflicts: head.conflicts,
            }))
        };
        let rows = each(firsts.take(SOURCES_MAX), row).await?;
        Ok(rows.into_iter().flatten().collect())
    }

    async fn bodies(
        &self,
        refs: &[EventRef],
    ) -> Result<Vec<Option<Arc<AcceptedEvent>>>, StoreError> {
        let mut keys: Vec<&EventKey> = refs.iter().map(|r| &r.key).collect();
        keys.sort();
        keys.dedup();
        let read = |key| async move { Ok((key, self.body(key).await?)) };
        let found: HashMap<&EventKey, _> = each(keys, read).await?.into_iter().collect();
        let body = |r: &EventRef| found.get(&r.key).cloned().flatten();
        Ok(refs.iter().map(body).collect())
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<EventSummary>, StoreError> {
        let mut until = filter.until.map_or(NEVER, Timestamp::seconds);
        if let Some(token) = after {
            let key: [u8; 18] = token.key()?;
            let time = key.first_chunk::<8>().copied().unwrap_or_default();
            until = until.min(Timestamp::from_key(time).seconds());
        }
        let listing = Listing {
            calendar: &self.calendar,
            kind: Kind::Events,
            owner: tenant.as_str().to_owned(),
            seconds: (filter.since.map_or(0, Timestamp::seconds), until),
        };
        let read = |slot, below: Vec<u8>, count| async move {
            let values = (tenant.as_str(), slot, below, count);
            self.cql.rows(&self.statements.below, values).await
        };
        let keep = |_: &[u8], bytes: &[u8]| {
            let row = EventSummary::open(bytes)?;
            Ok(filter.admits(row.accept_time).then_some(row))
        };
        listing.page(after, limit, read, keep).await
    }
}

/// Events of one span and hour share a partition, and so their claims' batches.
fn slot(claim: &Claim) -> i64 {
    newest::slot(claim.event.accept_time.seconds(), claim.place.span.into())
}

fn list_key(claim: &Claim) -> Vec<u8> {
    let mut key = claim.event.accept_time.key().to_vec();
    key.extend_from_slice(&claim.place.span.to_be_bytes());
    key.extend_from_slice(&claim.place.position.0.to_be_bytes());
    key
}
