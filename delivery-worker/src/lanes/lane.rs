//! One lane: its queues (first attempts and what was parked, in order; what must wait until all
//! parked rows are back; retries), its senders, and how it has been doing.

use std::collections::VecDeque;
use std::sync::Arc;

use fanfare_domain::EndpointId;
use tokio::time::Instant;

use super::parked::ParkedRows;
use super::width::Width;
use super::{Class, Displaced, Ended, PATIENCE, Totals};
use crate::callee::Callee;
use crate::desk::{Aside, Desk};
use crate::letter::{Delivery, Origin};
use crate::seat::Seat;
use crate::standing::Standing;

/// While both queues have something, one of this many starts is a retry.
const RETRY_TURN: u8 = 4;

pub(crate) struct Lane {
    endpoint: EndpointId,
    pub(super) desk: Arc<Desk>,
    pub(super) standing: Standing,
    /// `None` while it is not called.
    pub(super) callee: Option<Arc<Callee>>,
    pub(super) fresh: VecDeque<Delivery>,
    /// First attempts whose turn is after everything that is parked.
    behind: VecDeque<Delivery>,
    pub(super) retries: VecDeque<Delivery>,
    pub(super) bytes: usize,
    pub(super) parked: ParkedRows,
    class: Class,
    /// Attempts under way.
    pub(super) running: usize,
    /// Senders, at work or idle.
    pub(super) seats: usize,
    pub(super) idle: Vec<Arc<Seat>>,
    /// Whether it stands in a line for a permit.
    pub(super) waiting: bool,
    /// Whether it is worth no more senders than it has, and has more to send.
    pub(super) narrow: bool,
    width: Width,
    turn: u8,
    /// When it last delivered, or became busy.
    progress: Instant,
    pace: Pace,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// Nothing is known yet.
    Unknown,
    /// It delivers.
    Moving,
    /// It was busy for longer than [`PATIENCE`] without delivering anything.
    Stuck,
}

impl Lane {
    pub(super) fn new(
        desk: Arc<Desk>,
        endpoint: EndpointId,
        standing: &Standing,
        now: Instant,
    ) -> Self {
        let mut lane = Self {
            endpoint,
            desk,
            standing: standing.clone(),
            callee: None,
            fresh: VecDeque::new(),
            behind: VecDeque::new(),
            retries: VecDeque::new(),
            bytes: 0,
            parked: ParkedRows::default(),
            class: Class::New,
            running: 0,
            seats: 0,
            idle: Vec::new(),
            waiting: false,
            narrow: false,
            width: Width::new(now),
            turn: 0,
            progress: now,
            pace: Pace::Unknown,
            closed: false,
        };
        lane.change(standing);
        lane
    }

    pub(super) fn endpoint(&self) -> EndpointId {
        self.endpoint
    }

    pub(super) fn change(&mut self, standing: &Standing) {
        self.standing = standing.clone();
        self.callee = match standing {
            Standing::Active(endpoint) => match self.callee.take() {
                Some(callee) if Arc::ptr_eq(&callee.endpoint, endpoint) => Some(callee),
                _ => Some(Arc::new(Callee::new(endpoint.clone()))),
            },
            _ => None,
        };
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        self.callee = None;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether there is something that may be sent.
    pub(super) fn has_work(&self) -> bool {
        self.callee.is_some() && !(self.fresh.is_empty() && self.retries.is_empty())
    }

    /// Whether it does nothing and holds nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting() == 0
    }

    /// First attempts that wait.
    pub(super) fn waiting_first(&self) -> usize {
        self.fresh.len() + self.behind.len()
    }

    fn waiting(&self) -> usize {
        self.waiting_first() + self.retries.len()
    }

    /// Whether it can be forgotten.
    pub(super) fn is_over(&self) -> bool {
        let unused = self.is_idle() && self.seats == 0;
        unused && (self.closed || !self.parked.is_under_way())
    }

    /// Which permits it may use.
    pub(super) fn class(&self, now: Instant) -> Class {
        if self.running > 0 && self.is_late(now) {
            Class::Failing
        } else {
            self.class
        }
    }

    /// Whether its endpoint answers too fast for another sender to help.
    pub(super) fn is_wide(&self, now: Instant) -> bool {
        let senders = self.width.senders(now);
        senders.is_some_and(|senders| self.running >= senders)
    }

