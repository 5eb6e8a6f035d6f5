//! The worker: joins the group, works a [`shift`] for every span it is granted, and is told of
//! every change of the configuration.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use fanfare_domain::{DeadLetterReason, EndpointId, Shard};
use fanfare_event_log::{EventLog, Group, LogErrorKind, Reader, Stream, Visibility};
use fanfare_service::egress::EgressPolicy;
use fanfare_service::{Backoff, Clock};
use fanfare_store::{Catalog, Entry, EntryKey, Follower, Observer, Stores, Write};
use opentelemetry::metrics::Meter;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::attempt::Outfit;
use crate::chronicle::Chronicle;
use crate::config::WorkerConfig;
use crate::connect::Connector;
use crate::crew::Crew;
use crate::desk::{Aside, Desk};
use crate::instruments::Instruments;
use crate::lanes::Bounds;
use crate::shift::{self, Floor};
use crate::standing::Standing;

/// The consumers of the deliveries stream that deliver.
pub const GROUP: &str = "worker";
/// Small tasks that outlive their shift get this long at the end.
const TASKS_MAX: Duration = Duration::from_secs(2);

/// Delivers what is owed; see the crate.
pub struct Worker {
    log: Arc<dyn EventLog>,
    stores: Stores,
    config: WorkerConfig,
    crew: Arc<Crew>,
    desks: Arc<Desks>,
}

/// Why a worker cannot be built. Display is one sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(String);

/// The desks of the shifts there are.
#[derive(Default)]
pub(crate) struct Desks(Mutex<Vec<Arc<Desk>>>);

/// Tells the crew of every change.
struct Changes {
    crew: Arc<Crew>,
    desks: Arc<Desks>,
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
    ) -> Result<(Self, impl Observer + use<>), SetupError> {
        config.check().map_err(SetupError)?;
        let schedule = config.schedule().map_err(SetupError)?;
        let connector =
            Connector::new(policy, config.connect_timeout.0, config.extra_ca.as_deref())
                .map_err(SetupError)?;
        let outfit = Outfit {
            connector,
            clock,
            line_ages: (config.connection_idle.0, config.connection_lifetime.0),
        };
        let bounds = Bounds {
            in_flight: config.in_flight,
            lane_in_flight: config.endpoint_in_flight,
            queue_max: config.queue_max,
            queue_max_bytes: config.queue_max_bytes.as_usize(),
            idle_seats: config.idle_connections,
        };
        let (idle, in_flight_max) = (config.connection_idle.0, config.in_flight);
        let crew = Crew::new(outfit, schedule, Instruments::new(meter), idle, bounds);
        let (crew, desks) = (Arc::new(crew), Arc::new(Desks::default()));
        Instruments::observe(meter, in_flight_max, &crew, &desks);
        let changes = Changes {
            crew: crew.clone(),
            desks: desks.clone(),
        };
        let worker = Self {
            log,
            stores,
            config,
            crew,
            desks,
        };
        Ok((worker, changes))
    }

    /// How long the oldest delivery that is not settled has been owed, looked at whenever asked.
    pub fn delivery_age(&self) -> impl Fn() -> Duration + Send + Sync + use<> {
        let desks = self.desks.clone();
        move || desks.oldest_unsettled()
    }

    /// Delivers until `drain` is cancelled, then finishes what is in flight, commits and lets go;
    /// or until the log is closed. The caller bounds the drain, at
    /// [`WorkerConfig::drain_deadline`] or later.
    pub async fn run(self, follower: Arc<Follower>, drain: CancellationToken) {
        let history = self.stores.history.clone();
        let dropped = self.crew.instruments.history_dropped.clone();
        let chronicle = Arc::new(Chronicle::new(
            history,
            self.config.history_backlog,
            dropped,
        ));
        let written = CancellationToken::new();
        let writing = {
            let (chronicle, written) = (chronicle.clone(), written.clone());
            tokio::spawn(async move { chronicle.write(written).await })
        };
        let floor = Arc::new(Floor {
            log: self.log,
            stores: self.stores,
            follower,
            crew: self.crew.clone(),
            chronicle,
            config: self.config,
            desks: self.desks,
            last_shift: AtomicU32::new(0),
        });
        tokio::select! {
            () = work_shifts(&floor, &drain) => {}
            () = self.crew.widen() => {}
        }
        written.cancel();
        if let Err(error) = writing.await {
            tracing::error!(%error, "the history's writer panicked");
        }
        self.crew.tasks.close();
        // What is left are idle senders on their way home, and an endpoint being disabled.
        let _ = tokio::time::timeout(TASKS_MAX, self.crew.tasks.wait()).await;
    }
}

