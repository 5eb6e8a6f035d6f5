//! Parked deliveries: each endpoint's queue in partitions of a range of positions.
//!
//! ```text
//!   parked_queue (shard, endpoint) -> floor     there while anything waits; nothing waits below floor
//!   calendar     (endpoint) -> segments         which ranges were ever used
//!   parked       (endpoint, segment), key       the rows, in order
//!   parked_at    delivery -> key                where one stands; left behind, it points at nothing
//! ```
//!
//! A read starts at the floor, so it never wades through what was drained. One queue's parking and
//! draining take turns in this process: both move the floor. Between processes the stamps decide.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use fanfare_domain::{DeliveryId, EndpointId, Shard, ShardSet, Tenure};
use fanfare_store::wire::Row;
use fanfare_store::{PAGE_MAX, Parked, ParkedKey, Parking, StoreError};
use scylla::statement::prepared::PreparedStatement;
use tokio::sync::{Mutex, MutexGuard};

use crate::by_delivery::{ByDelivery, Kept, endpoint, last_of_each};
use crate::calendar::{Calendar, Kind, SLOTS_MAX};
use crate::error::OpenError;
use crate::session::{Cql, Put, each, stamp, ttl};

const WHEELS: u8 = 16;
/// Positions of one partition: 2 to the power of this.
const SEGMENT_BITS: u32 = 12;
/// Queues that may be changed at the same time.
const TURNS: usize = 64;

pub(crate) struct Queues {
    cql: Arc<Cql>,
    calendar: Arc<Calendar>,
    at: ByDelivery,
    statements: Statements,
    turns: Vec<Mutex<()>>,
    ttl: i32,
}

struct Statements {
    insert: PreparedStatement,
    delete: PreparedStatement,
    select: PreparedStatement,
    from: PreparedStatement,
    enlist: PreparedStatement,
    unlist: PreparedStatement,
    floor: PreparedStatement,
    queues: PreparedStatement,
}

