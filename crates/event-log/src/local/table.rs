//! The seats of one group: a pure state machine; whoever calls it brings the time and tells others.

use std::collections::BTreeMap;
use std::time::Duration;

use fanfare_domain::Tenure;
use tokio::time::Instant;

use crate::log::{Group, Lease, LeaseKeeper, Span, Stream};

/// A member of one table; never given to a second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MemberId(u64);

/// One group on one stream.
pub(super) struct Table {
    stream: Stream,
    group: Group,
    revoke_deadline: Duration,
    seats: Vec<Seat>,
    /// How many spans each may hold; see [`Table::balance`].
    members: BTreeMap<MemberId, usize>,
    last_member: u64,
}

/// A span and who has it.
struct Seat {
    span: Span,
    epoch: u64,
    holder: Option<Holder>,
}

struct Holder {
    member: MemberId,
    keeper: LeaseKeeper,
    /// Granted, but the member has not taken it up yet.
    offered: Option<Lease>,
    /// Set while revoked: when it is lost.
    until: Option<Instant>,
}

impl Table {
    pub(super) fn new(
        stream: Stream,
        group: Group,
        spans: &[Span],
        revoke_deadline: Duration,
    ) -> Self {
        let seat = |span: &Span| Seat {
            span: *span,
            epoch: 0,
            holder: None,
        };
        Self {
            stream,
            group,
            revoke_deadline,
            seats: spans.iter().map(seat).collect(),
            members: BTreeMap::new(),
            last_member: 0,
        }
    }

    pub(super) fn join(&mut self, now: Instant) -> MemberId {
        self.last_member += 1;
        let id = MemberId(self.last_member);
        self.members.insert(id, 0);
        self.balance(now);
        id
    }

    pub(super) fn is_member(&self, id: MemberId) -> bool {
        self.members.contains_key(&id)
    }

    /// The next lease that was granted to `id`.
    pub(super) fn take(&mut self, id: MemberId) -> Option<Lease> {
        let mut holders = self.seats.iter_mut().filter_map(|s| s.holder.as_mut());
        holders.find_map(|h| h.offered.take_if(|_| h.member == id))
    }

    /// Whether `id` has leases, its last ones if it left.
    pub(super) fn holds(&self, id: MemberId) -> bool {
        self.holders().any(|h| h.member == id)
    }

    /// `id` gets no more leases, and its leases are wanted back.
    pub(super) fn leave(&mut self, id: MemberId, now: Instant) {
        self.members.remove(&id);
        self.balance(now);
    }

    /// The lease of `span` with `epoch` is over, if it is not yet.
    pub(super) fn release(&mut self, span: u16, epoch: u64, now: Instant) {
        let mut seats = self.seats.iter_mut();
        if let Some(seat) = seats.find(|s| s.span.index == span && s.epoch == epoch) {
            // Dropping its keeper loses the lease.
            seat.holder = None;
        }
        self.balance(now);
    }

    /// Takes the leases away whose deadline has passed; says whether there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let late = |h: &mut Holder| h.until.is_some_and(|at| at <= now);
        let expired = self.seats.iter_mut().filter_map(|s| s.holder.take_if(late));
        let any = expired.count() > 0;
        if any {
            self.balance(now);
        }
        any
    }

    /// When the next lease is lost, if nobody lets go before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.holders().filter_map(|h| h.until).min()
    }

    /// Forgets members and holders; epochs go on rising.
    pub(super) fn clear(&mut self) {
        self.members.clear();
        self.seats.iter_mut().for_each(|s| s.holder = None);
    }

    /// Gives every member its fair number of spans, moving as few as that takes: what is too much
    /// is revoked, what is free is granted to whoever has too little.
    fn balance(&mut self, now: Instant) {
        self.set_quotas();
        let mut kept: BTreeMap<MemberId, usize> = BTreeMap::new();
        for seat in &mut self.seats {
            let Some(holder) = &mut seat.holder else {
                continue;
            };
            let quota = self.members.get(&holder.member).copied().unwrap_or(0);
            let kept = kept.entry(holder.member).or_default();
            if holder.until.is_none() && *kept < quota {
                *kept += 1;
            } else if holder.offered.is_some() {
                // Nobody has it in hands, so there is nothing to wait for.
                seat.holder = None;
            } else if holder.until.is_none() {
                holder.keeper.revoke();
                holder.until = Some(now + self.revoke_deadline);
            }
        }
        let free = self.seats.iter_mut().filter(|s| s.holder.is_none());
        for seat in free {
            let below =
                |(id, quota): &(&MemberId, &usize)| kept.get(id).copied().unwrap_or(0) < **quota;
            let Some((id, _)) = self.members.iter().find(below) else {
                return;
            };
            *kept.entry(*id).or_default() += 1;
            seat.grant(self.stream, &self.group, *id);
        }
    }

    /// Spans divided by members; the remainder to those who hold most, so that fewest move.
    fn set_quotas(&mut self) {
        let held = |id: MemberId| {
            let own = |h: &&Holder| h.member == id && h.until.is_none();
            self.holders().filter(own).count()
        };
        let mut ranked: Vec<_> = self.members.keys().map(|id| (held(*id), *id)).collect();
        ranked.sort_by_key(|(held, id)| (std::cmp::Reverse(*held), *id));
        let (spans, members) = (self.seats.len(), ranked.len().max(1));
        for (rank, (_, id)) in ranked.into_iter().enumerate() {
            let quota = spans / members + usize::from(rank < spans % members);
            self.members.insert(id, quota);
        }
    }

    fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.seats.iter().filter_map(|s| s.holder.as_ref())
    }
}

impl Seat {
    fn grant(&mut self, stream: Stream, group: &Group, member: MemberId) {
        self.epoch += 1;
        // Its owner cannot change unnoticed: whoever takes the lease away ends the tenure first.
        let tenure = Tenure::unlimited();
        let (lease, keeper) = Lease::grant(stream, group.clone(), self.span, self.epoch, tenure);
        self.holder = Some(Holder {
            member,
            keeper,
            offered: Some(lease),
            until: None,
        });
    }
}
