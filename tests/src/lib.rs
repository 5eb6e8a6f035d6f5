//! What the end-to-end tests are made of: a real receiver, the real server, and the oracle that
//! compares what a client was told with what subscribers saw.
//!
//! Nothing here stands in for a part of Fanfare: the server under test is the `fanfare` binary and
//! is spoken to over its sockets only. The [`ledger`] knows an address and receivers, not a
//! process, so it judges any deployment.

#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a test's failure is a panic"
)]

pub mod api;
pub mod bad_disk;
pub mod binary;
pub mod collector;
pub mod eventually;
pub mod fleet;
pub mod foreign;
pub mod http;
pub mod ledger;
pub mod metrics;
pub mod refusal;
pub mod server;
pub mod sink;
pub mod world;

pub use eventually::eventually;
pub use fleet::{Fleet, Services};
pub use world::World;
