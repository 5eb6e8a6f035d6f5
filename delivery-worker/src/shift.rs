//! A shift: one leased span, from its grant until it is let go.
//!
//! ```text
//!             ┌──────── due again ◀───────────┐
//!             ▼                               │
//!   intake ─▶ lanes ─▶ senders ─▶ desk ─▶ clerk ─▶ settler ─▶ commit
//!             ▲                               │
//!             └──────── parked ◀──────────────┘
//! ```
//!
//! The end has phases. Wanted back: nothing new starts, what only waits is dropped from memory
//! (the log, the hints and the parked rows still have it), attempts under way end, are written
//! and committed, then the span is let go: the next owner repeats nothing. Lost: everything is
//! dropped at once, and what comes back late is dropped, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fanfare_event_log::{Granted, Lease, LogErrorKind, Phase, Records, Settler, Stream};
use fanfare_service::Backoff;
use fanfare_store::{Follower, ShardState, StoreError, StoreErrorKind, Stores};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::chronicle::Chronicle;
use crate::config::WorkerConfig;
use crate::crew::{Crew, Permit};
use crate::desk::Desk;
use crate::intake::{self, Doubt, Stop};
use crate::{clerk, due, endings, parked};

/// What the state of a span of deliveries is kept under.
const STREAM: &str = Stream::Deliveries.name();
/// How often the age of the oldest delivery is looked at, and of how many such looks one saves the
/// state of the span.
const TICK: Duration = Duration::from_secs(1);
const SAVE_TICKS: u32 = 5;
/// How long saving it may take.
const SAVE_MAX: Duration = Duration::from_secs(2);

/// Everything that all shifts of a worker share.
pub(crate) struct Floor {
    pub(crate) log: Arc<dyn fanfare_event_log::EventLog>,
    pub(crate) stores: Stores,
    pub(crate) follower: Arc<Follower>,
    pub(crate) crew: Arc<Crew>,
    pub(crate) chronicle: Arc<Chronicle>,
    pub(crate) config: WorkerConfig,
    pub(crate) desks: Arc<crate::worker::Desks>,
    pub(crate) last_shift: AtomicU32,
}

/// One leased span.
pub(crate) struct Shift {
    pub(crate) lease: Lease,
    pub(crate) desk: Arc<Desk>,
    pub(crate) settler: Settler<Option<Permit>>,
    pub(crate) stores: Stores,
    pub(crate) follower: Arc<Follower>,
    pub(crate) crew: Arc<Crew>,
    pub(crate) chronicle: Arc<Chronicle>,
}

/// Works a span until its lease is lost, or wanted back and everything under way is committed.
pub(crate) async fn work(floor: Arc<Floor>, granted: Granted) {
    let Granted {
        lease,
        progress,
        mut records,
    } = granted;
    let Some(state) = take_over(&floor, &lease).await else {
        return;
    };
    tracing::debug!(?lease, "delivering");
    let number = floor.last_shift.fetch_add(1, Ordering::Relaxed);
    let desk = Arc::new(Desk::new(number, lease.span.shards, state.due_cursor));
    let interval = floor.config.commit_interval.0;
    let shift = Arc::new(Shift {
        settler: Settler::new(floor.log.clone(), lease.clone(), &progress, interval),
        lease: lease.clone(),
        desk: desk.clone(),
        stores: floor.stores.clone(),
        follower: floor.follower.clone(),
        crew: floor.crew.clone(),
        chronicle: floor.chronicle.clone(),
    });
    let doubted = floor.config.queue_max + floor.config.in_flight;
    let doubt = Doubt::new(progress.ceiling, doubted, shift.crew.outfit.clock.now());
    let opened = Opened::new(&floor, &desk);
    let lost = async {
        lease.reached(Phase::Lost).await;
        // Before anything of the shift is dropped: a permit that is given back must start nothing.
        opened.close();
    };
    tokio::select! {
        () = lost => {}
        () = shift.run(&mut *records, doubt) => {}
    }
    drop(opened);
    // The records go last: dropping them lets go of the lease.
    drop(records);
    tracing::debug!(?lease, "no longer delivering");
}

/// A desk that is known to everybody, until dropped: however the shift ends, nothing of it starts
/// any more, and what comes back late is dropped.
struct Opened {
    floor: Arc<Floor>,
    desk: Arc<Desk>,
}

impl Opened {
    fn new(floor: &Arc<Floor>, desk: &Arc<Desk>) -> Self {
        floor.crew.with_lanes(|lanes| lanes.open(desk.shift));
        floor.desks.add(desk.clone());
        Self {
            floor: floor.clone(),
            desk: desk.clone(),
        }
    }
}

impl Opened {
    /// May be done more than once.
    fn close(&self) {
        self.floor.desks.remove(&self.desk);
        // First the lanes: what the desk drops gives back permits, which must start nothing here.
        self.floor.crew.close(self.desk.shift);
        self.desk.close();
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shift {
    /// Runs every loop of the shift, and ends them in order.
    async fn run(self: &Arc<Self>, records: &mut dyn Records, doubt: Doubt) {
        let drained = CancellationToken::new();
        let mut clerk = self.spawn(|shift| {
            let drained = drained.clone();
            async move { clerk::work(&shift, drained).await.map_err(Stop::Store) }
        });
        let mut settling =
            self.spawn(|shift| async move { shift.settler.run().await.map_err(Stop::Log) });
        let bringing = self.spawn(|shift| async move { shift.bring_back().await });
        let orderly = async {
            if let Err(stop) = intake::read_all(self, records, doubt).await {
                self.hold(stop).await;
            }
            drop(bringing);
            self.crew.close(self.desk.shift);
            self.desk.all_came_back().await;
            drained.cancel();
        };
        tokio::select! {
            // These two end before that only when nothing may be written or committed any more.
            ended = &mut clerk => return self.report("clerk", ended),
            ended = &mut settling => return self.report("settler", ended),
            () = orderly => {}
        }
        self.report("clerk", clerk.await);
        self.settler.finish();
        self.report("settler", settling.await);
        self.save_state().await;
    }

    fn spawn<F>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F) -> AbortOnDropHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        AbortOnDropHandle::new(tokio::spawn(work(self.clone())))
    }

