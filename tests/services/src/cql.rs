//! Cassandra 5 nodes.

mod secured;
mod statement;

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::cluster::{self, Cluster};
use crate::fetch::Jars;
use crate::home::Home;
use crate::node::Node;
use crate::probe::Protocol;
use crate::process::{Launch, Lifetime};
use crate::running::{self, Shared};

pub use self::secured::{PASSWORD, Secured, USER, start_secured};
pub use self::statement::run;

/// The variable that names nodes to test against: `host:port`, separated by commas.
pub const VARIABLE: &str = "FANFARE_TEST_CQL";

const JARS: Jars = Jars {
    name: "cassandra-5.0.6",
    pom: include_str!("../jars/cassandra/pom.xml"),
    variable: VARIABLE,
};
/// Eight seconds on an idle machine, fifteen for three; a busy one takes its time.
const START_MAX: Duration = Duration::from_mins(4);
const PORT_TRIES: u32 = 100;

/// Without any one of these it dies at start with a reflection error.
const EXPORTS: &[&str] = &[
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/java.lang.ref",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
];
const OPENS: &[&str] = &[
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/sun.nio.ch",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.util.jar",
    "jdk.management/com.sun.management.internal",
];
const MACHINE: &[&str] = &[
    "-Xms512m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djdk.attach.allowAttachSelf=true",
    "-Dcassandra-foreground=yes",
    "-Dcassandra.skip_wait_for_gossip_to_settle=0",
    // Also how long a node looks for the seed when it starts: a busy machine takes its time.
    "-Dcassandra.ring_delay_ms=1500",
    "-Dcassandra.superuser_setup_delay_ms=0",
    "-Dcassandra.consistent.rangemovement=false",
];

/// Fetches what they are started from, once.
pub fn fetch() -> Result<()> {
    JARS.class_path().map(drop)
}

/// Starts `count` nodes (1 or 3) that end with this process, and waits until they answer.
///
/// Three listen on the same ports of 127.0.0.1, .2 and .3. A write is acknowledged after an fsync.
pub fn start(count: usize) -> Result<Cluster> {
    start_for(count, Lifetime::WithStarter)
}

/// `host:port` of nodes that this process shares with others; one is started once if there are
/// none.
pub fn shared() -> Result<Vec<String>> {
    static SHARED: Shared = Shared::new();
    SHARED.addresses(VARIABLE, Protocol::Cql, || start(1))
}

pub(crate) fn start_for(count: usize, lifetime: Lifetime) -> Result<Cluster> {
    ensure!(
        running::COUNTS.contains(&count),
        "one or three nodes, not {count}"
    );
    let class_path = JARS.class_path()?;
    cluster::start("cql", |home| {
        prepare(count, lifetime, &class_path, home, "")
    })
}

/// `more`: lines of `cassandra.yaml` beside those that every node has.
fn prepare(
    count: usize,
    lifetime: Lifetime,
    class_path: &str,
    home: Home,
    more: &str,
) -> Result<Cluster> {
    let storage_port = free_port(count)?;
    let native_port = free_port(count)?;
    let mut nodes = Vec::with_capacity(count);
    for index in 0..count {
        let directory = home.path().join(format!("{}", index + 1));
        let configuration = directory.join("conf");
        fs::create_dir_all(&configuration)?;
        let yaml = yaml(index, count, storage_port, native_port, &directory);
        fs::write(configuration.join("cassandra.yaml"), yaml + more)?;
        fs::write(
            configuration.join("logback.xml"),
            include_str!("../jars/cassandra/logback.xml"),
        )?;
        nodes.push(node(index, native_port, lifetime, class_path, directory));
    }
    Ok(Cluster {
        nodes,
        home,
        // A node that finds no seed to gossip with when it starts gives up.
        first_leads: true,
    })
}

/// A port that was free a moment ago on every node's address.
fn free_port(count: usize) -> Result<u16> {
    for _ in 0..PORT_TRIES {
        let first = TcpListener::bind((host(0), 0))?;
        let port = first.local_addr()?.port();
        if (1..count).all(|index| TcpListener::bind((host(index), port)).is_ok()) {
            return Ok(port);
        }
    }
    bail!("no port is free on all of 127.0.0.1 to .{count}")
}

fn host(index: usize) -> String {
    format!("127.0.0.{}", index + 1)
}

fn node(index: usize, port: u16, lifetime: Lifetime, class_path: &str, directory: PathBuf) -> Node {
    let launch = Launch {
        arguments: arguments(class_path, &directory),
        log: directory.join("log"),
        directory,
        lifetime,
    };
    Node::new(
        format!("Cassandra node {}", index + 1),
        launch,
        format!("{}:{port}", host(index)),
        Protocol::Cql,
        "",
        START_MAX,
    )
}

fn arguments(class_path: &str, directory: &Path) -> Vec<OsString> {
    let configuration = directory.join("conf");
    let everyone = |package: &&str| format!("{package}=ALL-UNNAMED");
    let pairs = |flag: &'static str, packages: &[&str]| -> Vec<String> {
        let each = packages.iter().map(everyone);
        each.flat_map(|package| [flag.to_owned(), package])
            .collect()
    };
    let mut arguments: Vec<String> = MACHINE.iter().map(ToString::to_string).collect();
    arguments.extend(pairs("--add-exports", EXPORTS));
    arguments.extend(pairs("--add-opens", OPENS));
    arguments.extend([
        format!(
            "-Dcassandra.config=file://{}/cassandra.yaml",
            configuration.display()
        ),
        format!("-Dcassandra.storagedir={}", directory.display()),
        "-cp".to_owned(),
        format!("{}:{class_path}", configuration.display()),
        "org.apache.cassandra.service.CassandraDaemon".to_owned(),
    ]);
    arguments.into_iter().map(OsString::from).collect()
}

fn yaml(index: usize, count: usize, storage_port: u16, native_port: u16, home: &Path) -> String {
    let own = host(index);
    let seed = host(0);
    let home = home.display();
    let token = token(index, count);
    format!(
        "cluster_name: fanfare
num_tokens: 1
initial_token: {token}
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
data_file_directories: [\"{home}/data\"]
commitlog_directory: \"{home}/commitlog\"
saved_caches_directory: \"{home}/caches\"
hints_directory: \"{home}/hints\"
cdc_raw_directory: \"{home}/cdc\"
commitlog_sync: group
commitlog_sync_group_window: 2ms
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{ seeds: \"{seed}:{storage_port}\" }}]
listen_address: {own}
rpc_address: {own}
storage_port: {storage_port}
native_transport_port: {native_port}
endpoint_snitch: SimpleSnitch
auto_snapshot: false
disk_access_mode: mmap_index_only
"
    )
}

/// Node `index`'s token: the ring in equal parts.
fn token(index: usize, count: usize) -> i128 {
    let part = (1i128 << 64) / count as i128;
    i128::from(i64::MIN) + part * index as i128
}

#[cfg(test)]
mod tests {
    use super::token;

    #[test]
    fn tokens_part_the_ring_evenly() {
        let tokens: Vec<_> = (0..3).map(|index| token(index, 3)).collect();
        assert_eq!(
            tokens,
            [
                -9_223_372_036_854_775_808,
                -3_074_457_345_618_258_603,
                3_074_457_345_618_258_602
            ]
        );
    }
}
