//! Every role in memory: a real backend for tests and simulations, and the model that the others
//! are held against. Not durable: what it holds lives as long as a clone of it.
//!
//! Invariants: one short lock per role, never held across an await; tenures are checked under it.
//! [`MemoryStores::go_away`] makes every method fail with `Unavailable` until
//! [`MemoryStores::come_back`], so that callers can be tested against a store that is away.

mod config;
mod dead_letters;
mod events;
mod history;
mod parking;
mod retries;
mod shards;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fanfare_domain::Timestamp;

use crate::Stores;
use crate::config::CHANGES_KEPT;
use crate::error::{StoreError, StoreErrorKind};

/// A memory backend. Clones share everything, as several processes share one store.
#[derive(Clone)]
pub struct MemoryStores(Arc<Inner>);

struct Inner {
    switch: Arc<Switch>,
    events: Arc<events::Events>,
    config: Arc<config::Config>,
    retries: Arc<retries::RetryStates>,
    parking: Arc<parking::Queues>,
    history: Arc<history::Attempts>,
    dead_letters: Arc<dead_letters::Letters>,
    shards: Arc<shards::Shards>,
}

/// Whether the store can be reached.
#[derive(Default)]
struct Switch {
    away: AtomicBool,
}

impl MemoryStores {
    /// An empty store.
    pub fn new() -> Self {
        Self::keeping_changes(CHANGES_KEPT)
    }

    /// An empty store whose configuration keeps the last `kept` changes of each bucket, so that
    /// a test can leave a follower behind.
    pub fn keeping_changes(kept: u64) -> Self {
        let switch = Arc::new(Switch::default());
        Self(Arc::new(Inner {
            events: Arc::new(events::Events::behind(&switch)),
            config: Arc::new(config::Config::behind(&switch, kept)),
            retries: Arc::new(retries::RetryStates::behind(&switch)),
            parking: Arc::new(parking::Queues::behind(&switch)),
            history: Arc::new(history::Attempts::behind(&switch)),
            dead_letters: Arc::new(dead_letters::Letters::behind(&switch)),
            shards: Arc::new(shards::Shards::behind(&switch)),
            switch,
        }))
    }

    /// The roles.
    pub fn stores(&self) -> Stores {
        Stores {
            events: self.0.events.clone(),
            config: self.0.config.clone(),
            retries: self.0.retries.clone(),
            parking: self.0.parking.clone(),
            history: self.0.history.clone(),
            dead_letters: self.0.dead_letters.clone(),
            shards: self.0.shards.clone(),
        }
    }

    /// From now on every method fails with `Unavailable` and changes nothing.
    pub fn go_away(&self) {
        self.0.switch.away.store(true, Ordering::Release);
    }

    /// Undoes [`MemoryStores::go_away`].
    pub fn come_back(&self) {
        self.0.switch.away.store(false, Ordering::Release);
    }

    /// Does what retention does: forgets events accepted before `horizon`, with their bodies.
    pub fn expire_events(&self, horizon: Timestamp) {
        self.0.events.expire(horizon);
    }
}

impl Default for MemoryStores {
    fn default() -> Self {
        Self::new()
    }
}

impl Switch {
    fn check(&self) -> Result<(), StoreError> {
        if self.away.load(Ordering::Acquire) {
            Err(StoreError::new(StoreErrorKind::Unavailable))
        } else {
            Ok(())
        }
    }
}
