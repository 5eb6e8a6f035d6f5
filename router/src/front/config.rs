//! Limits of the front door. Every one has a default; the program composes them into its
//! configuration file.

use fanfare_domain::{EventLimits, Invalid, Reason};
use fanfare_service::{ByteSize, HumanDuration};
use serde::{Deserialize, Serialize};

/// No event is larger, whatever is configured.
pub const EVENT_HARD_MAX: ByteSize = ByteSize::mib(1);

/// Limits of the front door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FrontConfig {
    /// Largest event: data and extensions together.
    pub event_max: ByteSize,
    /// Most events of a batch, and most events of a stream without a result.
    pub batch_max_events: usize,
    /// Most bytes of a batch, and most bytes of a stream without a result.
    pub batch_max: ByteSize,
    /// Most open connections; further ones are closed at once.
    pub connections_max: usize,
    /// Most concurrent calls of one connection.
    pub calls_per_connection_max: u32,
    /// Most concurrent calls of all connections; further ones are refused as overloaded.
    pub calls_max: usize,
    /// Most open streams of all connections (publishing and following).
    pub streams_max: usize,
    /// Most bytes of events on their way into the log; further ones are refused as overloaded.
    pub publishing_max: ByteSize,
    /// A connection must have sent the head of a request this long after the one before.
    pub header_timeout: HumanDuration,
    /// A call is answered after this at the latest, whatever deadline it names.
    pub call_timeout: HumanDuration,
    /// How often a silent connection is asked whether it is still there.
    pub keepalive_interval: HumanDuration,
    /// How long it may take to answer that.
    pub keepalive_timeout: HumanDuration,
    /// How many event identities are remembered to recognise repeats before the store does.
    pub recent_events: usize,
}

impl Default for FrontConfig {
    fn default() -> Self {
        Self {
            event_max: ByteSize::kib(256),
            batch_max_events: 1_000,
            batch_max: ByteSize::mib(4),
            connections_max: 10_000,
            calls_per_connection_max: 1_024,
            calls_max: 8_192,
            streams_max: 1_024,
            publishing_max: ByteSize::mib(64),
            header_timeout: HumanDuration::from_secs(15),
            call_timeout: HumanDuration::from_secs(30),
            keepalive_interval: HumanDuration::from_secs(30),
            keepalive_timeout: HumanDuration::from_secs(20),
            recent_events: 65_536,
        }
    }
}

impl FrontConfig {
    /// Checks ranges and how the limits fit together; the error names the setting.
    pub fn check(&self) -> Result<(), Invalid> {
        let refuse = |field: &str, rule: String| {
            let field = format!("front.{field}");
            Err(Invalid::new(Reason::EventFieldInvalid, field, rule))
        };
        if self.event_max > EVENT_HARD_MAX {
            return refuse("event_max", format!("must be at most {EVENT_HARD_MAX}"));
        }
        if self.batch_max < self.event_max || self.batch_max > ByteSize::mib(64) {
            return refuse("batch_max", "must be from event_max to 64MiB".into());
        }
        if self.publishing_max < self.batch_max {
            return refuse("publishing_max", "must be at least batch_max".into());
        }
        let counts = [
            ("batch_max_events", self.batch_max_events),
            ("connections_max", self.connections_max),
            (
                "calls_per_connection_max",
                self.calls_per_connection_max as usize,
            ),
            ("calls_max", self.calls_max),
            ("streams_max", self.streams_max),
            ("recent_events", self.recent_events),
        ];
        if let Some((field, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return refuse(field, "must be at least 1".into());
        }
        let waits = [
            ("header_timeout", self.header_timeout),
            ("call_timeout", self.call_timeout),
            ("keepalive_interval", self.keepalive_interval),
            ("keepalive_timeout", self.keepalive_timeout),
        ];
        if let Some((field, _)) = waits.iter().find(|(_, wait)| wait.0.is_zero()) {
            return refuse(field, "must be longer than nothing".into());
        }
        Ok(())
    }

    /// What the domain checks of an event.
    pub(crate) fn event_limits(&self) -> EventLimits {
        EventLimits {
            event_max_bytes: self.event_max.as_usize(),
            ..EventLimits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_do_not_fit_together_are_refused_by_name() {
        assert_eq!(FrontConfig::default().check(), Ok(()));
        let refused = |change: fn(&mut FrontConfig)| {
            let mut config = FrontConfig::default();
            change(&mut config);
            config.check().unwrap_err().field
        };
        assert_eq!(
            refused(|c| c.event_max = ByteSize::mib(2)),
            "front.event_max"
        );
        assert_eq!(
            refused(|c| c.batch_max = ByteSize::kib(1)),
            "front.batch_max"
        );
        assert_eq!(
            refused(|c| c.publishing_max = ByteSize::kib(1)),
            "front.publishing_max"
        );
        assert_eq!(refused(|c| c.streams_max = 0), "front.streams_max");
        assert_eq!(
            refused(|c| c.call_timeout = HumanDuration::default()),
            "front.call_timeout"
        );
    }
}
