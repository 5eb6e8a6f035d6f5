//! What went wrong with a publish, in the one distinction that matters: refused, or unknown.

use std::error::Error;
use std::fmt;

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::v1;

/// The id of an event: what a repeat must carry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(String);

/// An event that is not known to be published.
#[derive(Debug, thiserror::Error)]
#[error("event {} {kind}: {}", .event.id, .status.message())]
pub struct PublishError {
    kind: PublishErrorKind,
    event: Box<v1::Event>,
    status: Status,
}

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishErrorKind {
    /// Nothing of it exists. Change it, or publish it again later; see [`PublishError::status`].
    Refused,
    /// It may or may not be published. Publish the same event again: it has its id.
    Unknown,
}

impl EventId {
    pub(super) fn of(event: &v1::Event) -> Self {
        Self(event.id.clone())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.0
    }
}

impl PublishError {
    pub(super) fn new(kind: PublishErrorKind, event: v1::Event, status: Status) -> Self {
        Self {
            kind,
            event: Box::new(event),
            status,
        }
    }

    /// Refused, or unknown.
    pub fn kind(&self) -> PublishErrorKind {
        self.kind
    }

    /// The event's id.
    pub fn event_id(&self) -> EventId {
        EventId::of(&self.event)
    }

    /// What the server said last, or the transport.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The upper-case reason that the server gave, for example `EVENT_TYPE_INVALID`.
    pub fn reason(&self) -> Option<String> {
        reason(&self.status)
    }

    /// The event as it was sent, its id included: publish it again.
    pub fn into_event(self) -> v1::Event {
        *self.event
    }
}

impl fmt::Display for PublishErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "was refused",
            Self::Unknown => "may or may not be published; publish it again with the same id",
        })
    }
}

/// The upper-case reason in a status of a Fanfare server.
pub fn reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == "fanfare").then_some(info.reason)
}

/// Whether no server was reached: nothing was sent.
pub fn is_unreachable(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A status that came as a message within an answer.
pub(super) fn status_of(error: &tonic_types::Status) -> Status {
    Status::with_details(
        Code::from(error.code),
        error.message.clone(),
        error.encode_to_vec().into(),
    )
}
