//! The configuration of a log on Kafka: pure data, checked by [`KafkaConfig::check`].

mod properties;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fanfare_event_log::Stream;
use serde::{Deserialize, Serialize};

use crate::error::OpenError;
use crate::layout::BLOCKS;
pub use crate::security::{SaslConfig, SaslMechanism, SecurityConfig};

/// How long an append of deliveries may take at least: well beyond a session, after which another
/// router appends them.
const DELIVERIES_TIMEOUT: Duration = Duration::from_mins(2);

/// A log on Kafka. Unknown fields are refused.
///
/// Everything that decides where a record lies (`topic_prefix`, `event_topics`,
/// `event_partitions`, `dedicated_topics`, `delivery_partitions`) must be the same for every program
/// that uses the log, and stays as it is once the log holds records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// `host:port` of some brokers. Default: `127.0.0.1:9092`.
    pub bootstrap_servers: Vec<String>,
    /// What topics and groups begin with: `[A-Za-z0-9_-]{1,32}`. Default: `fanfare`.
    pub topic_prefix: String,
    /// Topics that subjects without their own are hashed into: 1..=128. Default: 1.
    pub event_topics: u16,
    /// Partitions of each event topic; divides 256. Default: 16.
    pub event_partitions: u16,
    /// Subjects (first parts of event types) with a topic of their own. Default: none.
    pub dedicated_topics: Vec<Dedicated>,
    /// Partitions of the delivery topic; divides 256. Default: 16.
    pub delivery_partitions: u16,
    /// Replicas of a topic when it is created. Default: 3.
    pub replication_factor: u16,
    /// Replicas that must have a record before it is acknowledged. Default: 2.
    pub min_insync_replicas: u16,
    /// How long event records are kept at least. Default: 336 (14 days).
    pub event_retention_hours: u32,
    /// How long delivery records are kept at least: covers how far workers may fall behind, not
    /// how long they retry. Default: 168 (7 days).
    pub delivery_retention_hours: u32,
    /// Largest record. Default: 2 MiB.
    pub record_max_bytes: u32,
    /// Largest commit metadata: the brokers' `offset.metadata.max.bytes`. Default: 4096.
    pub commit_metadata_max_bytes: u32,
    /// The publish deadline: how long an append may take before it is indeterminate; what routers
    /// append has 2 minutes. Default: 10 000.
    pub publish_timeout_ms: u64,
    /// How long the records of a group wait for each other to share a request: what comes while the group
    /// before is written goes together anyway. Default: 1.
    pub linger_ms: u64,
    /// How records are compressed. Default: lz4.
    pub compression: Compression,
    /// Most records appended and not yet acknowledged. Default: 100 000.
    pub append_queue_max_records: u32,
    /// Most bytes of them. Default: 64 MiB.
    pub append_queue_max_bytes: u32,
    /// Most bytes read ahead for each span. Default: 4 MiB.
    pub read_ahead_max_bytes: u32,
    /// How groups are balanced. Default: classic.
    pub group_protocol: GroupProtocol,
    /// After how long without a sign of life a member is expelled. With the `consumer` protocol the
    /// brokers decide (`group.consumer.session.timeout.ms`) and this may not be more than they do.
    /// Default: 45 000.
    pub session_timeout_ms: u64,
    /// How often a member shows life (classic protocol). Default: 3 000.
    pub heartbeat_interval_ms: u64,
    /// How long a holder may take to finish and let go when its lease is wanted back: longer than
    /// the longest attempt. Default: 45 000.
    pub drain_timeout_ms: u64,
    /// How long an answer to a commit is waited for. Default: 10 000.
    pub commit_timeout_ms: u64,
    /// How long other questions to the brokers may take. Default: 10 000.
    pub request_timeout_ms: u64,
    /// TLS and SASL. Default: neither.
    pub security: SecurityConfig,
    /// Further settings of librdkafka, by its names. Those that Fanfare's promises rest on, and
    /// those with a field here, are refused.
    pub librdkafka: BTreeMap<String, String>,
}

/// A subject with a topic of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dedicated {
    /// First part of the event types: `[A-Za-z0-9_-]+`.
    pub subject: String,
    /// Its number among the dedicated topics, 0..=127; never reused for another subject.
    pub number: u16,
}

/// How records are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// Cheap.
    Lz4,
    /// Smaller, for more CPU.
    Zstd,
}

/// How a group is balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    /// Cooperative-sticky, by the members themselves.
    Classic,
    /// By the brokers (KIP-848; Kafka 4).
    Consumer,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: vec!["127.0.0.1:9092".into()],
            topic_prefix: "fanfare".into(),
            event_topics: 1,
            event_partitions: 16,
            dedicated_topics: Vec::new(),
            delivery_partitions: 16,
            replication_factor: 3,
            min_insync_replicas: 2,
            event_retention_hours: 14 * 24,
            delivery_retention_hours: 7 * 24,
            record_max_bytes: 2 << 20,
            commit_metadata_max_bytes: 4096,
            publish_timeout_ms: 10_000,
            linger_ms: 1,
            compression: Compression::Lz4,
            append_queue_max_records: 100_000,
            append_queue_max_bytes: 64 << 20,
            read_ahead_max_bytes: 4 << 20,
            group_protocol: GroupProtocol::Classic,
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 3_000,
            drain_timeout_ms: 45_000,
            commit_timeout_ms: 10_000,
            request_timeout_ms: 10_000,
            security: SecurityConfig::default(),
            librdkafka: BTreeMap::new(),
        }
    }
}

