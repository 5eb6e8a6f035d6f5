//! The repository's own rules: who may depend on whom, and on what from outside.

mod law;
mod needs;
mod schemas;
mod supply;

use std::path::PathBuf;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .canonicalize()
        .expect("the tests crate lies in the repository")
}
