//! The settler alone, on a log in memory: what a part costs from being taken to being committed,
//! with full records of 64 parts that settle in no order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use fanfare_domain::{Position, Shard};
use fanfare_event_log::memory::{MemoryConfig, MemoryLog};
use fanfare_event_log::{EventLog, Group, Outgoing, Settler, Stream, Visibility};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::report::{Report, Row};
use crate::{child, process};

const PARTS: u32 = 64;
/// Records in flight at a time, and how many times over.
const IN_FLIGHT: u64 = 1000;
const WAVES: u64 = 40;

#[derive(Debug, Serialize, Deserialize)]
struct Settling {
    micros_per_part: f64,
}

/// In a process of its own.
pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    let found: Settling = child::answer(&["settling"]).await?;
    report.add(
        Row::new("settling a part, CPU with its commits", "reported")
            .value(found.micros_per_part, "us", f64::INFINITY)
            .note(format!(
                "{IN_FLIGHT} records of {PARTS} parts in flight, in no order"
            )),
    );
    Ok(())
}

/// The process.
pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(settling())?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
async fn settling() -> Result<Settling> {
    let log = Arc::new(MemoryLog::new(MemoryConfig {
        spans: 1,
        progress_max_bytes: 1 << 20,
        ..MemoryConfig::default()
    }));
    let record = Outgoing {
        shard: Shard(0),
        subject: "bench".into(),
        bytes: "r".into(),
    };
    log.append(Stream::Deliveries, vec![record]).await?;
    let group = Group::new("bench");
    let mut reader = log
        .join(Stream::Deliveries, &group, Visibility::Durable)
        .await?;
    let granted = reader.next().await?;
    let settler = Arc::new(Settler::<u32>::new(
        log,
        granted.lease.clone(),
        &granted.progress,
        Duration::from_millis(5),
    ));
    let running = settler.clone();
    let run = tokio::spawn(async move { running.run().await });
    let mut parts: Vec<_> = (0..IN_FLIGHT)
        .flat_map(|record| (0..PARTS).map(move |part| (record, part)))
        .collect();
    parts.shuffle(&mut rand::rng());
    let me = std::process::id();
    let cpu = process::cpu(me)?;
    for wave in 0..WAVES {
        let first = wave * IN_FLIGHT;
        for record in 0..IN_FLIGHT {
            settler.room().await;
            settler.take(Position(first + record), PARTS);
        }
        for some in parts.chunks(100) {
            for (record, part) in some {
                settler.settle(Position(first + record), *part, *part);
            }
            tokio::task::yield_now().await;
        }
    }
    settler.finish();
    run.await??;
    let used = process::cpu(me)? - cpu;
    let count = WAVES * IN_FLIGHT * u64::from(PARTS);
    Ok(Settling {
        micros_per_part: used as f64 / count as f64,
    })
}
