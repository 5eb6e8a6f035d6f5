//! The crew: the senders of all lanes, spawned on demand, and the lock around the [`Lanes`].
//!
//! Whoever changes the lanes does what they answer after the lock is released: senders start or
//! are called, displaced deliveries are handed in at their desk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use fanfare_domain::{EndpointId, RetrySchedule};
use fanfare_store::Catalog;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::attempt::Outfit;
use crate::callee::Callee;
use crate::desk::{Desk, Done, Fate};
use crate::instruments::Instruments;
use crate::lanes::{Bounds, Class, Crowd, Ended, LaneKey, Lanes, Moves, Next, Start, WIDEN_EVERY};
use crate::letter::{Delivery, Origin};
use crate::seat::{Call, Seat};
use crate::sender;
use crate::standing::Standing;

/// Longest wait of a reader for lanes that are not stuck to make room.
const ROOM_WAIT: Duration = Duration::from_millis(100);

/// Everything that sends; see the module.
pub(crate) struct Crew {
    pub(crate) outfit: Outfit,
    pub(crate) schedule: RetrySchedule,
    pub(crate) instruments: Instruments,
    pub(crate) tasks: TaskTracker,
    pub(crate) connection_idle: Duration,
    /// Deliveries in lanes that are not stuck above which a reader waits a little.
    hopeful_max: usize,
    catalog: ArcSwap<Catalog>,
    lanes: Mutex<Lanes>,
    eased: Notify,
    /// Readers that wait to be told.
    readers: AtomicUsize,
    /// Some lane waits for its own sender.
    narrowed: Notify,
}

/// A delivery that somebody is to send now.
pub(crate) struct Assignment {
    pub(crate) lane: LaneKey,
    pub(crate) desk: Arc<Desk>,
    pub(crate) callee: Arc<Callee>,
    pub(crate) delivery: Delivery,
    pub(crate) permit: Permit,
}

/// Stands for an attempt until its outcome is durable; see [`Lanes`].
pub(crate) struct Permit {
    crew: Arc<Crew>,
    class: Class,
}

/// A delivery to offer: a first attempt, a retry, or one that was parked.
pub(crate) struct Offer {
    pub(crate) delivery: Delivery,
    pub(crate) standing: Standing,
}

/// What a sender does next.
pub(crate) enum Turn {
    Go(Assignment),
    Rest,
    Leave,
}

impl Crew {
    pub(crate) fn new(
        outfit: Outfit,
        schedule: RetrySchedule,
        instruments: Instruments,
        connection_idle: Duration,
        bounds: Bounds,
    ) -> Self {
        Self {
            outfit,
            schedule,
            instruments,
            tasks: TaskTracker::new(),
            connection_idle,
            hopeful_max: (bounds.queue_max / 4).max(1),
            catalog: ArcSwap::default(),
            lanes: Mutex::new(Lanes::new(bounds)),
            eased: Notify::new(),
            readers: AtomicUsize::new(0),
            narrowed: Notify::new(),
        }
    }

    /// The configuration as the lanes know it.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// The configuration changed; the lanes are told next, with [`Crew::alter`].
    pub(crate) fn set_catalog(&self, catalog: Catalog) {
        self.catalog.store(Arc::new(catalog));
    }

    /// Changes the lanes and does what they answer.
    pub(crate) fn alter(self: &Arc<Self>, change: impl FnOnce(&mut Lanes, &mut Moves)) {
        let mut moves = Moves::default();
        self.with_lanes(|lanes| change(lanes, &mut moves));
        self.carry_out(moves);
    }

    /// Offers first attempts, whose standing was found by `catalog`.
    pub(crate) fn offer(
        self: &Arc<Self>,
        desk: &Arc<Desk>,
        catalog: &Arc<Catalog>,
        offers: Vec<Offer>,
    ) {
        self.alter(|lanes, moves| {
            let now = Instant::now();
            // A lane that is made now must not be made from an older catalog than the one that
            // the lanes were told of last.
            let current = self.catalog.load();
            let is_current = Arc::ptr_eq(&current, catalog);
            for Offer { delivery, standing } in offers {
                let standing = if is_current {
                    standing
                } else {
                    standing_of(&current, &delivery)
                };
                lanes.offer(desk, &standing, delivery, now, moves);
            }
        });
    }

    /// Offers a delivery that is due again, or that was parked.
    pub(crate) fn offer_again(self: &Arc<Self>, desk: &Arc<Desk>, delivery: Delivery) {
        self.alter(|lanes, moves| {
            let now = Instant::now();
            let standing = standing_of(&self.catalog.load(), &delivery);
            if let Origin::Parked(..) = delivery.origin {
                lanes.offer_parked(desk, &standing, delivery, now, moves);
            } else {
                lanes.offer_retry(desk, &standing, delivery, now, moves);
            }
        });
    }

    /// The endpoint has parked rows in the store.
    pub(crate) fn found_parked(&self, desk: &Arc<Desk>, endpoint: EndpointId) {
        let mut lanes = self.lanes.lock();
        let standing = Standing::of_endpoint(self.catalog.load().endpoint(endpoint));
        lanes.found_parked(desk, endpoint, &standing, Instant::now());
    }

