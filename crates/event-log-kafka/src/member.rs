//! Membership in a consumer group: who holds which lease, and what is committed under it.
//!
//! One thread ([`thread`]) owns the consumer and polls it all the time, whatever holders do; another
//! commits with it ([`outbox`]). What they share with callers is here, under one lock that is held for moments and never across a call
//! that waits.
//!
//! ```text
//!   assigned ──▶ claim: a commit in the group's present generation, of what was committed before
//!                under the next epoch
//!            ──▶ acknowledged: seek, grant          (the first proof of membership)
//!   held     ──▶ revoke: holder finishes, commits, drops its records ──▶ unassigned
//!            ──▶ lost, expelled, or tenure over: taken away at once
//!   let go   ──▶ claimed anew, while it is assigned
//! ```
//!
//! Invariants: a commit is taken up only for a lease that is not lost; at most one request is on its
//! way, and no span is given back to the group meanwhile; of one span at most one commit is on its
//! way, a claim included.

pub(crate) mod context;
mod granting;
mod leaving;
mod outbox;
pub(crate) mod slot;
mod thread;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use fanfare_domain::Tenure;
use fanfare_event_log::log::LeaseKeeper;
use fanfare_event_log::{Granted, Group, Lease, LogError, LogErrorKind, Phase, Progress, Stream};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use self::outbox::{Letter, Outbox, Purpose};
use self::slot::Slot;
use crate::bookmark::Bookmark;
use crate::checkpoints::Checkpoints;
use crate::client::Common;
use crate::config::KafkaConfig;
use crate::error::CommitAnswer;
use crate::layout::Layout;
use crate::stranded::Lookout;

/// What a membership is made with.
pub(crate) struct Terms {
    pub(crate) config: Arc<KafkaConfig>,
    pub(crate) layout: Arc<Layout>,
    pub(crate) checkpoints: Arc<dyn Checkpoints>,
    pub(crate) common: Common,
    pub(crate) lookout: Lookout,
    /// Records that retention took before they were settled.
    pub(crate) lost: Arc<AtomicU64>,
    /// What checkpoints are loaded on.
    pub(crate) runtime: Handle,
}

/// Membership in one group on one stream.
pub(crate) struct Member {
    pub(crate) stream: Stream,
    pub(crate) group: Group,
    terms: Terms,
    slots: BTreeMap<u16, Arc<Slot>>,
    state: Mutex<State>,
    /// Told when there is something to commit.
    mail: Condvar,
    /// Told when a lease is ready or the standing changed.
    news: watch::Sender<()>,
}

struct State {
    standing: Standing,
    tenancies: BTreeMap<u16, Tenancy>,
    claims: BTreeMap<u16, Claim>,
    /// Granted, and not taken up by the reader yet. At most one per span.
    ready: VecDeque<Granted>,
    outbox: Outbox,
    /// The broker says that we are no member; true until the next rebalance.
    expelled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Joined,
    /// No more leases are granted; those held are drained until the deadline.
    Leaving(Instant),
    Ended,
}

/// A lease that is held.
struct Tenancy {
    keeper: LeaseKeeper,
    epoch: u64,
    tenure: Tenure,
    /// What the broker acknowledged last.
    recorded: Bookmark,
}

/// A span that is being claimed.
struct Claim {
    bookmark: Bookmark,
    lost: u64,
    /// When the commit that was acknowledged had been sent.
    proof: Option<Instant>,
}

impl Member {
    /// Joins: starts the thread.
    ///
    /// Errors: `Unavailable` when the client or the thread cannot be made.
    pub(crate) fn join(stream: Stream, group: Group, terms: Terms) -> Result<Arc<Self>, LogError> {
        let slots = terms.layout.spans(stream).into_iter().filter_map(|span| {
            let seat = terms.layout.seat(stream, span.index)?.clone();
            Some((span.index, Arc::new(Slot::new(span, seat))))
        });
        let member = Arc::new(Self {
            stream,
            group,
            slots: slots.collect(),
            terms,
            state: Mutex::new(State {
                standing: Standing::Joined,
                tenancies: BTreeMap::new(),
                claims: BTreeMap::new(),
                ready: VecDeque::new(),
                outbox: Outbox::default(),
                expelled: false,
            }),
            mail: Condvar::new(),
            news: watch::channel(()).0,
        });
        thread::start(&member)?;
        Ok(member)
    }

    /// The next lease. Cancel safe: it is taken the moment it is returned.
    pub(crate) async fn next(&self) -> Result<Granted, LogError> {
        let mut news = self.news.subscribe();
        loop {
            news.borrow_and_update();
            {
                let mut state = self.state.lock();
                if let Some(granted) = state.ready.pop_front() {
                    return Ok(granted);
                }
                if state.standing != Standing::Joined {
                    return Err(LogErrorKind::Closed.into());
                }
            }
            // The sender lives as long as `self`.
            let _ = news.changed().await;
        }
    }

