//! One connection a device. The device's sequence window is the token that its connection holds: a newer HELLO tells the
//! older connection to end and waits for the window, which it gets once everything the older one had in flight is decided.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::pipeline::window::{SequenceWindow, Watermark};

/// Why a connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The device connected again.
    Superseded,
    /// Its token was changed, or it was disabled or deleted.
    Revoked,
}

/// How a connection hears that it must end.
#[derive(Debug, Default)]
pub struct EndSignal {
    token: CancellationToken,
    reason: OnceLock<EndReason>,
}

impl EndSignal {
    fn send(&self, reason: EndReason) {
        // The first reason stands.
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Waits for the signal.
    pub async fn received(&self) -> EndReason {
        self.token.cancelled().await;
        self.reason.get().copied().unwrap_or(EndReason::Superseded)
    }
}

#[derive(Default)]
struct Device {
    window: Arc<AsyncMutex<SequenceWindow>>,
    current: Option<Arc<EndSignal>>,
}

/// All devices that were heard since the start, or found in the journal.
#[derive(Default)]
pub struct Sessions {
    devices: Mutex<HashMap<Uuid, Device, foldhash::fast::RandomState>>,
}

/// A connection's right to speak for its device.
pub struct Session {
    pub window: OwnedMutexGuard<SequenceWindow>,
    pub end: Arc<EndSignal>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Device, foldhash::fast::RandomState>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the device over from the connection that has it, if any, once that one's events are decided.
    /// None when yet another connection took over meanwhile.
    pub async fn take_over(&self, device_id: Uuid) -> Option<Session> {
        let end = Arc::new(EndSignal::default());
        let window = {
            let mut devices = self.lock();
            let device = devices.entry(device_id).or_default();
            if let Some(older) = device.current.replace(Arc::clone(&end)) {
                older.send(EndReason::Superseded);
            }
            Arc::clone(&device.window)
        };
        tokio::select! {
            biased;
            _ = end.received() => None,
            window = window.lock_owned() => Some(Session { window, end }),
        }
    }

    /// Ends the connections of devices that have lost their right.
    pub fn revoke(&self, device_ids: &[Uuid]) {
        let devices = self.lock();
        for end in device_ids
            .iter()
            .filter_map(|id| devices.get(id)?.current.as_ref())
        {
            end.send(EndReason::Revoked);
        }
    }

    /// Notes what a journal held when it was opened; called before any connection is accepted.
    pub fn recover(&self, device_id: Uuid, found: Watermark) {
        let mut devices = self.lock();
        let device = devices.entry(device_id).or_default();
        if let Ok(mut window) = device.window.try_lock() {
            window.recover(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newer_connection_waits_until_the_older_lets_go() {
        let sessions = Arc::new(Sessions::default());
        let device = Uuid::from_u128(1);
        let older = sessions.take_over(device).await.unwrap();
        let newer = tokio::spawn({
            let sessions = Arc::clone(&sessions);
            async move { sessions.take_over(device).await.is_some() }
        });
        assert_eq!(older.end.received().await, EndReason::Superseded);
        assert!(!newer.is_finished());
        drop(older);
        assert!(newer.await.unwrap());
    }

    #[tokio::test]
    async fn of_two_that_wait_the_newest_wins() {
        let sessions = Arc::new(Sessions::default());
        let device = Uuid::from_u128(1);
        let oldest = sessions.take_over(device).await.unwrap();
        let take = || {
            let sessions = Arc::clone(&sessions);
            tokio::spawn(async move { sessions.take_over(device).await.is_some() })
        };
        let middle = take();
        assert_eq!(oldest.end.received().await, EndReason::Superseded);
        let newest = take();
        assert!(!middle.await.unwrap());
        drop(oldest);
        assert!(newest.await.unwrap());
    }

    #[tokio::test]
    async fn a_revoked_device_is_told_so() {
        let sessions = Sessions::default();
        let session = sessions.take_over(Uuid::from_u128(1)).await.unwrap();
        sessions.revoke(&[Uuid::from_u128(1), Uuid::from_u128(2)]);
        assert_eq!(session.end.received().await, EndReason::Revoked);
    }
}
