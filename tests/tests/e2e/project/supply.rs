//! What comes from outside: licences, bans and sources, judged by the `deny.toml` that cargo-deny
//! reads, on every machine. (Advisories need a database from the network: see `.ci/audit`.)

use std::process::Command;

use serde::Deserialize;

use super::root;

#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
    /// Those that may bring it all the same.
    #[serde(default)]
    wrappers: Vec<String>,
}

#[derive(Deserialize)]
struct Sources {
    #[serde(rename = "allow-registry")]
    allow_registry: Vec<String>,
}

#[test]
fn every_licence_is_allowed() {
    let rules = rules();
    for package in packages() {
        let allowed = allowed(&package.license, &rules.licenses.allow);
        assert!(
            allowed,
            "{} {} is under {:?}, which deny.toml does not allow",
            package.name, package.version, package.license
        );
    }
}

#[test]
fn nothing_banned_is_built() {
    let rules = rules();
    for package in packages() {
        let ban = rules.bans.deny.iter().find(|ban| ban.name == package.name);
        if let Some(ban) = ban {
            let allowed = |by: &String| ban.wrappers.contains(by);
            let by = dependents(&package);
            assert!(
                !by.is_empty() && by.iter().all(allowed),
                "{} is banned, and {by:?} depend on it: {}",
                ban.name,
                ban.reason
            );
        }
    }
}

#[test]
fn every_source_is_known() {
    let rules = rules();
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("there is a lock file");
    let sources = lock
        .lines()
        .filter_map(|line| line.strip_prefix("source = "));
    for source in sources {
        let url = source
            .trim_matches('"')
            .strip_prefix("registry+")
            .unwrap_or(source);
        let known = rules
            .sources
            .allow_registry
            .iter()
            .any(|registry| registry == url);
        assert!(known, "{source} is not a source that deny.toml allows");
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allow = [
        "MIT".to_owned(),
        "ISC".to_owned(),
        "Apache-2.0 WITH LLVM-exception".to_owned(),
    ];
    let cases = [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("GPL-3.0/MIT", true),
        ("ISC AND (GPL-3.0 OR MIT)", true),
        ("ISC AND GPL-3.0 OR MIT", true),
        ("MIT OR ISC AND GPL-3.0", true),
        ("(MIT OR ISC) AND GPL-3.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("", false),
    ];
    for (expression, expected) in cases {
        assert_eq!(allowed(expression, &allow), expected, "{expression:?}");
    }
}

struct Package {
    name: String,
    version: String,
    license: String,
}

/// Everything from outside that is compiled into anything of ours, on any platform. From
/// `cargo tree`, because `cargo metadata` also lists what no enabled feature asks for.
fn packages() -> Vec<Package> {
    let text = tree("--prefix none --format {p}|{l}");
    let mut lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines.dedup();
    let packages: Vec<_> = lines.into_iter().map(package).collect();
    assert!(
        packages.len() > 100,
        "cargo tree listed next to nothing: {text}"
    );
    packages
}

/// Who depends on `package` directly.
fn dependents(package: &Package) -> Vec<String> {
    let version = package.version.trim_start_matches('v');
    let asked = format!(
        "--prefix none --depth 1 --invert {}@{version}",
        package.name
    );
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let lines = tree(&asked).lines().skip(1).map(name).collect::<Vec<_>>();
    lines.into_iter().filter(|name| !name.is_empty()).collect()
}

fn tree(more: &str) -> String {
    let arguments = format!("tree --locked --workspace --target all -e normal,build {more}");
    let out = Command::new(env!("CARGO"))
        .args(arguments.split(' '))
        .current_dir(root())
        .output()
        .expect("cargo tree runs");
    String::from_utf8(out.stdout).expect("cargo tree prints UTF-8")
}

fn package(line: &str) -> Package {
    let (id, license) = line.split_once('|').expect("the format has a bar");
    let mut words = id.split(' ');
    Package {
        name: words.next().unwrap_or_default().to_owned(),
        version: words.next().unwrap_or_default().to_owned(),
        license: license.trim_end_matches(" (*)").to_owned(),
    }
}

/// Whether an SPDX expression can be satisfied by allowed licences alone.
fn allowed(expression: &str, allow: &[String]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    any(&mut words, allow) && words.is_empty()
}

/// `all (OR all)*`; `words` is a stack, its next word last.
fn any(words: &mut Vec<&str>, allow: &[String]) -> bool {
    let mut holds = all(words, allow);
    while words.last() == Some(&"OR") {
        words.pop();
        holds |= all(words, allow);
    }
    holds
}

/// `one (AND one)*`
fn all(words: &mut Vec<&str>, allow: &[String]) -> bool {
    let mut holds = one(words, allow);
    while words.last() == Some(&"AND") {
        words.pop();
        holds &= one(words, allow);
    }
    holds
}

/// A licence, with its exception if it has one, or an expression in brackets.
fn one(words: &mut Vec<&str>, allow: &[String]) -> bool {
    let Some(word) = words.pop() else {
        return false;
    };
    if word == "(" {
        let holds = any(words, allow);
        return words.pop() == Some(")") && holds;
    }
    let mut license = word.trim_end_matches('+').to_owned();
    if words.last() == Some(&"WITH") {
        words.pop();
        license = format!("{license} WITH {}", words.pop().unwrap_or_default());
    }
    allow.contains(&license)
}

fn rules() -> Rules {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("there is a deny.toml");
    toml::from_str(&text).expect("deny.toml is TOML of the expected shape")
}
