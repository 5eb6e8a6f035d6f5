//! Appending: whole batches, admitted within a bound, to explicit partitions.
//!
//! A batch is admitted (counted in records and bytes), taken in without an await between, and
//! answered once by whichever record is reported last. So a caller that goes away either left all of
//! its batch or nothing, and a batch costs one wake-up. The client gets records in [`turns`].
//!
//! When the client says that no broker answers, appends are refused before anything is handed over,
//! until a question to the brokers is answered again. A fatal error of the idempotent producer
//! (its sequence can no longer be guaranteed) ends that client and starts another, and so does
//! losing sight of brokers that are there; what was in flight is indeterminate.

mod batch;
mod health;
mod turns;

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use fanfare_domain::Position;
use fanfare_event_log::{LogError, LogErrorKind, Stream};
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::client::OAuthToken;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{
    BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};
use tokio::sync::Semaphore;

use self::batch::{Batch, Ticket};
use self::health::Health;
use self::turns::{Parcel, Turns};
use crate::client::Common;
use crate::config::KafkaConfig;
use crate::error::{self, OpenError};
use crate::layout::Seat;
use crate::stranded::{Lookout, Sight};

/// How long to wait for others to let go of a retired client.
const RETIRE_PAUSE: Duration = Duration::from_millis(10);
/// Bytes that one permit of the byte bound stands for.
const PERMIT_BYTES: usize = 1024;

/// A record and where it goes.
pub(crate) struct Routed {
    pub(crate) seat: Seat,
    pub(crate) bytes: bytes::Bytes,
}

/// The producer of a log.
pub(crate) struct Producer {
    properties: ClientConfig,
    lookout: Lookout,
    common: Common,
    /// `None` once closed.
    client: Mutex<Option<Client>>,
    health: Arc<Health>,
    records: Arc<Semaphore>,
    permits: Arc<Semaphore>,
    /// How many `permits` there are.
    permits_max: usize,
    records_max: usize,
    record_max_bytes: usize,
    min_insync_replicas: usize,
    timeout: Duration,
}

type Client = Arc<ThreadedProducer<Context>>;

/// Context of the client: answers batches and listens for bad news.
pub(crate) struct Context {
    common: Common,
    health: Arc<Health>,
    turns: Turns,
    /// The client itself, for its reports hand over what waited for them.
    client: OnceLock<Weak<ThreadedProducer<Context>>>,
}

impl Producer {
    /// For `stream`: what cannot be written within its deadline is indeterminate.
    pub(crate) fn new(
        config: &KafkaConfig,
        stream: Stream,
        common: Common,
    ) -> Result<Self, OpenError> {
        let properties = config.producer(stream)?;
        let health = Arc::new(Health::new(config.request_timeout()));
        let client = client(&properties, &common, &health).map_err(|error| {
            OpenError::configuration(format!(
                "the Kafka client does not take this configuration ({error}); correct it"
            ))
        })?;
        let permits_max = size(config.append_queue_max_bytes) / PERMIT_BYTES;
        let records_max = size(config.append_queue_max_records);
        Ok(Self {
            properties,
            lookout: Lookout::new(config, &common)?,
            common,
            client: Mutex::new(Some(client)),
            health,
            records: Arc::new(Semaphore::new(records_max)),
            permits: Arc::new(Semaphore::new(permits_max)),
            permits_max,
            records_max,
            record_max_bytes: size(config.record_max_bytes),
            min_insync_replicas: config.min_insync_replicas.into(),
            timeout: config.append_timeout(stream),
        })
    }

