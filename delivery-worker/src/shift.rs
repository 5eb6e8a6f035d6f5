//! A shift: one leased span, from its grant until it is let go.
//!
//! ```text
//!   records ─▶ read ─▶ decode ─▶ catalog new enough? ─▶ lane ─▶ sender ─▶ books ─▶ settle ─▶ commit
//!                                                        │ full, paused
//!                                                        └─▶ park ─▶ settle      drainer ─▶ lane
//! ```
//!
//! The reading loop waits for room in a commit and for the catalog, never for an endpoint. When
//! the lease is wanted back, nothing new is taken; attempts under way end, are written down and
//! committed; what only waited in memory is left unsettled and read again by the next owner.
//!
//! What an earlier owner may already have dealt with (at most what it could hold in memory above
//! what it committed) is looked up before it is tried, so that no second chain starts.

use std::collections::HashSet;
use std::sync::Arc;

use fanfare_domain::{
    DeadLetterReason, DeliveryId, EndpointId, ParkedReason, Place, Position, TenantId, Timestamp,
};
use fanfare_event_log::{DeliveryRecord, RedriveRecord};
use fanfare_event_log::{
    Entry, Granted, Lease, LogError, LogErrorKind, Phase, ReadLimit, Record, RecordError, Records,
    Settler,
};
use fanfare_service::Backoff;
use fanfare_store::{DeadLetter, DueHint, Parked, ParkedKey, RetryRow, RetryState};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::attempt::Phone;
use crate::books::{self, End, Entered, Told, persist};
use crate::due;
use crate::lane::{Lane, Lanes, Offer};
use crate::letter::{Delivery, Letter, Origin, Part};
use crate::standing::Standing;
use crate::worker::Context;

/// Bounds of one read.
const READ: ReadLimit = ReadLimit {
    records: 256,
    bytes: 1024 * 1024,
};
/// Parked rows that a drainer brings back at once.
const DRAIN_BATCH: usize = 128;

/// One leased span being worked.
pub(crate) struct Shift {
    pub(crate) context: Arc<Context>,
    pub(crate) lease: Lease,
    pub(crate) lanes: Lanes,
    pub(crate) settler: Settler<Option<OwnedSemaphorePermit>>,
    /// Retries and parked ones that are in a lane or under way: what is seen again in the store
    /// does not go out twice.
    pub(crate) firing: Mutex<HashSet<DeliveryId>>,
    told: mpsc::Sender<Told>,
    /// Senders and drainers.
    tasks: TaskTracker,
    /// Nothing new is taken.
    closing: CancellationToken,
}

/// Why a shift stands still.
enum Stop {
    Log(LogError),
    Newer(Position, RecordError),
}

/// Works a span until its lease is lost, or wanted back and everything under way is committed.
pub(crate) async fn work(context: Arc<Context>, granted: Granted) {
    let Granted {
        lease,
        progress,
        mut records,
    } = granted;
    tracing::debug!(?lease, "delivering");
    let (told, heard) = mpsc::channel(context.config.in_flight + 1024);
    let interval = context.config.commit_interval.0;
    let shift = Arc::new(Shift {
        settler: Settler::new(context.log.clone(), lease.clone(), &progress, interval),
        context,
        lease: lease.clone(),
        lanes: Lanes::default(),
        firing: Mutex::default(),
        told,
        tasks: TaskTracker::new(),
        closing: CancellationToken::new(),
    });
    let books = AbortOnDropHandle::new(tokio::spawn(books::keep(shift.clone(), heard)));
    let stopped = tokio::select! {
        () = lease.reached(Phase::Lost) => Ok(()),
        stopped = shift.clone().run(&mut *records, progress.ceiling) => stopped,
    };
    if let Err(stop) = stopped {
        shift.hold(stop).await;
    }
    shift.close();
    // What is told from here on is too late to be written.
    drop(books);
    drop(records);
    tracing::debug!(?lease, "no longer delivering");
}

