//! The reference for durable publishes: a bare librdkafka producer that has its settings from the
//! event log and writes the same records, in a process of its own.
//!
//! `producer BROKERS TOPIC PARTITIONS RECORDS WINDOW`: as many records as `WINDOW` are not
//! acknowledged at any time.

use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use fanfare_event_log::Stream;
use fanfare_event_log_kafka::KafkaConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use serde::{Deserialize, Serialize};

use crate::{child, process, publish};

/// Before anything counts: the connection and the producer's id.
const WARM_UP: u64 = 1000;

/// What a bare producer did.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Produced {
    /// CPU of the whole process per record, in microseconds.
    pub(crate) cpu: f64,
    /// Acknowledged records per second.
    pub(crate) rate: f64,
}

/// Writes `records` to `topic` in a process of its own.
pub(crate) async fn measure(
    brokers: &str,
    topic: &str,
    partitions: u16,
    records: u64,
    window: usize,
) -> Result<Produced> {
    let (partitions, records) = (partitions.to_string(), records.to_string());
    let window = window.to_string();
    child::answer(&["producer", brokers, topic, &partitions, &records, &window]).await
}

/// Tells the loop of each record that was acknowledged or not.
struct Acknowledged(mpsc::SyncSender<Result<()>>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let result = result.as_ref().map(drop);
        // The loop is gone when it failed.
        let _ = self.0.send(result.map_err(|(error, _)| anyhow!("{error}")));
    }
}

/// The process.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let brokers = arguments.next().context("BROKERS")?;
    let topic = arguments.next().context("TOPIC")?;
    let partitions: i32 = arguments.next().context("PARTITIONS")?.parse()?;
    let records: u64 = arguments.next().context("RECORDS")?.parse()?;
    let window: usize = arguments.next().context("WINDOW")?.parse()?;
    // Has room for all that can be reported.
    let (sender, acknowledged) = mpsc::sync_channel(window);
    let config = KafkaConfig {
        bootstrap_servers: vec![brokers],
        ..KafkaConfig::default()
    };
    let properties = config.producer(Stream::Events)?;
    let context = Acknowledged(sender);
    let producer: ThreadedProducer<_> =
        ThreadedProducer::from_config_and_context(&properties, context)?;
    // Made once: the loop is to be as cheap as it can be.
    let record = publish::record()?;
    let write = |count: u64| {
        let mut open = 0;
        for n in 0..count {
            if open == window {
                acknowledged.recv()??;
                open -= 1;
            }
            let partition = (n % u64::try_from(partitions)?) as i32;
            let record = BaseRecord::<(), [u8], ()>::to(&topic)
                .partition(partition)
                .payload(&record);
            producer.send(record).map_err(|(error, _)| error)?;
            open += 1;
        }
        (0..open).try_for_each(|_| acknowledged.recv()?)
    };
    write(WARM_UP)?;
    let (cpu, started) = (process::cpu(std::process::id())?, Instant::now());
    write(records)?;
    let took = started.elapsed();
    let produced = Produced {
        cpu: (process::cpu(std::process::id())? - cpu) as f64 / records as f64,
        rate: records as f64 / took.as_secs_f64(),
    };
    println!("{}", serde_json::to_string(&produced)?);
    Ok(())
}
