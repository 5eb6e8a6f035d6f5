//! Attempts, in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fanfare_domain::{DeliveryId, TenantId};
use parking_lot::Mutex;

use super::Switch;
use crate::error::StoreError;
use crate::history::{AttemptFilter, AttemptRow, History};
use crate::page::{Page, PageToken};

/// A delivery (which sorts by endpoint and published second) and an attempt's number.
type AttemptKey = [u8; 28];

#[derive(Default)]
pub(super) struct Attempts {
    switch: Arc<Switch>,
    rows: Mutex<BTreeMap<AttemptKey, AttemptRow>>,
}

impl Attempts {
    pub(super) fn behind(switch: &Arc<Switch>) -> Self {
        Self {
            switch: switch.clone(),
            ..Self::default()
        }
    }
}

#[async_trait]
impl History for Attempts {
    async fn append(&self, rows: Vec<AttemptRow>) -> Result<(), StoreError> {
        self.switch.check()?;
        let keyed = rows
            .into_iter()
            .map(|row| (key(row.delivery, row.number), row));
        self.rows.lock().extend(keyed);
        Ok(())
    }

    async fn attempts(
        &self,
        tenant: &TenantId,
        delivery: DeliveryId,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        self.switch.check()?;
        let rows = self.rows.lock();
        let of_delivery = rows.range(key(delivery, 0)..=key(delivery, u32::MAX));
        let mut last: Vec<_> = of_delivery
            .rev()
            .map(|(_, row)| row)
            .filter(|row| row.tenant == *tenant)
            .take(limit)
            .cloned()
            .collect();
        last.reverse();
        Ok(last)
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &AttemptFilter,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<AttemptRow>, StoreError> {
        self.switch.check()?;
        let endpoint = filter.endpoint.0.to_be_bytes();
        let (mut first, mut last) = ([0; 28], [0xff; 28]);
        first[..8].copy_from_slice(&endpoint);
        last[..8].copy_from_slice(&endpoint);
        let below = match after {
            Some(token) => Bound::Excluded(token.key()?),
            None => Bound::Included(last),
        };
        if matches!(below, Bound::Excluded(key) if key <= first) {
            return Ok(Page::last(Vec::new()));
        }
        let rows = self.rows.lock();
        let listed = rows
            .range((Bound::Included(first), below))
            .rev()
            .filter(|(_, row)| row.tenant == *tenant && filter.admits(row))
            .map(|(key, row)| (*key, without_answer(row)));
        Ok(Page::cut(listed, limit))
    }
}

fn key(delivery: DeliveryId, number: u32) -> AttemptKey {
    let mut key = [0; 28];
    key[..24].copy_from_slice(delivery.as_bytes());
    key[24..].copy_from_slice(&number.to_be_bytes());
    key
}

fn without_answer(row: &AttemptRow) -> AttemptRow {
    AttemptRow {
        answer: Bytes::new(),
        ..row.clone()
    }
}
