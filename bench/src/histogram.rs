//! Durations by count, within 2 % of each other.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Counts of microseconds in buckets that grow by 2 %.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max_micros: u64,
}

const GROWTH: f64 = 1.02;

impl Histogram {
    /// Adds one.
    pub(crate) fn add(&mut self, duration: Duration) {
        let micros = duration.as_micros() as u64;
        let bucket = ((micros.max(1) as f64).ln() / GROWTH.ln()) as usize;
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max_micros = self.max_micros.max(micros);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub(crate) fn max(&self) -> Duration {
        Duration::from_micros(self.max_micros)
    }

    /// The duration that `share` (0..=1) of all are not longer than.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                let micros = GROWTH.powi(bucket as i32 + 1);
                return Duration::from_secs_f64(micros / 1e6).min(self.max());
            }
        }
        self.max()
    }

    /// How many are longer than `limit`, to the resolution of a bucket.
    pub(crate) fn over(&self, limit: Duration) -> u64 {
        let over = |bucket: usize| GROWTH.powf(bucket as f64) > limit.as_micros() as f64;
        let buckets = self.buckets.iter().enumerate();
        buckets.filter(|(b, _)| over(*b)).map(|(_, n)| n).sum()
    }
}
