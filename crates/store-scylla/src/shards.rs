//! What the owner of a span keeps about it: one row, the higher stamp wins.

use std::sync::Arc;

use async_trait::async_trait;
use fanfare_domain::Tenure;
use fanfare_store::wire::Row;
use fanfare_store::{ShardState, ShardStates, StoreError};
use scylla::statement::prepared::PreparedStatement;

use crate::error::OpenError;
use crate::session::{Cql, Put, stamp};

pub(crate) struct Shards {
    cql: Arc<Cql>,
    select: PreparedStatement,
    insert: PreparedStatement,
}

impl Shards {
    pub(crate) async fn open(cql: &Arc<Cql>) -> Result<Self, OpenError> {
        Ok(Self {
            select: cql
                .prepare("SELECT state FROM shard WHERE stream = ? AND span = ?")
                .await?,
            insert: cql
                .prepare("INSERT INTO shard (stream, span, state) VALUES (?, ?, ?)")
                .await?,
            cql: cql.clone(),
        })
    }
}

/// Spans are at most 256.
fn index(span: u16) -> i16 {
    span.cast_signed()
}

#[async_trait]
impl ShardStates for Shards {
    async fn load(&self, stream: &str, span: u16) -> Result<ShardState, StoreError> {
        let values = (stream, index(span));
        let rows: Vec<(Vec<u8>,)> = self.cql.rows(&self.select, values).await?;
        match rows.first() {
            Some((state,)) => Ok(ShardState::open(state)?),
            None => Ok(ShardState::default()),
        }
    }

    async fn save(
        &self,
        tenure: &Tenure,
        stream: &str,
        span: u16,
        state: ShardState,
    ) -> Result<(), StoreError> {
        let state = state.seal();
        let put = Put {
            bytes: state.len(),
            values: (stream.to_owned(), index(span), state),
        };
        let stamp = stamp(tenure)?;
        self.cql
            .put(Some(tenure), stamp, &self.insert, vec![put])
            .await
    }
}
