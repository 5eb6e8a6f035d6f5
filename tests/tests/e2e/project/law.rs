//! The dependency law: `domain` <- {`event-log`, `store`} <- adapters; the router and the delivery
//! worker know neither each other nor an adapter; only programs choose adapters; only its adapter
//! names the client library of a backend.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use super::root;

/// Each crate of ours, and which others of ours its own code may name. A new edge is added here,
/// with thought, or not at all.
const LAW: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("event-log", &["domain"]),
    ("store", &["domain"]),
    ("embedded", &["domain", "event-log", "store"]),
    ("event-log-kafka", &["domain", "event-log"]),
    ("store-scylla", &["domain", "store"]),
    ("service", &["domain"]),
    ("proto", &[]),
    (
        "router",
        &["domain", "event-log", "store", "service", "proto"],
    ),
    (
        "delivery-worker",
        &["domain", "event-log", "store", "service"],
    ),
];

/// Programs and tests: they choose adapters, nothing depends on them.
const ENDS: &[&str] = &["fanfare", "bench", "tests"];

/// Starts real services for tests and measurements; it knows nothing of ours, and only those may
/// name it.
const SERVICES: &str = "test-services";

/// The client libraries of backends, with whatever belongs to them, and who may name each, even in
/// their tests.
const CLIENTS: &[(&str, &[&str])] = &[
    // The bench for a bare producer to compare with.
    ("rdkafka", &["bench", "event-log-kafka"]),
    ("scylla", &["store-scylla"]),
];

/// Pairs that may not meet even in their tests.
const STRANGERS: &[(&str, &str)] = &[("router", "delivery-worker"), ("delivery-worker", "router")];

#[test]
fn no_crate_depends_on_what_the_law_does_not_allow() {
    let law: BTreeMap<&str, BTreeSet<&str>> = LAW
        .iter()
        .map(|(name, may)| (*name, may.iter().copied().collect()))
        .collect();
    for (from, to, _) in edges(DependencyKind::Normal) {
        assert!(
            to != SERVICES || ["tests", "bench"].contains(&from.as_str()),
            "{from} may name {to} in its tests only"
        );
        if ENDS.contains(&from.as_str()) {
            continue;
        }
        let may = law
            .get(from.as_str())
            .unwrap_or_else(|| panic!("{from} is not in the law"));
        assert!(may.contains(to.as_str()), "{from} may not depend on {to}");
    }
}

#[test]
fn nothing_depends_on_a_program() {
    for (from, to, _) in all_edges() {
        assert!(
            !ENDS.contains(&to.as_str()),
            "{from} depends on {to}, which is an end"
        );
    }
}

#[test]
fn the_router_and_the_delivery_worker_never_meet() {
    for (from, to, kind) in all_edges() {
        let strangers = STRANGERS
            .iter()
            .any(|(a, b)| (*a, *b) == (from.as_str(), to.as_str()));
        assert!(!strangers, "{from} depends on {to} ({kind:?})");
    }
}

#[test]
fn only_its_adapter_names_the_client_of_a_backend() {
    let metadata = metadata();
    for (client, may) in CLIENTS {
        let is_of_it = |name: &str| name.split('-').next() == Some(client);
        let members = metadata.workspace_packages().into_iter();
        let naming = members.filter(|p| p.dependencies.iter().any(|d| is_of_it(&d.name)));
        let mut naming: Vec<_> = naming.map(|p| short(p.name.as_str())).collect();
        naming.sort();
        assert_eq!(naming, *may, "who names {client}");
    }
}

#[test]
fn domain_is_pure() {
    let metadata = metadata();
    let domain = metadata
        .packages
        .iter()
        .find(|p| p.name.as_str() == "fanfare-domain");
    let names = domain.expect("there is a domain").dependencies.iter();
    for name in names
        .filter(|d| d.kind == DependencyKind::Normal)
        .map(|d| &d.name)
    {
        let io = [
            "tokio", "hyper", "tonic", "axum", "rustix", "fjall", "futures",
        ];
        assert!(
            !io.contains(&name.as_str()),
            "domain does no IO, yet depends on {name}"
        );
    }
}

fn all_edges() -> impl Iterator<Item = (String, String, DependencyKind)> {
    [
        DependencyKind::Normal,
        DependencyKind::Build,
        DependencyKind::Development,
    ]
    .into_iter()
    .flat_map(edges)
}

/// Edges between crates of ours, names without `fanfare-`.
fn edges(kind: DependencyKind) -> Vec<(String, String, DependencyKind)> {
    let metadata = metadata();
    let members = metadata.workspace_packages();
    let mut edges = Vec::new();
    for package in members {
        for dependency in &package.dependencies {
            if dependency.kind == kind && dependency.path.is_some() {
                edges.push((short(package.name.as_str()), short(&dependency.name), kind));
            }
        }
    }
    edges
}

fn short(name: &str) -> String {
    name.strip_prefix("fanfare-").unwrap_or(name).to_owned()
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .current_dir(root())
        .no_deps()
        .exec()
        .expect("cargo metadata answers")
}
