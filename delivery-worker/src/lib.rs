//! The delivery worker: takes what is owed from the log and POSTs it to its subscribers.
//!
//! In the order of a delivery: [`worker`] joins the group; a [`shift`] works one leased span: it
//! reads records, hands each delivery to its endpoint's [`lane`], or parks it. A sender of the lane
//! makes an [`attempt`] on its own [`line`] ([`callee`], [`envelope`], [`request`], [`sign`] make
//! the POST, [`connect`] the vetted connection, [`answer`] reads what comes back). The [`books`]
//! judge the outcome, write it down, and settle. [`due`] brings back what must be tried again.
//!
//! Invariants: no loop waits for one endpoint; nothing is settled before its fate is written;
//! a first try reads nothing from a store; a failed webhook is data, never an `Err`.

mod answer;
mod attempt;
mod books;
mod callee;
pub mod config;
mod connect;
mod due;
mod envelope;
mod instruments;
mod lane;
mod letter;
mod line;
mod request;
mod shift;
pub mod sign;
mod standing;
mod worker;

pub use config::WorkerConfig;
pub use fanfare_service::egress::EgressPolicy;
pub use worker::{SetupError, Worker};