impl Shift {
    async fn run(
        self: Arc<Self>,
        records: &mut dyn Records,
        inherited: Position,
    ) -> Result<(), Stop> {
        self.take_over_parked().await;
        let _scanning = AbortOnDropHandle::new(tokio::spawn(due::scan(self.clone())));
        let _watching = AbortOnDropHandle::new(tokio::spawn(watch_changes(self.clone())));
        let reading = async {
            let read = self.read_all(records, inherited).await;
            if let Err(Stop::Newer(position, error)) = read {
                return Err(Stop::Newer(position, error));
            }
            self.finish().await;
            read
        };
        let committing = async { self.settler.run().await.map_err(Stop::Log) };
        tokio::try_join!(reading, committing).map(|_| ())
    }

    /// Ends in order: no new attempts, those under way written down, then the last commit.
    async fn finish(&self) {
        self.close();
        self.tasks.close();
        self.tasks.wait().await;
        let (done, written) = oneshot::channel();
        if self.told.send(Told::Flush(done)).await.is_ok() {
            // An error means that the books ended with the lease: then nothing may be committed.
            let _ = written.await;
        }
        self.settler.finish();
    }

    fn close(&self) {
        self.closing.cancel();
        for lane in self.lanes.all() {
            lane.close();
        }
    }

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
            Stop::Newer(position, error) => tracing::error!(
                ?lease, position = position.0, %error,
                "delivering of this span is held until a newer program takes it; upgrade this one"
            ),
        }
        lease.reached(Phase::Revoking).await;
    }

    async fn read_all(
        self: &Arc<Self>,
        records: &mut dyn Records,
        inherited: Position,
    ) -> Result<(), Stop> {
        let mut backoff = Backoff::new("read deliveries");
        // What an earlier owner can have dealt with above what it committed.
        let mut doubtful = self.context.config.queue_max + self.context.config.in_flight;
        loop {
            tokio::select! {
                () = self.settler.room() => {}
                () = self.lease.reached(Phase::Revoking) => return Ok(()),
            }
            match records.read(READ).await {
                Ok(entries) if entries.is_empty() => return Ok(()),
                Ok(entries) => {
                    backoff.reset();
                    for entry in entries {
                        let doubt = entry.position < inherited || doubtful > 0;
                        let parts = self.take(&entry, doubt).await?;
                        if entry.position >= inherited {
                            doubtful = doubtful.saturating_sub(parts);
                        }
                    }
                }
                Err(error) if error.kind() == LogErrorKind::Unavailable => {
                    backoff.wait(&error).await;
                }
                Err(error) => return Err(Stop::Log(error)),
            }
        }
    }

    /// Deals with one record; answers how many parts it has.
    async fn take(self: &Arc<Self>, entry: &Entry, doubt: bool) -> Result<usize, Stop> {
        let record = match Record::decode(&entry.bytes) {
            Err(error @ RecordError::UnknownVersion(_)) => {
                return Err(Stop::Newer(entry.position, error));
            }
            Err(RecordError::Damaged) | Ok(Record::Event(_)) => {
                self.quarantine(entry);
                return Ok(1);
            }
            Ok(record) => record,
        };
        let parts = record.parts();
        let open = self.settler.take(entry.position, parts);
        if open != 0 {
            match record {
                Record::Delivery(record) => self.deliver(entry.position, record, open, doubt).await,
                Record::Test(record) => self.deliver_test(entry.position, record),
                Record::Redrive(record) => self.redrive(entry.position, &record, open).await,
                Record::Event(_) => {}
            }
        }
        Ok(usize::try_from(parts).unwrap_or(1))
    }

    async fn deliver(
        self: &Arc<Self>,
        position: Position,
        record: DeliveryRecord,
        open: u64,
        doubt: bool,
    ) {
        let tenant = record.event.tenant.clone();
        self.catalog_reached(&tenant, record.config_head).await;
        let Some(letter) = self.letter(&record).await else {
            return self.expire(position, &record, open).await;
        };
        let seed = letter.seed();
        let mut deliveries: Vec<Delivery> = (0u32..)
            .zip(&record.targets)
            .filter(|(index, _)| open & (1u64 << index) != 0)
            .map(|(index, target)| Delivery {
                id: letter.delivery_id(&seed, *target),
                target: *target,
                letter: letter.clone(),
                origin: Origin::Fresh(Part { position, index }),
            })
            .collect();
        if doubt {
            deliveries = self.unknown(deliveries).await;
        }
        let mut parking = Vec::new();
        for delivery in deliveries {
            if let Some(park) = self.offer(delivery).await {
                parking.push(park);
            }
        }
        if !parking.is_empty() {
            self.park(parking).await;
        }
    }

    fn deliver_test(self: &Arc<Self>, position: Position, record: DeliveryRecord) {
        let catalog = self.context.follower.catalog();
        let part = Part { position, index: 0 };
        let target = record.targets[0];
        let endpoint = catalog
            .endpoint(target.endpoint)
            .filter(|e| e.tenant == record.event.tenant);
        let Some(endpoint) = endpoint else {
            return self.settler.settle(position, 0, None);
        };
        let letter = Arc::new(Letter::new(record.event, record.place, record.generation));
        let id = letter.delivery_id(&letter.seed(), target);
        let delivery = Delivery {
            id,
            target,
            letter,
            origin: Origin::Test(part),
        };
        let lane = self.lanes.lane(target.endpoint);
        let callee = self.context.callee(endpoint);
        match self
            .lanes
            .offer(&lane, &callee, delivery, self.context.bounds)
        {
            Offer::Taken(start) => self.start_sender(&lane, start),
            Offer::Park(..) | Offer::Later(_) => self.settler.settle(position, 0, None),
        }
    }

    /// Deliveries of which nothing is known; the others were dealt with, and are settled.
    async fn unknown(&self, deliveries: Vec<Delivery>) -> Vec<Delivery> {
        let ids: Vec<DeliveryId> = deliveries.iter().map(|delivery| delivery.id).collect();
        let mut backoff = Backoff::new("look up what was delivered before");
        let known = loop {
            match self.known(&ids).await {
                Ok(known) => break known,
                Err(error) => backoff.wait(&error).await,
            }
        };
        let (dealt, unknown): (Vec<_>, Vec<_>) =
            deliveries.into_iter().partition(|d| known.contains(&d.id));
        for delivery in dealt {
            if let Origin::Fresh(part) = delivery.origin {
                self.settler.settle(part.position, part.index, None);
            }
        }
        unknown
    }

    async fn known(
        &self,
        ids: &[DeliveryId],
    ) -> Result<HashSet<DeliveryId>, fanfare_store::StoreError> {
        let stores = &self.context.stores;
        let retries = stores.retries.get(ids).await?;
        let parked = stores.parking.find(ids).await?;
        let dead = stores.dead_letters.get(ids).await?;
        let found = ids.iter().zip(retries).zip(parked).zip(dead);
        let found = found.filter(|(((_, retry), parked), dead)| {
            retry.is_some() || parked.is_some() || dead.is_some()
        });
        Ok(found.map(|(((id, _), _), _)| *id).collect())
    }

    /// Offers a delivery to its lane. What must be parked comes back, with why.
    pub(crate) async fn offer(
        self: &Arc<Self>,
        delivery: Delivery,
    ) -> Option<(Delivery, ParkedReason)> {
        let catalog = self.context.follower.catalog();
        match Standing::of(&catalog, &delivery.letter.event.tenant, delivery.target) {
            Standing::Active(endpoint) => {
                let lane = self.lanes.lane(endpoint.id);
                let callee = self.context.callee(&endpoint);
                match self
                    .lanes
                    .offer(&lane, &callee, delivery, self.context.bounds)
                {
                    Offer::Taken(start) => self.start_sender(&lane, start),
                    Offer::Park(delivery, reason) => return Some((delivery, reason)),
                    Offer::Later(delivery) => self.ended(&delivery),
                }
                None
            }
            Standing::Paused(endpoint) => {
                self.lanes.lane(endpoint.id).park();
                Some((delivery, ParkedReason::Paused))
            }
            Standing::Ended(reason) => {
                self.enter(delivery, End::Dead(reason), None).await;
                None
            }
        }
    }

    /// Parks deliveries durably, then settles them here: from now on the queue has them.
    pub(crate) async fn park(self: &Arc<Self>, parking: Vec<(Delivery, ParkedReason)>) {
        let now = self.context.outfit.clock.now();
        let rows: Vec<Parked> = parking
            .iter()
            .map(|(delivery, reason)| self.parked_row(delivery, *reason, now))
            .collect();
        let hints: Vec<DueHint> = parking
            .iter()
            .filter_map(|(delivery, _)| hint(delivery))
            .collect();
        let (stores, tenure) = (&self.context.stores, &self.lease.tenure);
        if persist(self, "park deliveries", || {
            stores.parking.park(tenure, rows.clone())
        })
        .await
        .is_none()
        {
            return;
        }
        if !hints.is_empty()
            && persist(self, "forget due hints", || {
                stores.retries.forget(tenure, hints.clone())
            })
            .await
            .is_none()
        {
            return;
        }
        self.context
            .instruments
            .parked
            .add(parking.len() as u64, &[]);
        for (delivery, _) in parking {
            self.ended(&delivery);
            if let Origin::Fresh(part) = delivery.origin {
                self.settler.settle(part.position, part.index, None);
            }
            let lane = self.lanes.lane(delivery.endpoint());
            lane.parked();
            self.start_drainer(&lane);
        }
    }

    fn parked_row(&self, delivery: &Delivery, reason: ParkedReason, now: Timestamp) -> Parked {
        let span = self.lease.span.index;
        let key = match &delivery.origin {
            Origin::Fresh(part) | Origin::Test(part) => ParkedKey {
                place: Place {
                    span,
                    position: part.position,
                },
                part: part.index,
            },
            Origin::Parked(key, _) => *key,
            // Its record is long settled: it queues by its event, apart from fresh parts.
            Origin::Retry(..) => ParkedKey {
                place: delivery.letter.reference.place,
                part: u32::try_from(delivery.target.subscription.0 >> 33).unwrap_or(0) | 1 << 31,
            },
        };
        Parked {
            endpoint: delivery.endpoint(),
            key,
            delivery: delivery.id,
            tenant: delivery.letter.event.tenant.clone(),
            subscription: delivery.target.subscription,
            event: delivery.letter.reference.clone(),
            generation: delivery.letter.generation,
            reason,
            since: now,
        }
    }

    /// Dead letters that were asked for become due at once, unless they are open already.
    async fn redrive(&self, position: Position, record: &RedriveRecord, open: u64) {
        let stores = &self.context.stores;
        let mut backoff = Backoff::new("redrive dead letters");
        let (dead, retries) = loop {
            let dead = stores.dead_letters.get(&record.deliveries).await;
            let retries = stores.retries.get(&record.deliveries).await;
            match (dead, retries) {
                (Ok(dead), Ok(retries)) => break (dead, retries),
                (Err(error), _) | (_, Err(error)) => backoff.wait(&error).await,
            }
        };
        let now = self.context.outfit.clock.now();
        let of_tenant = dead
            .into_iter()
            .flatten()
            .filter(|dead| dead.tenant == record.tenant);
        let is_open = |id: DeliveryId| {
            let row = retries.iter().flatten().find(|row| row.delivery == id);
            row.is_some_and(|row| matches!(row.state, RetryState::DueAt(_)))
        };
        let wanted: Vec<DeadLetter> = of_tenant.filter(|dead| !is_open(dead.delivery)).collect();
        let chains: Vec<RetryRow> = wanted
            .iter()
            .map(|dead| {
                new_chain(
                    dead,
                    retries
                        .iter()
                        .flatten()
                        .find(|row| row.delivery == dead.delivery),
                    now,
                )
            })
            .collect();
        let marked: Vec<DeadLetter> = wanted
            .into_iter()
            .map(|dead| DeadLetter {
                redriven: Some(record.at),
                ..dead
            })
            .collect();
        let tenure = &self.lease.tenure;
        if persist(self, "write retry state", || {
            stores.retries.put(tenure, chains.clone())
        })
        .await
        .is_none()
            || persist(self, "mark dead letters", || {
                stores.dead_letters.put(tenure, marked.clone())
            })
            .await
            .is_none()
        {
            return;
        }
        for index in (0..u64::BITS).filter(|index| open & (1 << index) != 0) {
            self.settler.settle(position, index, None);
        }
    }

    /// The event of a record, fetched when the record does not carry it; `None` when it is gone.
    async fn letter(&self, record: &DeliveryRecord) -> Option<Arc<Letter>> {
        let mut event = record.event.clone();
        if !record.inline {
            let reference = [fanfare_domain::EventRef::new(event.key(), record.place)];
            let mut backoff = Backoff::new("fetch the body of an event");
            event = loop {
                match self.context.stores.events.bodies(&reference).await {
                    Ok(bodies) => break bodies.into_iter().flatten().next()?,
                    Err(error) => backoff.wait(&error).await,
                }
            };
        }
        Some(Arc::new(Letter::new(
            event,
            record.place,
            record.generation,
        )))
    }

    async fn expire(&self, position: Position, record: &DeliveryRecord, open: u64) {
        let letter = Arc::new(Letter::new(
            record.event.clone(),
            record.place,
            record.generation,
        ));
        let seed = letter.seed();
        for (index, target) in (0u32..)
            .zip(&record.targets)
            .filter(|(i, _)| open & (1u64 << i) != 0)
        {
            let delivery = Delivery {
                id: letter.delivery_id(&seed, *target),
                target: *target,
                letter: letter.clone(),
                origin: Origin::Fresh(Part { position, index }),
            };
            self.enter(delivery, End::Dead(DeadLetterReason::Expired), None)
                .await;
        }
    }

    /// Waits until the catalog is at least as new as the one a record was routed by: "no such
    /// endpoint" is never concluded from an older one.
    async fn catalog_reached(&self, tenant: &TenantId, head: u64) {
        let follower = &self.context.follower;
        let head = fanfare_store::Head(head);
        if follower.catalog().head_of(tenant) < head {
            follower.reached(tenant, head).await;
        }
    }

    /// Hands what ended to the books.
    pub(crate) async fn enter(
        &self,
        delivery: Delivery,
        end: End,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        // The books end only with the lease: then nobody may write any more.
        let _ = self
            .told
            .send(Told::Entered(Box::new(Entered {
                delivery,
                end,
                permit,
            })))
            .await;
    }

    /// A delivery is no longer in memory.
    pub(crate) fn ended(&self, delivery: &Delivery) {
        if matches!(delivery.origin, Origin::Retry(..) | Origin::Parked(..)) {
            self.firing.lock().remove(&delivery.id);
        }
    }

    fn start_sender(self: &Arc<Self>, lane: &Arc<Lane>, start: bool) {
        if start {
            self.tasks.spawn(send(self.clone(), lane.clone()));
        }
    }

    fn start_drainer(self: &Arc<Self>, lane: &Arc<Lane>) {
        if lane.start_draining() {
            self.tasks.spawn(drain(self.clone(), lane.clone()));
        }
    }

    /// Drains what an earlier owner parked.
    async fn take_over_parked(self: &Arc<Self>) {
        let mut backoff = Backoff::new("find what is parked");
        let endpoints = loop {
            match self
                .context
                .stores
                .parking
                .endpoints(self.lease.span.shards)
                .await
            {
                Ok(endpoints) => break endpoints,
                Err(error) => backoff.wait(&error).await,
            }
        };
        for endpoint in endpoints {
            let lane = self.lanes.lane(endpoint);
            lane.has_parked();
            self.start_drainer(&lane);
        }
    }

    /// Reports bytes that are no delivery, and settles them: nobody will ever read them better.
    fn quarantine(&self, entry: &Entry) {
        tracing::error!(
            lease = ?self.lease,
            position = entry.position.0,
            len = entry.bytes.len(),
            "a record of the deliveries stream is damaged: deliveries may be lost"
        );
        self.context.instruments.damaged.add(1, &[]);
        if self.settler.take(entry.position, 1) != 0 {
            self.settler.settle(entry.position, 0, None);
        }
    }
}

