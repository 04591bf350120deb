//! The circuit breaker before the database: after a failure it opens for a while that grows, with jitter, and then
//! lets one attempt through. What waits behind it waits in the journal, so nothing is refused and nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::metrics::Metrics;

const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
}

pub struct Circuit {
    metrics: Arc<Metrics>,
    delays: ExponentialBackoff,
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(DELAY_MIN)
        .with_max_delay(DELAY_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}

impl Circuit {
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            delays: delays(),
        }
    }

    fn show(&self, state: State) {
        self.metrics.database_circuit_state.set(state as i64);
    }

    /// The database answered.
    pub fn close(&mut self) {
        self.delays = delays();
        self.show(State::Closed);
    }

    /// The database did not answer: waits, then lets the caller try once.
    pub async fn open(&mut self) {
        self.show(State::Open);
        tokio::time::sleep(self.delays.next().unwrap_or(DELAY_MAX)).await;
        self.show(State::HalfOpen);
    }
}
