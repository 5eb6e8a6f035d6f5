//! Retry state: what is still open apart from what is final, so that an endpoint's open deliveries
//! are one range however many it has settled.

use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use fanfare_domain::{DeliveryId, EndpointId, ShardSet, Tenure, Timestamp};
use fanfare_store::wire::Row;
use fanfare_store::{
    DueHint, PAGE_MAX, Page, PageToken, Retries, RetryRow, RetryState, StoreError, StoreErrorKind,
};
use parking_lot::Mutex;

use super::journal::{Journal, failed};
use super::keys::{self, KeyRange};
use super::owed::{self, By};
use super::{DUE, OPEN, SETTLED};
use crate::changes::Batch;
use crate::view::Direction;

pub(super) struct RetryStates {
    journal: Journal,
    floor: Mutex<Floor>,
}

/// No hint is below it: where a scan starts, so that it never wades through forgotten ones.
#[derive(Default)]
struct Floor {
    hint: Option<DueHint>,
    /// Changes with every put: a scan that was overtaken by one does not raise the floor.
    puts: u64,
}

impl RetryStates {
    pub(super) fn new(journal: Journal) -> Self {
        Self {
            journal,
            floor: Mutex::default(),
        }
    }

    fn get_one(&self, id: &DeliveryId) -> Result<Option<RetryRow>, StoreError> {
        let engine = &self.journal.engine;
        let mut bytes = engine.get(OPEN, id.as_bytes()).map_err(failed)?;
        if bytes.is_none() {
            bytes = engine.get(SETTLED, id.as_bytes()).map_err(failed)?;
        }
        Ok(bytes.map(|bytes| RetryRow::open(&bytes)).transpose()?)
    }

    /// Hints after `after`, of all shards.
    fn hints(
        &self,
        after: Bound<DueHint>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueHint>, StoreError> {
        let range = KeyRange {
            from: after.map(due_key),
            to: keys::after(&until.key()),
        };
        let entries = self
            .journal
            .engine
            .scan(DUE, range.as_bounds(), Direction::Forward, limit);
        let parse = |(key, _): (Bytes, Bytes)| parse_due(&key).ok_or_else(corrupt);
        entries.map_err(failed)?.into_iter().map(parse).collect()
    }
}

impl Floor {
    fn read(&self) -> (Option<DueHint>, u64) {
        (self.hint, self.puts)
    }

    /// Moves it to `hint`, unless something was put since `puts` was read.
    fn raise(&mut self, puts: u64, hint: DueHint) {
        if self.puts == puts {
            self.hint = Some(hint);
        }
    }

    fn lower(&mut self, rows: &[RetryRow]) {
        self.puts += 1;
        let lowest = rows.iter().filter_map(hint).min();
        if let (Some(floor), Some(lowest)) = (self.hint, lowest) {
            self.hint = Some(floor.min(lowest));
        }
    }
}

#[async_trait]
impl Retries for RetryStates {
    async fn put(&self, tenure: &Tenure, rows: Vec<RetryRow>) -> Result<(), StoreError> {
        for part in rows.chunks(PAGE_MAX) {
            let turn = || {
                let mut batch = Batch::default();
                for row in part {
                    put(&mut batch, row);
                }
                StoreError::unless_owner(tenure)?;
                self.journal.submit(batch)?;
                self.floor.lock().lower(part);
                Ok(())
            };
            self.journal.write(turn).await?;
        }
        Ok(())
    }

    async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<Option<RetryRow>>, StoreError> {
        ids.iter().map(|id| self.get_one(id)).collect()
    }

    async fn due(
        &self,
        shards: ShardSet,
        after: Option<DueHint>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueHint>, StoreError> {
        let limit = limit.max(1);
        let (floor, puts) = self.floor.lock().read();
        let from_floor = after.is_none() || after < floor;
        let mut at = if from_floor {
            floor.map_or(Bound::Unbounded, Bound::Included)
        } else {
            after.map_or(Bound::Unbounded, Bound::Excluded)
        };
        let mut found = Vec::new();
        let mut lowest = None;
        loop {
            let hints = self.hints(at, until, limit)?;
            let ended = hints.len() < limit;
            lowest = lowest.or_else(|| hints.first().copied());
            at = hints.last().map_or(at, |last| Bound::Excluded(*last));
            let mine = |hint: &DueHint| keys::covers(shards, hint.delivery.endpoint());
            found.extend(hints.into_iter().filter(mine));
            if ended || found.len() >= limit {
                break;
            }
        }
        if from_floor {
            // Nothing is below what the scan found first, or below where it ended.
            let lowest = lowest.unwrap_or_else(|| first_after(until));
            self.floor.lock().raise(puts, lowest);
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn forget(&self, tenure: &Tenure, hints: Vec<DueHint>) -> Result<(), StoreError> {
        for part in hints.chunks(PAGE_MAX) {
            let turn = || {
                let mut batch = Batch::default();
                for hint in part {
                    batch.delete(DUE, due_key(*hint));
                }
                StoreError::unless_owner(tenure)?;
                self.journal.submit(batch)?;
                Ok(())
            };
            self.journal.write(turn).await?;
        }
        Ok(())
    }

    async fn open(
        &self,
        endpoint: EndpointId,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<RetryRow>, StoreError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let mut range = KeyRange::prefix(&endpoint.0.to_be_bytes());
        if let Some(token) = after {
            let last: [u8; 24] = token.key()?;
            if DeliveryId::from_bytes(last).endpoint() != endpoint {
                return Err(StoreErrorKind::BadToken.into());
            }
            range.from = Bound::Excluded(last.to_vec());
        }
        let read = self.journal.blocking(move |engine| {
            let bounds = range.as_bounds();
            let entries = engine.scan(OPEN, bounds, Direction::Forward, limit + 1);
            entries.map_err(failed)
        });
        let rows = read.await?.into_iter();
        let rows = rows.map(|(key, bytes)| Ok((key, RetryRow::open(&bytes)?)));
        Ok(Page::cut(
            rows.collect::<Result<Vec<_>, StoreError>>()?,
            limit,
        ))
    }
}

fn put(batch: &mut Batch, row: &RetryRow) {
    let id = row.delivery.as_bytes().to_vec();
    if let Some(hint) = hint(row) {
        batch.put(DUE, due_key(hint), Bytes::new());
        owed::owe(batch, By::Retry, &row.event, row.delivery);
        batch.put(OPEN, id, row.seal());
    } else {
        owed::release(batch, By::Retry, &row.event, row.delivery);
        batch.delete(OPEN, id.clone());
        batch.put(SETTLED, id, row.seal());
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

fn due_key(hint: DueHint) -> Vec<u8> {
    let mut key = Vec::with_capacity(32);
    key.extend_from_slice(&hint.due.key());
    key.extend_from_slice(hint.delivery.as_bytes());
    key
}

fn parse_due(key: &[u8]) -> Option<DueHint> {
    let (due, delivery) = key.split_first_chunk::<8>()?;
    Some(DueHint {
        due: Timestamp::from_key(*due),
        delivery: keys::delivery(delivery)?,
    })
}

/// The lowest hint that is due after `until`.
fn first_after(until: Timestamp) -> DueHint {
    DueHint {
        due: until.plus(std::time::Duration::from_micros(1)),
        delivery: DeliveryId::from_bytes([0; 24]),
    }
}

fn corrupt() -> StoreError {
    StoreErrorKind::Corrupt.into()
}
