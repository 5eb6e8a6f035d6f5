//! Where the binary under test is.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The repository's root.
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .canonicalize()
        .expect("the tests crate lies in the repository")
}

/// The `fanfare` binary: `FANFARE_BIN` if that is set (as `make test` does, having built it), else
/// built now, as part of the whole workspace so that nothing is compiled twice.
pub fn fanfare() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY
        .get_or_init(|| std::env::var_os("FANFARE_BIN").map_or_else(build, PathBuf::from))
        .clone()
}

fn build() -> PathBuf {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--workspace", "--all-targets"])
        .current_dir(repository())
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the workspace does not build");
    built("fanfare")
}

/// A program of the same build as these tests, by its path in the profile's directory.
pub fn built(path: &str) -> PathBuf {
    // This very program lies in TARGET/debug/deps.
    let here = std::env::current_exe().expect("a program knows its path");
    let profile = here
        .ancestors()
        .nth(2)
        .expect("deps lies in a profile's directory");
    profile.join(path)
}
