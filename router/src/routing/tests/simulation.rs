//! Routing under seeded misfortune: crashes that drop what is not synced, routers that come and
//! go, a store that is away, appends that fail or lose their answers, and a configuration that
//! changes meanwhile. Afterwards everything accepted is owed to exactly whom its row says.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_event_log::LogErrorKind;
use fanfare_event_log::memory::{Call, Fault, SyncMode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::world::{Settings, World, accepted};

const SEEDS: u64 = 150;
const STEPS: usize = 40;
const TYPES: [&str; 3] = ["order.paid", "order.sent", "invoice.paid"];

struct Simulation {
    world: World,
    rng: StdRng,
    /// Ids published, with the type of each publish: a second type is a conflict.
    published: BTreeMap<String, Vec<&'static str>>,
    subscribed: BTreeSet<u64>,
    appends_fail: bool,
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_everyone_is_owed_what_the_row_says() {
    for seed in 0..SEEDS {
        // A panic in here names the seed.
        let _named = Named(seed);
        Simulation::new(seed).await.run().await;
    }
}

struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {}", self.0);
        }
    }
}

impl Simulation {
    async fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let settings = Settings {
            spans: [1, 2, 4][rng.random_range(0..3)],
            sync: SyncMode::Manual,
            open_deliveries_max: [1, 10, 50_000][rng.random_range(0..3)],
            ..Settings::default()
        };
        Self {
            world: World::new(settings).await,
            rng,
            published: BTreeMap::new(),
            subscribed: BTreeSet::new(),
            appends_fail: false,
        }
    }

    async fn run(mut self) {
        self.world.start();
        for _ in 0..STEPS {
            self.step().await;
        }
        self.recover();
        self.world.settled().await;
        self.world.drain_with_syncs().await;
        self.check().await;
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..40 => self.publish().await,
            40..52 => self.reconfigure().await,
            52..62 => {
                self.world.crash();
                self.world.start();
            }
            62..66 => {
                self.recover();
                self.world.drain_with_syncs().await;
                self.world.start();
            }
            66..69 => self.world.start(),
            69..73 => self.world.stores.go_away(),
            73..79 => self.world.stores.come_back(),
            79..86 => self.fail(),
            86..90 => self.recover(),
            _ => self.world.log.sync(),
        }
        for _ in 0..self.rng.random_range(0..20) {
            tokio::task::yield_now().await;
        }
        if self.rng.random_bool(0.2) {
            tokio::time::sleep(std::time::Duration::from_millis(7)).await;
        }
    }

    async fn publish(&mut self) {
        // Publishing is not what is tested here: it waits for better times.
        if self.appends_fail {
            return;
        }
        for _ in 0..self.rng.random_range(1..6) {
            let id = format!("e-{}", self.rng.random_range(0..60));
            let event_type = TYPES[self.rng.random_range(0..TYPES.len())];
            self.world.publish(&accepted(&id, event_type)).await;
            self.published.entry(id).or_default().push(event_type);
        }
    }

    async fn reconfigure(&mut self) {
        // The API waits for a store that is away; the simulation does not.
        self.world.stores.come_back();
        let id = self.rng.random_range(1..12);
        if self.subscribed.remove(&id) {
            self.world.unsubscribe(id).await;
        } else {
            let patterns = [&["order.*"][..], &["**"], &["order.paid", "invoice.*"]];
            let patterns = patterns[self.rng.random_range(0..3)];
            self.world.subscribe(id, id * 10, patterns).await;
            self.subscribed.insert(id);
        }
    }

    fn fail(&mut self) {
        let fault = [
            Fault::Refuse(LogErrorKind::Unavailable),
            Fault::LoseAnswer,
            Fault::Stall,
        ][self.rng.random_range(0..3)];
        let call = [Call::Append, Call::Commit][self.rng.random_range(0..2)];
        self.appends_fail |= call == Call::Append;
        self.world.log.set_fault(call, Some(fault));
    }

    fn recover(&mut self) {
        self.appends_fail = false;
        self.world.stores.come_back();
        self.world.log.set_fault(Call::Append, None);
        self.world.log.set_fault(Call::Commit, None);
    }

    async fn check(&mut self) {
        let mut owed: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for record in self.world.deliveries().await {
            let row = self.world.row(record.event.event.id.as_str()).await;
            assert_eq!(
                record.event.body_hash, row.event.body_hash,
                "a conflict was delivered"
            );
            assert_eq!(record.place, row.place);
            let targets = record.targets.iter().map(|target| target.subscription.0);
            owed.entry(record.event.event.id.to_string())
                .or_default()
                .extend(targets);
        }
        for id in self.published.keys() {
            let route = self
                .world
                .row(id)
                .await
                .route
                .expect("everything is routed");
            let want: BTreeSet<_> = route.matched.iter().map(|t| t.subscription.0).collect();
            assert_eq!(owed.remove(id).unwrap_or_default(), want, "{id}");
        }
        assert!(
            owed.is_empty(),
            "owed without having been published: {owed:?}"
        );
    }
}
