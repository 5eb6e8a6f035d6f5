//! One leased span: three loops in one task, joined by a bounded queue.
//!
//! Reading claims a batch while appending waits for the one before it to be durable, and the
//! settler commits. Everything ends together: with the lease, or when reading has nothing more to
//! come, the rest is appended, and the last commit is acknowledged.

mod checkpoint;

use std::fmt::Write as _;
use std::sync::Arc;

use fanfare_domain::{AcceptedEvent, Place, Position, Shard, Target, Timestamp};
use fanfare_event_log::{
    Entry, Granted, Lease, LogError, LogErrorKind, Outgoing, Phase, ReadLimit, Record, RecordError,
    Records, Settler, Stream,
};
use fanfare_service::{Backoff, crash};
use fanfare_store::{Claim, Claimed, Route};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Context;
use super::plan::plan;
use crate::traced;

/// One read. The settler leaves room for what one read can add to a commit's unsettled list.
const READ: ReadLimit = ReadLimit {
    records: 256,
    bytes: 4 * 1024 * 1024,
};
/// A claim is cut once its events owe this many deliveries: what is claimed and not yet planned
/// is bounded in deliveries, too.
const CLAIM_DELIVERIES_MAX: usize = 10_000;
/// Events between claim and append; what they owe is bounded by the room they take.
const QUEUE_MAX: usize = 1024;
/// Most records and bytes of one append.
const APPEND_MAX: (usize, usize) = (4096, 4 * 1024 * 1024);
/// Bytes of a damaged record that are shown in its alarm.
const SHOWN_MAX: usize = 256;

/// Held for an event until its commit; nothing for one that owed nothing.
type Permit = Option<OwnedSemaphorePermit>;

/// Why a span's loop ends before its lease does.
enum Stop {
    /// The log said so.
    Log(LogError),
    /// A record of a newer version: nobody who knows no better may go past it.
    Newer(Position, RecordError),
}

/// An event whose deliveries wait to be appended.
struct Routed {
    event: Arc<AcceptedEvent>,
    position: Position,
    route_time: Timestamp,
    /// How many deliveries it owes.
    owed: usize,
    outgoing: Vec<Outgoing>,
    deliveries: OwnedSemaphorePermit,
    /// Dropped with the bytes.
    _bytes: OwnedSemaphorePermit,
}

struct SpanRouter {
    context: Arc<Context>,
    lease: Lease,
    settler: Settler<Permit>,
}

/// Routes one span until its lease is lost, or wanted back and everything read is committed.
pub(super) async fn route(context: Arc<Context>, granted: Granted) {
    let Granted {
        lease,
        progress,
        mut records,
    } = granted;
    if !checkpoint::succeed(&context, &lease).await {
        return;
    }
    tracing::debug!(?lease, "routing");
    let interval = context.config.commit_interval.0;
    let router = SpanRouter {
        settler: Settler::new(context.log.clone(), lease.clone(), &progress, interval),
        lease: lease.clone(),
        context,
    };
    let stopped = tokio::select! {
        // Dropping the loops at any point is safe: what was not committed is routed again.
        () = lease.reached(Phase::Lost) => Ok(()),
        stopped = router.run(&mut *records) => stopped,
    };
    if let Err(stop) = stopped {
        router.hold(stop).await;
    }
    // The records go last: dropping them lets go of the lease.
    drop(records);
    tracing::debug!(?lease, "no longer routing");
}

impl SpanRouter {
    async fn run(&self, records: &mut dyn Records) -> Result<(), Stop> {
        let (queue, routed) = mpsc::channel(QUEUE_MAX);
        let committing = async { self.settler.run().await.map_err(Stop::Log) };
        let appending = async {
            let appended = self.append_all(routed).await;
            self.settler.finish();
            appended
        };
        let reading = async {
            let read = self.read_all(records, queue).await;
            match read {
                // What was read before it is still appended and committed.
                Err(Stop::Newer(..)) => Ok(read),
                other => other.map(Ok),
            }
        };
        let routing = async { tokio::try_join!(reading, appending, committing) };
        let (newer, (), ()) = tokio::select! {
            routed = routing => routed?,
            never = checkpoint::keep(self) => match never {},
        };
        checkpoint::save(self).await;
        newer
    }

    /// Says why the span does not move, and keeps it until someone else wants it: letting go
    /// would only grant it again.
    async fn hold(&self, stop: Stop) {
        let lease = &self.lease;
        match stop {
            Stop::Log(error)
                if matches!(error.kind(), LogErrorKind::LeaseLost | LogErrorKind::Closed) =>
            {
                return tracing::info!(?lease, %error, "stopped routing");
            }
            Stop::Log(error) => {
                tracing::error!(?lease, %error, "routing of this span is held; it needs an operator");
            }
            Stop::Newer(position, error) => {
                tracing::error!(
                    ?lease, position = position.0, %error,
                    "routing of this span is held until a newer program takes it; upgrade this one"
                );
            }
        }
        self.context.instruments.spans_held.add(1, &[]);
        lease.reached(Phase::Revoking).await;
        self.context.instruments.spans_held.add(-1, &[]);
    }

