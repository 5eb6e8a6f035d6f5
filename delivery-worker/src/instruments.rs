//! What the worker counts. Labels never contain an endpoint, a URL, an id or a tenant.

use std::sync::{Arc, Weak};

use fanfare_domain::{Blame, DeadLetterReason, Outcome, OutcomeKind};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};

use crate::crew::Crew;
use crate::desk::{Done, Fate};
use crate::letter::Origin;
use crate::plan::Plan;
use crate::worker::Desks;

/// The worker's instruments.
pub(crate) struct Instruments {
    attempts: Counter<u64>,
    attempt_latency: Histogram<f64>,
    first_attempt_latency: Histogram<f64>,
    parked: Counter<u64>,
    dead_letters: Counter<u64>,
    records_damaged: Counter<u64>,
    spans_held: UpDownCounter<i64>,
    pub(crate) history_dropped: Counter<u64>,
}

impl Instruments {
    pub(crate) fn new(meter: &Meter) -> Self {
        let seconds = |name| {
            meter
                .f64_histogram(name)
                .with_boundaries(vec![
                    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0,
                    300.0,
                ])
                .build()
        };
        let counter = |name| meter.u64_counter(name).build();
        let instruments = Self {
            attempts: counter("fanfare_delivery_attempts"),
            attempt_latency: seconds("fanfare_delivery_attempt_latency_seconds"),
            first_attempt_latency: seconds("fanfare_delivery_first_attempt_latency_seconds"),
            parked: counter("fanfare_delivery_parked"),
            dead_letters: counter("fanfare_delivery_dead_letters"),
            records_damaged: counter("fanfare_delivery_damaged_records"),
            spans_held: meter
                .i64_up_down_counter("fanfare_delivery_spans_held")
                .build(),
            history_dropped: counter("fanfare_delivery_history_dropped"),
        };
        instruments.show();
        instruments
    }

    /// What seldom happens is shown as 0 from the start: an alert needs something to watch.
    fn show(&self) {
        for counter in [&self.parked, &self.records_damaged, &self.history_dropped] {
            counter.add(0, &[]);
        }
        self.spans_held.add(0, &[]);
        for kind in OutcomeKind::all() {
            self.attempts.add(0, &labels(&Outcome::failed(kind, "")));
        }
        for reason in DeadLetterReason::all() {
            self.dead_letters.add(0, &[of_reason(reason)]);
        }
    }

    /// Gauges of what is in memory, for as long as the crew is there.
    pub(crate) fn observe(
        meter: &Meter,
        in_flight_max: usize,
        crew: &Arc<Crew>,
        desks: &Arc<Desks>,
    ) {
        meter
            .u64_observable_gauge("fanfare_delivery_in_flight_limit")
            .with_callback(move |observer| observer.observe(in_flight_max as u64, &[]))
            .build();
        let gauge = |name: &'static str, read: fn(&Crew) -> usize| {
            let crew: Weak<Crew> = Arc::downgrade(crew);
            meter
                .u64_observable_gauge(name)
                .with_callback(move |observer| {
                    if let Some(crew) = crew.upgrade() {
                        observer.observe(read(&crew) as u64, &[]);
                    }
                })
                .build();
        };
        gauge("fanfare_delivery_in_flight", |crew| {
            crew.with_lanes(|lanes| lanes.in_flight())
        });
        gauge("fanfare_delivery_queued", |crew| {
            crew.with_lanes(|lanes| lanes.totals().queued)
        });
        let desks = Arc::downgrade(desks);
        meter
            .f64_observable_gauge("fanfare_delivery_oldest_unsettled_seconds")
            .with_callback(move |observer| {
                if let Some(desks) = desks.upgrade() {
                    observer.observe(desks.oldest_unsettled().as_secs_f64(), &[]);
                }
            })
            .build();
    }

    /// A batch was handed in.
    pub(crate) fn handed_in(&self, done: &[Done]) {
        let mut delivered = 0;
        for done in done {
            let Fate::Attempted(tried) = &done.fate else {
                continue;
            };
            let attempt = &tried.attempt;
            self.attempt_latency
                .record(attempt.latency.as_secs_f64(), &[]);
            if let Origin::Fresh(_) = done.delivery.origin {
                let waited = attempt.start.since(done.delivery.letter.event.accept_time);
                self.first_attempt_latency.record(waited.as_secs_f64(), &[]);
            }
            if attempt.outcome.is_delivered() {
                delivered += 1;
            } else {
                self.attempts.add(1, &labels(&attempt.outcome));
            }
        }
        if delivered > 0 {
            self.attempts
                .add(delivered, &labels(&Outcome::delivered(200)));
        }
    }

    /// A plan was written.
    pub(crate) fn wrote(&self, plan: &Plan) {
        self.parked.add(plan.parked.len() as u64, &[]);
        for letter in &plan.dead_letters {
            self.dead_letters.add(1, &[of_reason(letter.reason)]);
        }
    }

    pub(crate) fn damaged(&self) {
        self.records_damaged.add(1, &[]);
    }

    pub(crate) fn held(&self, change: i64) {
        self.spans_held.add(change, &[]);
    }
}

fn of_reason(reason: DeadLetterReason) -> KeyValue {
    KeyValue::new("reason", reason.as_str())
}

fn labels(outcome: &Outcome) -> [KeyValue; 2] {
    [
        KeyValue::new("outcome", outcome.kind.as_str()),
        KeyValue::new("blame", outcome.blame().map_or("none", Blame::as_str)),
    ]
}
