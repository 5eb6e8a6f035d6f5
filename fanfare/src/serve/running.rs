//! A running server: its tasks, and its end.
//!
//! The end is a drain in phases under one deadline: unready, stop intake and answer what was read,
//! finish routing, finish what is in flight and commit, close the engine. The probes answer until
//! the last. Only the engine's own failure ends it without one: nothing can be written any more,
//! and everything acknowledged is already on disk.

use std::time::Duration;

use fanfare_embedded::Embedded;
use fanfare_service::admin;
use fanfare_service::health::{Bears, Condition, Health};
use fanfare_service::signals::Signals;
use fanfare_service::tasks::{Drain, OnEnd, Tasks};
use fanfare_service::telemetry::Metrics;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::addresses::{Addresses, AddressesFile};
use super::assembly::{CONFIRM_INTERVAL, Parts};
use super::listeners::Listeners;
use crate::config::Config;
use crate::failure::Failure;

/// A server that is ready.
pub struct Running {
    engine: Embedded,
    addresses: Addresses,
    addresses_file: AddressesFile,
    tasks: Tasks,
    intake: Stage,
    routing: Stage,
    delivering: Stage,
    ready: Condition,
    drain_deadline: Duration,
    /// Ends what serves until the last: probes, and following the configuration.
    rest: CancellationToken,
}

/// A task that has a drain of its own.
struct Stage {
    drain: CancellationToken,
    ended: JoinHandle<()>,
}

impl Running {
    /// Binds, opens, starts everything, and says where it listens.
    pub async fn start(config: &Config) -> Result<Self, Failure> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listeners = Listeners::bind(&config.server).await?;
        let addresses = listeners.addresses()?;
        let metrics = Metrics::new().map_err(|e| Failure::refused("METRICS", e.to_string()))?;
        let (tasks, health, rest) = (Tasks::new(), Health::new(), CancellationToken::new());
        let ready = health.condition("server", Bears::OnReadiness, "starting");
        let probes = admin::serve(listeners.admin, health, metrics.clone(), rest.clone());
        tasks.spawn("admin", OnEnd::Vital, probes);

        let dir = &config.storage.data_dir;
        let parts = Parts::assemble(config, &addresses, &metrics).await?;
        AddressesFile::forget_stale(dir);
        tasks.run("configuration", OnEnd::Vital, follow(&parts, rest.clone()));
        let routing = Stage::start(&tasks, "routing", |drain| parts.routing.run(drain));
        let follower = parts.follower;
        let delivering = Stage::start(&tasks, "delivering", |drain| {
            parts.worker.run(follower, drain)
        });
        let intake = Stage::start(&tasks, "intake", |drain| {
            parts.front.serve(listeners.front, drain)
        });

        let addresses_file = AddressesFile::write(dir, &addresses).map_err(|e| {
            let sentence = format!("cannot write addresses.json in {} ({e})", dir.display());
            Failure::refused("DATA_DIR", sentence)
        })?;
        ready.holds("accepting and delivering");
        Ok(Self {
            engine: parts.engine,
            addresses,
            addresses_file,
            tasks,
            intake,
            routing,
            delivering,
            ready,
            drain_deadline: config.server.drain_deadline.0,
            rest,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits for a signal or a failure, then ends. A second signal ends the process at once.
    pub async fn until_stopped(self, mut signals: Signals) -> Result<(), Failure> {
        let failure = tokio::select! {
            signal = signals.next() => {
                tracing::info!(signal, "draining");
                None
            }
            failure = self.tasks.failure() => Some(failure.to_string()),
            why = self.engine.failed() => return Err(engine_failed(&why)),
        };
        signals.exit_on_next();
        let overdue = self.drain().await;
        match failure {
            Some(what) => Err(Failure::refused(
                "FAILED",
                format!("{what}; nothing acknowledged is lost: start it again, and report this"),
            )),
            None => overdue,
        }
    }

    async fn drain(self) -> Result<(), Failure> {
        let mut drain = Drain::within(self.drain_deadline);
        let engine_failed_while = self.engine.failed();
        self.ready.fails("draining: send new work elsewhere");
        self.tasks.begin_drain();
        let phases = async {
            drain.phase("intake", self.intake.end()).await;
            drain.phase("routing", self.routing.end()).await;
            drain.phase("delivering", self.delivering.end()).await;
        };
        tokio::select! {
            () = phases => {}
            why = engine_failed_while => return Err(engine_failed(&why)),
        }
        drain.phase("engine", self.engine.close()).await;
        self.addresses_file.remove();
        self.rest.cancel();
        drain.phase("rest", self.tasks.ended_all()).await;
        match drain.overdue() {
            [] => Ok(()),
            phases => Err(Failure::refused(
                "DRAIN_OVERDUE",
                format!(
                    "the drain deadline passed during {}; nothing is lost, what was in flight is delivered again under the same ids",
                    phases.join(", ")
                ),
            )),
        }
    }
}

impl Stage {
    fn start<F>(
        tasks: &Tasks,
        name: &'static str,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let drain = CancellationToken::new();
        let ended = tasks.run(name, OnEnd::Vital, work(drain.clone()));
        Self { drain, ended }
    }

    async fn end(self) {
        self.drain.cancel();
        // How it ended was told by its owner.
        let _ = self.ended.await;
    }
}

/// Keeps the configuration confirmed until the rest ends.
fn follow(parts: &Parts, rest: CancellationToken) -> impl Future<Output = ()> + use<> {
    let follower = parts.follower.clone();
    let failed = |error: &fanfare_store::StoreError| {
        tracing::warn!(%error, "the configuration could not be confirmed; routing waits");
    };
    async move {
        tokio::select! {
            () = rest.cancelled() => {}
            () = follower.run(CONFIRM_INTERVAL, failed) => {}
        }
    }
}

fn engine_failed(why: &str) -> Failure {
    Failure::refused(
        "STORAGE_FAILED",
        format!(
            "storage stopped: {why}; nothing acknowledged is lost: see to the disk, then start it again"
        ),
    )
}
