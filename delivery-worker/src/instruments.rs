//! What the worker counts. No label names an endpoint, a tenant or an id.

use fanfare_domain::Outcome;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};

/// The worker's instruments.
pub(crate) struct Instruments {
    attempts: Counter<u64>,
    first_attempt: Histogram<f64>,
    pub(crate) in_flight: UpDownCounter<i64>,
    pub(crate) parked: Counter<u64>,
    pub(crate) dead_letters: Counter<u64>,
    pub(crate) history_dropped: Counter<u64>,
    pub(crate) damaged: Counter<u64>,
}

impl Instruments {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            attempts: meter
                .u64_counter("fanfare_delivery_attempts")
                .with_description("Attempts by outcome and blame")
                .build(),
            first_attempt: meter
                .f64_histogram("fanfare_delivery_first_attempt_latency_seconds")
                .with_description("From accepting an event to the end of its first attempt")
                .build(),
            in_flight: meter
                .i64_up_down_counter("fanfare_delivery_in_flight")
                .with_description("Attempts under way")
                .build(),
            parked: meter.u64_counter("fanfare_delivery_parked").build(),
            dead_letters: meter.u64_counter("fanfare_delivery_dead_letters").build(),
            history_dropped: meter
                .u64_counter("fanfare_delivery_history_dropped")
                .with_description("Attempts missing in the history because it was away")
                .build(),
            damaged: meter
                .u64_counter("fanfare_delivery_records_damaged")
                .build(),
        }
    }

    /// An attempt came to `outcome`; `latency` is given for a first one, since acceptance.
    pub(crate) fn attempted(&self, outcome: &Outcome, latency: Option<f64>) {
        let blame = outcome
            .blame()
            .map_or("none", fanfare_domain::Blame::as_str);
        let labels = [
            KeyValue::new("outcome", outcome.kind.as_str()),
            KeyValue::new("blame", blame),
        ];
        self.attempts.add(1, &labels);
        if let Some(latency) = latency {
            self.first_attempt.record(latency, &[]);
        }
    }
}
