//! Bounds of delivering, as the operator sets them.

use std::path::PathBuf;
use std::time::Duration;

use fanfare_domain::RetrySchedule;
use fanfare_domain::catalog::TIMEOUT_RANGE;
use fanfare_service::{ByteSize, HumanDuration};
use serde::{Deserialize, Serialize};

/// How a worker sends. Every bound is checked by [`WorkerConfig::check`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// Most attempts in flight or not yet committed, over all endpoints: what a crash may repeat.
    pub in_flight: usize,
    /// Most attempts in flight to one endpoint.
    pub endpoint_in_flight: usize,
    /// Most deliveries that wait in memory, over all endpoints; more park durably.
    pub queue_max: usize,
    /// Most bytes of data of the deliveries that wait in memory.
    pub queue_max_bytes: ByteSize,
    /// Most connections that are kept open while they have nothing to send.
    pub idle_connections: usize,
    /// How long a connection is kept open without a request.
    pub connection_idle: HumanDuration,
    /// How long a connection is used before its address is vetted again.
    pub connection_lifetime: HumanDuration,
    /// Most time for resolving, connecting and the TLS handshake together.
    pub connect_timeout: HumanDuration,
    /// How often progress is committed, at most.
    pub commit_interval: HumanDuration,
    /// A worker of a cluster whose oldest delivery is the same for this long is not ready.
    pub stall_max: HumanDuration,
    /// Delays between the tries after the first, for endpoints without a schedule of their own.
    pub retry_schedule: Vec<HumanDuration>,
    /// Most attempts kept in memory while the history cannot be written; more are dropped,
    /// counted, and missing in the history only.
    pub history_backlog: usize,
    /// PEM file of certificate authorities trusted beside the system's.
    pub extra_ca: Option<PathBuf>,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        let schedule = RetrySchedule::default();
        Self {
            in_flight: 500,
            endpoint_in_flight: 10,
            queue_max: 10_000,
            queue_max_bytes: ByteSize::mib(64),
            idle_connections: 512,
            connection_idle: HumanDuration::from_secs(30),
            connection_lifetime: HumanDuration::from_secs(60),
            connect_timeout: HumanDuration::from_secs(5),
            commit_interval: HumanDuration::from_millis(3),
            stall_max: HumanDuration::from_secs(120),
            retry_schedule: schedule
                .steps()
                .iter()
                .copied()
                .map(HumanDuration)
                .collect(),
            history_backlog: 50_000,
            extra_ca: None,
        }
    }
}

impl WorkerConfig {
    /// Checks what the types do not: the error names the field.
    pub fn check(&self) -> Result<(), String> {
        let at_least_one = [
            ("in_flight", self.in_flight),
            ("endpoint_in_flight", self.endpoint_in_flight),
            ("queue_max", self.queue_max),
            ("history_backlog", self.history_backlog),
        ];
        for (field, value) in at_least_one {
            if value == 0 {
                return Err(format!("worker.{field} must be at least 1"));
            }
        }
        if self.queue_max_bytes < ByteSize::mib(1) {
            return Err("worker.queue_max_bytes must be at least 1MiB".into());
        }
        let connect = Duration::from_millis(100)..=TIMEOUT_RANGE.1;
        if !connect.contains(&self.connect_timeout.0) {
            return Err("worker.connect_timeout must be 100ms to 30s".into());
        }
        if self.commit_interval.0 > Duration::from_secs(1) {
            return Err("worker.commit_interval must be at most 1s".into());
        }
        // The age is known to a few seconds.
        if self.stall_max.0 < Duration::from_secs(10) {
            return Err("worker.stall_max must be at least 10s".into());
        }
        self.schedule().map(|_| ())
    }

    /// The default retry schedule.
    pub fn schedule(&self) -> Result<RetrySchedule, String> {
        let steps = self.retry_schedule.iter().map(|step| step.0).collect();
        RetrySchedule::try_new(steps).map_err(|invalid| format!("worker.{invalid}"))
    }

    /// How long a drain may take: the longest attempt allowed, and its commit.
    pub fn drain_deadline() -> Duration {
        TIMEOUT_RANGE.1 + Duration::from_secs(15)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_every_bad_bound_names_its_field() {
        type Spoil = fn(&mut WorkerConfig);
        assert_eq!(WorkerConfig::default().check(), Ok(()));
        let cases: [(&str, Spoil); 6] = [
            ("in_flight", |c| c.in_flight = 0),
            ("queue_max_bytes", |c| c.queue_max_bytes = ByteSize::kib(1)),
            ("connect_timeout", |c| {
                c.connect_timeout = HumanDuration::from_secs(31);
            }),
            ("commit_interval", |c| {
                c.commit_interval = HumanDuration::from_secs(2);
            }),
            ("stall_max", |c| {
                c.stall_max = HumanDuration::from_secs(9);
            }),
            ("retry_schedule", |c| {
                c.retry_schedule = vec![HumanDuration::from_millis(1)];
            }),
        ];
        for (field, spoil) in cases {
            let mut config = WorkerConfig::default();
            spoil(&mut config);
            let error = config.check().unwrap_err();
            assert!(error.contains(field), "{error}");
        }
    }
}
