//! A shift's desk: where everybody hands in what became of a delivery, and leaves notes for the
//! shift's own loops. Senders never wait here.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fanfare_domain::{
    DeadLetterReason, DeliveryId, EndpointId, ParkedReason, ShardSet, Timestamp, Verdict,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ages::Ages;
use crate::attempt::Attempt;
use crate::callee::Callee;
use crate::crew::Permit;
use crate::due::Upcoming;
use crate::letter::Delivery;

/// What became of a delivery.
pub(crate) struct Done {
    pub(crate) delivery: Delivery,
    pub(crate) fate: Fate,
    /// Given back once what became of it is durable.
    pub(crate) permit: Option<Permit>,
}

/// How a delivery left memory.
pub(crate) enum Fate {
    /// It was tried.
    Attempted(Tried),
    /// It was not.
    Aside(Aside),
}

/// How a delivery leaves memory untried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aside {
    /// It waits durably.
    Park(ParkedReason),
    /// It is given up on.
    End(DeadLetterReason),
}

/// An attempt and what follows from it.
pub(crate) struct Tried {
    pub(crate) attempt: Attempt,
    pub(crate) verdict: Verdict,
    /// Who was called, as configured then.
    pub(crate) callee: Arc<Callee>,
}

/// Most that may be handed in and not written before nothing new is taken.
const UNWRITTEN_MAX: usize = 4096;

/// See the module.
pub(crate) struct Desk {
    pub(crate) shift: u32,
    pub(crate) shards: ShardSet,
    /// Retries that are due soon.
    pub(crate) upcoming: Upcoming,
    /// How old what is unsettled is.
    pub(crate) ages: Ages,
    inbox: Mutex<Vec<Done>>,
    handed_in: Notify,
    /// Attempts under way.
    out: AtomicUsize,
    all_in: Notify,
    /// Handed in and not written down yet.
    unwritten: AtomicUsize,
    written: Notify,
    /// Retries and parked deliveries that are in memory: never twice at once.
    in_hand: Mutex<HashSet<DeliveryId>>,
    parked_wanted: Notes<EndpointId>,
    changed: Notes<EndpointId>,
    closed: AtomicBool,
}

/// Notes in order, each once, and a bell.
struct Notes<T> {
    notes: Mutex<(VecDeque<T>, HashSet<T>)>,
    bell: Notify,
}

impl Desk {
    pub(crate) fn new(shift: u32, shards: ShardSet, due_floor: Timestamp) -> Self {
        Self {
            shift,
            shards,
            upcoming: Upcoming::new(due_floor),
            ages: Ages::default(),
            inbox: Mutex::default(),
            handed_in: Notify::new(),
            out: AtomicUsize::new(0),
            all_in: Notify::new(),
            unwritten: AtomicUsize::new(0),
            written: Notify::new(),
            in_hand: Mutex::default(),
            parked_wanted: Notes::new(),
            changed: Notes::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// An attempt starts.
    pub(crate) fn sent_out(&self) {
        self.out.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt ended.
    pub(crate) fn come_back(&self, done: Done) {
        self.hand_in(done);
        if self.out.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all_in.notify_waiters();
        }
    }

    /// Hands in what became of a delivery. After [`Desk::close`] it is dropped: the next owner
    /// does it again.
    pub(crate) fn hand_in(&self, done: Done) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        self.unwritten.fetch_add(1, Ordering::Relaxed);
        let mut inbox = self.inbox.lock();
        let is_first = inbox.is_empty();
        inbox.push(done);
        drop(inbox);
        if is_first {
            self.handed_in.notify_one();
        }
    }

    /// Waits until something was handed in. Cancel safe.
    pub(crate) async fn something(&self) {
        while self.inbox.lock().is_empty() {
            self.handed_in.notified().await;
        }
    }

    /// Takes what was handed in.
    pub(crate) fn take(&self) -> Vec<Done> {
        std::mem::take(&mut self.inbox.lock())
    }

    /// `count` of what was handed in is written down, or needs no writing.
    pub(crate) fn wrote(&self, count: usize) {
        let before = self.unwritten.fetch_sub(count, Ordering::AcqRel);
        if before > UNWRITTEN_MAX && before - count <= UNWRITTEN_MAX {
            self.written.notify_waiters();
        }
    }

    /// Waits while much is handed in and cannot be written: the store is away or slow, and what
    /// is not read yet is safe in the log. Cancel safe.
    pub(crate) async fn room(&self) {
        loop {
            let written = self.written.notified();
            if self.unwritten.load(Ordering::Acquire) <= UNWRITTEN_MAX {
                return;
            }
            written.await;
        }
    }

    /// Waits until no attempt is under way. Cancel safe.
    pub(crate) async fn all_came_back(&self) {
        loop {
            let all_in = self.all_in.notified();
            if self.out.load(Ordering::Acquire) == 0 {
                return;
            }
            all_in.await;
        }
    }

    /// The lease is lost: late completions are dropped from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        drop(self.take());
    }

    /// Takes a retry or a parked delivery in hand; `false` when it is already.
    pub(crate) fn take_in_hand(&self, id: DeliveryId) -> bool {
        self.in_hand.lock().insert(id)
    }

    /// Its fate is written.
    pub(crate) fn let_go(&self, ids: &[DeliveryId]) {
        let mut in_hand = self.in_hand.lock();
        for id in ids {
            in_hand.remove(id);
        }
    }

    /// Asks for the next parked rows of an endpoint.
    pub(crate) fn want_parked(&self, endpoint: EndpointId) {
        self.parked_wanted.leave(endpoint);
    }

    /// Whose parked rows to fetch next. Cancel safe.
    pub(crate) async fn parked_wanted(&self) -> EndpointId {
        self.parked_wanted.next().await
    }

    /// An endpoint or a subscription of it changed in a way that ends deliveries.
    pub(crate) fn note_change(&self, endpoint: EndpointId) {
        self.changed.leave(endpoint);
    }

    /// Whose open retries to look through next. Cancel safe.
    pub(crate) async fn changed(&self) -> EndpointId {
        self.changed.next().await
    }
}

impl<T: Copy + Eq + std::hash::Hash> Notes<T> {
    fn new() -> Self {
        Self {
            notes: Mutex::new((VecDeque::new(), HashSet::new())),
            bell: Notify::new(),
        }
    }

    fn leave(&self, note: T) {
        let mut notes = self.notes.lock();
        if notes.1.insert(note) {
            notes.0.push_back(note);
            self.bell.notify_one();
        }
    }

    async fn next(&self) -> T {
        loop {
            {
                let mut notes = self.notes.lock();
                if let Some(note) = notes.0.pop_front() {
                    notes.1.remove(&note);
                    return note;
                }
            }
            self.bell.notified().await;
        }
    }
}
