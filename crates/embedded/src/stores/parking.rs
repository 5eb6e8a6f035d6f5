//! Parked deliveries: one queue per endpoint by place, and where each delivery stands in it.

use std::collections::HashMap;
use std::ops::Bound;

use async_trait::async_trait;
use fanfare_domain::{DeliveryId, EndpointId, ShardSet, Tenure};
use fanfare_store::wire::Row;
use fanfare_store::{PAGE_MAX, Parked, ParkedKey, Parking, StoreError, StoreErrorKind};
use parking_lot::Mutex;

use super::journal::{Journal, Refused, failed};
use super::keys::{self, KeyRange};
use super::owed::{self, By};
use super::{PARKED, WAITING};
use crate::changes::Batch;
use crate::engine::Engine;
use crate::view::Direction;

pub(super) struct Queues {
    journal: Journal,
    /// Two that unpark the same rows must not both find them.
    turn: Mutex<()>,
    fronts: Mutex<HashMap<EndpointId, Front>>,
}

/// What is known of the front of a queue that was looked at: one small entry per endpoint.
#[derive(Default)]
struct Front {
    /// Nothing is parked below it: where a look starts, so that it never wades through what was
    /// drained.
    key: Option<ParkedKey>,
    /// Changes with every parking: a look that was overtaken by one does not move the front.
    parks: u64,
}

impl Queues {
    pub(super) fn new(journal: Journal) -> Self {
        Self {
            journal,
            turn: Mutex::default(),
            fronts: Mutex::default(),
        }
    }

    fn front(&self, endpoint: EndpointId) -> (Option<ParkedKey>, u64) {
        let fronts = self.fronts.lock();
        fronts
            .get(&endpoint)
            .map_or((None, 0), |front| (front.key, front.parks))
    }

    fn lower_fronts(&self, rows: &[Parked]) {
        let mut fronts = self.fronts.lock();
        for row in rows {
            let front = fronts.entry(row.endpoint).or_default();
            front.parks += 1;
            front.key = front.key.map(|key| key.min(row.key));
        }
    }

    /// Moves the front to `key` unless something was parked meanwhile.
    fn raise_front(&self, endpoint: EndpointId, parks: u64, key: ParkedKey) {
        let mut fronts = self.fronts.lock();
        let front = fronts.entry(endpoint).or_default();
        if front.parks == parks {
            front.key = Some(key);
        }
    }

    fn release(
        &self,
        batch: &mut Batch,
        endpoint: EndpointId,
        key: ParkedKey,
    ) -> Result<(), Refused> {
        let at = keys::parked(endpoint, key);
        let Some(bytes) = self.journal.engine.get(PARKED, &at).map_err(failed)? else {
            return Ok(());
        };
        let row = Parked::open(&bytes)?;
        batch.delete(PARKED, at.to_vec());
        batch.delete(WAITING, row.delivery.as_bytes().to_vec());
        owed::release(batch, By::Parked, &row.event, row.delivery);
        Ok(())
    }

    fn find_one(&self, id: &DeliveryId) -> Result<Option<Parked>, StoreError> {
        let engine = &self.journal.engine;
        let Some(place) = engine.get(WAITING, id.as_bytes()).map_err(failed)? else {
            return Ok(None);
        };
        let mut key = id.endpoint().0.to_be_bytes().to_vec();
        key.extend_from_slice(&place);
        let bytes = engine.get(PARKED, &key).map_err(failed)?;
        Ok(bytes.map(|bytes| Parked::open(&bytes)).transpose()?)
    }
}

#[async_trait]
impl Parking for Queues {
    async fn park(&self, tenure: &Tenure, rows: Vec<Parked>) -> Result<(), StoreError> {
        for part in rows.chunks(PAGE_MAX) {
            let turn = || {
                let mut batch = Batch::default();
                for row in part {
                    park(&mut batch, row);
                }
                let _turn = self.turn.lock();
                StoreError::unless_owner(tenure)?;
                self.journal.submit(batch)?;
                self.lower_fronts(part);
                Ok(())
            };
            self.journal.write(turn).await?;
        }
        Ok(())
    }

    async fn peek(
        &self,
        endpoint: EndpointId,
        after: Option<ParkedKey>,
        limit: usize,
    ) -> Result<Vec<Parked>, StoreError> {
        let (front, parks) = self.front(endpoint);
        let from_front = after < front || after.is_none();
        let at = |key| keys::parked(endpoint, key).to_vec();
        let mut range = KeyRange::prefix(&endpoint.0.to_be_bytes());
        if from_front {
            range.from = front.map_or(range.from, |front| Bound::Included(at(front)));
        } else if let Some(after) = after {
            range.from = Bound::Excluded(at(after));
        }
        let engine = &self.journal.engine;
        let entries = engine.scan(PARKED, range.as_bounds(), Direction::Forward, limit);
        let rows = entries.map_err(failed)?.into_iter();
        let rows = rows
            .map(|(_, bytes)| Parked::open(&bytes))
            .collect::<Result<Vec<_>, _>>()?;
        if let (true, Some(first)) = (from_front, rows.first()) {
            self.raise_front(endpoint, parks, first.key);
        }
        Ok(rows)
    }

    async fn unpark(
        &self,
        tenure: &Tenure,
        endpoint: EndpointId,
        keys: Vec<ParkedKey>,
    ) -> Result<(), StoreError> {
        for part in keys.chunks(PAGE_MAX) {
            let turn = || {
                let _turn = self.turn.lock();
                let mut batch = Batch::default();
                for key in part {
                    self.release(&mut batch, endpoint, *key)?;
                }
                StoreError::unless_owner(tenure)?;
                if !batch.is_empty() {
                    self.journal.submit(batch)?;
                }
                Ok(())
            };
            self.journal.write(turn).await?;
        }
        Ok(())
    }

    async fn find(&self, ids: &[DeliveryId]) -> Result<Vec<Option<Parked>>, StoreError> {
        ids.iter().map(|id| self.find_one(id)).collect()
    }

    async fn endpoints(&self, shards: ShardSet) -> Result<Vec<EndpointId>, StoreError> {
        let mut all = self.journal.blocking(endpoints).await?;
        all.retain(|endpoint| keys::covers(shards, *endpoint));
        Ok(all)
    }
}

fn park(batch: &mut Batch, row: &Parked) {
    batch.put(
        PARKED,
        keys::parked(row.endpoint, row.key).to_vec(),
        row.seal(),
    );
    let place = keys::queue_place(row.key).to_vec();
    batch.put(WAITING, row.delivery.as_bytes().to_vec(), place);
    owed::owe(batch, By::Parked, &row.event, row.delivery);
}

/// Skips from one queue to the next: one look-up per endpoint, whatever waits there.
fn endpoints(engine: &Engine) -> Result<Vec<EndpointId>, StoreError> {
    let mut found = Vec::new();
    let mut from = Bound::Included(Vec::new());
    loop {
        let range = KeyRange {
            from,
            to: Bound::Unbounded,
        };
        let first = engine.scan(PARKED, range.as_bounds(), Direction::Forward, 1);
        let Some((key, _)) = first.map_err(failed)?.pop() else {
            return Ok(found);
        };
        let (endpoint, _) = keys::parse_parked(&key).ok_or(StoreErrorKind::Corrupt)?;
        found.push(endpoint);
        from = match keys::after(&endpoint.0.to_be_bytes()) {
            Bound::Excluded(next) => Bound::Included(next),
            _ => return Ok(found),
        };
    }
}
