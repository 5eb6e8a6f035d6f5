//! Lanes: a bounded queue per endpoint and the senders that work it off.
//!
//! A sender owns one connection and makes one attempt at a time; senders are started on demand, up
//! to the endpoint's share, and end after being idle. What a lane cannot take is given back to the
//! caller, who parks it. While anything of an endpoint is parked, new deliveries park behind it, so
//! that it stays first in, first out; a drainer brings them back in order when there is room.
//!
//! A lane that is closed takes nothing and starts nothing; what is under way ends.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfare_domain::{EndpointId, ParkedReason};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::callee::Callee;
use crate::letter::{Delivery, Origin};

/// Most deliveries that wait in one lane.
const QUEUE_MAX: usize = 1_000;

/// The lanes of one span.
#[derive(Default)]
pub(crate) struct Lanes {
    by_endpoint: Mutex<HashMap<EndpointId, Arc<Lane>>>,
    /// Deliveries and bytes that wait in all lanes.
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
}

/// One endpoint's queue.
pub(crate) struct Lane {
    pub(crate) endpoint: EndpointId,
    state: Mutex<State>,
    /// There is something to send, the lane closed, or its endpoint changed.
    pub(crate) work: Notify,
    /// There is room in the queue again.
    pub(crate) room: Notify,
}

struct State {
    callee: Option<Arc<Callee>>,
    queue: VecDeque<Delivery>,
    senders: usize,
    idle: usize,
    /// Something of this endpoint is parked, or is being parked.
    parked: bool,
    parking: usize,
    draining: bool,
    closed: bool,
}

/// What became of an offer.
pub(crate) enum Offer {
    /// It waits in the lane; `true`: start a sender.
    Taken(bool),
    /// It does not fit: park it, and say so with [`Lane::parked`].
    Park(Delivery, ParkedReason),
    /// It is back; nothing was changed (a retry or a parked one, which are kept elsewhere).
    Later(Delivery),
}

/// Bounds of the lanes.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) senders_max: usize,
    pub(crate) waiting_max: usize,
    pub(crate) waiting_max_bytes: usize,
}

impl Lanes {
    /// The lane of `endpoint`, made if there is none.
    pub(crate) fn lane(&self, endpoint: EndpointId) -> Arc<Lane> {
        self.by_endpoint
            .lock()
            .entry(endpoint)
            .or_insert_with(|| Arc::new(Lane::new(endpoint)))
            .clone()
    }

    /// Every lane.
    pub(crate) fn all(&self) -> Vec<Arc<Lane>> {
        self.by_endpoint.lock().values().cloned().collect()
    }

    /// Offers `delivery` to `lane`, whose endpoint is active as `callee`.
    pub(crate) fn offer(
        &self,
        lane: &Lane,
        callee: &Arc<Callee>,
        delivery: Delivery,
        bounds: Bounds,
    ) -> Offer {
        let mut state = lane.state.lock();
        let fresh = matches!(delivery.origin, Origin::Fresh(_));
        let bypasses = matches!(delivery.origin, Origin::Test(_));
        state.callee = Some(callee.clone());
        if state.closed {
            return Offer::Later(delivery);
        }
        let full = state.queue.len() >= QUEUE_MAX
            || self.waiting.load(Ordering::Relaxed) >= bounds.waiting_max
            || self.waiting_bytes.load(Ordering::Relaxed) >= bounds.waiting_max_bytes;
        if fresh && (state.parked || full) {
            state.parked = true;
            state.parking += 1;
            return Offer::Park(delivery, ParkedReason::LaneFull);
        }
        if full && !bypasses {
            return Offer::Later(delivery);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.waiting_bytes
            .fetch_add(delivery.letter.size(), Ordering::Relaxed);
        state.queue.push_back(delivery);
        if state.idle > 0 {
            drop(state);
            lane.work.notify_one();
            return Offer::Taken(false);
        }
        let start = state.senders < bounds.senders_max;
        state.senders += usize::from(start);
        Offer::Taken(start)
    }

    /// The next delivery of `lane` and whom to call; `None` when there is none.
    pub(crate) fn next(&self, lane: &Lane) -> Option<(Delivery, Arc<Callee>)> {
        let mut state = lane.state.lock();
        let callee = state.callee.clone()?;
        if state.closed {
            return None;
        }
        let delivery = state.queue.pop_front()?;
        let roomy = state.queue.len() <= QUEUE_MAX / 2;
        drop(state);
        self.forget(&delivery);
        if roomy {
            lane.room.notify_one();
        }
        Some((delivery, callee))
    }

    /// Takes everything that waits in `lane`, to be parked or ended by the caller.
    pub(crate) fn evict(&self, lane: &Lane) -> Vec<Delivery> {
        let evicted: Vec<_> = lane.state.lock().queue.drain(..).collect();
        for delivery in &evicted {
            self.forget(delivery);
        }
        evicted
    }

    fn forget(&self, delivery: &Delivery) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.waiting_bytes
            .fetch_sub(delivery.letter.size(), Ordering::Relaxed);
    }
}

