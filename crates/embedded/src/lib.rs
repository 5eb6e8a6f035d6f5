//! The embedded engine: one directory on one machine, both seams, nothing acknowledged lost.
//!
//! One log is the truth and one thread writes it: events, deliveries, progress and every change of
//! keyed state are frames of it, made durable a group at a time. Keyed state is a view of that
//! log: readable at once, on disk now and then, rebuilt from the log after a crash.
//!
//! - [`frame`] draws the bytes; [`changes`] is what is asked of the engine.
//! - [`engine`] takes it in and answers reads; [`front`] finds each frame its place; [`writer`]
//!   is the one thread that writes; [`recovery`] reads the log back after a crash.
//! - [`ring`], [`segments`] and [`reading`] serve readers from memory, then from disk.
//! - [`view`] holds keyed state, [`flusher`] moves it to disk.
//! - [`space`] prepares and drops segments, and says when there is no more room; [`retention`]
//!   says which may be dropped.
//! - [`log`] is the event-log seam over it, [`stores`] the store seam.
//!
//! Invariants: a waiter is told `Ok` only after the `fdatasync` of its group returned; a write or
//! sync that failed is never tried again, and nothing is written after it; the view's trees never
//! run ahead of the durable log; no file is opened by two processes.

mod changes;
mod directory;
mod disk;
mod engine;
mod flusher;
mod frame;
mod front;
mod log;
mod reading;
mod recovery;
mod retention;
mod ring;
mod segments;
mod space;
mod stores;
#[cfg(test)]
mod tests;
mod view;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fanfare_event_log::EventLog;
use fanfare_store::Stores;
use fanfare_store::config::CHANGES_KEPT;

use engine::Engine;
use log::EmbeddedLog;

/// Where and how the engine keeps its data.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// The data directory; made if it is not there.
    pub dir: PathBuf,
    /// Spans per stream, a divisor of 256: how many consumers can share the work. Fixed when the
    /// directory is made; a later value is ignored with a warning. Default 1.
    pub spans: u16,
    /// How long records are kept after they were settled. Default 14 days.
    pub retention: Duration,
    /// Most bytes of the directory. Settled records are dropped early to stay under it; if there
    /// are none, appends are refused. Default 16 GiB.
    pub max_bytes: u64,
    /// How long the writer waits for more before it writes a group. Default 0.
    pub group_delay: Duration,
    /// Bytes of a segment of the log: 1..=256 MiB. Also bounds one record. Default 8 MiB, so that
    /// a 64 MB disk works.
    pub segment_bytes: u64,
    /// Events are refused when less than this is free on the file system. Default 16 MiB.
    pub free_bytes_min: u64,
    /// Bytes of changes kept in memory before they are written to the view. Default 16 MiB.
    pub view_buffer_bytes: usize,
    /// Bytes of records kept in memory for readers that keep up, per stream. Default 16 MiB.
    pub tail_bytes: usize,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("fanfare-data"),
            spans: 1,
            retention: Duration::from_hours(14 * 24),
            max_bytes: 16 << 30,
            group_delay: Duration::ZERO,
            segment_bytes: 8 << 20,
            free_bytes_min: 16 << 20,
            view_buffer_bytes: 16 << 20,
            tail_bytes: 16 << 20,
        }
    }
}

/// An open data directory.
pub struct Embedded {
    engine: Arc<Engine>,
    log: Arc<EmbeddedLog>,
    stores: Stores,
}

/// Why a data directory does not open.
#[derive(Debug)]
pub struct OpenError {
    kind: OpenErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenErrorKind {
    /// Another process has it: by its pid, if known.
    InUse {
        /// Who.
        pid: Option<u32>,
    },
    /// A newer version wrote it.
    NewerVersion,
    /// Its bytes are not what was written, beyond what recovery mends.
    Corrupt,
    /// The operating system said no.
    Io,
    /// The configuration is wrong.
    Invalid,
}

impl Embedded {
    /// Opens the directory, replays what the view lacks, and starts the engine's threads. Must be
    /// called within a tokio runtime.
    pub async fn open(config: EmbeddedConfig) -> Result<Self, OpenError> {
        let dir = config.dir.clone();
        let disk = disk::RealDisk;
        let engine = Engine::open(config, disk, stores::SPACES, stores::Accepted).await?;
        let stores = stores::open(&engine, CHANGES_KEPT).map_err(|error| {
            engine.end(front::State::Stopped);
            OpenError::io(&dir, error)
        })?;
        Ok(Self {
            stores,
            log: Arc::new(EmbeddedLog::new(engine.clone())),
            engine,
        })
    }

    /// The log.
    pub fn log(&self) -> Arc<dyn EventLog> {
        self.log.clone()
    }

    /// The stores.
    pub fn stores(&self) -> Stores {
        self.stores.clone()
    }

    /// Resolves with a sentence when the engine stopped by itself, as after a failed sync: nothing
    /// is written any more, and the process must exit. Pending for ever otherwise. Cancel safe.
    pub fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        self.engine.failed()
    }

    /// Takes nothing more, writes what was taken, brings the view up to date and lets go of the
    /// directory.
    pub async fn close(self) {
        self.log.close();
        self.engine.close().await;
    }
}

impl Drop for Embedded {
    /// As [`Embedded::close`], but blocks the caller.
    fn drop(&mut self) {
        self.log.close();
        self.engine.end(front::State::Closing);
    }
}

impl OpenError {
    /// What a caller can do about it.
    pub fn kind(&self) -> OpenErrorKind {
        self.kind
    }

    pub(crate) fn io(
        path: &Path,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind: OpenErrorKind::Io,
            message: format!("cannot use {}", path.display()),
            source: Some(error.into()),
        }
    }

    pub(crate) fn corrupt(path: &Path, why: &str) -> Self {
        Self {
            kind: OpenErrorKind::Corrupt,
            message: format!("{} is damaged: {why}", path.display()),
            source: None,
        }
    }

    pub(crate) fn in_use(path: &Path, pid: Option<u32>) -> Self {
        let by = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
        let path = path.display();
        Self {
            kind: OpenErrorKind::InUse { pid },
            message: format!(
                "data directory {path} is in use by {by}; stop it or choose another directory"
            ),
            source: None,
        }
    }

    pub(crate) fn newer(path: &Path, version: u32) -> Self {
        let path = path.display();
        Self {
            kind: OpenErrorKind::NewerVersion,
            message: format!(
                "data directory {path} has format {version}, written by a newer version of \
                 Fanfare; use that version, or another directory"
            ),
            source: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            kind: OpenErrorKind::Invalid,
            message: message.into(),
            source: None,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self {
            kind: OpenErrorKind::Io,
            message: "the data directory cannot be used".into(),
            source: Some(Box::new(error)),
        }
    }
}
