//! The tool itself: what it starts answers, can be killed, stopped and restarted, and is gone
//! afterwards.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fanfare_test_services::{Cluster, Protocol, cql, kafka};

const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn a_broker_is_killed_stopped_and_restarted() {
    let cluster = kafka::start(1).expect("a broker");
    lives_through_everything(cluster, Protocol::Kafka);
}

#[test]
fn a_node_is_killed_stopped_and_restarted() {
    let cluster = cql::start(1).expect("a node");
    lives_through_everything(cluster, Protocol::Cql);
}

#[test]
fn three_brokers_are_one_cluster_that_survives_one() {
    let mut cluster = kafka::start(3).expect("brokers");
    let addresses = cluster.addresses();
    cluster.node(2).kill().expect("killed");
    for address in &addresses[..2] {
        Protocol::Kafka.ask(address).expect("the others answer");
    }
    cluster.node(2).restart().expect("it comes back");
}

#[test]
fn what_a_killed_starter_started_ends_with_it() {
    let mut starter = Command::new(env!("CARGO_BIN_EXE_fanfare-services"))
        .args(["run", "--brokers", "1", "--nodes", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a starter");
    let mut line = String::new();
    BufReader::new(starter.stdout.take().expect("its output"))
        .read_line(&mut line)
        .expect("it says whom it started");
    let (address, pid) = line.trim().split_once(' ').expect("address and process");
    Protocol::Kafka.ask(address).expect("it answers");

    starter.kill().expect("killed");
    starter.wait().expect("ended");
    eventually_gone(pid.parse().expect("a process id"));
}

#[test]
fn one_shared_broker_outlives_the_thread_that_asked_first() {
    let first = thread::spawn(kafka::shared).join().expect("a thread");
    let second = kafka::shared().expect("a broker");
    assert_eq!(first.expect("a broker"), second);
    Protocol::Kafka.ask(&second[0]).expect("it answers");
}

fn lives_through_everything(mut cluster: Cluster, protocol: Protocol) {
    let address = cluster.addresses().remove(0);
    let log = cluster.node(0).log();
    protocol.ask(&address).expect("it answers");

    cluster.node(0).stop().expect("stopped");
    protocol.ask(&address).expect_err("a stopped one is silent");
    cluster.node(0).cont().expect("continued");
    cluster.node(0).wait_ready().expect("it answers again");

    cluster.node(0).kill().expect("killed");
    protocol.ask(&address).expect_err("a dead one is silent");
    cluster.node(0).restart().expect("restarted");
    protocol.ask(&address).expect("it answers where it did");

    let pid = cluster.node(0).pid().expect("it runs");
    cluster.node(0).shutdown().expect("a polite end");
    eventually_gone(pid);
    cannot_start(&mut cluster);
    drop(cluster);
    assert!(!log.exists(), "{} is left", log.display());
}

fn cannot_start(cluster: &mut Cluster) {
    let log = cluster.node(0).log();
    for file in ["server.properties", "conf/cassandra.yaml"] {
        let file = log.with_file_name(file);
        if file.exists() {
            fs::write(file, "nonsense=true\n").expect("written");
        }
    }
    let error = cluster.node(0).restart().expect_err("it cannot start");
    let error = error.to_string();
    assert!(error.contains("its last lines:"), "{error}");
    assert!(error.contains("xception"), "{error}");
}

fn eventually_gone(pid: u32) {
    let process = format!("/proc/{pid}/cmdline");
    let deadline = Instant::now() + PATIENCE;
    // A process that ended and was not yet waited for has no words.
    while fs::read(&process).is_ok_and(|words| !words.is_empty()) {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        thread::sleep(Duration::from_millis(10));
    }
}
