//! The store seam over the engine: which keys and rows of the view hold which data set.
//!
//! ```text
//!   space        key or group                             value or row
//!   accepted     id tenant source                         span, hash, accept time, position
//!   events       id tenant source                         accept time, then the event's head
//!   listed     P tenant second                            accept time, place, how many matched
//!   config       bucket kind tenant id                    an entry
//!   changes      bucket head                              the writes of one change
//!   heads        bucket                                   its head
//!   open         delivery                                 retry state that is due some time
//!   settled      delivery                                 retry state that is final
//!   due          time delivery                            -
//!   parked       endpoint place part                      a parked delivery
//!   waiting      delivery                                 where it is in its queue
//!   owed         position kind delivery                   -
//!   attempts   P endpoint second                          an attempt
//!   dead         delivery                                 a dead letter
//!   dead_listed  tenant time delivery                     -
//!   shards       stream span                              a span's state
//!                P: packed, others keyed
//! ```
//!
//! - A body is stored once, as its record in the log; everything else has its place.
//! - Every write of one call that belongs together is one frame, so a crash keeps all of it or
//!   none. Reads see a write as soon as it has its place in the log; that is also when it resolves,
//!   but for configuration, which waits until it is durable.
//! - What reads before it writes does both under a lock of its role, and never waits there.
//! - Rows that are of no use without their event (`events`, `listed`, `attempts`, `settled`, `dead`)
//!   vanish with the retention; what is still `open` or `parked` stays until its owner ends it.
//!   [`owed`] says which bodies those need.

mod config;
mod dead_letters;
mod events;
mod groups;
mod history;
mod journal;
mod keys;
pub(crate) mod owed;
mod parking;
mod retries;
mod shards;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use fanfare_store::{StoreError, Stores};

use crate::changes::{Space, SpaceSpec};
use crate::engine::Engine;
pub(crate) use events::Accepted;
use journal::Journal;

const ACCEPTED: Space = Space(1);
const EVENTS: Space = Space(2);
const LISTED: Space = Space(3);
const CONFIG: Space = Space(4);
const CHANGES: Space = Space(5);
const HEADS: Space = Space(6);
const OPEN: Space = Space(7);
const SETTLED: Space = Space(8);
const DUE: Space = Space(9);
const PARKED: Space = Space(10);
const WAITING: Space = Space(11);
const OWED: Space = Space(12);
const ATTEMPTS: Space = Space(13);
const DEAD: Space = Space(14);
const DEAD_LISTED: Space = Space(15);
const SHARDS: Space = Space(16);

/// Every space of the stores.
pub(crate) const SPACES: &[SpaceSpec] = &[
    SpaceSpec::keyed(ACCEPTED.0, "accepted")
        .expiring(events::accepted_micros)
        .fleeting(),
    SpaceSpec::keyed(EVENTS.0, "events").expiring(events::event_micros),
    SpaceSpec::packed(LISTED.0, "listed").expiring(events::listed_micros),
    SpaceSpec::keyed(CONFIG.0, "config"),
    SpaceSpec::keyed(CHANGES.0, "changes"),
    SpaceSpec::keyed(HEADS.0, "heads"),
    SpaceSpec::keyed(OPEN.0, "open"),
    SpaceSpec::keyed(SETTLED.0, "settled").expiring(keys::published_micros),
    SpaceSpec::keyed(DUE.0, "due").fleeting(),
    SpaceSpec::keyed(PARKED.0, "parked"),
    SpaceSpec::keyed(WAITING.0, "waiting"),
    SpaceSpec::keyed(OWED.0, "owed"),
    SpaceSpec::packed(ATTEMPTS.0, "attempts").expiring(history::attempt_micros),
    SpaceSpec::keyed(DEAD.0, "dead").expiring(keys::published_micros),
    SpaceSpec::keyed(DEAD_LISTED.0, "dead_listed").expiring(keys::published_micros),
    SpaceSpec::keyed(SHARDS.0, "shards"),
];

/// The roles over `engine`, which was opened with [`SPACES`] and [`Accepted`]; configuration keeps
/// the last `changes_kept` changes of each bucket.
pub(crate) fn open(engine: &Arc<Engine>, changes_kept: u64) -> Result<Stores, StoreError> {
    let journal = Journal::new(engine.clone());
    Ok(Stores {
        events: Arc::new(events::Events::new(journal.clone())),
        config: Arc::new(config::Config::open(journal.clone(), changes_kept)?),
        retries: Arc::new(retries::RetryStates::new(journal.clone())),
        parking: Arc::new(parking::Queues::new(journal.clone())),
        history: Arc::new(history::Attempts::new(journal.clone())),
        dead_letters: Arc::new(dead_letters::Letters::new(journal.clone())),
        shards: Arc::new(shards::Shards::new(journal)),
    })
}
