//! A running process: its tasks, and its end.
//!
//! The end is a drain in phases under one deadline: unready, stop intake and answer what was read,
//! finish routing, finish what is in flight and commit, close the backend. The probes answer until
//! the last. Only the engine's own failure ends it without one: nothing can be written any more,
//! and everything acknowledged is already on disk.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fanfare_service::admin;
use fanfare_service::health::{Bears, Condition, Health};
use fanfare_service::signals::Signals;
use fanfare_service::tasks::{Drain, OnEnd, Tasks};
use fanfare_service::telemetry::Metrics;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::addresses::{Addresses, AddressesFile};
use super::assembly::{CONFIRM_INTERVAL, Parts};
use super::backend::Backend;
use super::listeners::Listeners;
use super::watch;
use crate::config::{Config, Role};
use crate::failure::Failure;

/// A process that is ready.
pub struct Running {
    backend: Backend,
    addresses: Addresses,
    addresses_file: Option<AddressesFile>,
    tasks: Tasks,
    /// What has a drain of its own, in the order in which it is drained.
    stages: Vec<(&'static str, Stage)>,
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

/// What a process is started as.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Checked.
    pub config: &'a Config,
    /// What it does.
    pub role: Role,
    /// Where to write down its addresses.
    pub addresses_file: Option<PathBuf>,
}

impl Running {
    /// Binds, opens, starts everything, and writes down where it listens. Dropped before it
    /// resolves, it has accepted nothing.
    pub async fn start(launch: &Launch<'_>) -> Result<Self, Failure> {
        let Launch { config, role, .. } = *launch;
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listeners = Listeners::bind(&config.server, role).await?;
        let addresses = listeners.addresses()?;
        // Already here: a start that waits for its backend answers probes.
        tracing::info!(
            listen = addresses.listen.map(tracing::field::display),
            admin_listen = %addresses.admin_listen,
            "listening"
        );
        let metrics = Metrics::new().map_err(|e| Failure::refused("METRICS", e.to_string()))?;
        let (tasks, health, rest) = (Tasks::new(), Health::new(), CancellationToken::new());
        let ready = health.condition("server", Bears::OnReadiness, "starting");
        let probes = admin::serve(
            listeners.admin,
            health.clone(),
            metrics.clone(),
            rest.clone(),
        );
        tasks.spawn("admin", OnEnd::Vital, probes);

        let backend = Backend::open(config, &ready).await?;
        backend.observe(&metrics.meter("fanfare"));
        let parts = Parts::assemble(config, role, &backend, &addresses, &metrics, &ready);
        let parts = parts.await?;
        let until = |work: BoxFuture<'static, ()>| {
            let rest = rest.clone();
            async move { rest.run_until_cancelled(work).await.unwrap_or_default() }
        };
        tasks.run("configuration", OnEnd::Vital, until(follow(&parts)));
        for (name, work) in watches(config, &backend, role, &parts, &health) {
            tasks.run(name, OnEnd::Vital, until(work));
        }
        if let Some(path) = &launch.addresses_file {
            AddressesFile::forget_stale(path);
        }
        let stages = start_stages(&tasks, parts, listeners.front);
        let addresses_file = write_addresses(launch.addresses_file.as_deref(), &addresses)?;
        ready.holds("at work");
        Ok(Self {
            backend,
            addresses,
            addresses_file,
            tasks,
            stages,
            ready,
            drain_deadline: config.server.drain_deadline.0,
            rest,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Where its front door is; refused when it has none.
    pub fn front(&self) -> Result<SocketAddr, Failure> {
        let none = || Failure::refused("NO_FRONT_DOOR", "this process has no front door");
        self.addresses.listen.ok_or_else(none)
    }

    /// Waits for a signal or a failure, then ends. A second signal ends the process at once.
    pub async fn until_stopped(self, mut signals: Signals) -> Result<(), Failure> {
        let failure = tokio::select! {
            signal = signals.next() => {
                tracing::info!(signal, "draining");
                None
            }
            failure = self.tasks.failure() => Some(failure.to_string()),
            why = self.backend.failed() => return Err(engine_failed(&why)),
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
        let failed_meanwhile = self.backend.failed();
        self.ready.fails("draining: send new work elsewhere");
        self.tasks.begin_drain();
        let phases = async {
            for (name, stage) in self.stages {
                drain.phase(name, stage.end()).await;
            }
        };
        tokio::select! {
            () = phases => {}
            why = failed_meanwhile => return Err(engine_failed(&why)),
        }
        drain.phase("backend", self.backend.close()).await;
        if let Some(file) = self.addresses_file {
            file.remove();
        }
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

/// Starts what has a drain of its own: in the order of the way of an event, so that what is in
/// front is drained first.
fn start_stages(
    tasks: &Tasks,
    parts: Parts,
    front: Option<TcpListener>,
) -> Vec<(&'static str, Stage)> {
    let mut stages = Vec::new();
    if let (Some((routing, door)), Some(listener)) = (parts.router, front) {
        let routing = Stage::start(tasks, "routing", |drain| routing.run(drain));
        let intake = Stage::start(tasks, "intake", |drain| door.serve(listener, drain));
        stages.extend([("intake", intake), ("routing", routing)]);
    }
    if let Some(worker) = parts.worker {
        let follower = parts.follower;
        let delivering = Stage::start(tasks, "delivering", |drain| worker.run(follower, drain));
        stages.push(("delivering", delivering));
    }
    stages
}

fn write_addresses(
    path: Option<&Path>,
    addresses: &Addresses,
) -> Result<Option<AddressesFile>, Failure> {
    let Some(path) = path else {
        return Ok(None);
    };
    let written = AddressesFile::write(path, addresses);
    written.map(Some).map_err(|e| {
        let sentence = format!("cannot write the addresses to {} ({e})", path.display());
        Failure::refused("ADDRESSES_FILE", sentence)
    })
}

/// Keeps the configuration confirmed.
fn follow(parts: &Parts) -> BoxFuture<'static, ()> {
    let follower = parts.follower.clone();
    let failed = |error: &fanfare_store::StoreError| {
        tracing::warn!(%error, "the configuration could not be confirmed; routing waits");
    };
    async move { follower.run(CONFIRM_INTERVAL, failed).await }.boxed()
}

/// What looks after readiness in a cluster.
fn watches(
    config: &Config,
    backend: &Backend,
    role: Role,
    parts: &Parts,
    health: &Health,
) -> Vec<(&'static str, BoxFuture<'static, ()>)> {
    let Backend::Distributed { log, .. } = backend else {
        return Vec::new();
    };
    let mut watches = vec![
        (
            "log watch",
            watch::log(log.clone(), role, health.clone()).boxed(),
        ),
        (
            "store watch",
            watch::store(parts.follower.clone(), health.clone()).boxed(),
        ),
    ];
    if role == Role::Worker
        && let Some(worker) = &parts.worker
    {
        let (age, stall_max) = (worker.delivery_age(), config.worker.stall_max.0);
        watches.push((
            "delivery watch",
            watch::deliveries(age, stall_max, health.clone()).boxed(),
        ));
    }
    watches
}

fn engine_failed(why: &str) -> Failure {
    Failure::refused(
        "STORAGE_FAILED",
        format!(
            "storage stopped: {why}; nothing acknowledged is lost: see to the disk, then start it again"
        ),
    )
}
