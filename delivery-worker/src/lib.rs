//! The delivery worker: takes what is owed from the log and POSTs it to its subscribers.

pub mod config;
pub mod sign;
mod worker;

pub use config::WorkerConfig;
pub use fanfare_service::egress::EgressPolicy;
pub use worker::{SetupError, Worker};
