//! The log seam: what Fanfare asks of a log, and what is ours whatever the log.
//!
//! ```text
//!   stream "events"       span 0  ──●──●──●──●──●──▶        one span = one sequence of records,
//!                         span 1  ──●──●──●──▶               holding a fixed set of the 256 shards
//!
//!   group "router"        a lease is the right to consume one span; it is lost on a rebalance,
//!                         and a lost lease can commit nothing
//!
//!   one span, consumed:   ■ ■ ■ □ ■ □ ■ ■ . . . .            ■ settled  □ unsettled  . not read
//!                               ▲         ▲
//!                          watermark    ceiling              commit = ceiling + what is □ below it
//! ```
//!
//! - [`log`] is the seam itself: [`EventLog`], [`Reader`], [`Records`], [`Lease`] and the contract
//!   that every backend keeps.
//! - [`progress`] turns out-of-order settlements into a watermark and the list of what is unsettled.
//! - [`settler`] commits it every few milliseconds.
//! - [`record`] is what we write into a log: versioned, checksummed protobuf.
//! - [`local`] balances spans over the members of groups that live in one process.
//! - [`memory`] is a log that loses its unsynced tail when it "crashes".
//! - [`conformance`] is the suite that every backend passes unchanged.
//!
//! No topic, partition, offset, broker or driver type appears here.

pub mod conformance;
pub mod error;
pub mod local;
pub mod log;
pub mod memory;
pub mod progress;
pub mod record;
pub mod settler;

pub use error::{LogError, LogErrorKind};
pub use log::{
    Entry, EventLog, Granted, Group, Lease, Outgoing, Phase, ReadLimit, Reader, Records, Span,
    Stream, Tail, Tailed, Visibility,
};
pub use progress::{Progress, Tracker, Unsettled};
pub use record::{DeliveryRecord, Identity, Record, RecordError, RedriveRecord};
pub use settler::Settler;
