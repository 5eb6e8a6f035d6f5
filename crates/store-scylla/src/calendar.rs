//! Which partitions of a time-sliced table hold anything, so that nobody reads empty ones.
//!
//! One row per owner and slot, written before the first row of the slot. A slot that this process
//! wrote lately is not written again; a slot may be listed and empty, never the reverse.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfare_domain::Timestamp;
use fanfare_store::StoreError;
use parking_lot::Mutex;
use scylla::statement::prepared::PreparedStatement;

use crate::error::OpenError;
use crate::session::{Cql, Put, ttl};

/// Slots remembered as written.
const KNOWN_MAX: usize = 100_000;
/// A slot is written again after this, so that it outlives rows that come late.
const AGAIN: Duration = Duration::from_hours(12);
/// Slots per read.
pub(crate) const SLOTS_MAX: i32 = 500;

/// What a calendar is of. Numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i8)]
pub(crate) enum Kind {
    Events = 1,
    Attempts = 2,
    DeadLetters = 3,
    Retries = 4,
    Due = 5,
    Parked = 6,
}

/// One calendar's owner and a slot.
type Entry = (Kind, String, i64);

pub(crate) struct Calendar {
    cql: Arc<Cql>,
    insert: PreparedStatement,
    rising: PreparedStatement,
    falling: PreparedStatement,
    ttl: i32,
    known: Mutex<HashMap<Entry, Instant>>,
}

impl Calendar {
    pub(crate) async fn open(cql: &Arc<Cql>, days: u32) -> Result<Self, OpenError> {
        let range =
            "SELECT slot FROM calendar WHERE kind = ? AND owner = ? AND slot >= ? AND slot <= ?";
        Ok(Self {
            insert: cql
                .prepare("INSERT INTO calendar (kind, owner, slot) VALUES (?, ?, ?) USING TTL ?")
                .await?,
            rising: cql.prepare(&format!("{range} LIMIT ?")).await?,
            falling: cql
                .prepare(&format!("{range} ORDER BY slot DESC LIMIT ?"))
                .await?,
            // Rows come late by a retry horizon at most; parked ones wait as long as their event.
            ttl: ttl(days.saturating_mul(2) + 2),
            cql: cql.clone(),
            known: Mutex::default(),
        })
    }

    /// Returns once every slot is listed.
    pub(crate) async fn note(
        &self,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<(), StoreError> {
        let mut new: Vec<Entry> = {
            let known = self.known.lock();
            let fresh = |entry: &Entry| known.get(entry).is_some_and(|at| at.elapsed() < AGAIN);
            entries.into_iter().filter(|entry| !fresh(entry)).collect()
        };
        new.sort_by(|a, b| (a.0 as i8, &a.1, a.2).cmp(&(b.0 as i8, &b.1, b.2)));
        new.dedup();
        if new.is_empty() {
            return Ok(());
        }
        let put = |(kind, owner, slot): &Entry| Put {
            bytes: owner.len() + 32,
            values: (*kind as i8, owner.clone(), *slot, self.ttl),
        };
        let puts = new.iter().map(put).collect();
        let now = Timestamp::now().micros();
        self.cql.put(None, now, &self.insert, puts).await?;
        let mut known = self.known.lock();
        if known.len() + new.len() > KNOWN_MAX {
            known.clear();
        }
        known.extend(new.into_iter().map(|entry| (entry, Instant::now())));
        Ok(())
    }

    /// Slots in `from..=to`, rising; at most [`SLOTS_MAX`].
    pub(crate) async fn rising(
        &self,
        kind: Kind,
        owner: &str,
        (from, to): (i64, i64),
    ) -> Result<Vec<i64>, StoreError> {
        self.read(&self.rising, kind, owner, (from, to)).await
    }

    /// The same, falling from `to`.
    pub(crate) async fn falling(
        &self,
        kind: Kind,
        owner: &str,
        (from, to): (i64, i64),
    ) -> Result<Vec<i64>, StoreError> {
        self.read(&self.falling, kind, owner, (from, to)).await
    }

    async fn read(
        &self,
        statement: &PreparedStatement,
        kind: Kind,
        owner: &str,
        (from, to): (i64, i64),
    ) -> Result<Vec<i64>, StoreError> {
        let values = (kind as i8, owner, from, to, SLOTS_MAX);
        let slots: Vec<(i64,)> = self.cql.rows(statement, values).await?;
        Ok(slots.into_iter().map(|(slot,)| slot).collect())
    }
}
