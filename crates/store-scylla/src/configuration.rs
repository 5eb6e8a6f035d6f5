//! Configuration: each bucket is one partition, and a write is one conditional batch on it.
//!
//! ```text
//!   kind 0   head: the number of the last change; the condition
//!   kind 1   endpoints      kind 2   subscriptions      kind 3   requests
//!   kind 9   changes by number, each with the id of the write that made it
//! ```
//!
//! A conditional batch whose answer is lost may have happened, or may still happen. So every write
//! has an id of its own that its change carries: a serial read of the change tells whether it is
//! ours, somebody else's, or not there, and the same write may be sent again, since the condition
//! lets it happen once.
//!
//! Plain and conditional writes never meet in this table, but for changes that are no longer kept.
//! A load takes the head by a serial read, which completes what is under way at a quorum; entries
//! read after it are of that head or newer, and a follower's next changes even that out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fanfare_store::config::BUCKETS;
use fanfare_store::wire::Row;
use fanfare_store::{Configuration, Entry, EntryKey, Head, StoreError, StoreErrorKind, Write};
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlValue;

use crate::config::CqlConfig;
use crate::error::OpenError;
use crate::session::{Cql, each};

const HEAD: i8 = 0;
const CHANGE: i8 = 9;
/// Times that one write is sent.
const TRIES: usize = 3;
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Configured {
    cql: Arc<Cql>,
    statements: Statements,
    kept: u64,
    propagation: Duration,
    patience: Duration,
}

struct Statements {
    head: PreparedStatement,
    head_serial: PreparedStatement,
    maker: PreparedStatement,
    entries: PreparedStatement,
    changes: PreparedStatement,
    first: PreparedStatement,
    next: PreparedStatement,
    put: PreparedStatement,
    delete: PreparedStatement,
    change: PreparedStatement,
}

/// Who made a change.
enum Maker {
    Us,
    Other,
    Nobody,
}

impl Configured {
    pub(crate) async fn open(cql: &Arc<Cql>, config: &CqlConfig) -> Result<Self, OpenError> {
        Ok(Self {
            statements: Statements::prepare(cql).await?,
            cql: cql.clone(),
            kept: config.changes_kept,
            propagation: Duration::from_millis(config.propagation_ms),
            patience: config.request_timeout(),
        })
    }

    async fn head(&self, statement: &PreparedStatement, bucket: u8) -> Result<Head, StoreError> {
        let rows: Vec<(i64,)> = self.cql.rows(statement, (index(bucket),)).await?;
        Ok(Head(rows.first().map_or(0, |(head,)| head.cast_unsigned())))
    }

    async fn maker(&self, bucket: u8, change: Head, ours: &[u8]) -> Result<Maker, StoreError> {
        let values = (index(bucket), number(change));
        let rows: Vec<(Vec<u8>,)> = self.cql.rows(&self.statements.maker, values).await?;
        Ok(match rows.first() {
            Some((id,)) if id == ours => Maker::Us,
            Some(_) => Maker::Other,
            None => Maker::Nobody,
        })
    }

