//! Dead letters: by delivery, and by tenant and time. The second names only what is listed: an
//! entry of an earlier death, or of a letter that was redriven, is removed before the letter is
//! written, so a crash between leaves it out of the list until its owner, who was not answered,
//! writes it again.

use std::sync::Arc;

use async_trait::async_trait;
use fanfare_domain::{DeliveryId, EndpointId, TenantId, Tenure, Timestamp};
use fanfare_store::wire::Row;
use fanfare_store::{DeadLetter, DeadLetters, Page, PageToken, StoreError};
use scylla::statement::prepared::PreparedStatement;

use crate::by_delivery::{ByDelivery, Kept, last_of_each};
use crate::calendar::{Calendar, Kind};
use crate::error::OpenError;
use crate::newest::{self, Listing};
use crate::session::{Cql, Put, stamp, ttl};

/// Far in the future: an open end of a list.
const NEVER: i64 = i64::MAX / 2_000_000;

pub(crate) struct Letters {
    cql: Arc<Cql>,
    calendar: Arc<Calendar>,
    rows: ByDelivery,
    insert: PreparedStatement,
    delete: PreparedStatement,
    below: PreparedStatement,
    ttl: i32,
}

impl Letters {
    pub(crate) async fn open(
        cql: &Arc<Cql>,
        calendar: &Arc<Calendar>,
        days: u32,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            rows: ByDelivery::open(cql, "dead_letter").await?,
            insert: cql
                .prepare("INSERT INTO dead_letter_by_time (tenant, slot, key, row) VALUES (?, ?, ?, ?) USING TTL ?")
                .await?,
            delete: cql
                .prepare("DELETE FROM dead_letter_by_time WHERE tenant = ? AND slot = ? AND key = ?")
                .await?,
            below: cql
                .prepare("SELECT key, row FROM dead_letter_by_time WHERE tenant = ? AND slot = ? AND key < ? LIMIT ?")
                .await?,
            ttl: ttl(days),
            cql: cql.clone(),
            calendar: calendar.clone(),
        })
    }

    async fn unlist(
        &self,
        tenure: &Tenure,
        stamp: i64,
        rows: &[&DeadLetter],
    ) -> Result<(), StoreError> {
        let put = |row: &&DeadLetter| Put {
            bytes: 64,
            values: (row.tenant.as_str().to_owned(), slot(row), key(row)),
        };
        let puts = rows.iter().map(put).collect();
        self.cql.put(Some(tenure), stamp, &self.delete, puts).await
    }

    async fn enlist(
        &self,
        tenure: &Tenure,
        stamp: i64,
        rows: &[&DeadLetter],
    ) -> Result<(), StoreError> {
        let slots = rows
            .iter()
            .map(|row| (Kind::DeadLetters, row.tenant.as_str().to_owned(), slot(row)));
        self.calendar.note(slots).await?;
        let put = |row: &&DeadLetter| {
            let (tenant, bytes) = (row.tenant.as_str().to_owned(), row.seal());
            Put {
                bytes: 64 + bytes.len(),
                values: (tenant, slot(row), key(row), bytes, self.ttl),
            }
        };
        let puts = rows.iter().map(put).collect();
        self.cql.put(Some(tenure), stamp, &self.insert, puts).await
    }
}

#[async_trait]
impl DeadLetters for Letters {
    async fn put(&self, tenure: &Tenure, rows: Vec<DeadLetter>) -> Result<(), StoreError> {
        StoreError::unless_owner(tenure)?;
        let rows = last_of_each(rows, |row| row.delivery);
        let ids: Vec<_> = rows.iter().map(|row| row.delivery).collect();
        let old: Vec<Option<DeadLetter>> = self.rows.rows(&ids).await?;
        let earlier = old.iter().zip(&rows);
        let earlier = earlier.filter_map(|(old, new)| {
            let old = old.as_ref().filter(|old| key(old) != key(new));
            old.or(new.redriven.map(|_| new))
        });
        let gone: Vec<_> = earlier.collect();
        self.unlist(tenure, stamp(tenure)?, &gone).await?;
        let stamp = stamp(tenure)?;
        let kept = rows.iter().map(|row| Kept {
            delivery: row.delivery,
            bytes: row.seal(),
            ttl: self.ttl,
        });
        self.rows.put(tenure, stamp, kept.collect()).await?;
        let listed: Vec<_> = rows.iter().filter(|row| row.redriven.is_none()).collect();
        self.enlist(tenure, stamp, &listed).await
    }

    async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<Option<DeadLetter>>, StoreError> {
        self.rows.rows(ids).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        endpoint: Option<EndpointId>,
        since: Option<Timestamp>,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page<DeadLetter>, StoreError> {
        let mut until = NEVER;
        if let Some(token) = after {
            let key: [u8; 32] = token.key()?;
            until = time_of(&key);
        }
        let listing = Listing {
            calendar: &self.calendar,
            kind: Kind::DeadLetters,
            owner: tenant.as_str().to_owned(),
            seconds: (since.map_or(0, Timestamp::seconds), until),
        };
        let read = |slot, below: Vec<u8>, count| async move {
            let values = (tenant.as_str(), slot, below, count);
            self.cql.rows(&self.below, values).await
        };
        let keep = |_: &[u8], bytes: &[u8]| {
            let row = DeadLetter::open(bytes)?;
            let wanted = since.is_none_or(|since| row.at >= since)
                && endpoint.is_none_or(|id| row.delivery.endpoint() == id);
            Ok(wanted.then_some(row))
        };
        listing.page(after, limit, read, keep).await
    }
}

fn key(row: &DeadLetter) -> Vec<u8> {
    [row.at.key().as_slice(), row.delivery.as_bytes()].concat()
}

fn time_of(key: &[u8; 32]) -> i64 {
    let time = key.first_chunk::<8>().copied().unwrap_or_default();
    Timestamp::from_key(time).seconds()
}

/// Letters of one moment are spread over four buckets.
fn slot(row: &DeadLetter) -> i64 {
    newest::slot(row.at.seconds(), i64::from(row.delivery.as_bytes()[23] % 4))
}
