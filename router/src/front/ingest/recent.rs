//! The identities published lately, those on their way into the log included: what recognises a
//! repeat or a conflict before the store can, and makes concurrent publishes of one identity wait
//! for the first of them.
//!
//! Bounded by count: the oldest settled identity makes room. What is on its way is bounded by the
//! limits of the front door. Forgetting is safe: the router drops repeats whoever let them in.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use fanfare_domain::EventKey;
use fanfare_store::Known;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Identities published lately.
#[derive(Debug)]
pub(crate) struct Recent {
    /// Two independently keyed hashes make 128 bits that nobody outside can aim at.
    hashers: [RandomState; 2],
    capacity: usize,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    identities: HashMap<Identity, State>,
    /// Settled identities, oldest first.
    settled: VecDeque<Identity>,
}

/// An event's identity, shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity(u128);

#[derive(Debug)]
enum State {
    /// On its way; the bell rings when that is over. Made only when somebody waits.
    Claimed(Option<Arc<Notify>>),
    Settled(Known),
}

/// What is known of an identity.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Nothing: the caller publishes it, and settles or abandons the claim.
    Ours,
    /// It was published.
    Known(Known),
    /// It is being published: wait, then ask again.
    Theirs(OwnedNotified),
}

/// The claims of one append. Those not settled when it is dropped are abandoned.
#[derive(Debug)]
pub(crate) struct Claims<'a> {
    recent: &'a Recent,
    open: Vec<Identity>,
}

impl Recent {
    /// Remembers up to `capacity` settled identities.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            hashers: [RandomState::new(), RandomState::new()],
            capacity,
            window: Mutex::default(),
        }
    }

    /// The identity of `key`.
    pub(crate) fn identity(&self, key: &EventKey) -> Identity {
        let [high, low] = self.hashers.each_ref().map(|hasher| hasher.hash_one(key));
        Identity(u128::from(high) << 64 | u128::from(low))
    }

    /// What is known of `identity`, if it was published.
    pub(crate) fn settled(&self, identity: Identity) -> Option<Known> {
        match self.window.lock().identities.get(&identity) {
            Some(State::Settled(known)) => Some(*known),
            _ => None,
        }
    }

    /// Room for the claims of one append.
    pub(crate) fn claims(&self) -> Claims<'_> {
        Claims {
            recent: self,
            open: Vec::new(),
        }
    }
}

impl Claims<'_> {
    /// Claims `identity` unless it is known or claimed.
    pub(crate) fn claim(&mut self, identity: Identity) -> Claim {
        match self.recent.window.lock().identities.entry(identity) {
            Entry::Vacant(vacant) => {
                vacant.insert(State::Claimed(None));
                self.open.push(identity);
                Claim::Ours
            }
            Entry::Occupied(mut occupied) => match occupied.get_mut() {
                State::Settled(known) => Claim::Known(*known),
                State::Claimed(bell) => {
                    let bell = bell.get_or_insert_default();
                    // Made under the lock, so no ringing is missed.
                    Claim::Theirs(Arc::clone(bell).notified_owned())
                }
            },
        }
    }

    /// `identity`, claimed here, is published as `known`.
    pub(crate) fn settle(&mut self, identity: Identity, known: Known) {
        self.open.retain(|open| *open != identity);
        self.recent
            .window
            .lock()
            .settle(identity, known, self.recent.capacity);
    }

    /// Everything claimed here and still open is published, as `published` says.
    pub(crate) fn settle_all(&mut self, published: impl Iterator<Item = (Identity, Known)>) {
        let mut window = self.recent.window.lock();
        for (identity, known) in published {
            window.settle(identity, known, self.recent.capacity);
        }
        self.open.clear();
    }
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let mut window = self.recent.window.lock();
        for identity in &self.open {
            if let Some(State::Claimed(Some(bell))) = window.identities.remove(identity) {
                bell.notify_waiters();
            }
        }
    }
}

impl Window {
    fn settle(&mut self, identity: Identity, known: Known, capacity: usize) {
        let before = self.identities.insert(identity, State::Settled(known));
        if let Some(State::Claimed(Some(bell))) = before {
            bell.notify_waiters();
        }
        self.settled.push_back(identity);
        if self.settled.len() > capacity
            && let Some(oldest) = self.settled.pop_front()
        {
            self.identities.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{BodyHash, EventId, Source, TenantId, Timestamp};
    use futures::FutureExt as _;

    use super::*;

    fn key(id: &str) -> EventKey {
        EventKey {
            tenant: TenantId::try_new("acme").unwrap(),
            id: EventId::try_new(id).unwrap(),
            source: Source::try_new("/s").unwrap(),
        }
    }

    fn known() -> Known {
        Known {
            body_hash: BodyHash([1; 16]),
            accept_time: Timestamp::from_millis(5),
        }
    }

    #[test]
    fn the_first_claims_and_the_others_wait_for_what_becomes_of_it() {
        let recent = Recent::new(10);
        let id = recent.identity(&key("a"));
        let mut first = recent.claims();
        assert!(matches!(first.claim(id), Claim::Ours));
        let Claim::Theirs(settled) = recent.claims().claim(id) else {
            panic!("claimed twice");
        };
        let mut settled = std::pin::pin!(settled);
        assert!(settled.as_mut().now_or_never().is_none());
        first.settle(id, known());
        assert!(settled.now_or_never().is_some());
        drop(first);
        assert!(matches!(recent.claims().claim(id), Claim::Known(k) if k == known()));
    }

    #[test]
    fn a_claim_that_is_dropped_is_free_again() {
        let recent = Recent::new(10);
        let id = recent.identity(&key("a"));
        let mut first = recent.claims();
        first.claim(id);
        let Claim::Theirs(over) = recent.claims().claim(id) else {
            panic!("claimed twice");
        };
        drop(first);
        assert!(over.now_or_never().is_some());
        assert!(matches!(recent.claims().claim(id), Claim::Ours));
    }

    #[test]
    fn the_oldest_settled_identity_makes_room_and_open_claims_never_do() {
        let recent = Recent::new(2);
        let ids = ["a", "b", "c"].map(|id| recent.identity(&key(id)));
        let open = recent.identity(&key("open"));
        let mut claims = recent.claims();
        claims.claim(open);
        for id in ids {
            let mut one = recent.claims();
            one.claim(id);
            one.settle_all([(id, known())].into_iter());
        }
        assert!(matches!(recent.claims().claim(ids[0]), Claim::Ours));
        assert!(matches!(recent.claims().claim(ids[2]), Claim::Known(_)));
        assert!(matches!(recent.claims().claim(open), Claim::Theirs(_)));
    }
}
