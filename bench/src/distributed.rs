//! Router and delivery worker on Kafka and a CQL store, in one run with what they are compared to:
//! the bare POST loop, a bare producer, a bare gRPC server. The kinds take turns, so that a slower
//! minute of the machine slows all of them.
//!
//! All of it shares the CPUs of one machine with the broker and the store, whose work is not
//! counted. The same router and worker run throughout, so that nothing but the load changes.

mod pairs;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::echo::Echo;
use crate::publish::{Load, Way};
use crate::report::{Report, Row, median};
use crate::round::{self, AFTERMATH, Cost, ENDPOINTS, LENGTH, STEADY, Scenario};
use crate::sink::Sink;
use crate::{Settings, bare, latency, machine};

const CPU: &str = "CPU is that of whole processes, as the kernel counts it: of the router, of the delivery worker, or of both;\n\
     never that of the broker, the store, the receiver and the publisher.";

/// Most unanswered publishes of a stream, and of the bare producer: as many as a stream may have. Fewer
/// come to some records of each of 16 partitions, and every few records are a request.
const WINDOW: usize = 1024;
const STREAM: Way = Way::Stream { window: WINDOW };
const UNARY: Way = Way::Unary { window: 256 };
/// Most deliveries that the load is ahead of the sink: enough to keep two topics' batches filled.
const AHEAD_MAX: u64 = 20_000;
/// Durable publishes over a stream that are measured in a round.
const PUBLISHES: u64 = 20_000;
/// Events in the backlog of a round.
const BACKLOG: u64 = 10_000;

const FAN_OUT: Scenario = Scenario {
    name: "50 endpoints per event, stream",
    fan_out: ENDPOINTS,
    way: STREAM,
    pace: None,
    reach: 1.8,
};
const ONE: Scenario = Scenario {
    name: "one endpoint per event, stream, 1,024 in flight",
    fan_out: 1,
    way: STREAM,
    pace: None,
    reach: 3.0,
};
const SLOWLY: Scenario = Scenario {
    name: "one endpoint per event, unary, steady 1,000/s",
    fan_out: 1,
    way: Way::Unary { window: 64 },
    pace: Some(STEADY),
    reach: 6.0,
};
const SCENARIOS: [Scenario; 3] = [FAN_OUT, ONE, SLOWLY];

const LATENCY: latency::Reach = latency::Reach {
    said: "p50 <= 15 ms",
    p50: 15.0,
    p99: None,
    max: None,
};

/// Events that go to a sink of their own.
struct Target {
    load: Load,
    sink: Sink,
    /// Deliveries beyond one for each that was owed.
    repeats: u64,
}

struct Bench {
    cluster: Cluster,
    /// Each event to all endpoints.
    fan_out: Target,
    /// Each event to one of them.
    one: Target,
    /// Nobody wants these.
    nobody: Load,
    echo: Echo,
    /// Of the bare loop.
    sink: Sink,
}

#[derive(Default)]
struct Found {
    bare: Vec<f64>,
    steady: Vec<f64>,
    /// CPU per record of the bare producer.
    producer: Vec<f64>,
    producer_rate: Vec<f64>,
    /// CPU per answer of the bare gRPC server.
    echo: Vec<f64>,
    stream: Vec<Cost>,
    unary: Vec<Cost>,
    drain: Vec<Cost>,
    costs: [Vec<Cost>; SCENARIOS.len()],
}

/// All parts.
pub(crate) async fn run(settings: &Settings) -> Result<Report> {
    let mut machine = machine::describe(settings);
    machine
        .push("so do one Kafka broker and one Cassandra node, each with a heap of 512 MiB".into());
    let mut report = Report::new("bench-distributed", CPU, machine);
    let mut bench = Bench::start(settings).await?;
    if let Err(error) = bench.measure(settings, &mut report).await {
        eprintln!("{}", bench.cluster.last_words());
        return Err(error);
    }
    bench.cluster.stop().await?;
    Ok(report)
}

/// Keeps router and worker busy for a profiler, and says their process ids.
pub(crate) async fn drive(settings: &Settings, scenario: usize, length: Duration) -> Result<()> {
    let scenario = SCENARIOS.get(scenario).context("no such scenario")?;
    let bench = Bench::start(settings).await?;
    let target = bench.target(scenario);
    let pids = bench.cluster.pids();
    println!("{pids:?} {}", scenario.name);
    let end = Instant::now() + length;
    while Instant::now() < end {
        let loads = std::slice::from_ref(&target.load);
        let cost = round::cost(&pids, &target.sink, loads, scenario).await?;
        println!("{:.1} us a delivery, {:.0}/s", cost.cpu, cost.rate);
    }
    bench.cluster.stop().await
}

