//! Lanes: what waits for each endpoint, who may send next, and what has no room and must park.
//!
//! Pure state behind one lock: no IO, no clock, no task. Every method is told `now` and answers
//! with what is to be done ([`Start`], [`Displaced`]); the [`crew`](crate::crew) does it.
//!
//! - A lane belongs to one endpoint in one shift. It sends at most `lane_in_flight` at a time, and
//!   no more than help while its endpoint answers fast ([`width`]).
//! - A *permit* stands for an attempt from its start to the commit of its outcome; how many a lane
//!   may use depends on how it has been doing ([`permits`]). Who finds none waits in turn.
//! - What waits is bounded over all lanes by count and bytes; readers wait before that while it is
//!   the worker that has no more to give ([`Crowd`]), so that the healthy park nothing.
//! - A lane may fill half of what is left; one that had no success for [`PATIENCE`] while it was
//!   busy is *stuck* and keeps a small part, the rest parks.
//! - While anything of an endpoint is parked, or about to be, what is new waits behind it: within
//!   the same bounds in memory, else parked, too. So a lane does not stay with parking only because
//!   something is always new.

mod lane;
mod parked;
mod permits;
mod width;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::{EndpointId, ParkedReason, SubscriptionId};
use tokio::time::Instant;

use crate::callee::Callee;
use crate::desk::{Aside, Desk};
use crate::letter::{Delivery, Origin};
use crate::seat::Seat;
use crate::standing::Standing;

use lane::Lane;
pub(crate) use permits::Class;
use permits::Permits;

/// Permits of lanes of which nothing is known are about to come back if the last one that was taken or
/// came back did so no longer ago than this: those of lanes that hang do not.
const FLOW: Duration = Duration::from_secs(1);
/// A busy lane without a success for this long is stuck.
pub(crate) const PATIENCE: Duration = Duration::from_millis(250);
/// How often narrow lanes are looked at.
pub(crate) const WIDEN_EVERY: Duration = width::STALL;
/// Most deliveries that a stuck lane keeps in memory.
const STUCK_MAX: usize = 64;
/// Most retries that wait in one lane; more park.
const RETRIES_MAX: usize = 32;

/// An endpoint in a shift.
pub(crate) type LaneKey = (u32, EndpointId);

/// The bounds of all lanes together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) in_flight: usize,
    pub(crate) lane_in_flight: usize,
    pub(crate) queue_max: usize,
    pub(crate) queue_max_bytes: usize,
    pub(crate) idle_seats: usize,
}

/// Every lane of this worker.
pub(crate) struct Lanes {
    bounds: Bounds,
    by_key: HashMap<LaneKey, Lane>,
    shifts: Vec<u32>,
    totals: Totals,
    permits: Permits,
    /// Lanes that wait for their own sender; they may be worth another before long.
    narrow: Vec<LaneKey>,
    /// Lanes that found no permit, by class, in turn.
    waiting: [VecDeque<LaneKey>; 3],
    /// The class that was granted a permit last.
    turn: usize,
    idle_seats: usize,
}

/// What waits, over all lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) queued: usize,
    pub(crate) bytes: usize,
    /// The part of `queued` in lanes that are not stuck.
    pub(crate) hopeful: usize,
}

/// What speaks against reading on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crowd {
    /// Nothing.
    None,
    /// Lanes that are not stuck hold much, and will soon have room again.
    Many,
    /// Enough waits for the next permits: every one is in use, or nobody is proven yet and those for
    /// the new are in use, and come back. Who reads on can have nothing sent by it.
    Full,
}

/// A delivery that starts now: its permit is taken.
pub(crate) struct Start {
    pub(crate) lane: LaneKey,
    pub(crate) desk: Arc<Desk>,
    pub(crate) callee: Arc<Callee>,
    pub(crate) delivery: Delivery,
    pub(crate) class: Class,
    /// An idle sender; a new one when there is none.
    pub(crate) seat: Option<Arc<Seat>>,
}

/// A delivery that cannot wait in its lane.
pub(crate) struct Displaced {
    pub(crate) desk: Arc<Desk>,
    pub(crate) delivery: Delivery,
    pub(crate) aside: Aside,
}

