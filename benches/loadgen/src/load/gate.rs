//! Watches from outside how far the database is behind the ACKs, and holds a closed loop back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::latency::f64_of;
use crate::target::only_loopback;

const POLL_EVERY: Duration = Duration::from_millis(100);
const ANSWER_BYTES_MAX: u64 = 4 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

/// How far behind the database was at worst.
#[derive(Debug, Clone, Default)]
pub struct Lag {
    pub drain_lag_max_s: f64,
    pub backlog_events_max: u64,
    /// Stored since the gate was opened.
    pub events_stored: u64,
    /// When how many were stored, every tenth of a second.
    samples: Vec<(Instant, u64)>,
}

impl Lag {
    /// Stored events a second between the readings nearest to the ends of the window.
    pub fn stored_events_per_s(&self, window: &Range<Instant>) -> Option<f64> {
        let inside: Vec<_> = self
            .samples
            .iter()
            .filter(|(at, _)| window.contains(at))
            .collect();
        let ((first_at, first), (last_at, last)) = (inside.first()?, inside.last()?);
        let seconds = last_at.duration_since(*first_at).as_secs_f64();
        (seconds > 0.0).then(|| f64_of(last - first) / seconds)
    }
}

pub struct Gate {
    acked: AtomicU64,
    stored: AtomicU64,
    backlog_max: Option<u64>,
    is_over: AtomicBool,
    lag: Mutex<Result<Lag, BenchError>>,
}

impl Gate {
    /// Reads the counters once, and from then on in a thread of its own.
    ///
    /// # Errors
    /// The port is not there or does not speak of `events_stored_total`.
    pub fn open(metrics: SocketAddr, backlog_max: Option<u64>) -> Result<Arc<Self>, BenchError> {
        let metrics = only_loopback(metrics)?;
        let stored_before = Reading::take(metrics)?.events_stored;
        let gate = Arc::new(Self {
            acked: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            backlog_max,
            is_over: AtomicBool::new(false),
            lag: Mutex::new(Ok(Lag::default())),
        });
        let watched = Arc::clone(&gate);
        thread::spawn(move || {
            while !watched.is_over.load(Ordering::Relaxed) {
                let reading = Reading::take(metrics);
                watched.note(reading, stored_before);
                thread::sleep(POLL_EVERY);
            }
        });
        Ok(gate)
    }

    pub fn count_acked(&self, num_events: u64) {
        self.acked.fetch_add(num_events, Ordering::Relaxed);
    }

    /// Whether more may be sent.
    pub fn is_open(&self) -> bool {
        self.backlog_max.is_none_or(|max| self.backlog() < max)
    }

    /// Ends the watch.
    ///
    /// # Errors
    /// The counters could not be read at some time.
    pub fn close(&self) -> Result<Lag, BenchError> {
        self.is_over.store(true, Ordering::Relaxed);
        std::mem::replace(
            &mut *self.lag.lock().unwrap_or_else(PoisonError::into_inner),
            Ok(Lag::default()),
        )
    }

    fn backlog(&self) -> u64 {
        self.acked
            .load(Ordering::Relaxed)
            .saturating_sub(self.stored.load(Ordering::Relaxed))
    }

    fn note(&self, reading: Result<Reading, BenchError>, stored_before: u64) {
        let mut lag = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *lag, reading) {
            (Ok(lag), Ok(reading)) => {
                lag.events_stored = reading.events_stored.saturating_sub(stored_before);
                lag.samples.push((Instant::now(), lag.events_stored));
                self.stored.store(lag.events_stored, Ordering::Relaxed);
                lag.drain_lag_max_s = lag.drain_lag_max_s.max(reading.drain_lag_s);
                lag.backlog_events_max = lag.backlog_events_max.max(self.backlog());
            }
            // The first failure is kept.
            (Err(_), _) => {}
            (failed, Err(error)) => *failed = Err(error),
        }
    }
}

#[derive(Debug, PartialEq)]
struct Reading {
    events_stored: u64,
    drain_lag_s: f64,
}

impl Reading {
    fn take(metrics: SocketAddr) -> Result<Self, BenchError> {
        let text = fetch(metrics).map_err(BenchError::io("reading the metrics"))?;
        Self::parse(&text).ok_or(BenchError::Protocol {
            what: "no hse_ingest_events_stored_total in the metrics",
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let stored = sum_of(text, "hse_ingest_events_stored_total")?;
        let drain_lag_s = sum_of(text, "hse_ingest_drain_lag_seconds").unwrap_or(0.0);
        // Counters are whole numbers; they come as text that may say `1e6`.
        let events_stored = Duration::try_from_secs_f64(stored).ok()?.as_secs();
        Some(Self {
            events_stored,
            drain_lag_s,
        })
    }
}

/// Adds up the samples of a metric over its labels; `None` when there is none.
fn sum_of(text: &str, name: &str) -> Option<f64> {
    let mut sum = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        let value = if let Some(labels) = rest.strip_prefix('{') {
            labels.split_once('}').map(|(_, value)| value)
        } else {
            rest.strip_prefix(' ')
        };
        if let Some(value) =
            value.and_then(|value| value.split_whitespace().next()?.parse::<f64>().ok())
        {
            sum = Some(sum.unwrap_or(0.0) + value);
        }
    }
    sum
}

fn fetch(metrics: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&metrics, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(
        format!("GET /metrics HTTP/1.1\r\nHost: {metrics}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels_and_other_names_are_left_out() {
        let text = "# TYPE hse_ingest_events_stored counter\n\
                    hse_ingest_events_stored_total{lane=\"0\"} 40\n\
                    hse_ingest_events_stored_total{lane=\"1\"} 2\n\
                    hse_ingest_events_stored_total_other 7\n\
                    hse_ingest_drain_lag_seconds 0.25\n";
        assert_eq!(
            Reading::parse(text),
            Some(Reading {
                events_stored: 42,
                drain_lag_s: 0.25
            })
        );
    }

    #[test]
    fn the_stored_rate_is_that_of_the_window() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let samples = vec![
            (at(0), 0),
            (at(2), 1000),
            (at(3), 3000),
            (at(4), 5000),
            (at(9), 5000),
        ];
        let lag = Lag {
            samples,
            ..Lag::default()
        };
        assert_eq!(lag.stored_events_per_s(&(at(2)..at(5))), Some(2000.0));
        assert_eq!(lag.stored_events_per_s(&(at(5)..at(8))), None);
    }

    #[test]
    fn metrics_without_the_counter_are_refused() {
        assert_eq!(Reading::parse("hse_ingest_drain_lag_seconds 0.25\n"), None);
    }
}
