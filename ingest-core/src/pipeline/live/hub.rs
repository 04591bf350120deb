//! The ring, those who read it, and how they are woken.
//!
//! Each reader goes through the ring at its own pace, so a slow one costs its own place only. Readers are woken by one
//! task, and not by whoever offers: with ten thousand of them an offer would otherwise take as long as all their wakings.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::change::{Change, ChangeContent, LiveItem, Outline};
use super::filter::Filter;
use super::ring::{Read, Ring};
use crate::pipeline::entry::Entry;

/// Readers are woken this often at most; it is what a change waits at most when they are few.
const WAKE_PAUSE: Duration = Duration::from_millis(2);
/// And so much less often for each reader, so that waking them all is never more than a small share of the time.
const WAKE_PAUSE_PER_READER: Duration = Duration::from_micros(10);
/// After the last reader has gone, changes are kept for it this long: it may come back for what follows its position.
const KEPT_FOR_READERS: Duration = Duration::from_secs(60);

/// A place in one run of this node's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub run: Uuid,
    /// From 1; 0 is before everything.
    pub number: u64,
}

/// Which numbers may still be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// `last + 1` when nothing is kept.
    pub first: u64,
    /// 0 before the first change.
    pub last: u64,
}

struct Shared {
    ring: Ring,
    num_readers: u32,
    unread_since: Instant,
}

pub struct LiveHub {
    run: Uuid,
    shared: Mutex<Shared>,
    is_recording: AtomicBool,
    /// Items that nobody was there for, not yet counted by the ring.
    num_unrecorded: AtomicU64,
    is_wake_due: AtomicBool,
    wake_due: Notify,
    woken: watch::Sender<()>,
}

