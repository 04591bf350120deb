//! Which devices exist, what proves that they are who they say, for whom they may speak, and by which profile what they say is
//! understood. In memory, so that a HELLO costs no query; a snapshot on disk lets the core authenticate, map and poll while
//! PostgreSQL is away.
//!
//! Invariant: `authenticate` takes the same time and gives the same answer for an unknown device, a wrong token and a
//! disabled device.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use uuid::Uuid;

use super::child_names::CalledAs;
use super::profiles::{DeviceProfile, Format, ModbusAddress, ProfileRecord};
use super::tokens::TokenHash;
use super::window::Watermark;
use crate::event::RejectCode;

use known::KnownDevices;
pub use snapshot::SnapshotError;

mod known;
mod snapshot;
#[cfg(test)]
mod tests;

/// One device as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    pub id: Uuid,
    /// SHA-256 of the token's bytes; none for a child that speaks through its gateway only.
    pub token_hash: Option<TokenHash>,
    pub is_enabled: bool,
    pub gateway_id: Option<Uuid>,
    /// The highest epoch that was stored, and the end of its ranges.
    pub epoch: u64,
    pub last_seq: u64,
    // Snapshots of older versions end here.
    #[serde(default)]
    pub profile_id: Option<Uuid>,
    /// Where it answers, when it is polled.
    #[serde(default)]
    pub modbus: Option<Box<ModbusAddress>>,
    /// What a child is called by its gateway; none for other devices, and in snapshots of older releases.
    #[serde(default)]
    pub name: Option<Box<str>>,
    #[serde(default)]
    pub serial_number: Option<Box<str>>,
}

impl DeviceRecord {
    fn called_as(&self) -> Option<CalledAs<'_>> {
        Some(CalledAs {
            child: self.id,
            gateway: self.gateway_id?,
            name: self.name.as_deref(),
            serial_number: self.serial_number.as_deref(),
        })
    }

    fn watermark(&self) -> Watermark {
        Watermark {
            epoch: self.epoch,
            seq: self.last_seq,
        }
    }

    fn credentials(&self) -> (Option<TokenHash>, bool) {
        (self.token_hash, self.is_enabled)
    }

    /// What says whether and where it is polled; none where it is not.
    fn polling(&self) -> Option<(Uuid, &ModbusAddress)> {
        let address = self.modbus.as_deref().filter(|_| self.is_enabled)?;
        Some((self.profile_id?, address))
    }
}

/// A device that is asked for its values.
#[derive(Debug, Clone)]
pub struct PolledDevice {
    pub device_id: Uuid,
    pub address: ModbusAddress,
    /// Of the kind `modbus`.
    pub profile: Arc<DeviceProfile>,
}

impl PartialEq for PolledDevice {
    /// A profile that says the same as before is the same one (`replace_profiles`), so that many devices are compared fast.
    fn eq(&self, other: &Self) -> bool {
        self.device_id == other.device_id
            && self.address == other.address
            && Arc::ptr_eq(&self.profile, &other.profile)
    }
}

/// How a device can be reached, as far as the registry knows; before it was read every device may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    /// It can have a connection of its own, or is polled.
    ByItself,
    /// It speaks through its gateway only.
    ThroughGateway,
    WithoutToken,
    Disabled,
    Unknown,
}

/// One answer for every reason, so that a stranger learns nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown device, wrong token, or disabled device")]
pub struct AuthenticationFailed;

/// A profile with what it was read from.
struct KnownProfile {
    record: ProfileRecord,
    profile: Arc<DeviceProfile>,
}

type Profiles = HashMap<Uuid, KnownProfile, foldhash::fast::RandomState>;

#[derive(Default)]
pub struct DeviceRegistry {
    devices: RwLock<Option<KnownDevices>>,
    /// A step ahead of `devices` while both change. Taken after them where both are.
    profiles: RwLock<Profiles>,
    /// Told when what is polled may have changed.
    polling: watch::Sender<()>,
}