/// What came of some offers or of a change.
#[derive(Default)]
pub(crate) struct Moves {
    pub(crate) starts: Vec<Start>,
    pub(crate) displaced: Vec<Displaced>,
    /// Idle senders that are to go home.
    pub(crate) dismissed: Vec<Arc<Seat>>,
}

/// What a sender does next.
pub(crate) enum Next {
    /// Send this.
    Go(Box<Start>),
    /// Wait at the seat.
    Rest,
    /// There is nothing to do and enough others wait.
    Leave,
}

/// How an attempt ended, as far as the lane cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// After this long.
    Delivered(Duration),
    Failed,
}

impl Lanes {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            permits: Permits::new(bounds.in_flight, bounds.lane_in_flight),
            bounds,
            by_key: HashMap::new(),
            shifts: Vec::new(),
            totals: Totals::default(),
            narrow: Vec::new(),
            waiting: Default::default(),
            turn: 0,
            idle_seats: 0,
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// What speaks against reading on, where lanes that are not stuck may hold `hopeful_max`.
    pub(crate) fn crowd(&self, hopeful_max: usize, now: Instant) -> Crowd {
        let hopeful = self.totals.hopeful;
        let permits = &self.permits;
        let begins = permits.held(Class::Proven) == 0
            && permits.left(Class::New) == 0
            && permits.is_flowing(Class::New, FLOW, now);
        let is_full = begins || permits.left(Class::Proven) == 0;
        if is_full && hopeful >= self.bounds.in_flight {
            Crowd::Full
        } else if hopeful >= hopeful_max {
            Crowd::Many
        } else {
            Crowd::None
        }
    }

    /// Permits in use.
    pub(crate) fn in_flight(&self) -> usize {
        self.permits.in_use()
    }

    /// A shift begins.
    pub(crate) fn open(&mut self, shift: u32) {
        self.shifts.push(shift);
    }

    /// A shift ends: nothing of it starts any more, what waits is dropped (and answered, so that
    /// it is dropped outside of the lock).
    pub(crate) fn close(&mut self, shift: u32) -> (Vec<Delivery>, Vec<Arc<Seat>>) {
        self.shifts.retain(|open| *open != shift);
        let (mut dropped, mut dismissed) = (Vec::new(), Vec::new());
        let keys: Vec<LaneKey> = self
            .by_key
            .keys()
            .copied()
            .filter(|k| k.0 == shift)
            .collect();
        for key in keys {
            let Some(lane) = self.by_key.get_mut(&key) else {
                continue;
            };
            lane.close();
            dropped.extend(lane.take_all(&mut self.totals));
            self.idle_seats -= lane.idle.len();
            lane.seats -= lane.idle.len();
            dismissed.append(&mut lane.idle);
            self.remove_if_over(key);
        }
        (dropped, dismissed)
    }

    /// Offers a first attempt to its lane. `standing` is that of the target by some recent
    /// catalog; a lane that exists knows better.
    pub(crate) fn offer(
        &mut self,
        desk: &Arc<Desk>,
        standing: &Standing,
        delivery: Delivery,
        now: Instant,
        moves: &mut Moves,
    ) {
        let Some((key, delivery)) = self.admit(desk, standing, delivery, moves) else {
            return;
        };
        let lane = self.lane(desk, key.1, standing, now);
        let aside = match &lane.standing {
            Standing::Ended(reason) => Some(Aside::End(*reason)),
            Standing::Paused => Some(Aside::Park(ParkedReason::Paused)),
            Standing::Active(_) => {
                let is_behind = lane.parked.is_any();
                match self.refusal(key, delivery.letter.size(), now, moves) {
                    None if is_behind => return self.keep_behind(key, delivery),
                    refused => refused,
                }
            }
        };
        self.place(key, delivery, aside, now, moves);
    }

