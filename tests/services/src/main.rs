//! `fanfare-services`: Kafka and CQL for people and for many test runs.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use fanfare_test_services::{Cluster, cql, kafka, running};

/// Real Kafka brokers and Cassandra nodes on this machine, from Java and Maven alone.
#[derive(Parser)]
#[command(name = "fanfare-services")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start what does not run yet; it stays until `down`.
    Up(Size),
    /// Start all anew, for as long as this command runs.
    Run(Size),
    /// End it and remove its files.
    Down,
    /// Say where it is and whether it answers.
    Status,
    /// Fetch the jars and start nothing.
    Fetch,
}

#[derive(Args)]
struct Size {
    /// Kafka brokers: 0, 1 or 3.
    #[arg(long, default_value_t = 1)]
    brokers: usize,
    /// Cassandra nodes, 850 MB each: 0, 1 or 3.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
}

fn main() -> ExitCode {
    match obey(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanfare-services: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn obey(command: Command) -> Result<()> {
    match command {
        Command::Up(size) => {
            running::up(size.brokers, size.nodes)?;
            print_status()
        }
        Command::Run(size) => run(&size),
        Command::Down => running::down(),
        Command::Status => print_status(),
        Command::Fetch => kafka::fetch().and_then(|()| cql::fetch()),
    }
}

/// Prints the address and process of each node, and stays until it is killed or its input ends.
fn run(size: &Size) -> Result<()> {
    let start = |count, start: fn(usize) -> Result<Cluster>| (count > 0).then(|| start(count));
    let brokers = start(size.brokers, kafka::start).transpose()?;
    let nodes = start(size.nodes, cql::start).transpose()?;
    for cluster in [&brokers, &nodes].into_iter().flatten() {
        for node in cluster.nodes() {
            println!("{} {}", node.address(), node.pid().unwrap_or_default());
        }
    }
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn print_status() -> Result<()> {
    let all = running::status()?;
    for one in &all {
        let answer = match &one.asked {
            Ok(()) => "answers".to_owned(),
            Err(error) => format!("does not answer: {error:#}"),
        };
        println!("{:<6} {:<21} {answer}", one.protocol.name(), one.address);
    }
    ensure!(!all.is_empty(), "nothing runs; make services starts it");
    ensure!(
        all.iter().all(|one| one.asked.is_ok()),
        "not everything answers; make services starts what does not"
    );
    Ok(())
}
