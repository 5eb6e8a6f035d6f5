//! Retry state, and the time wheel of due hints.
//!
//! The wheel's partitions are (shard, minute); the calendar says which hold anything, so a scan
//! from a cursor costs what is due after it. Nothing is read behind the cursor, and what was left
//! there runs out with its time to live. Hint first, then state.

use std::sync::Arc;

use async_trait::async_trait;
use fanfare_domain::{DeliveryId, EndpointId, Shard, ShardSet, Tenure, Timestamp};
use fanfare_store::wire::Row;
use fanfare_store::{
    DueHint, PAGE_MAX, Page, PageToken, Retries, RetryRow, RetryState, StoreError, StoreErrorKind,
};
use scylla::statement::prepared::PreparedStatement;

use crate::by_delivery::{self, ByDelivery, Kept, last_of_each};
use crate::calendar::{Calendar, Kind, SLOTS_MAX};
use crate::error::{OpenError, corrupt};
use crate::session::{Cql, Put, each, stamp, ttl};

/// Calendars that the wheel's shards are spread over.
const WHEELS: u8 = 16;
const SHARDS: i64 = 256;
const MINUTE: i64 = 60_000_000;
/// Rows looked at for one page of open ones.
const LOOKED_MAX: usize = 5 * PAGE_MAX;

pub(crate) struct RetryStates {
    cql: Arc<Cql>,
    calendar: Arc<Calendar>,
    rows: ByDelivery,
    insert: PreparedStatement,
    delete: PreparedStatement,
    select: PreparedStatement,
    ttl: i32,
}

impl RetryStates {
    pub(crate) async fn open(
        cql: &Arc<Cql>,
        calendar: &Arc<Calendar>,
        days: u32,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            rows: ByDelivery::open(cql, "retry").await?,
            insert: cql
                .prepare("INSERT INTO due (shard, minute, due, delivery) VALUES (?, ?, ?, ?) USING TTL ?")
                .await?,
            delete: cql
                .prepare("DELETE FROM due WHERE shard = ? AND minute = ? AND due = ? AND delivery = ?")
                .await?,
            select: cql
                .prepare(
                    "SELECT due, delivery FROM due WHERE shard = ? AND minute = ? \
                     AND (due, delivery) > (?, ?) AND (due) <= (?) LIMIT ?",
                )
                .await?,
            // A hint is due a day ahead at most; what is older than its event fires for nothing.
            ttl: ttl(days.saturating_add(2)),
            cql: cql.clone(),
            calendar: calendar.clone(),
        })
    }

    async fn hint(&self, tenure: &Tenure, stamp: i64, rows: &[RetryRow]) -> Result<(), StoreError> {
        let hints: Vec<DueHint> = rows.iter().filter_map(hint).collect();
        let slots = hints.iter().map(|hint| {
            let shard = shard(hint);
            (
                Kind::Due,
                wheel(shard),
                minute(hint.due) * SHARDS + i64::from(shard.0),
            )
        });
        self.calendar.note(slots).await?;
        let put = |hint: &DueHint| {
            let (shard, minute) = (i16::from(shard(hint).0), minute(hint.due));
            let id = hint.delivery.as_bytes().to_vec();
            Put {
                bytes: 64,
                values: (shard, minute, hint.due.micros(), id, self.ttl),
            }
        };
        let puts = hints.iter().map(put).collect();
        self.cql.put(Some(tenure), stamp, &self.insert, puts).await
    }

    /// Slots of a wheel in `from..=to` minutes that are of `shards`, and how far they are complete.
    async fn slots(
        &self,
        wheel: u8,
        (from, to): (i64, i64),
    ) -> Result<(Vec<(i64, Shard)>, i64), StoreError> {
        let range = (
            from.saturating_mul(SHARDS),
            to.saturating_mul(SHARDS).saturating_add(SHARDS - 1),
        );
        let owner = wheel.to_string();
        let slots = self.calendar.rising(Kind::Due, &owner, range).await?;
        let full = slots.len() == usize::try_from(SLOTS_MAX).unwrap_or(0);
        let parse = |slot: &i64| {
            let shard = u8::try_from(slot.rem_euclid(SHARDS)).unwrap_or(0);
            (slot.div_euclid(SHARDS), Shard(shard))
        };
        let slots: Vec<_> = slots.iter().map(parse).collect();
        let complete = match slots.last() {
            Some((minute, _)) if full => minute - 1,
            _ => to,
        };
        Ok((slots, complete))
    }

    async fn scan(
        &self,
        (minute, shard): (i64, Shard),
        after: Option<DueHint>,
        until: Timestamp,
        limit: i32,
    ) -> Result<Vec<DueHint>, StoreError> {
        let (due, id) = after.map_or((i64::MIN, Vec::new()), |hint| {
            (hint.due.micros(), hint.delivery.as_bytes().to_vec())
        });
        let values = (i16::from(shard.0), minute, due, id, until.micros(), limit);
        let rows: Vec<(i64, Vec<u8>)> = self.cql.rows(&self.select, values).await?;
        let parse = |(due, id): (i64, Vec<u8>)| {
            Ok(DueHint {
                due: Timestamp::from_micros(due),
                delivery: delivery(&id)?,
            })
        };
        rows.into_iter().map(parse).collect()
    }
}

