//! The delivery worker: takes what is owed from the log and POSTs it to its subscribers, signed,
//! until each delivery is delivered or a dead letter.
//!
//! # Reading order
//!
//! The way of a delivery: a [`worker`] works a [`shift`] for every span of the log it is granted.
//! The [`intake`] reads records and offers each delivery to its endpoint's lane ([`lanes`], pure
//! state; [`crew`] puts it to work; [`standing`] says whether it may go out at all). A [`sender`]
//! makes an [`attempt`] on its own [`line`] ([`callee`], [`envelope`], [`request`], [`sign`] make
//! the POST; [`connect`] the vetted connection; [`answer`] reads what comes back), and hands in
//! what became of it at the shift's [`desk`]. The [`clerk`] makes a [`plan`] of a batch, has it
//! written and settles it; the [`chronicle`] keeps the history.
//!
//! What comes back: [`due`] retries, [`parked`] deliveries, dead letters by [`redrive`]; their
//! bodies are fetched by [`owed`]. What ends: [`endings`] and [`disable`].
//!
//! # Invariants
//!
//! - No loop waits for one endpoint.
//! - A first try reads nothing from a store, and writes nothing but history when it is delivered.
//! - Nothing is settled before its fate is durable; nothing is sent twice at once.
//! - A failed webhook is data, never an `Err`, and our own faults never count against an endpoint.
//! - Every owner's write carries the lease's tenure; what comes back after a lost lease is dropped.

mod ages;
mod answer;
mod attempt;
mod callee;
mod chronicle;
mod clerk;
pub mod config;
mod connect;
mod crew;
mod desk;
mod disable;
mod due;
mod endings;
pub mod envelope;
mod instruments;
mod intake;
mod lanes;
mod letter;
mod line;
mod owed;
mod parked;
mod plan;
mod redrive;
mod report;
mod request;
mod seat;
mod sender;
mod shift;
pub mod sign;
mod standing;
mod worker;

pub use config::WorkerConfig;
pub use fanfare_service::egress::EgressPolicy;
pub use worker::{GROUP, SetupError, Worker};