    /// The maker of a change, asked until someone answers or the time of a request has passed:
    /// what lost the answer of a write may have taken the connection with it.
    async fn settle(&self, bucket: u8, change: Head, ours: &[u8]) -> Result<Maker, StoreError> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.maker(bucket, change, ours).await {
                Err(error) if Instant::now() < deadline => {
                    tracing::debug!(%error, bucket, "the outcome of a change is not known yet");
                    tokio::time::sleep(SETTLE_PAUSE).await;
                }
                settled => return settled,
            }
        }
    }

    async fn read_changes(
        &self,
        bucket: u8,
        (after, to): (Head, Head),
    ) -> Result<Vec<(Head, Vec<Write>)>, StoreError> {
        let values = (index(bucket), number(after), number(to));
        let rows: Vec<(Vec<u8>, Vec<u8>)> =
            self.cql.all_rows(&self.statements.changes, values).await?;
        let change = |(id, value): (Vec<u8>, Vec<u8>)| {
            let head = id.try_into().map(u64::from_be_bytes);
            let head = head.map_err(|_| StoreErrorKind::Corrupt)?;
            Ok((Head(head), Row::open(&value)?))
        };
        rows.into_iter().map(change).collect()
    }

    fn batch(
        &self,
        bucket: u8,
        next: Head,
        writes: &Vec<Write>,
        id: &[u8],
    ) -> (Batch, Vec<Vec<CqlValue>>) {
        let s = &self.statements;
        let bucket = CqlValue::TinyInt(index(bucket));
        let blob = |bytes: &[u8]| CqlValue::Blob(bytes.to_vec());
        let count = |head: Head| CqlValue::BigInt(head.0.cast_signed());
        let mut batch = Batch::new(BatchType::Unlogged);
        let mut values = Vec::new();
        if next.0 == 1 {
            batch.append_statement(s.first.clone());
            values.push(vec![count(next), blob(id), bucket.clone()]);
        } else {
            batch.append_statement(s.next.clone());
            let expected = count(Head(next.0 - 1));
            values.push(vec![count(next), blob(id), bucket.clone(), expected]);
        }
        batch.append_statement(s.change.clone());
        values.push(vec![
            bucket.clone(),
            blob(&number(next)),
            blob(id),
            blob(&writes.seal()),
        ]);
        // All of a batch has one timestamp, at which a delete beats a put: one per key.
        let last = writes.iter().map(|write| match write {
            Write::Put(entry) => (entry.key(), Some(entry.seal())),
            Write::Delete(key) => (key.clone(), None),
        });
        for (key, value) in last.collect::<std::collections::BTreeMap<_, _>>() {
            let (kind, tenant, id) = columns(&key);
            let mut row = vec![
                bucket.clone(),
                CqlValue::TinyInt(kind),
                CqlValue::Text(tenant),
                blob(&id),
            ];
            if let Some(value) = value {
                batch.append_statement(s.put.clone());
                row.push(CqlValue::Blob(value));
            } else {
                batch.append_statement(s.delete.clone());
            }
            values.push(row);
        }
        if let Some(old) = next.0.checked_sub(self.kept).filter(|old| *old > 0) {
            batch.append_statement(s.delete.clone());
            let tenant = CqlValue::Text(String::new());
            values.push(vec![
                bucket,
                CqlValue::TinyInt(CHANGE),
                tenant,
                blob(&number(Head(old))),
            ]);
        }
        (batch, values)
    }
}

impl Statements {
    async fn prepare(cql: &Cql) -> Result<Self, OpenError> {
        let head =
            "SELECT head FROM config WHERE bucket = ? AND kind = 0 AND tenant = '' AND id = 0x";
        let row = "WHERE bucket = ? AND kind = ? AND tenant = ? AND id = ?";
        let raise = "UPDATE config SET head = ?, write_id = ? WHERE bucket = ? AND kind = 0 AND tenant = '' AND id = 0x IF head =";
        let mut head_serial = cql.prepare(head).await?;
        let mut maker = cql
            .prepare("SELECT write_id FROM config WHERE bucket = ? AND kind = 9 AND tenant = '' AND id = ?")
            .await?;
        head_serial.set_consistency(Consistency::Serial);
        maker.set_consistency(Consistency::Serial);
        let conditional = |mut statement: PreparedStatement| {
            statement.set_is_idempotent(false);
            statement
        };
        Ok(Self {
            head: cql.prepare(head).await?,
            head_serial,
            maker,
            entries: cql
                .prepare("SELECT value FROM config WHERE bucket = ? AND kind > 0 AND kind < 9")
                .await?,
            changes: cql
                .prepare("SELECT id, value FROM config WHERE bucket = ? AND kind = 9 AND tenant = '' AND id > ? AND id <= ?")
                .await?,
            first: conditional(cql.prepare(&format!("{raise} null")).await?),
            next: conditional(cql.prepare(&format!("{raise} ?")).await?),
            put: cql
                .prepare("INSERT INTO config (bucket, kind, tenant, id, value) VALUES (?, ?, ?, ?, ?)")
                .await?,
            delete: cql.prepare(&format!("DELETE FROM config {row}")).await?,
            change: cql
                .prepare("INSERT INTO config (bucket, kind, tenant, id, write_id, value) VALUES (?, 9, '', ?, ?, ?)")
                .await?,
        })
    }
}

