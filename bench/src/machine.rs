//! What the figures were measured on.

use std::process::Command;

use crate::Settings;

/// Sentences about the machine and its state.
pub(crate) fn describe(settings: &Settings) -> Vec<String> {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = line("/proc/meminfo", "MemTotal:");
    vec![
        format!("{cpus} x {}", line("/proc/cpuinfo", "model name\t:")),
        format!(
            "memory {memory}, Linux {}",
            read("/proc/sys/kernel/osrelease")
        ),
        format!("load average at the start {}", read("/proc/loadavg")),
        format!(
            "commit {}, {}",
            answer("git", &["rev-parse", "--short", "HEAD"]),
            answer("rustc", &["--version"])
        ),
        format!(
            "{} interleaved rounds, medians; everything on one machine over loopback: server, receiver and publisher share its CPUs",
            settings.rounds
        ),
    ]
}

fn read(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

fn line(path: &str, start: &str) -> String {
    let text = read(path);
    let line = text.lines().find_map(|line| line.strip_prefix(start));
    line.unwrap_or("unknown").trim().to_owned()
}

fn answer(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "unknown".into())
}
