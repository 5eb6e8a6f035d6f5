//! Event rows, in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use fanfare_domain::{
    AcceptedEvent, EventId, EventKey, EventRef, Source, TenantId, Tenure, Timestamp,
};
use parking_lot::Mutex;

use super::Switch;
use crate::error::StoreError;
use crate::events::{
    CONFLICTS_MAX, Claim, Claimed, Conflict, EventFilter, EventRow, EventRows, EventSummary, Known,
    SOURCES_MAX,
};
use crate::page::{Page, PageToken};

/// Accept time (order-preserving), span and position.
type ListKey = [u8; 18];

#[derive(Default)]
pub(super) struct Events {
    switch: Arc<Switch>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<(TenantId, EventId), BTreeMap<Source, Row>>,
    by_time: BTreeMap<TenantId, BTreeMap<ListKey, EventKey>>,
}

struct Row {
    row: EventRow,
    /// The same event as in `row`, shared with whoever asked for bodies.
    event: Arc<AcceptedEvent>,
}

impl Events {
    pub(super) fn behind(switch: &Arc<Switch>) -> Self {
        Self {
            switch: switch.clone(),
            ..Self::default()
        }
    }

    pub(super) fn expire(&self, horizon: Timestamp) {
        let mut state = self.state.lock();
        for rows in state.rows.values_mut() {
            rows.retain(|_, row| row.event.accept_time >= horizon);
        }
        for listed in state.by_time.values_mut() {
            listed.retain(|key, _| key[..8] >= horizon.key()[..]);
        }
    }
}

impl State {
    fn row(&self, key: &EventKey) -> Option<&Row> {
        let rows = self.rows.get(&(key.tenant.clone(), key.id.clone()))?;
        rows.get(&key.source)
    }

    fn claim(&mut self, claim: Claim) -> Claimed {
        let key = claim.event.key();
        let rows = self.rows.entry((key.tenant.clone(), key.id.clone()));
        let rows = rows.or_default();
        if let Some(Row { row, .. }) = rows.get_mut(&key.source) {
            return claimed_before(row, &claim);
        }
        let listed = self.by_time.entry(key.tenant.clone()).or_default();
        listed.insert(list_key(&claim), key.clone());
        let row = EventRow {
            event: (*claim.event).clone(),
            place: claim.place,
            route: Some(claim.route),
            conflicts: Vec::new(),
        };
        let event = claim.event;
        rows.insert(key.source, Row { row, event });
        Claimed::Fresh
    }
}

/// What a claim comes to whose identity has a row.
fn claimed_before(row: &mut EventRow, claim: &Claim) -> Claimed {
    if row.place == claim.place {
        return row.route.clone().map_or(Claimed::Fresh, Claimed::Own);
    }
    if row.event.body_hash == claim.event.body_hash {
        return Claimed::Repeat;
    }
    let known = row.conflicts.iter().any(|c| c.place == claim.place);
    if !known && row.conflicts.len() < CONFLICTS_MAX {
        row.conflicts.push(Conflict {
            place: claim.place,
            body_hash: claim.event.body_hash,
            accept_time: claim.event.accept_time,
        });
    }
    Claimed::Conflict
}

#[async_trait]
impl EventRows for Events {
    fn known(&self, key: &EventKey) -> Option<Known> {
        self.switch.check().ok()?;
        let state = self.state.lock();
        state.row(key).map(|row| Known {
            body_hash: row.event.body_hash,
            accept_time: row.event.accept_time,
        })
    }

    async fn claim(&self, tenure: &Tenure, claims: Vec<Claim>) -> Result<Vec<Claimed>, StoreError> {
        self.switch.check()?;
        let mut state = self.state.lock();
        StoreError::unless_owner(tenure)?;
        Ok(claims.into_iter().map(|c| state.claim(c)).collect())
    }

    async fn get(&self, tenant: &TenantId, id: &EventId) -> Result<Vec<EventRow>, StoreError> {
        self.switch.check()?;
        let state = self.state.lock();
        let rows = state.rows.get(&(tenant.clone(), id.clone())).into_iter();
        let rows = rows.flat_map(BTreeMap::values).take(SOURCES_MAX);
        Ok(rows.map(|row| row.row.clone()).collect())
    }

    async fn bodies(
        &self,
        refs: &[EventRef],
    ) -> Result<Vec<Option<Arc<AcceptedEvent>>>, StoreError> {
        self.switch.check()?;
        let state = self.state.lock();
        let body = |r: &EventRef| state.row(&r.key).map(|row| row.event.clone());
        Ok(refs.iter().map(body).collect())
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<EventSummary>, StoreError> {
        self.switch.check()?;
        let below: Bound<ListKey> = match after {
            Some(token) => Bound::Excluded(token.key()?),
            None => Bound::Unbounded,
        };
        let state = self.state.lock();
        let listed = state.by_time.get(tenant).into_iter();
        let rows = listed
            .flat_map(|listed| listed.range((Bound::Unbounded, below)).rev())
            .filter_map(|(key, event)| Some((*key, &state.row(event)?.row)))
            .filter(|(_, row)| filter.admits(row.event.accept_time))
            .map(|(key, row)| (key, row.summary()));
        Ok(Page::cut(rows, limit))
    }
}

fn list_key(claim: &Claim) -> ListKey {
    let mut key = [0; 18];
    key[..8].copy_from_slice(&claim.event.accept_time.key());
    key[8..10].copy_from_slice(&claim.place.span.to_be_bytes());
    key[10..].copy_from_slice(&claim.place.position.0.to_be_bytes());
    key
}