impl DeviceRegistry {
    fn read(&self) -> RwLockReadGuard<'_, Option<KnownDevices>> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<KnownDevices>> {
        self.devices.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_profiles(&self) -> RwLockReadGuard<'_, Profiles> {
        self.profiles.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// False until a snapshot or the database was read: nobody can be told from a stranger before.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.read().is_some()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.read().as_ref().map_or(0, KnownDevices::len)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks a device's token. Returns how far its events were stored when the registry was read.
    ///
    /// # Errors
    /// [`AuthenticationFailed`], for whatever reason.
    pub fn authenticate(
        &self,
        device_id: Uuid,
        token: &str,
    ) -> Result<Watermark, AuthenticationFailed> {
        let said: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let devices = self.read();
        let device = devices.as_ref().and_then(|devices| devices.get(device_id));
        let expected = device
            .and_then(|device| device.token_hash)
            .unwrap_or([0; 32]);
        let is_match = bool::from(said.ct_eq(&expected));
        match device {
            Some(device) if is_match && device.is_enabled => Ok(device.watermark()),
            _ => Err(AuthenticationFailed),
        }
    }

    /// Checks the token of a device that does not say who it is. Returns who it is, and as [`Self::authenticate`] does.
    ///
    /// # Errors
    /// [`AuthenticationFailed`], for whatever reason.
    pub fn authenticate_by_token(
        &self,
        token: &str,
    ) -> Result<(Uuid, Watermark), AuthenticationFailed> {
        let said: TokenHash = Sha256::digest(token.as_bytes()).into();
        let owner = (self.read().as_ref()).and_then(|devices| devices.owner_of(&said));
        let owner = owner.unwrap_or(Uuid::nil());
        self.authenticate(owner, token).map(|known| (owner, known))
    }

    /// May `gateway` report events of `child`?
    ///
    /// # Errors
    /// `unknown_device` or `forbidden_device`.
    pub fn may_speak_for(&self, gateway: Uuid, child: Uuid) -> Result<(), RejectCode> {
        if gateway == child {
            return Ok(());
        }
        let devices = self.read();
        match devices.as_ref().and_then(|devices| devices.get(child)) {
            None => Err(RejectCode::UnknownDevice),
            Some(device) if device.gateway_id == Some(gateway) && device.is_enabled => Ok(()),
            Some(_) => Err(RejectCode::ForbiddenDevice),
        }
    }

    /// The child that `gateway` calls by this name or serial number, if it may speak for it.
    #[must_use]
    pub fn child_of(&self, gateway: Uuid, name: &str) -> Option<Uuid> {
        let child = self.read().as_ref()?.child_of(gateway, name)?;
        self.may_speak_for(gateway, child).ok().map(|()| child)
    }

    /// Who speaks for a device; none for one that speaks for itself.
    #[must_use]
    pub fn gateway_of(&self, device: Uuid) -> Option<Uuid> {
        let devices = self.read();
        devices.as_ref()?.get(device)?.gateway_id
    }

    /// What a child is called, and the gateway that means it by that ([`Self::child_of`]); none for what is no child, or has no
    /// name of its own.
    #[must_use]
    pub fn gateway_and_name_of(&self, child: Uuid) -> Option<(Uuid, Box<str>)> {
        let devices = self.read();
        let devices = devices.as_ref()?;
        let device = devices.get(child)?;
        let gateway = device.gateway_id?;
        let mut own = [&device.name, &device.serial_number].into_iter().flatten();
        let name = own.find(|name| devices.child_of(gateway, name) == Some(child))?;
        Some((gateway, name.clone()))
    }

    /// May events of `device` be taken from a service that speaks for it?
    ///
    /// # Errors
    /// `unknown_device`, or `forbidden_device` for one that is disabled.
    pub fn may_be_spoken_for(&self, device: Uuid) -> Result<(), RejectCode> {
        let devices = self.read();
        match devices.as_ref().and_then(|devices| devices.get(device)) {
            None => Err(RejectCode::UnknownDevice),
            Some(device) if device.is_enabled => Ok(()),
            Some(_) => Err(RejectCode::ForbiddenDevice),
        }
    }

    /// Whether a device that is not connected could be.
    #[must_use]
    pub fn reachability(&self, device: Uuid) -> Reachability {
        let devices = self.read();
        let Some(devices) = devices.as_ref() else {
            return Reachability::ByItself;
        };
        match devices.get(device) {
            None => Reachability::Unknown,
            Some(device) if !device.is_enabled => Reachability::Disabled,
            Some(device) if device.token_hash.is_some() || device.polling().is_some() => {
                Reachability::ByItself
            }
            Some(device) if device.gateway_id.is_some() => Reachability::ThroughGateway,
            Some(_) => Reachability::WithoutToken,
        }
    }