impl KafkaConfig {
    /// Refuses what cannot work, with one sentence that says what to set.
    pub fn check(&self) -> Result<(), OpenError> {
        self.check_names()?;
        self.check_counts()?;
        self.check_times()?;
        self.security
            .sasl
            .as_ref()
            .map_or(Ok(()), SaslConfig::check)?;
        properties::check_free(&self.librdkafka)
    }

    fn check_names(&self) -> Result<(), OpenError> {
        require(
            !self.bootstrap_servers.is_empty(),
            "bootstrap_servers is empty; name at least one broker as host:port",
        )?;
        require(
            is_name(&self.topic_prefix) && self.topic_prefix.len() <= 32,
            "topic_prefix must be 1 to 32 of A-Z, a-z, 0-9, - and _; choose another",
        )?;
        let subjects: BTreeSet<_> = self.dedicated_topics.iter().map(|d| &d.subject).collect();
        let numbers: BTreeSet<_> = self.dedicated_topics.iter().map(|d| d.number).collect();
        let count = self.dedicated_topics.len();
        require(
            subjects.len() == count && subjects.iter().all(|s| is_name(s) && s.len() <= 128),
            "each of dedicated_topics needs a subject of its own, a first part of event types",
        )?;
        require(
            numbers.len() == count && numbers.iter().all(|n| *n < BLOCKS),
            "each of dedicated_topics needs a number of its own from 0 to 127",
        )
    }

    fn check_counts(&self) -> Result<(), OpenError> {
        require(
            (1..=BLOCKS).contains(&self.event_topics),
            "event_topics must be 1 to 128",
        )?;
        for count in [self.event_partitions, self.delivery_partitions] {
            require(
                count > 0 && 256u16.is_multiple_of(count),
                "event_partitions and delivery_partitions must divide 256: 1, 2, 4 and so on",
            )?;
        }
        require(
            (1..=self.replication_factor).contains(&self.min_insync_replicas),
            "min_insync_replicas must be at least 1 and at most replication_factor",
        )?;
        require(
            self.record_max_bytes >= 64 << 10 && self.record_max_bytes <= 64 << 20,
            "record_max_bytes must be 64 KiB to 64 MiB",
        )?;
        require(
            self.append_queue_max_bytes >= self.record_max_bytes
                && self.append_queue_max_records > 0
                && self.read_ahead_max_bytes > 0,
            "append_queue_max_bytes must have room for a record of record_max_bytes, and neither \
             append_queue_max_records nor read_ahead_max_bytes may be 0",
        )?;
        require(
            self.commit_metadata_max_bytes >= 256,
            "commit_metadata_max_bytes must be at least 256: the brokers' offset.metadata.max.bytes",
        )
    }

    fn check_times(&self) -> Result<(), OpenError> {
        require(
            self.event_retention_hours > 0 && self.delivery_retention_hours > 0,
            "event_retention_hours and delivery_retention_hours must be at least 1",
        )?;
        require(
            self.heartbeat_interval_ms > 0
                && self.session_timeout_ms / 3 >= self.heartbeat_interval_ms,
            "session_timeout_ms must be at least three times heartbeat_interval_ms",
        )?;
        let waits = [
            self.drain_timeout_ms,
            self.commit_timeout_ms,
            self.request_timeout_ms,
        ];
        require(
            self.publish_timeout_ms > self.linger_ms && waits.iter().all(|ms| *ms > 0),
            "publish_timeout_ms must be more than linger_ms, and no other time-out may be 0",
        )?;
        // A day is far beyond any sense and far below what the client can count.
        require(
            waits
                .iter()
                .chain([&self.publish_timeout_ms, &self.session_timeout_ms])
                .all(|ms| *ms <= 86_400_000),
            "no time-out may be more than a day",
        )
    }

    /// How long a proof of membership is good for, counted from before it was asked for.
    pub(crate) fn tenure(&self) -> Duration {
        let session = Duration::from_millis(self.session_timeout_ms);
        match self.group_protocol {
            // A commit starts the session anew, so the session itself is the bound.
            GroupProtocol::Classic => session,
            // It does not here: the last heartbeat may be an interval older (5 s by default).
            GroupProtocol::Consumer => session / 4 * 3,
        }
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }

    pub(crate) fn commit_timeout(&self) -> Duration {
        Duration::from_millis(self.commit_timeout_ms)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// How long an append to `stream` may take before it is indeterminate.
    pub(crate) fn append_timeout(&self, stream: Stream) -> Duration {
        let publish = Duration::from_millis(self.publish_timeout_ms);
        match stream {
            Stream::Events => publish,
            // Nobody waits for an answer but a router, which would append the same again: while
            // the client itself tries again, the brokers drop what they have.
            Stream::Deliveries => publish.max(DELIVERIES_TIMEOUT),
        }
    }
}

fn require(holds: bool, sentence: &str) -> Result<(), OpenError> {
    if holds {
        Ok(())
    } else {
        Err(OpenError::configuration(sentence))
    }
}

fn is_name(text: &str) -> bool {
    let ours = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !text.is_empty() && text.bytes().all(ours)
}

#[cfg(test)]
mod tests;
