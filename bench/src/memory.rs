//! Resident memory: idle, under load, and with a million events behind an endpoint that is dead;
//! and how soon a killed server is ready again with those.

use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpListener;

use crate::Settings;
use crate::publish::{self, Load, Way};
use crate::report::{Report, Row};
use crate::round::{self, ENDPOINTS};
use crate::server::Server;
use crate::sink::Sink;

const UNDELIVERED: u64 = 1_000_000;
const MIB: f64 = 1024.0 * 1024.0;

/// All four.
pub(crate) async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    idle_and_loaded(settings, report).await?;
    undelivered(settings, report).await
}

async fn idle_and_loaded(settings: &Settings, report: &mut Report) -> Result<()> {
    let sink = Sink::start().await?;
    let server = Server::start(settings).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    report.add(row("idle", "<= 40 MiB", server.resident()?, 40.0));
    let load = round::load(&server, &sink, ENDPOINTS).await?;
    let length = Duration::from_secs(8);
    let events = load.run(Way::Stream { window: 256 }, length, None).await?;
    sink.reaches(load.arrived_before + events * ENDPOINTS)
        .await?;
    let most = server.resident_max()?;
    report.add(row("under load, most", "<= 250 MiB", most, 250.0));
    server.stop().await
}

async fn undelivered(settings: &Settings, report: &mut Report) -> Result<()> {
    let server = Server::start(settings).await?;
    // Nobody listens there any more.
    let dead = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    publish::subscribe(server.channel(), format!("http://{dead}/dead"), "bench.t0").await?;
    let load = Load::unwatched(server.channel(), "bench");
    load.exactly(UNDELIVERED, 1000).await?;
    let name = "1M undelivered events behind a dead endpoint, most";
    report.add(row(name, "<= 250 MiB", server.resident_max()?, 250.0));
    let server = server.kill_and_restart().await?;
    let ready = server.ready_after.as_secs_f64();
    report.add(
        Row::new(
            "restart with 1M undelivered events, after a kill",
            "ready in <= 3 s",
        )
        .said(format!("{ready:.2} s"), Some(ready <= 3.0)),
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    let name = "1M undelivered events, after the restart, most";
    report.add(row(name, "<= 250 MiB", server.resident_max()?, 250.0));
    server.stop().await
}

#[allow(clippy::cast_precision_loss)]
fn row(what: &str, reach: &str, bytes: u64, limit: f64) -> Row {
    Row::new(&format!("resident memory: {what}"), reach).value(bytes as f64 / MIB, "MiB", limit)
}
