//! What a [`super::MemoryLog`] can be told to do wrong.

use crate::error::LogErrorKind;

/// Which calls go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`crate::EventLog::append`].
    Append,
    /// [`crate::EventLog::commit`].
    Commit,
    /// [`crate::Records::read`].
    Read,
    /// [`crate::EventLog::join`] and [`crate::EventLog::tail`].
    Join,
}

/// How they go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens but this error.
    Refuse(LogErrorKind),
    /// It happens, and the answer is `Unknown`.
    LoseAnswer,
    /// It waits until the fault is lifted, then happens.
    Stall,
}
