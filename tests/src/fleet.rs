//! A distributed set-up: Kafka, a CQL store, and any number of routers and workers as processes.
//!
//! Each fleet has topics and a keyspace of its own, so that many can use the same services, one
//! after the other or side by side.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fanfare_test_services::{Cluster, cql, kafka};
use tempfile::TempDir;
use tokio::process::Command;

use crate::api::Api;
use crate::binary;
use crate::server::{Exit, Options, Program, Server};
use crate::world::{Said, said};

/// The variable that names a crash point.
const CRASH_AT: &str = "FANFARE_CRASH_AT";

/// The services under a fleet.
pub struct Services {
    /// `host:port` of each broker.
    pub brokers: Vec<String>,
    /// `host:port` of each node.
    pub nodes: Vec<String>,
    /// The brokers, if they are this test's own to torment.
    pub kafka: Option<Cluster>,
    /// The nodes, likewise.
    pub cql: Option<Cluster>,
}

/// Routers and workers over services. Dropping it kills them; a test that failed shows what they
/// wrote.
pub struct Fleet {
    /// What it runs on.
    pub services: Services,
    dir: TempDir,
    /// What its topics and its keyspace are called.
    name: String,
    environment: HashMap<String, String>,
    routers: Vec<Seat>,
    workers: Vec<Seat>,
}

/// A process that is started, ended and started again.
struct Seat {
    options: Options,
    server: Option<Server>,
    past: String,
}

impl Services {
    /// One broker and one node, which other tests use too.
    pub async fn shared() -> Self {
        blocking(|| Self {
            brokers: kafka::shared().expect("a broker"),
            nodes: cql::shared().expect("a node"),
            kafka: None,
            cql: None,
        })
        .await
    }

    /// So many brokers (0, 1 or 3) and nodes (likewise) of the test's own; of what the count is 0
    /// the shared ones are used.
    pub async fn own(brokers: usize, nodes: usize) -> Self {
        blocking(move || {
            let kafka = (brokers > 0).then(|| kafka::start(brokers).expect("brokers"));
            let cql = (nodes > 0).then(|| cql::start(nodes).expect("nodes"));
            let addresses = |own: &Option<Cluster>, shared: fn() -> anyhow::Result<Vec<String>>| {
                own.as_ref()
                    .map_or_else(|| shared().expect("shared"), Cluster::addresses)
            };
            Self {
                brokers: addresses(&kafka, kafka::shared),
                nodes: addresses(&cql, cql::shared),
                kafka,
                cql,
            }
        })
        .await
    }
}

impl Fleet {
    /// Migrates, and starts so many routers and workers; all must become ready.
    pub async fn start(services: Services, routers: usize, workers: usize) -> Self {
        let mut fleet = Self::prepare(services);
        fleet.migrate().await.ok();
        for _ in 0..routers {
            fleet.add(Program::Router).await;
        }
        for _ in 0..workers {
            fleet.add(Program::Worker).await;
        }
        fleet
    }

