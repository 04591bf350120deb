//! The circuit breaker before the database: after a failure it opens for a while that grows, with jitter, and then
//! lets one attempt through. What waits behind it waits in the journal, so nothing is refused and nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(5);

/// As the metrics show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
}

/// What others see of a circuit. Half-open until the first answer.
#[derive(Debug)]
pub struct CircuitState(AtomicU8);

impl Default for CircuitState {
    fn default() -> Self {
        Self(AtomicU8::new(State::HalfOpen as u8))
    }
}

impl CircuitState {
    /// The number of [`State`].
    #[must_use]
    pub fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

pub struct Circuit {
    state: Arc<CircuitState>,
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
    pub fn new(state: Arc<CircuitState>) -> Self {
        Self {
            state,
            delays: delays(),
        }
    }

    fn show(&self, state: State) {
        self.state.0.store(state as u8, Ordering::Relaxed);
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
