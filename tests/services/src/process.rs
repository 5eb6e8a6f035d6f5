//! A child process that ends with its starter, or on purpose outlives it, and whose output is kept.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use anyhow::{Context, Result};

/// How much of the end of a log an error shows.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16 * 1024;

/// Who outlives whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// Killed when this process ends, however it ends.
    WithStarter,
    /// Stays until `fanfare-services down`.
    Detached,
}

/// How to start a process.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// Arguments of `java`.
    pub(crate) arguments: Vec<OsString>,
    /// Where it runs.
    pub(crate) directory: PathBuf,
    /// Where its output goes, both streams.
    pub(crate) log: PathBuf,
    /// When it ends.
    pub(crate) lifetime: Lifetime,
}

impl Launch {
    /// Starts it.
    pub(crate) fn spawn(&self) -> Result<Child> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = match self.lifetime {
            Lifetime::WithStarter => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "java"]);
                command
            }
            Lifetime::Detached => {
                let mut command = Command::new("setsid");
                command.arg("java");
                command
            }
        };
        command
            .args(&self.arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        spawn(command).context("cannot start java with setpriv and setsid of util-linux")
    }
}

/// Starts `command` from a thread that lives as long as this process: the kernel's "parent" whose
/// death kills the child is the *thread* that started it, and a test's thread ends with the test.
fn spawn(command: Command) -> Result<Child> {
    type Order = (Command, SyncSender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<SyncSender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, received) = sync_channel::<Order>(1);
        thread::spawn(move || {
            for (mut command, answer) in received {
                // Whoever asked has gone; the child dies with its handle's owner all the same.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, child) = sync_channel(1);
    spawner
        .send((command, answer))
        .context("the spawner is gone")?;
    Ok(child.recv().context("the spawner is gone")??)
}

/// Bytes in the log at `path`.
pub(crate) fn log_len(path: &Path) -> u64 {
    path.metadata().map_or(0, |meta| meta.len())
}

/// What was logged from byte `from` on, as far as it can be read.
pub(crate) fn log_since(path: &Path, from: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path)
        && file.seek(SeekFrom::Start(from)).is_ok()
    {
        // What cannot be read is not shown; the caller's error stands without it.
        let _ = file.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines of the log at `path`.
pub(crate) fn log_tail(path: &Path) -> String {
    let text = log_since(path, log_len(path).saturating_sub(TAIL_BYTES));
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