    /// Appends; one position per record.
    pub(crate) async fn append(&self, records: Vec<Routed>) -> Result<Vec<Position>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let (batch, answer) = self.admit(&records).await?;
        let client = self.healthy().await?;
        let parcel = |(index, record): (usize, Routed)| Parcel {
            bytes: record.bytes,
            ticket: Box::new(Ticket {
                batch: batch.clone(),
                index,
                seat: record.seat,
            }),
        };
        let parcels = records.into_iter().enumerate().map(parcel).collect();
        hand_over(&client, client.context().turns.take(parcels));
        // A retired client stays until nobody holds it.
        drop((client, batch));
        match tokio::time::timeout(self.answer_max(), answer).await {
            Ok(Ok(answer)) => answer,
            // The client was dropped, or is stuck: nobody will say.
            Ok(Err(_)) | Err(_) => Err(LogErrorKind::Unknown.into()),
        }
    }

    /// Whether every partition of `topics` could take a record now; otherwise one sentence.
    pub(crate) async fn check_writable(&self, topics: Vec<String>) -> Result<(), String> {
        // Whoever is not ready gets nothing to append: this is where it is noticed then.
        let client = match self.healthy().await {
            Ok(client) => Ok(client),
            Err(_) => self.current(),
        };
        let client = client.map_err(|_| "the log is closed".to_owned())?;
        let (replicas, patience) = (self.min_insync_replicas, self.health.patience());
        let health = self.health.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let asked = topics.iter().find_map(|topic| {
                let metadata = client.client().fetch_metadata(Some(topic), patience);
                match metadata {
                    Ok(metadata) => health::trouble(topic, &metadata, replicas),
                    Err(error) => {
                        health.went_down();
                        Some(format!("the Kafka brokers do not answer ({error})"))
                    }
                }
            });
            asked.map_or(Ok(()), Err)
        });
        asked.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Waits for room within the deadline.
    async fn admit(&self, records: &[Routed]) -> Result<(Arc<Batch>, batch::Answer), LogError> {
        let sizes = records.iter().map(|record| record.bytes.len());
        if sizes.clone().any(|bytes| bytes > self.record_max_bytes) {
            return Err(LogErrorKind::TooLarge.into());
        }
        let permits: usize = sizes.map(|bytes| bytes / PERMIT_BYTES + 1).sum();
        if permits > self.permits_max || records.len() > self.records_max {
            return Err(LogErrorKind::TooLarge.into());
        }
        let (records, permits) = (clamp(records.len()), clamp(permits));
        let room = async {
            let count = self.records.clone().acquire_many_owned(records).await;
            let bytes = self.permits.clone().acquire_many_owned(permits).await;
            Ok::<_, tokio::sync::AcquireError>([count?, bytes?])
        };
        match tokio::time::timeout(self.timeout, room).await {
            Ok(Ok(room)) => Ok(Batch::new(records, room)),
            Ok(Err(_)) => Err(LogErrorKind::Closed.into()),
            Err(_) => Err(LogErrorKind::Unavailable.into()),
        }
    }

    /// The client, if brokers answer; a new one after a fatal error, and when others see them.
    async fn healthy(&self) -> Result<Client, LogError> {
        let client = self.current()?;
        if !self.health.is_down() {
            return Ok(client);
        }
        match self.health.ask(&self.lookout, &client).await {
            Sight::Found => Ok(client),
            Sight::Away => Err(LogErrorKind::Unavailable.into()),
            Sight::Stranded => {
                tracing::error!(
                    "the producer is replaced: it lost sight of brokers that are there"
                );
                self.replace(&mut self.client.lock(), &client)
            }
        }
    }

    fn current(&self) -> Result<Client, LogError> {
        let mut held = self.client.lock();
        let Some(current) = &*held else {
            return Err(LogErrorKind::Closed.into());
        };
        let Some((code, reason)) = current.client().fatal_error() else {
            return Ok(current.clone());
        };
        tracing::error!(%code, "the producer is replaced after a fatal error: {reason}");
        let broken = current.clone();
        self.replace(&mut held, &broken)
    }

    /// Another client in the place of `broken`, or the one that is there already.
    fn replace(&self, held: &mut Option<Client>, broken: &Client) -> Result<Client, LogError> {
        match held {
            None => return Err(LogErrorKind::Closed.into()),
            Some(current) if !Arc::ptr_eq(current, broken) => return Ok(current.clone()),
            Some(_) => {}
        }
        let fresh =
            client(&self.properties, &self.common, &self.health).map_err(error::unavailable)?;
        if let Some(broken) = held.replace(fresh.clone()) {
            retire(broken, Duration::ZERO);
        }
        self.health.is_up();
        Ok(fresh)
    }

    /// Gives what was handed over until the deadline to be written, and takes nothing more.
    pub(crate) fn close(&self) {
        self.records.close();
        self.permits.close();
        if let Some(client) = self.client.lock().take() {
            retire(client, self.timeout);
        }
    }

    /// The client reports every record by its own deadline, and one may wait for another's report; a
    /// little later it is broken.
    fn answer_max(&self) -> Duration {
        2 * self.timeout + Duration::from_secs(1)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.close();
    }
}

