//! The one way to refuse: `google.rpc.Status` with one `ErrorInfo` of domain `fanfare`,
//! `BadRequest` for fields, and `RetryInfo` if and only if a retry can help; over HTTP the same as
//! `{"error":{"code","message","violations":[{"field","message"}]}}` and `Retry-After`.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use fanfare_domain::{Invalid, Reason};
use fanfare_event_log::{LogError, LogErrorKind};
use fanfare_store::{StoreError, StoreErrorKind};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use prost::Message as _;
use tonic::body::Body;
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

    /// The server has no room for this call now; nothing was accepted.
    pub fn overloaded() -> Self {
        let what = "the server is busy and did not take this; send it again shortly";
        Self::new(Code::ResourceExhausted, "OVERLOADED", what).retry_after(RETRY_DELAY / 2)
    }

    /// The server is about to stop; nothing was accepted.
    pub fn draining() -> Self {
        let what = "the server is stopping and did not take this; send it again";
        Self::new(Code::Unavailable, "DRAINING", what).retry_after(RETRY_DELAY / 5)
    }

    /// What a failed append of events means to whoever published one of them.
    pub fn of_append(error: &LogError) -> Self {
        match error.kind() {
            LogErrorKind::TooLarge => {
                let advice = "is larger than the log takes; send a reference to the data instead";
                Self::field("EVENT_TOO_LARGE", "event.data", advice)
            }
            LogErrorKind::Closed => Self::draining(),
            kind => LogError::new(kind).into(),
        }
    }

    /// The HTTP status that goes with it.
    pub fn http_status(&self) -> StatusCode {
        match (self.reason, self.code) {
            ("EVENT_TOO_LARGE" | "BATCH_TOO_LARGE", _) => StatusCode::PAYLOAD_TOO_LARGE,
            ("METHOD_NOT_ALLOWED", _) => StatusCode::METHOD_NOT_ALLOWED,
            ("MEDIA_TYPE_NOT_SUPPORTED", _) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            (_, Code::InvalidArgument | Code::FailedPrecondition) => StatusCode::BAD_REQUEST,
            (_, Code::Unimplemented) => StatusCode::NOT_IMPLEMENTED,
            (_, Code::AlreadyExists | Code::Aborted) => StatusCode::CONFLICT,
            (_, Code::NotFound) => StatusCode::NOT_FOUND,
            (_, Code::Unauthenticated) => StatusCode::UNAUTHORIZED,
            (_, Code::PermissionDenied) => StatusCode::FORBIDDEN,
            (_, Code::ResourceExhausted) => StatusCode::TOO_MANY_REQUESTS,
            (_, Code::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
            (_, Code::DeadlineExceeded) => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// As a message, for results within an answer.
    pub fn to_message(&self) -> tonic_types::Status {
        let status = Status::from(self.clone());
        // tonic's details are the encoded message itself, made a line above.
        tonic_types::Status::decode(status.details()).unwrap_or_default()
    }

    /// The value of `error` in an HTTP body.
    pub fn to_json(&self) -> serde_json::Value {
        let violation = |field| serde_json::json!({ "field": field, "message": self.message });
        let violations: Vec<_> = self.field.as_ref().map(violation).into_iter().collect();
        serde_json::json!({
            "code": self.reason,
            "message": self.to_string(),
            "violations": violations,
        })
    }

    /// A whole HTTP answer.
    pub fn to_http(&self) -> Response<Body> {
        self.to_http_with(&serde_json::json!({ "error": self.to_json() }))
    }

    /// An HTTP answer with this refusal's status and headers, and another body.
    pub fn to_http_with(&self, body: &serde_json::Value) -> Response<Body> {
        let body = Bytes::from(body.to_string());
        let mut answer = Response::new(Body::new(Full::new(body)));
        *answer.status_mut() = self.http_status();
        let headers = answer.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code == Code::Unauthenticated {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        answer
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
            StoreErrorKind::BadToken => {
                let invalid = fanfare_store::PageToken::invalid();
                Self::field("PAGE_TOKEN_INVALID", invalid.field, invalid.message)
            }
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

    #[test]
    fn an_append_of_unknown_outcome_is_never_called_refused() {
        let unknown = Refusal::of_append(&LogError::new(LogErrorKind::Unknown));
        assert_eq!(unknown.reason(), "PUBLISH_UNKNOWN");
        assert_eq!(unknown.http_status(), StatusCode::SERVICE_UNAVAILABLE);
        let full = Refusal::of_append(&LogError::new(LogErrorKind::Full));
        assert_eq!(full.reason(), "STORAGE_FULL");
        assert_eq!(full.http_status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(!full.to_http().headers().contains_key("retry-after"));
    }

    #[test]
    fn http_says_the_same() {
        let refusal = Refusal::field("EVENT_TOO_LARGE", "event.data", "is too large");
        assert_eq!(refusal.http_status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(refusal.to_json()["violations"][0]["field"], "event.data");
        assert_eq!(refusal.to_message().details.len(), 2);
        let busy = Refusal::overloaded().to_http();
        assert_eq!(busy.headers()["retry-after"], "1");
    }
}
