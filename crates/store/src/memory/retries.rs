//! Retry state and due hints, in memory. Hints are kept apart from the state, as every backend
//! keeps them, so that a stale hint is as possible here as anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use fanfare_domain::{DeliveryId, EndpointId, Shard, ShardSet, Tenure, Timestamp};
use parking_lot::Mutex;

use super::Switch;
use crate::error::StoreError;
use crate::page::{Page, PageToken};
use crate::retries::{DueHint, Retries, RetryRow, RetryState};

#[derive(Default)]
pub(super) struct RetryStates {
    switch: Arc<Switch>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With the stamp of its last write; ordered, so that an endpoint's rows are one range.
    rows: BTreeMap<DeliveryId, (u64, RetryRow)>,
    due: BTreeSet<DueHint>,
}

impl RetryStates {
    pub(super) fn behind(switch: &Arc<Switch>) -> Self {
        Self {
            switch: switch.clone(),
            ..Self::default()
        }
    }
}

impl State {
    fn put(&mut self, stamp: u64, row: RetryRow) {
        if let RetryState::DueAt(due) = row.state {
            self.due.insert(DueHint {
                due,
                delivery: row.delivery,
            });
        }
        let newer = |(last, _): &(u64, RetryRow)| *last < stamp;
        if self.rows.get(&row.delivery).is_none_or(newer) {
            self.rows.insert(row.delivery, (stamp, row));
        }
    }
}

#[async_trait]
impl Retries for RetryStates {
    async fn put(&self, tenure: &Tenure, rows: Vec<RetryRow>) -> Result<(), StoreError> {
        self.switch.check()?;
        let mut state = self.state.lock();
        StoreError::unless_owner(tenure)?;
        let now = u64::try_from(Timestamp::now().micros()).unwrap_or(0);
        for row in rows {
            state.put(tenure.stamp(now), row);
        }
        Ok(())
    }

    async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<Option<RetryRow>>, StoreError> {
        self.switch.check()?;
        let state = self.state.lock();
        let row = |id| state.rows.get(id).map(|(_, row)| row.clone());
        Ok(ids.iter().map(row).collect())
    }

    async fn due(
        &self,
        shards: ShardSet,
        after: Option<DueHint>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueHint>, StoreError> {
        self.switch.check()?;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.state.lock();
        let hints = state.due.range((after, Bound::Unbounded));
        Ok(hints
            .take_while(|hint| hint.due <= until)
            .filter(|hint| shards.contains(Shard::of_endpoint(hint.delivery.endpoint())))
            .take(limit)
            .copied()
            .collect())
    }

    async fn forget(&self, tenure: &Tenure, hints: Vec<DueHint>) -> Result<(), StoreError> {
        self.switch.check()?;
        let mut state = self.state.lock();
        StoreError::unless_owner(tenure)?;
        for hint in hints {
            state.due.remove(&hint);
        }
        Ok(())
    }

    async fn open(
        &self,
        endpoint: EndpointId,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<RetryRow>, StoreError> {
        self.switch.check()?;
        let start = match after {
            Some(token) => Bound::Excluded(DeliveryId::from_bytes(token.key()?)),
            None => Bound::Included(first_of(endpoint)),
        };
        let state = self.state.lock();
        let rows = state.rows.range((start, Bound::Unbounded));
        let open = rows
            .take_while(|(id, _)| id.endpoint() == endpoint)
            .filter(|(_, (_, row))| matches!(row.state, RetryState::DueAt(_)))
            .map(|(id, (_, row))| (*id.as_bytes(), row.clone()));
        Ok(Page::cut(open, limit))
    }
}

/// The lowest id that a delivery to `endpoint` can have.
fn first_of(endpoint: EndpointId) -> DeliveryId {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&endpoint.0.to_be_bytes());
    DeliveryId::from_bytes(bytes)
}