/// Flushes within `patience`, then drops: dropping alone would throw away what is queued. On a
/// thread of its own, because both wait; nobody else may be the last to let go of it, least of all
/// its own thread in a report.
fn retire(mut client: Client, patience: Duration) {
    let retired = thread::Builder::new()
        .name("kafka-retire".into())
        .spawn(move || {
            let until = Instant::now() + patience;
            let left = || until.saturating_duration_since(Instant::now());
            let mut flushed = client.flush(patience).is_ok();
            while flushed && !client.context().turns.is_empty() && !left().is_zero() {
                flushed = client.flush(left()).is_ok();
            }
            client.context().turns.close();
            if !flushed {
                client.purge(PurgeConfig::default().queue().inflight());
                // What was purged is reported, so that its callers learn of it.
                let _ = client.flush(Duration::from_secs(1));
            }
            while let Err(held) = Arc::try_unwrap(client) {
                client = held;
                thread::sleep(RETIRE_PAUSE);
            }
        });
    if let Err(error) = retired {
        tracing::error!(%error, "no thread to flush the producer on");
    }
}

fn client(
    properties: &ClientConfig,
    common: &Common,
    health: &Arc<Health>,
) -> Result<Client, KafkaError> {
    let context = Context {
        common: common.clone(),
        health: health.clone(),
        turns: Turns::default(),
        client: OnceLock::new(),
    };
    let client = ThreadedProducer::from_config_and_context(properties, context).map(Arc::new)?;
    let _ = client.context().client.set(Arc::downgrade(&client));
    Ok(client)
}

/// Hands parcels to the client. What it refuses at once is reported at once.
fn hand_over(client: &ThreadedProducer<Context>, parcels: Vec<Parcel>) {
    let mut parcels = VecDeque::from(parcels);
    while let Some(Parcel { bytes, ticket }) = parcels.pop_front() {
        let seat = ticket.seat.clone();
        let outgoing = BaseRecord::<(), [u8], _>::with_opaque_to(&seat.topic, ticket)
            .partition(seat.partition)
            .payload(&bytes);
        if let Err((error, refused)) = client.send(outgoing) {
            let (kind, ticket) = (of_send(&error), refused.delivery_opaque);
            ticket.batch.failed(ticket.index, kind, error);
            parcels.extend(client.context().turns.reported(&seat, Some(kind)));
        }
    }
}

/// A fatal error is reported for records that were never handed over, too.
fn of_send(error: &KafkaError) -> LogErrorKind {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::Fatal) => LogErrorKind::Unavailable,
        _ => error::of_delivery(error),
    }
}

impl Context {
    /// Hands over whose turn it is after a report.
    fn next(&self, seat: &Seat, failed: Option<LogErrorKind>) {
        let parcels = self.turns.reported(seat, failed);
        if parcels.is_empty() {
            return;
        }
        match self.client.get().and_then(Weak::upgrade) {
            Some(client) => hand_over(&client, parcels),
            None => turns::refuse(parcels),
        }
    }
}

impl rdkafka::ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Common::write_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.health.went_down();
        }
        Common::write_error(&error, reason);
    }

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.common.token()
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        use rdkafka::Message;
        match result {
            Ok(message) => {
                self.health.is_up();
                let offset = u64::try_from(message.offset()).unwrap_or_default();
                ticket.batch.written(ticket.index, Position(offset));
                self.next(&ticket.seat, None);
            }
            Err((error, _)) => {
                let kind = error::of_delivery(error);
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut) {
                    // Is anybody there? Whoever appends next asks.
                    self.health.went_down();
                }
                ticket.batch.failed(ticket.index, kind, error.clone());
                self.next(&ticket.seat, Some(kind));
            }
        }
    }
}

fn size(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn clamp(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
