//! The newest event and the connection of each device that was heard, for whoever keeps them where others can read them.
//!
//! A state is due when it changed since it was taken; taken states that could not be kept are made due again. So a device
//! that reports a thousand times a second is written as often as the writer comes by, and always as it is then.
//!
//! A child's connection is that of the gateway which spoke for it last, unless it has one of its own.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use uuid::Uuid;

use super::change::{DeviceConnection, LiveEvent, Outline, live_events};
use crate::frame::EventIter;
use crate::pipeline::entry::{Entry, Source};

const NUM_SHARDS: usize = 64;
/// How the core itself reports what a device made of a command: durable as an event, and no reading of the device's.
const COMMAND_RESULT: &str = "command_result";

/// What is told of an event in a device's state.
#[derive(Debug, Clone, PartialEq)]
pub struct NewestEvent {
    pub time_us: i64,
    pub event_type: Box<str>,
    pub value: Option<f64>,
    pub unit: Option<Box<str>>,
}

/// One device as this node knows it. Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceState {
    pub device_id: Uuid,
    /// The last one; none for a device whose events others reported.
    pub connection: Option<Arc<DeviceConnection>>,
    pub is_connected: bool,
    pub last_seen_us: i64,
    pub newest_event: Option<NewestEvent>,
}

struct Tracked {
    state: DeviceState,
    is_due: bool,
    /// Of a gateway: those it spoke for in this connection.
    children: Vec<Uuid>,
}

#[derive(Default)]
struct Shard {
    tracked: HashMap<Uuid, Tracked, foldhash::fast::RandomState>,
    due: Vec<Uuid>,
}

impl Shard {
    fn make_due(due: &mut Vec<Uuid>, tracked: &mut Tracked) {
        if !std::mem::replace(&mut tracked.is_due, true) {
            due.push(tracked.state.device_id);
        }
    }
}

/// All states of this node.
pub struct DeviceStates {
    shards: [Mutex<Shard>; NUM_SHARDS],
    hasher: foldhash::fast::RandomState,
    num_tracked: AtomicUsize,
    num_tracked_max: usize,
    num_untracked: AtomicU64,
}

/// A connection that has spoken for a device just now.
type Via<'a> = Option<&'a Arc<DeviceConnection>>;

