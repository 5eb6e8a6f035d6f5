//! The log seam's conformance suite on the real disk, and on one that loses what is not synced.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fanfare_event_log::conformance::Backend;
use fanfare_event_log::{EventLog, Lease, log_conformance};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::EmbeddedLog;
use crate::EmbeddedConfig;
use crate::disk::faulty::FaultyDisk;
use crate::disk::{Disk, RealDisk};
use crate::engine::Engine;
use crate::front::State;

const REVOKE_DEADLINE: Duration = Duration::from_secs(30);

/// Small segments, a small tail and a small view buffer: every case crosses all of their borders.
fn config(dir: &Path, spans: u16) -> EmbeddedConfig {
    EmbeddedConfig {
        dir: dir.to_owned(),
        spans,
        segment_bytes: 4 << 20,
        free_bytes_min: 0,
        view_buffer_bytes: 16 << 10,
        tail_bytes: 4 << 10,
        ..EmbeddedConfig::default()
    }
}

struct Opened<D> {
    dir: TempDir,
    disk: D,
    spans: u16,
    engine: Arc<Engine>,
    log: Arc<EmbeddedLog>,
}

impl<D: Disk + Clone> Opened<D> {
    async fn open(dir: TempDir, disk: D, spans: u16) -> Self {
        let opening = Engine::open(config(dir.path(), spans), disk.clone(), &[], ());
        let engine = opening.await.unwrap();
        let log = EmbeddedLog::with_revoke_deadline(engine.clone(), REVOKE_DEADLINE);
        Self {
            dir,
            disk,
            spans,
            engine,
            log: Arc::new(log),
        }
    }

    async fn crash_and_reopen(self, crash: impl FnOnce(&D)) -> Self {
        self.log.close();
        let engine = self.engine.clone();
        tokio::task::spawn_blocking(move || engine.end(State::Stopped))
            .await
            .unwrap();
        crash(&self.disk);
        Self::open(self.dir, self.disk, self.spans).await
    }
}

/// Killed as a process is: what was written and not synced stays.
struct Killed<const SPANS: u16>(Opened<RealDisk>);

#[async_trait]
impl<const SPANS: u16> Backend for Killed<SPANS> {
    async fn create() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self(Opened::open(dir, RealDisk, SPANS).await)
    }

    fn log(&self) -> Arc<dyn EventLog> {
        self.0.log.clone()
    }

    async fn crash_and_reopen(self) -> Self {
        Self(self.0.crash_and_reopen(|_| ()).await)
    }

    async fn lose_lease(&self, lease: &Lease) {
        self.0.log.lose(lease);
    }
}

/// The power fails: what was not synced is lost in part.
struct PowerCut {
    opened: Opened<FaultyDisk>,
    rng: StdRng,
}

#[async_trait]
impl Backend for PowerCut {
    async fn create() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(256 << 20);
        Self {
            opened: Opened::open(dir, disk, 4).await,
            rng: StdRng::seed_from_u64(7),
        }
    }

    fn log(&self) -> Arc<dyn EventLog> {
        self.opened.log.clone()
    }

    async fn crash_and_reopen(mut self) -> Self {
        let rng = &mut self.rng;
        let opened = self.opened.crash_and_reopen(|disk| disk.crash(rng)).await;
        Self {
            opened,
            rng: self.rng,
        }
    }

    async fn lose_lease(&self, lease: &Lease) {
        self.opened.log.lose(lease);
    }
}

mod killed {
    use super::*;
    log_conformance!(Killed<1>);
}

mod killed_with_four_spans {
    use super::*;
    log_conformance!(Killed<4>);
}

mod power_cut {
    use super::*;
    log_conformance!(PowerCut);
}