impl Bench {
    async fn start(settings: &Settings) -> Result<Self> {
        let cluster = Cluster::start(settings).await?;
        let router = cluster.routers.first().context("no router")?;
        let channel = router.connect().await?;
        Ok(Self {
            fan_out: Target::new(&channel, "fan", ENDPOINTS).await?,
            one: Target::new(&channel, "one", 1).await?,
            nobody: Load::unwatched(channel, "nobody"),
            echo: Echo::start().await?,
            sink: Sink::start().await?,
            cluster,
        })
    }

    async fn measure(&mut self, settings: &Settings, report: &mut Report) -> Result<()> {
        let mut found = Found::default();
        for round in 1..=settings.rounds {
            eprintln!("round {round} of {}", settings.rounds);
            self.round(&mut found).await?;
            self.set_repeats_aside();
        }
        found.report(report);
        let [fan_out, one, _] = found.rates();
        if settings.wants("latency") {
            self.latency(report, fan_out, one).await?;
            self.set_repeats_aside();
        }
        if settings.wants("backlog") {
            let row = self.catch_up(settings.backlog, fan_out).await?;
            report.add(row);
            self.set_repeats_aside();
        }
        if settings.wants("scale") {
            let row = self.scale().await?;
            report.add(row);
            self.set_repeats_aside();
        }
        if settings.wants("front") {
            self.front(settings.rounds, report).await?;
        }
        report.add(self.repeats());
        Ok(())
    }

    fn target(&self, scenario: &Scenario) -> &Target {
        if scenario.fan_out == 1 {
            &self.one
        } else {
            &self.fan_out
        }
    }

    async fn round(&mut self, found: &mut Found) -> Result<()> {
        let first = bare::flat_out(&self.sink, 2).await?;
        let produced = self.bare_producer().await?;
        eprintln!("  bare producer: {produced:.1?}");
        found.producer.push(produced.cpu);
        found.producer_rate.push(produced.rate);
        found.stream.push(self.publish_stream().await?);
        found.unary.push(self.publish_unary().await?);
        let answer = self.echo.cpu_per_answer(UNARY, LENGTH / 2).await?;
        eprintln!("  bare gRPC server: {answer:.1} us an answer");
        found.echo.push(answer);
        for (scenario, costs) in SCENARIOS.iter().zip(&mut found.costs) {
            let target = self.target(scenario);
            let loads = std::slice::from_ref(&target.load);
            let pids = self.cluster.pids();
            let cost = round::cost(&pids, &target.sink, loads, scenario)
                .await
                .context(scenario.name)?;
            cost.tell(scenario.name);
            costs.push(cost);
        }
        let steady = bare::paced(&self.sink, LENGTH.as_secs(), STEADY).await?;
        found.steady.push(steady.cpu_per_post());
        let drained = self.drain(&ONE, BACKLOG).await?;
        drained.tell("worker alone");
        found.drain.push(drained);
        let last = bare::flat_out(&self.sink, 2).await?;
        let bare = f64::midpoint(first.cpu_per_post(), last.cpu_per_post());
        eprintln!(
            "  bare loop: {bare:.1} us a POST; {:.1} us at {STEADY}/s",
            steady.cpu_per_post()
        );
        found.bare.push(bare);
        Ok(())
    }

    async fn publish_stream(&self) -> Result<Cost> {
        let publish = async || self.nobody.exactly(PUBLISHES, WINDOW).await;
        let cost = self.publishing(publish).await?;
        cost.tell("publish over a stream");
        Ok(cost)
    }

    async fn publish_unary(&self) -> Result<Cost> {
        let publish = async || self.nobody.run(UNARY, LENGTH, None).await.map(drop);
        let cost = self.publishing(publish).await?;
        cost.tell("publish, unary");
        Ok(cost)
    }

    /// What the router uses for each event that nobody wants, until all of them are routed.
    async fn publishing(&self, publish: impl AsyncFn() -> Result<()>) -> Result<Cost> {
        let router = self.cluster.routers.first().context("no router")?;
        let (routed, before) = (self.cluster.routed().await?, self.nobody.published());
        let (cpu, started) = (router.cpu()?, Instant::now());
        publish().await?;
        let took = started.elapsed();
        let events = self.nobody.published() - before;
        self.cluster.routes(routed + events).await?;
        tokio::time::sleep(AFTERMATH).await;
        Ok(Cost {
            cpu: (router.cpu()? - cpu) as f64 / events as f64,
            rate: events as f64 / took.as_secs_f64(),
        })
    }

