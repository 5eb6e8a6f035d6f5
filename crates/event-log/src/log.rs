//! The seam: append records durably, join a group, read under a lease, commit progress.
//!
//! # Contract
//!
//! *Durability.* [`EventLog::append`] resolves `Ok` only when every record of the batch would be
//! read again after the process is killed and the machine loses power. On `Unknown` the caller
//! cannot tell; on every other error nothing of the batch will ever be read.
//!
//! *Order.* Records of one span are read in rising position. Records appended by one call to one
//! span keep their order. A call made after another call resolved gets higher positions. Nothing
//! is promised between spans. Positions may have gaps.
//!
//! *Delivery.* A record is read by the holder of its span's lease, again by every later holder
//! until a commit says that it is settled: at least once, and never by two holders whose leases
//! are both good.
//!
//! *Leases.* At most one lease per (stream, group, span) is good at a time. A lease moves through
//! [`Phase`]: `Held`, then `Revoking` (finish what is in flight, commit, let go), then `Lost`. A
//! revoke waits for the holder to drop its [`Records`] until the backend's deadline; a holder that
//! is too slow, frozen or dead loses the lease without being asked. A commit under a lost lease is
//! refused and changes nothing.
//!
//! *Progress.* What a commit records is what the next holder is granted: never ahead of an
//! unsettled record, never merged with what an earlier holder committed.
//!
//! *Visibility.* With [`Visibility::Durable`] a record is read only once it is durable. With
//! [`Visibility::Ordered`] it may be read earlier, by a consumer all of whose effects go into the
//! same log and stores: they become durable only after it, or not at all.
//!
//! *Cancel safety.* Every method may be dropped at any await point. A dropped `append` may still
//! be written (as with `Unknown`); a dropped `read` or `next` loses nothing.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fanfare_domain::{Position, Shard, ShardSet, Tenure};
use tokio::sync::watch;

use crate::error::LogError;
use crate::progress::Progress;

/// The two streams there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Accepted events, sharded by event.
    Events,
    /// Deliveries owed, sharded by endpoint.
    Deliveries,
}

impl Stream {
    /// Its name, as stores keep it and people read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Deliveries => "deliveries",
        }
    }
}

/// One sequence of records of a stream: what a lease covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Which one; unique within its stream and stable for as long as it holds records.
    pub index: u16,
    /// The shards it holds. Two spans of one stream may hold the same shards (several subjects).
    pub shards: ShardSet,
}

/// Consumers that share a stream's spans. `[a-z0-9-]{1,32}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub Arc<str>);

impl Group {
    /// A group by name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }
}

/// When a consumer may see a record; see the module's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// As soon as its place is fixed.
    Ordered,
    /// Only once it is durable.
    Durable,
}

/// A record to append.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Decides the span, together with the subject.
    pub shard: Shard,
    /// First part of the event type: a backend may keep subjects in sequences of their own.
    pub subject: Arc<str>,
    /// The encoded record; see [`crate::record`].
    pub bytes: Bytes,
}

/// A record as read.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place in the span.
    pub position: Position,
    /// The bytes that were appended.
    pub bytes: Bytes,
}

/// Bounds of one read: it returns as soon as one record is there and stops at either bound, but
/// returns at least one record, however large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Most records. At least 1.
    pub records: usize,
    /// Most bytes of all records together.
    pub bytes: usize,
}

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Good.
    Held,
    /// Good, but wanted back: finish what is in flight, commit, drop the [`Records`].
    Revoking,
    /// Gone: commits are refused.
    Lost,
}

/// The right to consume one span. Clones are the same lease.
#[derive(Clone)]
pub struct Lease {
    /// What it is for.
    pub stream: Stream,
    /// Whose it is.
    pub group: Group,
    /// What it covers.
    pub span: Span,
    /// Rises with every grant of this (stream, group, span); the backend fences by it.
    pub epoch: u64,
    /// What its holder's store writes are checked against; ends when the lease is lost.
    pub tenure: Tenure,
    /// Set by the backend.
    phase: watch::Receiver<Phase>,
}

/// The backend's end of a [`Lease`]'s phase. Dropping it loses the lease.
#[derive(Debug)]
pub struct LeaseKeeper {
    tenure: Tenure,
    phase: watch::Sender<Phase>,
}

/// A lease that was just granted, what was committed under it before, and its records from there.
pub struct Granted {
    /// The right.
    pub lease: Lease,
    /// What the last holder committed; the default for a span never consumed.
    pub progress: Progress,
    /// Reads from `progress.watermark()` on, records settled above it included.
    pub records: Box<dyn Records>,
}

