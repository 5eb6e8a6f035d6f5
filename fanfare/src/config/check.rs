//! Rules across settings.

use std::time::Duration;

use fanfare_domain::catalog::TIMEOUT_RANGE;
use fanfare_domain::retry::RETRYING_MAX;
use fanfare_router::front::access::KeyRing;
use fanfare_service::HumanDuration;

use super::{Config, Role, StorageMode};

/// Room for committing after the last attempt of a drain.
const DRAIN_MARGIN: Duration = Duration::from_secs(15);

/// The first broken rule.
pub(super) fn check(config: &Config, role: Role) -> Result<(), String> {
    if role != Role::Worker {
        keys(config)?;
    }
    match config.storage.mode {
        StorageMode::Embedded => {
            retention(config)?;
            sizes(config)?;
        }
        StorageMode::Distributed => distributed(config)?,
    }
    drain(config)?;
    config.front.check().map_err(|e| e.to_string())?;
    config.management.check()?;
    config.routing.check()?;
    config.worker.check()?;
    config
        .egress
        .build()
        .map(drop)
        .map_err(|e| format!("egress.{e}"))
}

fn keys(config: &Config) -> Result<(), String> {
    KeyRing::try_new(&config.keys).map_err(|e| e.to_string())?;
    let server = &config.server;
    let open = config.keys.is_empty() && !server.insecure_no_auth;
    if open && !server.listen.ip().is_loopback() {
        return Err(format!(
            "server.listen is {}, off loopback, and there are no keys: add [[keys]] (fanfare key new makes one), or say --insecure-no-auth",
            server.listen
        ));
    }
    Ok(())
}

/// An event must outlive every retry of it, and its dead letter after that.
fn retention(config: &Config) -> Result<(), String> {
    let storage = &config.storage;
    let least = RETRYING_MAX + storage.dead_letter_retention.0;
    if storage.retention.0 < least {
        return Err(format!(
            "storage.retention is {}, but retrying lasts up to {} and storage.dead_letter_retention is {}: set it to at least {}",
            storage.retention,
            HumanDuration(RETRYING_MAX),
            storage.dead_letter_retention,
            HumanDuration(least)
        ));
    }
    Ok(())
}

/// What Kafka and the store must agree on, with each other and with the rest.
fn distributed(config: &Config) -> Result<(), String> {
    let (kafka, cql) = (&config.kafka, &config.cql);
    // Tokens come from whoever embeds the log: the programs have no source of them.
    let tokens = None;
    let checked = kafka.check().and(kafka.security.check_source(tokens));
    checked.map_err(|e| format!("kafka: {e}"))?;
    cql.check().map_err(|e| format!("cql.{e}"))?;
    let days = |days: u32| Duration::from_hours(24 * u64::from(days));
    let least = RETRYING_MAX + days(cql.dead_letter_retention_days);
    if days(cql.event_retention_days) < least {
        return Err(format!(
            "cql.event_retention_days is {}, but retrying lasts up to {} and cql.dead_letter_retention_days is {}: set it to at least {}",
            cql.event_retention_days,
            HumanDuration(RETRYING_MAX),
            cql.dead_letter_retention_days,
            least.as_secs().div_ceil(24 * 3600)
        ));
    }
    let propagation = Duration::from_millis(cql.propagation_ms);
    if config.routing.freshness.0 > propagation {
        return Err(format!(
            "routing.freshness is {}, but a change of the configuration waits only cql.propagation_ms, {}: set it to at most that, in every router",
            config.routing.freshness,
            HumanDuration(propagation)
        ));
    }
    let longest = TIMEOUT_RANGE.1 + DRAIN_MARGIN;
    if Duration::from_millis(kafka.drain_timeout_ms) < longest {
        return Err(format!(
            "kafka.drain_timeout_ms is {}, but an attempt may take {}: set it to at least {}",
            kafka.drain_timeout_ms,
            HumanDuration(TIMEOUT_RANGE.1),
            longest.as_millis()
        ));
    }
    Ok(())
}

fn drain(config: &Config) -> Result<(), String> {
    let least = TIMEOUT_RANGE.1 + DRAIN_MARGIN;
    if config.server.drain_deadline.0 < least {
        return Err(format!(
            "server.drain_deadline is {}, but an attempt may take {}: set it to at least {}",
            config.server.drain_deadline,
            HumanDuration(TIMEOUT_RANGE.1),
            HumanDuration(least)
        ));
    }
    Ok(())
}

fn sizes(config: &Config) -> Result<(), String> {
    let storage = &config.storage;
    if storage.max_bytes.0 < storage.segment_bytes.0.saturating_mul(4) {
        return Err(format!(
            "storage.max_bytes is {}, but the log needs room for four segments of {} (storage.segment_bytes)",
            storage.max_bytes, storage.segment_bytes
        ));
    }
    if storage.group_delay.0 > Duration::from_millis(100) {
        return Err(format!(
            "storage.group_delay is {}: every publish waits for it, so at most 100ms is allowed",
            storage.group_delay
        ));
    }
    Ok(())
}
