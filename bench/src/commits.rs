//! The embedded engine alone: what its group commit can take, at the concurrency and size of the
//! events that are published through the server.
//!
//! `commits DIR IN_FLIGHT SECONDS`

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fanfare_domain::Shard;
use fanfare_embedded::{Embedded, EmbeddedConfig};
use fanfare_event_log::{Outgoing, Stream};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::{Settings, child, publish};

/// What the engine did.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Commits {
    /// Durable records per second.
    pub(crate) per_second: f64,
}

/// In a process of its own, on a directory of its own.
pub(crate) async fn measure(
    settings: &Settings,
    in_flight: usize,
    seconds: u64,
) -> Result<Commits> {
    let dir = tempfile::TempDir::new_in(&settings.data_dir)?;
    let path = dir.path().to_string_lossy();
    let (in_flight, seconds) = (in_flight.to_string(), seconds.to_string());
    child::answer(&["commits", &path, &in_flight, &seconds]).await
}

/// The process.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let dir = arguments.next().context("DIR")?;
    let in_flight: usize = arguments.next().context("IN_FLIGHT")?.parse()?;
    let seconds: u64 = arguments.next().context("SECONDS")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let commits = runtime.block_on(append(Path::new(&dir), in_flight, seconds))?;
    println!("{}", serde_json::to_string(&commits)?);
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
async fn append(dir: &Path, in_flight: usize, seconds: u64) -> Result<Commits> {
    let embedded = Embedded::open(EmbeddedConfig {
        dir: dir.to_owned(),
        ..EmbeddedConfig::default()
    })
    .await?;
    let (log, count) = (embedded.log(), Arc::new(AtomicU64::new(0)));
    let bytes = publish::record()?;
    let mut producers = JoinSet::new();
    let warm = Instant::now() + Duration::from_millis(500);
    let end = warm + Duration::from_secs(seconds);
    for producer in 0..in_flight {
        let (log, bytes, count) = (log.clone(), bytes.clone(), count.clone());
        producers.spawn(async move {
            loop {
                let record = Outgoing {
                    shard: Shard(u8::try_from(producer % 256).unwrap_or(0)),
                    subject: "bench".into(),
                    bytes: bytes.clone(),
                };
                log.append(Stream::Events, vec![record]).await?;
                let now = Instant::now();
                if now >= end {
                    return anyhow::Ok(());
                }
                if now >= warm {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    while let Some(ended) = producers.join_next().await {
        ended??;
    }
    Ok(Commits {
        per_second: count.load(Ordering::Relaxed) as f64
            / Duration::from_secs(seconds).as_secs_f64(),
    })
}
