//! Parked deliveries, in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use fanfare_domain::{DeliveryId, EndpointId, Shard, ShardSet, Tenure};
use parking_lot::Mutex;

use super::Switch;
use crate::error::StoreError;
use crate::parking::{Parked, ParkedKey, Parking};

#[derive(Default)]
pub(super) struct Queues {
    switch: Arc<Switch>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Without empty queues.
    queues: BTreeMap<EndpointId, BTreeMap<ParkedKey, Parked>>,
    /// Where each parked delivery stands.
    keys: HashMap<DeliveryId, ParkedKey>,
}

impl Queues {
    pub(super) fn behind(switch: &Arc<Switch>) -> Self {
        Self {
            switch: switch.clone(),
            ..Self::default()
        }
    }
}

impl State {
    fn park(&mut self, row: Parked) {
        self.keys.insert(row.delivery, row.key);
        let queue = self.queues.entry(row.endpoint).or_default();
        queue.insert(row.key, row);
    }

    fn unpark(&mut self, endpoint: EndpointId, keys: &[ParkedKey]) {
        let Some(queue) = self.queues.get_mut(&endpoint) else {
            return;
        };
        for row in keys.iter().filter_map(|key| queue.remove(key)) {
            self.keys.remove(&row.delivery);
        }
        if queue.is_empty() {
            self.queues.remove(&endpoint);
        }
    }

    fn find(&self, delivery: DeliveryId) -> Option<&Parked> {
        let key = self.keys.get(&delivery)?;
        self.queues.get(&delivery.endpoint())?.get(key)
    }
}

#[async_trait]
impl Parking for Queues {
    async fn park(&self, tenure: &Tenure, rows: Vec<Parked>) -> Result<(), StoreError> {
        self.switch.check()?;
        let mut state = self.state.lock();
        StoreError::unless_owner(tenure)?;
        for row in rows {
            state.park(row);
        }
        Ok(())
    }

    async fn peek(
        &self,
        endpoint: EndpointId,
        after: Option<ParkedKey>,
        limit: usize,
    ) -> Result<Vec<Parked>, StoreError> {
        self.switch.check()?;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.state.lock();
        let queue = state.queues.get(&endpoint).into_iter();
        let rows = queue.flat_map(|queue| queue.range((after, Bound::Unbounded)));
        Ok(rows.take(limit).map(|(_, row)| row.clone()).collect())
    }

    async fn unpark(
        &self,
        tenure: &Tenure,
        endpoint: EndpointId,
        keys: Vec<ParkedKey>,
    ) -> Result<(), StoreError> {
        self.switch.check()?;
        let mut state = self.state.lock();
        StoreError::unless_owner(tenure)?;
        state.unpark(endpoint, &keys);
        Ok(())
    }

    async fn find(&self, ids: &[DeliveryId]) -> Result<Vec<Option<Parked>>, StoreError> {
        self.switch.check()?;
        let state = self.state.lock();
        Ok(ids.iter().map(|id| state.find(*id).cloned()).collect())
    }

    async fn endpoints(&self, shards: ShardSet) -> Result<Vec<EndpointId>, StoreError> {
        self.switch.check()?;
        let state = self.state.lock();
        let ids = state.queues.keys().copied();
        Ok(ids
            .filter(|id| shards.contains(Shard::of_endpoint(*id)))
            .collect())
    }
}
