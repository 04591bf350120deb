//! One connection a device. The device's sequence window is the token that its connection holds: a newer HELLO tells the
//! older connection to end and waits for the window, which it gets once everything the older one had in flight is decided.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::window::{SequenceWindow, StaleEpoch, Watermark};

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

    /// Why, when it was sent.
    #[must_use]
    pub fn sent(&self) -> Option<EndReason> {
        self.token.is_cancelled().then(|| self.reason())
    }

    fn reason(&self) -> EndReason {
        self.reason.get().copied().unwrap_or(EndReason::Superseded)
    }

    /// Waits for the signal.
    pub async fn received(&self) -> EndReason {
        self.token.cancelled().await;
        self.reason()
    }
}

#[derive(Default)]
struct Device {
    window: Arc<AsyncMutex<SequenceWindow>>,
    current: Option<Arc<EndSignal>>,
    /// The highest epoch that was said or found; a lower one does not disturb the connection that is.
    epoch: u64,
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

/// Why a connection does not get its device.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TakeOverError {
    #[error(transparent)]
    StaleEpoch(#[from] StaleEpoch),
    #[error("ended while it waited: {0:?}")]
    Ended(EndReason),
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Device, foldhash::fast::RandomState>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the device over from the connection that has it, if any, once that one's events are decided. `known` is how
    /// far the registry says that its events were stored. A connection that says no epoch goes on in the one that is.
    /// Returns the session and `last_seq` for its WELCOME.
    ///
    /// # Errors
    /// [`TakeOverError`]: the epoch is below one that was used, or the connection was ended while it waited.
    pub async fn take_over(
        &self,
        device_id: Uuid,
        epoch: Option<u64>,
        known: Watermark,
    ) -> Result<(Session, u64), TakeOverError> {
        let end = Arc::new(EndSignal::default());
        let (window, at_least) = {
            let mut devices = self.lock();
            let device = devices.entry(device_id).or_default();
            device.epoch = device.epoch.max(known.epoch);
            let said = epoch.unwrap_or(device.epoch);
            if said < device.epoch {
                return Err(StaleEpoch {
                    said,
                    known: device.epoch,
                }
                .into());
            }
            device.epoch = said;
            if let Some(older) = device.current.replace(Arc::clone(&end)) {
                older.send(EndReason::Superseded);
            }
            (Arc::clone(&device.window), said)
        };
        let mut window = tokio::select! {
            biased;
            reason = end.received() => return Err(TakeOverError::Ended(reason)),
            window = window.lock_owned() => window,
        };
        // The older one may have begun another epoch meanwhile.
        let epoch = epoch.unwrap_or(at_least.max(window.epoch()));
        let last_seq = window.resume(epoch, known)?;
        Ok((Session { window, end }, last_seq))
    }

    /// A connection goes on in a higher epoch, with nothing in flight. Returns how far its events are durable.
    ///
    /// # Errors
    /// [`StaleEpoch`]: it is not higher.
    pub fn begin_epoch(
        &self,
        device_id: Uuid,
        window: &mut SequenceWindow,
        epoch: u64,
        known: Watermark,
    ) -> Result<u64, StaleEpoch> {
        let last_seq = window.resume(epoch, known)?;
        let mut devices = self.lock();
        let device = devices.entry(device_id).or_default();
        device.epoch = device.epoch.max(epoch);
        Ok(last_seq)
    }

    /// How far each device's events are durable, as far as no connection is about to change it.
    pub fn watermarks(&self) -> Vec<(Uuid, Watermark)> {
        let devices = self.lock();
        let watermark = |device: &Device| {
            let window = device.window.try_lock().ok()?;
            Some(Watermark {
                epoch: window.epoch(),
                seq: window.durable(),
            })
        };
        devices
            .iter()
            .filter_map(|(id, device)| Some((*id, watermark(device)?)))
            .collect()
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
        device.epoch = device.epoch.max(found.epoch);
        if let Ok(mut window) = device.window.try_lock() {
            window.recover(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Uuid = Uuid::from_u128(1);

    async fn take(sessions: &Sessions, epoch: u64) -> Result<Session, TakeOverError> {
        let taken = sessions
            .take_over(DEVICE, Some(epoch), Watermark::default())
            .await;
        taken.map(|(session, _)| session)
    }

    fn taking(sessions: &Arc<Sessions>) -> tokio::task::JoinHandle<Option<TakeOverError>> {
        let sessions = Arc::clone(sessions);
        tokio::spawn(async move { take(&sessions, 1).await.err() })
    }

    #[tokio::test]
    async fn a_newer_connection_waits_until_the_older_lets_go() {
        let sessions = Arc::new(Sessions::default());
        let older = take(&sessions, 1).await.unwrap();
        let newer = taking(&sessions);
        assert_eq!(older.end.received().await, EndReason::Superseded);
        assert!(!newer.is_finished());
        drop(older);
        assert_eq!(newer.await.unwrap(), None);
    }

    #[tokio::test]
    async fn of_two_that_wait_the_newest_wins() {
        let sessions = Arc::new(Sessions::default());
        let oldest = take(&sessions, 1).await.unwrap();
        let middle = taking(&sessions);
        assert_eq!(oldest.end.received().await, EndReason::Superseded);
        let newest = taking(&sessions);
        assert_eq!(
            middle.await.unwrap(),
            Some(TakeOverError::Ended(EndReason::Superseded))
        );
        drop(oldest);
        assert_eq!(newest.await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_stale_epoch_does_not_disturb_the_connection_that_is() {
        let sessions = Sessions::default();
        let live = take(&sessions, 3).await.unwrap();
        let stale = take(&sessions, 2).await.err();
        assert_eq!(stale, Some(StaleEpoch { said: 2, known: 3 }.into()));
        assert!(!live.end.token.is_cancelled());
    }

    #[tokio::test]
    async fn a_connection_that_says_no_epoch_goes_on_in_the_one_that_is() {
        let sessions = Sessions::default();
        let known = Watermark { epoch: 2, seq: 9 };
        let (mut session, last_seq) = sessions.take_over(DEVICE, None, known).await.unwrap();
        assert_eq!((session.window.epoch(), last_seq), (2, 9));
        let begun = sessions.begin_epoch(DEVICE, &mut session.window, 3, known);
        assert_eq!(begun, Ok(0));
        drop(session);
        assert!(take(&sessions, 2).await.is_err());
        let (session, _) = sessions.take_over(DEVICE, None, known).await.unwrap();
        assert_eq!(session.window.epoch(), 3);
    }

    #[tokio::test]
    async fn a_connection_that_says_no_epoch_goes_on_in_one_that_began_while_it_waited() {
        let sessions = Arc::new(Sessions::default());
        let mut older = take(&sessions, 1).await.unwrap();
        let waiting = tokio::spawn({
            let sessions = Arc::clone(&sessions);
            async move { sessions.take_over(DEVICE, None, Watermark::default()).await }
        });
        assert_eq!(older.end.received().await, EndReason::Superseded);
        let begun = sessions.begin_epoch(DEVICE, &mut older.window, 3, Watermark::default());
        assert_eq!(begun, Ok(0));
        drop(older);
        let (session, _) = waiting.await.unwrap().unwrap();
        assert_eq!(session.window.epoch(), 3);
    }

    #[tokio::test]
    async fn a_connection_that_waits_is_told_why_it_gets_nothing() {
        let sessions = Arc::new(Sessions::default());
        let live = take(&sessions, 1).await.unwrap();
        let waiting = taking(&sessions);
        assert_eq!(live.end.received().await, EndReason::Superseded);
        sessions.revoke(&[DEVICE]);
        let told = waiting.await.unwrap();
        assert_eq!(told, Some(TakeOverError::Ended(EndReason::Revoked)));
    }

    #[tokio::test]
    async fn a_revoked_device_is_told_so() {
        let sessions = Sessions::default();
        let session = take(&sessions, 1).await.unwrap();
        sessions.revoke(&[DEVICE, Uuid::from_u128(2)]);
        assert_eq!(session.end.received().await, EndReason::Revoked);
    }
}
