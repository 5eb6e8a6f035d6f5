//! What a batch of claims comes to: a function of the claims and of the heads that are stored.

use std::collections::{HashMap, HashSet};

use fanfare_domain::{AcceptedEvent, EventKey};
use fanfare_store::events::CONFLICTS_MAX;
use fanfare_store::wire::EventHead;
use fanfare_store::{Claim, Claimed, Conflict, Known};

/// What a batch of claims comes to, before it is written.
pub(super) struct Verdict<'a> {
    pub(super) heads: HashMap<EventKey, EventHead>,
    /// To be written whole, with their heads as they end up.
    pub(super) fresh: Vec<&'a Claim>,
    /// To be listed: also what was claimed before, whose line a crash may have lost.
    pub(super) listed: Vec<(&'a Claim, usize)>,
    /// Heads that got another conflict.
    pub(super) resealed: Vec<EventKey>,
}

impl<'a> Verdict<'a> {
    /// Judges claims in order by the heads that are stored.
    pub(super) fn of(
        claims: &'a [Claim],
        heads: HashMap<EventKey, EventHead>,
    ) -> (Self, Vec<Claimed>) {
        let mut verdict = Self {
            heads,
            fresh: Vec::new(),
            listed: Vec::new(),
            resealed: Vec::new(),
        };
        let answers = claims.iter().map(|claim| verdict.claim(claim)).collect();
        let keys = verdict.fresh.iter().map(|claim| claim.event.key());
        let fresh: HashSet<_> = keys.collect();
        // Their heads are written whole.
        verdict.resealed.retain(|key| !fresh.contains(key));
        verdict.resealed.sort();
        verdict.resealed.dedup();
        (verdict, answers)
    }

    fn claim(&mut self, claim: &'a Claim) -> Claimed {
        let key = claim.event.key();
        let Some(head) = self.heads.get_mut(&key) else {
            let head = EventHead {
                place: claim.place,
                known: known(&claim.event),
                route: Some(claim.route.clone()),
                conflicts: Vec::new(),
            };
            self.heads.insert(key, head);
            self.fresh.push(claim);
            self.listed.push((claim, claim.route.matched.len()));
            return Claimed::Fresh;
        };
        if head.place == claim.place {
            let Some(route) = head.route.clone() else {
                return Claimed::Fresh;
            };
            self.listed.push((claim, route.matched.len()));
            return Claimed::Own(route);
        }
        if head.known.body_hash == claim.event.body_hash {
            return Claimed::Repeat;
        }
        let seen = head.conflicts.iter().any(|c| c.place == claim.place);
        if !seen && head.conflicts.len() < CONFLICTS_MAX {
            head.conflicts.push(Conflict {
                place: claim.place,
                body_hash: claim.event.body_hash,
                accept_time: claim.event.accept_time,
            });
            self.resealed.push(key);
        }
        Claimed::Conflict
    }
}

fn known(event: &AcceptedEvent) -> Known {
    Known {
        body_hash: event.body_hash,
        accept_time: event.accept_time,
    }
}
