//! What the server says when it refuses, taken apart.

use std::borrow::Borrow;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A refusal with its details.
#[derive(Debug)]
pub struct Refusal {
    /// gRPC code.
    pub code: Code,
    /// `ErrorInfo.reason`; empty if there is none.
    pub reason: String,
    /// One sentence for a person.
    pub message: String,
    /// Fields at fault, each with what to do.
    pub fields: Vec<(String, String)>,
    /// When a retry can help.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// From a call's error.
    pub fn of(status: impl Borrow<Status>) -> Self {
        let status = status.borrow();
        let details = status.get_error_details();
        let info = details.error_info();
        if let Some(info) = info {
            assert_eq!(info.domain, "fanfare", "{status:?}");
        }
        let fields = details
            .bad_request()
            .map(|bad| &bad.field_violations[..])
            .unwrap_or_default();
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            fields: fields
                .iter()
                .map(|v| (v.field.clone(), v.description.clone()))
                .collect(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            message: status.message().to_owned(),
        }
    }

    /// From one event's result.
    pub fn of_result(error: &tonic_types::Status) -> Self {
        let code = Code::from_i32(error.code);
        let details = prost::Message::encode_to_vec(error);
        Self::of(Status::with_details(
            code,
            error.message.clone(),
            details.into(),
        ))
    }
}
