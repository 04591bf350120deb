//! Keeps the device registry as fresh as the database: read whole at the start and now and then, and by the ids that
//! `NOTIFY hse_devices` and `NOTIFY hse_device_profiles` name in between.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
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
use crate::pipeline::profiles::{ModbusAddress, ProfileRecord};
use crate::pipeline::registry::{DeviceRecord, DeviceRegistry};

/// Notifications that come together are read together.
const GATHER: Duration = Duration::from_millis(50);
/// The snapshot is written at most this often.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(2);
/// Notifications kept while a reading is under way; beyond it the whole registry is read.
const NOTIFICATIONS_MAX: usize = 1024;

const SELECT: &str = "
    select d.id, d.token_hash, d.is_enabled, d.gateway_id, coalesce(s.epoch, 0), coalesce(upper(s.stored) - 1, 0), d.profile_id, d.modbus,
           case when d.gateway_id is not null then d.name end, case when d.gateway_id is not null then d.serial_number end
      from devices d
      left join lateral (select epoch, stored from device_sequences where device_id = d.id order by epoch desc limit 1) s on true";

const SELECT_PROFILES: &str =
    "select id, version, expected_interval_s, points, format, organization_id from device_profiles";
const LISTEN: &str = "listen hse_devices; listen hse_device_profiles";
/// The channel that tells of profiles; the other tells of devices.
const PROFILES_CHANNEL: &str = "hse_device_profiles";

/// Which rows of a table are to be read.
#[derive(Debug, PartialEq, Eq)]
enum Rows {
    These(HashSet<Uuid>),
    All,
}

impl Rows {
    fn none() -> Self {
        Self::These(HashSet::new())
    }

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

    /// None where all are to be read.
    fn into_ids(self) -> Option<Vec<Uuid>> {
        match self {
            Self::These(ids) => Some(ids.into_iter().collect()),
            Self::All => None,
        }
    }
}

/// What a notification asks to be read.
#[derive(Debug, PartialEq, Eq)]
struct Changed {
    devices: Rows,
    profiles: Rows,
}

impl Changed {
    const ALL: Self = Self {
        devices: Rows::All,
        profiles: Rows::All,
    };

    fn parse(channel: &str, payload: &str) -> Self {
        let rows = Rows::parse(payload);
        let (devices, profiles) = match channel {
            PROFILES_CHANNEL => (Rows::none(), rows),
            _ => (rows, Rows::none()),
        };
        Self { devices, profiles }
    }

    fn join(self, other: Self) -> Self {
        Self {
            devices: self.devices.join(other.devices),
            profiles: self.profiles.join(other.profiles),
        }
    }
}

/// Follows the tables `devices` and `device_profiles`.
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
            if let AsyncMessage::Notification(notification) = message {
                let changed = Changed::parse(notification.channel(), notification.payload());
                if sender.try_send(changed).is_err() {
                    overflown.store(true, Ordering::Release);
                }
            }
        };
        let client = self.database.connect(notice).await?;
        // Listening before reading: what changes in between is notified.
        within_deadline(async { client.batch_execute(LISTEN).await.map_err(classify) }).await?;
        self.read(&client, Changed::ALL).await?;
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
                        changed = Changed::ALL;
                    }
                    while let Ok(more) = notifications.try_recv() {
                        changed = changed.join(more);
                    }
                    self.read(&client, changed).await?;
                    is_saved = false;
                }
                _ = reconcile.tick() => {
                    self.read(&client, Changed::ALL).await?;
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
        let (devices, profiles) = (changed.devices.into_ids(), changed.profiles.into_ids());
        let device_rows = select(client, SELECT, "d.id", devices.as_deref()).await?;
        // Read later and taken earlier than devices: no device is shown with a profile that is not there.
        let profile_rows = select(client, SELECT_PROFILES, "id", profiles.as_deref()).await?;
        let found = profile_records(&profile_rows).map_err(classify)?;
        self.registry.replace_profiles(profiles.as_deref(), found);
        let found = records(&device_rows).map_err(classify)?;
        let lost = match devices {
            None => {
                self.metrics.registry_reloads.inc();
                self.registry.replace_all(found)
            }
            Some(ids) => self.registry.replace(&ids, found),
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

/// The rows that `select` finds, of all or of `ids` in `column`.
async fn select(
    client: &Client,
    select: &str,
    column: &str,
    ids: Option<&[Uuid]>,
) -> Result<Vec<Row>, SinkError> {
    within_deadline(async {
        match ids {
            None => client.query(select, &[]).await.map_err(classify),
            Some([]) => Ok(Vec::new()),
            Some(ids) => {
                let select = format!("{select} where {column} = any($1)");
                client.query(&select, &[&ids]).await.map_err(classify)
            }
        }
    })
    .await
}

fn records(rows: &[Row]) -> Result<Vec<DeviceRecord>, tokio_postgres::Error> {
    rows.iter()
        .map(|row| {
            // The table checks that a hash has 32 bytes.
            let token_hash = row
                .try_get::<_, Option<&[u8]>>(1)?
                .and_then(|hash| hash.try_into().ok());
            let id = row.try_get(0)?;
            Ok(DeviceRecord {
                id,
                token_hash,
                is_enabled: row.try_get(2)?,
                gateway_id: row.try_get(3)?,
                epoch: row.try_get::<_, i64>(4)?.cast_unsigned(),
                last_seq: row.try_get::<_, i64>(5)?.cast_unsigned(),
                profile_id: row.try_get(6)?,
                modbus: modbus_address(id, row.try_get(7)?),
                name: row.try_get(8)?,
                serial_number: row.try_get(9)?,
            })
        })
        .collect()
}

/// None for one that a later version has written and this one does not know.
fn modbus_address(device_id: Uuid, json: Option<Value>) -> Option<Box<ModbusAddress>> {
    let read = serde_json::from_value(json?);
    read.inspect_err(|error| warn!(%device_id, %error, "device is not polled: its address is not understood here"))
        .ok()
}

fn profile_records(rows: &[Row]) -> Result<Vec<ProfileRecord>, tokio_postgres::Error> {
    rows.iter()
        .map(|row| {
            Ok(ProfileRecord {
                id: row.try_get(0)?,
                version: row.try_get(1)?,
                expected_interval_s: row.try_get(2)?,
                points: row.try_get(3)?,
                format: row.try_get(4)?,
                organization_id: row.try_get(5)?,
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
        assert_eq!(Rows::parse(&format!("{a},{b}")), Rows::These([a, b].into()));
        assert_eq!(Rows::parse("reload"), Rows::All);
        assert_eq!(Rows::parse(""), Rows::All);
        assert_eq!(Rows::These([a].into()).join(Rows::All), Rows::All);
    }

    #[test]
    fn a_notification_of_profiles_asks_for_no_device() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let of_profile = Changed::parse("hse_device_profiles", &a.to_string());
        assert_eq!(of_profile.devices, Rows::none());
        let both = of_profile.join(Changed::parse("hse_devices", &b.to_string()));
        assert_eq!(both.devices, Rows::These([b].into()));
        assert_eq!(both.profiles, Rows::These([a].into()));
    }
}
