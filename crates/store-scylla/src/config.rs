//! How the store is reached: pure data. Rules across fields are checked by [`CqlConfig::check`].

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the store is and how it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CqlConfig {
    /// `host:port` of some nodes; the others are found through them. Default `127.0.0.1:9042`.
    pub contact_points: Vec<String>,
    /// Default `fanfare`. Lower-case letters, digits and `_`.
    pub keyspace: String,
    /// Copies of every row in the local datacenter, for the keyspace that migrating makes.
    /// Default 3.
    pub replication: u8,
    /// The datacenter to talk to, by name; none: any, and the keyspace is made with
    /// `SimpleStrategy`.
    pub datacenter: Option<String>,
    /// User name, if the store asks for one.
    pub user: Option<String>,
    /// Password of `user`.
    pub password: Option<Password>,
    /// A file with the password of `user`, instead of `password`.
    pub password_file: Option<PathBuf>,
    /// PEM file with the authorities that signed the nodes' certificates; turns TLS on.
    pub tls_ca_file: Option<PathBuf>,
    /// How long one request may take, in milliseconds. Default 5,000.
    pub request_timeout_ms: u64,
    /// After how long a repeatable request is asked of another node too, in milliseconds.
    /// Default 150.
    pub speculative_delay_ms: u64,
    /// Most requests in flight. Default 256.
    pub requests_max: usize,
    /// How long events, their attempts and settled retry states are kept, in days. Default 14.
    pub event_retention_days: u32,
    /// How long dead letters are kept, in days. Default 7; not longer than events.
    pub dead_letter_retention_days: u32,
    /// How long attempts are kept, in days. Default 14; not longer than events.
    pub history_retention_days: u32,
    /// How old a follower's configuration may be when it routes, in milliseconds: what
    /// a change waits for. Default 1,000.
    pub propagation_ms: u64,
    /// Changes of configuration that each bucket keeps for followers. Default 10,000.
    pub changes_kept: u64,
}

/// A password; neither `Debug` nor what is serialized shows it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Default for CqlConfig {
    fn default() -> Self {
        Self {
            contact_points: vec!["127.0.0.1:9042".into()],
            keyspace: "fanfare".into(),
            replication: 3,
            datacenter: None,
            user: None,
            password: None,
            password_file: None,
            tls_ca_file: None,
            request_timeout_ms: 5_000,
            speculative_delay_ms: 150,
            requests_max: 256,
            event_retention_days: 14,
            dead_letter_retention_days: 7,
            history_retention_days: 14,
            propagation_ms: 1_000,
            changes_kept: fanfare_store::config::CHANGES_KEPT,
        }
    }
}

impl CqlConfig {
    /// What is wrong with it, naming the field and what to do.
    pub fn check(&self) -> Result<(), String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let name = self.keyspace.as_bytes();
        let named = (1..=48).contains(&name.len()) && name[0].is_ascii_lowercase();
        if !named || !name.iter().all(|b| plain(*b)) {
            return Err("keyspace: use 1 to 48 of a-z, 0-9 and _, a letter first".into());
        }
        if let Some(datacenter) = &self.datacenter
            && datacenter
                .bytes()
                .any(|b| b == b'\'' || b.is_ascii_control())
        {
            return Err("datacenter: use its name as the store shows it".into());
        }
        let kept = self.event_retention_days;
        let rules = [
            (
                self.contact_points.is_empty(),
                "contact_points: name at least one host:port",
            ),
            (self.replication == 0, "replication: use 1 or more"),
            (
                self.request_timeout_ms == 0,
                "request_timeout_ms: use 1 or more",
            ),
            (self.requests_max == 0, "requests_max: use 1 or more"),
            (self.changes_kept == 0, "changes_kept: use 1 or more"),
            (
                kept == 0 || kept > 3650,
                "event_retention_days: use 1 to 3650",
            ),
            (
                self.dead_letter_retention_days > kept || self.history_retention_days > kept,
                "dead_letter_retention_days and history_retention_days: use at most event_retention_days",
            ),
            (
                self.password.is_some() && self.password_file.is_some(),
                "password and password_file: give one of them",
            ),
        ];
        let broken = rules.into_iter().find(|(broken, _)| *broken);
        broken.map_or(Ok(()), |(_, rule)| Err(rule.into()))
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }
}

impl Password {
    /// From its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl Serialize for Password {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(redacted)")
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
