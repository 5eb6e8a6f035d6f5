//! The suite of the seam, unchanged.

use std::sync::Arc;

use async_trait::async_trait;
use fanfare_event_log::conformance::Backend;
use fanfare_event_log::conformance::fixtures::WITHIN;
use fanfare_event_log::{EventLog, Lease, Phase};
use fanfare_event_log_kafka::{KafkaConfig, KafkaLog};
use tokio::time::Instant;

use crate::{admin, world};

struct Kafka {
    config: KafkaConfig,
    log: Arc<KafkaLog>,
}

#[async_trait]
impl Backend for Kafka {
    async fn create() -> Self {
        let config = world::config().await;
        let log = Arc::new(world::open(&config).await);
        Self { config, log }
    }

    fn log(&self) -> Arc<dyn EventLog> {
        self.log.clone()
    }

    /// All that a new process has of the old one is what the brokers have.
    async fn crash_and_reopen(self) -> Self {
        self.log.close().await;
        let log = Arc::new(world::open(&self.config).await);
        Self { log, ..self }
    }

    /// The member is removed from its group by an operator: it does not know until it asks.
    async fn lose_lease(&self, lease: &Lease) {
        let deadline = Instant::now() + WITHIN;
        while lease.phase() != Phase::Lost {
            let (config, log, lost) = (self.config.clone(), self.log.clone(), lease.clone());
            let expelled = tokio::task::spawn_blocking(move || admin::expel(&config, &log, &lost));
            if expelled.await.expect("not interrupted").expect("expelled") {
                return;
            }
            assert!(Instant::now() < deadline, "nobody holds {lease:?}");
        }
    }
}

fanfare_event_log::log_conformance!(Kafka);
