//! A missing build dependency is one sentence, said before anything is built.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use super::root;

/// What the script itself runs, beside the shell's own words.
const BASICS: &[&str] = &["bash", "env", "id", "sed", "sort", "head", "cut"];

/// What the script asks for beside Rust and npm, as commands.
const OTHERS: &[&str] = &[
    "cc",
    "c++",
    "make",
    "pkg-config",
    "node",
    "go",
    "python3",
    "java",
    "mvn",
    "setpriv",
    "openssl",
];

#[test]
fn a_missing_program_is_named_in_one_sentence() {
    let said = needs_with(&[OTHERS, &["npm"]].concat());
    assert_eq!(
        said,
        "fanfare: missing: Rust. Install it from https://rustup.rs and run make again.\n"
    );

    let said = needs_with(&[OTHERS, &["cargo", "rustc"]].concat());
    assert_eq!(
        said,
        "fanfare: missing: npm. Install them (Debian: apt-get install npm) and run make again.\n"
    );

    let others: Vec<_> = OTHERS.iter().copied().filter(|o| *o != "java").collect();
    let said = needs_with(&[&others[..], &["cargo", "rustc", "npm"]].concat());
    assert_eq!(
        said,
        "fanfare: missing: java. Install them (Debian: apt-get install openjdk-17-jre-headless) \
         and run make again.\n"
    );
}

/// Runs the check where only `programs` and the basics can be found; it must refuse.
fn needs_with(programs: &[&str]) -> String {
    let bin = tempfile::tempdir().expect("a directory");
    for name in BASICS {
        symlink(find(name), bin.path().join(name)).expect("a link");
    }
    // Only that they are there is asked; a real python3 may be a shim that needs more programs.
    for name in programs {
        symlink(find("true"), bin.path().join(name)).expect("a link");
    }
    let out = run(bin.path());
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert!(out.stdout.is_empty(), "{out:?}");
    String::from_utf8(out.stderr).expect("UTF-8")
}

fn run(path: &Path) -> Output {
    Command::new("bash")
        .args([".ci/needs", "test"])
        .current_dir(root())
        .env_clear()
        .env("PATH", path)
        .env("HOME", std::env::var_os("HOME").unwrap_or_default())
        .output()
        .expect("bash runs")
}

fn find(name: &str) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").expect("a PATH");
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| fs::metadata(file).is_ok_and(|meta| meta.is_file()))
        .unwrap_or_else(|| panic!("{name} is on the PATH"))
}