fn hint(delivery: &Delivery) -> Option<DueHint> {
    match &delivery.origin {
        Origin::Retry(hint, _) => Some(*hint),
        _ => None,
    }
}

fn new_chain(dead: &DeadLetter, row: Option<&RetryRow>, now: Timestamp) -> RetryRow {
    let unknown = || {
        fanfare_domain::Outcome::failed(fanfare_domain::OutcomeKind::Internal, "never attempted")
    };
    RetryRow {
        delivery: dead.delivery,
        tenant: dead.tenant.clone(),
        subscription: dead.subscription,
        event: dead.event.clone(),
        generation: dead.generation,
        attempts: dead.attempts,
        attempts_before: dead.attempts,
        first_attempt: now,
        last_outcome: row.map_or_else(unknown, |row| row.last_outcome.clone()),
        state: RetryState::DueAt(now),
    }
}

/// A sender: one line, one attempt at a time, until the lane has nothing for it.
async fn send(shift: Arc<Shift>, lane: Arc<Lane>) {
    let mut phone = Phone::new();
    loop {
        while !lane.is_closed() {
            // Room in flight first: what is taken from the lane goes out at once.
            let permit = tokio::select! {
                permit = shift.context.in_flight.clone().acquire_owned() => permit.ok(),
                () = shift.closing.cancelled() => None,
            };
            let Some(permit) = permit else { break };
            let Some((delivery, callee)) = shift.lanes.next(&lane) else {
                break;
            };
            let instruments = &shift.context.instruments;
            instruments.in_flight.add(1, &[]);
            let attempt = phone
                .attempt(&shift.context.outfit, &callee, &delivery)
                .await;
            instruments.in_flight.add(-1, &[]);
            let first = (attempt.number == 1).then(|| {
                let end = attempt.start.plus(attempt.latency);
                end.since(delivery.letter.event.accept_time).as_secs_f64()
            });
            instruments.attempted(&attempt.outcome, first);
            shift
                .enter(delivery, End::Attempted(attempt), Some(permit))
                .await;
        }
        let rested = {
            let Some(_rest) = lane.rest() else { continue };
            let idle = shift.context.config.connection_idle.0;
            tokio::select! {
                () = lane.work.notified() => true,
                () = shift.closing.cancelled() => false,
                () = tokio::time::sleep(idle) => false,
                () = phone.hung_up() => false,
            }
        };
        if !rested && lane.may_end() {
            return;
        }
    }
}

