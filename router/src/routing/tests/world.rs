//! A log, stores and routers in one process, and what a test asks of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfare_domain::{
    AcceptedEvent, Data, EndpointId, EndpointState, Event, EventId, EventType, Shard, Source,
    SubscriptionId, TenantId, Timestamp, TypePattern,
};
use fanfare_event_log::memory::{Call, MemoryConfig, MemoryLog, SyncMode};
use fanfare_event_log::{
    DeliveryRecord, EventLog, Group, Outgoing, ReadLimit, Record, Stream, Visibility,
};
use fanfare_service::{Clock, HumanDuration};
use fanfare_store::config::bucket_of;
use fanfare_store::conformance::fixtures;
use fanfare_store::memory::MemoryStores;
use fanfare_store::{Entry, EntryKey, EventRow, Follower, Write};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::instruments::Instruments;
use crate::matching::Matcher;
use crate::routing::{GROUP, Routing, RoutingConfig};

/// An event of tenant `acme` as the front door would accept it.
pub(in crate::routing) fn accepted(id: &str, event_type: &str) -> AcceptedEvent {
    let event = Event {
        id: EventId::try_new(id).unwrap(),
        source: Source::try_new("/shop").unwrap(),
        event_type: EventType::try_new(event_type).unwrap(),
        subject: None,
        time: None,
        data_content_type: "application/json".into(),
        data_schema: None,
        data: Data::Bytes(Bytes::from_static(b"{}")),
        ordering_key: None,
        extensions: BTreeMap::new(),
    };
    AcceptedEvent {
        tenant: acme(),
        body_hash: event.body_hash(),
        event,
        accept_time: Timestamp::from_millis(1_790_000_000_000),
    }
}

pub(super) fn acme() -> TenantId {
    TenantId::try_new("acme").unwrap()
}

/// What may differ between worlds.
pub(super) struct Settings {
    pub(super) spans: u16,
    pub(super) sync: SyncMode,
    pub(super) freshness: Duration,
    pub(super) open_deliveries_max: u32,
    pub(super) revoke_deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            spans: 4,
            sync: SyncMode::Automatic,
            freshness: Duration::from_hours(1),
            open_deliveries_max: 50_000,
            revoke_deadline: Duration::from_secs(45),
        }
    }
}

pub(super) struct World {
    pub(super) log: MemoryLog,
    pub(super) stores: MemoryStores,
    pub(super) follower: Arc<Follower>,
    matcher: Matcher,
    config: RoutingConfig,
    spans: u16,
    /// Events published, by span.
    published: BTreeMap<u16, u64>,
    routers: Vec<(JoinHandle<()>, CancellationToken)>,
}

impl World {
    pub(super) async fn new(settings: Settings) -> Self {
        let log = MemoryLog::new(MemoryConfig {
            spans: settings.spans,
            sync: settings.sync,
            revoke_deadline: settings.revoke_deadline,
            ..MemoryConfig::default()
        });
        // A group that never commits keeps every delivery readable.
        let (matcher, feed) = Matcher::new();
        let stores = MemoryStores::new();
        let config = stores.stores().config;
        let follower = Follower::start(config, vec![Box::new(feed)]).await.unwrap();
        let world = Self {
            log,
            stores,
            follower,
            matcher,
            config: RoutingConfig {
                freshness: HumanDuration(settings.freshness),
                open_deliveries_max: settings.open_deliveries_max,
                ..RoutingConfig::default()
            },
            spans: settings.spans,
            published: BTreeMap::new(),
            routers: Vec::new(),
        };
        drop(world.join_deliveries().await);
        world
    }

    /// Starts a router beside those that run.
    pub(super) fn start(&mut self) {
        let routing = Routing::new(
            Arc::new(self.log.clone()),
            self.stores.stores(),
            self.follower.clone(),
            self.matcher.clone(),
            self.config.clone(),
            Instruments::new(&opentelemetry::global::meter("test")),
            Clock::manual(Timestamp::from_millis(1_790_000_001_000)),
        );
        let drain = CancellationToken::new();
        let running = tokio::spawn(routing.run(drain.clone()));
        self.routers.push((running, drain));
    }