    /// Everything but the processes and the migration.
    pub fn prepare(services: Services) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let fleet = Self {
            services,
            dir,
            name: format!("t{:08x}", rand::random::<u32>()),
            environment: HashMap::new(),
            routers: Vec::new(),
            workers: Vec::new(),
        };
        fleet.configure();
        fleet
    }

    /// What its topics and its keyspace are called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes the configuration that all processes share, by what the services are now.
    pub fn configure(&self) {
        let name = &self.name;
        let copies = |addresses: &[String]| addresses.len().min(3);
        let text = format!(
            "[storage]
mode = \"distributed\"

[kafka]
bootstrap_servers = {:?}
topic_prefix = \"{name}\"
event_partitions = 4
delivery_partitions = 4
replication_factor = {}
min_insync_replicas = {}
# Short: the dead are missed sooner.
session_timeout_ms = 4000
heartbeat_interval_ms = 500

[cql]
contact_points = {:?}
keyspace = \"{name}\"
replication = {}

[egress]
dev = true
",
            self.services.brokers,
            copies(&self.services.brokers),
            copies(&self.services.brokers).div_ceil(2),
            self.services.nodes,
            copies(&self.services.nodes),
        );
        std::fs::write(self.config(), text).expect("written");
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("fanfare.toml")
    }

    /// A directory for the test's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// An environment variable of every process that is started from now on.
    pub fn env(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
        for seat in self.routers.iter_mut().chain(&mut self.workers) {
            seat.options
                .environment
                .insert(name.to_owned(), value.to_owned());
        }
    }

    /// Runs `fanfare migrate`.
    pub async fn migrate(&self) -> Said {
        self.fanfare(&["migrate", "--config", &self.config().display().to_string()])
            .await
    }

    /// Runs `fanfare …` against the first router, if there is one.
    pub async fn fanfare(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(binary::fanfare());
        command
            .args(arguments)
            .env_remove("FANFARE_TENANT")
            .env_remove("FANFARE_API_KEY");
        if let Some(url) = self.urls().first() {
            command.env("FANFARE_SERVER", url);
        }
        said(&mut command).await
    }

    /// How a further process of `program` would be started.
    pub fn options(&self, program: Program) -> Options {
        let number = match program {
            Program::Worker => self.workers.len(),
            Program::Router | Program::Serve => self.routers.len(),
        };
        let dir = self.dir.path().join(format!("{program:?}-{number}"));
        std::fs::create_dir_all(&dir).expect("a directory");
        let mut options = Options::service(program, &dir, &self.config());
        options.environment.clone_from(&self.environment);
        if program == Program::Serve {
            // On a cluster it has no directory to write them to unasked.
            let file = dir.join("addresses.json").display().to_string();
            options = options.with(&["--addresses-file", &file]);
        }
        options
    }

    /// Starts one more; it must become ready. Its number.
    pub async fn add(&mut self, program: Program) -> usize {
        let options = self.options(program);
        let seats = self.seats(program);
        seats.push(Seat {
            options,
            server: None,
            past: String::new(),
        });
        let number = seats.len() - 1;
        self.restart(program, number).await;
        number
    }

    /// Starts one again that was killed or stopped; it must become ready.
    pub async fn restart(&mut self, program: Program, number: usize) {
        let seat = &mut self.seats(program)[number];
        assert!(seat.server.is_none(), "it still runs");
        match Server::start(&seat.options).await {
            Ok(server) => seat.server = Some(server),
            Err(exit) => panic!("{program:?} {number} did not start: {exit:?}"),
        }
    }

    /// Has a process die at the `count`th passing of a crash point when it is next started; never,
    /// if `count` is 0.
    pub fn plan(&mut self, program: Program, number: usize, point: &str, count: u32) {
        let environment = &mut self.seats(program)[number].options.environment;
        if count == 0 {
            environment.remove(CRASH_AT);
        } else {
            environment.insert(CRASH_AT.to_owned(), format!("{point}:{count}"));
        }
    }

    /// Waits until one dies by itself; starts it if it does not run, and it may die before it is
    /// ready.
    pub async fn dies(&mut self, program: Program, number: usize) -> Exit {
        let seat = &mut self.seats(program)[number];
        let server = match seat.server.take() {
            Some(server) => Ok(server),
            None => Server::start(&seat.options).await,
        };
        let exit = match server {
            Ok(server) => server.exits().await,
            Err(exit) => exit,
        };
        seat.past.push_str(&exit.log);
        exit
    }

    /// SIGKILL.
    pub async fn kill(&mut self, program: Program, number: usize) {
        let seat = &mut self.seats(program)[number];
        let server = seat.server.take().expect("it runs");
        seat.past.push_str(&server.log().text());
        server.kill().await;
    }

    /// SIGTERM; how it ended.
    pub async fn stop(&mut self, program: Program, number: usize) -> Exit {
        let seat = &mut self.seats(program)[number];
        let exit = seat.server.take().expect("it runs").stop().await;
        seat.past.push_str(&exit.log);
        exit
    }

    /// A running process.
    pub fn server(&self, program: Program, number: usize) -> &Server {
        let seats = match program {
            Program::Worker => &self.workers,
            Program::Router | Program::Serve => &self.routers,
        };
        seats[number].server.as_ref().expect("it runs")
    }

    /// `http://…` of each running router.
    pub fn urls(&self) -> Vec<String> {
        let running = self.routers.iter().filter_map(|seat| seat.server.as_ref());
        running.map(Server::url).collect()
    }

    /// The gRPC surface of the first running router.
    pub fn api(&self) -> Api {
        Api::new(self.urls().first().expect("a router runs"))
    }

    /// Stops everything cleanly, workers last; what each exit was.
    pub async fn stop_all(&mut self) -> Vec<Exit> {
        let mut exits = Vec::new();
        for program in [Program::Router, Program::Worker] {
            for number in 0..self.seats(program).len() {
                if self.seats(program)[number].server.is_some() {
                    exits.push(self.stop(program, number).await);
                }
            }
        }
        exits
    }

    fn seats(&mut self, program: Program) -> &mut Vec<Seat> {
        match program {
            Program::Worker => &mut self.workers,
            Program::Router | Program::Serve => &mut self.routers,
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.last_words();
        // A shared node keeps a little memory for every table that there is. It may be away, or a test's own.
        self.routers.clear();
        self.workers.clear();
        if let (None, Some(node)) = (&self.services.cql, self.services.nodes.first()) {
            let statement = format!("DROP KEYSPACE IF EXISTS {}", self.name);
            if let Err(error) = cql::run(node, &statement) {
                eprintln!("{statement}: {error:#}");
            }
        }
    }
}

impl Fleet {
    fn last_words(&self) {
        if std::thread::panicking() {
            for seat in self.routers.iter().chain(&self.workers) {
                let now = seat.server.as_ref().map(|s| s.log().text());
                eprintln!(
                    "--- {} wrote ---\n{}{}---",
                    seat.options.dir.display(),
                    seat.past,
                    now.unwrap_or_default()
                );
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}
