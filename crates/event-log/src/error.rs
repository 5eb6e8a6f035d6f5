//! What can go wrong with a log, with one kind per branch that a caller takes.

use std::fmt;

/// An error of the log: what kind it is for the caller, and what the backend said.
#[derive(Debug)]
pub struct LogError {
    kind: LogErrorKind,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogErrorKind {
    /// Nothing was written; try again later.
    Unavailable,
    /// It may or may not have been written; the caller repeats with the same identity.
    Unknown,
    /// Nothing was written, and nothing will be until room returns.
    Full,
    /// Nothing was written: a record or batch is over the backend's limit.
    TooLarge,
    /// The lease is lost: whatever was to be committed will be seen by the next owner.
    LeaseLost,
    /// Progress cannot be recorded: its unsettled list is over `progress_max_bytes`.
    ProgressTooLarge,
    /// The log is closed for good (drained, or stopped after a failed sync).
    Closed,
    /// Stored bytes are not what was written.
    Corrupt,
}

impl LogError {
    /// An error of `kind` with nothing behind it.
    pub fn new(kind: LogErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// An error of `kind` caused by `source`.
    pub fn because(
        kind: LogErrorKind,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            source: Some(source.into()),
        }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> LogErrorKind {
        self.kind
    }
}

impl From<LogErrorKind> for LogError {
    fn from(kind: LogErrorKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            LogErrorKind::Unavailable => "the log is not available",
            LogErrorKind::Unknown => "the log did not say whether it wrote the records",
            LogErrorKind::Full => "the log has no room",
            LogErrorKind::TooLarge => "a record or batch is too large for the log",
            LogErrorKind::LeaseLost => "the lease is lost",
            LogErrorKind::ProgressTooLarge => "too much is unsettled to be recorded",
            LogErrorKind::Closed => "the log is closed",
            LogErrorKind::Corrupt => "the log's bytes are damaged",
        })
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}
