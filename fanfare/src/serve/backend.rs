//! Where events and state are kept: the embedded engine, or Kafka and a CQL store. The only place
//! that names an adapter.
//!
//! A start waits for Kafka and the store, not ready and saying why, as long as only time can help;
//! what a person must correct ends it at once, and nothing was changed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fanfare_embedded::Embedded;
use fanfare_event_log::{EventLog, Group, Progress, Span, Stream};
use fanfare_event_log_kafka::agreement::{AgreementError, Partitions};
use fanfare_event_log_kafka::checkpoints::CheckpointError;
use fanfare_event_log_kafka::{Agreement, Checkpoints, Hooks, KafkaLog};
use fanfare_service::health::Condition;
use fanfare_store::{Follower, StoreErrorKind, Stores};
use fanfare_store_scylla::CqlConfig;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use opentelemetry::metrics::Meter;
use tokio::time::Instant;

use crate::config::{Config, StorageMode};
use crate::failure::Failure;

/// Between two tries to reach Kafka or the store.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What keeps everything.
pub(super) enum Backend {
    /// One directory.
    Embedded(Embedded),
    /// Kafka and a CQL store.
    Distributed {
        /// Kafka.
        log: Arc<KafkaLog>,
        /// The CQL store.
        stores: Stores,
    },
}

/// Why opening failed.
enum Refusal {
    /// Only a person can help.
    Final(Failure),
    /// Time may.
    Passing(Failure),
}

impl Backend {
    /// Opens what the configuration names, saying in `ready` what it waits for meanwhile.
    pub(super) async fn open(config: &Config, ready: &Condition) -> Result<Self, Failure> {
        match config.storage.mode {
            StorageMode::Embedded => {
                let opening = Embedded::open(config.storage.engine());
                let engine = opening.await.map_err(|e| directory_failed(&e))?;
                Ok(Self::Embedded(engine))
            }
            StorageMode::Distributed => distributed(config, ready).await,
        }
    }

    /// The log.
    pub(super) fn log(&self) -> Arc<dyn EventLog> {
        match self {
            Self::Embedded(engine) => engine.log(),
            Self::Distributed { log, .. } => log.clone(),
        }
    }

    /// The stores.
    pub(super) fn stores(&self) -> Stores {
        match self {
            Self::Embedded(engine) => engine.stores(),
            Self::Distributed { stores, .. } => stores.clone(),
        }
    }

    /// Adds its own metrics.
    pub(super) fn observe(&self, meter: &Meter) {
        if let Self::Distributed { log, .. } = self {
            let log = Arc::downgrade(log);
            meter
                .u64_observable_counter("fanfare_log_records_lost")
                .with_description("Records that retention took before they were settled")
                .with_callback(move |lost| {
                    if let Some(log) = log.upgrade() {
                        lost.observe(log.records_lost(), &[]);
                    }
                })
                .build();
        }
    }

    /// Resolves when nothing can be written any more, with the reason. Kafka and the store may
    /// always come back.
    pub(super) fn failed(&self) -> BoxFuture<'static, String> {
        match self {
            Self::Embedded(engine) => engine.failed().boxed(),
            Self::Distributed { .. } => std::future::pending().boxed(),
        }
    }

    /// Closes it, when nothing uses it any more.
    pub(super) async fn close(self) {
        match self {
            Self::Embedded(engine) => engine.close().await,
            Self::Distributed { log, .. } => log.close().await,
        }
    }
}

async fn distributed(config: &Config, ready: &Condition) -> Result<Backend, Failure> {
    let deadline = Instant::now() + config.server.backend_wait.0;
    let tell = teller(ready);
    let stores = insist(deadline, tell, || open_store(config)).await?;
    let log = insist(deadline, tell, || open_log(config, &stores)).await?;
    ready.fails("starting");
    Ok(Backend::Distributed {
        log: Arc::new(log),
        stores,
    })
}

/// Loads the configuration from the store, which may be away again since it was opened.
pub(super) async fn load(
    follower: &Follower,
    config: &Config,
    ready: &Condition,
) -> Result<(), Failure> {
    let deadline = Instant::now() + config.server.backend_wait.0;
    insist(deadline, teller(ready), || async {
        follower.load_all().await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(" ({cause})"));
            let cause = cause.unwrap_or_default();
            let sentence = format!(
                "the configuration cannot be loaded: {error}{cause}; look at the store and its log"
            );
            let failure = Failure::refused("STORE", sentence);
            match error.kind() {
                StoreErrorKind::Unavailable => Refusal::Passing(failure),
                _ => Refusal::Final(failure),
            }
        })
    })
    .await?;
    ready.fails("starting");
    Ok(())
}

