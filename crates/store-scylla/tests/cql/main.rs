//! The CQL stores on real nodes: the suites of the seams, migrations, and faults.

#![allow(clippy::unwrap_used)] // tests

mod bodies;
mod conformance;
mod faults;
mod layout;
mod node;
mod opening;
mod proxy;
mod secured;