/// A durable, sharded log.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// The spans of `stream`, by rising index. Constant while the process runs.
    fn spans(&self, stream: Stream) -> Vec<Span>;

    /// The span that a record of `shard` and `subject` goes to. Constant while the process runs.
    fn span_of(&self, stream: Stream, shard: Shard, subject: &str) -> Span;

    /// Appends `batch` to `stream`; one position per record, in order, once all are durable.
    ///
    /// An empty batch is `Ok`. The batch is not atomic: after a crash during the call any prefix
    /// per span may have been written.
    ///
    /// Errors: `Unavailable`, `Unknown`, `Full`, `TooLarge`, `Closed`.
    async fn append(&self, stream: Stream, batch: Vec<Outgoing>)
    -> Result<Vec<Position>, LogError>;

    /// Joins `group` on `stream`. Leases arrive through the reader as the group is balanced.
    ///
    /// Errors: `Unavailable`, `Closed`.
    async fn join(
        &self,
        stream: Stream,
        group: &Group,
        visibility: Visibility,
    ) -> Result<Box<dyn Reader>, LogError>;

    /// Follows `stream` from now on without joining a group: live, best effort, durable records
    /// only, nothing to commit.
    ///
    /// Errors: `Unavailable`, `Closed`.
    async fn tail(&self, stream: Stream) -> Result<Box<dyn Tail>, LogError>;

    /// Records `progress` under `lease`, durably. At most one commit of a lease is outstanding.
    ///
    /// Errors: `LeaseLost` (nothing changed), `ProgressTooLarge`, `Unavailable`, `Unknown`
    /// (commit again: repeating is safe), `Closed`.
    async fn commit(&self, lease: &Lease, progress: &Progress) -> Result<(), LogError>;

    /// Most encoded bytes of one commit's unsettled list; see [`Progress::encoded_len`].
    fn progress_max_bytes(&self) -> usize;
}

/// Membership in a group.
#[async_trait]
pub trait Reader: Send {
    /// Waits for the next lease. Cancel safe. Must be polled: a backend may need it to stay a
    /// member.
    ///
    /// Errors: `Unavailable` (wait and call again), `Closed`.
    async fn next(&mut self) -> Result<Granted, LogError>;

    /// Leaves the group: every lease turns `Revoking`; resolves when the holders have let go, or
    /// when the backend's deadline has passed. No lease is granted afterwards.
    async fn leave(&mut self);
}

/// The records of one leased span. Dropping it lets go of the lease.
#[async_trait]
pub trait Records: Send {
    /// Waits for at least one record and returns what is there, within `limit`, in order.
    ///
    /// Returns an empty vector when the lease is no longer `Held`: nothing more will come.
    /// Cancel safe.
    ///
    /// Errors: `Unavailable` (call again), `Corrupt` (the span is stuck: hold it and alarm),
    /// `Closed`.
    async fn read(&mut self, limit: ReadLimit) -> Result<Vec<Entry>, LogError>;
}

/// A live view of a stream.
#[async_trait]
pub trait Tail: Send {
    /// Waits for at least one record and returns what is there, within `limit`, in order per
    /// span; `skipped` counts the records that overtook this follower since the last call.
    /// Cancel safe.
    ///
    /// Errors: `Unavailable` (call again), `Closed`.
    async fn next(&mut self, limit: ReadLimit) -> Result<Tailed, LogError>;
}

/// What a [`Tail`] saw.
#[derive(Clone, Debug, Default)]
pub struct Tailed {
    /// The records, each with its place.
    pub entries: Vec<(fanfare_domain::Place, Bytes)>,
    /// How many were missed before the first of them.
    pub skipped: u64,
}

impl Lease {
    /// A lease in phase `Held`, and the backend's end of it.
    pub fn grant(
        stream: Stream,
        group: Group,
        span: Span,
        epoch: u64,
        tenure: Tenure,
    ) -> (Self, LeaseKeeper) {
        let (sender, phase) = watch::channel(Phase::Held);
        let keeper = LeaseKeeper {
            tenure: tenure.clone(),
            phase: sender,
        };
        (
            Self {
                stream,
                group,
                span,
                epoch,
                tenure,
                phase,
            },
            keeper,
        )
    }

    /// Where it stands now.
    pub fn phase(&self) -> Phase {
        // A keeper that is gone can no longer vouch for the lease.
        if self.phase.has_changed().is_err() {
            Phase::Lost
        } else {
            *self.phase.borrow()
        }
    }

    /// Resolves when the phase is at least `phase`. Cancel safe.
    pub async fn reached(&self, phase: Phase) {
        let mut receiver = self.phase.clone();
        // An error means that the keeper is gone: the lease is lost, which is the last phase.
        let _ = receiver.wait_for(|now| *now >= phase).await;
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}/{}/{} epoch {} {:?}",
            self.stream,
            self.group.0,
            self.span.index,
            self.epoch,
            self.phase()
        )
    }
}

impl LeaseKeeper {
    /// Asks the holder to finish and let go.
    pub fn revoke(&self) {
        self.phase.send_if_modified(|phase| {
            let held = *phase == Phase::Held;
            if held {
                *phase = Phase::Revoking;
            }
            held
        });
    }

    /// Takes the lease away. Ends its tenure first, so that no store write slips between.
    pub fn lose(&self) {
        self.tenure.end();
        self.phase.send_replace(Phase::Lost);
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.lose();
    }
}