impl DeviceStates {
    /// Keeps `num_tracked_max` states at most; beyond it new devices are counted, and left to the next that has room.
    #[must_use]
    pub fn new(num_tracked_max: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: foldhash::fast::RandomState::default(),
            num_tracked: AtomicUsize::new(0),
            num_tracked_max,
            num_untracked: AtomicU64::new(0),
        }
    }

    fn shard(&self, device_id: Uuid) -> MutexGuard<'_, Shard> {
        let place =
            usize::try_from(self.hasher.hash_one(device_id) % NUM_SHARDS as u64).unwrap_or(0);
        #[expect(
            clippy::indexing_slicing,
            reason = "the remainder of a division by the number of shards"
        )]
        let shard = &self.shards[place];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a device's state, which is made if it is not there; nothing when there is no room for it.
    fn change(&self, device_id: Uuid, change: impl FnOnce(&mut Tracked)) {
        let mut shard = self.shard(device_id);
        let Shard { tracked, due } = &mut *shard;
        let tracked = match tracked.get_mut(&device_id) {
            Some(tracked) => tracked,
            None if self.num_tracked.load(Ordering::Relaxed) >= self.num_tracked_max => {
                self.num_untracked.fetch_add(1, Ordering::Relaxed);
                return;
            }
            None => {
                self.num_tracked.fetch_add(1, Ordering::Relaxed);
                let state = DeviceState {
                    device_id,
                    connection: None,
                    is_connected: false,
                    last_seen_us: 0,
                    newest_event: None,
                };
                tracked.entry(device_id).or_insert(Tracked {
                    state,
                    is_due: false,
                    children: Vec::new(),
                })
            }
        };
        change(tracked);
        Shard::make_due(due, tracked);
    }

    pub(super) fn connected(&self, connection: &Arc<DeviceConnection>) {
        self.change(connection.device_id, |tracked| {
            tracked.state.connection = Some(Arc::clone(connection));
            tracked.state.is_connected = true;
            tracked.state.last_seen_us = connection.connected_us;
            tracked.children = Vec::new();
        });
    }

    /// The device said something that is no event.
    pub(super) fn seen(&self, connection: &Arc<DeviceConnection>, now_us: i64) {
        self.change(connection.device_id, |tracked| {
            tracked.state.last_seen_us = now_us;
        });
    }

    pub(super) fn disconnected(&self, connection: &Arc<DeviceConnection>) {
        for child in self.end(connection.device_id, connection) {
            self.end(child, connection);
        }
    }

    /// Returns the children that the device spoke for.
    fn end(&self, device_id: Uuid, connection: &Arc<DeviceConnection>) -> Vec<Uuid> {
        let mut children = Vec::new();
        self.change(device_id, |tracked| {
            let known = tracked.state.connection.as_ref();
            if known.is_some_and(|known| Arc::ptr_eq(known, connection)) {
                tracked.state.is_connected = false;
                children = std::mem::take(&mut tracked.children);
            }
        });
        children
    }

    pub(super) fn events(&self, payload: &Bytes, outline: Outline) {
        match outline {
            Outline::Own {
                newest_offset: None,
            } => {}
            Outline::Own {
                newest_offset: Some(offset),
            } => self.own_event(payload, offset),
            Outline::Mixed => self.mixed_events(payload),
        }
    }

    fn own_event(&self, payload: &Bytes, offset: usize) {
        // What the outline was made of decodes.
        let (Ok(entry), Some(Ok(newest))) = (
            Entry::decode(payload),
            payload.get(offset..).map(EventIter::first),
        ) else {
            return;
        };
        let event = LiveEvent {
            device_id: entry.device_id,
            time_us: newest.event.time_us.unwrap_or(entry.received_us),
            received_us: entry.received_us,
            source: entry.source,
            event: newest.event,
        };
        self.change(entry.device_id, |tracked| note_event(tracked, &event));
    }

    fn mixed_events(&self, payload: &Bytes) {
        let Ok(entry) = Entry::decode(payload) else {
            return;
        };
        if entry.source == Source::Core {
            // Not what the device reported.
            return;
        }
        let speaks_itself = !entry.device_id.is_nil();
        let connection = (speaks_itself)
            .then(|| self.connection_of(entry.device_id))
            .flatten();
        for (_, event) in live_events(payload) {
            let via = connection
                .as_ref()
                .filter(|_| event.device_id != entry.device_id);
            let is_new_child = self.event_via(&event, via);
            if is_new_child {
                self.change(entry.device_id, |gateway| {
                    gateway.children.push(event.device_id)
                });
            }
        }
    }

    fn connection_of(&self, device_id: Uuid) -> Option<Arc<DeviceConnection>> {
        let shard = self.shard(device_id);
        let state = &shard.tracked.get(&device_id)?.state;
        state.connection.clone().filter(|_| state.is_connected)
    }

    /// Returns whether the device is heard through this connection for the first time.
    fn event_via(&self, event: &LiveEvent<'_>, via: Via<'_>) -> bool {
        let mut is_new_child = false;
        self.change(event.device_id, |tracked| {
            note_event(tracked, event);
            let Some(via) = via else {
                return;
            };
            let state = &mut tracked.state;
            let known = state.connection.as_ref().filter(|_| state.is_connected);
            let is_its_own = known.is_some_and(|known| known.device_id == event.device_id);
            let is_known = known.is_some_and(|known| Arc::ptr_eq(known, via));
            if !is_its_own && !is_known {
                state.connection = Some(Arc::clone(via));
                state.is_connected = true;
                is_new_child = true;
            }
        });
        is_new_child
    }

    /// One device's state, if this node has it.
    #[must_use]
    pub fn get(&self, device_id: Uuid) -> Option<DeviceState> {
        let shard = self.shard(device_id);
        shard
            .tracked
            .get(&device_id)
            .map(|tracked| tracked.state.clone())
    }

    /// Takes states that are due, `num_max` or a few more.
    #[must_use]
    pub fn take_due(&self, num_max: usize) -> Vec<DeviceState> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let Shard { tracked, due } = &mut *shard;
            let num_left = num_max.saturating_sub(taken.len());
            let kept = due.len().saturating_sub(num_left);
            for device_id in due.drain(kept..) {
                if let Some(tracked) = tracked.get_mut(&device_id) {
                    tracked.is_due = false;
                    taken.push(tracked.state.clone());
                }
            }
        }
        taken
    }

    /// Makes taken states due again.
    pub fn give_back(&self, states: &[DeviceState]) {
        for state in states {
            let mut shard = self.shard(state.device_id);
            let Shard { tracked, due } = &mut *shard;
            if let Some(tracked) = tracked.get_mut(&state.device_id) {
                Shard::make_due(due, tracked);
            }
        }
    }

    /// Taken states are kept elsewhere: those of devices that are not connected are not needed here any more.
    pub fn kept_elsewhere(&self, states: &[DeviceState]) {
        for state in states.iter().filter(|state| !state.is_connected) {
            let mut shard = self.shard(state.device_id);
            let may_go = |tracked: &Tracked| !tracked.is_due && !tracked.state.is_connected;
            if shard.tracked.get(&state.device_id).is_some_and(may_go) {
                shard.tracked.remove(&state.device_id);
                self.num_tracked.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// What was kept elsewhere is gone there.
    pub fn make_all_due(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let Shard { tracked, due } = &mut *shard;
            for tracked in tracked.values_mut() {
                Shard::make_due(due, tracked);
            }
        }
    }

    #[must_use]
    pub fn num_tracked(&self) -> usize {
        self.num_tracked.load(Ordering::Relaxed)
    }

    /// Changes of devices for whose state there was no room.
    #[must_use]
    pub fn num_untracked(&self) -> u64 {
        self.num_untracked.load(Ordering::Relaxed)
    }
}

/// The newest by its time stays; of the same time, the one that came last.
fn note_event(tracked: &mut Tracked, event: &LiveEvent<'_>) {
    let state = &mut tracked.state;
    state.last_seen_us = state.last_seen_us.max(event.received_us);
    let (event_type, unit) = (event.event.event_type, event.event.unit);
    let known = state.newest_event.as_ref();
    if event_type == COMMAND_RESULT || known.is_some_and(|known| known.time_us > event.time_us) {
        return;
    }
    // A device says the same type and unit for ever: its texts are kept.
    let known = state.newest_event.take();
    let (known_type, known_unit) =
        known.map_or((None, None), |known| (Some(known.event_type), known.unit));
    state.newest_event = Some(NewestEvent {
        time_us: event.time_us,
        event_type: known_type
            .filter(|known| **known == *event_type)
            .unwrap_or_else(|| event_type.into()),
        value: event.event.value,
        unit: match (known_unit, unit) {
            (Some(known), Some(unit)) if *known == *unit => Some(known),
            (_, unit) => unit.map(Into::into),
        },
    });
}
