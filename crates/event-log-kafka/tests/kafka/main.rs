//! The log against real brokers: the suite that every backend passes, and what is Kafka's own.

mod admin;
mod conformance;
mod faults;
mod secured;
mod topics;
mod world;
