//! The store seams over CQL: ScyllaDB, or Cassandra. Nothing is used that only one of them has.
//!
//! # Tables
//!
//! | table | partition, row | question it answers | rows written |
//! | --- | --- | --- | --- |
//! | `event` | (tenant, event id), source and part | what became of event X; the body of a retry | 1 per event, its own |
//! | `event_by_time` | (tenant, hour and bucket), time falling | what did tenant Z publish since T | 1 per event, batched |
//! | `attempt` | (tenant, endpoint, hour), delivery falling | what happened at endpoint Y since T; the attempts of a delivery | **1 per attempt, batched** |
//! | `retry` | (endpoint, hour), delivery | where does a failed delivery stand; what is open at Y | 1 per failed attempt |
//! | `due` | (shard, minute), due | what must be tried now | 1 per failed attempt, 1 delete |
//! | `dead_letter`, `dead_letter_by_time` | by delivery; (tenant, hour and bucket) | why was it given up on; what was, lately | 2 per dead letter |
//! | `parked` | (endpoint, range of positions), position | what waits, first in first out | 1 per parked, 1 delete |
//! | `parked_at` | (endpoint, hour), delivery | is this delivery parked | 1 per parked |
//! | `parked_queue` | (shard's wheel), endpoint | which queues must a new owner drain, and from where | 1 per queue and batch |
//! | `calendar` | (kind, owner), slot | which hours, minutes and ranges hold anything | 1 per owner and slot, now and then |
//! | `shard` | (stream, span) | where does a new owner start | 1 per span every few seconds |
//! | `layout` | (log), topic | how many partitions do all programs use | 1 per topic, once |
//! | `config` | (bucket), kind and name | what is configured; what changed | 1 per entry, 2 per change |
//!
//! A delivery that succeeds at once costs one row of a shared batch. Every question is one or a few
//! reads of single partitions; the calendar saves reading the empty ones.
//!
//! # How it is written
//!
//! Owners' writes carry the stamp of their tenure as write timestamp and are checked against it
//! before every request; so a late write of a former owner loses. All of them may be repeated.
//! Conditional writes are made in `config` and `layout` alone (and in the lock of a migration), and
//! one whose answer is lost is settled by a serial read. Batches are unlogged and bounded ([`batches`]).
//!
//! # When it fails
//!
//! A request that finds no quorum in time is `Unavailable`; every write is an upsert, so the caller
//! repeats it. One frozen node costs a delay of `speculative_delay_ms`, not a time-out.

mod batches;
mod by_delivery;
mod calendar;
mod config;
mod configuration;
mod dead_letters;
mod error;
mod events;
mod history;
mod layout;
mod migrate;
mod newest;
mod parking;
mod retries;
mod session;
mod shards;

use std::sync::Arc;

use fanfare_store::Stores;

pub use config::{CqlConfig, Password};
pub use error::{OpenError, OpenErrorKind};
pub use layout::agree;
pub use migrate::{SCHEMA_VERSION, migrate};

use calendar::Calendar;
use session::Cql;

/// Opens every role on a store that was migrated. Refuses, in one sentence, a store that is away,
/// not migrated, or for newer programs only. The session ends when the last role is dropped.
pub async fn open(config: &CqlConfig) -> Result<Stores, OpenError> {
    let session = session::connect(config).await?;
    migrate::check(&session, config).await?;
    let cql = Arc::new(Cql::new(session, config));
    let days = config.event_retention_days;
    let calendar = Arc::new(Calendar::open(&cql, days).await?);
    let letters = config.dead_letter_retention_days;
    let history = config.history_retention_days;
    Ok(Stores {
        events: Arc::new(events::Events::open(&cql, &calendar, days).await?),
        config: Arc::new(configuration::Configured::open(&cql, config).await?),
        retries: Arc::new(retries::RetryStates::open(&cql, &calendar, days).await?),
        parking: Arc::new(parking::Queues::open(&cql, &calendar, days).await?),
        history: Arc::new(history::Attempts::open(&cql, &calendar, history).await?),
        dead_letters: Arc::new(dead_letters::Letters::open(&cql, &calendar, letters).await?),
        shards: Arc::new(shards::Shards::open(&cql).await?),
    })
}
