//! What the front door counts. Labels never contain a tenant, an id or a type of event.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};

use super::ingest::Outcome;

/// Counters of the front door. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Instruments {
    /// Events by what became of them.
    events: Counter<u64>,
    accepted: [KeyValue; 1],
    duplicate: [KeyValue; 1],
    /// From handing records to the log until they are durable.
    append_latency: Histogram<f64>,
    /// Open connections.
    connections: UpDownCounter<i64>,
    /// Connections and calls that were turned away, by why.
    shed: Counter<u64>,
}

impl Instruments {
    /// Instruments of `meter`.
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            events: meter.u64_counter("fanfare_ingest_events").build(),
            accepted: [KeyValue::new("outcome", "accepted")],
            duplicate: [KeyValue::new("outcome", "duplicate")],
            append_latency: meter
                .f64_histogram("fanfare_ingest_append_latency_seconds")
                .with_boundaries(vec![
                    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0,
                ])
                .build(),
            connections: meter
                .i64_up_down_counter("fanfare_front_connections")
                .build(),
            shed: meter.u64_counter("fanfare_front_shed").build(),
        }
    }

    /// Events got their outcomes.
    pub(crate) fn published(&self, outcomes: &[Outcome]) {
        let (mut accepted, mut duplicates) = (0, 0);
        for outcome in outcomes {
            match outcome {
                Ok(one) if one.duplicate => duplicates += 1,
                Ok(_) => accepted += 1,
                Err(refusal) => self.refused(refusal.reason(), 1),
            }
        }
        if accepted > 0 {
            self.events.add(accepted, &self.accepted);
        }
        if duplicates > 0 {
            self.events.add(duplicates, &self.duplicate);
        }
    }

    /// `count` events were refused for `reason`.
    pub(crate) fn refused(&self, reason: &'static str, count: usize) {
        let labels = [
            KeyValue::new("outcome", "refused"),
            KeyValue::new("reason", reason),
        ];
        self.events.add(count as u64, &labels);
    }

    /// An append to the log resolved.
    pub(crate) fn appended(&self, after: Duration) {
        self.append_latency.record(after.as_secs_f64(), &[]);
    }

    /// A connection was opened (1) or closed (-1).
    pub(crate) fn connected(&self, change: i64) {
        self.connections.add(change, &[]);
    }

    /// Something was turned away.
    pub(crate) fn shed(&self, what: &'static str) {
        self.shed.add(1, &[KeyValue::new("what", what)]);
    }
}
