//! How a command fails: an exit code, a machine-readable code, one sentence and what to do next.

use std::fmt::Write as _;
use std::io;

use clap::error::ErrorKind;
use fanfare_service::configuration::ConfigurationError;
use serde::Serialize;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::output::{Format, plain};

/// Exit codes, the same for every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nobody reads our output any more, or everything is as asked.
    Done,
    /// Refused or failed.
    Refused,
    /// The command line or the configuration is wrong.
    Usage,
    /// No server answers.
    Unreachable,
    /// It may have happened: repeat with the same id.
    Unknown,
    /// The credential is missing, wrong or not enough.
    Credential,
}

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    /// What the process exits with.
    pub exit: Exit,
    code: String,
    message: String,
    violations: Vec<Violation>,
}

/// A field and what is wrong with it.
#[derive(Clone, Debug, Serialize)]
struct Violation {
    field: String,
    message: String,
}

impl Exit {
    /// As a number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Usage => 64,
            Self::Unreachable => 69,
            Self::Unknown => 75,
            Self::Credential => 77,
        }
    }
}

impl Failure {
    /// Refused or failed; `message` says what to do next.
    pub fn refused(code: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, code, message)
    }

    /// The command line or the configuration is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "USAGE", message)
    }

    /// It may have happened.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Exit::Unknown, "UNKNOWN_OUTCOME", message)
    }

    /// No server answers at `server`.
    pub fn unreachable(server: &str, why: &str) -> Self {
        let message = format!(
            "no Fanfare server answers at {server} ({why}); start one with 'fanfare serve', or name yours with --server or FANFARE_SERVER"
        );
        Self::new(Exit::Unreachable, "SERVER_UNREACHABLE", message)
    }

    /// What clap refused. People see clap's own text, which shows the usage.
    pub fn usage_of_clap(error: &clap::Error, format: Format) -> Self {
        let text = error.to_string();
        let text = text.trim().trim_start_matches("error: ");
        if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            let what = "say what to do: a command is missing";
            return match format {
                Format::Table => Self::usage(format!("{what}\n\n{text}")),
                Format::Json => Self::usage(what),
            };
        }
        match format {
            Format::Table => Self::usage(text),
            Format::Json => Self::usage(text.lines().next().unwrap_or(text)),
        }
    }

    /// What the server answered, or that it did not.
    pub fn of_status(status: &tonic::Status, server: &str) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone());
        if reason.is_none() && is_transport(status) {
            return Self::unreachable(server, status.message());
        }
        let code = reason.unwrap_or_else(|| upper_snake(status.code()));
        let exit = match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Exit::Credential,
            Code::DeadlineExceeded => Exit::Unreachable,
            _ => Exit::Refused,
        };
        let mut failure = Self::new(exit, &code, said_by(status));
        if let Some(request) = details.bad_request() {
            failure.violations = request.field_violations.iter().map(violation).collect();
        }
        if let Some(after) = details.retry_info().and_then(|info| info.retry_delay) {
            let _ = write!(failure.message, "; try again in {after:?}");
        }
        failure
    }

    /// What became of a write: as [`Failure::of_status`], but where the server may have done it,
    /// the outcome is unknown.
    pub fn of_write(status: &tonic::Status, server: &str, repeat: &str) -> Self {
        let reason = status
            .get_error_details()
            .error_info()
            .map(|i| i.reason.clone());
        let unknown = match reason.as_deref() {
            Some(reason) => reason == "PUBLISH_UNKNOWN",
            None => is_transport(status) || is_cut_short(status.code()),
        };
        if !unknown {
            return Self::of_status(status, server);
        }
        Self::unknown(format!(
            "it is not known whether it happened ({}); {repeat}",
            said_by(status)
        ))
    }

    /// The machine-readable code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same failure with `context` in front of its sentence.
    #[must_use]
    pub fn context(mut self, context: &str) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Writes it to stderr.
    pub fn print(&self, format: Format) {
        if self.exit == Exit::Done {
            return;
        }
        match format {
            Format::Json => {
                let error = serde_json::json!({
                    "error": {
                        "code": self.code,
                        "message": self.message,
                        "violations": self.violations,
                    }
                });
                eprintln!("{error}");
            }
            Format::Table => {
                eprintln!("fanfare: {}", self.message);
                for violation in &self.violations {
                    // The sentence often is the violation's: do not say it twice.
                    if !self.message.contains(&violation.message) {
                        eprintln!("  {}: {}", violation.field, violation.message);
                    }
                }
            }
        }
    }

    /// Any.
    pub fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self {
            exit,
            code: code.to_owned(),
            message: message.into(),
            violations: Vec::new(),
        }
    }
}

impl From<ConfigurationError> for Failure {
    fn from(error: ConfigurationError) -> Self {
        let message = format!("configuration: {error}");
        Self::new(Exit::Usage, "CONFIGURATION_INVALID", message)
    }
}

impl From<io::Error> for Failure {
    /// Of writing our output: a closed pipe is how `| head` says that it has enough.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Done, "DONE", String::new());
        }
        Self::refused("OUTPUT", format!("cannot write the output: {error}"))
    }
}

/// Whether the status was made on our side because the connection failed.
fn is_transport(status: &tonic::Status) -> bool {
    let transport = |code| matches!(code, Code::Unavailable | Code::Unknown | Code::Cancelled);
    transport(status.code()) && std::error::Error::source(status).is_some()
}

/// Codes of calls that ended before their answer.
fn is_cut_short(code: Code) -> bool {
    matches!(
        code,
        Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Unavailable
    )
}

fn said_by(status: &tonic::Status) -> String {
    match status.message() {
        "" => upper_snake(status.code()).to_lowercase().replace('_', " "),
        message => plain(message),
    }
}

fn violation(of: &tonic_types::FieldViolation) -> Violation {
    Violation {
        field: plain(&of.field),
        message: plain(&of.description),
    }
}

/// `InvalidArgument` as `INVALID_ARGUMENT`.
fn upper_snake(code: Code) -> String {
    let mut text = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn with_reason(code: Code, reason: &str) -> tonic::Status {
        let details = ErrorDetails::with_error_info(reason, "fanfare", []);
        tonic::Status::with_error_details(code, "a sentence", details)
    }

    #[test]
    fn each_answer_has_its_exit_code() {
        for (code, reason, exit) in [
            (Code::InvalidArgument, "EVENT_TYPE_INVALID", Exit::Refused),
            (
                Code::Unauthenticated,
                "CREDENTIAL_MISSING",
                Exit::Credential,
            ),
            (
                Code::PermissionDenied,
                "TENANT_NOT_ALLOWED",
                Exit::Credential,
            ),
            (Code::Unavailable, "PUBLISH_UNKNOWN", Exit::Unknown),
            (Code::Unavailable, "DRAINING", Exit::Refused),
        ] {
            let failure = Failure::of_write(&with_reason(code, reason), "http://x", "again");
            assert_eq!(failure.exit, exit, "{reason}");
        }
        let cut = tonic::Status::new(Code::DeadlineExceeded, "late");
        assert_eq!(
            Failure::of_write(&cut, "http://x", "again").exit,
            Exit::Unknown
        );
        assert_eq!(Failure::of_status(&cut, "http://x").exit, Exit::Unreachable);
    }

    #[test]
    fn codes_are_spelt_as_in_the_error_table() {
        assert_eq!(upper_snake(Code::InvalidArgument), "INVALID_ARGUMENT");
        assert_eq!(upper_snake(Code::Ok), "OK");
    }
}
