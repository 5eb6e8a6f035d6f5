//! From publish to receipt at half of the load that the machine can take.

use std::time::Duration;

use anyhow::Result;

use crate::Settings;
use crate::report::{Report, Row};
use crate::round::{self, FAN_OUT, Scenario, UNARY};
use crate::server::Server;
use crate::sink::Sink;

const STALL: Duration = Duration::from_millis(50);
const WARM_UP: Duration = Duration::from_secs(3);

/// Both kinds, as long as the short run allows.
pub(crate) async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    at_half_load(settings, report, &FAN_OUT, Duration::from_secs(40)).await?;
    at_half_load(settings, report, &UNARY, Duration::from_secs(20)).await
}

/// Finds the most that goes, then measures at half of it.
pub(crate) async fn at_half_load(
    settings: &Settings,
    report: &mut Report,
    scenario: &Scenario,
    length: Duration,
) -> Result<()> {
    let mut sink = Sink::start().await?;
    let most = round::measure(settings, &sink, scenario).await?.rate;
    let pace = (most / 2.0 / scenario.fan_out as f64).max(1.0) as u64;
    let server = Server::start(settings).await?;
    let load = round::load(&server, &sink, scenario.fan_out).await?;
    let warm = load.run(scenario.way, WARM_UP, Some(pace)).await?;
    sink.reaches(load.arrived_before + warm * load.fan_out)
        .await?;
    sink.latencies().await?;
    let events = load.run(scenario.way, length, Some(pace)).await?;
    sink.reaches(load.arrived_before + (warm + events) * load.fan_out)
        .await?;
    let seen = sink.latencies().await?;
    server.stop().await?;
    let millis = |d: Duration| d.as_secs_f64() * 1e3;
    let (p50, p99, max) = (seen.quantile(0.5), seen.quantile(0.99), seen.max());
    let met = millis(p50) <= 2.0 && millis(p99) <= 6.0 && max <= STALL;
    let measured = format!(
        "p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms",
        millis(p50),
        millis(p99),
        millis(max)
    );
    report.add(
        Row::new(
            &format!("publish to receipt at half load: {}", scenario.name),
            "p50 <= 2 ms, p99 <= 6 ms, no stall over 50 ms",
        )
        .said(measured, Some(met))
        .note(format!(
            "{pace} events/s for {} s, {} deliveries, {} over 50 ms; most was {most:.0} deliveries/s",
            length.as_secs(),
            seen.count(),
            seen.over(STALL),
        )),
    );
    Ok(())
}
