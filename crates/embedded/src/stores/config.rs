//! Configuration: entries, the changes that made them, and the head of each bucket.
//!
//! A write is one frame, decided and ordered under one lock, and resolves when it is durable.
//! Heads are read from memory: followers ask several times a second.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fanfare_store::config::BUCKETS;
use fanfare_store::wire::Row;
use fanfare_store::{Configuration, Entry, EntryKey, Head, StoreError, StoreErrorKind, Write};
use parking_lot::Mutex;

use super::journal::{Journal, Refused, failed};
use super::keys::{self, KeyRange};
use super::{CHANGES, CONFIG, HEADS};
use crate::changes::Batch;
use crate::engine::Placed;
use crate::view::Direction;

pub(super) struct Config {
    journal: Journal,
    kept: u64,
    heads: Arc<Mutex<Vec<Head>>>,
}

impl Config {
    pub(super) fn open(journal: Journal, kept: u64) -> Result<Self, StoreError> {
        let head = |bucket| {
            let bytes = journal.engine.get(HEADS, &[bucket]).map_err(failed)?;
            let Some(bytes) = bytes else {
                return Ok(Head(0));
            };
            let number = bytes
                .as_ref()
                .try_into()
                .map_err(|_| StoreErrorKind::Corrupt)?;
            Ok(Head(u64::from_be_bytes(number)))
        };
        let heads = (0..BUCKETS).map(head).collect::<Result<_, StoreError>>()?;
        Ok(Self {
            heads: Arc::new(Mutex::new(heads)),
            kept,
            journal,
        })
    }

    /// Decides and orders a write.
    fn turn(
        &self,
        bucket: u8,
        expected: Head,
        writes: &Vec<Write>,
    ) -> Result<(Head, Placed), Refused> {
        let mut heads = self.heads.lock();
        let head = &mut heads[usize::from(bucket)];
        if *head != expected {
            return Err(Refused::Failed(StoreErrorKind::HeadMoved.into()));
        }
        let next = Head(expected.0 + 1);
        let mut batch = Batch::default();
        for write in writes {
            match write {
                Write::Put(entry) => {
                    batch.put(CONFIG, entry_key(bucket, &entry.key()), entry.seal());
                }
                Write::Delete(key) => batch.delete(CONFIG, entry_key(bucket, key)),
            }
        }
        batch.put(CHANGES, change_key(bucket, next), writes.seal());
        batch.put(HEADS, vec![bucket], next.0.to_be_bytes().to_vec());
        if let Some(old) = next.0.checked_sub(self.kept).filter(|old| *old > 0) {
            batch.delete(CHANGES, change_key(bucket, Head(old)));
        }
        let placed = self.journal.submit(batch)?;
        *head = next;
        Ok((next, placed))
    }
}

#[async_trait]
impl Configuration for Config {
    async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        Ok(self.heads.lock().clone())
    }

    async fn load(&self, bucket: u8) -> Result<(Head, Vec<Entry>), StoreError> {
        let heads = self.heads.clone();
        let load = move |engine: &crate::engine::Engine| loop {
            let head = heads.lock()[usize::from(bucket)];
            let range = KeyRange::prefix(&[bucket]);
            let entries = engine.scan(CONFIG, range.as_bounds(), Direction::Forward, usize::MAX);
            let entries = entries.map_err(failed)?;
            // Written meanwhile: what was read is a mixture.
            if heads.lock()[usize::from(bucket)] != head {
                continue;
            }
            let entries = entries.iter().map(|(_, bytes)| Entry::open(bytes));
            return Ok((head, entries.collect::<Result<_, _>>()?));
        };
        self.journal.blocking(load).await
    }

    async fn changes(
        &self,
        bucket: u8,
        after: Head,
    ) -> Result<Option<Vec<(Head, Vec<Write>)>>, StoreError> {
        let head = self.heads.lock()[usize::from(bucket)];
        if after >= head {
            return Ok(Some(Vec::new()));
        }
        let range = KeyRange {
            from: Bound::Excluded(change_key(bucket, after)),
            to: Bound::Included(change_key(bucket, head)),
        };
        let engine = &self.journal.engine;
        let found = engine.scan(CHANGES, range.as_bounds(), Direction::Forward, usize::MAX);
        let found = found.map_err(failed)?;
        let numbered = (after.0 + 1..=head.0).map(Head);
        let complete = found.len() as u64 == head.0 - after.0;
        let change = |(head, (_, bytes)): (Head, (Bytes, Bytes))| Ok((head, Row::open(&bytes)?));
        let changes = numbered.zip(found).map(change);
        Ok(complete
            .then(|| changes.collect::<Result<_, StoreError>>())
            .transpose()?)
    }

    async fn write(
        &self,
        bucket: u8,
        expected: Head,
        writes: Vec<Write>,
    ) -> Result<Head, StoreError> {
        let turn = || self.turn(bucket, expected, &writes);
        let (head, placed) = self.journal.write(turn).await?;
        placed.durable().await.map_err(failed)?;
        Ok(head)
    }

    fn propagation(&self) -> Duration {
        // Every reader reads this process's memory.
        Duration::ZERO
    }
}

fn entry_key(bucket: u8, key: &EntryKey) -> Vec<u8> {
    let (kind, tenant, id) = match key {
        EntryKey::Endpoint(tenant, id) => (1, tenant, id.0.to_be_bytes().to_vec()),
        EntryKey::Subscription(tenant, id) => (2, tenant, id.0.to_be_bytes().to_vec()),
        EntryKey::Request(tenant, id) => (3, tenant, id.as_bytes().to_vec()),
    };
    let mut out = vec![bucket, kind];
    out.extend_from_slice(&keys::of_tenant(tenant, &id));
    out
}

fn change_key(bucket: u8, head: Head) -> Vec<u8> {
    let mut key = vec![bucket];
    key.extend_from_slice(&head.0.to_be_bytes());
    key
}
