//! The configuration as librdkafka wants it.

use std::collections::BTreeMap;

use fanfare_event_log::{Group, Stream};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::{Compression, GroupProtocol, KafkaConfig};
use crate::error::OpenError;

/// Settings that are not free: a promise rests on them, or a field of [`KafkaConfig`] sets them.
const OURS: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "bootstrap.servers",
    "check.crcs",
    "compression.codec",
    "compression.type",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.protocol.type",
    "heartbeat.interval.ms",
    "isolation.level",
    "linger.ms",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "max.poll.interval.ms",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.broker.list",
    "offset.store.method",
    "partition.assignment.strategy",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "queuing.strategy",
    "request.required.acks",
    "retries",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "session.timeout.ms",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "transactional.id",
];

/// Refuses settings that are not free.
pub(super) fn check_free(settings: &BTreeMap<String, String>) -> Result<(), OpenError> {
    match settings.keys().find(|key| OURS.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(OpenError::configuration(format!(
            "librdkafka.\"{key}\" cannot be set: Fanfare's promises rest on it or another setting \
             decides it; remove it"
        ))),
    }
}

impl KafkaConfig {
    /// What every client of ours has. Reads the password file.
    pub(crate) fn client(&self) -> Result<ClientConfig, OpenError> {
        // Whoever is first decides whether OpenSSL tears itself down when the process exits. It must not: a thread
        // of a client that is still connecting then would die of it, and the process with it.
        openssl_sys::init();
        let mut client = ClientConfig::new();
        for (key, value) in &self.librdkafka {
            client.set(key, value);
        }
        client
            .set_log_level(RDKafkaLogLevel::Info)
            .set("bootstrap.servers", self.bootstrap_servers.join(","))
            .set("allow.auto.create.topics", "false");
        for (key, value) in [
            // Ours unless chosen otherwise. A broker that is back is found at once, not after 10 s.
            ("client.id", "fanfare"),
            ("reconnect.backoff.ms", "50"),
            ("reconnect.backoff.max.ms", "1000"),
            ("socket.keepalive.enable", "true"),
        ] {
            if !self.librdkafka.contains_key(key) {
                client.set(key, value);
            }
        }
        self.security.apply(&mut client)?;
        Ok(client)
    }

    /// A producer: idempotent, acknowledged by all in-sync replicas, bounded in time and size. Public
    /// so that another producer can be measured with the very same settings.
    pub fn producer(&self, stream: Stream) -> Result<ClientConfig, OpenError> {
        let compression = match self.compression {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        };
        // Admission is ours (it can wait, and takes a batch whole or not at all); the client's own
        // queue has twice the room so that it never refuses what was admitted.
        let kbytes = u64::from(self.append_queue_max_bytes) / 1024 * 2 + 1024;
        let records = u64::from(self.append_queue_max_records) * 2;
        let mut client = self.client()?;
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set(
                "delivery.timeout.ms",
                self.append_timeout(stream).as_millis().to_string(),
            )
            .set("linger.ms", self.linger_ms.to_string())
            .set("compression.type", compression)
            .set(
                "message.max.bytes",
                self.topic_record_max_bytes().to_string(),
            )
            .set("queue.buffering.max.messages", records.to_string())
            .set("queue.buffering.max.kbytes", kbytes.to_string());
        Ok(client)
    }

    /// A member of `group` on `stream`.
    pub(crate) fn consumer(
        &self,
        stream: Stream,
        group: &Group,
    ) -> Result<ClientConfig, OpenError> {
        let mut client = self.reader(&self.group_id(stream, group))?;
        match self.group_protocol {
            GroupProtocol::Classic => client
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", self.session_timeout_ms.to_string())
                .set(
                    "heartbeat.interval.ms",
                    self.heartbeat_interval_ms.to_string(),
                ),
            GroupProtocol::Consumer => client.set("group.protocol", "consumer"),
        };
        // Also how long a rebalance waits for a member. One that drains comes back later by the
        // drain time-out; its leases must be over well before it is given up on.
        let poll = self.drain_timeout_ms + self.session_timeout_ms + 30_000;
        client.set("max.poll.interval.ms", poll.to_string());
        Ok(client)
    }

    /// A consumer that commits only what it is told to and never guesses an offset.
    pub(crate) fn reader(&self, group_id: &str) -> Result<ClientConfig, OpenError> {
        let kbytes = self.read_ahead_max_bytes.div_ceil(1024).max(1);
        let mut client = self.client()?;
        client
            .set("group.id", group_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("queued.max.messages.kbytes", kbytes.to_string());
        for (key, value) in [
            ("fetch.wait.max.ms", "250"),
            // How long a partition is left alone whose queue is full; a second, unless it is said.
            ("fetch.queue.backoff.ms", "20"),
        ] {
            if !self.librdkafka.contains_key(key) {
                client.set(key, value);
            }
        }
        Ok(client)
    }

    /// The consumer group's name.
    pub(crate) fn group_id(&self, stream: Stream, group: &Group) -> String {
        format!("{}.{}.{}", self.topic_prefix, group.0, stream.name())
    }

    /// A topic's `max.message.bytes`: a record with what the protocol adds to it.
    pub(crate) fn topic_record_max_bytes(&self) -> u32 {
        self.record_max_bytes + (16 << 10)
    }
}
