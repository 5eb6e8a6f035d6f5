//! The worker over a log and stores in memory, calling real sockets.
#![allow(clippy::unwrap_used)] // helpers of tests fail like tests

mod configuration;
mod crash;
mod fairness;
mod hostile;
mod parking;
mod retrying;
mod sending;
mod sink;
mod world;
