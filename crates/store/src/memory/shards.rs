//! State per span, in memory.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use fanfare_domain::Tenure;
use parking_lot::Mutex;

use super::Switch;
use crate::error::StoreError;
use crate::shards::{ShardState, ShardStates};

#[derive(Default)]
pub(super) struct Shards {
    switch: Arc<Switch>,
    states: Mutex<HashMap<(String, u16), ShardState>>,
}

impl Shards {
    pub(super) fn behind(switch: &Arc<Switch>) -> Self {
        Self {
            switch: switch.clone(),
            ..Self::default()
        }
    }
}

#[async_trait]
impl ShardStates for Shards {
    async fn load(&self, stream: &str, span: u16) -> Result<ShardState, StoreError> {
        self.switch.check()?;
        let key = (stream.to_owned(), span);
        Ok(self.states.lock().get(&key).cloned().unwrap_or_default())
    }

    async fn save(
        &self,
        tenure: &Tenure,
        stream: &str,
        span: u16,
        state: ShardState,
    ) -> Result<(), StoreError> {
        self.switch.check()?;
        let mut states = self.states.lock();
        StoreError::unless_owner(tenure)?;
        states.insert((stream.to_owned(), span), state);
        Ok(())
    }
}