impl Lane {
    fn new(endpoint: EndpointId) -> Self {
        let state = State {
            callee: None,
            queue: VecDeque::new(),
            senders: 0,
            idle: 0,
            parked: false,
            parking: 0,
            draining: false,
            closed: false,
        };
        Self {
            endpoint,
            state: Mutex::new(state),
            work: Notify::new(),
            room: Notify::new(),
        }
    }

    /// Whom this lane calls now.
    pub(crate) fn set_callee(&self, callee: Arc<Callee>) {
        self.state.lock().callee = Some(callee);
    }

    /// Whom it called last.
    pub(crate) fn callee(&self) -> Option<Arc<Callee>> {
        self.state.lock().callee.clone()
    }

    /// A delivery is about to be parked, whatever room there is.
    pub(crate) fn park(&self) {
        let mut state = self.state.lock();
        state.parked = true;
        state.parking += 1;
    }

    /// One that was given back for parking is parked.
    pub(crate) fn parked(&self) {
        let mut state = self.state.lock();
        state.parking = state.parking.saturating_sub(1);
    }

    /// Something is parked already: as after a restart.
    pub(crate) fn has_parked(&self) {
        self.state.lock().parked = true;
    }

    /// Whether a drainer must be started; says so once until it ended.
    pub(crate) fn start_draining(&self) -> bool {
        let mut state = self.state.lock();
        let start = state.parked && !state.draining && !state.closed;
        state.draining |= start;
        start
    }

    /// The drainer found nothing more. `false`: something is being parked, look again.
    pub(crate) fn drained(&self) -> bool {
        let mut state = self.state.lock();
        if state.parking > 0 {
            return false;
        }
        state.parked = false;
        state.draining = false;
        true
    }

    /// The drainer gave up for now; what is parked stays parked.
    pub(crate) fn stop_draining(&self) {
        self.state.lock().draining = false;
    }

    /// Whether the queue is at most half full.
    pub(crate) fn has_room(&self) -> bool {
        self.state.lock().queue.len() <= QUEUE_MAX / 2
    }

    /// A sender waits for work; `None` when there is some already.
    pub(crate) fn rest(&self) -> Option<Rest<'_>> {
        let mut state = self.state.lock();
        if !state.closed && !state.queue.is_empty() {
            return None;
        }
        state.idle += 1;
        Some(Rest(self))
    }

    /// A sender wants to end: it may, unless there is something to do.
    pub(crate) fn may_end(&self) -> bool {
        let mut state = self.state.lock();
        let may = state.closed || state.queue.is_empty();
        state.senders -= usize::from(may);
        may
    }

    /// Whether it takes nothing more.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Takes and starts nothing from here on.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_waiters();
        self.room.notify_waiters();
    }
}

/// An idle sender, until dropped.
pub(crate) struct Rest<'a>(&'a Lane);

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.0.state.lock().idle -= 1;
    }
}
