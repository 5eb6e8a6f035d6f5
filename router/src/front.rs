//! The front door: everything a producer, an operator or a program asks of Fanfare.
//!
//! - [`errors`] is the one way to refuse: a reason, a field, and what to do.
//! - [`caller`] is who asks, decided before any service sees the request; [`access`] decides it.
//! - `paging` gives lists sizes and tokens.

pub mod access;
pub mod caller;
pub mod deliveries;
pub mod endpoints;
pub mod errors;
pub mod management;
mod messages;
mod newest;
pub(crate) mod paging;
pub mod subscriptions;