    async fn read_all(
        &self,
        records: &mut dyn Records,
        queue: mpsc::Sender<Routed>,
    ) -> Result<(), Stop> {
        let mut backoff = Backoff::new("read events");
        loop {
            self.settler.room().await;
            match records.read(READ).await {
                Ok(entries) if entries.is_empty() => return Ok(()),
                Ok(entries) => {
                    backoff.reset();
                    self.route_batch(entries, &queue).await?;
                }
                Err(error) if error.kind() == LogErrorKind::Unavailable => {
                    backoff.wait(&error).await;
                }
                Err(error) => return Err(Stop::Log(error)),
            }
        }
    }

    async fn route_batch(
        &self,
        entries: Vec<Entry>,
        queue: &mpsc::Sender<Routed>,
    ) -> Result<(), Stop> {
        let mut newer = Ok(());
        let mut events = Vec::with_capacity(entries.len());
        for entry in entries {
            match Record::decode(&entry.bytes) {
                Err(error @ RecordError::UnknownVersion(_)) => {
                    newer = Err(Stop::Newer(entry.position, error));
                    break;
                }
                _ if self.settler.take(entry.position, 1) == 0 => {}
                Ok(Record::Event(event)) => events.push((entry.position, Arc::new(event))),
                Ok(_) | Err(RecordError::Damaged) => self.quarantine(&entry),
            }
        }
        let mut events = events.into_iter();
        while !events.as_slice().is_empty() {
            // Wanted back while waiting: what is not claimed is left to the next owner.
            if !self.catalog_is_fresh().await {
                return Ok(());
            }
            let claims = self.matched(&mut events);
            if !self.claim_and_plan(claims, queue).await {
                return Ok(());
            }
        }
        newer
    }

    /// The next events with whom they match, until these are many.
    fn matched(
        &self,
        events: &mut impl Iterator<Item = (Position, Arc<AcceptedEvent>)>,
    ) -> Vec<Claim> {
        let (mut owed, mut claims) = (0, Vec::new());
        let now = self.context.clock.now();
        while owed < CLAIM_DELIVERIES_MAX
            && let Some((position, event)) = events.next()
        {
            let event_type = &event.event.event_type;
            let matched = self.context.matcher.matched(&event.tenant, event_type);
            owed += matched.targets.len();
            claims.push(Claim {
                place: self.place(position),
                route: Route {
                    route_time: now,
                    matched: matched.targets.into(),
                    config_head: matched.config_head.0,
                },
                event,
            });
        }
        claims
    }

    /// Whether it came to an end before the lease was wanted back.
    async fn claim_and_plan(&self, claims: Vec<Claim>, queue: &mpsc::Sender<Routed>) -> bool {
        crash::point("router.read");
        let Some(answers) = self.claim(&claims).await else {
            return false;
        };
        crash::point("router.claimed");
        for (claim, answer) in claims.into_iter().zip(answers) {
            let position = claim.place.position;
            match answer {
                Claimed::Fresh => self.plan(claim.event, position, claim.route, queue).await,
                Claimed::Own(route) => self.plan(claim.event, position, route, queue).await,
                Claimed::Repeat => {
                    self.context.instruments.repeats.add(1, &[]);
                    self.settler.settle(position, 0, None);
                }
                Claimed::Conflict => {
                    self.context.instruments.conflicts.add(1, &[]);
                    self.settler.settle(position, 0, None);
                }
            }
        }
        true
    }

    /// Claims until the store answers or the lease is wanted back. A tenure that is over is waited
    /// out, too: the lease is about to be lost, which ends the whole loop.
    async fn claim(&self, claims: &[Claim]) -> Option<Vec<Claimed>> {
        let mut backoff = Backoff::new("claim events");
        loop {
            let events = &self.context.stores.events;
            match events.claim(&self.lease.tenure, claims.to_vec()).await {
                Ok(answers) => return Some(answers),
                Err(_) if self.lease.phase() != Phase::Held => return None,
                Err(error) => backoff.wait(&error).await,
            }
        }
    }

