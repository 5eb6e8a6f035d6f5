//! The promises over Kafka and a CQL store: routers and workers as processes, real brokers and nodes.
//!
//! One test at a time: each has a handful of processes, and the machine two cores.

#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod balanced_by_brokers;
mod brokers;
mod crash_points;
mod frozen;
mod kill;
mod operator;
mod refusals;
mod rolling;
mod scale;
mod secured;
mod slow;
mod stage;
mod store;
mod story;
mod telemetry;
