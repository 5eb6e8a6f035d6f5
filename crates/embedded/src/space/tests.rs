//! What is dropped and what never is, on a disk that loses what was not synced.

use fanfare_domain::{AcceptedEvent, EventRef, Place, Position, Tenure, Timestamp};
use fanfare_event_log::record::encode_event;
use fanfare_event_log::{Group, LogErrorKind, Progress, Stream};
use fanfare_store::conformance::fixtures;
use fanfare_store::{Claimed, RetryRow, RetryState, Stores};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::*;
use crate::EmbeddedConfig;
use crate::changes::Batch;
use crate::disk::faulty::FaultyDisk;
use crate::engine::PROGRESS;
use crate::log::progress_key;
use crate::stores::{Accepted, SPACES};

const SEGMENT: u64 = 64 << 10;
/// Data of one event: about ten fit into a segment.
const DATA: usize = 6 << 10;

struct World {
    dir: TempDir,
    disk: FaultyDisk,
    retention: Duration,
    max_bytes: u64,
    engine: Arc<Engine>,
    stores: Stores,
    appended: u64,
}

impl World {
    async fn new(retention: Duration, max_bytes: u64) -> Self {
        let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::new(1 << 30));
        let (engine, stores) = open(&dir, &disk, retention, max_bytes).await;
        Self {
            dir,
            disk,
            retention,
            max_bytes,
            engine,
            stores,
            appended: 0,
        }
    }

    /// Appends an event that is like no other; its position.
    async fn append(&mut self) -> Result<u64, LogError> {
        let data = format!("\"{}\"", "x".repeat(DATA));
        let event = fixtures::event(&format!("e-{}", self.appended), &data);
        self.append_event(&event).await
    }

    async fn append_event(&mut self, event: &AcceptedEvent) -> Result<u64, LogError> {
        let mut batch = Batch::default();
        batch.append(Stream::Events, 0, encode_event(event));
        let placed = self.engine.write(batch).await?.durable().await?;
        self.appended += 1;
        Ok(placed[0].0)
    }

    /// The router claims `event`, which it read at `position`; it matches nobody.
    async fn claim(&self, event: &AcceptedEvent, position: u64) -> Claimed {
        let claim = fixtures::claim(event, fixtures::place(position), fixtures::route(1, &[]));
        let events = &self.stores.events;
        let answers = events.claim(&Tenure::unlimited(), vec![claim]).await;
        answers.unwrap().remove(0)
    }

    /// The router has settled everything below `position`.
    async fn settle(&self, position: u64) {
        let progress = Progress {
            ceiling: Position(position),
            unsettled: Vec::new(),
        };
        let key = progress_key(Stream::Events, 0, &Group::new("router"));
        let mut batch = Batch::default();
        batch.put(PROGRESS, key, progress.encode());
        let placed = self.engine.write(batch).await.unwrap();
        placed.durable().await.unwrap();
    }

    /// Looks twice once the view is up to date: the first look takes note of what was routed.
    fn drop_segments(&self) {
        let (end, started) = (self.engine.durable(), Instant::now());
        while self.engine.persisted_position() < end {
            let waited = started.elapsed();
            assert!(waited < Duration::from_mins(1), "the view is not written");
            self.engine.flush.raise();
            std::thread::yield_now();
        }
        let mut keeper = Keeper::new(self.engine.clone());
        for _ in 0..2 {
            keeper.drop_segments().unwrap();
        }
    }

    fn segments(&self) -> usize {
        self.engine.segments.list().len()
    }

    fn body(&self, position: u64) -> bool {
        let event = self.engine.read_at(0, Position(position)).unwrap();
        event.is_some()
    }

    async fn crash(&mut self, rng: &mut StdRng) {
        self.engine.end(State::Stopped);
        self.disk.crash(rng);
        (self.engine, self.stores) =
            open(&self.dir, &self.disk, self.retention, self.max_bytes).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.engine.end(State::Stopped);
    }
}

async fn open(
    dir: &TempDir,
    disk: &FaultyDisk,
    retention: Duration,
    max_bytes: u64,
) -> (Arc<Engine>, Stores) {
    let config = EmbeddedConfig {
        dir: dir.path().to_owned(),
        segment_bytes: SEGMENT,
        free_bytes_min: 0,
        retention,
        max_bytes,
        tail_bytes: 1 << 10,
        // Every change is written to the view at once.
        view_buffer_bytes: 0,
        ..EmbeddedConfig::default()
    };
    let opening = Engine::open(config, disk.clone(), SPACES, Accepted);
    let engine = opening.await.unwrap();
    let stores = crate::stores::open(&engine, 100).unwrap();
    (engine, stores)
}

