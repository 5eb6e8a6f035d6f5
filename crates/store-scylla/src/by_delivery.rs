//! Tables of one row per delivery, in the partition that its id names: endpoint and published hour.

use std::sync::Arc;

use fanfare_domain::{DeliveryId, EndpointId, Tenure};
use fanfare_store::StoreError;
use fanfare_store::wire::Row;
use scylla::statement::prepared::PreparedStatement;

use crate::error::OpenError;
use crate::session::{Cql, Put, each};

pub(crate) struct ByDelivery {
    cql: Arc<Cql>,
    insert: PreparedStatement,
    select: PreparedStatement,
    after: PreparedStatement,
}

/// What a row is written with.
pub(crate) struct Kept {
    pub(crate) delivery: DeliveryId,
    pub(crate) bytes: Vec<u8>,
    /// Seconds; 0 for ever.
    pub(crate) ttl: i32,
}

impl ByDelivery {
    pub(crate) async fn open(cql: &Arc<Cql>, table: &str) -> Result<Self, OpenError> {
        let partition = format!("FROM {table} WHERE endpoint = ? AND hour = ? AND delivery");
        Ok(Self {
            insert: cql
                .prepare(&format!(
                    "INSERT INTO {table} (endpoint, hour, delivery, row) VALUES (?, ?, ?, ?) USING TTL ?"
                ))
                .await?,
            select: cql.prepare(&format!("SELECT row {partition} = ?")).await?,
            after: cql
                .prepare(&format!("SELECT delivery, row {partition} > ? LIMIT ?"))
                .await?,
            cql: cql.clone(),
        })
    }

    /// Upserts; of one delivery the last row counts.
    pub(crate) async fn put(
        &self,
        tenure: &Tenure,
        stamp: i64,
        rows: Vec<Kept>,
    ) -> Result<(), StoreError> {
        let put = |row: Kept| {
            let (endpoint, hour) = (endpoint(row.delivery.endpoint()), hour(row.delivery));
            let id = row.delivery.as_bytes().to_vec();
            Put {
                bytes: 64 + row.bytes.len(),
                values: (endpoint, hour, id, row.bytes, row.ttl),
            }
        };
        let puts = rows.into_iter().map(put).collect();
        self.cql.put(Some(tenure), stamp, &self.insert, puts).await
    }

    /// One answer per id.
    pub(crate) async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let ask = |id: DeliveryId| async move {
            let values = (endpoint(id.endpoint()), hour(id), id.as_bytes().to_vec());
            let rows: Vec<(Vec<u8>,)> = self.cql.rows(&self.select, values).await?;
            Ok(rows.into_iter().next().map(|(row,)| row))
        };
        each(ids.iter().copied(), ask).await
    }

    /// The same, decoded.
    pub(crate) async fn rows<R: Row>(
        &self,
        ids: &[DeliveryId],
    ) -> Result<Vec<Option<R>>, StoreError> {
        let found = self.get(ids).await?;
        let open = |bytes: Option<Vec<u8>>| Ok(bytes.map(|b| R::open(&b)).transpose()?);
        found.into_iter().map(open).collect()
    }

    /// Rows of an hour of an endpoint after a delivery, rising.
    pub(crate) async fn after(
        &self,
        of: EndpointId,
        hour: i64,
        after: Vec<u8>,
        limit: i32,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        self.cql
            .rows(&self.after, (endpoint(of), hour, after, limit))
            .await
    }
}

/// The same 64 bits, as CQL has them.
pub(crate) fn endpoint(id: EndpointId) -> i64 {
    id.0.cast_signed()
}

/// The hour that a delivery's event was published in.
pub(crate) fn hour(delivery: DeliveryId) -> i64 {
    delivery.published().seconds().div_euclid(3600)
}

/// Of items under one key the last; in any order.
pub(crate) fn last_of_each<T, K: Ord>(items: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let keyed = items.into_iter().map(|item| (key(&item), item));
    let map: std::collections::BTreeMap<K, T> = keyed.collect();
    map.into_values().collect()
}