    /// Everything that comes back from the stores: retries, parked deliveries, open retries of
    /// endpoints that ended. Keeps the state of the span meanwhile.
    async fn bring_back(self: &Arc<Self>) {
        parked::take_over(self).await;
        tokio::join!(
            due::fire_all(self),
            parked::bring_back(self),
            endings::end_open(self),
            self.keep_state()
        );
    }

    /// Saves the state of the span now and then, and looks how old the oldest delivery is.
    async fn keep_state(&self) {
        let mut ticks = 0u32;
        loop {
            tokio::time::sleep(TICK).await;
            let now = self.crew.outfit.clock.now();
            let watermark = self.settler.progress().watermark();
            self.desk.ages.settled_below(watermark, now);
            ticks += 1;
            if ticks.is_multiple_of(SAVE_TICKS) {
                self.save_state().await;
            }
        }
    }

    /// Saves where the next owner starts: where it scans for due hints from, and, should the log
    /// have lost the group's progress, where it reads from. An older state costs time or repeats,
    /// so a failure is not repeated.
    async fn save_state(&self) {
        let now = self.crew.outfit.clock.now();
        let micros = u64::try_from(now.micros()).unwrap_or(0);
        let state = ShardState {
            checkpoint: Some(self.settler.progress().encode()),
            due_cursor: self.desk.upcoming.cursor(now),
            last_stamp: self.lease.tenure.stamp(micros),
        };
        let (tenure, span) = (&self.lease.tenure, self.lease.span.index);
        let saving = self.stores.shards.save(tenure, STREAM, span, state);
        match tokio::time::timeout(SAVE_MAX, saving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(lease = ?self.lease, %error, "the state of the span was not saved");
            }
            Err(_) => tracing::debug!(lease = ?self.lease, "the state was not saved in time"),
        }
    }

    /// Says why nothing new is taken, and keeps the span until someone else wants it: letting go
    /// would only grant it again.
    async fn hold(&self, stop: Stop) {
        let lease = &self.lease;
        match stop {
            Stop::Log(error)
                if matches!(error.kind(), LogErrorKind::LeaseLost | LogErrorKind::Closed) =>
            {
                return tracing::info!(?lease, %error, "stopped delivering");
            }
            Stop::Log(error) => {
                tracing::error!(?lease, %error, "delivering of this span is held; it needs an operator");
            }
            Stop::Store(error) => return tracing::info!(?lease, %error, "stopped delivering"),
            Stop::Newer(position, error) => {
                tracing::error!(
                    ?lease, position = position.0, %error,
                    "delivering of this span is held until a newer program takes it; upgrade this one"
                );
            }
        }
        self.crew.instruments.held(1);
        lease.reached(Phase::Revoking).await;
        self.crew.instruments.held(-1);
    }

    fn report(&self, task: &str, ended: Result<Result<(), Stop>, tokio::task::JoinError>) {
        let lease = &self.lease;
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(Stop::Log(error))) => tracing::info!(?lease, task, %error, "the shift ends"),
            Ok(Err(Stop::Store(error))) => tracing::info!(?lease, task, %error, "the shift ends"),
            Ok(Err(Stop::Newer(_, error))) => {
                tracing::info!(?lease, task, %error, "the shift ends");
            }
            Err(error) => tracing::error!(?lease, task, %error, "a task of the shift panicked"),
        }
    }

    /// `work`, unless the lease is wanted back before it is done.
    pub(crate) async fn until_revoked<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.lease.reached(Phase::Revoking) => None,
        }
    }

    /// Repeats an owner's write until it worked.
    ///
    /// Errors: the tenure is over or the store is closed; nothing more may be written.
    pub(crate) async fn write<F>(
        &self,
        action: &'static str,
        write: impl Fn() -> F,
    ) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let mut backoff = Backoff::new(action);
        loop {
            match write().await {
                Ok(()) => {
                    backoff.reset();
                    return Ok(());
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        StoreErrorKind::NotOwner | StoreErrorKind::Closed
                    ) =>
                {
                    return Err(error);
                }
                Err(error) => backoff.wait(&error).await,
            }
        }
    }
}

/// Loads the state that the last owner left, and saves from where this one's stamps go on. `None`
/// when the lease is wanted back first.
async fn take_over(floor: &Floor, lease: &Lease) -> Option<ShardState> {
    let (shards, span) = (&floor.stores.shards, lease.span.index);
    let mut backoff = Backoff::new("take over the state of a span");
    loop {
        let taking = async {
            let state = shards.load(STREAM, span).await?;
            let now = floor.crew.outfit.clock.now();
            let micros = u64::try_from(now.micros()).unwrap_or(0);
            let state = state.succeed(&lease.tenure, micros);
            shards
                .save(&lease.tenure, STREAM, span, state.clone())
                .await?;
            Ok::<_, StoreError>(state)
        };
        tokio::select! {
            taken = taking => match taken {
                Ok(state) => return Some(state),
                Err(error) if error.kind() == StoreErrorKind::Closed => return None,
                Err(error) => backoff.wait(&error).await,
            },
            () = lease.reached(Phase::Revoking) => return None,
        }
    }
}