#[async_trait]
impl Retries for RetryStates {
    async fn put(&self, tenure: &Tenure, rows: Vec<RetryRow>) -> Result<(), StoreError> {
        let stamp = stamp(tenure)?;
        self.hint(tenure, stamp, &rows).await?;
        StoreError::unless_owner(tenure)?;
        let rows = last_of_each(rows, |row| row.delivery);
        let hours = rows.iter().map(|row| {
            let id = row.delivery;
            (
                Kind::Retries,
                id.endpoint().0.to_string(),
                by_delivery::hour(id),
            )
        });
        self.calendar.note(hours).await?;
        let kept = |row: &RetryRow| Kept {
            delivery: row.delivery,
            bytes: row.seal(),
            ttl: match row.state {
                RetryState::DueAt(_) => 0,
                RetryState::Delivered(_) | RetryState::DeadLetter(_) => self.ttl,
            },
        };
        self.rows
            .put(tenure, stamp, rows.iter().map(kept).collect())
            .await
    }

    async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<Option<RetryRow>>, StoreError> {
        self.rows.rows(ids).await
    }

    async fn due(
        &self,
        shards: ShardSet,
        after: Option<DueHint>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueHint>, StoreError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let count = i32::try_from(limit).unwrap_or(i32::MAX);
        let last = minute(until);
        let mut from = after.map_or(i64::MIN / MINUTE, |hint| minute(hint.due));
        let mut wheels: Vec<u8> = shards.iter().map(|shard| shard.0 % WHEELS).collect();
        wheels.sort_unstable();
        wheels.dedup();
        let mut found = Vec::new();
        while from <= last {
            let read = each(wheels.iter(), |wheel| self.slots(*wheel, (from, last))).await?;
            let complete = read
                .iter()
                .map(|(_, complete)| *complete)
                .min()
                .unwrap_or(last);
            let mut slots: Vec<_> = read.into_iter().flat_map(|(slots, _)| slots).collect();
            slots.retain(|(minute, shard)| *minute <= complete && shards.contains(*shard));
            slots.sort_unstable_by_key(|(minute, shard)| (*minute, shard.0));
            for minute in slots.chunk_by(|a, b| a.0 == b.0) {
                let hints =
                    each(minute.iter(), |slot| self.scan(*slot, after, until, count)).await?;
                let mut hints: Vec<_> = hints.into_iter().flatten().collect();
                hints.sort_unstable();
                found.extend(hints);
                if found.len() >= limit {
                    found.truncate(limit);
                    return Ok(found);
                }
            }
            from = complete + 1;
        }
        Ok(found)
    }

    async fn forget(&self, tenure: &Tenure, hints: Vec<DueHint>) -> Result<(), StoreError> {
        let put = |hint: &DueHint| {
            let (shard, minute) = (i16::from(shard(hint).0), minute(hint.due));
            let id = hint.delivery.as_bytes().to_vec();
            Put {
                bytes: 64,
                values: (shard, minute, hint.due.micros(), id),
            }
        };
        let stamp = stamp(tenure)?;
        let puts = hints.iter().map(put).collect();
        self.cql.put(Some(tenure), stamp, &self.delete, puts).await
    }

    async fn open(
        &self,
        endpoint: EndpointId,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<RetryRow>, StoreError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let (mut hour, mut last) = (0, Vec::new());
        if let Some(token) = after {
            let id = DeliveryId::from_bytes(token.key()?);
            if id.endpoint() != endpoint {
                return Err(StoreErrorKind::BadToken.into());
            }
            (hour, last) = (by_delivery::hour(id), id.as_bytes().to_vec());
        }
        let owner = endpoint.0.to_string();
        let (mut open, mut looked) = (Vec::new(), 0);
        loop {
            let hours = self
                .calendar
                .rising(Kind::Retries, &owner, (hour, i64::MAX))
                .await?;
            let full = hours.len() == usize::try_from(SLOTS_MAX).unwrap_or(0);
            for at in &hours {
                loop {
                    let want = limit + 1;
                    let count = i32::try_from(want).unwrap_or(i32::MAX);
                    let rows = self.rows.after(endpoint, *at, last.clone(), count).await?;
                    let ended = rows.len() < want;
                    for (id, row) in rows {
                        let row = RetryRow::open(&row)?;
                        looked += 1;
                        if matches!(row.state, RetryState::DueAt(_)) {
                            open.push((id.clone(), row));
                        }
                        last = id;
                        if open.len() > limit {
                            return Ok(Page::cut(open, limit));
                        }
                    }
                    if looked >= LOOKED_MAX {
                        let mut page = Page::cut(open, limit);
                        page.next = Some(PageToken(last));
                        return Ok(page);
                    }
                    if ended {
                        break;
                    }
                }
            }
            match hours.last() {
                Some(at) if full => hour = at + 1,
                _ => return Ok(Page::cut(open, limit)),
            }
        }
    }
}

fn hint(row: &RetryRow) -> Option<DueHint> {
    match row.state {
        RetryState::DueAt(due) => Some(DueHint {
            due,
            delivery: row.delivery,
        }),
        RetryState::Delivered(_) | RetryState::DeadLetter(_) => None,
    }
}

fn shard(hint: &DueHint) -> Shard {
    Shard::of_endpoint(hint.delivery.endpoint())
}

fn wheel(shard: Shard) -> String {
    (shard.0 % WHEELS).to_string()
}

fn minute(at: Timestamp) -> i64 {
    at.micros().div_euclid(MINUTE)
}

pub(crate) fn delivery(bytes: &[u8]) -> Result<DeliveryId, StoreError> {
    bytes
        .try_into()
        .map(DeliveryId::from_bytes)
        .map_err(corrupt)
}
