//! Why a value from outside was refused: a machine-readable reason, the field, and one sentence
//! that says what to do. The front door turns it into `google.rpc` details, the command line into
//! a message; nothing else is needed, so there is nothing else.

use std::fmt;

/// Reasons of the public error table; `as_str` is the spelling that goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)] // the names are the documentation: the table of the gRPC surface
pub enum Reason {
    EventTypeInvalid,
    EventIdInvalid,
    EventFieldInvalid,
    ExtensionInvalid,
    DataNotJson,
    DataTooDeep,
    EventTooLarge,
    BatchTooLarge,
    PatternInvalid,
    UrlInvalid,
    UrlNotAllowed,
    HeaderNotAllowed,
    SecretInvalid,
    ScheduleInvalid,
    TimeoutInvalid,
    LabelInvalid,
    IdInvalid,
    TenantInvalid,
    FieldNotSupported,
}

impl Reason {
    /// The upper-case spelling used in `ErrorInfo.reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventTypeInvalid => "EVENT_TYPE_INVALID",
            Self::EventIdInvalid => "EVENT_ID_INVALID",
            Self::EventFieldInvalid => "EVENT_FIELD_INVALID",
            Self::ExtensionInvalid => "EXTENSION_INVALID",
            Self::DataNotJson => "DATA_NOT_JSON",
            Self::DataTooDeep => "DATA_TOO_DEEP",
            Self::EventTooLarge => "EVENT_TOO_LARGE",
            Self::BatchTooLarge => "BATCH_TOO_LARGE",
            Self::PatternInvalid => "PATTERN_INVALID",
            Self::UrlInvalid => "URL_INVALID",
            Self::UrlNotAllowed => "URL_NOT_ALLOWED",
            Self::HeaderNotAllowed => "HEADER_NOT_ALLOWED",
            Self::SecretInvalid => "SECRET_INVALID",
            Self::ScheduleInvalid => "SCHEDULE_INVALID",
            Self::TimeoutInvalid => "TIMEOUT_INVALID",
            Self::LabelInvalid => "LABEL_INVALID",
            Self::IdInvalid => "ID_INVALID",
            Self::TenantInvalid => "TENANT_INVALID",
            Self::FieldNotSupported => "FIELD_NOT_SUPPORTED",
        }
    }
}

/// A refused value. `message` is one sentence, names no secret, and says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What kind of refusal this is.
    pub reason: Reason,
    /// Path of the field as the API names it, for example `event.type`.
    pub field: String,
    /// One sentence for a person.
    pub message: String,
}

impl Invalid {
    /// Builds a refusal of `field`.
    pub fn new(reason: Reason, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason,
            field: field.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for Invalid {}
