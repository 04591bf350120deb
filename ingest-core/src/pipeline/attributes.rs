//! What devices reported and are desired to be, as far as the core has to do with it: reports are events, and of what is desired
//! it tells those connections that want to hear of it.
//!
//! **Invariant.** A change is noted until its connection has taken it, so one that comes while another is told is not missed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::Notify;
use uuid::Uuid;

/// The type of the events with which devices report: their metadata is merged into what was reported before.
pub const ATTRIBUTES_REPORTED: &str = "attributes_reported";

/// A device's attributes as the database has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attributes {
    pub desired: Map<String, Value>,
    pub reported: Map<String, Value>,
}

/// Of whom something else is desired than before.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    These(HashSet<Uuid>),
    /// Notifications may have been missed: of anybody.
    Anybody,
}

impl Default for Changed {
    fn default() -> Self {
        Self::These(HashSet::new())
    }
}

#[derive(Debug, Default)]
struct Ear {
    changed: Mutex<Changed>,
    has_changed: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ear {
    fn note(&self, of: Option<Uuid>) {
        match (&mut *lock(&self.changed), of) {
            (Changed::These(ids), Some(id)) => drop(ids.insert(id)),
            (changed, None) => *changed = Changed::Anybody,
            (Changed::Anybody, Some(_)) => {}
        }
        self.has_changed.notify_one();
    }
}

/// Who wants to hear of changes, by the device that is connected.
#[derive(Debug, Default)]
pub struct DesiredChanges {
    ears: Mutex<HashMap<Uuid, Vec<Arc<Ear>>, foldhash::fast::RandomState>>,
}

impl DesiredChanges {
    /// Hears of changes from now on, of `listener` and those that it speaks for.
    #[must_use]
    pub fn listen(self: &Arc<Self>, listener: Uuid) -> Listening {
        let ear = Arc::<Ear>::default();
        let mut ears = lock(&self.ears);
        ears.entry(listener).or_default().push(Arc::clone(&ear));
        Listening {
            changes: Arc::clone(self),
            listener,
            ear,
        }
    }

    /// Of `device` something else is desired; `gateway` is who speaks for it, if somebody does.
    pub fn note(&self, device: Uuid, gateway: Option<Uuid>) {
        let ears = lock(&self.ears);
        let listeners = [Some(device), gateway].into_iter().flatten();
        for ear in listeners
            .filter_map(|listener| ears.get(&listener))
            .flatten()
        {
            ear.note(Some(device));
        }
    }

    /// Notifications may have been missed.
    pub fn note_anybody(&self) {
        for ear in lock(&self.ears).values().flatten() {
            ear.note(None);
        }
    }
}

/// A connection that hears of changes, until it is dropped.
#[derive(Debug)]
pub struct Listening {
    changes: Arc<DesiredChanges>,
    listener: Uuid,
    ear: Arc<Ear>,
}

impl Listening {
    /// Waits for a change. Cancel-safe.
    pub async fn next(&self) -> Changed {
        self.ear.has_changed.notified().await;
        std::mem::take(&mut *lock(&self.ear.changed))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut ears = lock(&self.changes.ears);
        if let Some(own) = ears.get_mut(&self.listener) {
            own.retain(|ear| !Arc::ptr_eq(ear, &self.ear));
            if own.is_empty() {
                ears.remove(&self.listener);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_listens_hears_of_its_own_and_of_those_it_speaks_for() {
        let changes = Arc::<DesiredChanges>::default();
        let [gateway, child, other] = [1, 2, 3].map(Uuid::from_u128);
        let listening = changes.listen(gateway);
        changes.note(child, Some(gateway));
        changes.note(gateway, None);
        changes.note(other, None);
        let heard = listening.next().await;
        assert_eq!(heard, Changed::These([gateway, child].into()));
        assert!(listening.next().now_or_never().is_none());
        changes.note(child, Some(gateway));
        changes.note_anybody();
        assert_eq!(listening.next().await, Changed::Anybody);
        drop(listening);
        assert!(lock(&changes.ears).is_empty());
    }
}
