//! Why a log could not be opened, and what a broker's answer means for the seam.

use std::fmt;

use fanfare_event_log::{LogError, LogErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Why [`crate::KafkaLog::open`] refused. Display is one sentence that says what to do.
#[derive(Debug)]
pub struct OpenError {
    kind: OpenErrorKind,
    sentence: String,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenErrorKind {
    /// The configuration is wrong, by itself or for the topics that are there. Nothing was changed.
    Configuration,
    /// The brokers do not answer or do not let us in; the same configuration may work later.
    Unavailable,
}

impl OpenError {
    pub(crate) fn configuration(sentence: impl Into<String>) -> Self {
        Self {
            kind: OpenErrorKind::Configuration,
            sentence: sentence.into(),
        }
    }

    pub(crate) fn unavailable(sentence: impl Into<String>) -> Self {
        Self {
            kind: OpenErrorKind::Unavailable,
            sentence: sentence.into(),
        }
    }

    /// Whose turn it is.
    pub fn kind(&self) -> OpenErrorKind {
        self.kind
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for OpenError {}

/// What a failed delivery of a record says about whether it was written.
pub(crate) fn of_delivery(error: &KafkaError) -> LogErrorKind {
    use RDKafkaErrorCode as E;
    match error.rdkafka_error_code() {
        // Never left the client's queue.
        Some(E::QueueFull | E::UnknownTopic | E::UnknownPartition) => LogErrorKind::Unavailable,
        // The broker refused it for what it is.
        Some(E::MessageSizeTooLarge) => LogErrorKind::TooLarge,
        Some(E::TopicAuthorizationFailed | E::ClusterAuthorizationFailed) => {
            LogErrorKind::Unavailable
        }
        // A time-out may have struck after a request was sent; so may a purge or a fatal error. And
        // what was refused for good may have been a retry of one whose answer was lost.
        _ => LogErrorKind::Unknown,
    }
}

/// What the answer to a commit means for the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitAnswer {
    /// Recorded.
    Ok,
    /// Not recorded; the same commit may be taken in a moment.
    Again,
    /// Nobody knows whether it was recorded.
    Unknown,
    /// Not recorded: the metadata is larger than the broker allows.
    TooLarge,
    /// Not recorded: this consumer is no member of the group.
    Expelled,
}

/// Reads the answer to a commit of one partition.
pub(crate) fn of_commit(code: Option<RDKafkaErrorCode>) -> CommitAnswer {
    use RDKafkaErrorCode as E;
    match code {
        None | Some(E::NoError) => CommitAnswer::Ok,
        Some(E::UnknownMemberId | E::FencedInstanceId | E::FencedMemberEpoch) => {
            CommitAnswer::Expelled
        }
        Some(E::OffsetMetadataTooLarge | E::InvalidCommitOffsetSize) => CommitAnswer::TooLarge,
        // Whether the lease survives an old generation is for the rebalance to say.
        Some(
            E::IllegalGeneration
            | E::RebalanceInProgress
            | E::StaleMemberEpoch
            | E::CoordinatorLoadInProgress
            | E::CoordinatorNotAvailable
            | E::NotCoordinator
            | E::WaitingForCoordinator
            | E::GroupAuthorizationFailed
            | E::TopicAuthorizationFailed
            | E::UnknownTopicOrPartition,
        ) => CommitAnswer::Again,
        Some(_) => CommitAnswer::Unknown,
    }
}

/// An error of the driver that changed nothing.
pub(crate) fn unavailable(error: KafkaError) -> LogError {
    LogError::because(LogErrorKind::Unavailable, error)
}