    fn is_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.progress) > PATIENCE
    }

    pub(super) fn is_moving(&self) -> bool {
        self.pace == Pace::Moving
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.pace == Pace::Stuck
    }

    pub(super) fn push(&mut self, totals: &mut Totals, delivery: Delivery, now: Instant) {
        if self.is_idle() {
            self.progress = now;
        }
        self.count(totals, &delivery);
        if delivery.is_retry() {
            self.retries.push_back(delivery);
        } else {
            self.fresh.push_back(delivery);
        }
    }

    /// Keeps a first attempt until everything that is parked has come back.
    pub(super) fn push_behind(&mut self, totals: &mut Totals, delivery: Delivery) {
        self.count(totals, &delivery);
        self.behind.push_back(delivery);
    }

    /// Everything that was parked is back: what waited for that is next.
    pub(super) fn come_forward(&mut self) {
        self.fresh.append(&mut self.behind);
    }

    fn count(&mut self, totals: &mut Totals, delivery: &Delivery) {
        let size = delivery.letter.size();
        self.bytes += size;
        totals.bytes += size;
        totals.queued += 1;
        if !self.is_stuck() {
            totals.hopeful += 1;
        }
    }

    pub(super) fn pop(&mut self, totals: &mut Totals, now: Instant) -> Option<Delivery> {
        self.turn = (self.turn + 1) % RETRY_TURN;
        let retry_first = self.turn == 0 || self.fresh.is_empty();
        let delivery = match retry_first.then(|| self.retries.pop_front()).flatten() {
            Some(retry) => retry,
            None => self
                .fresh
                .pop_front()
                .or_else(|| self.retries.pop_front())?,
        };
        if self.running == 0 {
            // Waiting for a permit is not the endpoint's fault.
            self.progress = now;
            self.width.busy(now);
        }
        self.account(totals, &delivery);
        self.want_parked();
        Some(delivery)
    }

    /// Takes everything that waits.
    pub(super) fn take_all(&mut self, totals: &mut Totals) -> Vec<Delivery> {
        self.take_where(totals, |_| true)
    }

    pub(super) fn take_where(
        &mut self,
        totals: &mut Totals,
        gone: impl Fn(&Delivery) -> bool,
    ) -> Vec<Delivery> {
        let mut taken = Vec::new();
        for queue in [&mut self.fresh, &mut self.behind, &mut self.retries] {
            let (out, kept) = queue.drain(..).partition(|delivery| gone(delivery));
            *queue = kept;
            taken.append(&mut Vec::from(out));
        }
        for delivery in &taken {
            self.account(totals, delivery);
        }
        taken
    }

    /// Takes the first attempts that wait behind the first `kept`, and behind what is parked.
    pub(super) fn take_fresh(&mut self, totals: &mut Totals, kept: usize) -> Vec<Delivery> {
        let at = kept.min(self.fresh.len());
        let mut taken: Vec<Delivery> = self.fresh.split_off(at).into();
        taken.extend(self.behind.drain(..));
        for delivery in &taken {
            self.account(totals, delivery);
        }
        taken
    }

    fn account(&mut self, totals: &mut Totals, gone: &Delivery) {
        let size = gone.letter.size();
        self.bytes -= size;
        totals.bytes -= size;
        totals.queued -= 1;
        if !self.is_stuck() {
            totals.hopeful -= 1;
        }
    }

    /// An attempt ended.
    pub(super) fn ended(&mut self, totals: &mut Totals, ended: Ended, now: Instant) {
        self.running -= 1;
        match ended {
            Ended::Delivered(latency) => {
                self.class = Class::Proven;
                self.progress = now;
                self.width.delivered(latency, now);
                self.set_pace(totals, Pace::Moving);
            }
            Ended::Failed => {
                self.class = Class::Failing;
                self.width.failed(now);
            }
        }
    }

    /// Finds out whether it is stuck.
    pub(super) fn assess(&mut self, totals: &mut Totals, now: Instant) {
        if self.running > 0 && self.is_late(now) {
            self.set_pace(totals, Pace::Stuck);
        }
    }

    fn set_pace(&mut self, totals: &mut Totals, pace: Pace) {
        let waits = self.waiting();
        match (self.pace == Pace::Stuck, pace == Pace::Stuck) {
            (true, false) => totals.hopeful += waits,
            (false, true) => totals.hopeful -= waits,
            _ => {}
        }
        self.pace = pace;
    }

    /// What becomes of a delivery that cannot wait here.
    pub(super) fn displace(&mut self, delivery: Delivery, aside: Aside) -> Displaced {
        match (&delivery.origin, &aside) {
            // It is in the store already, and is found there again.
            (Origin::Parked(..), Aside::Park(_)) => self.parked.put_back(),
            (_, Aside::Park(_)) => self.parked.pending += 1,
            _ => {}
        }
        Displaced {
            desk: self.desk.clone(),
            delivery,
            aside,
        }
    }
}
