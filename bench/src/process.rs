//! What the kernel says a process used.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// CPU time, user and system, of all threads that `pid` ever had, in microseconds.
pub(crate) fn cpu(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before the last ')' may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || -> Result<u64> { Ok(fields.next().context("a short stat")?.parse()?) };
    let ticks = ticks()? + ticks()?;
    Ok(ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
}

/// The same of several processes together.
pub(crate) fn cpu_of_all(pids: &[u32]) -> Result<u64> {
    pids.iter().map(|pid| cpu(*pid)).sum()
}

/// Binds all threads of `pid` to `cores` (a list like `0,2-3`) until they are bound anew.
pub(crate) fn bind(pid: u32, cores: &str) -> Result<()> {
    // Of util-linux: the call from Rust would bind one thread.
    let output = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", cores])
        .arg(pid.to_string())
        .output()
        .context("cannot run taskset (util-linux)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "taskset: {said}");
    Ok(())
}

/// Resident memory now, in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    status(pid, "VmRSS:")
}

/// The most resident memory there ever was, in bytes.
pub(crate) fn resident_max(pid: u32) -> Result<u64> {
    status(pid, "VmHWM:")
}

fn status(pid: u32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib
        .context("no such line in /proc/PID/status")?
        .parse::<u64>()?
        * 1024)
}