async fn work_shifts(floor: &Arc<Floor>, drain: &CancellationToken) {
    let Some(mut reader) = join(floor, drain).await else {
        return;
    };
    let mut shifts = JoinSet::new();
    follow_leases(floor, &mut *reader, &mut shifts, drain).await;
    reader.leave().await;
    while let Some(ended) = shifts.join_next().await {
        report(ended);
    }
}

async fn join(floor: &Floor, drain: &CancellationToken) -> Option<Box<dyn Reader>> {
    let group = Group::new(GROUP);
    let mut backoff = Backoff::new("join the worker group");
    loop {
        let joining = floor
            .log
            .join(Stream::Deliveries, &group, Visibility::Durable);
        match drain.run_until_cancelled(joining).await? {
            Ok(reader) => return Some(reader),
            Err(error) if error.kind() == LogErrorKind::Closed => return None,
            Err(error) => drain.run_until_cancelled(backoff.wait(&error)).await?,
        }
    }
}

/// Works every span that is granted, until the drain begins or the log is closed.
async fn follow_leases(
    floor: &Arc<Floor>,
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
                shifts.spawn(shift::work(floor.clone(), granted));
            }
            Err(error) if error.kind() == LogErrorKind::Closed => return,
            Err(error) => backoff.wait(&error).await,
        }
    }
}

/// A shift ends when its lease does; a panic is a bug that its next owner will meet again.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a shift panicked; its span is worked again from its last commit");
    }
}

impl Observer for Changes {
    fn changed(&mut self, writes: &[Write], after: &Catalog) {
        let before = self.crew.catalog();
        self.crew.set_catalog(after.clone());
        for write in writes {
            match write {
                Write::Put(entry) => {
                    if let Entry::Endpoint(endpoint) = &**entry {
                        self.endpoint(endpoint.id, after);
                    }
                }
                Write::Delete(EntryKey::Endpoint(_, id)) => self.endpoint(*id, after),
                Write::Delete(EntryKey::Subscription(_, id)) => {
                    if let Some(subscription) = before.subscription(*id) {
                        let aside = Aside::End(DeadLetterReason::SubscriptionDeleted);
                        let endpoint = subscription.endpoint;
                        self.crew.alter(|lanes, moves| {
                            lanes.end_subscription(endpoint, *id, aside, moves);
                        });
                        self.desks.note_change(endpoint);
                    }
                }
                Write::Delete(EntryKey::Request(..)) => {}
            }
        }
    }
}

impl Changes {
    fn endpoint(&self, id: EndpointId, after: &Catalog) {
        let standing = Standing::of_endpoint(after.endpoint(id));
        self.crew.alter(|lanes, moves| {
            lanes.change_endpoint(id, &standing, Instant::now(), moves);
        });
        if let Standing::Ended(_) = standing {
            self.desks.note_change(id);
        }
    }
}

impl Desks {
    pub(crate) fn add(&self, desk: Arc<Desk>) {
        self.0.lock().push(desk);
    }

    pub(crate) fn remove(&self, desk: &Arc<Desk>) {
        self.0.lock().retain(|other| !Arc::ptr_eq(other, desk));
    }

    /// The age of the oldest delivery that is not settled.
    pub(crate) fn oldest_unsettled(&self) -> Duration {
        let desks = self.0.lock();
        let ages = desks.iter().map(|desk| desk.ages.oldest());
        ages.max().unwrap_or_default()
    }

    /// Deliveries of an endpoint may have ended.
    fn note_change(&self, endpoint: EndpointId) {
        let shard = Shard::of_endpoint(endpoint);
        for desk in &*self.0.lock() {
            if desk.shards.contains(shard) {
                desk.note_change(endpoint);
            }
        }
    }
}
