//! Dead letters, in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use fanfare_domain::{DeliveryId, EndpointId, TenantId, Tenure, Timestamp};
use parking_lot::Mutex;

use super::Switch;
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::error::StoreError;
use crate::page::{Page, PageToken};

/// When it died (order-preserving), then which.
type ListKey = [u8; 32];

#[derive(Default)]
pub(super) struct Letters {
    switch: Arc<Switch>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<DeliveryId, DeadLetter>,
    by_time: BTreeMap<TenantId, BTreeMap<ListKey, DeliveryId>>,
}

impl Letters {
    pub(super) fn behind(switch: &Arc<Switch>) -> Self {
        Self {
            switch: switch.clone(),
            ..Self::default()
        }
    }
}

impl State {
    fn put(&mut self, row: DeadLetter) {
        let listed = self.by_time.entry(row.tenant.clone()).or_default();
        if let Some(old) = self.rows.get(&row.delivery) {
            listed.remove(&list_key(old));
        }
        listed.insert(list_key(&row), row.delivery);
        self.rows.insert(row.delivery, row);
    }
}

#[async_trait]
impl DeadLetters for Letters {
    async fn put(&self, tenure: &Tenure, rows: Vec<DeadLetter>) -> Result<(), StoreError> {
        self.switch.check()?;
        let mut state = self.state.lock();
        StoreError::unless_owner(tenure)?;
        for row in rows {
            state.put(row);
        }
        Ok(())
    }

    async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<Option<DeadLetter>>, StoreError> {
        self.switch.check()?;
        let state = self.state.lock();
        Ok(ids.iter().map(|id| state.rows.get(id).cloned()).collect())
    }

    async fn list(
        &self,
        tenant: &TenantId,
        endpoint: Option<EndpointId>,
        since: Option<Timestamp>,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<DeadLetter>, StoreError> {
        self.switch.check()?;
        let below: Bound<ListKey> = match after {
            Some(token) => Bound::Excluded(token.key()?),
            None => Bound::Unbounded,
        };
        let state = self.state.lock();
        let listed = state.by_time.get(tenant).into_iter();
        let rows = listed
            .flat_map(|listed| listed.range((Bound::Unbounded, below)).rev())
            .filter_map(|(key, id)| Some((*key, state.rows.get(id)?)))
            .take_while(|(_, row)| since.is_none_or(|since| row.at >= since))
            .filter(|(_, row)| row.redriven.is_none())
            .filter(|(_, row)| endpoint.is_none_or(|id| row.delivery.endpoint() == id))
            .map(|(key, row)| (key, row.clone()));
        Ok(Page::cut(rows, limit))
    }
}

fn list_key(row: &DeadLetter) -> ListKey {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&row.at.key());
    key[8..].copy_from_slice(row.delivery.as_bytes());
    key
}
