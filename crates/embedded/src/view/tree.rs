//! One space on disk: an LSM tree that is only ever written a generation at a time.
//!
//! The tree has neither a journal nor a memtable in use: a generation is sorted already, so it is
//! written straight into tables, which become part of the tree all at once or not at all. The
//! tables' sequence number is the log position that the generation ends at, so a tree always knows
//! what it reflects, and no change is ever applied twice.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lsm_tree::compaction::Leveled;
use lsm_tree::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};
use lsm_tree::config::{BlockSizePolicy, CompressionPolicy};
use lsm_tree::{
    AbstractTree, AnyTree, Cache, CompressionType, Config, DescriptorTable, Guard, SeqNo,
    SequenceNumberCounter,
};

use super::Expiry;
use super::overlay::Generation;
use crate::changes::{Shape, SpaceSpec, WrittenMicros, put_bytes};

/// Sequence numbers per log position: the tree uses up a few for itself between two generations.
const SEQNOS: u64 = 256;
/// Tables are cut at this size: small enough that one compaction is short.
const TABLE_BYTES: u64 = 16 << 20;

/// Runs that are merged together. Keys are looked up in each, so they may be few; packed rows are
/// written far more often than read, and every merge writes them again.
const KEYED_RUNS: u8 = 4;
const PACKED_RUNS: u8 = 12;

/// A space's tree.
pub(crate) struct Tree {
    pub(crate) spec: SpaceSpec,
    tables: AnyTree,
    seqno: SequenceNumberCounter,
    /// Where the newest generation in it ended.
    position: AtomicU64,
}

/// What trees share.
pub(crate) struct Shared {
    pub(crate) cache: Arc<Cache>,
    pub(crate) files: Arc<DescriptorTable>,
    pub(crate) expiry: Arc<Expiry>,
}

impl Tree {
    /// Opens or creates the tree in `dir`.
    pub(crate) fn open(dir: &Path, spec: SpaceSpec, shared: &Shared) -> lsm_tree::Result<Self> {
        let seqno = SequenceNumberCounter::default();
        let mut config = Config::new(dir, seqno.clone(), SequenceNumberCounter::default())
            .use_cache(shared.cache.clone())
            .use_descriptor_table(Some(shared.files.clone()))
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4));
        if spec.shape == Shape::Packed {
            config = config.data_block_size_policy(BlockSizePolicy::all(16 << 10));
        }
        if let Some(written_micros) = spec.written_micros {
            let expiry = shared.expiry.clone();
            config = config.with_compaction_filter_factory(Some(Arc::new(Expire {
                written_micros,
                expiry,
            })));
        }
        let tables = config.open()?;
        let highest = tables.get_highest_persisted_seqno().unwrap_or(0);
        seqno.set(highest + 1);
        Ok(Self {
            spec,
            tables,
            seqno,
            position: AtomicU64::new(highest / SEQNOS),
        })
    }

    /// Position that the newest generation in it ended at.
    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// Writes what a generation that ends at `end` says about this space: durable, and all or
    /// nothing.
    pub(crate) fn write(&self, generation: &Generation, end: u64) -> lsm_tree::Result<()> {
        match self.spec.shape {
            Shape::Keyed => self.write_keyed(generation, end),
            Shape::Packed => self.write_packed(generation, end),
        }
    }

    fn write_keyed(&self, generation: &Generation, end: u64) -> lsm_tree::Result<()> {
        let Some(map) = generation.keyed.get(&self.spec.space) else {
            return Ok(());
        };
        let mut writer = self.tables.ingestion()?;
        for (key, entry) in map {
            match entry {
                Some(value) => writer.write(key.bytes().clone(), value.clone())?,
                None => writer.write_tombstone(key.bytes().clone())?,
            }
        }
        self.finish(writer, end)
    }

    fn write_packed(&self, generation: &Generation, end: u64) -> lsm_tree::Result<()> {
        let Some(map) = generation.packed.get(&self.spec.space) else {
            return Ok(());
        };
        let mut writer = self.tables.ingestion()?;
        for (group, rows) in map {
            let mut value = Vec::with_capacity(rows.iter().map(|row| row.len() + 2).sum());
            for row in rows {
                put_bytes(&mut value, row);
            }
            writer.write(chunk_key(group.bytes(), generation.start), value)?;
        }
        self.finish(writer, end)
    }

    fn finish(&self, writer: lsm_tree::AnyIngestion<'_>, end: u64) -> lsm_tree::Result<()> {
        self.seqno.set(self.seqno.get().max(end * SEQNOS));
        writer.finish()?;
        self.position.store(end, Ordering::Release);
        // Nothing reads old versions: every read takes the newest one.
        let mut history = self.tables.get_version_history_lock();
        history.maintenance(&self.tables.tree_config().path, SeqNo::MAX)
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> lsm_tree::Result<Option<Bytes>> {
        Ok(self.tables.get(key, SeqNo::MAX)?.map(Bytes::from))
    }

    /// The entries of a range, in either order.
    pub(crate) fn range(
        &self,
        range: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    ) -> impl DoubleEndedIterator<Item = lsm_tree::Result<(Bytes, Bytes)>> {
        self.tables.range(range, SeqNo::MAX, None).map(|guard| {
            let (key, value) = guard.into_inner()?;
            Ok((key.into(), value.into()))
        })
    }

    /// Merges tables if there is cause to.
    pub(crate) fn compact(&self) -> lsm_tree::Result<()> {
        let leveled = Leveled::default()
            .with_table_target_size(TABLE_BYTES)
            .with_l0_threshold(match self.spec.shape {
                Shape::Keyed => KEYED_RUNS,
                Shape::Packed => PACKED_RUNS,
            });
        self.tables.compact(Arc::new(leveled), self.seqno.get())
    }

    /// Rewrites everything, which leaves out what has outlived the retention, wherever it lies.
    pub(crate) fn sweep(&self) -> lsm_tree::Result<()> {
        self.tables.major_compact(TABLE_BYTES, self.seqno.get())
    }

    /// Whether runs of tables are piling up, each one slowing reads.
    pub(crate) fn runs(&self) -> usize {
        self.tables.l0_run_count()
    }

    /// Changes when tables were merged or moved.
    pub(crate) fn shape(&self) -> Vec<Option<usize>> {
        (0..7)
            .map(|level| self.tables.level_table_count(level))
            .collect()
    }

    /// Bytes on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.tables.disk_space()
    }
}

/// The key of a group's rows of one generation.
pub(crate) fn chunk_key(group: &[u8], start: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(group.len() + 8);
    key.extend_from_slice(group);
    key.extend_from_slice(&start.to_be_bytes());
    key
}

/// The inverse of [`chunk_key`].
pub(crate) fn split_chunk_key(key: &Bytes) -> Option<(Bytes, u64)> {
    let at = key.len().checked_sub(8)?;
    let start = key[at..].try_into().ok().map(u64::from_be_bytes)?;
    Some((key.slice(..at), start))
}

/// Drops entries that were written before the retention.
struct Expire {
    written_micros: WrittenMicros,
    expiry: Arc<Expiry>,
}

impl Factory for Expire {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(ExpireBefore {
            written_micros: self.written_micros,
            before: self.expiry.before_micros(),
        })
    }
}

struct ExpireBefore {
    written_micros: WrittenMicros,
    before: i64,
}

impl CompactionFilter for ExpireBefore {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        let written = (self.written_micros)(item.key(), &item.value()?);
        Ok(match written {
            Some(written) if written < self.before => Verdict::Remove,
            _ => Verdict::Keep,
        })
    }
}
