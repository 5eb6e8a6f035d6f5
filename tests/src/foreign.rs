//! Other languages' tools, fetched from their package registries into `.cache` (ignored by git) on
//! first use, by their ordinary clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock};

use crate::binary::repository;

/// Exact versions: a test must not change because someone published something.
const NPM: &[&str] = &["standardwebhooks@1.1.1", "@octokit/webhooks-examples@7.6.1"];
const PIP: &[&str] = &[
    "standardwebhooks==1.1.0",
    "grpcio==1.85.1",
    "grpcio-reflection==1.85.1",
    "jsonschema==4.25.1",
];
const GRPCURL: &str = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.8.9";

/// A `node_modules` folder with [`NPM`].
pub fn node_modules() -> PathBuf {
    static READY: OnceLock<PathBuf> = OnceLock::new();
    READY
        .get_or_init(|| fetched("node", &NPM.join("\n"), install_node).join("node_modules"))
        .clone()
}

/// A Python with [`PIP`].
pub fn python() -> PathBuf {
    static READY: OnceLock<PathBuf> = OnceLock::new();
    READY
        .get_or_init(|| fetched("python", &PIP.join("\n"), install_python).join("bin/python"))
        .clone()
}

/// The `grpcurl` program.
pub fn grpcurl() -> PathBuf {
    static READY: OnceLock<PathBuf> = OnceLock::new();
    READY
        .get_or_init(|| fetched("grpcurl", GRPCURL, install_grpcurl).join("grpcurl"))
        .clone()
}

/// `.cache/NAME`, made by `install` unless it was already made for the same `wanted`.
fn fetched(name: &str, wanted: &str, install: fn(&Path)) -> PathBuf {
    let cache = repository().join(".cache");
    fs::create_dir_all(&cache).expect("the repository can be written");
    // Two runs of the tests may share the folder.
    let lock = fs::File::create(cache.join(format!("{name}.lock"))).expect("a lock file");
    flock(&lock, FlockOperation::LockExclusive).expect("a lock");
    let dir = cache.join(name);
    let stamp = dir.join("fetched");
    if fs::read_to_string(&stamp).is_ok_and(|had| had == wanted) {
        return dir;
    }
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("the cache can be written");
    install(&dir);
    fs::write(&stamp, wanted).expect("the cache can be written");
    dir
}

fn install_node(dir: &Path) {
    let mut command = Command::new("npm");
    command
        .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
        .arg(dir)
        .args(NPM);
    run(&mut command);
}

fn install_python(dir: &Path) {
    run(Command::new("python3").args(["-m", "venv"]).arg(dir));
    run(Command::new(dir.join("bin/pip"))
        .args(["install", "--quiet"])
        .args(PIP));
}

fn install_grpcurl(dir: &Path) {
    run(Command::new("go")
        .args(["install", GRPCURL])
        .env("GOBIN", dir));
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
