//! Kafka 4.1 brokers (KRaft, each broker and controller at once).

mod secured;

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::{self, Cluster};
use crate::fetch::Jars;
use crate::home::Home;
use crate::node::Node;
use crate::probe::Protocol;
use crate::process::{Launch, Lifetime};
use crate::running::{self, Shared};

pub use self::secured::{GUEST, PASSWORD, Secured, USER, start_secured};

/// The variable that names brokers to test against: `host:port`, separated by commas.
pub const VARIABLE: &str = "FANFARE_TEST_KAFKA";

const JARS: Jars = Jars {
    name: "kafka-4.1.1-tools",
    pom: include_str!("../jars/kafka/pom.xml"),
    variable: VARIABLE,
};
/// Any 22 characters of base64url; all nodes of a cluster have the same.
const CLUSTER_ID: &str = "ZmFuZmFyZS10ZXN0cy1rYQ";
/// Three seconds on an idle machine; a busy one takes its time.
const START_MAX: Duration = Duration::from_mins(2);

/// Fetches what they are started from, once.
pub fn fetch() -> Result<()> {
    JARS.class_path().map(drop)
}

/// Starts `count` brokers (1 or 3) that end with this process, and waits until they answer.
///
/// With three, internal topics have three replicas of which two must be in sync.
pub fn start(count: usize) -> Result<Cluster> {
    start_for(count, Lifetime::WithStarter)
}

/// Starts a broker that is fenced for seconds after it was stopped for 6 s and continued: its controller
/// has not heard of it for too long, and hears of it seldom. While it is fenced it answers, and says that
/// there are no brokers and no leaders.
pub fn start_seldom_heard() -> Result<Cluster> {
    let doors = Doors {
        properties: "broker.session.timeout.ms=6000\nbroker.heartbeat.interval.ms=5000\n".into(),
        ..Doors::default()
    };
    let class_path = JARS.class_path()?;
    cluster::start("kafka", |home| {
        prepare(1, Lifetime::WithStarter, &class_path, home, &doors)
    })
}

/// `host:port` of brokers that this process shares with others; started once if there are none.
pub fn shared() -> Result<Vec<String>> {
    static SHARED: Shared = Shared::new();
    SHARED.addresses(VARIABLE, Protocol::Kafka, || start(1))
}

/// Runs one of Kafka's own tools to its end, as its script would: `configs`, `topics`,
/// `consumer-groups`, `leader-election`. Its output.
pub fn tool(name: &str, arguments: &[&str]) -> Result<String> {
    let class = match name {
        "configs" => "kafka.admin.ConfigCommand",
        "topics" => "org.apache.kafka.tools.TopicCommand",
        "consumer-groups" => "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        "leader-election" => "org.apache.kafka.tools.LeaderElectionCommand",
        other => anyhow::bail!("no such tool is known here: {other}"),
    };
    let out = Command::new("java")
        .args(["-XX:TieredStopAtLevel=1", "-Xmx128m", "-cp"])
        .args([&JARS.class_path()?, class])
        .args(arguments)
        .output()
        .context("cannot run java")?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(
        out.status.success(),
        "{name} {arguments:?} failed: {said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(said)
}

pub(crate) fn start_for(count: usize, lifetime: Lifetime) -> Result<Cluster> {
    ensure!(
        running::COUNTS.contains(&count),
        "one or three brokers, not {count}"
    );
    let class_path = JARS.class_path()?;
    cluster::start("kafka", |home| {
        prepare(count, lifetime, &class_path, home, &Doors::default())
    })
}

/// Its name, security protocol and port.
type Listener = (&'static str, &'static str, u16);

/// What a broker has beside its plain listener.
#[derive(Default)]
struct Doors {
    listeners: Vec<Listener>,
    /// Lines of its properties.
    properties: String,
    /// Arguments of `format`: who may log in.
    users: Vec<String>,
}

fn prepare(
    count: usize,
    lifetime: Lifetime,
    class_path: &str,
    home: Home,
    doors: &Doors,
) -> Result<Cluster> {
    let ports = free_ports(2 * count)?;
    let mut nodes = Vec::with_capacity(count);
    for index in 0..count {
        let directory = home.path().join(format!("{}", index + 1));
        fs::create_dir(&directory)?;
        let properties = directory.join("server.properties");
        let lines = self::properties(index, &ports, &directory, doors);
        fs::write(&properties, lines)?;
        nodes.push(node(
            index,
            ports[2 * index],
            lifetime,
            class_path,
            directory,
        ));
    }
    format_directories(&nodes, class_path, &doors.users)?;
    Ok(Cluster {
        nodes,
        home,
        first_leads: false,
    })
}

/// Ports that were free a moment ago, all different.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners = (0..count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<std::io::Result<Vec<_>>>()?;
    let ports = listeners.iter().map(|l| Ok(l.local_addr()?.port()));
    ports.collect()
}

fn node(index: usize, port: u16, lifetime: Lifetime, class_path: &str, directory: PathBuf) -> Node {
    let arguments = [
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-cp",
        class_path,
        "kafka.Kafka",
    ];
    let launch = Launch {
        arguments: arguments
            .iter()
            .map(OsString::from)
            .chain([directory.join("server.properties").into()])
            .collect(),
        log: directory.join("log"),
        directory,
        lifetime,
    };
    Node::new(
        format!("Kafka broker {}", index + 1),
        launch,
        format!("127.0.0.1:{port}"),
        Protocol::Kafka,
        // Its port opens before it can serve requests.
        "Kafka Server started",
        START_MAX,
    )
}

fn properties(index: usize, ports: &[u16], directory: &Path, doors: &Doors) -> String {
    let count = ports.len() / 2;
    let id = index + 1;
    let (port, controller) = (ports[2 * index], ports[2 * index + 1]);
    let voters: Vec<_> = (0..count)
        .map(|node| format!("{}@127.0.0.1:{}", node + 1, ports[2 * node + 1]))
        .collect();
    let voters = voters.join(",");
    let logs = directory.join("data");
    let logs = logs.display();
    let in_sync = count.div_ceil(2);
    let own = &doors.listeners;
    let listener = |(name, _, port): &Listener| format!(",{name}://127.0.0.1:{port}");
    let listeners: String = own.iter().map(listener).collect();
    let protocol = |(name, protocol, _): &Listener| format!(",{name}:{protocol}");
    let protocols: String = own.iter().map(protocol).collect();
    let more = &doors.properties;
    // Session and heartbeat minimums: tests of frozen consumers wait for a session to run out.
    // Few internal partitions: fifty would be made on the first join.
    format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{listeners}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=PLAINTEXT
log.dirs={logs}
auto.create.topics.enable=false
offsets.topic.replication.factor={count}
offsets.topic.num.partitions=8
transaction.state.log.replication.factor={count}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={count}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
group.consumer.min.session.timeout.ms=500
group.consumer.session.timeout.ms=45000
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=4
{more}"
    )
}

/// All at once: each is a second of a Java machine's start.
fn format_directories(nodes: &[Node], class_path: &str, users: &[String]) -> Result<()> {
    let children = nodes.iter().map(|node| {
        let directory = &node.launch.directory;
        let child = Command::new("java")
            .args(["-XX:TieredStopAtLevel=1", "-cp", class_path])
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
            .arg(directory.join("server.properties"))
            .args(users)
            .current_dir(directory)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn();
        child.context("cannot run java")
    });
    for child in children.collect::<Result<Vec<_>>>()? {
        let out = child.wait_with_output()?;
        ensure!(
            out.status.success(),
            "Kafka's storage could not be formatted: {}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
    }
    Ok(())
}