/// Brings back what is parked, in order, for as long as the lane has room.
async fn drain(shift: Arc<Shift>, lane: Arc<Lane>) {
    let mut after = None;
    while !shift.closing.is_cancelled() {
        if !lane.has_room() {
            tokio::select! {
                () = lane.room.notified() => {}
                () = shift.closing.cancelled() => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
            }
            continue;
        }
        match drain_batch(&shift, &lane, after).await {
            Drained::Some(last) => after = Some(last),
            Drained::Nothing if lane.drained() => return,
            Drained::Nothing => tokio::task::yield_now().await,
            Drained::Paused => return lane.stop_draining(),
            Drained::Again(delay) => tokio::time::sleep(delay).await,
        }
    }
    lane.stop_draining();
}

enum Drained {
    Some(ParkedKey),
    Nothing,
    Paused,
    Again(std::time::Duration),
}

async fn drain_batch(shift: &Arc<Shift>, lane: &Arc<Lane>, after: Option<ParkedKey>) -> Drained {
    const AGAIN: std::time::Duration = std::time::Duration::from_millis(250);
    let catalog = shift.context.follower.catalog();
    if let Standing::Paused(_) = Standing::of_endpoint(catalog.endpoint(lane.endpoint)) {
        return Drained::Paused;
    }
    let stores = &shift.context.stores;
    let Ok(rows) = stores.parking.peek(lane.endpoint, after, DRAIN_BATCH).await else {
        return Drained::Again(AGAIN);
    };
    let Some(last) = rows.last().map(|row| row.key) else {
        return Drained::Nothing;
    };
    let refs: Vec<_> = rows.iter().map(|row| row.event.clone()).collect();
    let ids: Vec<_> = rows.iter().map(|row| row.delivery).collect();
    let (Ok(bodies), Ok(chains)) = (
        stores.events.bodies(&refs).await,
        stores.retries.get(&ids).await,
    ) else {
        return Drained::Again(AGAIN);
    };
    for ((row, body), chain) in rows.into_iter().zip(bodies).zip(chains) {
        if chain
            .as_ref()
            .is_some_and(|row| !matches!(row.state, RetryState::DueAt(_)))
        {
            // It ended after it was parked: only the row is left.
            let (endpoint, tenure) = (lane.endpoint, &shift.lease.tenure);
            let _ = persist(shift, "remove parked rows", || {
                stores.parking.unpark(tenure, endpoint, vec![row.key])
            })
            .await;
            continue;
        }
        bring_back(shift, lane, row, body, chain).await;
    }
    Drained::Some(last)
}

