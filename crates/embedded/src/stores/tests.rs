//! The conformance suites of the stores over the embedded engine, on a disk that loses what was
//! not synced.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fanfare_domain::{AcceptedEvent, Place};
use fanfare_event_log::Stream;
use fanfare_event_log::record::encode_event;
use fanfare_store::Stores;
use fanfare_store::conformance::{Backend, CHANGES_KEPT_IN_TESTS, fixtures};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::{Accepted, SPACES};
use crate::EmbeddedConfig;
use crate::changes::Batch;
use crate::disk::faulty::FaultyDisk;
use crate::engine::Engine;
use crate::front::State;

/// An engine whose log lies on a faulty disk. The view's files are real: a crash leaves whatever
/// the engine had made durable there.
struct Embedded<const BUFFER: usize> {
    dir: TempDir,
    disk: FaultyDisk,
    engine: Arc<Engine>,
    stores: Stores,
    seed: u64,
}

async fn open(dir: &TempDir, disk: &FaultyDisk, buffer: usize) -> (Arc<Engine>, Stores) {
    let config = EmbeddedConfig {
        dir: dir.path().to_owned(),
        segment_bytes: 1 << 20,
        view_buffer_bytes: buffer,
        // What the suite writes is dated: it must not outlive the retention one day.
        retention: Duration::from_hours(24 * 365 * 100),
        ..EmbeddedConfig::default()
    };
    let engine = Engine::open(config, disk.clone(), SPACES, Accepted)
        .await
        .unwrap();
    let stores = super::open(&engine, CHANGES_KEPT_IN_TESTS).unwrap();
    (engine, stores)
}

#[async_trait]
impl<const BUFFER: usize> Backend for Embedded<BUFFER> {
    async fn create() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(256 << 20);
        let (engine, stores) = open(&dir, &disk, BUFFER).await;
        Self {
            dir,
            disk,
            engine,
            stores,
            seed: 1,
        }
    }

    fn stores(&self) -> Stores {
        self.stores.clone()
    }

    async fn accept(&self, events: Vec<AcceptedEvent>) -> Vec<Place> {
        let mut batch = Batch::default();
        for event in &events {
            batch.append(Stream::Events, 0, encode_event(event));
        }
        let placed = self.engine.write(batch).await.unwrap();
        let positions = placed.durable().await.unwrap();
        let place = |position| Place { span: 0, position };
        positions.into_iter().map(place).collect()
    }

    async fn sync(&self) {
        let mut batch = Batch::default();
        batch.append(Stream::Deliveries, 0, "sync".into());
        let placed = self.engine.write(batch).await.unwrap();
        placed.durable().await.unwrap();
    }

    async fn crash_and_reopen(mut self) -> Self {
        self.engine.end(State::Stopped);
        self.disk.crash(&mut StdRng::seed_from_u64(self.seed));
        (self.engine, self.stores) = open(&self.dir, &self.disk, BUFFER).await;
        self.seed += 1;
        self
    }
}

impl<const BUFFER: usize> Drop for Embedded<BUFFER> {
    fn drop(&mut self) {
        self.engine.end(State::Stopped);
    }
}

/// Everything is read from memory.
mod in_memory {
    use super::Embedded;

    fanfare_store::store_conformance!(Embedded<{ 16 << 20 }>);
}

/// What was written moves into the trees all the time: reads see it on its way.
mod flushing {
    use super::Embedded;

    fanfare_store::store_conformance!(Embedded<{ 4 << 10 }>);
}

/// The answer to a repeat is an ack, so it must not come from what a failed sync loses.
#[tokio::test]
async fn an_event_that_is_not_durable_is_not_known() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(256 << 20);
    let (engine, stores) = open(&dir, &disk, 1 << 20).await;
    let append = async |event: &AcceptedEvent| {
        let mut batch = Batch::default();
        batch.append(Stream::Events, 0, encode_event(event));
        engine.write(batch).await.unwrap().durable().await
    };
    let (kept, lost) = (fixtures::event("kept", "{}"), fixtures::event("lost", "{}"));
    append(&kept).await.unwrap();
    disk.fail_syncs();
    append(&lost).await.unwrap_err();
    assert!(stores.events.known(&kept.key()).is_some());
    assert_eq!(stores.events.known(&lost.key()), None);
}
