//! Dead letters: by delivery, and listed by tenant and time until they are redriven.

use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use fanfare_domain::{DeliveryId, EndpointId, TenantId, Tenure, Timestamp};
use fanfare_store::wire::Row;
use fanfare_store::{
    DeadLetter, DeadLetters, PAGE_MAX, Page, PageToken, StoreError, StoreErrorKind,
};
use parking_lot::Mutex;

use super::journal::{Journal, Refused, failed};
use super::keys::{self, KeyRange};
use super::{DEAD, DEAD_LISTED};
use crate::changes::Batch;
use crate::engine::Engine;
use crate::view::Direction;

/// Lines that one page looks at before it is given as it is, short.
const LOOK_MAX: usize = 20_000;
/// Lines that are read at once.
const STEP: usize = 1000;
/// Time and delivery.
const LINE: usize = 32;

pub(super) struct Letters {
    journal: Journal,
    /// The old row says which line to remove.
    turn: Mutex<()>,
}

impl Letters {
    pub(super) fn new(journal: Journal) -> Self {
        Self {
            journal,
            turn: Mutex::default(),
        }
    }

    fn get_one(&self, id: &DeliveryId) -> Result<Option<DeadLetter>, StoreError> {
        get(&self.journal.engine, id)
    }

    fn put(&self, batch: &mut Batch, row: &DeadLetter) -> Result<(), Refused> {
        if let Some(old) = self.get_one(&row.delivery)? {
            batch.delete(DEAD_LISTED, line(&old));
        }
        if row.redriven.is_none() {
            batch.put(DEAD_LISTED, line(row), Bytes::new());
        }
        batch.put(DEAD, row.delivery.as_bytes().to_vec(), row.seal());
        Ok(())
    }
}

#[async_trait]
impl DeadLetters for Letters {
    async fn put(&self, tenure: &Tenure, rows: Vec<DeadLetter>) -> Result<(), StoreError> {
        // One by one within a turn of their own: a delivery may be named twice.
        for row in &rows {
            let turn = || {
                let _turn = self.turn.lock();
                let mut batch = Batch::default();
                self.put(&mut batch, row)?;
                StoreError::unless_owner(tenure)?;
                self.journal.submit(batch)?;
                Ok(())
            };
            self.journal.write(turn).await?;
        }
        Ok(())
    }

    async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<Option<DeadLetter>>, StoreError> {
        ids.iter().map(|id| self.get_one(id)).collect()
    }

    async fn list(
        &self,
        tenant: &TenantId,
        endpoint: Option<EndpointId>,
        since: Option<Timestamp>,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<DeadLetter>, StoreError> {
        let prefix = keys::names(&[tenant.as_str()]);
        let mut range = KeyRange::prefix(&prefix);
        if let Some(since) = since {
            range.from = Bound::Included(keys::of_tenant(tenant, &since.key()));
        }
        if let Some(token) = after {
            let last: [u8; LINE] = token.key()?;
            range.to = Bound::Excluded(keys::of_tenant(tenant, &last));
        }
        let list = move |engine: &Engine| page(engine, range, endpoint, limit);
        self.journal.blocking(list).await
    }
}

/// Walks down the lines of one tenant.
fn page(
    engine: &Engine,
    mut range: KeyRange,
    endpoint: Option<EndpointId>,
    limit: usize,
) -> Result<Page<DeadLetter>, StoreError> {
    let limit = limit.clamp(1, PAGE_MAX);
    let mut page = Page::last(Vec::new());
    let mut looked = 0;
    loop {
        let step = if endpoint.is_some() { STEP } else { limit };
        let lines = engine.scan(DEAD_LISTED, range.as_bounds(), Direction::Backward, step);
        let lines = lines.map_err(failed)?;
        let ended = lines.len() < step;
        for (key, _) in lines {
            let line = key.last_chunk::<LINE>().ok_or(StoreErrorKind::Corrupt)?;
            let delivery = keys::delivery(line).ok_or(StoreErrorKind::Corrupt)?;
            if endpoint.is_none_or(|id| delivery.endpoint() == id) {
                page.rows.extend(get(engine, &delivery)?);
            }
            looked += 1;
            if page.rows.len() == limit || looked == LOOK_MAX {
                page.next = Some(PageToken(line.to_vec()));
                return Ok(page);
            }
            range.to = Bound::Excluded(key.to_vec());
        }
        if ended {
            return Ok(page);
        }
    }
}

fn get(engine: &Engine, id: &DeliveryId) -> Result<Option<DeadLetter>, StoreError> {
    let bytes = engine.get(DEAD, id.as_bytes()).map_err(failed)?;
    Ok(bytes.map(|bytes| DeadLetter::open(&bytes)).transpose()?)
}

fn line(row: &DeadLetter) -> Vec<u8> {
    let mut line = [0; LINE];
    line[..8].copy_from_slice(&row.at.key());
    line[8..].copy_from_slice(row.delivery.as_bytes());
    keys::of_tenant(&row.tenant, &line)
}
