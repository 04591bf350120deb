//! The circuit breaker before a machine that may be away: after a failure it opens for a while that grows, with jitter,
//! and then lets one attempt through. What waits behind the database's waits in the journal, so nothing is refused and
//! nothing is lost; behind that of Redis wait the newest states only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(5);

/// As the metrics show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
}

impl State {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
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
    #[must_use]
    pub fn get(&self) -> State {
        match self.0.load(Ordering::Relaxed) {
            0 => State::Closed,
            1 => State::HalfOpen,
            _ => State::Open,
        }
    }
}

pub struct Circuit {
    state: Arc<CircuitState>,
    delays: ExponentialBackoff,
}

/// Waits between attempts: they grow to `max`, with jitter, and never end.
#[must_use]
pub fn delays(min: Duration, max: Duration) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(min)
        .with_max_delay(max)
        .with_jitter()
        .without_max_times()
        .build()
}

impl Circuit {
    #[must_use]
    pub fn new(state: Arc<CircuitState>) -> Self {
        Self {
            state,
            delays: delays(DELAY_MIN, DELAY_MAX),
        }
    }

    #[must_use]
    pub fn state(&self) -> Arc<CircuitState> {
        Arc::clone(&self.state)
    }

    fn show(&self, state: State) {
        self.state.0.store(state as u8, Ordering::Relaxed);
    }

    /// The other side answered.
    pub fn close(&mut self) {
        self.delays = delays(DELAY_MIN, DELAY_MAX);
        self.show(State::Closed);
    }

    /// The other side did not answer: waits, then lets the caller try once.
    pub async fn open(&mut self) {
        self.show(State::Open);
        tokio::time::sleep(self.delays.next().unwrap_or(DELAY_MAX)).await;
        self.show(State::HalfOpen);
    }
}