    /// Leaves; every lease turns `Revoking`. Does not wait.
    pub(crate) fn start_to_leave(&self) {
        let deadline = Instant::now() + self.terms.config.drain_timeout();
        self.leave_by(deadline);
    }

    /// Loses every lease and leaves at once.
    pub(crate) fn abandon(&self) {
        self.leave_by(Instant::now());
        self.lose_all();
    }

    fn leave_by(&self, deadline: Instant) {
        let undelivered = {
            let mut state = self.state.lock();
            match state.standing {
                Standing::Joined => state.standing = Standing::Leaving(deadline),
                Standing::Leaving(by) if deadline < by => {
                    state.standing = Standing::Leaving(deadline);
                }
                Standing::Leaving(_) | Standing::Ended => return,
            }
            state.claims.clear();
            state.tenancies.values().for_each(|t| t.keeper.revoke());
            std::mem::take(&mut state.ready)
        };
        // Dropping them lets go of their leases, which takes the lock.
        drop(undelivered);
        self.news.send_replace(());
    }

    /// Resolves when the member has left.
    pub(crate) async fn ended(&self) {
        let mut news = self.news.subscribe();
        let _ = news.wait_for(|()| self.has_ended()).await;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().standing == Standing::Ended
    }

    /// Whether `lease` was granted here and is not lost.
    pub(crate) fn grants(&self, lease: &Lease) -> bool {
        let ours = self.stream == lease.stream && self.group == lease.group;
        ours && self
            .state
            .lock()
            .tenancies
            .get(&lease.span.index)
            .is_some_and(|tenancy| tenancy.epoch == lease.epoch)
    }

    /// Commits under a lease that was granted here.
    pub(crate) async fn commit(&self, lease: &Lease, progress: &Progress) -> Result<(), LogError> {
        let lost = || LogError::from(LogErrorKind::LeaseLost);
        let slot = self.slots.get(&lease.span.index).ok_or_else(lost)?;
        // Of one span one commit at a time: a claim or one that was given up may be on its way.
        let permit = tokio::select! {
            permit = slot.commits.clone().acquire_owned() => permit.map_err(|_| lost())?,
            () = lease.reached(Phase::Lost) => return Err(lost()),
        };
        let (answer, answered) = oneshot::channel();
        let bookmark = Bookmark {
            epoch: lease.epoch,
            progress: progress.clone(),
        };
        self.post(Letter {
            slot: slot.clone(),
            bookmark,
            purpose: Purpose::Holder(answer),
            permit,
        });
        let answered = tokio::time::timeout(self.terms.config.commit_timeout(), answered).await;
        match answered.ok().and_then(Result::ok) {
            Some(CommitAnswer::Ok) => Ok(()),
            Some(CommitAnswer::TooLarge) => Err(LogErrorKind::ProgressTooLarge.into()),
            Some(CommitAnswer::Again) if lease.phase() != Phase::Lost => {
                Err(LogErrorKind::Unavailable.into())
            }
            Some(CommitAnswer::Again | CommitAnswer::Expelled) => Err(lost()),
            Some(CommitAnswer::Unknown) | None => Err(LogErrorKind::Unknown.into()),
        }
    }

    /// The holder let go of its records.
    pub(crate) fn release(&self, index: u16, epoch: u64) {
        let mut state = self.state.lock();
        if state
            .tenancies
            .get(&index)
            .is_some_and(|t| t.epoch == epoch)
        {
            // Dropping the keeper loses the lease.
            let let_go = state.tenancies.remove(&index);
            let committed = let_go.map(|tenancy| tenancy.recorded.offset());
            tracing::debug!(stream = ?self.stream, index, epoch, committed, "a lease is let go");
        }
    }

    /// Takes every lease away at once.
    fn lose_all(&self) {
        let undelivered = {
            let mut state = self.state.lock();
            state.lose_all();
            std::mem::take(&mut state.ready)
        };
        drop(undelivered);
    }
}

impl State {
    fn lose_all(&mut self) {
        self.claims.clear();
        // Dropping a keeper ends its tenure, then says that the lease is lost.
        self.tenancies.clear();
    }

    /// Whether a commit of `epoch` for span `index` may be sent now.
    fn may_commit(&self, index: u16, epoch: u64) -> bool {
        let held = self.tenancies.get(&index);
        let claimed = self.claims.get(&index);
        held.is_some_and(|held| held.epoch == epoch && held.tenure.is_current())
            || claimed.is_some_and(|claim| claim.bookmark.epoch == epoch)
    }
}
