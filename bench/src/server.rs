//! `fanfare serve` under test: the release binary in a process and a data directory of its own.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fanfare_proto::v1;
use fanfare_proto::v1::endpoint_service_client::EndpointServiceClient;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};

use crate::{Settings, process};

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running server. Dropping it kills it and removes its data.
pub(crate) struct Server {
    child: Child,
    pid: u32,
    channel: Channel,
    dir: TempDir,
    binary: PathBuf,
    /// From the start of the process to its readiness.
    pub(crate) ready_after: Duration,
}

#[derive(Deserialize)]
struct Addresses {
    listen: String,
}

impl Server {
    /// On an empty directory.
    pub(crate) async fn start(settings: &Settings) -> Result<Self> {
        let dir = TempDir::new_in(&settings.data_dir)?;
        Self::on(dir, settings.server.clone()).await
    }

    /// Kills it as a power cut would and starts it again on what is left.
    pub(crate) async fn kill_and_restart(mut self) -> Result<Self> {
        self.child.kill().await?;
        Self::on(self.dir, self.binary).await
    }

    async fn on(dir: TempDir, binary: PathBuf) -> Result<Self> {
        let file = dir.path().join("addresses.json");
        let _ = std::fs::remove_file(&file);
        let started = Instant::now();
        let mut child = Command::new(&binary)
            .args(["serve", "--dev", "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path())
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(std::fs::File::create(
                dir.path().with_extension("log"),
            )?))
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let addresses: Addresses = loop {
            if let Ok(text) = std::fs::read_to_string(&file) {
                break serde_json::from_str(&text)?;
            }
            if let Some(status) = child.try_wait()? {
                bail!(
                    "fanfare serve ended: {status}; see {}",
                    dir.path().with_extension("log").display()
                );
            }
            ensure!(started.elapsed() < PATIENCE, "fanfare serve is not ready");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        let ready_after = started.elapsed();
        let channel = Endpoint::new(format!("http://{}", addresses.listen))?
            .connect()
            .await?;
        Ok(Self {
            pid: child.id().context("it has ended")?,
            child,
            channel,
            dir,
            binary,
            ready_after,
        })
    }

    /// A connection to its front door.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// CPU that it used so far, in microseconds.
    pub(crate) fn cpu(&self) -> Result<u64> {
        process::cpu(self.pid)
    }

    /// Resident bytes now.
    pub(crate) fn resident(&self) -> Result<u64> {
        process::resident(self.pid)
    }

    /// Most resident bytes so far.
    pub(crate) fn resident_max(&self) -> Result<u64> {
        process::resident_max(self.pid)
    }

    /// Creates an endpoint at `url` that wants `pattern`.
    pub(crate) async fn subscribe(&self, url: String, pattern: &str) -> Result<()> {
        let request = v1::CreateEndpointRequest {
            endpoint: Some(v1::Endpoint {
                url,
                ..v1::Endpoint::default()
            }),
            event_types: vec![pattern.to_owned()],
            ..v1::CreateEndpointRequest::default()
        };
        let mut client = EndpointServiceClient::new(self.channel());
        client.create_endpoint(request).await?;
        Ok(())
    }

    /// Asks it to drain and waits until it ended well.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no pid")?, Signal::TERM)?;
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .context("fanfare serve does not stop")??;
        ensure!(status.success(), "fanfare serve ended with {status}");
        let _ = std::fs::remove_file(self.dir.path().with_extension("log"));
        Ok(())
    }
}