    async fn plan(
        &self,
        event: Arc<AcceptedEvent>,
        position: Position,
        route: Route,
        queue: &mpsc::Sender<Routed>,
    ) {
        self.context.instruments.routed(1, route.matched.len());
        if route.matched.is_empty() {
            let now = self.context.clock.now();
            traced::routed(&event, self.place(position), 0, route.route_time, now);
            return self.settler.settle(position, 0, None);
        }
        let subject = event.event.event_type.subject();
        let span_of = |target: &Target| {
            self.context.only_span.unwrap_or_else(|| {
                let shard = Shard::of_endpoint(target.endpoint);
                self.context
                    .log
                    .span_of(Stream::Deliveries, shard, subject)
                    .index
            })
        };
        let outgoing = plan(&event, self.place(position), &route, span_of);
        let bytes = outgoing.iter().map(|out| out.bytes.len()).sum();
        let Some(room) = self.context.room.take(route.matched.len(), bytes).await else {
            return;
        };
        let routed = Routed {
            event,
            position,
            route_time: route.route_time,
            owed: route.matched.len(),
            outgoing,
            deliveries: room.deliveries,
            _bytes: room.bytes,
        };
        // The other end goes only with the whole loop.
        let _ = queue.send(routed).await;
    }

    async fn append_all(&self, mut queue: mpsc::Receiver<Routed>) -> Result<(), Stop> {
        let mut events = Vec::new();
        while queue.recv_many(&mut events, QUEUE_MAX).await > 0 {
            for batch in batches(&events) {
                self.append(batch).await?;
            }
            crash::point("router.appended");
            let now = self.context.clock.now();
            for routed in events.drain(..) {
                let lag = now.since(routed.event.accept_time);
                self.context
                    .instruments
                    .route_latency
                    .record(lag.as_secs_f64(), &[]);
                let place = self.place(routed.position);
                traced::routed(&routed.event, place, routed.owed, routed.route_time, now);
                self.settler
                    .settle(routed.position, 0, Some(routed.deliveries));
            }
        }
        Ok(())
    }

    /// Appends until the log says that it is durable. After an unclear answer it is appended
    /// again: the deliveries have the same ids.
    async fn append(&self, batch: Vec<Outgoing>) -> Result<(), Stop> {
        let mut backoff = Backoff::new("append deliveries");
        loop {
            let appending = self.context.log.append(Stream::Deliveries, batch.clone());
            match appending.await {
                Ok(_) => return Ok(()),
                Err(error)
                    if matches!(
                        error.kind(),
                        LogErrorKind::Unavailable | LogErrorKind::Unknown | LogErrorKind::Full
                    ) =>
                {
                    backoff.wait(&error).await;
                }
                Err(error) => return Err(Stop::Log(error)),
            }
        }
    }

    /// Waits until the catalog was confirmed recently ("no rows" is not "no subscriptions");
    /// `false` when the lease is wanted back first.
    async fn catalog_is_fresh(&self) -> bool {
        let (follower, bound) = (&self.context.follower, self.context.config.freshness.0);
        if follower.age() <= bound {
            return true;
        }
        tracing::warn!(age = ?follower.age(), "the configuration is not confirmed; routing waits for it");
        self.context.instruments.stale_waits.add(1, &[]);
        while follower.age() > bound {
            let now = std::time::Instant::now();
            tokio::select! {
                () = follower.confirmed_since(now.checked_sub(bound).unwrap_or(now)) => {}
                () = self.lease.reached(Phase::Revoking) => return false,
            }
        }
        true
    }

    /// Reports bytes that are no event, and settles them: nobody will ever read them better. They
    /// stay in the log, at the position that the alarm names; the first of them are shown.
    fn quarantine(&self, entry: &Entry) {
        let mut shown = String::with_capacity(2 * SHOWN_MAX);
        for byte in entry.bytes.iter().take(SHOWN_MAX) {
            // Writing into a string cannot fail.
            let _ = write!(shown, "{byte:02x}");
        }
        tracing::error!(
            lease = ?self.lease,
            position = entry.position.0,
            len = entry.bytes.len(),
            bytes = shown,
            "a record of the events stream is damaged: an accepted event may be lost"
        );
        self.context.instruments.damaged.add(1, &[]);
        self.settler.settle(entry.position, 0, None);
    }

    fn place(&self, position: Position) -> Place {
        Place {
            span: self.lease.span.index,
            position,
        }
    }
}

/// What `events` owe, in order, cut into appends of bounded size.
fn batches(events: &[Routed]) -> Vec<Vec<Outgoing>> {
    let (records_max, bytes_max) = APPEND_MAX;
    let (mut batches, mut bytes) = (vec![Vec::new()], 0);
    for out in events.iter().flat_map(|routed| &routed.outgoing) {
        let last = batches.last().map_or(0, Vec::len);
        if last == records_max || (last > 0 && bytes + out.bytes.len() > bytes_max) {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += out.bytes.len();
        if let Some(batch) = batches.last_mut() {
            batch.push(out.clone());
        }
    }
    batches
}
