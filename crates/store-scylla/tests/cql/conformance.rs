//! The unchanged suites of the store seams.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use fanfare_domain::{AcceptedEvent, Place, Position};
use fanfare_store::Stores;
use fanfare_store::conformance::Backend;
use fanfare_store_scylla::{CqlConfig, open};

use crate::node::{self, Turn};

struct Cql {
    stores: Stores,
    config: CqlConfig,
    turn: Turn,
    next: AtomicU64,
}

#[async_trait]
impl Backend for Cql {
    async fn create() -> Self {
        let (config, turn) = node::empty().await;
        Self {
            stores: open(&config).await.unwrap(),
            config,
            turn,
            next: AtomicU64::new(0),
        }
    }

    fn stores(&self) -> Stores {
        self.stores.clone()
    }

    async fn accept(&self, events: Vec<AcceptedEvent>) -> Vec<Place> {
        let place = |_| Place {
            span: 0,
            position: Position(self.next.fetch_add(1, Ordering::Relaxed)),
        };
        events.iter().map(place).collect()
    }

    async fn sync(&self) {
        // What resolved is durable.
    }

    async fn crash_and_reopen(self) -> Self {
        let Self {
            config,
            turn,
            next,
            stores,
        } = self;
        drop(stores);
        Self {
            stores: open(&config).await.unwrap(),
            config,
            turn,
            next,
        }
    }
}

fanfare_store::store_conformance!(Cql);