    /// Kills every router, and the log's unsynced tail with them.
    pub(super) fn crash(&mut self) {
        for (running, _) in self.routers.drain(..) {
            running.abort();
        }
        self.log.crash();
    }

    /// Drains every router.
    pub(super) async fn drain(&mut self) {
        for (running, drain) in self.routers.drain(..) {
            drain.cancel();
            running.await.unwrap();
        }
    }

    /// Drains every router while the log is synced and nothing is away.
    pub(super) async fn drain_with_syncs(&mut self) {
        self.stores.come_back();
        self.log.set_fault(Call::Append, None);
        self.log.set_fault(Call::Commit, None);
        let mut draining = Vec::new();
        for (running, drain) in self.routers.drain(..) {
            drain.cancel();
            draining.push(running);
        }
        self.until("every router drained", || {
            draining.iter().all(JoinHandle::is_finished)
        })
        .await;
    }

    pub(super) async fn publish(&mut self, event: &AcceptedEvent) {
        let appending = self.append_event(event);
        assert!(appending.await, "an event was not accepted");
    }

    pub(super) async fn publish_bytes(&mut self, bytes: Bytes) {
        let shard = Shard(0);
        self.append(shard, "order", bytes).await;
    }

    async fn append_event(&mut self, event: &AcceptedEvent) -> bool {
        let shard = Shard::of_event(&event.key(), &event.event);
        let bytes = Record::Event(event.clone()).encode();
        self.append(shard, event.event.event_type.subject(), bytes)
            .await
    }

    async fn append(&mut self, shard: Shard, subject: &str, bytes: Bytes) -> bool {
        let out = Outgoing {
            shard,
            subject: subject.into(),
            bytes,
        };
        let span = self.log.span_of(Stream::Events, shard, subject).index;
        let log = self.log.clone();
        let appending = tokio::spawn(async move { log.append(Stream::Events, vec![out]).await });
        while !appending.is_finished() {
            self.log.sync();
            tokio::task::yield_now().await;
        }
        let taken = appending.await.unwrap().is_ok();
        if taken {
            *self.published.entry(span).or_default() += 1;
        }
        taken
    }

    /// A subscription `id` of `endpoint`, which is created with it, active.
    pub(super) async fn subscribe(&self, id: u64, endpoint: u64, patterns: &[&str]) {
        let mut subscription = fixtures::subscription(&acme(), id, endpoint);
        let patterns = patterns.iter().map(|p| TypePattern::try_new(p).unwrap());
        subscription.event_types = patterns.collect();
        self.put_endpoint(endpoint, EndpointState::Active).await;
        self.write(vec![put(Entry::Subscription(subscription))])
            .await;
    }

    /// Subscriptions 1..=`count` to everything, each of its own endpoint.
    pub(super) async fn subscribe_many(&self, count: u64) {
        for ids in (1..=count).collect::<Vec<_>>().chunks(50) {
            let entries = ids.iter().flat_map(|id| {
                let mut endpoint = fixtures::endpoint(&acme(), *id);
                endpoint.state = EndpointState::Active;
                let subscription = fixtures::subscription(&acme(), *id, *id);
                [Entry::Endpoint(endpoint), Entry::Subscription(subscription)]
            });
            self.write(entries.map(put).collect()).await;
        }
    }

    pub(super) async fn unsubscribe(&self, id: u64) {
        let key = EntryKey::Subscription(acme(), SubscriptionId(id));
        self.write(vec![Write::Delete(key)]).await;
    }

    pub(super) async fn set_state(&self, endpoint: u64, state: EndpointState) {
        self.put_endpoint(endpoint, state).await;
    }

    pub(super) async fn delete_endpoint(&self, endpoint: u64) {
        let key = EntryKey::Endpoint(acme(), EndpointId(endpoint));
        self.write(vec![Write::Delete(key)]).await;
    }

    async fn put_endpoint(&self, id: u64, state: EndpointState) {
        let mut endpoint = fixtures::endpoint(&acme(), id);
        endpoint.state = state;
        self.write(vec![put(Entry::Endpoint(endpoint))]).await;
    }

