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

/// The same on groups that the brokers balance (KIP-848): what depends on the protocol.
mod balanced_by_brokers {
    use super::{Arc, Backend, EventLog, Kafka, KafkaConfig, Lease, async_trait, world};
    use fanfare_event_log::conformance::{durability, groups, leases};
    use fanfare_event_log_kafka::config::GroupProtocol;

    struct Balanced(Kafka);

    #[async_trait]
    impl Backend for Balanced {
        async fn create() -> Self {
            let config = KafkaConfig {
                group_protocol: GroupProtocol::Consumer,
                session_timeout_ms: 45_000,
                ..world::config().await
            };
            let log = Arc::new(world::open(&config).await);
            Self(Kafka { config, log })
        }

        fn log(&self) -> Arc<dyn EventLog> {
            self.0.log()
        }

        async fn crash_and_reopen(self) -> Self {
            Self(self.0.crash_and_reopen().await)
        }

        async fn lose_lease(&self, _: &Lease) {
            unreachable!("the cases below take no lease away");
        }
    }

    macro_rules! cases {
        ($($suite:ident: $($case:ident),+;)+) => { $($(
            #[tokio::test]
            async fn $case() {
                $suite::$case(Balanced::create().await).await;
            }
        )+)+ };
    }

    cases! {
        durability: acknowledged_commits_survive_a_crash;
        leases: dropping_the_records_lets_go, a_revoke_is_a_phase, a_late_joiner_gets_its_share,
            nothing_repeats_when_members_come_and_go_politely;
        groups: one_group_on_two_streams_is_two;
    }
}
