//! Latencies as the reports state them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Nanoseconds, three digits, up to a minute; what is longer counts as a minute, so the maximum may be a floor.
pub struct Latencies(Histogram<u64>);

const NANOSECONDS_MAX: u64 = 60_000_000_000;

impl Latencies {
    pub fn new() -> Option<Self> {
        Histogram::new_with_bounds(1, NANOSECONDS_MAX, 3)
            .ok()
            .map(Self)
    }

    pub fn record(&mut self, latency: Duration) {
        self.0
            .saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(NANOSECONDS_MAX));
    }

    /// Adds those of another histogram; both have the same bounds, so none is lost.
    pub fn add(&mut self, other: &Self) -> bool {
        self.0.add(&other.0).is_ok()
    }

    /// Microseconds at p50, p90, p99, p99.9 and the maximum, and how many there are.
    pub fn report(&self) -> Value {
        if self.0.is_empty() {
            return json!({ "count": 0 });
        }
        json!({
            "count": self.0.len(),
            "p50_us": micros(self.0.value_at_quantile(0.5)),
            "p90_us": micros(self.0.value_at_quantile(0.9)),
            "p99_us": micros(self.0.value_at_quantile(0.99)),
            "p999_us": micros(self.0.value_at_quantile(0.999)),
            "max_us": micros(self.0.max()),
        })
    }
}

fn micros(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1e6
}

/// Seconds of processor time that this process has used, all threads.
pub fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, nanoseconds).as_secs_f64()
}

/// A count as a number to divide.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub fn f64_of(count: u64) -> f64 {
    count as f64
}