    async fn write(&self, writes: Vec<Write>) {
        let head = self.follower.catalog().head_of(&acme());
        let config = self.stores.stores().config;
        config
            .write(bucket_of(&acme()), head, writes)
            .await
            .unwrap();
        self.follower.refresh().await.unwrap();
    }

    /// The event row of `id`.
    pub(super) async fn row(&self, id: &str) -> EventRow {
        self.try_row(id)
            .await
            .unwrap_or_else(|| panic!("{id} has no row"))
    }

    pub(super) async fn try_row(&self, id: &str) -> Option<EventRow> {
        let id = EventId::try_new(id).unwrap();
        self.stores
            .stores()
            .events
            .get(&acme(), &id)
            .await
            .unwrap()
            .pop()
    }

    pub(super) fn is_claimed(&self, id: &str) -> bool {
        let key = accepted(id, "order.paid").key();
        self.stores.stores().events.known(&key).is_some()
    }

    /// Subscriptions that are owed `id`, rising, each once however often it was appended.
    pub(super) async fn owed(&self, id: &str) -> Vec<u64> {
        let deliveries = self.deliveries().await;
        let of_it = deliveries
            .iter()
            .filter(|r| r.event.event.id.as_str() == id);
        let mut owed: Vec<_> = of_it
            .flat_map(|r| &r.targets)
            .map(|t| t.subscription.0)
            .collect();
        owed.sort_unstable();
        owed.dedup();
        owed
    }

    /// Every delivery record, per span in order.
    pub(super) async fn deliveries(&self) -> Vec<DeliveryRecord> {
        let mut reader = self.join_deliveries().await;
        let (mut deliveries, mut held) = (Vec::new(), Vec::new());
        for _ in 0..self.spans {
            // All are held until the end: one that is let go is granted again.
            held.push(reader.next().await.unwrap());
        }
        for granted in &mut held {
            let limit = ReadLimit {
                records: usize::MAX,
                bytes: usize::MAX,
            };
            // Nothing more comes: the wait ends when all else is idle.
            while let Ok(read) =
                tokio::time::timeout(Duration::from_millis(1), granted.records.read(limit)).await
            {
                for entry in read.unwrap() {
                    match Record::decode(&entry.bytes).unwrap() {
                        Record::Delivery(record) => deliveries.push(record),
                        other => panic!("not a delivery: {other:?}"),
                    }
                }
            }
        }
        deliveries
    }

    async fn join_deliveries(&self) -> Box<dyn fanfare_event_log::Reader> {
        let group = Group::new("check");
        let joining = self
            .log
            .join(Stream::Deliveries, &group, Visibility::Ordered);
        joining.await.unwrap()
    }

    /// How many events are committed: all below the watermarks.
    pub(super) fn committed(&self) -> u64 {
        let progress = |span| self.log.progress(Stream::Events, &Group::new(GROUP), span);
        (0..self.spans)
            .map(|span| progress(span).watermark().0)
            .sum()
    }

    /// Ids of events that are routed and not committed.
    pub(super) async fn unsettled_routed(&self) -> Vec<String> {
        let mut found = Vec::new();
        for record in self.deliveries().await {
            let watermark = self
                .log
                .progress(Stream::Events, &Group::new(GROUP), record.place.span)
                .watermark();
            if record.place.position >= watermark {
                found.push(record.event.event.id.to_string());
            }
        }
        found
    }

    /// Waits until everything published is committed.
    pub(super) async fn settled(&self) {
        let published = self.published.values().sum::<u64>();
        self.until("everything is committed", || self.committed() == published)
            .await;
    }

    /// Lets everything run until nothing but timers moves, and these for ten seconds.
    pub(super) async fn while_idle(&self) {
        for _ in 0..100 {
            self.log.sync();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits for `done`, syncing the log meanwhile.
    pub(super) async fn until(&self, what: &str, done: impl Fn() -> bool) {
        for _ in 0..10_000 {
            if done() {
                return;
            }
            self.log.sync();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!(
            "waited for long, but not {what}; committed {} of {:?}",
            self.committed(),
            self.published
        );
    }
}

fn put(entry: Entry) -> Write {
    Write::Put(Box::new(entry))
}
