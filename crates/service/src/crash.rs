//! Places where a fault test can kill the process, exactly between two steps.
//!
//! Without the cargo feature `crash-points` a point is nothing at all. With it, the environment
//! variable `FANFARE_CRASH_AT=name` kills the process with SIGKILL at the first pass of that
//! point, `name:n` at the n-th: no destructor runs, no buffer is flushed.

/// Passes the point `name`.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn point(_name: &'static str) {}

/// Passes the point `name`, and dies there if this is the pass that was asked for.
#[cfg(feature = "crash-points")]
pub fn point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ASKED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let asked = ASKED.get_or_init(|| {
        let text = std::env::var("FANFARE_CRASH_AT").ok()?;
        let (at, pass) = text.split_once(':').unwrap_or((&text, "1"));
        Some((at.to_owned(), AtomicU64::new(pass.parse().ok()?)))
    });
    let Some((at, left)) = asked else { return };
    if at == name && left.fetch_sub(1, Ordering::AcqRel) == 1 {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal is on its way; nothing after this point may happen.
        loop {
            std::thread::park();
        }
    }
}
