//! The one configuration of `fanfare serve`, `fanfare-router` and `fanfare-delivery-worker`: composed of the components' own, checked across
//! them, printed with its secrets redacted.
//!
//! Order: defaults, the file of `--config`, `FANFARE__SECTION__KEY` of the environment, flags.

mod check;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use fanfare_delivery_worker::WorkerConfig;
use fanfare_embedded::EmbeddedConfig;
use fanfare_event_log_kafka::KafkaConfig;
use fanfare_router::front::access::KeyStanza;
use fanfare_router::front::{FrontConfig, ManagementConfig};
use fanfare_router::routing::RoutingConfig;
use fanfare_service::configuration::{self, ConfigurationError};
use fanfare_service::egress::EgressConfig;
use fanfare_service::telemetry::LogFormat;
use fanfare_service::{ByteSize, HumanDuration};
use fanfare_store_scylla::CqlConfig;
use serde::{Deserialize, Serialize};

/// Settings that are lists of texts.
const LISTS: [&str; 5] = [
    "kafka.bootstrap_servers",
    "cql.contact_points",
    "worker.retry_schedule",
    "egress.allow_egress",
    "egress.allow_hosts",
];

/// The commented default file, as printed by `fanfare config default`. A test compares it with
/// [`Config::default`].
pub const DEFAULT_FILE: &str = include_str!("config/default.toml");

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The process: addresses, drain, logs.
    pub server: ServerConfig,
    /// Where everything is kept: the data directory, unless Kafka and a CQL store are chosen.
    pub storage: StorageConfig,
    /// Kafka, when it is chosen.
    pub kafka: KafkaConfig,
    /// The CQL store, when it is chosen.
    pub cql: CqlConfig,
    /// What is taken in, and from how many.
    pub front: FrontConfig,
    /// Quotas of what a tenant configures.
    pub management: ManagementConfig,
    /// Routing.
    pub routing: RoutingConfig,
    /// Delivering.
    pub worker: WorkerConfig,
    /// What may be called.
    pub egress: EgressConfig,
    /// Who may call us; none: everyone, on loopback only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyStanza>,
}

/// What a process does of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything: `fanfare serve`.
    Everything,
    /// Takes in and routes: `fanfare-router`.
    Router,
    /// Delivers: `fanfare-delivery-worker`.
    Worker,
}

impl Role {
    /// The program that plays it.
    pub fn program(self) -> &'static str {
        match self {
            Self::Everything => "fanfare",
            Self::Router => "fanfare-router",
            Self::Worker => "fanfare-delivery-worker",
        }
    }
}

/// The process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// gRPC, HTTP and the web page. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Probes and metrics, no tenant's data. Port 0 takes a free one.
    pub admin_listen: SocketAddr,
    /// How long a drain may take: the longest attempt (30 s) and 15 s.
    pub drain_deadline: HumanDuration,
    /// How long a start waits for Kafka and the store to answer, not ready, before it gives up.
    pub backend_wait: HumanDuration,
    /// Listen off loopback without keys.
    pub insecure_no_auth: bool,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// What keeps events and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageMode {
    /// One directory of this machine, one process.
    #[default]
    Embedded,
    /// Kafka and a CQL store, any number of processes.
    Distributed,
}

/// Which backends, and the embedded engine's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// One directory, or Kafka and a CQL store.
    pub mode: StorageMode,
    /// The only state there is in embedded mode.
    pub data_dir: PathBuf,
    /// How long events and what became of them are kept.
    pub retention: HumanDuration,
    /// For how long a dead letter can be redriven, at least.
    pub dead_letter_retention: HumanDuration,
    /// Most bytes of the directory.
    pub max_bytes: ByteSize,
    /// Below this much free space on the disk, events are refused.
    pub free_bytes_min: ByteSize,
    /// How long a commit waits for company before it is written: fewer, larger writes.
    pub group_delay: HumanDuration,
    /// Bytes of one file of the log.
    pub segment_bytes: ByteSize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 7401)),
            drain_deadline: HumanDuration::from_secs(45),
            backend_wait: HumanDuration::from_secs(30),
            insecure_no_auth: false,
            log_format: LogFormat::Text,
        }
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            mode: StorageMode::Embedded,
            data_dir: PathBuf::from("./fanfare-data"),
            retention: HumanDuration::from_secs(14 * 24 * 3600),
            dead_letter_retention: HumanDuration::from_secs(7 * 24 * 3600),
            max_bytes: ByteSize::gib(16),
            free_bytes_min: ByteSize::mib(16),
            group_delay: HumanDuration::from_secs(0),
            segment_bytes: ByteSize::mib(8),
        }
    }
}

impl StorageConfig {
    /// As the engine takes it.
    pub fn engine(&self) -> EmbeddedConfig {
        EmbeddedConfig {
            dir: self.data_dir.clone(),
            retention: self.retention.0,
            max_bytes: self.max_bytes.0,
            free_bytes_min: self.free_bytes_min.0,
            group_delay: self.group_delay.0,
            segment_bytes: self.segment_bytes.0,
            ..EmbeddedConfig::default()
        }
    }
}

impl Config {
    /// Loads the file and the environment over the defaults; unchecked, since flags may follow.
    ///
    /// # Errors
    /// When something cannot be read, or its name or value is wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigurationError> {
        configuration::load(file, configuration::environment(), &LISTS)
    }

    /// Checks what no single value can, for a process that plays `role`: each sentence names the
    /// settings and what to do.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, role: Role) -> Result<(), ConfigurationError> {
        check::check(self, role).map_err(ConfigurationError::new)
    }

    /// The configuration in force as TOML, secrets redacted.
    pub fn redacted(&self) -> String {
        let mut shown = self.clone();
        for key in &mut shown.keys {
            "(redacted)".clone_into(&mut key.sha256);
        }
        toml::to_string(&shown).unwrap_or_else(|e| format!("# cannot be printed: {e}\n"))
    }
}