async fn bring_back(
    shift: &Arc<Shift>,
    lane: &Arc<Lane>,
    row: Parked,
    body: Option<Arc<fanfare_domain::AcceptedEvent>>,
    chain: Option<RetryRow>,
) {
    let target = fanfare_domain::Target {
        endpoint: lane.endpoint,
        subscription: row.subscription,
    };
    let gone = body.is_none();
    let event = body.unwrap_or_else(|| Arc::new(due::lost_event(&row.event)));
    let mut delivery = Delivery {
        id: row.delivery,
        target,
        letter: Arc::new(Letter::new(event, row.event.place, row.generation)),
        origin: Origin::Parked(row.key, chain.map(Box::new)),
    };
    if !shift.firing.lock().insert(row.delivery) {
        return;
    }
    if gone {
        return shift
            .enter(delivery, End::Dead(DeadLetterReason::Expired), None)
            .await;
    }
    loop {
        let catalog = shift.context.follower.catalog();
        match Standing::of(&catalog, &row.tenant, target) {
            Standing::Ended(reason) => return shift.enter(delivery, End::Dead(reason), None).await,
            // It stays parked as it is, and is found again when the endpoint is resumed.
            Standing::Paused(_) => return shift.ended(&delivery),
            Standing::Active(endpoint) => {
                let callee = shift.context.callee(&endpoint);
                match shift
                    .lanes
                    .offer(lane, &callee, delivery, shift.context.bounds)
                {
                    Offer::Taken(start) => return shift.start_sender(lane, start),
                    Offer::Park(back, _) | Offer::Later(back) => delivery = back,
                }
            }
        }
        tokio::select! {
            () = lane.room.notified() => {}
            () = shift.closing.cancelled() => return,
            () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
        }
    }
}

