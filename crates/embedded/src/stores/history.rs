//! Attempts: groups by endpoint and published second, which a delivery's id begins with. The names
//! of its event are in the event's record, and are read from there when someone asks.

use std::collections::BTreeMap;
use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use fanfare_domain::{DeliveryId, TenantId};
use fanfare_store::wire::attempt::{self, Attempt, GROUP, Naming};
use fanfare_store::{
    AttemptFilter, AttemptRow, History, PAGE_MAX, Page, PageToken, StoreError, StoreErrorKind,
};

use super::ATTEMPTS;
use super::events::body_at;
use super::groups::{self, Groups};
use super::journal::{Journal, failed};
use super::keys::{self, KeyRange};
use crate::changes::Batch;
use crate::engine::Engine;

/// Rows that one page looks at before it is given as it is, short.
const LOOK_MAX: usize = 50_000;

/// A delivery and the number of its attempt: how a list is ordered.
type Key = [u8; 28];

pub(super) struct Attempts {
    journal: Journal,
}

impl Attempts {
    pub(super) fn new(journal: Journal) -> Self {
        Self { journal }
    }
}

#[async_trait]
impl History for Attempts {
    async fn append(&self, rows: Vec<AttemptRow>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        for row in rows {
            let packed = attempt::encode(&row, Naming::ByPlace);
            bytes += packed.len() + GROUP;
            batch.pack(ATTEMPTS, attempt::group(&row.delivery).to_vec(), packed);
            if bytes >= self.journal.part_bytes() {
                bytes = 0;
                let part = std::mem::take(&mut batch);
                self.journal.engine.write(part).await.map_err(failed)?;
            }
        }
        if !batch.is_empty() {
            self.journal.engine.write(batch).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn attempts(
        &self,
        tenant: &TenantId,
        delivery: DeliveryId,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let tenant = tenant.clone();
        let read = move |engine: &Engine| {
            let group = attempt::group(&delivery);
            let rows = groups::whole(engine, ATTEMPTS, &group)?;
            let of_delivery = |(key, _): &(&Key, &Attempt)| key.starts_with(delivery.as_bytes());
            let attempts = last_written(&group, &rows)?;
            let mut last: Vec<_> = attempts
                .iter()
                .filter(of_delivery)
                .rev()
                .take(limit)
                .collect();
            last.reverse();
            let rows = last.into_iter().map(|(_, attempt)| attempt.clone());
            named(engine, &tenant, rows)
        };
        self.journal.blocking(read).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &AttemptFilter,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<AttemptRow>, StoreError> {
        let after = after.map(PageToken::key).transpose()?;
        let (tenant, filter) = (tenant.clone(), filter.clone());
        let list = move |engine: &Engine| {
            let page = page(engine, &filter, after, limit)?;
            let attempts = page.rows.into_iter().map(Attempt::without_answer);
            Ok(Page {
                rows: named(engine, &tenant, attempts)?,
                next: page.next,
            })
        };
        self.journal.blocking(list).await
    }
}

/// When the event of a group of attempts was published.
pub(super) fn attempt_micros(key: &[u8], _: &[u8]) -> Option<i64> {
    let (_, second) = key.get(..GROUP)?.split_last_chunk::<4>()?;
    Some(i64::from(u32::from_be_bytes(*second)) * 1_000_000)
}

fn page(
    engine: &Engine,
    filter: &AttemptFilter,
    after: Option<Key>,
    limit: usize,
) -> Result<Page<Attempt>, StoreError> {
    let limit = limit.clamp(1, PAGE_MAX);
    let mut groups = Groups::new(engine, ATTEMPTS, group_range(filter, after)?);
    let mut found = Vec::new();
    let mut looked = 0;
    while let Some((group, rows)) = groups.next()? {
        looked += rows.len();
        let group: [u8; GROUP] = (*group).try_into().map_err(|_| StoreErrorKind::Corrupt)?;
        let attempts = last_written(&group, &rows)?.into_iter().rev();
        let wanted = attempts
            .filter(|(key, _)| after.is_none_or(|after| *key < after))
            .filter(|(_, attempt)| admits(filter, attempt));
        found.extend(wanted);
        if found.len() > limit {
            break;
        }
        if looked >= LOOK_MAX {
            let mut end = [0; 28];
            end[..GROUP].copy_from_slice(&group);
            return Ok(Page {
                rows: found.into_iter().map(|(_, attempt)| attempt).collect(),
                next: Some(PageToken(end.to_vec())),
            });
        }
    }
    Ok(Page::cut(found, limit))
}

/// The groups of an endpoint that a filter and a token leave.
fn group_range(filter: &AttemptFilter, after: Option<Key>) -> Result<KeyRange, StoreError> {
    let endpoint = filter.endpoint.0.to_be_bytes();
    let at = |second: [u8; 4]| [&endpoint[..], &second[..]].concat();
    let mut range = KeyRange::prefix(&endpoint);
    if let Some(since) = filter.since {
        range.from = Bound::Included(at(keys::second(since)));
    }
    if let Some(until) = filter.until {
        range.to = Bound::Included(at(keys::second(until)));
    }
    if let Some(after) = after {
        if !after.starts_with(&endpoint) {
            return Err(StoreErrorKind::BadToken.into());
        }
        range.to = Bound::Included(after[..GROUP].to_vec());
    }
    Ok(range)
}

fn admits(filter: &AttemptFilter, attempt: &Attempt) -> bool {
    let published = attempt.delivery.published();
    filter.since.is_none_or(|since| published >= since)
        && filter.until.is_none_or(|until| published < until)
        && filter
            .blame
            .is_none_or(|blame| attempt.outcome.blame() == Some(blame))
}

/// The attempts of a group in order; of one that was written twice, the later.
fn last_written(group: &[u8; GROUP], rows: &[Bytes]) -> Result<BTreeMap<Key, Attempt>, StoreError> {
    let mut attempts = BTreeMap::new();
    for row in rows {
        let attempt = attempt::decode(group, row)?;
        let mut key = [0; 28];
        key[..24].copy_from_slice(attempt.delivery.as_bytes());
        key[24..].copy_from_slice(&attempt.number.to_be_bytes());
        attempts.insert(key, attempt);
    }
    Ok(attempts)
}

/// The attempts of `tenant` with their events' names; those whose event is gone are gone.
fn named(
    engine: &Engine,
    tenant: &TenantId,
    attempts: impl Iterator<Item = Attempt>,
) -> Result<Vec<AttemptRow>, StoreError> {
    let mut rows = Vec::new();
    for attempt in attempts {
        let event = if attempt.is_named() {
            None
        } else {
            body_at(engine, attempt.place)?
        };
        let row = attempt.name(event.as_ref());
        rows.extend(row.filter(|row| row.tenant == *tenant));
    }
    Ok(rows)
}
