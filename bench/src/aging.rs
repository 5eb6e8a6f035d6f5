//! The long run (`make bench-long`): whether the five millionth delivery costs what the first did,
//! and five minutes at half load without a stall.

use std::time::Duration;

use anyhow::Result;

use crate::publish::Load;
use crate::report::{self, Report, Row};
use crate::round::{self, FAN_OUT};
use crate::server::Server;
use crate::sink::Sink;
use crate::{Settings, latency, machine};

const SAMPLE: u64 = 100_000;
const BEFORE_LAST: u64 = 5_000_000;

/// The long run.
pub(crate) async fn run(settings: &Settings) -> Result<Report> {
    let mut report = Report::new(
        "bench-long",
        report::ONE_PROCESS,
        machine::describe(settings),
    );
    let sink = Sink::start().await?;
    let server = Server::start(settings).await?;
    let load = round::load(&server, &sink, FAN_OUT.fan_out).await?;
    let first = cpu_of(&server, &sink, &load, SAMPLE).await?;
    let between = cpu_of(&server, &sink, &load, BEFORE_LAST - SAMPLE).await?;
    let last = cpu_of(&server, &sink, &load, SAMPLE).await?;
    report.add(
        Row::new(
            "cost per delivery after 5M deliveries against the first 100k",
            "<= 1.2 x",
        )
        .value(last / first, "x", 1.2)
        .note(format!(
            "{first:.1} us, {between:.1} in between, then {last:.1}; resident at most {:.0} MiB",
            mebibytes(server.resident_max()?)
        )),
    );
    server.stop().await?;
    latency::at_half_load(settings, &mut report, &FAN_OUT, Duration::from_mins(5)).await?;
    Ok(report)
}

#[allow(clippy::cast_precision_loss)]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

/// CPU per delivery of the next so many, in microseconds.
#[allow(clippy::cast_precision_loss)]
async fn cpu_of(server: &Server, sink: &Sink, load: &Load, deliveries: u64) -> Result<f64> {
    let (cpu, before) = (server.cpu()?, sink.count());
    load.exactly(deliveries / load.fan_out, 256).await?;
    sink.reaches(before + deliveries).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok((server.cpu()? - cpu) as f64 / deliveries as f64)
}
