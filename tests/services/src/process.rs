//! A child process that ends with its starter, or on purpose outlives it, and whose output is kept.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use anyhow::{Context, Result};

/// How much of the end of a log an error shows.
const TAIL_LINES: usize = 20;
/// Most lines that tell of errors before them.
const ERROR_LINES: usize = 20;
/// How much of a log's end is looked at.
const TAIL_BYTES: u64 = 256 * 1024;

/// Who outlives whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// Killed when this process ends, however it ends.
    WithStarter,
    /// Stays until `fanfare-services down`, once its [`Leash`] was let go.
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

/// Kills a detached process unless it is let go: also when this process ends in any way before.
///
/// A shell in a session of its own waits for a word on a pipe, or for the pipe's end.
pub(crate) struct Leash(Child);

/// A process id may have passed on to somebody else's process: ours names its directory.
const HOLD: &str = "read -r word
[ \"$word\" = stay ] || { grep -qF -- \"$2\" \"/proc/$1/cmdline\" && kill -KILL \"$1\"; }";

impl Leash {
    /// On process `pid`, whose arguments name `directory`.
    pub(crate) fn on(pid: u32, directory: &Path) -> Result<Self> {
        let held = Command::new("setsid")
            .args(["sh", "-c", HOLD, "leash", &pid.to_string()])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Ok(Self(
            held.context("cannot run sh with setsid of util-linux")?,
        ))
    }

    /// The process stays.
    pub(crate) fn let_go(mut self) -> Result<()> {
        let word = self.0.stdin.take();
        word.context("a pipe")?.write_all(b"stay\n")?;
        Ok(())
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It has been told; it does nothing that could fail but kill.
        let _ = self.0.wait();
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

/// The first lines of the log at `path` that tell of errors, and its last ones: a process that could not start
/// closes in order, and then its last lines say nothing of why.
pub(crate) fn log_tail(path: &Path) -> String {
    let text = log_since(path, log_len(path).saturating_sub(TAIL_BYTES));
    let lines: Vec<_> = text.lines().collect();
    let (before, last) = lines.split_at(lines.len().saturating_sub(TAIL_LINES));
    let is_error = |line: &&&str| ["ERROR", "Exception"].iter().any(|it| line.contains(it));
    let errors = before.iter().filter(is_error).take(ERROR_LINES);
    let shown: Vec<_> = errors.chain(last).copied().collect();
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Child, Command};

    use super::{Leash, TAIL_LINES, log_tail};

    /// A process whose arguments name a directory.
    fn sleeper(directory: &str) -> Child {
        let script = "while :; do sleep 1; done";
        let spawned = Command::new("sh").args(["-c", script, directory]).spawn();
        spawned.expect("sh")
    }

    #[test]
    fn the_end_of_a_log_says_why_as_well() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let closing = "INFO closed in order\n".repeat(3 * TAIL_LINES);
        let why = "ERROR failed to bind: Address already in use";
        std::fs::write(&path, format!("INFO starting\n{why}\n{closing}")).expect("written");
        let said = log_tail(&path);
        assert!(said.starts_with(why), "{said}");
        assert_eq!(said.lines().count(), 1 + TAIL_LINES);
    }

    #[test]
    fn what_was_not_let_go_is_killed() {
        let mut held = sleeper("/leash/held");
        drop(Leash::on(held.id(), Path::new("/leash/held")).expect("a leash"));
        let ended = held.wait().expect("it is ours");
        assert!(!ended.success(), "{ended}");
    }

    #[test]
    fn what_was_let_go_or_is_not_ours_stays() {
        let mut free = sleeper("/leash/free");
        let leash = Leash::on(free.id(), Path::new("/leash/free")).expect("a leash");
        leash.let_go().expect("let go");
        drop(Leash::on(free.id(), Path::new("/leash/other")).expect("a leash"));
        let ended = free.try_wait().expect("it is ours");
        assert!(ended.is_none(), "{ended:?}");
        free.kill().and_then(|()| free.wait()).expect("ended");
    }
}
