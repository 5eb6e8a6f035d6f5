//! The worker: joins the group and runs a shift for every span it is granted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use fanfare_domain::{Endpoint, EndpointId, EndpointState, RetrySchedule};
use fanfare_event_log::{EventLog, Group, LogErrorKind, Reader, Stream, Visibility};
use fanfare_service::egress::EgressPolicy;
use fanfare_service::{Backoff, Clock};
use fanfare_store::{Catalog, Entry, EntryKey, Follower, Observer, Stores, Write};
use opentelemetry::metrics::Meter;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::Outfit;
use crate::callee::Callee;
use crate::config::WorkerConfig;
use crate::connect::Connector;
use crate::instruments::Instruments;
use crate::lane::Bounds;
use crate::shift;

/// The consumers of the deliveries stream that deliver.
pub(crate) const GROUP: &str = "worker";
/// Most endpoints remembered as just ended; more are found when they come due.
const ENDED_MAX: usize = 1_000;

/// Delivers what is owed; see the crate.
pub struct Worker {
    log: Arc<dyn EventLog>,
    stores: Stores,
    outfit: Outfit,
    config: WorkerConfig,
    schedule: RetrySchedule,
    instruments: Instruments,
    changes: Arc<watch::Sender<u64>>,
    ended: Arc<Mutex<BTreeSet<EndpointId>>>,
}

/// Why a worker cannot be built. Display is one sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(String);

/// What every shift works with.
pub(crate) struct Context {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) stores: Stores,
    pub(crate) follower: Arc<Follower>,
    pub(crate) outfit: Outfit,
    pub(crate) config: WorkerConfig,
    pub(crate) schedule: RetrySchedule,
    pub(crate) instruments: Instruments,
    pub(crate) bounds: Bounds,
    pub(crate) in_flight: Arc<Semaphore>,
    /// Small tasks of the shifts; they end with their lease.
    pub(crate) tasks: TaskTracker,
    /// Raised whenever the configuration changed.
    pub(crate) changes: Arc<watch::Sender<u64>>,
    /// Endpoints that were disabled or deleted lately.
    pub(crate) ended: Arc<Mutex<BTreeSet<EndpointId>>>,
    /// Endpoints in their current version, prepared for being called.
    callees: Mutex<HashMap<EndpointId, Arc<Callee>>>,
}

/// Tells the shifts that the configuration changed.
struct Changes {
    changes: Arc<watch::Sender<u64>>,
    ended: Arc<Mutex<BTreeSet<EndpointId>>>,
}

impl Observer for Changes {
    fn changed(&mut self, writes: &[Write], _after: &Catalog) {
        {
            let mut ended = self.ended.lock();
            for write in writes {
                match write {
                    Write::Put(entry) => match &**entry {
                        Entry::Endpoint(e) if e.state == EndpointState::Disabled => {
                            {
                                ended.insert(e.id);
                            };
                        }
                        Entry::Endpoint(e) => {
                            ended.remove(&e.id);
                        }
                        _ => {}
                    },
                    Write::Delete(EntryKey::Endpoint(_, id)) => {
                        ended.insert(*id);
                    }
                    Write::Delete(_) => {}
                }
            }
            while ended.len() > ENDED_MAX {
                ended.pop_first();
            }
        }
        self.changes.send_modify(|version| *version += 1);
    }
}

impl Worker {
    /// A worker, and the observer that tells it of every change of the configuration.
    pub fn new(
        log: Arc<dyn EventLog>,
        stores: Stores,
        policy: Arc<EgressPolicy>,
        config: WorkerConfig,
        meter: &Meter,
        clock: Clock,
    ) -> Result<(Self, impl Observer + 'static), SetupError> {
        config.check().map_err(SetupError)?;
        let schedule = config.schedule().map_err(SetupError)?;
        let connector =
            Connector::new(policy, config.connect_timeout.0, config.extra_ca.as_deref());
        let outfit = Outfit {
            connector: connector.map_err(SetupError)?,
            clock,
            line_ages: (config.connection_idle.0, config.connection_lifetime.0),
        };
        let changes = Arc::new(watch::Sender::new(0));
        let ended = Arc::new(Mutex::default());
        let observer = Changes {
            changes: changes.clone(),
            ended: ended.clone(),
        };
        let instruments = Instruments::new(meter);
        Ok((
            Self {
                log,
                stores,
                outfit,
                config,
                schedule,
                instruments,
                changes,
                ended,
            },
            observer,
        ))
    }

    /// Delivers until `drain` is cancelled, then finishes what is in flight, commits and lets go.
    /// The caller bounds the drain, at [`WorkerConfig::drain_deadline`] or later.
    pub async fn run(self, follower: Arc<Follower>, drain: CancellationToken) {
        let context = Arc::new(Context {
            in_flight: Arc::new(Semaphore::new(self.config.in_flight)),
            bounds: Bounds {
                senders_max: self.config.endpoint_in_flight,
                waiting_max: self.config.queue_max,
                waiting_max_bytes: self.config.queue_max_bytes.as_usize(),
            },
            log: self.log,
            stores: self.stores,
            follower,
            outfit: self.outfit,
            config: self.config,
            schedule: self.schedule,
            instruments: self.instruments,
            tasks: TaskTracker::new(),
            changes: self.changes,
            ended: self.ended,
            callees: Mutex::default(),
        });
        let Some(mut reader) = join(&context, &drain).await else {
            return;
        };
        let mut shifts = JoinSet::new();
        follow_leases(&context, &mut *reader, &mut shifts, &drain).await;
        reader.leave().await;
        while let Some(ended) = shifts.join_next().await {
            report(ended);
        }
    }
}

impl Context {
    /// `endpoint`, prepared; the same one for as long as its version is.
    pub(crate) fn callee(&self, endpoint: &Arc<Endpoint>) -> Arc<Callee> {
        let mut callees = self.callees.lock();
        match callees.get(&endpoint.id) {
            Some(callee) if callee.endpoint.version == endpoint.version => callee.clone(),
            _ => {
                let callee = Arc::new(Callee::new(endpoint.clone()));
                callees.insert(endpoint.id, callee.clone());
                callee
            }
        }
    }
}

async fn join(context: &Context, drain: &CancellationToken) -> Option<Box<dyn Reader>> {
    let group = Group::new(GROUP);
    let mut backoff = Backoff::new("join the worker group");
    loop {
        let joining = context
            .log
            .join(Stream::Deliveries, &group, Visibility::Durable);
        match drain.run_until_cancelled(joining).await? {
            Ok(reader) => return Some(reader),
            Err(error) if error.kind() == LogErrorKind::Closed => return None,
            Err(error) => drain.run_until_cancelled(backoff.wait(&error)).await?,
        }
    }
}

async fn follow_leases(
    context: &Arc<Context>,
    reader: &mut dyn Reader,
    shifts: &mut JoinSet<()>,
    drain: &CancellationToken,
) {
    let mut backoff = Backoff::new("take part in the worker group");
    loop {
        let granted = tokio::select! {
            () = drain.cancelled() => return,
            Some(ended) = shifts.join_next() => {
                report(ended);
                continue;
            }
            granted = reader.next() => granted,
        };
        match granted {
            Ok(granted) => {
                backoff.reset();
                shifts.spawn(shift::work(context.clone(), granted));
            }
            Err(error) if error.kind() == LogErrorKind::Closed => return,
            Err(error) => backoff.wait(&error).await,
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a shift ended in a panic; its span is granted anew");
    }
}