/// Follows the catalog: lanes whose endpoint changed call the new version, park, or end.
async fn watch_changes(shift: Arc<Shift>) {
    let mut changes = shift.context.changes.subscribe();
    while changes.changed().await.is_ok() {
        let catalog = shift.context.follower.catalog();
        for lane in shift.lanes.all() {
            match Standing::of_endpoint(catalog.endpoint(lane.endpoint)) {
                Standing::Active(endpoint) => {
                    lane.set_callee(shift.context.callee(&endpoint));
                    shift.start_drainer(&lane);
                }
                Standing::Paused(_) | Standing::Ended(_) => {
                    shift.start_drainer(&lane);
                    evict(&shift, &lane).await;
                }
            }
        }
        let ended: Vec<EndpointId> = shift.context.ended.lock().iter().copied().collect();
        for endpoint in ended {
            due::end_open(&shift, endpoint).await;
        }
    }
}

/// Offers everything that waits in a lane again: it parks or ends, as its endpoint now says.
async fn evict(shift: &Arc<Shift>, lane: &Arc<Lane>) {
    let mut parking = Vec::new();
    for delivery in shift.lanes.evict(lane) {
        match delivery.origin {
            // Its row is still parked.
            Origin::Parked(..) => shift.ended(&delivery),
            Origin::Test(part) => shift.settler.settle(part.position, part.index, None),
            _ => parking.extend(shift.offer(delivery).await),
        }
    }
    if !parking.is_empty() {
        shift.park(parking).await;
    }
}