#[tokio::test]
async fn what_is_settled_and_old_goes_and_the_rest_stays() {
    let mut world = World::new(Duration::ZERO, 1 << 30).await;
    let mut positions = Vec::new();
    for _ in 0..100 {
        positions.push(world.append().await.unwrap());
    }
    world.settle(positions[60]).await;
    let before = world.segments();
    world.drop_segments();
    assert!(world.segments() < before - 4, "{before} before");
    assert!(!world.body(positions[0]));
    for position in &positions[60..] {
        assert!(world.body(*position), "unsettled, yet dropped");
    }
}

#[tokio::test]
async fn what_is_young_stays_while_there_is_room() {
    let mut world = World::new(Duration::from_hours(1), 1 << 30).await;
    for _ in 0..50 {
        world.append().await.unwrap();
    }
    world.settle(world.engine.durable()).await;
    let before = world.segments();
    world.drop_segments();
    assert_eq!(world.segments(), before);
}

#[tokio::test]
async fn a_body_that_a_retry_needs_stays_however_full_the_directory_is() {
    let mut world = World::new(Duration::ZERO, 16 * SEGMENT).await;
    let first = world.append().await.unwrap();
    let place = Place {
        span: 0,
        position: Position(first),
    };
    let row = RetryRow {
        event: EventRef::new(fixtures::event("e-0", "{}").key(), place),
        ..fixtures::retry(1, 1, RetryState::DueAt(fixtures::second(9)))
    };
    let tenure = Tenure::unlimited();
    let open = vec![row.clone()];
    world.stores.retries.put(&tenure, open).await.unwrap();
    let (mut positions, started) = (Vec::new(), Instant::now());
    while positions.len() < 300 {
        assert!(started.elapsed() < Duration::from_mins(1), "it stays full");
        match world.append().await {
            Ok(position) => positions.push(position),
            Err(error) => assert_eq!(error.kind(), LogErrorKind::Full),
        }
        world.settle(world.engine.durable()).await;
        world.drop_segments();
        world.engine.keep.raise();
    }
    assert!(world.body(first), "a retry needs it");
    assert!(!world.body(positions[10]), "nobody needs it");
    let settled = RetryState::Delivered(fixtures::second(10));
    let ended = vec![RetryRow {
        state: settled,
        ..row
    }];
    world.stores.retries.put(&tenure, ended).await.unwrap();
    world.drop_segments();
    assert!(!world.body(first));
}

#[tokio::test]
async fn an_identity_is_known_for_longer_than_a_body_that_goes_early() {
    let mut world = World::new(Duration::from_hours(24), 8 * SEGMENT).await;
    let event = |data| fixtures::event_of("acme", "/shop", "known", data, Timestamp::now());
    let (first, other) = (event("1"), event("2"));
    let position = world.append_event(&first).await.unwrap();
    assert_eq!(world.claim(&first, position).await, Claimed::Fresh);
    while world.append().await.is_ok() {
        assert!(world.appended < 1000, "the directory has no bound");
        world.engine.keep.raise();
    }
    world.settle(world.engine.durable()).await;
    world.drop_segments();
    assert!(!world.body(position), "there is room");
    world.crash(&mut StdRng::seed_from_u64(0)).await;
    let known = world.stores.events.known(&first.key());
    assert_eq!(known.map(|known| known.body_hash), Some(first.body_hash));
    let end = world.engine.durable();
    assert_eq!(world.claim(&first, end).await, Claimed::Repeat);
    assert_eq!(world.claim(&other, end + 1).await, Claimed::Conflict);
}

#[tokio::test]
async fn a_full_directory_refuses_events_and_takes_them_again_when_some_are_settled() {
    let mut world = World::new(Duration::from_hours(1), 8 * SEGMENT).await;
    let mut positions = Vec::new();
    let refusal = loop {
        match world.append().await {
            Ok(position) => positions.push(position),
            Err(error) => break error,
        }
        assert!(positions.len() < 1000, "the directory has no bound");
        world.engine.keep.raise();
    };
    assert_eq!(refusal.kind(), LogErrorKind::Full);
    for position in &positions {
        assert!(world.body(*position), "refused, yet dropped");
    }
    world.settle(world.engine.durable()).await;
    let started = Instant::now();
    while world.append().await.is_err() {
        assert!(started.elapsed() < Duration::from_mins(1), "it stays full");
        world.drop_segments();
        world.engine.keep.raise();
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nothing_unsettled_is_lost_when_it_crashes_while_segments_are_dropped() {
    for seed in 0..8 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(Duration::ZERO, 1 << 30).await;
        let (mut positions, mut settled) = (Vec::new(), 0);
        for _ in 0..12 {
            for _ in 0..rng.random_range(1..20) {
                positions.push(world.append().await.unwrap());
            }
            settled = rng.random_range(settled..positions.len());
            world.settle(positions[settled]).await;
            world.drop_segments();
            if rng.random_bool(0.4) {
                world.crash(&mut rng).await;
            }
            for position in &positions[settled..] {
                assert!(world.body(*position), "seed {seed}: {position} is lost");
            }
        }
        assert!(world.segments() < 10, "seed {seed}: nothing is dropped");
    }
}
