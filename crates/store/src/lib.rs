//! The store seams: small traits by role over the data sets of Fanfare, with one contract for
//! every backend.
//!
//! | role | data set | written by |
//! | --- | --- | --- |
//! | [`EventRows`] | the body of each event, once; who matched it; repeats and conflicts | router |
//! | [`Configuration`] | endpoints, subscriptions, and their feed of changes | management API |
//! | [`Retries`] | the authority on every delivery that failed once; due hints | shard owner |
//! | [`Parking`] | deliveries that wait for their endpoint, first in first out | shard owner |
//! | [`History`] | attempts, by endpoint and delivery | worker |
//! | [`DeadLetters`] | deliveries given up on | shard owner |
//! | [`ShardStates`] | per span: checkpoint, due cursor, last stamp | shard owner |
//!
//! # Contract of every role
//!
//! *Durability.* A write that resolves `Ok` is found by every later read, and is durable no later
//! than anything that is appended to the log, or written to any role, after it resolved. (A
//! backend that shares one journal with its log may therefore resolve early; nothing that leaves
//! the process, like an ack to a caller, may rely on more than the later append's ack. Configuration
//! is the exception: its writes resolve only when they are durable.)
//!
//! *Owners.* A method that takes a [`Tenure`](fanfare_domain::Tenure) checks it immediately before
//! writing and fails with `NotOwner` without a trace when it is over. Where two owners' writes
//! race all the same, the higher stamp wins.
//!
//! *Batches.* Not atomic. A failed batch may be written in part; every write is an upsert, so the
//! caller repeats it whole.
//!
//! *Bounds.* Every read takes a limit. Pages are at most [`PAGE_MAX`] rows; a page may be short or
//! even empty and still have a next one.
//!
//! *Cancel safety.* Every method may be dropped at any await point; a dropped write may happen.
//!
//! No atomicity across roles or rows is promised, and no caller relies on any.

pub mod catalog;
pub mod config;
pub mod conformance;
pub mod dead_letters;
pub mod error;
pub mod events;
pub mod history;
pub mod memory;
pub mod page;
pub mod parking;
pub mod retries;
pub mod shards;
pub mod wire;

use std::sync::Arc;

pub use catalog::{Catalog, Follower, Observer};
pub use config::{Configuration, Entry, EntryKey, Head, Write};
pub use dead_letters::{DeadLetter, DeadLetters};
pub use error::{StoreError, StoreErrorKind};
pub use events::{
    Claim, Claimed, Conflict, EventFilter, EventRow, EventRows, EventSummary, Known, Route,
};
pub use history::{AttemptFilter, AttemptRow, History};
pub use memory::MemoryStores;
pub use page::{PAGE_MAX, Page, PageToken};
pub use parking::{Parked, ParkedKey, Parking};
pub use retries::{DueHint, Retries, RetryRow, RetryState};
pub use shards::{ShardState, ShardStates};

/// One backend's implementation of every role.
#[derive(Clone)]
pub struct Stores {
    /// Event rows.
    pub events: Arc<dyn EventRows>,
    /// Endpoints and subscriptions.
    pub config: Arc<dyn Configuration>,
    /// Retry state and due hints.
    pub retries: Arc<dyn Retries>,
    /// Parked deliveries.
    pub parking: Arc<dyn Parking>,
    /// Attempts.
    pub history: Arc<dyn History>,
    /// Dead letters.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// What the owner of a span keeps about it.
    pub shards: Arc<dyn ShardStates>,
}
