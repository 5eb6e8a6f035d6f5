//! The event-log seam over Kafka.
//!
//! ```text
//!   stream "events"       topic fanfare.events.0    partitions 0 1 2 3     first part of the event
//!                         topic fanfare.events.1    partitions 0 1 2 3     type, hashed
//!                         topic fanfare.events-of.order       0 1 2 3     dedicated by configuration
//!   stream "deliveries"   topic fanfare.deliveries  partitions 0 1 2 3
//!
//!   span = (topic, partition)       holds the shards with shard % partitions == partition
//!   group = consumer group          one per (group, stream)
//!   commit = offset + metadata      the watermark, and what is unsettled above it
//! ```
//!
//! - [`config`] is pure data; [`KafkaLog::open`] makes the running thing of it.
//! - [`layout`] says which record goes where. [`topics`] creates and checks the topics, and compares
//!   the layout with the one that all programs agreed on ([`agreement`]).
//! - [`producer`] appends: idempotent, acknowledged by all replicas, admitted within a bound.
//! - [`member`] is membership in a group: one thread that polls a consumer, hands out leases, lets
//!   a revoke be a phase, and proves to itself again and again that it still is a member.
//! - [`stranded`] finds out when a client of either lost sight of brokers that are there; it is replaced.
//! - [`bookmark`] is what a commit says. [`start`] decides where a span is read from.
//! - [`tail`] follows without a group.
//!
//! # What keeps a lost lease from committing
//!
//! Three things, each enough in its case. The broker refuses a commit of an old generation or of a
//! member that it expelled. Spans are given back to the group only while no commit is on its way, so
//! none is sent in a new generation under an old lease. And a lease has a tenure,
//! which only an acknowledged commit of its consumer extends, to no more than a session after that
//! commit was *sent*: a process that was frozen past its session finds its tenures over when it
//! returns, whatever the client library still believes.
//!
//! No transactions are used. No type of the driver leaves this crate but the settings of a producer.

pub mod agreement;
pub mod bookmark;
pub mod checkpoints;
pub mod config;
pub mod error;
pub mod layout;
pub mod security;
pub mod start;

mod asking;
mod client;
mod log;
mod member;
mod producer;
mod reader;
mod stranded;
mod tail;
mod topics;

pub use agreement::{Agreement, NoAgreement};
pub use checkpoints::{Checkpoints, NoCheckpoints};
pub use config::KafkaConfig;
pub use error::{OpenError, OpenErrorKind};
pub use log::{Hooks, KafkaLog};
pub use security::{Token, Tokens};
