//! `fanfare serve` under test: the release binary in a process and a data directory of its own.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use tempfile::TempDir;
use tokio::process::Command;
use tonic::transport::Channel;

use crate::program::Program;
use crate::{Settings, process};

/// A running server. Dropping it kills it and removes its data.
pub(crate) struct Server {
    program: Program,
    channel: Channel,
    dir: TempDir,
    binary: PathBuf,
    /// From the start of the process to its readiness.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// On an empty directory.
    pub(crate) async fn start(settings: &Settings) -> Result<Self> {
        let dir = TempDir::new_in(&settings.data_dir)?;
        Self::on(dir, settings.server.clone()).await
    }

    /// Kills it as a power cut would and starts it again on what is left.
    pub(crate) async fn kill_and_restart(self) -> Result<Self> {
        self.program.kill().await?;
        Self::on(self.dir, self.binary).await
    }

    async fn on(dir: TempDir, binary: PathBuf) -> Result<Self> {
        let started = Instant::now();
        let mut command = Command::new(&binary);
        command
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path());
        let file = dir.path().join("addresses.json");
        let program = Program::start(command, &file, dir.path().with_extension("log")).await?;
        Ok(Self {
            ready_after: started.elapsed(),
            channel: program.connect().await?,
            program,
            dir,
            binary,
        })
    }

    /// A connection to its front door.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// CPU that it used so far, in microseconds.
    pub(crate) fn cpu(&self) -> Result<u64> {
        self.program.cpu()
    }

    /// Resident bytes now.
    pub(crate) fn resident(&self) -> Result<u64> {
        process::resident(self.pid())
    }

    /// Most resident bytes so far.
    pub(crate) fn resident_max(&self) -> Result<u64> {
        process::resident_max(self.pid())
    }

    /// Asks it to drain and waits until it ended well.
    pub(crate) async fn stop(self) -> Result<()> {
        self.program.stop().await
    }
}
