//! Services that many processes share: started by `fanfare-services up`, found through a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::home;
use crate::node::Node;
use crate::probe::Protocol;
use crate::process::Lifetime;
use crate::{cql, kafka};

/// How many nodes a cluster may have.
pub(crate) const COUNTS: [usize; 2] = [1, 3];

const DOWN_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// What runs detached, as written to the state file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Running {
    /// `host:port` of each node.
    pub addresses: Vec<String>,
    pids: Vec<u32>,
    home: PathBuf,
}

/// Whether each address answers.
pub struct Status {
    /// What it speaks.
    pub protocol: Protocol,
    /// `host:port`
    pub address: String,
    /// The question that was asked.
    pub asked: Result<()>,
}

/// Starts what does not run yet, to stay until [`down`]; what runs and answers is left alone. Of
/// what the count is 0, none is started.
pub fn up(brokers: usize, nodes: usize) -> Result<()> {
    let _one_at_a_time = home::lock("running.lock")?;
    if brokers > 0 {
        keep(Protocol::Kafka, || {
            kafka::start_for(brokers, Lifetime::Detached)
        })?;
    }
    if nodes > 0 {
        keep(Protocol::Cql, || cql::start_for(nodes, Lifetime::Detached))?;
    }
    Ok(())
}

/// Ends what [`up`] started and removes its files.
pub fn down() -> Result<()> {
    let _one_at_a_time = home::lock("running.lock")?;
    for protocol in [Protocol::Kafka, Protocol::Cql] {
        if let Some(running) = read(protocol)? {
            end(&running)?;
            fs::remove_file(state_file(protocol)?)?;
        }
    }
    Ok(())
}

/// What [`up`] started, and whether it answers.
pub fn status() -> Result<Vec<Status>> {
    let mut all = Vec::new();
    for protocol in [Protocol::Kafka, Protocol::Cql] {
        let addresses = read(protocol)?.map(|running| running.addresses);
        for address in addresses.unwrap_or_default() {
            let asked = protocol.ask(&address);
            all.push(Status {
                protocol,
                address,
                asked,
            });
        }
    }
    Ok(all)
}

fn keep(protocol: Protocol, start: impl FnOnce() -> Result<Cluster>) -> Result<()> {
    if let Some(running) = read(protocol)? {
        if answers(protocol, &running.addresses) {
            return Ok(());
        }
        end(&running)?;
    }
    let mut cluster = start()?;
    let running = Running {
        addresses: cluster.addresses(),
        pids: cluster.nodes.iter().filter_map(Node::pid).collect(),
        home: cluster.home.path().to_owned(),
    };
    // Written first: a process that nobody knows could not be ended.
    fs::write(state_file(protocol)?, serde_json::to_vec_pretty(&running)?)?;
    cluster.home.give_away()?;
    cluster.nodes.iter_mut().try_for_each(Node::let_go)
}

fn answers(protocol: Protocol, addresses: &[String]) -> bool {
    addresses
        .iter()
        .all(|address| protocol.ask(address).is_ok())
}

fn read(protocol: Protocol) -> Result<Option<Running>> {
    let path = state_file(protocol)?;
    if !path.exists() {
        return Ok(None);
    }
    let running = serde_json::from_slice(&fs::read(&path)?);
    running
        .map(Some)
        .with_context(|| format!("{} cannot be read; remove it", path.display()))
}

fn state_file(protocol: Protocol) -> Result<PathBuf> {
    Ok(home::cache()?.join(format!("{}.json", protocol.name())))
}

fn end(running: &Running) -> Result<()> {
    let deadline = Instant::now() + DOWN_MAX;
    for pid in &running.pids {
        while is_ours(*pid, &running.home) {
            if Instant::now() > deadline {
                bail!("process {pid} does not end");
            }
            let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
            // It may end between the two looks; the next round sees that.
            let _ = kill_process(pid.context("not a process id")?, Signal::KILL);
            thread::sleep(PAUSE);
        }
    }
    // Its processes are gone, so nobody writes there; leftovers hurt nobody.
    let _ = fs::remove_dir_all(&running.home);
    Ok(())
}

/// A process id may have passed on to somebody else's process: ours names its directory.
fn is_ours(pid: u32, home: &Path) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).contains(&*home.to_string_lossy())
}

/// A service for this whole process.
pub(crate) struct Shared(Mutex<Option<Found>>);

enum Found {
    Elsewhere(Vec<String>),
    Own(Cluster),
}

impl Shared {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Addresses from `variable`, from what runs, or from what `start` starts, once.
    pub(crate) fn addresses(
        &self,
        variable: &str,
        protocol: Protocol,
        start: impl FnOnce() -> Result<Cluster>,
    ) -> Result<Vec<String>> {
        let mut found = self.0.lock().map_err(|_| anyhow!("a start has panicked"))?;
        if found.is_none() {
            *found = Some(match elsewhere(variable, protocol)? {
                Some(addresses) => Found::Elsewhere(addresses),
                None => Found::Own(start()?),
            });
        }
        Ok(match &*found {
            Some(Found::Elsewhere(addresses)) => addresses.clone(),
            Some(Found::Own(cluster)) => cluster.addresses(),
            None => Vec::new(),
        })
    }
}

fn elsewhere(variable: &str, protocol: Protocol) -> Result<Option<Vec<String>>> {
    if let Ok(list) = std::env::var(variable)
        && !list.is_empty()
    {
        let addresses: Vec<_> = list.split(',').map(|a| a.trim().to_owned()).collect();
        for address in &addresses {
            let asked = protocol.ask(address);
            asked.with_context(|| format!("{variable} names {address}, which does not answer"))?;
        }
        return Ok(Some(addresses));
    }
    let running = read(protocol)?.map(|running| running.addresses);
    Ok(running.filter(|addresses| answers(protocol, addresses)))
}