    /// Offers a retry to its lane; it parks when there is no room.
    pub(crate) fn offer_retry(
        &mut self,
        desk: &Arc<Desk>,
        standing: &Standing,
        delivery: Delivery,
        now: Instant,
        moves: &mut Moves,
    ) {
        let Some((key, delivery)) = self.admit(desk, standing, delivery, moves) else {
            return;
        };
        let is_full = self.totals.queued >= self.bounds.queue_max;
        let lane = self.lane(desk, key.1, standing, now);
        let aside = match &lane.standing {
            Standing::Ended(reason) => Some(Aside::End(*reason)),
            Standing::Paused => Some(Aside::Park(ParkedReason::Paused)),
            Standing::Active(_) if is_full || lane.retries.len() >= RETRIES_MAX => {
                Some(Aside::Park(ParkedReason::LaneFull))
            }
            Standing::Active(_) => None,
        };
        self.place(key, delivery, aside, now, moves);
    }

    /// A sender of `key` ended an attempt and asks for more.
    pub(crate) fn next(
        &mut self,
        key: LaneKey,
        seat: &Arc<Seat>,
        ended: Ended,
        now: Instant,
    ) -> Next {
        let Some(lane) = self.by_key.get_mut(&key) else {
            return Next::Leave;
        };
        lane.ended(&mut self.totals, ended, now);
        // Whoever waits in turn comes first: the permit just given up may be theirs.
        if let Some(mut start) = self.start_one(key, now, Some(seat)) {
            start.seat = None;
            return Next::Go(Box::new(start));
        }
        let Some(lane) = self.by_key.get_mut(&key) else {
            return Next::Leave;
        };
        if lane.is_closed() || self.idle_seats >= self.bounds.idle_seats {
            lane.seats -= 1;
            self.remove_if_over(key);
            return Next::Leave;
        }
        lane.idle.push(seat.clone());
        self.idle_seats += 1;
        Next::Rest
    }

    /// A sender has rested for long enough. Whether it may leave; otherwise its next delivery is
    /// on its way to the seat.
    pub(crate) fn may_leave(&mut self, key: LaneKey, seat: &Arc<Seat>) -> bool {
        let Some(lane) = self.by_key.get_mut(&key) else {
            return false;
        };
        let Some(at) = lane.idle.iter().position(|idle| Arc::ptr_eq(idle, seat)) else {
            return false;
        };
        lane.idle.swap_remove(at);
        lane.seats -= 1;
        self.idle_seats -= 1;
        self.remove_if_over(key);
        true
    }

    /// A permit comes back; whoever waits for one starts.
    pub(crate) fn release(&mut self, class: Class, now: Instant) -> Option<Start> {
        self.permits.give_back(class, now);
        for _ in Class::ALL {
            self.turn = (self.turn + 1) % Class::ALL.len();
            if let Some(start) = self.grant(Class::ALL[self.turn], now) {
                return Some(start);
            }
        }
        None
    }

    /// The endpoint changed. What waits for it goes on, parks or ends with it.
    pub(crate) fn change_endpoint(
        &mut self,
        endpoint: EndpointId,
        standing: &Standing,
        now: Instant,
        moves: &mut Moves,
    ) {
        for shift in self.shifts.clone() {
            let key = (shift, endpoint);
            let Some(lane) = self.by_key.get_mut(&key) else {
                continue;
            };
            lane.change(standing);
            let aside = match standing {
                Standing::Active(_) => {
                    lane.want_parked();
                    self.start(key, now, &mut moves.starts);
                    continue;
                }
                Standing::Paused => Aside::Park(ParkedReason::Paused),
                Standing::Ended(reason) => Aside::End(*reason),
            };
            for delivery in lane.take_all(&mut self.totals) {
                moves.displaced.push(lane.displace(delivery, aside));
            }
            // Parked rows of an ended endpoint end, too.
            lane.want_parked();
        }
    }

    /// A subscription is gone, and with it what waits for it.
    pub(crate) fn end_subscription(
        &mut self,
        endpoint: EndpointId,
        subscription: SubscriptionId,
        aside: Aside,
        moves: &mut Moves,
    ) {
        for shift in &self.shifts {
            let Some(lane) = self.by_key.get_mut(&(*shift, endpoint)) else {
                continue;
            };
            let gone = lane.take_where(&mut self.totals, |delivery| {
                delivery.target.subscription == subscription
            });
            for delivery in gone {
                moves.displaced.push(lane.displace(delivery, aside));
            }
        }
    }

