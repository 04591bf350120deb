//! What a worker counts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use crate::error::BenchError;
use crate::latency::Latencies;

pub struct Tally {
    /// First sendings only; what is sent again counts once.
    pub events_sent: u64,
    /// Durable according to an ACK or a WELCOME, rejected ones included.
    pub events_acked: u64,
    /// Those of them whose ACK came in the measured window.
    pub events_acked_in_window: u64,
    pub events_rejected: u64,
    /// Sent, and not acknowledged when the grace was over.
    pub events_unanswered: u64,
    pub frames_busy: u64,
    /// Frames that could not leave at their intended time: window full, connection away, or BUSY.
    pub frames_held_back: u64,
    pub reconnects: u64,
    /// ERROR frames and lost connections by code.
    pub errors: BTreeMap<String, u64>,
    /// From the intended send to the ACK, of frames whose intended send was in the measured window.
    pub latencies: Latencies,
    /// When the measured window was.
    pub window: Option<Range<Instant>>,
}

impl Tally {
    pub fn new() -> Result<Self, BenchError> {
        Ok(Self {
            events_sent: 0,
            events_acked: 0,
            events_acked_in_window: 0,
            events_rejected: 0,
            events_unanswered: 0,
            frames_busy: 0,
            frames_held_back: 0,
            reconnects: 0,
            errors: BTreeMap::new(),
            latencies: Latencies::new().ok_or(BenchError::WorkerDied)?,
            window: None,
        })
    }

    pub fn count_error(&mut self, code: &str) {
        *self.errors.entry(code.to_owned()).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) -> Result<(), BenchError> {
        self.window = self.window.take().or_else(|| other.window.clone());
        self.events_sent += other.events_sent;
        self.events_acked += other.events_acked;
        self.events_acked_in_window += other.events_acked_in_window;
        self.events_rejected += other.events_rejected;
        self.events_unanswered += other.events_unanswered;
        self.frames_busy += other.frames_busy;
        self.frames_held_back += other.frames_held_back;
        self.reconnects += other.reconnects;
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
        if self.latencies.add(&other.latencies) {
            Ok(())
        } else {
            Err(BenchError::WorkerDied)
        }
    }
}
