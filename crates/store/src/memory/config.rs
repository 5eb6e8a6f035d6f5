//! Configuration and its change feed, in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::Switch;
use crate::config::{BUCKETS, Configuration, Entry, EntryKey, Head, Write};
use crate::error::{StoreError, StoreErrorKind};

#[derive(Default)]
pub(super) struct Config {
    switch: Arc<Switch>,
    /// How many changes each bucket keeps.
    kept: u64,
    buckets: Mutex<[Bucket; BUCKETS as usize]>,
}

#[derive(Default)]
struct Bucket {
    head: Head,
    entries: BTreeMap<EntryKey, Entry>,
    /// The last changes, by rising number.
    changes: VecDeque<(Head, Vec<Write>)>,
}

impl Config {
    pub(super) fn behind(switch: &Arc<Switch>, kept: u64) -> Self {
        Self {
            switch: switch.clone(),
            kept,
            ..Self::default()
        }
    }
}

impl Bucket {
    fn write(&mut self, expected: Head, writes: Vec<Write>, kept: u64) -> Result<Head, StoreError> {
        if self.head != expected {
            return Err(StoreError::new(StoreErrorKind::HeadMoved));
        }
        for write in &writes {
            match write {
                Write::Put(entry) => self.entries.insert(entry.key(), (**entry).clone()),
                Write::Delete(key) => self.entries.remove(key),
            };
        }
        self.head = Head(expected.0 + 1);
        self.changes.push_back((self.head, writes));
        if self.changes.len() as u64 > kept {
            self.changes.pop_front();
        }
        Ok(self.head)
    }

    fn changes(&self, after: Head) -> Option<Vec<(Head, Vec<Write>)>> {
        let oldest = self.changes.front().map_or(self.head.0 + 1, |(h, _)| h.0);
        (after.0 + 1 >= oldest).then(|| {
            let later = self.changes.iter().filter(|(head, _)| *head > after);
            later.cloned().collect()
        })
    }
}

#[async_trait]
impl Configuration for Config {
    async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        self.switch.check()?;
        Ok(self.buckets.lock().iter().map(|b| b.head).collect())
    }

    async fn load(&self, bucket: u8) -> Result<(Head, Vec<Entry>), StoreError> {
        self.switch.check()?;
        let buckets = self.buckets.lock();
        let bucket = &buckets[usize::from(bucket)];
        Ok((bucket.head, bucket.entries.values().cloned().collect()))
    }

    async fn changes(
        &self,
        bucket: u8,
        after: Head,
    ) -> Result<Option<Vec<(Head, Vec<Write>)>>, StoreError> {
        self.switch.check()?;
        Ok(self.buckets.lock()[usize::from(bucket)].changes(after))
    }

    async fn write(
        &self,
        bucket: u8,
        expected: Head,
        writes: Vec<Write>,
    ) -> Result<Head, StoreError> {
        self.switch.check()?;
        self.buckets.lock()[usize::from(bucket)].write(expected, writes, self.kept)
    }

    fn propagation(&self) -> Duration {
        // Every clone reads the same maps.
        Duration::ZERO
    }
}