    /// Parks what waits in the stuck lanes of a shift, so that its records can be settled.
    pub(crate) fn shed(&mut self, shift: u32, now: Instant, moves: &mut Moves) {
        for (key, lane) in &mut self.by_key {
            lane.assess(&mut self.totals, now);
            if key.0 == shift && !lane.is_moving() {
                for delivery in lane.take_fresh(&mut self.totals, 0) {
                    let aside = Aside::Park(ParkedReason::Unhealthy);
                    moves.displaced.push(lane.displace(delivery, aside));
                }
            }
        }
    }

    /// Whether some lane waits for its own sender: [`Lanes::widen`] is due within [`WIDEN_EVERY`].
    pub(crate) fn has_narrow(&self) -> bool {
        !self.narrow.is_empty()
    }

    /// Starts what waits in narrow lanes that are worth another sender by now.
    pub(crate) fn widen(&mut self, now: Instant, moves: &mut Moves) {
        for key in std::mem::take(&mut self.narrow) {
            if let Some(lane) = self.by_key.get_mut(&key) {
                lane.narrow = false;
                self.start(key, now, &mut moves.starts);
            }
        }
    }

    /// Finds the lanes that got stuck without anybody noticing.
    pub(crate) fn assess(&mut self, now: Instant) {
        for lane in self.by_key.values_mut() {
            lane.assess(&mut self.totals, now);
        }
    }

    /// Sorts out what needs no lane: a shift that is over, a target that is no more.
    fn admit(
        &self,
        desk: &Arc<Desk>,
        standing: &Standing,
        delivery: Delivery,
        moves: &mut Moves,
    ) -> Option<(LaneKey, Delivery)> {
        if let Standing::Ended(reason) = standing {
            moves.displaced.push(Displaced {
                desk: desk.clone(),
                delivery,
                aside: Aside::End(*reason),
            });
            return None;
        }
        let is_open = self.shifts.contains(&desk.shift);
        is_open.then(|| ((desk.shift, delivery.endpoint()), delivery))
    }

    fn lane(
        &mut self,
        desk: &Arc<Desk>,
        endpoint: EndpointId,
        standing: &Standing,
        now: Instant,
    ) -> &mut Lane {
        self.by_key
            .entry((desk.shift, endpoint))
            .or_insert_with(|| Lane::new(desk.clone(), endpoint, standing, now))
    }

    /// Why a first attempt cannot wait in its lane, if it cannot.
    fn refusal(
        &mut self,
        key: LaneKey,
        size: usize,
        now: Instant,
        moves: &mut Moves,
    ) -> Option<Aside> {
        let room = Room::left(&self.bounds, self.totals);
        let lane = self.by_key.get_mut(&key)?;
        lane.assess(&mut self.totals, now);
        // Behind what a stuck endpoint holds up, nothing waits in memory.
        let is_held_up = lane.is_stuck() && lane.parked.is_any();
        if room.admits(lane, size) && !is_held_up {
            return None;
        }
        let (kept, reason) = if lane.is_stuck() {
            (STUCK_MAX, ParkedReason::Unhealthy)
        } else {
            (usize::MAX, ParkedReason::LaneFull)
        };
        // What came earlier parks earlier.
        for delivery in lane.take_fresh(&mut self.totals, kept) {
            moves
                .displaced
                .push(lane.displace(delivery, Aside::Park(reason)));
        }
        Some(Aside::Park(reason))
    }

    /// Keeps a delivery in memory until everything of its endpoint that is parked has come back.
    fn keep_behind(&mut self, key: LaneKey, delivery: Delivery) {
        if let Some(lane) = self.by_key.get_mut(&key) {
            lane.push_behind(&mut self.totals, delivery);
        }
    }

    /// Puts a delivery into its lane, or sets it aside.
    fn place(
        &mut self,
        key: LaneKey,
        delivery: Delivery,
        aside: Option<Aside>,
        now: Instant,
        moves: &mut Moves,
    ) {
        let Some(lane) = self.by_key.get_mut(&key) else {
            return;
        };
        if let Some(aside) = aside {
            moves.displaced.push(lane.displace(delivery, aside));
            self.remove_if_over(key);
        } else {
            lane.push(&mut self.totals, delivery, now);
            self.start(key, now, &mut moves.starts);
        }
    }