/// Tells probes and the log for what a start waits.
fn teller(ready: &Condition) -> impl Fn(&str) + Copy + '_ {
    |said| {
        ready.fails(said);
        tracing::warn!("{said}");
    }
}

/// Tries until it works, a person is needed, or the deadline passes. Tells for what it waits whenever
/// that changes.
async fn insist<T, F>(
    deadline: Instant,
    tell: impl Fn(&str),
    open: impl Fn() -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Refusal>>,
{
    let mut said = String::new();
    loop {
        let failure = match open().await {
            Ok(opened) => return Ok(opened),
            Err(Refusal::Final(failure)) => return Err(failure),
            Err(Refusal::Passing(failure)) => failure,
        };
        if Instant::now() + RETRY_PAUSE > deadline {
            return Err(failure);
        }
        let waiting = format!("waiting: {}", failure.message());
        if said != waiting {
            tell(&waiting);
            said = waiting;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn open_store(config: &Config) -> Result<Stores, Refusal> {
    let opened = fanfare_store_scylla::open(&config.cql).await;
    opened.map_err(|error| store_refusal(&error))
}

fn store_refusal(error: &fanfare_store_scylla::OpenError) -> Refusal {
    use fanfare_store_scylla::OpenErrorKind as Kind;
    let sentence = format!("cql: {error}");
    match error.kind() {
        Kind::Config | Kind::Credentials | Kind::NewerVersion => {
            Refusal::Final(Failure::usage(sentence))
        }
        Kind::Refused => Refusal::Final(Failure::refused("STORE", sentence)),
        Kind::Unreachable | Kind::NotMigrated => {
            Refusal::Passing(Failure::refused("STORE", sentence))
        }
    }
}

async fn open_log(config: &Config, stores: &Stores) -> Result<KafkaLog, Refusal> {
    use fanfare_event_log_kafka::OpenErrorKind as Kind;
    let hooks = Hooks {
        checkpoints: Arc::new(StoredCheckpoints(stores.clone())),
        agreement: Arc::new(StoredAgreement(config.cql.clone())),
        ..Hooks::default()
    };
    let opened = KafkaLog::open(config.kafka.clone(), hooks).await;
    opened.map_err(|error| match error.kind() {
        Kind::Configuration => Refusal::Final(Failure::usage(format!("kafka: {error}"))),
        Kind::Unavailable => Refusal::Passing(Failure::refused("KAFKA", format!("kafka: {error}"))),
    })
}

/// Migrates the store's schema; answers the version that is in place. Waits for a store that is
/// away as a start does.
pub(crate) async fn migrate(config: &Config) -> Result<i32, Failure> {
    let deadline = Instant::now() + config.server.backend_wait.0;
    // A command writes no log; who runs it reads this.
    let tell = |said: &str| eprintln!("fanfare: {said}");
    insist(deadline, tell, || async {
        let migrated = fanfare_store_scylla::migrate(&config.cql).await;
        migrated.map_err(|error| store_refusal(&error))
    })
    .await
}

/// Where a span begins whose offsets Kafka has lost: what its owner last saved in the store.
struct StoredCheckpoints(Stores);

#[async_trait]
impl Checkpoints for StoredCheckpoints {
    async fn load(
        &self,
        stream: Stream,
        _: &Group,
        span: Span,
    ) -> Result<Option<Progress>, CheckpointError> {
        let state = self.0.shards.load(stream.name(), span.index).await?;
        let Some(bytes) = state.checkpoint else {
            return Ok(None);
        };
        let progress = Progress::decode(&bytes);
        progress
            .map(Some)
            .ok_or_else(|| "the checkpoint is damaged".into())
    }
}

/// What all programs agreed on, in the store.
struct StoredAgreement(CqlConfig);

#[async_trait]
impl Agreement for StoredAgreement {
    async fn agree(&self, prefix: &str, own: &Partitions) -> Result<Partitions, AgreementError> {
        Ok(fanfare_store_scylla::agree(&self.0, prefix, own).await?)
    }
}

fn directory_failed(error: &fanfare_embedded::OpenError) -> Failure {
    let cause = std::error::Error::source(error).map(|cause| format!(" ({cause})"));
    Failure::refused("DATA_DIR", format!("{error}{}", cause.unwrap_or_default()))
}
