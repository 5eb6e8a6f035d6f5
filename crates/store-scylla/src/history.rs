//! Attempts: one row each, in the partition of its tenant, endpoint and published hour, so that
//! neighbours share a batch.

use std::sync::Arc;

use async_trait::async_trait;
use fanfare_domain::{DeliveryId, EndpointId, TenantId, Timestamp};
use fanfare_store::wire::attempt::{self, Attempt, Naming};
use fanfare_store::{
    AttemptFilter, AttemptRow, History, Page, PageToken, StoreError, StoreErrorKind,
};
use scylla::statement::prepared::PreparedStatement;

use crate::by_delivery::endpoint;
use crate::calendar::{Calendar, Kind};
use crate::error::OpenError;
use crate::newest::{self, Listing};
use crate::session::{Cql, Put, ttl};

pub(crate) struct Attempts {
    cql: Arc<Cql>,
    calendar: Arc<Calendar>,
    insert: PreparedStatement,
    of_delivery: PreparedStatement,
    below: PreparedStatement,
    ttl: i32,
}

impl Attempts {
    pub(crate) async fn open(
        cql: &Arc<Cql>,
        calendar: &Arc<Calendar>,
        days: u32,
    ) -> Result<Self, OpenError> {
        let partition = "FROM attempt WHERE tenant = ? AND endpoint = ? AND slot = ?";
        Ok(Self {
            insert: cql
                .prepare("INSERT INTO attempt (tenant, endpoint, slot, key, row) VALUES (?, ?, ?, ?, ?) USING TTL ?")
                .await?,
            of_delivery: cql
                .prepare(&format!("SELECT row {partition} AND key >= ? AND key <= ? LIMIT ?"))
                .await?,
            below: cql
                .prepare(&format!("SELECT key, row {partition} AND key < ? LIMIT ?"))
                .await?,
            ttl: ttl(days),
            cql: cql.clone(),
            calendar: calendar.clone(),
        })
    }
}

#[async_trait]
impl History for Attempts {
    async fn append(&self, rows: Vec<AttemptRow>) -> Result<(), StoreError> {
        let rows = crate::by_delivery::last_of_each(rows, |row| (row.delivery, row.number));
        let slots = rows.iter().map(|row| {
            let owner = owner(&row.tenant, row.delivery.endpoint());
            (Kind::Attempts, owner, slot(row.delivery))
        });
        self.calendar.note(slots).await?;
        let put = |row: &AttemptRow| {
            let (to, slot) = (endpoint(row.delivery.endpoint()), slot(row.delivery));
            let tenant = row.tenant.as_str().to_owned();
            let bytes = attempt::encode(row, Naming::Whole);
            Put {
                bytes: 96 + bytes.len(),
                values: (
                    tenant,
                    to,
                    slot,
                    key(row.delivery, row.number),
                    bytes,
                    self.ttl,
                ),
            }
        };
        let puts = rows.iter().map(put).collect();
        let now = Timestamp::now().micros();
        self.cql.put(None, now, &self.insert, puts).await
    }

    async fn attempts(
        &self,
        tenant: &TenantId,
        delivery: DeliveryId,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let values = (
            tenant.as_str(),
            endpoint(delivery.endpoint()),
            slot(delivery),
            key(delivery, 0),
            key(delivery, u32::MAX),
            i32::try_from(limit.max(1)).unwrap_or(i32::MAX),
        );
        let rows: Vec<(Vec<u8>,)> = self.cql.rows(&self.of_delivery, values).await?;
        let group = attempt::group(&delivery);
        let open = |(bytes,): &(Vec<u8>,)| row(attempt::decode(&group, bytes)?);
        rows.iter().rev().map(open).collect()
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &AttemptFilter,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<AttemptRow>, StoreError> {
        let mut until = filter.until.map_or(i64::from(u32::MAX), Timestamp::seconds);
        if let Some(token) = after {
            let key: [u8; 28] = token.key()?;
            until = until.min(published(&key)?);
        }
        let listing = Listing {
            calendar: &self.calendar,
            kind: Kind::Attempts,
            owner: owner(tenant, filter.endpoint),
            seconds: (filter.since.map_or(0, Timestamp::seconds), until),
        };
        let read = |slot, below: Vec<u8>, count| async move {
            let values = (
                tenant.as_str(),
                endpoint(filter.endpoint),
                slot,
                below,
                count,
            );
            self.cql.rows(&self.below, values).await
        };
        let keep = |key: &[u8], bytes: &[u8]| {
            let group = key.first_chunk().ok_or(StoreErrorKind::Corrupt)?;
            let row = row(attempt::decode(group, bytes)?.without_answer())?;
            Ok(filter.admits(&row).then_some(row))
        };
        listing.page(after, limit, read, keep).await
    }
}

fn row(attempt: Attempt) -> Result<AttemptRow, StoreError> {
    // Every row of ours is named.
    attempt
        .name(None)
        .ok_or_else(|| StoreErrorKind::Corrupt.into())
}

fn key(delivery: DeliveryId, number: u32) -> Vec<u8> {
    [delivery.as_bytes().as_slice(), &number.to_be_bytes()].concat()
}

fn published(key: &[u8; 28]) -> Result<i64, StoreError> {
    let id = key.first_chunk::<24>().ok_or(StoreErrorKind::BadToken)?;
    Ok(DeliveryId::from_bytes(*id).published().seconds())
}

fn owner(tenant: &TenantId, endpoint: EndpointId) -> String {
    format!("{tenant} {}", endpoint.0)
}

fn slot(delivery: DeliveryId) -> i64 {
    newest::slot(delivery.published().seconds(), 0)
}