#[async_trait]
impl Configuration for Configured {
    async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        each(0..BUCKETS, |bucket| {
            self.head(&self.statements.head, bucket)
        })
        .await
    }

    async fn load(&self, bucket: u8) -> Result<(Head, Vec<Entry>), StoreError> {
        let head = self.head(&self.statements.head_serial, bucket).await?;
        let values = (index(bucket),);
        let rows: Vec<(Vec<u8>,)> = self.cql.all_rows(&self.statements.entries, values).await?;
        let entries = rows.iter().map(|(value,)| Ok(Entry::open(value)?));
        Ok((head, entries.collect::<Result<_, StoreError>>()?))
    }

    async fn changes(
        &self,
        bucket: u8,
        after: Head,
    ) -> Result<Option<Vec<(Head, Vec<Write>)>>, StoreError> {
        let mut head = self.head(&self.statements.head, bucket).await?;
        for serial in [false, true] {
            if serial {
                // A change is missing: the head may be ahead of it by a write under way.
                head = self.head(&self.statements.head_serial, bucket).await?;
            }
            if after >= head {
                return Ok(Some(Vec::new()));
            }
            if head.0 - after.0 > self.kept {
                return Ok(None);
            }
            let changes = self.read_changes(bucket, (after, head)).await?;
            if changes.len() as u64 == head.0 - after.0 {
                return Ok(Some(changes));
            }
        }
        Ok(None)
    }

    async fn write(
        &self,
        bucket: u8,
        expected: Head,
        writes: Vec<Write>,
    ) -> Result<Head, StoreError> {
        let next = Head(expected.0 + 1);
        let id = rand::random::<[u8; 16]>();
        let mut lost = StoreError::new(StoreErrorKind::Unavailable);
        for _ in 0..TRIES {
            let (batch, values) = self.batch(bucket, next, &writes, &id);
            let answer = self.cql.conditional(&batch, values).await;
            if matches!(answer, Ok(true)) {
                return Ok(next);
            }
            match (self.settle(bucket, next, &id).await?, answer) {
                (Maker::Us, _) => return Ok(next),
                (Maker::Other, _) | (Maker::Nobody, Ok(_)) => {
                    return Err(StoreErrorKind::HeadMoved.into());
                }
                (Maker::Nobody, Err(error)) => lost = error,
            }
        }
        Err(lost)
    }

    fn propagation(&self) -> Duration {
        self.propagation
    }
}

fn index(bucket: u8) -> i8 {
    bucket.cast_signed()
}

fn number(head: Head) -> Vec<u8> {
    head.0.to_be_bytes().to_vec()
}

fn columns(key: &EntryKey) -> (i8, String, Vec<u8>) {
    let (kind, tenant, id) = match key {
        EntryKey::Endpoint(tenant, id) => (1, tenant, id.0.to_be_bytes().to_vec()),
        EntryKey::Subscription(tenant, id) => (2, tenant, id.0.to_be_bytes().to_vec()),
        EntryKey::Request(tenant, id) => (3, tenant, id.as_bytes().to_vec()),
    };
    debug_assert!(kind > HEAD && kind < CHANGE, "entries lie between");
    (kind, tenant.as_str().to_owned(), id)
}