    /// The profile of a device that has one.
    #[must_use]
    pub fn profile_of(&self, device: Uuid) -> Option<Arc<DeviceProfile>> {
        let devices = self.read();
        let profile_id = devices.as_ref()?.get(device)?.profile_id?;
        let profiles = self.read_profiles();
        profiles
            .get(&profile_id)
            .map(|known| Arc::clone(&known.profile))
    }

    /// The devices that are asked for their values.
    #[must_use]
    pub fn polled(&self) -> Vec<PolledDevice> {
        let devices = self.read();
        let profiles = self.read_profiles();
        let polled = |device: &DeviceRecord| {
            let (profile_id, address) = device.polling()?;
            let profile = &profiles.get(&profile_id)?.profile;
            matches!(profile.format, Format::Modbus(_)).then(|| PolledDevice {
                device_id: device.id,
                address: address.clone(),
                profile: Arc::clone(profile),
            })
        };
        let devices = devices.iter().flat_map(KnownDevices::all);
        devices.filter_map(polled).collect()
    }

    /// Hears when [`Self::polled`] may answer otherwise than before.
    #[must_use]
    pub fn polling_changes(&self) -> watch::Receiver<()> {
        self.polling.subscribe()
    }

    /// Takes a reading of the profiles `ids`, or of all: those not among `records` are gone.
    pub fn replace_profiles(&self, ids: Option<&[Uuid]>, records: Vec<ProfileRecord>) {
        let mut is_changed = false;
        {
            let mut profiles = self
                .profiles
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let is_read = |id: &Uuid| ids.is_none_or(|ids| ids.contains(id));
            let found: HashSet<_> = records.iter().map(|record| record.id).collect();
            profiles.retain(|id, _| {
                let is_kept = found.contains(id) || !is_read(id);
                is_changed |= !is_kept;
                is_kept
            });
            for record in records {
                let known = profiles.get(&record.id);
                if known.is_some_and(|known| known.record == record) {
                    continue;
                }
                is_changed = true;
                let profile = Arc::new(DeviceProfile::of(&record));
                profiles.insert(record.id, KnownProfile { record, profile });
            }
        }
        if is_changed {
            self.polling.send_replace(());
        }
    }

    /// Takes a whole reading of the database. Returns the devices whose open connections have lost their right.
    pub fn replace_all(&self, records: Vec<DeviceRecord>) -> Vec<Uuid> {
        let fresh = KnownDevices::of(records);
        let stale = self.write().replace(fresh).unwrap_or_default();
        let devices = self.read();
        let now = |id| devices.as_ref().and_then(|devices| devices.get(id));
        if devices.as_ref().map(KnownDevices::polling) != Some(stale.polling()) {
            self.polling.send_replace(());
        }
        let has_lost = |old: &&DeviceRecord| {
            now(old.id).map(DeviceRecord::credentials) != Some(old.credentials())
        };
        stale.all().filter(has_lost).map(|old| old.id).collect()
    }

    /// Takes a reading of the devices `ids`: those not among `records` are gone. Returns as [`Self::replace_all`] does.
    pub fn replace(&self, ids: &[Uuid], records: Vec<DeviceRecord>) -> Vec<Uuid> {
        let records = records.into_iter().map(|record| (record.id, record));
        let mut fresh: HashMap<Uuid, DeviceRecord> = records.collect();
        let mut guard = self.write();
        let Some(devices) = guard.as_mut() else {
            return Vec::new();
        };
        let mut cut = Vec::new();
        let mut is_polling_changed = false;
        for id in ids {
            let old = devices.put(*id, fresh.remove(id));
            let (old, new) = (old.as_ref(), devices.get(*id));
            is_polling_changed |=
                old.and_then(DeviceRecord::polling) != new.and_then(DeviceRecord::polling);
            if old.is_some_and(|old| new.map(DeviceRecord::credentials) != Some(old.credentials()))
            {
                cut.push(*id);
            }
        }
        drop(guard);
        if is_polling_changed {
            self.polling.send_replace(());
        }
        cut
    }

    /// Notes how far devices' events are durable here, so that the next snapshot says it.
    pub fn note_watermarks(&self, watermarks: &[(Uuid, Watermark)]) {
        if let Some(devices) = self.write().as_mut() {
            for (id, found) in watermarks {
                devices.note_watermark(*id, *found);
            }
        }
    }
}
