//! From publish to receipt at half of the load that the machine can take.

use std::time::Duration;

use anyhow::Result;

use crate::histogram::Histogram;
use crate::publish::Load;
use crate::report::{Report, Row};
use crate::round::{self, FAN_OUT, Scenario, UNARY};
use crate::server::Server;
use crate::sink::Sink;
use crate::{Settings, commits};

const STALL: Duration = Duration::from_millis(50);
const WARM_UP: Duration = Duration::from_secs(3);

/// What is wanted; a limit that is not set is not checked.
pub(crate) struct Reach {
    /// The same in words.
    pub(crate) said: &'static str,
    /// Half of all are not later, in milliseconds.
    pub(crate) p50: f64,
    /// 99 of 100 are not later, in milliseconds.
    pub(crate) p99: Option<f64>,
    /// None is later.
    pub(crate) max: Option<Duration>,
}

const REACH: Reach = Reach {
    said: "p50 <= 2 ms, p99 <= 6 ms, no stall over 50 ms",
    p50: 2.0,
    p99: Some(6.0),
    max: Some(STALL),
};

/// Both kinds, as long as the short run allows.
pub(crate) async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    at_half_load(settings, report, &FAN_OUT, Duration::from_secs(40)).await?;
    at_half_load(settings, report, &UNARY, Duration::from_secs(20)).await
}

/// Finds the most that goes, then measures at half of it, on servers of their own.
pub(crate) async fn at_half_load(
    settings: &Settings,
    report: &mut Report,
    scenario: &Scenario,
    length: Duration,
) -> Result<()> {
    let mut sink = Sink::start().await?;
    let most = round::measure(settings, &sink, scenario).await?.rate;
    let server = Server::start(settings).await?;
    let load = round::load(&server, &sink, scenario.fan_out).await?;
    let row = at_half_of(most, &load, &mut sink, scenario, length, &REACH).await?;
    server.stop().await?;
    report.add(row);
    let pace = pace(most, scenario);
    let alone = commits::waits(settings, pace, length.as_secs()).await?;
    report.add(
        Row::new("the same pace: an append to the log alone", "reported")
            .said(quantiles(&alone), None)
            .note(format!(
                "{pace} events/s; what this disk adds to the row above"
            )),
    );
    Ok(())
}

/// Measures at half of `most` deliveries per second.
pub(crate) async fn at_half_of(
    most: f64,
    load: &Load,
    sink: &mut Sink,
    scenario: &Scenario,
    length: Duration,
    reach: &Reach,
) -> Result<Row> {
    let pace = pace(most, scenario);
    load.run(scenario.way, WARM_UP, Some(pace)).await?;
    sink.reaches(load.owed()).await?;
    sink.latencies().await?;
    load.run(scenario.way, length, Some(pace)).await?;
    sink.reaches(load.owed()).await?;
    let seen = sink.latencies().await?;
    let (p50, p99, max) = (seen.quantile(0.5), seen.quantile(0.99), seen.max());
    let met = millis(p50) <= reach.p50
        && reach.p99.is_none_or(|most| millis(p99) <= most)
        && reach.max.is_none_or(|most| max <= most);
    let what = format!("publish to receipt at half load: {}", scenario.name);
    Ok(Row::new(&what, reach.said)
        .said(quantiles(&seen), Some(met))
        .note(format!(
            "{pace} events/s for {} s, {} deliveries, {} over 50 ms; most was {most:.0} deliveries/s",
            length.as_secs(),
            seen.count(),
            seen.over(STALL),
        )))
}

/// Events per second at half of `most` deliveries.
fn pace(most: f64, scenario: &Scenario) -> u64 {
    (most / 2.0 / scenario.fan_out as f64).max(1.0) as u64
}

fn quantiles(of: &Histogram) -> String {
    let (p50, p99, max) = (of.quantile(0.5), of.quantile(0.99), of.max());
    format!(
        "p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms",
        millis(p50),
        millis(p99),
        millis(max)
    )
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
