//! The server under test as a process: started, found, killed, stopped.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::{binary, eventually, http};

/// How long the output of a process that has exited may take to be read.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `fanfare serve`
    Serve,
    /// `fanfare-router`
    Router,
    /// `fanfare-delivery-worker`
    Worker,
}

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which one.
    pub program: Program,
    /// `--data-dir`; for a service, where its addresses are written.
    pub dir: PathBuf,
    /// `--listen`
    pub listen: SocketAddr,
    /// `--admin-listen`
    pub admin_listen: SocketAddr,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Further environment.
    pub environment: HashMap<String, String>,
}

/// Where a server said it listens.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Addresses {
    /// gRPC, HTTP and the page; a worker has none.
    #[serde(default = "nowhere")]
    pub listen: SocketAddr,
    /// Probes and metrics.
    pub admin_listen: SocketAddr,
}

fn nowhere() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    addresses: Addresses,
    log: Log,
}

/// What a process wrote, both streams in one.
#[derive(Clone, Default)]
pub struct Log {
    text: Arc<Mutex<String>>,
    /// Streams that have not ended.
    open: Arc<watch::Sender<usize>>,
}

impl Options {
    /// On a directory, for a laptop (`--dev`), on free ports.
    pub fn dev(dir: &Path) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            program: Program::Serve,
            dir: dir.to_owned(),
            listen: free,
            admin_listen: free,
            arguments: vec!["--dev".to_owned()],
            environment: HashMap::new(),
        }
    }

    /// A service of a cluster that is configured by `file`, on free ports.
    pub fn service(program: Program, dir: &Path, file: &Path) -> Self {
        let mut options = Self::dev(dir);
        options.program = program;
        options.with(&["--config", &file.display().to_string()])
    }

    /// With further arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The process, not started.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.program.path());
        if self.program == Program::Serve {
            command.arg("serve").arg("--data-dir").arg(&self.dir);
        } else {
            command.arg("--addresses-file").arg(self.addresses_file());
        }
        if self.program != Program::Worker {
            command.arg("--listen").arg(self.listen.to_string());
        }
        command
            .arg("--admin-listen")
            .arg(self.admin_listen.to_string())
            .args(&self.arguments)
            .envs(&self.environment)
            // Nothing of the developer's own settings.
            .env_remove("FANFARE_SERVER")
            .env_remove("FANFARE_API_KEY")
            .env_remove("FANFARE_TENANT");
        command
    }

    fn addresses_file(&self) -> PathBuf {
        self.dir.join("addresses.json")
    }
}

impl Program {
    fn path(self) -> PathBuf {
        match self {
            Self::Serve => binary::fanfare(),
            Self::Router => binary::fanfare().with_file_name("fanfare-router"),
            Self::Worker => binary::fanfare().with_file_name("fanfare-delivery-worker"),
        }
    }
}

impl Server {
    /// Starts it and waits until it is ready; the error is its exit, with everything it wrote.
    pub async fn start(options: &Options) -> Result<Self, Exit> {
        Self::spawn(options).ready(options).await
    }

    /// Starts it and does not wait.
    pub fn spawn(options: &Options) -> Starting {
        // A killed server leaves its addresses behind; they must not be taken for the next one's.
        let _ = std::fs::remove_file(options.addresses_file());
        let (child, log) = Log::of(&mut options.command());
        Starting { child, log }
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// `http://…` of its front door.
    pub fn url(&self) -> String {
        format!("http://{}", self.addresses.listen)
    }

    /// What it wrote so far.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it was not waited for")
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a child can be killed");
    }

    /// SIGTERM, and waits for its exit.
    pub async fn stop(self) -> Exit {
        self.signal(Signal::TERM);
        self.exits().await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        // It may have exited by itself in this moment, which `exits` will tell.
        let _ = kill_process(pid, signal);
    }

    /// Waits for its exit without asking for it.
    pub async fn exits(mut self) -> Exit {
        Exit::of(&mut self.child, self.log).await
    }

    /// Its exit, if it has exited.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }
}

/// A server that was started and not heard of yet. Dropping it kills it.
pub struct Starting {
    child: Child,
    log: Log,
}

impl Starting {
    /// Waits until `/readyz` is 200.
    pub async fn ready(mut self, options: &Options) -> Result<Server, Exit> {
        let ready = eventually("the server to be ready", async || {
            if self
                .child
                .try_wait()
                .expect("a child can be asked")
                .is_some()
            {
                return ControlFlow::Break(None);
            }
            match found(&options.addresses_file()).await {
                Ok(addresses) => ControlFlow::Break(Some(addresses)),
                Err(status) => ControlFlow::Continue(format!("{status}\n{}", self.log.text())),
            }
        });
        match ready.await {
            Some(addresses) => Ok(Server {
                child: self.child,
                addresses,
                log: self.log,
            }),
            None => Err(Exit::of(&mut self.child, self.log).await),
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a child can be killed");
    }
}

/// Reads the addresses and asks whether it is ready; otherwise says what is amiss.
async fn found(file: &Path) -> Result<Addresses, String> {
    let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let addresses: Addresses = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    let ready = http::get(&format!("http://{}/readyz", addresses.admin_listen)).await;
    match ready {
        Ok(response) if response.status == 200 => Ok(addresses),
        Ok(response) => Err(format!(
            "/readyz says {} {}",
            response.status,
            response.text()
        )),
        Err(error) => Err(format!("/readyz: {error}")),
    }
}

/// How a process ended.
#[derive(Debug)]
pub struct Exit {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Everything it wrote.
    pub log: String,
}

impl Exit {
    async fn of(child: &mut Child, log: Log) -> Self {
        let status = tokio::time::timeout(crate::eventually::PATIENCE, child.wait())
            .await
            .unwrap_or_else(|_| panic!("the server does not exit:\n{}", log.text()))
            .expect("a child can be waited for");
        log.ended().await;
        Self {
            code: status.code(),
            log: log.text(),
        }
    }
}

impl Log {
    /// Starts a command and collects what it writes. It is killed when the child is dropped.
    pub fn of(command: &mut Command) -> (Child, Self) {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.kill_on_drop(true).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let log = Self::default();
        log.follow(child.stdout.take().expect("piped"));
        log.follow(child.stderr.take().expect("piped"));
        (child, log)
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// Waits until both streams have ended, unless someone else still holds them.
    async fn ended(&self) {
        let mut open = self.open.subscribe();
        let _ = tokio::time::timeout(LAST_WORDS_MAX, open.wait_for(|open| *open == 0)).await;
    }

    /// Appends what comes from `stream`, until it ends.
    fn follow(&self, stream: impl AsyncRead + Send + Unpin + 'static) {
        let log = self.clone();
        log.open.send_modify(|open| *open += 1);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let mut text = log.text.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
            log.open.send_modify(|open| *open -= 1);
        });
    }
}
