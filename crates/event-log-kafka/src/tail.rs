//! Following a stream live, without a group.
//!
//! A consumer of its own is set to the ends of all partitions and fetches no more than a bound ahead
//! of its follower. One that is slow is not live any more but misses nothing, until retention
//! overtakes it; what it missed then is counted from the gap in positions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fanfare_domain::{Place, Position};
use fanfare_event_log::{LogError, LogErrorKind, ReadLimit, Stream, Tail, Tailed};
use rdkafka::client::OAuthToken;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::Offset;
use rdkafka::{ClientContext, Message, TopicPartitionList};
use tokio::sync::Notify;

use crate::asking::served;
use crate::client::Common;
use crate::config::KafkaConfig;
use crate::error::unavailable;
use crate::layout::{Layout, Seat};

/// A follower.
pub(crate) struct KafkaTail {
    /// `None` only while it is being dropped.
    consumer: Option<BaseConsumer<Context>>,
    ready: Arc<Notify>,
    layout: Arc<Layout>,
    /// Where each partition is read next.
    next: HashMap<Seat, u64>,
    /// Taken from the client, and too large for the read that took it.
    kept: Option<(Place, Bytes)>,
    skipped: u64,
}

struct Context(Common);

impl KafkaTail {
    /// Follows from the present ends on: they are asked for before this resolves.
    pub(crate) async fn follow(
        stream: Stream,
        config: Arc<KafkaConfig>,
        layout: Arc<Layout>,
        common: Common,
    ) -> Result<Self, LogError> {
        let ready = Arc::new(Notify::new());
        let (seats, told) = (seats(&layout, stream), ready.clone());
        let started = tokio::task::spawn_blocking(move || {
            let mut consumer = connect(&config, common)?;
            consumer.set_nonempty_callback(move || told.notify_one());
            let next =
                start_at_ends(&consumer, &seats, config.request_timeout()).map_err(unavailable)?;
            Ok::<_, LogError>((consumer, next))
        });
        let started = started
            .await
            .map_err(|error| LogError::because(LogErrorKind::Unavailable, error))?;
        let (consumer, next) = started?;
        Ok(Self {
            consumer: Some(consumer),
            ready,
            layout,
            next,
            kept: None,
            skipped: 0,
        })
    }

    /// One record, if there is one.
    fn poll(&mut self) -> Option<(Place, Bytes)> {
        if let Some(kept) = self.kept.take() {
            return Some(kept);
        }
        loop {
            let consumer = self.consumer.as_ref()?;
            let message = match consumer.poll(Duration::ZERO)? {
                Ok(message) => message,
                Err(error) => {
                    tracing::debug!(%error, "following is held up");
                    continue;
                }
            };
            let seat = Seat {
                topic: message.topic().into(),
                partition: message.partition(),
            };
            let at = u64::try_from(message.offset()).unwrap_or_default();
            let Some(span) = self.layout.span_at(&seat) else {
                continue;
            };
            let bytes = Bytes::copy_from_slice(message.payload().unwrap_or_default());
            let expected = self.next.insert(seat, at + 1).unwrap_or(at);
            self.skipped += at.saturating_sub(expected);
            let place = Place {
                span: span.index,
                position: Position(at),
            };
            return Some((place, bytes));
        }
    }
}

fn connect(config: &KafkaConfig, common: Common) -> Result<BaseConsumer<Context>, LogError> {
    // The client wants a group's name to assign partitions; nothing is ever joined or committed.
    let mut properties = config
        .reader(&format!("{}.tail", config.topic_prefix))
        .map_err(|error| LogError::because(LogErrorKind::Unavailable, error))?;
    // Overtaken by retention it goes on where records are; the gap is counted.
    properties.set("auto.offset.reset", "earliest");
    BaseConsumer::from_config_and_context(&properties, Context(common)).map_err(unavailable)
}

fn seats(layout: &Layout, stream: Stream) -> Vec<Seat> {
    let spans = layout.spans(stream);
    let seat = |span: &fanfare_event_log::Span| layout.seat(stream, span.index).cloned();
    spans.iter().filter_map(seat).collect()
}

fn start_at_ends(
    consumer: &BaseConsumer<Context>,
    seats: &[Seat],
    timeout: Duration,
) -> KafkaResult<HashMap<Seat, u64>> {
    let mut list = TopicPartitionList::with_capacity(seats.len());
    for seat in seats {
        list.add_partition_offset(&seat.topic, seat.partition, Offset::End)?;
    }
    let ends = served(consumer, || consumer.offsets_for_times(list, timeout))?;
    let mut next = HashMap::new();
    for element in ends.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            let seat = Seat {
                topic: element.topic().into(),
                partition: element.partition(),
            };
            next.insert(seat, u64::try_from(offset).unwrap_or_default());
        }
    }
    consumer.assign(&ends)?;
    Ok(next)
}

#[async_trait]
impl Tail for KafkaTail {
    async fn next(&mut self, limit: ReadLimit) -> Result<Tailed, LogError> {
        let mut tailed = Tailed::default();
        let mut bytes = 0;
        loop {
            // No await between taking and returning, so a dropped call loses nothing.
            while tailed.entries.len() < limit.records.max(1) {
                let Some(entry) = self.poll() else { break };
                bytes += entry.1.len();
                if bytes > limit.bytes && !tailed.entries.is_empty() {
                    self.kept = Some(entry);
                    break;
                }
                tailed.entries.push(entry);
            }
            if !tailed.entries.is_empty() {
                tailed.skipped = std::mem::take(&mut self.skipped);
                return Ok(tailed);
            }
            self.ready.notified().await;
        }
    }
}

impl Drop for KafkaTail {
    fn drop(&mut self) {
        let consumer = self.consumer.take();
        // Closing waits for the client's threads; a runtime's thread must not.
        let closing = std::thread::Builder::new().name("kafka-tail-end".into());
        if let Err(error) = closing.spawn(move || drop(consumer)) {
            tracing::warn!(%error, "no thread to close a follower on");
        }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Common::write_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Common::write_error(&error, reason);
    }

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.0.token()
    }
}

impl ConsumerContext for Context {}