    /// What a worker that starts on `events` routed events uses for each delivery; the first tenth
    /// of them is not counted, so that the start is not.
    async fn drain(&mut self, scenario: &Scenario, events: u64) -> Result<Cost> {
        let worker = self.cluster.workers.pop().context("no worker")?;
        worker.stop().await?;
        let target = self.target(scenario);
        let (routed, arrived) = (self.cluster.routed().await?, target.sink.count());
        target.load.unwaited().exactly(events, WINDOW).await?;
        self.cluster.routes(routed + events).await?;
        self.cluster.add_worker().await?;
        let worker = self.cluster.workers.last().context("no worker")?;
        let target = self.target(scenario);
        let deliveries = events * scenario.fan_out;
        target.sink.reaches(arrived + deliveries / 10).await?;
        let from = target.sink.count();
        let (cpu, started) = (worker.cpu()?, Instant::now());
        target.sink.reaches(arrived + deliveries).await?;
        let took = started.elapsed();
        tokio::time::sleep(AFTERMATH).await;
        let counted = (arrived + deliveries - from) as f64;
        Ok(Cost {
            cpu: (worker.cpu()? - cpu) as f64 / counted,
            rate: counted / took.as_secs_f64(),
        })
    }

    async fn latency(&mut self, report: &mut Report, fan_out: f64, one: f64) -> Result<()> {
        let length = Duration::from_secs(20);
        let of = [
            (&FAN_OUT, fan_out, &mut self.fan_out),
            (&ONE, one, &mut self.one),
        ];
        for (scenario, most, Target { load, sink, .. }) in of {
            let row = latency::at_half_of(most, load, sink, scenario, length, &LATENCY).await?;
            report.add(row);
        }
        Ok(())
    }

    async fn catch_up(&mut self, deliveries: u64, steady: f64) -> Result<Row> {
        let drained = self.drain(&FAN_OUT, deliveries / FAN_OUT.fan_out).await?;
        let share = 100.0 * drained.rate / steady;
        let what = format!("catching up on a backlog of {deliveries} deliveries");
        Ok(Row::new(&what, ">= 90 % of the steady rate")
            .said(format!("{share:.0} %"), Some(share >= 90.0))
            .note(format!(
                "50 endpoints per event; {:.0} deliveries/s by the worker alone, {:.1} us each; steady: {steady:.0}/s with publisher and router at work on the same CPUs",
                drained.rate, drained.cpu
            )))
    }

    fn set_repeats_aside(&mut self) {
        self.fan_out.set_repeats_aside();
        self.one.set_repeats_aside();
    }

    /// Deliveries beyond one for each that was owed.
    fn repeats(&self) -> Row {
        let targets = [&self.fan_out, &self.one];
        let repeats: u64 = targets.iter().map(|target| target.repeats).sum();
        let owed = targets.map(|target| target.load.published() * target.load.fan_out);
        let owed: u64 = owed.iter().sum();
        Row::new("repeated deliveries", "reported")
            .said(repeats.to_string(), None)
            .note(format!("of {owed} in the whole run"))
    }
}

impl Target {
    /// `ENDPOINTS` endpoints, `fan_out` for every event.
    async fn new(
        channel: &tonic::transport::Channel,
        name: &'static str,
        fan_out: u64,
    ) -> Result<Self> {
        let sink = Sink::start().await?;
        let load = Load::subscribed(channel.clone(), name, &sink, ENDPOINTS, fan_out).await?;
        let ahead_max = AHEAD_MAX;
        Ok(Self {
            load: Load { ahead_max, ..load },
            sink,
            repeats: 0,
        })
    }

    /// Counts what came twice, so that it is not taken for what is yet to come. Only while nothing
    /// is on its way.
    fn set_repeats_aside(&mut self) {
        let over = self.sink.count().saturating_sub(self.load.owed());
        self.load.arrived_before += over;
        self.repeats += over;
    }
}

impl Found {
    /// Deliveries per second of each scenario.
    fn rates(&self) -> [f64; SCENARIOS.len()] {
        let rate = |costs: &Vec<Cost>| costs.iter().map(|cost| cost.rate).collect::<Vec<_>>();
        self.costs.each_ref().map(|costs| median(&rate(costs)))
    }

    fn report(&self, report: &mut Report) {
        let routed = "nobody subscribed; with routing each of them";
        report.add(
            round::against(
                "CPU of the router per durable publish: stream, 1,024 in flight",
                &self.stream,
                "publishes",
                &self.producer,
                "bare producer",
                2.5,
            )
            .also(&format!(
                "{routed}; bare producer {:.0}/s",
                median(&self.producer_rate)
            )),
        );
        report.add(
            round::against(
                "CPU of the router per durable publish: unary, 256 in flight",
                &self.unary,
                "publishes",
                &self.echo,
                "bare gRPC server",
                1.5,
            )
            .also(routed),
        );
        for (scenario, costs) in SCENARIOS.iter().zip(&self.costs) {
            let bare = match scenario.pace {
                Some(_) => &self.steady,
                None => &self.bare,
            };
            report.add(round::row(scenario, costs, bare).also("router and worker"));
        }
        report.add(
            round::against(
                "CPU per delivery: draining a backlog, one endpoint per event",
                &self.drain,
                "deliveries",
                &self.bare,
                "bare loop",
                1.5,
            )
            .also(&format!("worker alone, {BACKLOG} events")),
        );
    }
}
