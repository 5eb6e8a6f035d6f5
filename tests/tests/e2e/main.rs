//! Fanfare from the outside: the real binary, real receivers, real faults.
//!
//! One binary, so that it links once. `stories` say what a user sees, `faults` break things under
//! load and count with the ledger, `refusals` are bad input, `foreign` are other languages,
//! `telemetry` is what operators see,
//! `readme` runs the README, and `project` holds the repository to its own rules.

#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod faults;
mod foreign;
mod project;
mod readme;
mod refusals;
mod stories;
mod telemetry;