impl Queues {
    pub(crate) async fn open(
        cql: &Arc<Cql>,
        calendar: &Arc<Calendar>,
        days: u32,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            at: ByDelivery::open(cql, "parked_at").await?,
            statements: Statements::prepare(cql).await?,
            turns: (0..TURNS).map(|_| Mutex::default()).collect(),
            ttl: ttl(days.saturating_mul(2)),
            cql: cql.clone(),
            calendar: calendar.clone(),
        })
    }

    /// The turn of each queue, in one order, so that nobody waits in a circle.
    async fn turns(&self, ids: impl Iterator<Item = EndpointId>) -> Vec<MutexGuard<'_, ()>> {
        let mut turns: Vec<_> = ids
            .map(|id| usize::from(Shard::of_endpoint(id).0) % TURNS)
            .collect();
        turns.sort_unstable();
        turns.dedup();
        let mut held = Vec::with_capacity(turns.len());
        for turn in turns {
            held.push(self.turns[turn].lock().await);
        }
        held
    }

    async fn floor(&self, id: EndpointId) -> Result<Option<Vec<u8>>, StoreError> {
        let (wheel, shard) = wheel(id);
        let values = (wheel, shard, endpoint(id));
        let rows: Vec<(Vec<u8>,)> = self.cql.rows(&self.statements.floor, values).await?;
        Ok(rows.into_iter().next().map(|(floor,)| floor))
    }

    /// Says where queues begin, and that they wait.
    async fn enlist(
        &self,
        tenure: &Tenure,
        stamp: i64,
        floors: Vec<(EndpointId, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        let put = |(id, floor): (EndpointId, Vec<u8>)| {
            let (wheel, shard) = wheel(id);
            Put {
                bytes: 48,
                values: (wheel, shard, endpoint(id), floor),
            }
        };
        let puts = floors.into_iter().map(put).collect();
        let statement = &self.statements.enlist;
        self.cql.put(Some(tenure), stamp, statement, puts).await
    }

    async fn unlist(&self, tenure: &Tenure, stamp: i64, id: EndpointId) -> Result<(), StoreError> {
        let (wheel, shard) = wheel(id);
        let put = Put {
            bytes: 48,
            values: (wheel, shard, endpoint(id)),
        };
        let statement = &self.statements.unlist;
        self.cql
            .put(Some(tenure), stamp, statement, vec![put])
            .await
    }

    /// Rows from `start` on.
    async fn from(
        &self,
        id: EndpointId,
        start: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<Parked>, StoreError> {
        let owner = id.0.to_string();
        let mut segment = segment(parse(&start));
        let mut rows = Vec::new();
        loop {
            let range = (segment, i64::MAX);
            let segments = self.calendar.rising(Kind::Parked, &owner, range).await?;
            for segment in &segments {
                let want = i32::try_from(limit - rows.len()).unwrap_or(i32::MAX);
                let values = (endpoint(id), *segment, start.clone(), want);
                let found: Vec<(Vec<u8>,)> = self.cql.rows(&self.statements.from, values).await?;
                for (bytes,) in found {
                    rows.push(Parked::open(&bytes)?);
                }
                if rows.len() >= limit {
                    return Ok(rows);
                }
            }
            match segments.last() {
                Some(last) if segments.len() == usize::try_from(SLOTS_MAX).unwrap_or(0) => {
                    segment = last + 1;
                }
                _ => return Ok(rows),
            }
        }
    }

    async fn write(&self, tenure: &Tenure, stamp: i64, rows: &[Parked]) -> Result<(), StoreError> {
        let segments = rows.iter().map(|row| {
            let owner = row.endpoint.0.to_string();
            (Kind::Parked, owner, segment(row.key))
        });
        self.calendar.note(segments).await?;
        let put = |row: &Parked| {
            let (to, segment, bytes) = (endpoint(row.endpoint), segment(row.key), row.seal());
            Put {
                bytes: 64 + bytes.len(),
                values: (to, segment, key(row.key), bytes),
            }
        };
        let puts = rows.iter().map(put).collect();
        let kept = |row: &Parked| Kept {
            delivery: row.delivery,
            bytes: key(row.key),
            ttl: self.ttl,
        };
        let (parked, at) = futures::join!(
            self.cql
                .put(Some(tenure), stamp, &self.statements.insert, puts),
            self.at.put(tenure, stamp, rows.iter().map(kept).collect()),
        );
        parked.and(at)
    }
}

impl Statements {
    async fn prepare(cql: &Cql) -> Result<Self, OpenError> {
        let row = "WHERE endpoint = ? AND segment = ? AND key";
        let queue = "WHERE wheel = ? AND shard = ? AND endpoint = ?";
        Ok(Self {
            insert: cql
                .prepare("INSERT INTO parked (endpoint, segment, key, row) VALUES (?, ?, ?, ?)")
                .await?,
            delete: cql
                .prepare(&format!("DELETE FROM parked {row} = ?"))
                .await?,
            select: cql
                .prepare(&format!("SELECT row FROM parked {row} = ?"))
                .await?,
            from: cql
                .prepare(&format!("SELECT row FROM parked {row} >= ? LIMIT ?"))
                .await?,
            enlist: cql
                .prepare(
                    "INSERT INTO parked_queue (wheel, shard, endpoint, floor) VALUES (?, ?, ?, ?)",
                )
                .await?,
            unlist: cql
                .prepare(&format!("DELETE FROM parked_queue {queue}"))
                .await?,
            floor: cql
                .prepare(&format!("SELECT floor FROM parked_queue {queue}"))
                .await?,
            queues: cql
                .prepare("SELECT shard, endpoint FROM parked_queue WHERE wheel = ?")
                .await?,
        })
    }
}

#[async_trait]
impl Parking for Queues {
    async fn park(&self, tenure: &Tenure, rows: Vec<Parked>) -> Result<(), StoreError> {
        let _turns = self.turns(rows.iter().map(|row| row.endpoint)).await;
        let stamp = stamp(tenure)?;
        let rows = last_of_each(rows, |row| (row.endpoint, row.key));
        let mut lowest = BTreeMap::new();
        for row in rows.iter().rev() {
            lowest.insert(row.endpoint, key(row.key));
        }
        let floor = |(id, lowest): (EndpointId, Vec<u8>)| async move {
            let floor = self.floor(id).await?;
            Ok((id, floor.map_or(lowest.clone(), |floor| floor.min(lowest))))
        };
        let floors = each(lowest, floor).await?;
        let (written, listed) = futures::join!(
            self.write(tenure, stamp, &rows),
            self.enlist(tenure, stamp, floors),
        );
        written.and(listed)
    }

    async fn peek(
        &self,
        endpoint: EndpointId,
        after: Option<ParkedKey>,
        limit: usize,
    ) -> Result<Vec<Parked>, StoreError> {
        let Some(floor) = self.floor(endpoint).await? else {
            return Ok(Vec::new());
        };
        let start = after.map_or(floor.clone(), |after| {
            // The next possible key.
            let mut next = key(after);
            next.push(0);
            next.max(floor)
        });
        self.from(endpoint, start, limit.clamp(1, PAGE_MAX)).await
    }

    async fn unpark(
        &self,
        tenure: &Tenure,
        id: EndpointId,
        keys: Vec<ParkedKey>,
    ) -> Result<(), StoreError> {
        let _turns = self.turns([id].into_iter()).await;
        let removed = stamp(tenure)?;
        let put = |at: &ParkedKey| Put {
            bytes: 48,
            values: (endpoint(id), segment(*at), key(*at)),
        };
        let puts = keys.iter().map(put).collect();
        let delete = &self.statements.delete;
        self.cql.put(Some(tenure), removed, delete, puts).await?;
        let Some(floor) = self.floor(id).await? else {
            return Ok(());
        };
        match self.from(id, floor, 1).await?.first() {
            Some(first) => {
                let floor = vec![(id, key(first.key))];
                self.enlist(tenure, stamp(tenure)?, floor).await
            }
            None => self.unlist(tenure, stamp(tenure)?, id).await,
        }
    }

    async fn find(&self, ids: &[DeliveryId]) -> Result<Vec<Option<Parked>>, StoreError> {
        let keys = self.at.get(ids).await?;
        let ask = |(id, key): (&DeliveryId, Option<Vec<u8>>)| {
            let id = *id;
            async move {
                let Some(key) = key else { return Ok(None) };
                let values = (endpoint(id.endpoint()), segment(parse(&key)), key);
                let rows: Vec<(Vec<u8>,)> = self.cql.rows(&self.statements.select, values).await?;
                let row = rows.first().map(|(row,)| Parked::open(row)).transpose()?;
                Ok(row.filter(|row| row.delivery == id))
            }
        };
        each(ids.iter().zip(keys), ask).await
    }

    async fn endpoints(&self, shards: ShardSet) -> Result<Vec<EndpointId>, StoreError> {
        let mut wheels: Vec<_> = shards.iter().map(|shard| shard.0 % WHEELS).collect();
        wheels.sort_unstable();
        wheels.dedup();
        let read = |wheel: u8| async move {
            let values = (i16::from(wheel),);
            let rows: Vec<(i16, i64)> = self.cql.all_rows(&self.statements.queues, values).await?;
            Ok(rows)
        };
        let rows = each(wheels, read).await?;
        let ids = rows
            .into_iter()
            .flatten()
            .map(|(_, id)| EndpointId(id.cast_unsigned()));
        Ok(ids
            .filter(|id| shards.contains(Shard::of_endpoint(*id)))
            .collect())
    }
}

/// Span, position and part, sorting as they do.
fn key(key: ParkedKey) -> Vec<u8> {
    let mut out = key.place.span.to_be_bytes().to_vec();
    out.extend_from_slice(&key.place.position.0.to_be_bytes());
    out.extend_from_slice(&key.part.to_be_bytes());
    out
}

/// The key that bytes of ours begin with.
fn parse(bytes: &[u8]) -> ParkedKey {
    let mut fixed = [0; 14];
    let known = bytes.len().min(14);
    fixed[..known].copy_from_slice(&bytes[..known]);
    let (mut span, mut position, mut part) = ([0; 2], [0; 8], [0; 4]);
    span.copy_from_slice(&fixed[..2]);
    position.copy_from_slice(&fixed[2..10]);
    part.copy_from_slice(&fixed[10..]);
    ParkedKey {
        place: fanfare_domain::Place {
            span: u16::from_be_bytes(span),
            position: fanfare_domain::Position(u64::from_be_bytes(position)),
        },
        part: u32::from_be_bytes(part),
    }
}

/// Rising with the key: spans are below 2^15, and no log has 2^60 records.
fn segment(key: ParkedKey) -> i64 {
    let range = (key.place.position.0 >> SEGMENT_BITS).min((1 << 48) - 1);
    i64::from(key.place.span & 0x7fff) << 48 | range.cast_signed()
}

fn wheel(id: EndpointId) -> (i16, i16) {
    let shard = Shard::of_endpoint(id).0;
    (i16::from(shard % WHEELS), i16::from(shard))
}
