//! The embedded engine alone: what its group commit can take, at the concurrency and size of the
//! events that are published through the server.
//!
//! - `commits DIR IN_FLIGHT SECONDS`: as many as go.
//! - `waits DIR PER_SECOND SECONDS`: how long each waits at a pace, which is what this disk adds to
//!   every latency.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use fanfare_domain::Shard;
use fanfare_embedded::{Embedded, EmbeddedConfig};
use fanfare_event_log::{Outgoing, Stream};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::histogram::Histogram;
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

/// How long appends wait, in a process of its own.
pub(crate) async fn waits(settings: &Settings, pace: u64, seconds: u64) -> Result<Histogram> {
    let dir = tempfile::TempDir::new_in(&settings.data_dir)?;
    let path = dir.path().to_string_lossy();
    let (pace, seconds) = (pace.to_string(), seconds.to_string());
    child::answer(&["waits", &path, &pace, &seconds]).await
}

/// The process of [`measure`].
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    child_of(arguments, append)
}

/// The process of [`waits`].
pub(crate) fn run_waits(arguments: impl Iterator<Item = String>) -> Result<()> {
    child_of(arguments, append_paced)
}

fn child_of<T: Serialize>(
    mut arguments: impl Iterator<Item = String>,
    measured: impl AsyncFnOnce(Embedded, u64, u64) -> Result<T>,
) -> Result<()> {
    let dir = arguments.next().context("DIR")?;
    let rate: u64 = arguments
        .next()
        .context("IN_FLIGHT or PER_SECOND")?
        .parse()?;
    let seconds: u64 = arguments.next().context("SECONDS")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(async {
        let embedded = Embedded::open(EmbeddedConfig {
            dir: dir.into(),
            ..EmbeddedConfig::default()
        });
        measured(embedded.await?, rate, seconds).await
    })?;
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}

async fn append_paced(embedded: Embedded, pace: u64, seconds: u64) -> Result<Histogram> {
    let (log, bytes) = (embedded.log(), publish::record()?);
    let (mut pacer, mut appends) = (publish::Pacer::new(pace), JoinSet::new());
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut waits = Histogram::default();
    while Instant::now() < end {
        for _ in 0..pacer.due().await {
            let (log, bytes) = (log.clone(), bytes.clone());
            appends.spawn(async move {
                let started = Instant::now();
                log.append(Stream::Events, vec![outgoing(0, bytes)]).await?;
                anyhow::Ok(started.elapsed())
            });
        }
        while let Some(ended) = appends.try_join_next() {
            waits.add(ended??);
        }
    }
    while let Some(ended) = appends.join_next().await {
        waits.add(ended??);
    }
    Ok(waits)
}

fn outgoing(producer: u64, bytes: Bytes) -> Outgoing {
    Outgoing {
        shard: Shard(u8::try_from(producer % 256).unwrap_or(0)),
        subject: "bench".into(),
        bytes,
    }
}

#[allow(clippy::cast_precision_loss)]
async fn append(embedded: Embedded, in_flight: u64, seconds: u64) -> Result<Commits> {
    let (log, count) = (embedded.log(), Arc::new(AtomicU64::new(0)));
    let bytes = publish::record()?;
    let mut producers = JoinSet::new();
    let warm = Instant::now() + Duration::from_millis(500);
    let end = warm + Duration::from_secs(seconds);
    for producer in 0..in_flight {
        let (log, bytes, count) = (log.clone(), bytes.clone(), count.clone());
        producers.spawn(async move {
            loop {
                let record = outgoing(producer, bytes.clone());
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
