//! A span of a member: where its records come out of the client, and who may take them.
//!
//! Each partition has a queue of its own, cut off from the consumer's, which fills up to a bound of
//! bytes and then is fetched no more: a holder that does not read stops its own span, and nothing
//! that was read ahead is thrown away.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_domain::Position;
use fanfare_event_log::{Entry, LogError, LogErrorKind, ReadLimit, Span};
use parking_lot::Mutex;
use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::{Notify, Semaphore};

use super::context::{Consumer, Context};
use crate::layout::Seat;

/// A span of a member.
pub(crate) struct Slot {
    pub(crate) span: Span,
    pub(crate) seat: Seat,
    /// One commit of the span at a time.
    pub(super) commits: Arc<Semaphore>,
    /// There may be something in the queue.
    ready: Arc<Notify>,
    feed: Mutex<Feed>,
}

#[derive(Default)]
struct Feed {
    queue: Option<PartitionQueue<Context>>,
    /// Of the lease that may read; 0 for none.
    epoch: u64,
    /// Taken from the queue, and too large for the read that took it.
    kept: Option<Entry>,
    /// The next position is not in the log: nothing more comes out.
    out_of_range: bool,
}

impl Slot {
    pub(super) fn new(span: Span, seat: Seat) -> Self {
        Self {
            span,
            seat,
            commits: Arc::new(Semaphore::new(1)),
            ready: Arc::new(Notify::new()),
            feed: Mutex::default(),
        }
    }

    /// Cuts the partition's queue off the consumer's. Before it is assigned, so that nothing of it
    /// goes to the consumer's own.
    pub(super) fn split(&self, consumer: &Arc<Consumer>) -> bool {
        let queue = consumer.split_partition_queue(&self.seat.topic, self.seat.partition);
        let Some(mut queue) = queue else { return false };
        let ready = self.ready.clone();
        queue.set_nonempty_callback(move || ready.notify_one());
        *self.feed.lock() = Feed {
            queue: Some(queue),
            ..Feed::default()
        };
        true
    }

    /// Lets go of the queue, which holds on to the consumer.
    pub(super) fn close(&self) {
        *self.feed.lock() = Feed::default();
        self.ready.notify_one();
    }

    /// From now on only the lease of `epoch` reads. The client was sought to where it begins.
    pub(super) fn open_for(&self, epoch: u64) {
        let mut feed = self.feed.lock();
        feed.kept = None;
        feed.epoch = epoch;
    }

    /// Whether reading has come to a position that the log does not have.
    pub(super) fn is_out_of_range(&self) -> bool {
        self.feed.lock().out_of_range
    }

    /// Resolves when there may be more to read than before.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// What is there, within `limit`; empty when nothing is or `epoch` may not read.
    pub(crate) fn take(&self, epoch: u64, limit: ReadLimit) -> Result<Vec<Entry>, LogError> {
        let mut feed = self.feed.lock();
        if feed.epoch != epoch {
            return Ok(Vec::new());
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < limit.records.max(1) {
            let next = match feed.next() {
                Ok(Some(next)) => next,
                Ok(None) => break,
                // What came before it is good; it is met again.
                Err(_) if !entries.is_empty() => break,
                Err(error) => return Err(error),
            };
            bytes += next.bytes.len();
            if bytes > limit.bytes && !entries.is_empty() {
                feed.kept = Some(next);
                break;
            }
            entries.push(next);
        }
        Ok(entries)
    }
}

impl Feed {
    fn next(&mut self) -> Result<Option<Entry>, LogError> {
        if let Some(kept) = self.kept.take() {
            return Ok(Some(kept));
        }
        let Some(queue) = &self.queue else {
            return Ok(None);
        };
        match queue.poll(std::time::Duration::ZERO) {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(Entry {
                position: Position(u64::try_from(message.offset()).unwrap_or_default()),
                bytes: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
            })),
            Some(Err(error)) => self.failed(error),
        }
    }

    fn failed(&mut self, error: KafkaError) -> Result<Option<Entry>, LogError> {
        use RDKafkaErrorCode as E;
        match error.rdkafka_error_code() {
            Some(E::AutoOffsetReset | E::OffsetOutOfRange) => {
                self.out_of_range = true;
                Ok(None)
            }
            Some(E::BadMessage | E::BadCompression | E::InvalidMessage) => {
                Err(LogError::because(LogErrorKind::Corrupt, error))
            }
            // The client tries again by itself; whoever reads only has to wait.
            _ => {
                tracing::debug!(%error, "reading is held up");
                Ok(None)
            }
        }
    }
}
