//! The one way to refuse: `google.rpc.Status` with one `ErrorInfo` of domain `fanfare`,
//! `BadRequest` for fields, and `RetryInfo` if and only if a retry can help.

use std::fmt;
use std::time::Duration;

use fanfare_domain::{Invalid, Reason};
use fanfare_event_log::{LogError, LogErrorKind};
use fanfare_store::{StoreError, StoreErrorKind};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// `ErrorInfo.domain` of everything refused here.
pub const DOMAIN: &str = "fanfare";
/// When to repeat what was refused because something is away for a moment.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A refusal: what the table of the gRPC surface calls it, and one sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    code: Code,
    reason: &'static str,
    message: String,
    field: Option<String>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal that a repetition does not change.
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            field: None,
            retry_after: None,
        }
    }

    /// A field of the request is refused.
    pub fn field(
        reason: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            field: Some(field.into()),
            ..Self::new(Code::InvalidArgument, reason, message)
        }
    }

    /// There is no such thing: the same answer for what is another tenant's.
    pub fn not_found(reason: &'static str, id: impl fmt::Display) -> Self {
        let noun = reason.split('_').next().unwrap_or_default().to_lowercase();
        Self::new(Code::NotFound, reason, format!("there is no {noun} {id}"))
    }

    /// The same, and that repeating it after `delay` can help.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        Self {
            retry_after: Some(delay),
            ..self
        }
    }

    /// `ErrorInfo.reason`.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut details = ErrorDetails::with_error_info(refusal.reason, DOMAIN, []);
        if let Some(field) = &refusal.field {
            details.add_bad_request_violation(field, &refusal.message);
        }
        if let Some(delay) = refusal.retry_after {
            details.set_retry_info(Some(delay));
        }
        Self::with_error_details(refusal.code, refusal.to_string(), details)
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        let code = match invalid.reason {
            Reason::FieldNotSupported => Code::Unimplemented,
            _ => Code::InvalidArgument,
        };
        Self {
            code,
            ..Self::field(invalid.reason.as_str(), invalid.field, invalid.message)
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error.kind() {
            StoreErrorKind::BadToken => fanfare_store::PageToken::invalid().into(),
            StoreErrorKind::Full => Self::new(
                Code::ResourceExhausted,
                "STORAGE_FULL",
                "there is no room to store it; nothing was changed",
            ),
            _ => {
                tracing::warn!(%error, source = ?std::error::Error::source(&error), "the store refused");
                let what = format!("{error}; try again shortly");
                Self::new(Code::Unavailable, "STORE_UNAVAILABLE", what).retry_after(RETRY_DELAY)
            }
        }
    }
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Self {
        match error.kind() {
            LogErrorKind::Full => Self::new(
                Code::ResourceExhausted,
                "STORAGE_FULL",
                "the log has no room; nothing was accepted",
            ),
            LogErrorKind::Unknown => Self::new(
                Code::Unavailable,
                "PUBLISH_UNKNOWN",
                "the log did not say whether it was written; repeat with the same id",
            )
            .retry_after(RETRY_DELAY),
            _ => {
                tracing::warn!(%error, source = ?std::error::Error::source(&error), "the log refused");
                let what = format!("{error}; nothing was accepted; try again shortly");
                Self::new(Code::Unavailable, "LOG_UNAVAILABLE", what).retry_after(RETRY_DELAY)
            }
        }
    }
}

/// A refused value as a status.
pub fn invalid(invalid: Invalid) -> Status {
    Refusal::from(invalid).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_reason_field_and_whether_to_retry() {
        let status: Status = Refusal::field("URL_INVALID", "endpoint.url", "is no URL").into();
        let details = status.get_error_details();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "endpoint.url: is no URL");
        let info = details.error_info().unwrap();
        assert_eq!((&*info.reason, &*info.domain), ("URL_INVALID", DOMAIN));
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "endpoint.url");
        assert!(details.retry_info().is_none());

        let away = StoreError::new(StoreErrorKind::Unavailable);
        let status: Status = Refusal::from(away).into();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_error_details().retry_info().is_some());
    }
}
