//! State per span.

use async_trait::async_trait;
use fanfare_domain::Tenure;
use fanfare_store::wire::Row;
use fanfare_store::{ShardState, ShardStates, StoreError};

use super::journal::{Journal, failed};
use super::{SHARDS, keys};
use crate::changes::Batch;

pub(super) struct Shards {
    journal: Journal,
}

impl Shards {
    pub(super) fn new(journal: Journal) -> Self {
        Self { journal }
    }
}

#[async_trait]
impl ShardStates for Shards {
    async fn load(&self, stream: &str, span: u16) -> Result<ShardState, StoreError> {
        let bytes = self
            .journal
            .engine
            .get(SHARDS, &key(stream, span))
            .map_err(failed)?;
        match bytes {
            Some(bytes) => Ok(ShardState::open(&bytes)?),
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
        let turn = || {
            let mut batch = Batch::default();
            batch.put(SHARDS, key(stream, span), state.seal());
            StoreError::unless_owner(tenure)?;
            self.journal.submit(batch)?;
            Ok(())
        };
        self.journal.write(turn).await
    }
}

fn key(stream: &str, span: u16) -> Vec<u8> {
    let mut key = keys::names(&[stream]);
    key.extend_from_slice(&span.to_be_bytes());
    key
}
