//! CPU per delivery in each way to publish, against the bare loop of the same round, and durable
//! publishes against the engine alone. The kinds take turns, so that a slower minute of the
//! machine slows all of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;

use crate::publish::{Load, Way};
use crate::report::{Report, Row, median};
use crate::server::Server;
use crate::sink::Sink;
use crate::{Settings, bare, commits, process};

/// Endpoints of every scenario: all of one type, or one of each.
pub(crate) const ENDPOINTS: u64 = 50;
/// The pace of the steady scenario, events per second.
pub(crate) const STEADY: u64 = 1000;
const WARM_UP: Duration = Duration::from_secs(1);
pub(crate) const LENGTH: Duration = Duration::from_secs(4);
/// What is written after a delivery belongs to it.
pub(crate) const AFTERMATH: Duration = Duration::from_millis(50);

/// One way to publish and how many endpoints each event goes to.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) fan_out: u64,
    pub(crate) way: Way,
    pub(crate) pace: Option<u64>,
    /// Most CPU per delivery, as a multiple of the bare loop's.
    pub(crate) reach: f64,
}

/// What a scenario cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// CPU of the server per delivery, in microseconds.
    pub(crate) cpu: f64,
    /// Deliveries per second.
    pub(crate) rate: f64,
}

impl Cost {
    /// Says so at once.
    pub(crate) fn tell(&self, what: &str) {
        eprintln!("  {what}: {:.1} us each, {:.0}/s", self.cpu, self.rate);
    }
}

/// 50 endpoints per event.
pub(crate) const FAN_OUT: Scenario = Scenario {
    name: "50 endpoints per event, stream",
    fan_out: ENDPOINTS,
    way: Way::Stream { window: 256 },
    pace: None,
    reach: 1.5,
};

/// One endpoint per event, one by one.
pub(crate) const UNARY: Scenario = Scenario {
    name: "one endpoint per event, unary, 64 in flight",
    fan_out: 1,
    way: Way::Unary { window: 64 },
    pace: None,
    reach: 4.0,
};

const SCENARIOS: [Scenario; 5] = [
    FAN_OUT,
    Scenario {
        name: "one endpoint per event, batches of 100",
        fan_out: 1,
        way: Way::Batch,
        pace: None,
        reach: 2.2,
    },
    Scenario {
        name: "one endpoint per event, stream, 256 in flight",
        fan_out: 1,
        way: Way::Stream { window: 256 },
        pace: None,
        reach: 2.2,
    },
    UNARY,
    Scenario {
        name: "one endpoint per event, unary, steady 1,000/s",
        fan_out: 1,
        way: Way::Unary { window: 64 },
        pace: Some(STEADY),
        reach: 3.0,
    },
];

#[derive(Default)]
struct Found {
    bare: Vec<f64>,
    steady: Vec<f64>,
    costs: [Vec<Cost>; SCENARIOS.len()],
    /// Durable publishes, and those of the engine alone per second.
    publishes: Vec<(Publishes, f64)>,
}

/// All rounds.
pub(crate) async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let sink = Sink::start().await?;
    let mut found = Found::default();
    for round in 1..=settings.rounds {
        eprintln!("round {round} of {}", settings.rounds);
        one(settings, &sink, &mut found).await?;
    }
    for (scenario, costs) in SCENARIOS.iter().zip(&found.costs) {
        let bare = if scenario.pace.is_some() {
            &found.steady
        } else {
            &found.bare
        };
        report.add(row(scenario, costs, bare));
    }
    let ratios: Vec<_> = found
        .publishes
        .iter()
        .map(|(p, c)| 100.0 * p.per_second / c)
        .collect();
    let of = |of: fn(&Publishes) -> f64| -> f64 {
        median(
            &found
                .publishes
                .iter()
                .map(|(p, _)| of(p))
                .collect::<Vec<_>>(),
        )
    };
    let alone: Vec<_> = found.publishes.iter().map(|(_, c)| *c).collect();
    let share = median(&ratios);
    report.add(
        Row::new(
            "durable publishes over a stream, 256 in flight, against the engine alone",
            ">= 50 %",
        )
        .said(format!("{share:.0} %"), Some(share >= 50.0))
        .note(format!(
            "{:.0}/s against {:.0}/s; each costs the server {:.1} us of CPU, the publisher beside it {:.1}",
            of(|p| p.per_second),
            median(&alone),
            of(|p| p.server),
            of(|p| p.publisher),
        )),
    );
    Ok(())
}

async fn one(settings: &Settings, sink: &Sink, found: &mut Found) -> Result<()> {
    let first = bare::flat_out(sink, 2).await?;
    for (scenario, costs) in SCENARIOS.iter().zip(&mut found.costs) {
        let cost = measure(settings, sink, scenario).await?;
        cost.tell(scenario.name);
        costs.push(cost);
    }
    let steady = bare::paced(sink, LENGTH.as_secs(), STEADY).await?;
    let last = bare::flat_out(sink, 2).await?;
    let bare = f64::midpoint(first.cpu_per_post(), last.cpu_per_post());
    eprintln!(
        "  bare loop: {bare:.1} us a POST, {:.0}/s; {:.1} us at {STEADY}/s",
        last.rate(),
        steady.cpu_per_post()
    );
    found.bare.push(bare);
    found.steady.push(steady.cpu_per_post());
    let published = publishes(settings).await?;
    let alone = commits::measure(settings, 256, 2).await?.per_second;
    eprintln!(
        "  durable publishes: {:.0}/s; engine alone: {alone:.0}/s",
        published.per_second
    );
    found.publishes.push((published, alone));
    Ok(())
}

