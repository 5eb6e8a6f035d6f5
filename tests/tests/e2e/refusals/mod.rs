//! Bad input: each with an error that names the field and says what to do, the same over gRPC,
//! HTTP and the command line, and nothing half-written.

mod absent;
mod endpoints;
mod events;
mod serving;

use fanfare_tests::world::Said;
use serde_json::Value;

/// The error that a command with `-o json` prints, and its exit code.
pub(crate) fn refused(said: &Said) -> (i32, Value) {
    assert!(
        said.out.is_empty() || !said.out.contains("error"),
        "errors go to stderr: {said:?}"
    );
    let line = said.err.lines().last().unwrap_or_default();
    let error: Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    (said.code, error["error"].clone())
}
