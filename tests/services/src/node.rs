//! One broker or node: a process that is ready when it answers.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::probe::Protocol;
use crate::process::{Launch, Leash, Lifetime, log_len, log_since, log_tail};

const PAUSE: Duration = Duration::from_millis(50);
/// How long a node may take to end when asked politely.
const SHUTDOWN_MAX: Duration = Duration::from_secs(30);
/// How long a thread may take to stop: one in the middle of a read of the disk waits for that.
const STOP_MAX: Duration = Duration::from_secs(30);

/// A broker or a node. Dropping it kills its process.
pub struct Node {
    pub(crate) name: String,
    pub(crate) launch: Launch,
    pub(crate) address: String,
    pub(crate) protocol: Protocol,
    /// Written to the log once it is up; empty when an answer says enough.
    pub(crate) started_line: &'static str,
    pub(crate) start_max: Duration,
    child: Option<Child>,
    /// Of a detached one that is not let go yet.
    leash: Option<Leash>,
    /// Where the log of the current run begins.
    log_start: u64,
}

impl Node {
    pub(crate) fn new(
        name: String,
        launch: Launch,
        address: String,
        protocol: Protocol,
        started_line: &'static str,
        start_max: Duration,
    ) -> Self {
        Self {
            name,
            launch,
            address,
            protocol,
            started_line,
            start_max,
            child: None,
            leash: None,
            log_start: 0,
        }
    }

    /// `host:port` that clients connect to; the same after a restart.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What it logged, both streams of all runs.
    pub fn log(&self) -> PathBuf {
        self.launch.log.clone()
    }

    /// SIGKILL, and waits for the end. A node that does not run is left alone.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGSTOP: its sockets stay open and nothing answers.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        // A thread that runs when the signal is sent may answer once more before it stops.
        let deadline = Instant::now() + STOP_MAX;
        while !self.is_stopped()? {
            if Instant::now() > deadline {
                bail!("{} does not stop within {STOP_MAX:?}", self.name);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// SIGCONT.
    pub fn cont(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM, and waits for the end, at most half a minute.
    pub fn shutdown(&mut self) -> Result<()> {
        if self.child.is_none() {
            return Ok(());
        }
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + SHUTDOWN_MAX;
        while self.exited()?.is_none() {
            if Instant::now() > deadline {
                bail!(
                    "{} does not end within {SHUTDOWN_MAX:?}; {}",
                    self.name,
                    self.last_lines()
                );
            }
            thread::sleep(PAUSE);
        }
        self.child = None;
        Ok(())
    }

    /// Kills it if it runs, starts it on the same files and address, and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.spawn()?;
        if self.wait_ready().is_ok() {
            return Ok(());
        }
        // A node that does not find its seed in time gives up: on a busy machine once more.
        self.kill()?;
        self.spawn()?;
        self.wait_ready()
    }

    /// Starts it without waiting.
    pub(crate) fn spawn(&mut self) -> Result<()> {
        self.log_start = log_len(&self.launch.log);
        let child = self.launch.spawn()?;
        let pid = child.id();
        self.child = Some(child);
        if self.launch.lifetime == Lifetime::Detached {
            self.leash = Some(Leash::on(pid, &self.launch.directory)?);
        }
        Ok(())
    }

    /// Waits until it answers.
    pub fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + self.start_max;
        loop {
            if let Some(status) = self.exited()? {
                bail!("{} ended with {status}; {}", self.name, self.last_lines());
            }
            let asked = self.answers();
            match asked {
                Ok(()) => return Ok(()),
                Err(why) if Instant::now() > deadline => bail!(
                    "{} does not answer within {:?} ({why}); {}",
                    self.name,
                    self.start_max,
                    self.last_lines()
                ),
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    fn answers(&self) -> Result<()> {
        if !log_since(&self.launch.log, self.log_start).contains(self.started_line) {
            bail!("it did not say '{}'", self.started_line);
        }
        self.protocol.ask(&self.address)
    }

    /// Lets the process run on without this handle.
    pub(crate) fn let_go(&mut self) -> Result<()> {
        self.child = None;
        self.leash.take().map_or(Ok(()), Leash::let_go)
    }

    fn exited(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?),
            None => bail!("{} does not run", self.name),
        }
    }

    /// Whether every thread of it is stopped.
    fn is_stopped(&self) -> Result<bool> {
        let pid = self
            .pid()
            .with_context(|| format!("{} does not run", self.name))?;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread that ended meanwhile does nothing either.
            let stat = fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
            if state.is_some_and(|state| state != "T") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self
            .pid()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw)
            .with_context(|| format!("{} does not run", self.name))?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    fn last_lines(&self) -> String {
        format!("its last lines:\n{}", log_tail(&self.launch.log))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A process that is gone already is what we want.
        let _ = self.kill();
    }
}