impl LiveHub {
    #[must_use]
    pub fn new(ring_bytes_max: usize) -> Self {
        Self {
            run: Uuid::new_v4(),
            shared: Mutex::new(Shared {
                ring: Ring::new(ring_bytes_max),
                num_readers: 0,
                unread_since: Instant::now(),
            }),
            is_recording: AtomicBool::new(false),
            num_unrecorded: AtomicU64::new(0),
            is_wake_due: AtomicBool::new(false),
            wake_due: Notify::new(),
            woken: watch::Sender::new(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Identifies this run of the process in positions.
    #[must_use]
    pub fn run(&self) -> Uuid {
        self.run
    }

    #[must_use]
    pub fn num_readers(&self) -> u32 {
        self.lock().num_readers
    }

    #[must_use]
    pub fn positions(&self) -> Positions {
        let shared = self.lock();
        let num_unrecorded = self.num_unrecorded.load(Ordering::Acquire);
        let next = shared.ring.next_number() + num_unrecorded;
        let is_recording = self.is_recording.load(Ordering::Acquire);
        let first = if is_recording {
            shared.ring.first_number()
        } else {
            next
        };
        Positions {
            first,
            last: next - 1,
        }
    }

    pub(super) fn offer_events(&self, payload: &Bytes, outline: Outline) {
        // The journal was given nothing that is no entry.
        let Ok(entry) = Entry::decode(payload) else {
            return;
        };
        let num_items = u64::from(entry.num_events);
        self.offer(num_items, || Change {
            number: 0,
            num_items,
            device_id: entry.device_id,
            content: ChangeContent::Events {
                payload: payload.clone(),
                outline,
            },
        });
    }

    pub(super) fn offer_connection(&self, content: ChangeContent) {
        let device_id = match &content {
            ChangeContent::Connected(connection)
            | ChangeContent::Disconnected { connection, .. } => connection.device_id,
            ChangeContent::Events { .. } => return,
        };
        self.offer(1, || Change {
            number: 0,
            num_items: 1,
            device_id,
            content,
        });
    }

    fn offer(&self, num_items: u64, change: impl FnOnce() -> Change) {
        if !self.is_recording.load(Ordering::Acquire) {
            self.num_unrecorded.fetch_add(num_items, Ordering::AcqRel);
            return;
        }
        let change = change();
        let let_go = self.lock().ring.push(change);
        drop(let_go);
        if !self.is_wake_due.swap(true, Ordering::AcqRel) {
            self.wake_due.notify_one();
        }
    }

    /// Begins to read: with what follows `resume_after` as far as it is still here, else with what comes from now on.
    #[must_use]
    pub fn subscribe(
        self: &Arc<Self>,
        filter: Filter,
        resume_after: Option<Position>,
    ) -> Subscription {
        let woken = self.woken.subscribe();
        let mut shared = self.lock();
        if !self.is_recording.load(Ordering::Acquire) {
            shared.ring.reserve();
            self.is_recording.store(true, Ordering::Release);
        }
        let num_unrecorded = self.num_unrecorded.swap(0, Ordering::AcqRel);
        if num_unrecorded > 0 {
            shared.ring.skip(num_unrecorded);
        }
        shared.num_readers += 1;
        let end = shared.ring.next_number();
        let (next, num_missed) = match resume_after {
            None => (end, 0),
            // A number that was not given yet is no place in this run.
            Some(position) if position.run == self.run && position.number < end => {
                (position.number + 1, 0)
            }
            // What followed it in its own run is gone, one change or many; then comes all of this run.
            Some(_) => (1, 1),
        };
        drop(shared);
        Subscription {
            hub: Arc::clone(self),
            filter,
            woken,
            next,
            num_missed,
        }
    }

    /// Wakes the readers, until `stopped`.
    pub async fn run_wakes(self: Arc<Self>, stopped: CancellationToken) {
        loop {
            tokio::select! {
                () = stopped.cancelled() => return,
                () = self.wake_due.notified() => {}
                () = tokio::time::sleep(KEPT_FOR_READERS / 2) => {}
            }
            self.is_wake_due.store(false, Ordering::Release);
            self.woken.send_replace(());
            let num_readers = self.stop_recording_for_nobody(KEPT_FOR_READERS);
            tokio::time::sleep(WAKE_PAUSE + WAKE_PAUSE_PER_READER * num_readers).await;
        }
    }

    /// Returns how many readers there are.
    pub(super) fn stop_recording_for_nobody(&self, kept_for: Duration) -> u32 {
        let mut shared = self.lock();
        let is_unread = shared.num_readers == 0 && shared.unread_since.elapsed() >= kept_for;
        let num_readers = shared.num_readers;
        if is_unread && self.is_recording.swap(false, Ordering::AcqRel) {
            let unread = shared.ring.clear();
            drop(shared);
            drop(unread);
        }
        num_readers
    }
}

/// One reader's place in the feed.
pub struct Subscription {
    hub: Arc<LiveHub>,
    filter: Filter,
    woken: watch::Receiver<()>,
    next: u64,
    /// Not yet told.
    num_missed: u64,
}

/// What a reader gets at a time: first how much it missed, then what followed.
#[derive(Debug)]
pub struct Delivery {
    /// Changes of any kind that are not here any more; of how many the filter would have taken nobody knows.
    pub num_missed: u64,
    changes: Vec<Change>,
    from: u64,
    /// The number up to which the reader now knows everything.
    pub last_number: u64,
}

impl Delivery {
    /// What the filter takes, each with its number.
    pub fn items<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = (u64, LiveItem<'a>)> {
        self.changes
            .iter()
            .flat_map(move |change| change.items(filter, self.from))
    }
}

impl Subscription {
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Waits for changes that the filter may take, or for news of missed ones. Cancel-safe.
    pub async fn next(&mut self) -> Delivery {
        loop {
            self.woken.mark_unchanged();
            if let Some(delivery) = self.try_next() {
                return delivery;
            }
            // The hub outlives its readers, so this is never an error.
            let _ = self.woken.changed().await;
        }
    }

    /// What is there now; none when the filter takes nothing of it.
    pub fn try_next(&mut self) -> Option<Delivery> {
        loop {
            let from = self.next;
            let Read {
                num_missed,
                mut changes,
            } = self.hub.lock().ring.read(&mut self.next);
            self.num_missed = self.num_missed.saturating_add(num_missed);
            if changes.is_empty() && self.num_missed == 0 {
                return None;
            }
            changes.retain(|change| self.filter.may_take(change));
            if !changes.is_empty() || self.num_missed > 0 {
                let num_missed = std::mem::take(&mut self.num_missed);
                return Some(Delivery {
                    num_missed,
                    changes,
                    from,
                    last_number: self.next - 1,
                });
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut shared = self.hub.lock();
        shared.num_readers -= 1;
        shared.unread_since = Instant::now();
    }
}
