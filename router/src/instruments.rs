//! What the router counts. Labels never contain an endpoint, a URL, an id or a tenant.

use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};

/// Counters of routing. Cloning is cheap.
#[derive(Clone)]
pub struct Instruments {
    /// Events that were matched, whoever wanted them.
    events: Counter<u64>,
    /// Deliveries that they made.
    deliveries: Counter<u64>,
    /// From accepted to owed durably.
    pub(crate) route_latency: Histogram<f64>,
    /// Records dropped because an earlier one has their identity and body.
    pub(crate) repeats: Counter<u64>,
    /// Records dropped because an earlier one has their identity and another body.
    pub(crate) conflicts: Counter<u64>,
    /// Records whose bytes were not what was written.
    pub(crate) damaged: Counter<u64>,
    /// Waits for a configuration that was not confirmed recently.
    pub(crate) stale_waits: Counter<u64>,
    /// Spans that do not move until an operator does something.
    pub(crate) spans_held: UpDownCounter<i64>,
}

impl Instruments {
    /// Instruments of `meter`.
    pub fn new(meter: &Meter) -> Self {
        let instruments = Self {
            events: meter.u64_counter("fanfare_router_events").build(),
            deliveries: meter.u64_counter("fanfare_router_deliveries").build(),
            route_latency: meter
                .f64_histogram("fanfare_router_route_latency_seconds")
                .with_boundaries(vec![
                    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0,
                ])
                .build(),
            repeats: meter.u64_counter("fanfare_router_repeats").build(),
            conflicts: meter.u64_counter("fanfare_router_conflicts").build(),
            damaged: meter.u64_counter("fanfare_router_damaged_records").build(),
            stale_waits: meter.u64_counter("fanfare_router_stale_waits").build(),
            spans_held: meter
                .i64_up_down_counter("fanfare_router_spans_held")
                .build(),
        };
        instruments.show();
        instruments
    }

    /// What seldom happens is shown as 0 from the start: an alert needs something to watch.
    fn show(&self) {
        self.routed(0, 0);
        for counter in [
            &self.repeats,
            &self.conflicts,
            &self.damaged,
            &self.stale_waits,
        ] {
            counter.add(0, &[]);
        }
        self.spans_held.add(0, &[]);
    }

    /// So many events were routed to `deliveries` subscriptions.
    pub(crate) fn routed(&self, events: u64, deliveries: usize) {
        self.events.add(events, &[]);
        self.deliveries.add(deliveries as u64, &[]);
    }
}
