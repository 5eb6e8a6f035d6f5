//! What can go wrong: [`OpenError`] when the store is opened or migrated, in one sentence that says
//! what to do; afterwards the kinds of the seam.

use std::error::Error;
use std::fmt;

use fanfare_store::{StoreError, StoreErrorKind};
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};

/// The store cannot be used.
#[derive(Debug)]
pub struct OpenError {
    kind: OpenErrorKind,
    text: String,
}

/// Why a store cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenErrorKind {
    /// The configuration is wrong.
    Config,
    /// No node answers.
    Unreachable,
    /// User or password are refused.
    Credentials,
    /// The keyspace or its tables are not there, or too old.
    NotMigrated,
    /// The tables are for newer programs only.
    NewerVersion,
    /// The store refused a statement.
    Refused,
}

impl OpenError {
    pub(crate) fn new(kind: OpenErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }

    /// Any failure of a request or a connection made while opening.
    pub(crate) fn of(points: &[String], error: &(dyn Error + 'static)) -> Self {
        let said = chain(error);
        let auth = ["credentials", "Authentication", "authentication"];
        if auth.iter().any(|word| said.contains(word)) {
            let text = "the store refuses the user or the password; check user and password or \
                        password_file";
            return Self::new(OpenErrorKind::Credentials, text);
        }
        if said.contains("invalid peer certificate") {
            let text = format!(
                "TLS with the store failed ({said}); check tls_ca_file, and that the nodes' \
                 certificates name their addresses"
            );
            return Self::new(OpenErrorKind::Config, text);
        }
        if let Some(ExecutionError::LastAttemptError(RequestAttemptError::DbError(db, _))) =
            error.downcast_ref()
            && !may_pass(db)
        {
            return Self::new(OpenErrorKind::Refused, format!("the store refuses: {said}"));
        }
        let text = format!(
            "no node of the store answers at {}; check contact_points, that it runs, and tls_ca_file, \
             which turns TLS on ({said})",
            points.join(", ")
        );
        Self::new(OpenErrorKind::Unreachable, text)
    }

    /// Why.
    pub fn kind(&self) -> OpenErrorKind {
        self.kind
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for OpenError {}

/// The error and its sources, but for those whose text was part of one before.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        source = error.source();
    }
    said
}

/// Whether the same request may succeed later.
fn may_pass(error: &DbError) -> bool {
    !matches!(
        error,
        DbError::SyntaxError
            | DbError::Invalid
            | DbError::Unauthorized
            | DbError::ConfigError
            | DbError::AlreadyExists { .. }
    )
}

/// A request that failed: the caller tries again.
pub(crate) fn failed(error: ExecutionError) -> StoreError {
    StoreError::because(StoreErrorKind::Unavailable, error)
}

/// Rows that are not what was asked for.
pub(crate) fn corrupt(error: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
    StoreError::because(StoreErrorKind::Corrupt, error)
}
