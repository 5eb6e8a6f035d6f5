//! Measures Fanfare: the real release binary, its real client protocol, a real receiver, and in the
//! same run the references that its figures are ratios to.
//!
//! ```text
//!   this process ──publish──▶ fanfare serve ──POST──▶ sink          each a process of its own;
//!        │                                             ▲            the CPU of one is never
//!        └── starts ──▶ bare loop ─────────POST────────┘            counted for another
//! ```
//!
//! - [`sink`], [`bare`], [`commits`], [`matching`] and [`settling`] are what the children run: the
//!   receiver, the bare POST loop, the engine alone, the index alone, the settler alone.
//! - [`server`] and [`process`] start `fanfare serve` and read its CPU and memory from the kernel.
//! - [`publish`] is the load; [`round`] one interleaved round; [`memory`], [`latency`], [`isolation`]
//!   and [`aging`] what is measured once.
//! - [`distributed`] measures the same on a [`cluster`] of processes over Kafka and a CQL store;
//!   its references are [`producer`] and [`echo`], children too.
//! - [`report`] makes the table and the file of results.
//!
//! A figure that cannot be measured fails the run: nothing is printed by rote.

// Figures for people: two or three digits of them matter.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]

mod admin;
mod aging;
mod bare;
mod child;
mod cluster;
mod commits;
mod distributed;
mod echo;
mod histogram;
mod isolation;
mod latency;
mod machine;
mod matching;
mod memory;
mod process;
mod producer;
mod program;
mod publish;
mod report;
mod round;
mod server;
mod settling;
mod sink;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: fanfare-bench [--rounds N] [--server FILE] [--data-dir DIR] [--results FILE] [--only PART]... [--backlog DELIVERIES] [long | distributed]\n       fanfare-bench drive SCENARIO SECONDS [--server FILE] [distributed]";

/// What to run and where.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Interleaved rounds of the CPU figures.
    pub(crate) rounds: usize,
    /// The `fanfare` binary.
    pub(crate) server: PathBuf,
    /// Where data directories are made.
    pub(crate) data_dir: PathBuf,
    /// Where the table goes; by default a file of the kind.
    pub(crate) results: Option<PathBuf>,
    /// Parts to run; none: all.
    pub(crate) only: Vec<String>,
    /// Deliveries that are caught up on.
    pub(crate) backlog: u64,
    /// Which run.
    pub(crate) kind: Kind,
}

/// What there is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `fanfare serve`.
    Short,
    /// The same for longer.
    Long,
    /// Routers and workers over Kafka and a CQL store.
    Distributed,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(first) = arguments.next() else {
        return bench(&Settings::default()?);
    };
    match first.as_str() {
        "sink" => sink::run(),
        "bare" => bare::run(arguments),
        "commits" => commits::run(arguments),
        "waits" => commits::run_waits(arguments),
        "matching" => matching::run(),
        "settling" => settling::run(),
        "producer" => producer::run(arguments),
        "echo" => echo::run(),
        "drive" => drive(arguments),
        _ => bench(&Settings::parse(std::iter::once(first).chain(arguments))?),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn bench(settings: &Settings) -> Result<()> {
    if cfg!(debug_assertions) {
        bail!("this is a debug build; run `make bench`");
    }
    std::fs::create_dir_all(&settings.data_dir)?;
    let report = match settings.kind {
        Kind::Short => short(settings).await?,
        Kind::Long => aging::run(settings).await?,
        Kind::Distributed => distributed::run(settings).await?,
    };
    report.print();
    report.save(&settings.results())
}

/// Keeps a server busy for a profiler: `drive SCENARIO SECONDS`, scenarios by number from 0.
#[tokio::main(flavor = "current_thread")]
async fn drive(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let scenario: usize = arguments.next().context(USAGE)?.parse()?;
    let seconds: u64 = arguments.next().context(USAGE)?.parse()?;
    let settings = Settings::parse(arguments)?;
    std::fs::create_dir_all(&settings.data_dir)?;
    let length = Duration::from_secs(seconds);
    match settings.kind {
        Kind::Distributed => distributed::drive(&settings, scenario, length).await,
        Kind::Short | Kind::Long => round::drive(&settings, scenario, length).await,
    }
}

async fn short(settings: &Settings) -> Result<report::Report> {
    let mut conditions = machine::describe(settings);
    conditions.push(
        "the cost after 5M deliveries and five minutes at half load take longer: RESULTS-LONG.md (`make bench-long`)"
            .to_owned(),
    );
    let mut report = report::Report::new("bench", report::ONE_PROCESS, conditions);
    if settings.wants("rounds") {
        round::run(settings, &mut report).await?;
    }
    if settings.wants("latency") {
        latency::run(settings, &mut report).await?;
    }
    if settings.wants("isolation") {
        isolation::run(settings, &mut report).await?;
    }
    if settings.wants("memory") {
        memory::run(settings, &mut report).await?;
    }
    if settings.wants("parts") {
        matching::measure(&mut report).await?;
        settling::measure(&mut report).await?;
    }
    Ok(report)
}

impl Settings {
    fn default() -> Result<Self> {
        let this = std::env::current_exe()?;
        let beside = this.parent().context("no directory")?;
        Ok(Self {
            rounds: 3,
            server: beside.join("fanfare"),
            data_dir: beside.join("bench-data"),
            results: None,
            only: Vec::new(),
            backlog: 200_000,
            kind: Kind::Short,
        })
    }

    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut settings = Self::default()?;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().context(USAGE);
            match argument.as_str() {
                "--rounds" => settings.rounds = value()?.parse().context(USAGE)?,
                "--server" => settings.server = value()?.into(),
                "--data-dir" => settings.data_dir = value()?.into(),
                "--results" => settings.results = Some(value()?.into()),
                "--only" => settings.only.push(value()?),
                "--backlog" => settings.backlog = value()?.parse().context(USAGE)?,
                "long" => settings.kind = Kind::Long,
                "distributed" => settings.kind = Kind::Distributed,
                _ => bail!("{USAGE}"),
            }
        }
        Ok(settings)
    }

    fn results(&self) -> PathBuf {
        self.results.clone().unwrap_or_else(|| {
            PathBuf::from(match self.kind {
                Kind::Short => "bench/RESULTS.md",
                Kind::Long => "bench/RESULTS-LONG.md",
                Kind::Distributed => "bench/RESULTS-DISTRIBUTED.md",
            })
        })
    }

    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}
