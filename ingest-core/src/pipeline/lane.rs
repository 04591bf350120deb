//! A lane: one journal and what waits in it for the database. Devices hash to lanes; lanes share nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use super::circuit::CircuitState;
use super::clock::now_us;
use crate::journal::JournalHandle;

/// One journal with its backlog.
pub struct Lane {
    pub number: u16,
    pub journal: JournalHandle,
    pub circuit: Arc<CircuitState>,
    num_events_waiting: AtomicU64,
    batch_rows_max: u64,
    is_enough: Notify,
    oldest_waiting_us: AtomicI64,
}

/// No event waits.
const NONE_WAITING: i64 = i64::MAX;

impl Lane {
    /// `num_events_recovered` lie in the journal since before the start, the oldest received at `oldest_us`.
    #[must_use]
    pub fn new(
        number: u16,
        journal: JournalHandle,
        batch_rows_max: usize,
        num_events_recovered: u64,
        oldest_us: Option<i64>,
    ) -> Self {
        Self {
            number,
            journal,
            circuit: Arc::default(),
            num_events_waiting: AtomicU64::new(num_events_recovered),
            batch_rows_max: batch_rows_max as u64,
            is_enough: Notify::new(),
            oldest_waiting_us: AtomicI64::new(oldest_us.unwrap_or(NONE_WAITING)),
        }
    }

    /// Events went into the journal's queue.
    pub fn note_taken(&self, num_events: u64, received_us: i64) {
        // The first to wait sets the age; the drain sets it anew with every batch.
        let _ = self.oldest_waiting_us.compare_exchange(
            NONE_WAITING,
            received_us,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if self
            .num_events_waiting
            .fetch_add(num_events, Ordering::Relaxed)
            + num_events
            >= self.batch_rows_max
        {
            self.is_enough.notify_one();
        }
    }

    /// The drain read events from the journal; `is_all` says that it read all there was.
    pub fn note_read(&self, num_events: u64, is_all: bool) {
        let left = |waiting: u64| {
            if is_all {
                0
            } else {
                waiting.saturating_sub(num_events)
            }
        };
        // The count steers when a batch is worth its transaction, no more: it may be a little off, because events are
        // counted before their append is decided, but it begins anew whenever the journal was read empty.
        let _ =
            self.num_events_waiting
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                    Some(left(waiting))
                });
    }

    /// The oldest event that is not in the database was received then; none when everything is stored.
    pub fn note_oldest(&self, received_us: Option<i64>) {
        self.oldest_waiting_us
            .store(received_us.unwrap_or(NONE_WAITING), Ordering::Relaxed);
    }

    #[must_use]
    pub fn lag(&self) -> Duration {
        match self.oldest_waiting_us.load(Ordering::Relaxed) {
            NONE_WAITING => Duration::ZERO,
            oldest => Duration::from_micros(u64::try_from(now_us() - oldest).unwrap_or(0)),
        }
    }

    /// Waits until a batch from `position` on is worth its transaction: enough rows, or an event has waited `age_max`.
    pub async fn batch_due(&self, position: u64, age_max: Duration) {
        if self.journal.wait_for_durable(position).await.durable_end <= position {
            // Closed or poisoned: nothing will come any more, and whoever waits is about to be ended.
            std::future::pending::<()>().await;
        }
        if self.num_events_waiting.load(Ordering::Relaxed) < self.batch_rows_max {
            // Whichever comes first; both mean that a batch is due.
            let _ = tokio::time::timeout(age_max, self.is_enough.notified()).await;
        }
    }
}

/// The lane of a device. Identifiers are random, so their low bits spread evenly.
#[must_use]
pub fn lane_of(device_id: Uuid, num_lanes: usize) -> usize {
    usize::try_from(device_id.as_u128() % (num_lanes.max(1) as u128)).unwrap_or(0)
}