    /// Reads or changes the lanes where nothing starts by it.
    pub(crate) fn with_lanes<T>(&self, look: impl FnOnce(&mut Lanes) -> T) -> T {
        let mut lanes = self.lanes.lock();
        let seen = look(&mut lanes);
        let narrow = lanes.has_narrow();
        drop(lanes);
        if narrow {
            self.narrowed.notify_one();
        }
        seen
    }

    /// A shift ends: what waits is dropped, who is idle goes home, what is under way goes on.
    pub(crate) fn close(&self, shift: u32) {
        let (dropped, dismissed) = self.lanes.lock().close(shift);
        drop(dropped);
        for seat in dismissed {
            seat.call(Call::Leave);
        }
    }

    /// Waits while no permit can be had and enough waits for them; a little while lanes that are not
    /// stuck hold much: they will take more soon, and what is not read need not be parked. Answers
    /// whether there is room; if there is none, what is read may park. Cancel safe.
    pub(crate) async fn room(&self) -> bool {
        loop {
            let waits = Waits::new(&self.readers);
            let eased = self.eased.notified();
            let crowd = self.lanes.lock().crowd(self.hopeful_max, Instant::now());
            if crowd == Crowd::None {
                return true;
            }
            let is_eased = tokio::time::timeout(ROOM_WAIT, eased).await.is_ok();
            drop(waits);
            if is_eased {
                continue;
            }
            self.lanes.lock().assess(Instant::now());
            if crowd == Crowd::Many {
                return false;
            }
        }
    }

    /// Tells readers that wait, once it is worth their while.
    fn ease(&self, crowd: impl FnOnce(usize) -> Crowd) {
        if self.readers.load(Ordering::Relaxed) > 0 && crowd(self.hopeful_max / 2) == Crowd::None {
            self.eased.notify_waiters();
        }
    }

    /// Gives lanes more senders as they turn out to need them. Never ends by itself.
    pub(crate) async fn widen(self: &Arc<Self>) {
        loop {
            self.narrowed.notified().await;
            tokio::time::sleep(WIDEN_EVERY).await;
            self.alter(|lanes, moves| lanes.widen(Instant::now(), moves));
        }
    }

    /// A sender ended an attempt.
    pub(crate) fn next(self: &Arc<Self>, key: LaneKey, seat: &Arc<Seat>, ended: Ended) -> Turn {
        let next = self.with_lanes(|lanes| {
            let now = Instant::now();
            let next = lanes.next(key, seat, ended, now);
            self.ease(|hopeful_max| lanes.crowd(hopeful_max, now));
            next
        });
        match next {
            Next::Go(start) => Turn::Go(self.assign(*start)),
            Next::Rest => Turn::Rest,
            Next::Leave => Turn::Leave,
        }
    }

    /// Sends a test to an endpoint, whatever its state and past all lanes.
    pub(crate) fn test(self: &Arc<Self>, desk: Arc<Desk>, callee: Arc<Callee>, delivery: Delivery) {
        desk.sent_out();
        let crew = self.clone();
        self.tasks.spawn(async move {
            let done =
                sender::send(&crew, &mut crate::attempt::Phone::new(), callee, delivery).await;
            desk.come_back(done);
        });
    }

    fn carry_out(self: &Arc<Self>, moves: Moves) {
        for seat in moves.dismissed {
            seat.call(Call::Leave);
        }
        for start in moves.starts {
            self.begin(start);
        }
        for displaced in moves.displaced {
            displaced.desk.hand_in(Done {
                delivery: displaced.delivery,
                fate: Fate::Aside(displaced.aside),
                permit: None,
            });
        }
    }

    fn begin(self: &Arc<Self>, mut start: Start) {
        let seat = start.seat.take();
        let assignment = self.assign(start);
        match seat {
            Some(seat) => seat.call(Call::Go(assignment)),
            None => {
                self.tasks.spawn(sender::run(self.clone(), assignment));
            }
        }
    }

    fn assign(self: &Arc<Self>, start: Start) -> Assignment {
        Assignment {
            lane: start.lane,
            desk: start.desk,
            callee: start.callee,
            delivery: start.delivery,
            permit: Permit {
                crew: self.clone(),
                class: start.class,
            },
        }
    }
}

/// A reader that waits, for as long as this lives.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(readers: &'a AtomicUsize) -> Self {
        readers.fetch_add(1, Ordering::Relaxed);
        Self(readers)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let release = |lanes: &mut Lanes| {
            let now = Instant::now();
            let start = lanes.release(self.class, now);
            self.crew.ease(|hopeful_max| lanes.crowd(hopeful_max, now));
            start
        };
        let start = self.crew.with_lanes(release);
        if let Some(start) = start {
            self.crew.begin(start);
        }
    }
}

fn standing_of(catalog: &Catalog, delivery: &Delivery) -> Standing {
    Standing::of(catalog, &delivery.letter.event.tenant, delivery.target)
}
