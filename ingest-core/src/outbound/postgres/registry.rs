//! Keeps the device registry as fresh as the database: read whole at the start and now and then, and by the ids that
//! `NOTIFY hse_devices` names in between.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep};
use tokio_postgres::{AsyncMessage, Client, Row};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::connection::{Database, classify, within_deadline};
use crate::config::REGISTRY_RECONCILE_EVERY;
use crate::metrics::Metrics;
use crate::pipeline::circuit::Circuit;
use crate::pipeline::ports::SinkError;
use crate::pipeline::registry::{DeviceRecord, DeviceRegistry};

/// Notifications that come together are read together.
const GATHER: Duration = Duration::from_millis(50);
/// The snapshot is written at most this often.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(2);
/// Notifications kept while a reading is under way; beyond it the whole registry is read.
const NOTIFICATIONS_MAX: usize = 1024;

const SELECT: &str = "
    select d.id, d.token_hash, d.is_enabled, d.gateway_id, coalesce(s.epoch, 0), coalesce(upper(s.stored) - 1, 0)
      from devices d
      left join lateral (select epoch, stored from device_sequences where device_id = d.id order by epoch desc limit 1) s on true";

/// What a notification asks to be read.
#[derive(Debug, PartialEq, Eq)]
enum Changed {
    These(HashSet<Uuid>),
    All,
}

impl Changed {
    fn parse(payload: &str) -> Self {
        let ids: Result<_, _> = payload.split(',').map(Uuid::parse_str).collect();
        ids.map_or(Self::All, Self::These)
    }

    fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::These(mut ids), Self::These(more)) => {
                ids.extend(more);
                Self::These(ids)
            }
            _ => Self::All,
        }
    }
}

/// Follows the `devices` table.
pub struct RegistryFollower<Cut: Fn(Vec<Uuid>)> {
    pub database: Database,
    pub registry: Arc<DeviceRegistry>,
    pub snapshot: PathBuf,
    pub metrics: Arc<Metrics>,
    /// Set when the database was read, or could not be, for the first time.
    pub first_attempt: CancellationToken,
    /// Called with the devices whose open connections have lost their right.
    pub cut: Cut,
}

impl<Cut: Fn(Vec<Uuid>)> RegistryFollower<Cut> {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut delays = Circuit::new(Arc::default());
        loop {
            let failure = tokio::select! {
                () = stop.cancelled() => return,
                failure = self.follow(&mut delays) => failure,
            };
            self.first_attempt.cancel();
            warn!(error = %failure, "device registry is not being followed; trying again");
            tokio::select! {
                () = stop.cancelled() => return,
                () = delays.open() => {}
            }
        }
    }

    async fn follow(&self, delays: &mut Circuit) -> SinkError {
        match self.follow_one_connection(delays).await {
            Err(failure) => failure,
            Ok(()) => SinkError::Away("connection for notifications ended".to_owned()),
        }
    }

    async fn follow_one_connection(&self, delays: &mut Circuit) -> Result<(), SinkError> {
        let (sender, mut notifications) = mpsc::channel(NOTIFICATIONS_MAX);
        let is_overflown = Arc::new(AtomicBool::new(false));
        let overflown = Arc::clone(&is_overflown);
        let notice = move |message| {
            if let AsyncMessage::Notification(notification) = message
                && sender
                    .try_send(Changed::parse(notification.payload()))
                    .is_err()
            {
                overflown.store(true, Ordering::Release);
            }
        };
        let client = self.database.connect(notice).await?;
        // Listening before reading: what changes in between is notified.
        within_deadline(async {
            client
                .batch_execute("listen hse_devices")
                .await
                .map_err(classify)
        })
        .await?;
        self.read(&client, Changed::All).await?;
        delays.close();
        self.first_attempt.cancel();
        info!(devices = self.registry.len(), "device registry read");
        let mut reconcile = interval(REGISTRY_RECONCILE_EVERY);
        reconcile.tick().await;
        let mut last_saved = self.save().await;
        let mut is_saved = true;
        loop {
            let save_due = last_saved + SNAPSHOT_EVERY;
            tokio::select! {
                changed = notifications.recv() => {
                    let Some(mut changed) = changed else { return Ok(()) };
                    sleep(GATHER).await;
                    if is_overflown.swap(false, Ordering::AcqRel) {
                        changed = Changed::All;
                    }
                    while let Ok(more) = notifications.try_recv() {
                        changed = changed.join(more);
                    }
                    self.read(&client, changed).await?;
                    is_saved = false;
                }
                _ = reconcile.tick() => {
                    self.read(&client, Changed::All).await?;
                    is_saved = false;
                }
                () = tokio::time::sleep_until(save_due), if !is_saved => {
                    last_saved = self.save().await;
                    is_saved = true;
                }
            }
        }
    }

    async fn read(&self, client: &Client, changed: Changed) -> Result<(), SinkError> {
        let lost = match changed {
            Changed::All => {
                let rows =
                    within_deadline(async { client.query(SELECT, &[]).await.map_err(classify) })
                        .await?;
                self.metrics.registry_reloads.inc();
                self.registry.replace_all(records(&rows).map_err(classify)?)
            }
            Changed::These(ids) => {
                let ids: Vec<_> = ids.into_iter().collect();
                let select = format!("{SELECT} where d.id = any($1)");
                let rows = within_deadline(async {
                    client.query(&select, &[&ids]).await.map_err(classify)
                })
                .await?;
                self.registry
                    .replace(&ids, records(&rows).map_err(classify)?)
            }
        };
        (self.cut)(lost);
        Ok(())
    }

    async fn save(&self) -> Instant {
        let (registry, path) = (Arc::clone(&self.registry), self.snapshot.clone());
        match tokio::task::spawn_blocking(move || registry.save(&path)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(%error, "a start without the database would use the older snapshot")
            }
            Err(error) => warn!(%error, "registry snapshot was not written"),
        }
        Instant::now()
    }
}

fn records(rows: &[Row]) -> Result<Vec<DeviceRecord>, tokio_postgres::Error> {
    rows.iter()
        .map(|row| {
            // The table checks that a hash has 32 bytes.
            let token_hash = row
                .try_get::<_, Option<&[u8]>>(1)?
                .and_then(|hash| hash.try_into().ok());
            Ok(DeviceRecord {
                id: row.try_get(0)?,
                token_hash,
                is_enabled: row.try_get(2)?,
                gateway_id: row.try_get(3)?,
                epoch: row.try_get::<_, i64>(4)?.cast_unsigned(),
                last_seq: row.try_get::<_, i64>(5)?.cast_unsigned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_names_ids_or_asks_for_all() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(
            Changed::parse(&format!("{a},{b}")),
            Changed::These([a, b].into())
        );
        assert_eq!(Changed::parse("reload"), Changed::All);
        assert_eq!(Changed::parse(""), Changed::All);
        assert_eq!(Changed::These([a].into()).join(Changed::All), Changed::All);
    }
}