/// A row of CPU per delivery; `bare` of the same rounds, in microseconds.
pub(crate) fn row(scenario: &Scenario, costs: &[Cost], bare: &[f64]) -> Row {
    let what = format!("CPU per delivery: {}", scenario.name);
    against(
        &what,
        costs,
        "deliveries",
        bare,
        "bare loop",
        scenario.reach,
    )
}

/// A row of CPU for each of `things` (plural) against that of `reference` in the same rounds, in
/// microseconds, which it should be at most `reach` times.
pub(crate) fn against(
    what: &str,
    costs: &[Cost],
    things: &str,
    bare: &[f64],
    reference: &str,
    reach: f64,
) -> Row {
    let ratios: Vec<_> = costs.iter().zip(bare).map(|(c, b)| c.cpu / b).collect();
    let cpu: Vec<_> = costs.iter().map(|c| c.cpu).collect();
    let rate: Vec<_> = costs.iter().map(|c| c.rate).collect();
    Row::new(what, &format!("<= {reach:.1} x {reference}"))
        .median(&ratios, "x", reach)
        .note(format!(
            "{:.1} us against {:.1}, {:.0} {things}/s",
            median(&cpu),
            median(bare),
            median(&rate)
        ))
}

/// Runs one scenario on a fresh server.
pub(crate) async fn measure(settings: &Settings, sink: &Sink, scenario: &Scenario) -> Result<Cost> {
    let server = Server::start(settings).await?;
    let load = load(&server, sink, scenario.fan_out).await?;
    let cost = cost(&[server.pid()], sink, &[load], scenario).await?;
    server.stop().await?;
    Ok(cost)
}

/// Keeps a server busy with a scenario, and says its process id.
pub(crate) async fn drive(settings: &Settings, scenario: usize, length: Duration) -> Result<()> {
    let scenario = SCENARIOS.get(scenario).context("no such scenario")?;
    let sink = Sink::start().await?;
    let server = Server::start(settings).await?;
    let load = load(&server, &sink, scenario.fan_out).await?;
    println!("{} {}", server.pid(), scenario.name);
    let (cpu, before) = (server.cpu()?, sink.count());
    load.run(scenario.way, length, scenario.pace).await?;
    let delivered = sink.count() - before;
    let each = (server.cpu()? - cpu) as f64 / delivered as f64;
    println!("{delivered} deliveries, {each:.1} us each");
    server.stop().await
}

/// Endpoints on `server` that deliver to `sink`, `fan_out` for every event, and what loads them.
pub(crate) async fn load(server: &Server, sink: &Sink, fan_out: u64) -> Result<Load> {
    Load::subscribed(server.channel(), "bench", sink, ENDPOINTS, fan_out).await
}

/// What `pids` use together for each delivery of `loads`, which are one load through several
/// servers, in the steady state of `scenario`.
pub(crate) async fn cost(
    pids: &[u32],
    sink: &Sink,
    loads: &[Load],
    scenario: &Scenario,
) -> Result<Cost> {
    let load = loads.first().context("no load")?;
    let run = |length| {
        let each = move |load: &Load| {
            let load = load.clone();
            let (way, pace) = (scenario.way, scenario.pace);
            async move { load.run(way, length, pace).await }
        };
        try_join_all(loads.iter().map(each))
    };
    run(WARM_UP).await?;
    sink.reaches(load.owed()).await?;
    let before = load.published();
    let (cpu, started) = (process::cpu_of_all(pids)?, Instant::now());
    run(LENGTH).await?;
    sink.reaches(load.owed()).await?;
    let took = started.elapsed();
    tokio::time::sleep(AFTERMATH).await;
    let deliveries = ((load.published() - before) * load.fan_out) as f64;
    Ok(Cost {
        cpu: (process::cpu_of_all(pids)? - cpu) as f64 / deliveries,
        rate: deliveries / took.as_secs_f64(),
    })
}

/// Durable publishes; CPU is of each, in microseconds.
struct Publishes {
    per_second: f64,
    server: f64,
    publisher: f64,
}

/// Durable publishes that nobody subscribed to.
#[allow(clippy::cast_precision_loss)]
async fn publishes(settings: &Settings) -> Result<Publishes> {
    let server = Server::start(settings).await?;
    let load = Load::unwatched(server.channel(), "bench");
    let way = Way::Stream { window: 256 };
    load.run(way, Duration::from_millis(500), None).await?;
    let this = std::process::id();
    let (server_before, this_before) = (server.cpu()?, process::cpu(this)?);
    let started = Instant::now();
    let events = load.run(way, Duration::from_secs(2), None).await?;
    let seconds = started.elapsed().as_secs_f64();
    let of_each = |micros: u64| micros as f64 / events as f64;
    let measured = Publishes {
        per_second: events as f64 / seconds,
        server: of_each(server.cpu()? - server_before),
        publisher: of_each(process::cpu(this)? - this_before),
    };
    server.stop().await?;
    Ok(measured)
}
