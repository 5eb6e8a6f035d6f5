//! The list of a tenant's events: lines in groups of one second; the rest of a line is read from
//! the event's record.

use std::ops::Bound;

use fanfare_domain::{EventRef, TenantId, Timestamp};
use fanfare_store::wire::listed::Listed;
use fanfare_store::{EventFilter, EventSummary, PAGE_MAX, Page, StoreError, StoreErrorKind};

use super::super::LISTED;
use super::super::groups::Groups;
use super::super::keys::{self, KeyRange};
use super::body_at;
use crate::engine::Engine;

/// Accept time, span and position: how a list is ordered.
pub(super) type Key = [u8; 18];

/// The group of a line.
pub(super) fn group(tenant: &TenantId, accepted: Timestamp) -> Vec<u8> {
    keys::of_tenant(tenant, &keys::second(accepted))
}

/// When the events of a group were accepted.
pub(in crate::stores) fn listed_micros(key: &[u8], _: &[u8]) -> Option<i64> {
    // A stored key ends with where its rows began in the log.
    let (group, _) = key.split_last_chunk::<8>()?;
    group_second(group).map(|second| second * 1_000_000)
}

pub(super) fn page(
    engine: &Engine,
    tenant: &TenantId,
    filter: &EventFilter,
    after: Option<Key>,
    limit: usize,
) -> Result<Page<EventSummary>, StoreError> {
    let limit = limit.clamp(1, PAGE_MAX);
    let range = group_range(tenant, filter, after)?;
    let mut groups = Groups::new(engine, LISTED, range);
    let mut found = Vec::new();
    while let Some((group, rows)) = groups.next()? {
        let second = group_second(&group).ok_or(StoreErrorKind::Corrupt)?;
        let lines = rows.iter().map(|row| Listed::unpack(second, row));
        let mut lines = lines.collect::<Result<Vec<_>, _>>()?;
        lines.sort_by_key(|line| std::cmp::Reverse(key(line)));
        let lines = lines.into_iter().map(|line| (key(&line), line));
        found.extend(
            lines
                .filter(|(key, _)| after.is_none_or(|after| *key < after))
                .filter(|(_, line)| filter.admits(line.accept_time)),
        );
        if found.len() > limit {
            break;
        }
    }
    let page = Page::cut(found, limit);
    let mut rows = Vec::with_capacity(page.rows.len());
    for line in page.rows {
        rows.extend(summary(engine, tenant, line)?);
    }
    Ok(Page {
        rows,
        next: page.next,
    })
}

/// The groups of a tenant that a filter and a token leave.
fn group_range(
    tenant: &TenantId,
    filter: &EventFilter,
    after: Option<Key>,
) -> Result<KeyRange, StoreError> {
    let mut range = KeyRange::prefix(&keys::of_tenant(tenant, &[]));
    if let Some(since) = filter.since {
        range.from = Bound::Included(group(tenant, since));
    }
    if let Some(until) = filter.until {
        range.to = Bound::Included(group(tenant, until));
    }
    if let Some(after) = after {
        let time = after.first_chunk().ok_or(StoreErrorKind::BadToken)?;
        range.to = Bound::Included(group(tenant, Timestamp::from_key(*time)));
    }
    Ok(range)
}

fn group_second(group: &[u8]) -> Option<i64> {
    let second = group.last_chunk::<4>()?;
    Some(i64::from(u32::from_be_bytes(*second)))
}

fn key(line: &Listed) -> Key {
    let mut key = [0; 18];
    key[..8].copy_from_slice(&line.accept_time.key());
    key[8..10].copy_from_slice(&line.place.span.to_be_bytes());
    key[10..].copy_from_slice(&line.place.position.0.to_be_bytes());
    key
}

/// A line with what its event's record says; `None` when retention took it.
fn summary(
    engine: &Engine,
    tenant: &TenantId,
    line: Listed,
) -> Result<Option<EventSummary>, StoreError> {
    let event = body_at(engine, line.place)?.filter(|event| event.tenant == *tenant);
    Ok(event.map(|event| EventSummary {
        event: EventRef::new(event.key(), line.place),
        event_type: event.event.event_type.clone(),
        accept_time: line.accept_time,
        size: event.event.data.bytes().len() as u64,
        matched: line.matched,
    }))
}
