//! What can go wrong: [`OpenError`] when the store is opened or migrated, in one sentence that says
//! what to do; afterwards the kinds of the seam.

use std::error::Error;
use std::fmt;

use fanfare_store::{StoreError, StoreErrorKind};
use scylla::errors::{
    DbError, ExecutionError, PrepareError, RequestAttemptError, UseKeyspaceError,
};

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
        if answer(error).is_some_and(|db| !may_pass(db)) {
            return Self::new(OpenErrorKind::Refused, format!("the store refuses: {said}"));
        }
        let text = format!(
            "no node of the store answers at {}; check contact_points, that it runs, and tls_ca_file, \
             which turns TLS on ({said})",
            points.join(", ")
        );
        Self::new(OpenErrorKind::Unreachable, text)
    }

    /// The statement `text` could not be prepared. One that the store does not know, it will not know
    /// later; a connection that broke meanwhile says nothing about it.
    pub(crate) fn of_prepare(text: &str, error: &PrepareError) -> Self {
        match error {
            PrepareError::AllAttemptsFailed {
                first_attempt: RequestAttemptError::DbError(db, _),
            } if !may_pass(db) => {
                let text =
                    format!("the store does not know '{text}': {error}; run fanfare migrate");
                Self::new(OpenErrorKind::Refused, text)
            }
            _ => {
                let text = format!(
                    "the store did not answer when it was asked to prepare '{text}': {error}"
                );
                Self::new(OpenErrorKind::Unreachable, text)
            }
        }
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

/// Whether a node said that it has no such keyspace or table.
pub(crate) fn is_unknown_name(error: &(dyn Error + 'static)) -> bool {
    matches!(answer(error), Some(DbError::Invalid))
}

/// What a node answered, when one did.
fn answer<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a DbError> {
    let request = match error.downcast_ref() {
        Some(ExecutionError::LastAttemptError(attempt)) => Some(attempt),
        _ => None,
    };
    let using = match error.downcast_ref() {
        Some(UseKeyspaceError::RequestError(attempt)) => Some(attempt),
        _ => None,
    };
    match request.or(using) {
        Some(RequestAttemptError::DbError(db, _)) => Some(db),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_statement_that_the_store_refuses_is_refused() {
        let of = |first_attempt| {
            let error = PrepareError::AllAttemptsFailed { first_attempt };
            OpenError::of_prepare("SELECT 1", &error).kind()
        };
        let says = |db| RequestAttemptError::DbError(db, String::new());
        assert_eq!(of(says(DbError::Invalid)), OpenErrorKind::Refused);
        assert_eq!(of(says(DbError::SyntaxError)), OpenErrorKind::Refused);
        assert_eq!(of(says(DbError::Overloaded)), OpenErrorKind::Unreachable);
        let broken = RequestAttemptError::UnableToAllocStreamId;
        assert_eq!(of(broken), OpenErrorKind::Unreachable);
    }
}
