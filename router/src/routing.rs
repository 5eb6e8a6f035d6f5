//! Routing: from accepted events to deliveries owed.
//!
//! ```text
//!   read a batch ─▶ decode ─▶ catalog fresh? ─▶ match ─▶ claim ─▶ plan ─▶ append ─▶ settle ─▶ commit
//!                                                          │                 │
//!                                               one batch ahead of     one append of a span
//!                                               the append             outstanding, in order
//! ```
//!
//! [`Routing`] joins the group `router` on the events stream and routes each span that it is
//! granted until the lease is wanted back. What is decided is pure ([`plan`], the matcher); what is
//! here fetches, calls, appends and settles.
//!
//! Invariants:
//! - An event is settled only after every delivery it makes is durable, and never otherwise.
//! - An event that was claimed before a crash is routed to whom it matched then.
//! - Deliveries of one span of the deliveries stream are appended in the order of their events.
//! - What is open is bounded in deliveries and in bytes, not in events.
//! - Nothing is routed by a catalog that was not confirmed within the freshness bound.
//!
//! When the log or a store is away it waits with growing delays, lags, and loses nothing. A record
//! of a newer version holds its span and alarms. A damaged one is reported with its bytes and
//! settled. A lost lease drops everything at once: the next owner repeats what was not committed.

mod plan;
mod room;
mod span;

use std::sync::Arc;
use std::time::Duration;

use fanfare_event_log::{EventLog, Group, LogErrorKind, Reader, Stream, Visibility};
use fanfare_service::{Backoff, ByteSize, Clock, HumanDuration};
use fanfare_store::{Follower, Stores};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use plan::plan;

use crate::instruments::Instruments;
use crate::matching::Matcher;
use room::Room;

/// The consumers of the events stream that route.
pub const GROUP: &str = "router";

/// Bounds of routing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoutingConfig {
    /// Oldest confirmation of the catalog that is still believed; a router with an older one
    /// waits. A configuration change made with `wait` takes this long in a cluster.
    pub freshness: HumanDuration,
    /// Most deliveries that are planned and not committed. A single event may owe more.
    pub open_deliveries_max: u32,
    /// Most bytes of delivery records that wait to be durable.
    pub open_bytes_max: ByteSize,
    /// How often progress is committed, at most.
    pub commit_interval: HumanDuration,
}

/// The routing loop; see the module.
pub struct Routing(Arc<Context>);

/// What every span's loop works with.
struct Context {
    log: Arc<dyn EventLog>,
    stores: Stores,
    follower: Arc<Follower>,
    matcher: Matcher,
    config: RoutingConfig,
    instruments: Instruments,
    clock: Clock,
    room: Room,
    /// The only span of the deliveries stream, when there is only one: then no target is hashed.
    only_span: Option<u16>,
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            freshness: HumanDuration::from_secs(1),
            open_deliveries_max: 50_000,
            open_bytes_max: ByteSize::mib(64),
            commit_interval: HumanDuration::from_millis(5),
        }
    }
}

impl RoutingConfig {
    /// Checks what the types do not: the error names the field.
    pub fn check(&self) -> Result<(), String> {
        let freshness = Duration::from_millis(100)..=Duration::from_mins(1);
        if !freshness.contains(&self.freshness.0) {
            return Err("routing.freshness must be 100ms to 1m".into());
        }
        if self.open_deliveries_max == 0 {
            return Err("routing.open_deliveries_max must be at least 1".into());
        }
        if self.open_bytes_max < ByteSize::mib(1) {
            return Err("routing.open_bytes_max must be at least 1MiB".into());
        }
        if self.commit_interval.0 > Duration::from_secs(1) {
            return Err("routing.commit_interval must be at most 1s".into());
        }
        Ok(())
    }
}

impl Routing {
    /// Everything it works with. `matcher` must be fed by `follower`.
    pub fn new(
        log: Arc<dyn EventLog>,
        stores: Stores,
        follower: Arc<Follower>,
        matcher: Matcher,
        config: RoutingConfig,
        instruments: Instruments,
        clock: Clock,
    ) -> Self {
        let spans = log.spans(Stream::Deliveries);
        let only_span = match &*spans {
            [only] => Some(only.index),
            _ => None,
        };
        let room = Room::new(config.open_deliveries_max, config.open_bytes_max);
        Self(Arc::new(Context {
            log,
            stores,
            follower,
            matcher,
            config,
            instruments,
            clock,
            room,
            only_span,
        }))
    }

    /// Routes until `drain` is cancelled, then lets go of every span with nothing left to repeat,
    /// or until the log is closed. The caller bounds the drain: while the log is away it waits.
    pub async fn run(self, drain: CancellationToken) {
        let Some(mut reader) = self.join(&drain).await else {
            return;
        };
        let mut spans = JoinSet::new();
        self.follow_leases(&mut *reader, &mut spans, &drain).await;
        reader.leave().await;
        while let Some(ended) = spans.join_next().await {
            report(ended);
        }
    }

    async fn join(&self, drain: &CancellationToken) -> Option<Box<dyn Reader>> {
        let group = Group::new(GROUP);
        let mut backoff = Backoff::new("join the router group");
        loop {
            let joining = self.0.log.join(Stream::Events, &group, Visibility::Ordered);
            match drain.run_until_cancelled(joining).await? {
                Ok(reader) => return Some(reader),
                Err(error) if error.kind() == LogErrorKind::Closed => return None,
                Err(error) => drain.run_until_cancelled(backoff.wait(&error)).await?,
            }
        }
    }

    /// Routes every span that is granted, until the drain begins or the log is closed.
    async fn follow_leases(
        &self,
        reader: &mut dyn Reader,
        spans: &mut JoinSet<()>,
        drain: &CancellationToken,
    ) {
        let mut backoff = Backoff::new("take part in the router group");
        loop {
            let granted = tokio::select! {
                () = drain.cancelled() => return,
                Some(ended) = spans.join_next() => {
                    report(ended);
                    continue;
                }
                granted = reader.next() => granted,
            };
            match granted {
                Ok(granted) => {
                    backoff.reset();
                    spans.spawn(span::route(self.0.clone(), granted));
                }
                Err(error) if error.kind() == LogErrorKind::Closed => return,
                Err(error) => backoff.wait(&error).await,
            }
        }
    }
}

/// A span's task ends when its lease does; a panic is a bug that its next owner will meet again.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a routing task panicked; its span is routed again from its last commit");
    }
}

#[cfg(test)]
mod tests;
