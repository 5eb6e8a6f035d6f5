//! The worker: joins the group and runs a shift for every span it is granted.

use std::sync::Arc;

use fanfare_event_log::EventLog;
use fanfare_service::Clock;
use fanfare_service::egress::EgressPolicy;
use fanfare_store::{Catalog, Follower, Observer, Stores, Write};
use opentelemetry::metrics::Meter;
use tokio_util::sync::CancellationToken;

use crate::config::WorkerConfig;

/// Delivers what is owed; see the crate.
pub struct Worker {
    _log: Arc<dyn EventLog>,
    _stores: Stores,
}

/// Why a worker cannot be built. Display is one sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(String);

struct Changes;

impl Observer for Changes {
    fn changed(&mut self, _writes: &[Write], _after: &Catalog) {}
}

impl Worker {
    /// A worker, and the observer that tells it of every change of the configuration.
    pub fn new(
        log: Arc<dyn EventLog>,
        stores: Stores,
        _policy: Arc<EgressPolicy>,
        config: WorkerConfig,
        _meter: &Meter,
        _clock: Clock,
    ) -> Result<(Self, impl Observer + 'static), SetupError> {
        config.check().map_err(SetupError)?;
        Ok((
            Self {
                _log: log,
                _stores: stores,
            },
            Changes,
        ))
    }

    /// Delivers until `drain` is cancelled, then finishes what is in flight, commits and lets go.
    pub async fn run(self, _follower: Arc<Follower>, drain: CancellationToken) {
        drain.cancelled().await;
    }
}
