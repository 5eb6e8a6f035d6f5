//! With a second router and a second worker: how much more two pairs do than one, on cores of their
//! own as far as there are any, and what the front door costs without the routing behind it.
//!
//! Two routers hold equal parts of the events. While one of them takes all publishes, the other one's
//! CPU is that of routing its part and of being there, so the difference is the front door's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Bench, ONE, STREAM, UNARY, WINDOW};
use crate::cluster::{BARE_TOPIC, PARTITIONS, ROUTED};
use crate::publish::Way;
use crate::report::{Report, Row};
use crate::round::{self, AFTERMATH, Cost};
use crate::{admin, process, producer};

/// Until what the first ones hold is shared out.
const SHARING: Duration = Duration::from_secs(5);
/// How long is published, each way and round: all of it is to be routed before the next.
const BURST: Duration = Duration::from_secs(1);
/// The least part of the events that the router which takes none must have routed to be compared with.
const PART_MIN: f64 = 0.2;

/// A way to publish and what it is compared to.
#[derive(Clone, Copy)]
struct Front {
    name: &'static str,
    way: Way,
    reach: f64,
    reference: &'static str,
}

const FRONTS: [Front; 3] = [
    Front {
        name: "stream, 1,024 in flight",
        way: STREAM,
        reach: 2.5,
        reference: "bare producer",
    },
    Front {
        name: "batches of 100",
        way: Way::Batch,
        reach: 2.5,
        reference: "bare producer",
    },
    Front {
        name: "unary, 256 in flight",
        way: UNARY,
        reach: 1.5,
        reference: "bare gRPC server",
    },
];

/// Which cores whom: a router and a worker one, everything else the rest.
struct Cores {
    count: usize,
    rest: String,
}

impl Cores {
    fn new() -> Result<Self> {
        let count = std::thread::available_parallelism()?.get();
        ensure!(count >= 2, "pairs on cores of their own need two cores");
        // Of two cores the second pair shares one with everything else.
        let rest = format!("{}-{}", 2.min(count - 1), count - 1);
        Ok(Self { count, rest })
    }

    fn said(&self) -> String {
        let shared = if self.count == 2 {
            "; of two cores the second pair shares one with them"
        } else {
            ""
        };
        format!(
            "a core for each pair, {} for broker, store, publisher and receivers{shared}",
            self.rest
        )
    }
}

impl Bench {
    /// The rate of one pair and of two.
    pub(super) async fn scale(&mut self) -> Result<Row> {
        let cores = Cores::new()?;
        for pid in self.everything_else() {
            process::bind(pid, &cores.rest)?;
        }
        self.bind_pairs()?;
        let mut loads = vec![self.one.load.clone()];
        let pids = self.cluster.pids();
        let single = round::cost(&pids, &self.one.sink, &loads, &ONE).await?;
        self.second_pair().await?;
        self.bind_pairs()?;
        let router = self.cluster.routers.last().context("no router")?;
        let worker = self.cluster.workers.last().context("no worker")?;
        loads.push(self.one.load.through(router.connect().await?));
        let (pids, before) = (self.cluster.pids(), self.one.load.published());
        let double = round::cost(&pids, &self.one.sink, &loads, &ONE).await?;
        let events = (self.one.load.published() - before) as f64;
        let routed = admin::counter(router.admin(), ROUTED).await? as f64;
        let sent = admin::counter(worker.admin(), "fanfare_delivery_attempts_total").await? as f64;
        let all = format!("0-{}", cores.count - 1);
        for pid in self.everything_else().into_iter().chain(pids) {
            process::bind(pid, &all)?;
        }
        Ok(Row::new("2 routers and 2 workers against 1 and 1", "reported")
            .said(format!("{:.2} x the rate", double.rate / single.rate), None)
            .note(format!(
                "one endpoint per event, a stream to each router: {:.0}/s at {:.1} us against {:.0}/s at {:.1} us; the new ones routed {:.0} % and delivered {:.0} %; {}",
                double.rate,
                double.cpu,
                single.rate,
                single.cpu,
                100.0 * routed / events,
                100.0 * sent / events,
                cores.said(),
            )))
    }

