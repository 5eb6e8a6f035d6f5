//! A program under test: a process that says where it listens once it is ready.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};

use crate::process;

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running program. Dropping it kills it.
pub(crate) struct Program {
    child: Child,
    pid: u32,
    name: String,
    log: PathBuf,
    addresses: Addresses,
}

#[derive(Deserialize)]
struct Addresses {
    /// A delivery worker has none.
    listen: Option<SocketAddr>,
    admin_listen: SocketAddr,
}

impl Program {
    /// Starts `command` on free ports and waits until it wrote its addresses to `file`. What it
    /// says goes to `log`, which stays if it does not end well.
    pub(crate) async fn start(mut command: Command, file: &Path, log: PathBuf) -> Result<Self> {
        let binary = Path::new(command.as_std().get_program());
        let name = binary.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        // A killed predecessor leaves its own behind.
        let _ = std::fs::remove_file(file);
        let started = Instant::now();
        let mut child = command
            .args(["--admin-listen", "127.0.0.1:0"])
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(std::fs::File::create(&log)?))
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let addresses = loop {
            if let Ok(text) = std::fs::read_to_string(file) {
                break serde_json::from_str(&text)?;
            }
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended: {status}; see {}", log.display());
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "{name} is not ready; see {}",
                log.display()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        Ok(Self {
            pid: child.id().context("it has ended")?,
            child,
            name,
            log,
            addresses,
        })
    }

    /// A new connection to its front door.
    pub(crate) async fn connect(&self) -> Result<Channel> {
        let listen = self.addresses.listen.context("it has no front door")?;
        let endpoint = Endpoint::new(format!("http://{listen}"))?;
        Ok(endpoint.connect().await?)
    }

    /// Probes and metrics.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.addresses.admin_listen
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// CPU that it used so far, in microseconds.
    pub(crate) fn cpu(&self) -> Result<u64> {
        process::cpu(self.pid)
    }

    /// Ends it as a power cut would.
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Asks it to drain and waits until it ended well.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no pid")?, Signal::TERM)?;
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .with_context(|| format!("{} does not stop", self.name))??;
        ensure!(status.success(), "{} ended with {status}", self.name);
        let _ = std::fs::remove_file(&self.log);
        Ok(())
    }
}
