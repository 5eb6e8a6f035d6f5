//! Fanfare on Kafka and a CQL store: one broker, one node, and routers and delivery workers as
//! processes, with topics and a keyspace that nobody else has.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fanfare_test_services::{Node, cql, kafka};
use tempfile::TempDir;
use tokio::process::Command;

use crate::Settings;
use crate::admin;
use crate::program::Program;

/// How long a program may take until it is ready.
const READY_MAX: Duration = Duration::from_mins(1);
/// How many lines of each log an error shows.
const LAST_LINES: usize = 20;
/// How long routing may stand still.
const STANDSTILL_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A router's counter of events that it has routed.
pub(crate) const ROUTED: &str = "fanfare_router_events_total";
/// Of all loads.
const ENDPOINTS_MAX: u32 = 1000;
/// Partitions of the bare producer's topic: as many as an event topic has by default.
pub(crate) const PARTITIONS: u16 = 16;
/// The bare producer's topic.
pub(crate) const BARE_TOPIC: &str = "bare";

/// The services and what runs on them. Dropping it kills all of it and removes its data.
pub(crate) struct Cluster {
    // Before the services, so that they are gone when those are.
    pub(crate) routers: Vec<Program>,
    pub(crate) workers: Vec<Program>,
    binary: PathBuf,
    dir: TempDir,
    kafka: fanfare_test_services::Cluster,
    cql: fanfare_test_services::Cluster,
    started: usize,
}

impl Cluster {
    /// Brings up the services, migrates, and starts a router and a worker.
    pub(crate) async fn start(settings: &Settings) -> Result<Self> {
        eprintln!("starting Kafka and Cassandra");
        let mut cluster = Self {
            routers: Vec::new(),
            workers: Vec::new(),
            binary: settings.server.clone(),
            dir: TempDir::new_in(&settings.data_dir)?,
            // Nothing else is to be done meanwhile: they may block.
            kafka: kafka::start(1)?,
            cql: cql::start(1)?,
            started: 0,
        };
        cluster.configure()?;
        let migrated = Command::new(&cluster.binary)
            .args(["migrate", "--config"])
            .arg(cluster.config())
            .output()
            .await
            .with_context(|| format!("starting {}", cluster.binary.display()))?;
        ensure!(
            migrated.status.success(),
            "fanfare migrate: {}",
            String::from_utf8_lossy(&migrated.stderr)
        );
        let partitions = PARTITIONS.to_string();
        let create = ["--create", "--topic", BARE_TOPIC];
        let with = ["--partitions", &partitions, "--replication-factor", "1"];
        let brokers = cluster.brokers();
        kafka::tool(
            "topics",
            &[&["--bootstrap-server", &brokers], &create[..], &with].concat(),
        )?;
        cluster.add_router().await?;
        cluster.add_worker().await?;
        Ok(cluster)
    }

    /// Only what must differ from the defaults on one broker and one node.
    fn configure(&self) -> Result<()> {
        let text = format!(
            "[storage]
mode = \"distributed\"
[kafka]
bootstrap_servers = {:?}
replication_factor = 1
min_insync_replicas = 1
[cql]
contact_points = {:?}
replication = 1
[egress]
dev = true
[management]
endpoints_per_tenant_max = {ENDPOINTS_MAX}
",
            self.kafka.addresses(),
            self.cql.addresses(),
        );
        Ok(std::fs::write(self.config(), text)?)
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("fanfare.toml")
    }

    /// `host:port` of the broker.
    pub(crate) fn brokers(&self) -> String {
        self.kafka.addresses().join(",")
    }

    /// Starts a router.
    pub(crate) async fn add_router(&mut self) -> Result<()> {
        let router = self
            .program("fanfare-router", &["--listen", "127.0.0.1:0"])
            .await?;
        self.routers.push(router);
        Ok(())
    }

    /// Starts a worker.
    pub(crate) async fn add_worker(&mut self) -> Result<()> {
        let worker = self.program("fanfare-delivery-worker", &[]).await?;
        self.workers.push(worker);
        Ok(())
    }

    async fn program(&mut self, name: &str, arguments: &[&str]) -> Result<Program> {
        self.started += 1;
        let called = self.dir.path().join(format!("{name}-{}", self.started));
        let file = called.with_extension("json");
        let mut command = Command::new(self.binary.with_file_name(name));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .arg("--addresses-file")
            .arg(&file);
        let log = called.with_extension("log");
        let started = Program::start(command, &file, log).await;
        let program = started.with_context(|| self.last_words())?;
        self.ready(&program).await?;
        Ok(program)
    }

    /// Waits for `/readyz`: it listens before it holds anything.
    async fn ready(&self, program: &Program) -> Result<()> {
        let started = Instant::now();
        while !admin::is_ready(program.admin()).await? {
            ensure!(
                started.elapsed() < READY_MAX,
                "it does not become ready: {}",
                self.last_words()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// What all that ever ran said last, for whoever has to find out why a run failed.
    pub(crate) fn last_words(&self) -> String {
        let Ok(entries) = std::fs::read_dir(self.dir.path()) else {
            return String::new();
        };
        let files = entries.flatten().map(|entry| entry.path());
        let logs = files.filter(|file| file.extension().is_some_and(|e| e == "log"));
        let mut said = String::new();
        for log in logs {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let start = text.lines().count().saturating_sub(LAST_LINES);
            let _ = writeln!(said, "--- {}", log.display());
            for line in text.lines().skip(start) {
                let _ = writeln!(said, "{line}");
            }
        }
        said
    }

    /// Process ids of all routers and workers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let programs = self.routers.iter().chain(&self.workers);
        programs.map(Program::pid).collect()
    }

    /// Process ids of the broker and the node.
    pub(crate) fn pids_of_services(&self) -> impl Iterator<Item = u32> {
        let nodes = self.kafka.nodes().iter().chain(self.cql.nodes());
        nodes.filter_map(Node::pid)
    }

    /// Events that the running routers have routed.
    pub(crate) async fn routed(&self) -> Result<u64> {
        let mut events = 0;
        for router in &self.routers {
            events += admin::counter(router.admin(), ROUTED).await?;
        }
        Ok(events)
    }

    /// Waits until they have routed `count`; fails when they stand still.
    pub(crate) async fn routes(&self, count: u64) -> Result<()> {
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let now = self.routed().await?;
            if now >= count {
                return Ok(());
            }
            if now > last {
                (last, moved) = (now, Instant::now());
            }
            ensure!(
                moved.elapsed() < STANDSTILL_MAX,
                "routing stands still at {now} of {count}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Ends routers and workers politely.
    pub(crate) async fn stop(self) -> Result<()> {
        for program in self.routers.into_iter().chain(self.workers) {
            program.stop().await?;
        }
        Ok(())
    }
}