    /// What is no router and no worker, this process included.
    fn everything_else(&self) -> Vec<u32> {
        let sinks = [&self.sink, &self.one.sink, &self.fan_out.sink];
        let services = self.cluster.pids_of_services();
        let sinks = sinks.into_iter().filter_map(crate::sink::Sink::pid);
        services.chain(sinks).chain([std::process::id()]).collect()
    }

    /// The first router and the first worker to the first core, and so on.
    fn bind_pairs(&self) -> Result<()> {
        let pairs = self.cluster.routers.iter().zip(&self.cluster.workers);
        for (core, (router, worker)) in pairs.enumerate() {
            process::bind(router.pid(), &core.to_string())?;
            process::bind(worker.pid(), &core.to_string())?;
        }
        Ok(())
    }

    /// Starts it if there is none, and waits until it has its part.
    async fn second_pair(&mut self) -> Result<()> {
        if self.cluster.routers.len() < 2 {
            self.cluster.add_router().await?;
            self.cluster.add_worker().await?;
            tokio::time::sleep(SHARING).await;
        }
        Ok(())
    }

    /// The front door in each way to publish, in turn with what it is compared to.
    pub(super) async fn front(&mut self, rounds: usize, report: &mut Report) -> Result<()> {
        self.second_pair().await?;
        let mut costs = FRONTS.map(|_| Vec::new());
        let (mut produced, mut answered) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            eprintln!("front door, round {round} of {rounds}");
            produced.push(self.bare_producer().await?.cpu);
            for (front, costs) in FRONTS.iter().zip(&mut costs) {
                let cost = self.front_door(front.way).await?;
                cost.tell(front.name);
                costs.push(cost);
            }
            answered.push(self.echo.cpu_per_answer(UNARY, BURST).await?);
        }
        for (front, costs) in FRONTS.iter().zip(&costs) {
            let unary = front.way == UNARY;
            let bare = if unary { &answered } else { &produced };
            let what = format!(
                "the same without routing, the front door alone: {}",
                front.name
            );
            let row = round::against(
                &what,
                costs,
                "publishes",
                bare,
                front.reference,
                front.reach,
            );
            report.add(row.also("what another router uses for routing an equal part is taken off"));
        }
        Ok(())
    }

    /// What a router that takes all publishes uses for each more than one that takes none.
    async fn front_door(&self, way: Way) -> Result<Cost> {
        let [taking, other] = &self.cluster.routers[..] else {
            anyhow::bail!("two routers are to be compared");
        };
        let routed = async || -> Result<[f64; 2]> {
            let counts = [taking, other].map(|router| admin::counter(router.admin(), ROUTED));
            let [taking, other] = futures::future::try_join_all(counts).await?[..] else {
                anyhow::bail!("two counts");
            };
            Ok([taking as f64, other as f64])
        };
        let (all, before) = (self.cluster.routed().await?, self.nobody.published());
        let (parts, cpu) = (routed().await?, [taking.cpu()?, other.cpu()?]);
        let started = Instant::now();
        self.nobody.run(way, BURST, None).await?;
        let took = started.elapsed();
        let events = self.nobody.published() - before;
        self.cluster.routes(all + events).await?;
        tokio::time::sleep(AFTERMATH).await;
        let used = [taking.cpu()? - cpu[0], other.cpu()? - cpu[1]];
        let now = routed().await?;
        let [mine, theirs] = [now[0] - parts[0], now[1] - parts[1]];
        let events = events as f64;
        ensure!(
            theirs >= PART_MIN * events,
            "the second router routed only {theirs} of {events} events"
        );
        Ok(Cost {
            cpu: (used[0] as f64 - used[1] as f64 * mine / theirs) / events,
            rate: events / took.as_secs_f64(),
        })
    }

    /// The bare producer, as in every round.
    pub(super) async fn bare_producer(&self) -> Result<producer::Produced> {
        let brokers = self.cluster.brokers();
        let records = super::PUBLISHES;
        producer::measure(&brokers, BARE_TOPIC, PARTITIONS, records, WINDOW).await
    }
}