    /// Starts what may start in a lane.
    fn start(&mut self, key: LaneKey, now: Instant, starts: &mut Vec<Start>) {
        while let Some(start) = self.start_one(key, now, None) {
            starts.push(start);
        }
    }

    /// Starts one delivery of a lane, if there is one and it may. `own` is the seat of a sender
    /// that asks for itself.
    fn start_one(&mut self, key: LaneKey, now: Instant, own: Option<&Arc<Seat>>) -> Option<Start> {
        let lane = self.by_key.get_mut(&key)?;
        let class = lane.class(now);
        if !lane.has_work() || lane.running >= self.permits.share(class) {
            return None;
        }
        if lane.is_wide(now) {
            if !lane.narrow {
                lane.narrow = true;
                self.narrow.push(key);
            }
            return None;
        }
        if self.permits.left(class) == 0 {
            if !lane.waiting {
                lane.waiting = true;
                self.waiting[class.index()].push_back(key);
            }
            return None;
        }
        let delivery = lane.pop(&mut self.totals, now)?;
        let callee = lane.callee.clone()?;
        self.permits.take(class, now);
        let seat = match own {
            Some(_) => None,
            None => lane.idle.pop().inspect(|_| self.idle_seats -= 1),
        };
        if seat.is_none() && own.is_none() {
            lane.seats += 1;
        }
        lane.running += 1;
        lane.desk.sent_out();
        Some(Start {
            lane: key,
            desk: lane.desk.clone(),
            callee,
            delivery,
            class,
            seat,
        })
    }

    /// Gives a permit to the first lane of `class` that waits and still wants one.
    fn grant(&mut self, class: Class, now: Instant) -> Option<Start> {
        // A lane whose class has changed meanwhile may stand in line again, elsewhere.
        for _ in 0..self.waiting[class.index()].len() {
            if self.permits.left(class) == 0 {
                return None;
            }
            let key = self.waiting[class.index()].pop_front()?;
            if let Some(lane) = self.by_key.get_mut(&key) {
                lane.waiting = false;
                if let Some(start) = self.start_one(key, now, None) {
                    self.queue_again(key, now);
                    return Some(start);
                }
            }
        }
        None
    }

    /// A lane that got one permit and could use another goes to the end of the line.
    fn queue_again(&mut self, key: LaneKey, now: Instant) {
        if let Some(lane) = self.by_key.get_mut(&key) {
            let class = lane.class(now);
            let more = lane.running < self.permits.share(class) && !lane.is_wide(now);
            if !lane.waiting && lane.has_work() && more {
                lane.waiting = true;
                self.waiting[class.index()].push_back(key);
            }
        }
    }

    fn remove_if_over(&mut self, key: LaneKey) {
        if self.by_key.get(&key).is_some_and(Lane::is_over) {
            self.by_key.remove(&key);
        }
    }
}

/// What is left of the room for what waits.
struct Room {
    count: usize,
    bytes: usize,
}

impl Room {
    fn left(bounds: &Bounds, totals: Totals) -> Self {
        Self {
            count: bounds.queue_max.saturating_sub(totals.queued),
            bytes: bounds.queue_max_bytes.saturating_sub(totals.bytes),
        }
    }

    /// Whether `lane` may keep another delivery of `size` bytes in memory.
    fn admits(&self, lane: &Lane, size: usize) -> bool {
        if self.count == 0 {
            return false;
        }
        if lane.is_idle() {
            // One that can start at once takes no room to speak of.
            return true;
        }
        let (count_max, bytes_max) = if lane.is_stuck() {
            (STUCK_MAX.min(self.count / 8), self.bytes / 8)
        } else {
            (self.count / 2, self.bytes / 2)
        };
        lane.waiting_first() < count_max && lane.bytes + size <= bytes_max
    }
}

impl Delivery {
    /// Whether it is a retry that waits apart from first attempts.
    fn is_retry(&self) -> bool {
        matches!(self.origin, Origin::Retry(..))
    }
}
