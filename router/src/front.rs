//! The front door: everything a producer, an operator or a program asks of Fanfare.
//!
//! - [`errors`] is the one way to refuse: a reason, a field, and what to do.
//! - [`caller`] is who asks, decided before any service sees the request; [`access`] decides it.
//! - `paging` gives lists sizes and tokens.

pub mod access;
pub mod caller;
pub mod errors;
#[allow(dead_code)] // until the lists use it
pub(crate) mod paging;
