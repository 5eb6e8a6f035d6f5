//! A worker with everything around it: a log and stores in memory, endpoints, published events.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfare_delivery_worker::{EgressPolicy, GROUP, Worker, WorkerConfig};
use fanfare_domain::{
    AcceptedEvent, Data, DeliveryId, Endpoint, EndpointId, EndpointState, Envelope, Event, EventId,
    EventType, Place, Position, RetrySchedule, Secret, Shard, Source, Subscription, SubscriptionId,
    Target, TenantId, Timestamp, TypePattern,
};
use fanfare_event_log::memory::{MemoryConfig, MemoryLog};
use fanfare_event_log::{DeliveryRecord, EventLog, Group, Outgoing, Record, RedriveRecord, Stream};
use fanfare_service::telemetry::Metrics;
use fanfare_service::{Clock, HumanDuration};
use fanfare_store::config::bucket_of;
use fanfare_store::{
    AttemptRow, Claim, DeadLetter, Entry, EntryKey, Follower, MemoryStores, Parked, RetryRow,
    RetryState, Route, Stores, Write,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take to become true.
const EVENTUALLY: Duration = Duration::from_secs(20);
/// A record routed this much later than a lease was granted cannot have had an earlier owner.
const PAST_DOUBT: Duration = Duration::from_mins(1);

pub(crate) struct World {
    pub(crate) log: MemoryLog,
    pub(crate) memory: MemoryStores,
    pub(crate) stores: Stores,
    pub(crate) clock: Clock,
    pub(crate) config: WorkerConfig,
    pub(crate) policy: EgressPolicy,
    pub(crate) follower: Option<Arc<Follower>>,
    pub(crate) metrics: Metrics,
    running: Option<Running>,
    published: u64,
}

struct Running {
    drain: CancellationToken,
    work: JoinHandle<()>,
}

/// Where a delivery stands, as the stores and the log say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing in a store.
    Untold,
    Retrying(u32),
    Parked,
    Delivered(u32),
    Dead(&'static str, u32),
}

impl World {
    /// A world whose worker is not running yet.
    pub(crate) fn new() -> Self {
        let memory = MemoryStores::new();
        let config = WorkerConfig {
            retry_schedule: vec![
                HumanDuration::from_millis(100),
                HumanDuration::from_millis(150),
            ],
            ..WorkerConfig::default()
        };
        let log = MemoryLog::new(MemoryConfig {
            spans: 1,
            ..MemoryConfig::default()
        });
        Self {
            stores: memory.stores(),
            log,
            memory,
            clock: Clock::system(),
            config,
            policy: EgressPolicy::dev(),
            follower: None,
            metrics: Metrics::new().unwrap(),
            running: None,
            published: 0,
        }
    }

    /// A world with a running worker.
    pub(crate) async fn running() -> Self {
        let mut world = Self::new();
        world.start().await;
        world
    }

    pub(crate) async fn start(&mut self) {
        let meter = self.metrics.meter("test");
        let (worker, observer) = Worker::new(
            Arc::new(self.log.clone()),
            self.stores.clone(),
            Arc::new(self.policy.clone()),
            self.config.clone(),
            &meter,
            self.clock.clone(),
        )
        .unwrap();
        let follower = Follower::start(self.stores.config.clone(), vec![Box::new(observer)])
            .await
            .unwrap();
        self.follower = Some(follower.clone());
        let drain = CancellationToken::new();
        let work = tokio::spawn(worker.run(follower, drain.clone()));
        self.running = Some(Running { drain, work });
    }

    /// Ends the worker in order.
    pub(crate) async fn drain(&mut self) {
        let running = self.running.take().unwrap();
        running.drain.cancel();
        let ended = tokio::time::timeout(EVENTUALLY, running.work).await;
        ended.expect("the drain takes too long").unwrap();
    }

    /// Kills the worker: what is not durable is gone.
    pub(crate) async fn crash(&mut self) {
        let running = self.running.take().unwrap();
        running.work.abort();
        let _ = running.work.await;
        self.log.crash();
    }

    /// An endpoint `id` at `url` with a subscription.
    pub(crate) async fn endpoint(&self, id: u64, url: &str) -> Endpoint {
        self.endpoint_with(id, url, |_| {}).await
    }

    pub(crate) async fn endpoint_with(
        &self,
        id: u64,
        url: &str,
        set: impl FnOnce(&mut Endpoint),
    ) -> Endpoint {
        let mut endpoint = endpoint(id, url);
        set(&mut endpoint);
        let entries = [
            Entry::Endpoint(endpoint.clone()),
            Entry::Subscription(subscription(id)),
        ];
        self.write(entries.map(|e| Write::Put(Box::new(e))).into())
            .await;
        endpoint
    }

    pub(crate) async fn set_state(&self, endpoint: &Endpoint, state: EndpointState) {
        let mut changed = endpoint.clone();
        changed.state = state;
        let put = Write::Put(Box::new(Entry::Endpoint(changed)));
        self.write(vec![put]).await;
    }

    pub(crate) async fn delete_endpoint(&self, id: u64) {
        let keys = [
            EntryKey::Subscription(tenant(), SubscriptionId(id)),
            EntryKey::Endpoint(tenant(), EndpointId(id)),
        ];
        self.write(keys.map(Write::Delete).into()).await;
    }

    pub(crate) async fn delete_subscription(&self, id: u64) {
        let key = EntryKey::Subscription(tenant(), SubscriptionId(id));
        self.write(vec![Write::Delete(key)]).await;
    }

    pub(crate) async fn write(&self, writes: Vec<Write>) {
        let bucket = bucket_of(&tenant());
        let head = self.stores.config.heads().await.unwrap()[usize::from(bucket)];
        self.stores
            .config
            .write(bucket, head, writes)
            .await
            .unwrap();
        if let Some(follower) = &self.follower {
            follower.refresh().await.unwrap();
        }
    }

    /// Publishes an event owed to `endpoints`, as the router would; answers its deliveries.
    pub(crate) async fn publish(&mut self, data: &str, endpoints: &[u64]) -> Vec<DeliveryId> {
        let data = Data::Bytes(Bytes::copy_from_slice(data.as_bytes()));
        self.publish_event(data, endpoints, |_| {}).await
    }

    pub(crate) async fn publish_event(
        &mut self,
        data: Data,
        endpoints: &[u64],
        set: impl FnOnce(&mut Event),
    ) -> Vec<DeliveryId> {
        self.published += 1;
        let mut event = event(&format!("e-{}", self.published), data);
        set(&mut event.event);
        let event = Arc::new(event);
        let place = Place {
            span: 0,
            position: Position(self.published),
        };
        self.claim(&event, place, endpoints).await;
        let record = self.record(&event, place, endpoints).await;
        let ids = ids_of(&record);
        self.append(&Record::Delivery(record)).await;
        ids
    }

    pub(crate) async fn record(
        &self,
        event: &Arc<AcceptedEvent>,
        place: Place,
        endpoints: &[u64],
    ) -> DeliveryRecord {
        let head = self.stores.config.heads().await.unwrap()[usize::from(bucket_of(&tenant()))];
        DeliveryRecord {
            event: event.clone(),
            inline: event.event.data.bytes().len() <= 64 * 1024,
            place,
            route_time: Timestamp::now(),
            config_head: head.0,
            generation: 0,
            targets: targets(endpoints),
        }
    }

    async fn claim(&self, event: &Arc<AcceptedEvent>, place: Place, endpoints: &[u64]) {
        let claim = Claim {
            event: event.clone(),
            place,
            route: Route {
                route_time: Timestamp::now(),
                matched: targets(endpoints).into(),
                config_head: 0,
            },
        };
        let tenure = fanfare_domain::Tenure::unlimited();
        self.stores
            .events
            .claim(&tenure, vec![claim])
            .await
            .unwrap();
    }

    /// Publishes while the store is away: the event has no row.
    pub(crate) async fn publish_blind(&mut self, head: u64, endpoints: &[u64]) -> Vec<DeliveryId> {
        self.published += 1;
        let data = Data::Bytes(Bytes::from_static(b"{}"));
        let event = event(&format!("e-{}", self.published), data);
        let record = DeliveryRecord {
            event: Arc::new(event),
            inline: true,
            place: Place {
                span: 0,
                position: Position(self.published),
            },
            route_time: Timestamp::now().plus(PAST_DOUBT),
            config_head: head,
            generation: 0,
            targets: targets(endpoints),
        };
        let ids = ids_of(&record);
        self.append(&Record::Delivery(record)).await;
        ids
    }

    /// The head of the tenant's bucket.
    pub(crate) async fn head(&self) -> u64 {
        self.stores.config.heads().await.unwrap()[usize::from(bucket_of(&tenant()))].0
    }

    /// Records appended.
    pub(crate) fn appended(&self) -> u64 {
        self.published
    }

    /// Asks for dead letters to be delivered again.
    pub(crate) async fn redrive(&self, deliveries: &[DeliveryId]) {
        self.append(&Record::Redrive(RedriveRecord {
            tenant: tenant(),
            at: Timestamp::now(),
            deliveries: deliveries.to_vec(),
        }))
        .await;
    }

    pub(crate) async fn append(&self, record: &Record) {
        self.append_bytes(record.encode()).await;
    }

    pub(crate) async fn append_bytes(&self, bytes: Bytes) {
        let outgoing = Outgoing {
            shard: Shard(0),
            subject: "order".into(),
            bytes,
        };
        self.log
            .append(Stream::Deliveries, vec![outgoing])
            .await
            .unwrap();
    }

    pub(crate) async fn attempts(&self, id: DeliveryId) -> Vec<AttemptRow> {
        self.stores
            .history
            .attempts(&tenant(), id, 100)
            .await
            .unwrap()
    }

    pub(crate) async fn retry(&self, id: DeliveryId) -> Option<RetryRow> {
        self.stores.retries.get(&[id]).await.unwrap().remove(0)
    }

    pub(crate) async fn dead_letter(&self, id: DeliveryId) -> Option<DeadLetter> {
        self.stores.dead_letters.get(&[id]).await.unwrap().remove(0)
    }

    pub(crate) async fn parked(&self, id: DeliveryId) -> Option<Parked> {
        self.stores.parking.find(&[id]).await.unwrap().remove(0)
    }

    pub(crate) async fn state(&self, id: DeliveryId) -> State {
        if self.parked(id).await.is_some() {
            return State::Parked;
        }
        let retry = self.retry(id).await;
        match retry.as_ref().map(|row| (row.state, row.attempts)) {
            Some((RetryState::DueAt(_), attempts)) => return State::Retrying(attempts),
            Some((RetryState::Delivered(_), attempts)) => return State::Delivered(attempts),
            _ => {}
        }
        if let Some(letter) = self.dead_letter(id).await.filter(|l| l.redriven.is_none()) {
            return State::Dead(letter.reason.as_str(), letter.attempts);
        }
        match self.attempts(id).await.last() {
            Some(last) if last.outcome.is_delivered() => State::Delivered(last.number),
            _ => State::Untold,
        }
    }

    /// Waits until a delivery stands where it should.
    pub(crate) async fn becomes(&self, id: DeliveryId, wanted: State) {
        eventually(async || {
            let state = self.state(id).await;
            (state == wanted)
                .then_some(())
                .ok_or_else(|| format!("{id} is {state:?}, not {wanted:?}"))
        })
        .await;
    }

    /// Waits until everything that was read is settled and committed.
    pub(crate) async fn all_settled(&self, records: u64) {
        eventually(async || {
            let progress = self.progress();
            let done = progress.unsettled.is_empty() && progress.ceiling >= Position(records);
            done.then_some(()).ok_or_else(|| format!("{progress:?}"))
        })
        .await;
    }

    pub(crate) fn progress(&self) -> fanfare_event_log::progress::Progress {
        self.log.progress(Stream::Deliveries, &Group::new(GROUP), 0)
    }
}

/// Waits until `look` says yes; the last no is in the message of the panic.
pub(crate) async fn eventually<T>(look: impl AsyncFn() -> Result<T, String>) -> T {
    let started = tokio::time::Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(status) => {
                assert!(
                    started.elapsed() < EVENTUALLY,
                    "not within {EVENTUALLY:?}: {status}"
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A bound on what must end.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(EVENTUALLY, work)
        .await
        .expect("takes too long")
}

pub(crate) fn tenant() -> TenantId {
    TenantId::try_new("acme").unwrap()
}

pub(crate) fn secret() -> Secret {
    Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()
}

fn targets(endpoints: &[u64]) -> Vec<Target> {
    let target = |id: &u64| Target {
        endpoint: EndpointId(*id),
        subscription: SubscriptionId(*id),
    };
    endpoints.iter().map(target).collect()
}

fn ids_of(record: &DeliveryRecord) -> Vec<DeliveryId> {
    let accepted = &record.event;
    let (seed, at) = (accepted.delivery_seed(), accepted.accept_time);
    let id = |t: &Target| seed.delivery(t.endpoint, t.subscription, at, record.generation);
    record.targets.iter().map(id).collect()
}

fn event(id: &str, data: Data) -> AcceptedEvent {
    let now = Timestamp::now();
    let event = Event {
        id: EventId::try_new(id).unwrap(),
        source: Source::try_new("/shop").unwrap(),
        event_type: EventType::try_new("order.paid").unwrap(),
        subject: Some("order 1".into()),
        time: Some(now),
        data_content_type: "application/json".into(),
        data_schema: None,
        data,
        ordering_key: None,
        extensions: BTreeMap::new(),
    };
    AcceptedEvent {
        tenant: tenant(),
        body_hash: event.body_hash(),
        event,
        accept_time: now,
    }
}

fn endpoint(id: u64, url: &str) -> Endpoint {
    Endpoint {
        id: EndpointId(id),
        tenant: tenant(),
        name: String::new(),
        url: url.into(),
        state: EndpointState::Active,
        state_reason: String::new(),
        secret: secret(),
        old_secrets: vec![],
        headers: BTreeMap::new(),
        labels: BTreeMap::new(),
        retry_schedule: None,
        timeout: Duration::from_secs(5),
        envelope: Envelope::Binary,
        create_time: Timestamp::default(),
        update_time: Timestamp::default(),
        version: 1,
    }
}

fn subscription(id: u64) -> Subscription {
    Subscription {
        id: SubscriptionId(id),
        tenant: tenant(),
        endpoint: EndpointId(id),
        event_types: vec![TypePattern::try_new("**").unwrap()],
        create_time: Timestamp::default(),
        update_time: Timestamp::default(),
        version: 1,
    }
}

/// A schedule of so many milliseconds each.
pub(crate) fn schedule(millis: &[u64]) -> RetrySchedule {
    RetrySchedule::try_new(millis.iter().copied().map(Duration::from_millis).collect()).unwrap()
}

/// An event of its own.
pub(crate) fn test_event() -> Arc<AcceptedEvent> {
    Arc::new(event("test", Data::Bytes(Bytes::from_static(b"{}"))))
}
