//! The router: takes events in, manages what is configured, and turns each event into the
//! deliveries it owes.

pub mod front;
pub mod inquiry;
pub mod instruments;
pub mod matching;
pub mod routing;
mod traced;
