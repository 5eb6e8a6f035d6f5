//! The promises over Kafka and a CQL store: routers and workers as processes, real brokers and nodes.
//!
//! Two tests at a time: each has a handful of processes, and waits most of its time.

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
