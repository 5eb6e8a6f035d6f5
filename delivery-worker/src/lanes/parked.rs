//! What a lane knows of its parked rows, and how they come back in order.
//!
//! Rows are fetched in batches behind a cursor, while the lane has room. They stay in the store
//! until their fate is written. At the end of the queue, once nothing fetched is in hand, it is
//! looked at once more from the front; only when that finds nothing, and nothing was parked in the
//! meantime, is it the turn of what came since.

use std::sync::Arc;

use fanfare_domain::{EndpointId, ParkedReason};
use fanfare_store::ParkedKey;
use tokio::time::Instant;

use super::lane::Lane;
use super::{LaneKey, Lanes, Moves};
use crate::desk::{Aside, Desk};
use crate::letter::Delivery;
use crate::standing::Standing;

/// Rows of one batch.
const BATCH_MAX: usize = 64;
/// Waiting first attempts below which the next batch is fetched.
const LOW_WATER: usize = 16;
/// Fetched rows of an ended endpoint whose dead letters are not written yet.
const ENDING_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct ParkedRows {
    /// Whether the store may have some.
    stored: bool,
    /// Rows that are about to be written.
    pub(super) pending: usize,
    /// Batches written; tells whether anything was parked between two looks.
    written: u64,
    /// Rows fetched whose fate is not written yet.
    in_hand: usize,
    /// A fetch is wanted or under way.
    fetching: bool,
    after: Option<ParkedKey>,
    /// The cursor has reached the end.
    at_end: bool,
}

/// What to fetch for a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) after: Option<ParkedKey>,
    pub(crate) limit: usize,
    /// To be given back with what was found.
    written: u64,
}

impl ParkedRows {
    /// Whether new deliveries must park behind others.
    pub(super) fn is_any(&self) -> bool {
        self.stored || self.pending > 0
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.is_any() || self.in_hand > 0 || self.fetching
    }

    /// A fetched row is left in the store after all: it will be fetched again from the front.
    pub(super) fn put_back(&mut self) {
        self.after = None;
        self.at_end = false;
        self.stored = true;
    }
}

impl Lane {
    /// Asks for parked rows if there may be some and there is room for them.
    pub(super) fn want_parked(&mut self) {
        let is_closed = self.is_closed();
        let parked = &mut self.parked;
        let has_room = match self.standing {
            Standing::Active(_) => self.fresh.len() < LOW_WATER,
            Standing::Paused => false,
            Standing::Ended(_) => parked.in_hand < ENDING_MAX,
        };
        let waits_for_hand = parked.at_end && parked.in_hand > 0;
        if parked.stored && !parked.fetching && has_room && !waits_for_hand && !is_closed {
            parked.fetching = true;
            self.desk.want_parked(self.endpoint());
        }
    }
}

impl Lanes {
    /// The store has parked rows of `endpoint` from before the shift of `desk`.
    pub(crate) fn found_parked(
        &mut self,
        desk: &Arc<Desk>,
        endpoint: EndpointId,
        standing: &Standing,
        now: Instant,
    ) {
        if !self.shifts.contains(&desk.shift) {
            return;
        }
        let lane = self
            .by_key
            .entry((desk.shift, endpoint))
            .or_insert_with(|| Lane::new(desk.clone(), endpoint, standing, now));
        lane.parked.stored = true;
        lane.want_parked();
    }

    /// `count` rows of `key` are written.
    pub(crate) fn parked_written(&mut self, key: LaneKey, count: usize) {
        if let Some(lane) = self.by_key.get_mut(&key) {
            let parked = &mut lane.parked;
            parked.pending = parked.pending.saturating_sub(count);
            parked.stored = true;
            parked.at_end = false;
            parked.written += 1;
            lane.want_parked();
        }
    }

    /// The fate of `count` fetched rows of `key` is written.
    pub(crate) fn parked_settled(&mut self, key: LaneKey, count: usize) {
        if let Some(lane) = self.by_key.get_mut(&key) {
            lane.parked.in_hand = lane.parked.in_hand.saturating_sub(count);
            lane.want_parked();
            self.remove_if_over(key);
        }
    }

    /// What to fetch for `key` now, after it was asked for; `None`: nothing any more.
    pub(crate) fn batch(&mut self, key: LaneKey) -> Option<Batch> {
        let lane = self.by_key.get_mut(&key)?;
        let room = match lane.standing {
            Standing::Active(_) => BATCH_MAX.saturating_sub(lane.fresh.len()),
            Standing::Paused => 0,
            Standing::Ended(_) => BATCH_MAX,
        };
        if room == 0 || lane.is_closed() {
            lane.parked.fetching = false;
            self.remove_if_over(key);
            return None;
        }
        Some(Batch {
            after: lane.parked.after,
            limit: room,
            written: lane.parked.written,
        })
    }

    /// A batch came: `last` is the key of its last row, `None` when there was none.
    pub(crate) fn fetched(
        &mut self,
        key: LaneKey,
        batch: Batch,
        last: Option<ParkedKey>,
        now: Instant,
        moves: &mut Moves,
    ) {
        let Some(lane) = self.by_key.get_mut(&key) else {
            return;
        };
        let parked = &mut lane.parked;
        parked.fetching = false;
        match last {
            Some(last) => parked.after = Some(last),
            None if parked.in_hand > 0 => parked.at_end = true,
            None if batch.after.is_some() => parked.after = None,
            None => parked.stored = parked.written != batch.written,
        }
        lane.want_parked();
        if !lane.parked.is_any() {
            lane.come_forward();
            self.start(key, now, &mut moves.starts);
        }
        self.remove_if_over(key);
    }

    /// `count` fetched rows are in hand from now on, until [`Lanes::parked_settled`].
    pub(crate) fn take_in_hand(&mut self, key: LaneKey, count: usize) {
        if let Some(lane) = self.by_key.get_mut(&key) {
            lane.parked.in_hand += count;
        }
    }

    /// Puts a fetched delivery into its lane. It was parked for want of room, and what is fetched
    /// is bounded by the batch, so it is not refused for want of room again.
    pub(crate) fn offer_parked(
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
        let aside = match &self.lane(desk, key.1, standing, now).standing {
            Standing::Active(_) => None,
            Standing::Paused => Some(Aside::Park(ParkedReason::Paused)),
            Standing::Ended(reason) => Some(Aside::End(*reason)),
        };
        self.place(key, delivery, aside, now, moves);
    }
}
