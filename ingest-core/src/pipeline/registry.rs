//! Which devices exist, what proves that they are who they say, and for whom they may speak. In memory, so that a
//! HELLO costs no query; a snapshot on disk lets the core authenticate while PostgreSQL is away.
//!
//! Invariant: `authenticate` takes the same time and gives the same answer for an unknown device, a wrong token and a
//! disabled device.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::tokens::{TokenHash, TokenOwners};
use super::window::Watermark;
use crate::event::RejectCode;

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
}

impl DeviceRecord {
    fn token(&self) -> Option<(TokenHash, Uuid)> {
        self.token_hash.map(|hash| (hash, self.id))
    }

    fn credentials(&self) -> (Option<[u8; 32]>, bool) {
        (self.token_hash, self.is_enabled)
    }
}

/// How a device can be reached, as far as the registry knows; before it was read every device may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    /// It can have a connection of its own.
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

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("registry snapshot: {0}")]
    Io(#[from] io::Error),
    #[error("registry snapshot cannot be read; it is made anew once the database answers: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    #[error("registry snapshot: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

type Devices = HashMap<Uuid, DeviceRecord, foldhash::fast::RandomState>;

#[derive(Default)]
pub struct DeviceRegistry {
    devices: RwLock<Option<Devices>>,
    /// A step behind `devices` while they change; who is found here is looked at there.
    owners: RwLock<TokenOwners>,
}

impl DeviceRegistry {
    fn read(&self) -> RwLockReadGuard<'_, Option<Devices>> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Devices>> {
        self.devices.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_owners(&self) -> RwLockReadGuard<'_, TokenOwners> {
        self.owners.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_owners(&self) -> RwLockWriteGuard<'_, TokenOwners> {
        self.owners.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// False until a snapshot or the database was read: nobody can be told from a stranger before.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.read().is_some()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.read().as_ref().map_or(0, HashMap::len)
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
        let device = devices.as_ref().and_then(|devices| devices.get(&device_id));
        let expected = device
            .and_then(|device| device.token_hash)
            .unwrap_or([0; 32]);
        let is_match = bool::from(said.ct_eq(&expected));
        match device {
            Some(device) if is_match && device.is_enabled => Ok(Watermark {
                epoch: device.epoch,
                seq: device.last_seq,
            }),
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
        let owner = self.read_owners().owner(&said).unwrap_or(Uuid::nil());
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
        match devices.as_ref().and_then(|devices| devices.get(&child)) {
            None => Err(RejectCode::UnknownDevice),
            Some(device) if device.gateway_id == Some(gateway) && device.is_enabled => Ok(()),
            Some(_) => Err(RejectCode::ForbiddenDevice),
        }
    }

    /// May events of `device` be taken from a service that speaks for it?
    ///
    /// # Errors
    /// `unknown_device`, or `forbidden_device` for one that is disabled.
    pub fn may_be_spoken_for(&self, device: Uuid) -> Result<(), RejectCode> {
        let devices = self.read();
        match devices.as_ref().and_then(|devices| devices.get(&device)) {
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
        match devices.get(&device) {
            None => Reachability::Unknown,
            Some(device) if !device.is_enabled => Reachability::Disabled,
            Some(device) if device.token_hash.is_some() => Reachability::ByItself,
            Some(device) if device.gateway_id.is_some() => Reachability::ThroughGateway,
            Some(_) => Reachability::WithoutToken,
        }
    }

    /// Takes a whole reading of the database. Returns the devices whose open connections have lost their right.
    pub fn replace_all(&self, records: Vec<DeviceRecord>) -> Vec<Uuid> {
        let fresh: Devices = records
            .into_iter()
            .map(|record| (record.id, record))
            .collect();
        let tokens = fresh.values().filter_map(DeviceRecord::token);
        let owners = TokenOwners::of(tokens);
        let stale = self.write().replace(fresh);
        *self.write_owners() = owners;
        let Some(stale) = stale else {
            return Vec::new();
        };
        let devices = self.read();
        let now = |id| {
            devices
                .as_ref()
                .and_then(|devices| devices.get(id))
                .map(DeviceRecord::credentials)
        };
        stale
            .iter()
            .filter(|(id, old)| now(id) != Some(old.credentials()))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Takes a reading of the devices `ids`: those not among `records` are gone. Returns as [`Self::replace_all`] does.
    pub fn replace(&self, ids: &[Uuid], records: Vec<DeviceRecord>) -> Vec<Uuid> {
        let mut fresh: Devices = records
            .into_iter()
            .map(|record| (record.id, record))
            .collect();
        let mut guard = self.write();
        let Some(devices) = guard.as_mut() else {
            return Vec::new();
        };
        let mut owners = self.write_owners();
        let mut cut = Vec::new();
        for id in ids {
            let new = fresh.remove(id);
            let old = devices.remove(id);
            if let Some((hash, _)) = old.as_ref().and_then(DeviceRecord::token) {
                owners.remove(&hash, *id);
            }
            if let Some((hash, _)) = new.as_ref().and_then(DeviceRecord::token) {
                owners.add(hash, *id);
            }
            if old.is_some_and(|old| {
                new.as_ref().map(DeviceRecord::credentials) != Some(old.credentials())
            }) {
                cut.push(*id);
            }
            if let Some(new) = new {
                devices.insert(*id, new);
            }
        }
        cut
    }

    /// Notes how far devices' events are durable here, so that the next snapshot says it.
    pub fn note_watermarks(&self, watermarks: &[(Uuid, Watermark)]) {
        let mut guard = self.write();
        let Some(devices) = guard.as_mut() else {
            return;
        };
        for (id, found) in watermarks {
            if let Some(device) = devices.get_mut(id) {
                let latest = Watermark {
                    epoch: device.epoch,
                    seq: device.last_seq,
                }
                .later(*found);
                (device.epoch, device.last_seq) = (latest.epoch, latest.seq);
            }
        }
    }

    /// Writes the snapshot so that a crash leaves the old one or the new one, readable by its owner only.
    ///
    /// # Errors
    /// [`SnapshotError`]; the snapshot that was there stays.
    pub fn save(&self, path: &Path) -> Result<(), SnapshotError> {
        let bytes = {
            let devices = self.read();
            let Some(devices) = devices.as_ref() else {
                return Ok(());
            };
            rmp_serde::to_vec(&devices.values().collect::<Vec<_>>())?
        };
        let fresh = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        path.parent()
            .map_or(Ok(()), |directory| File::open(directory)?.sync_all())?;
        Ok(())
    }

    /// Reads the snapshot, if there is one.
    ///
    /// # Errors
    /// [`SnapshotError`] when it is there and cannot be read.
    pub fn restore(&self, path: &Path) -> Result<(), SnapshotError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.replace_all(rmp_serde::from_slice(&bytes)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: u128, token: &str) -> DeviceRecord {
        DeviceRecord {
            id: Uuid::from_u128(id),
            token_hash: Some(Sha256::digest(token.as_bytes()).into()),
            is_enabled: true,
            gateway_id: None,
            epoch: 2,
            last_seq: 9,
        }
    }

    fn registry(records: Vec<DeviceRecord>) -> DeviceRegistry {
        let registry = DeviceRegistry::default();
        registry.replace_all(records);
        registry
    }

    #[test]
    fn the_right_token_of_an_enabled_device_is_let_in() {
        let disabled = DeviceRecord {
            is_enabled: false,
            ..device(2, "b")
        };
        let registry = registry(vec![device(1, "a"), disabled]);
        assert_eq!(
            registry.authenticate(Uuid::from_u128(1), "a"),
            Ok(Watermark { epoch: 2, seq: 9 })
        );
        assert_eq!(
            registry.authenticate(Uuid::from_u128(1), "b"),
            Err(AuthenticationFailed)
        );
        assert_eq!(
            registry.authenticate(Uuid::from_u128(2), "b"),
            Err(AuthenticationFailed)
        );
        assert_eq!(
            registry.authenticate(Uuid::from_u128(3), "a"),
            Err(AuthenticationFailed)
        );
    }

    #[test]
    fn a_token_alone_says_who_it_is_while_it_is_the_device_s() {
        let registry = registry(vec![device(1, "a"), device(2, "b")]);
        let (one, known) = (Uuid::from_u128(1), Watermark { epoch: 2, seq: 9 });
        assert_eq!(registry.authenticate_by_token("a"), Ok((one, known)));
        assert_eq!(
            registry.authenticate_by_token("c"),
            Err(AuthenticationFailed)
        );
        registry.replace(&[one], vec![device(1, "c")]);
        assert_eq!(registry.authenticate_by_token("c"), Ok((one, known)));
        assert_eq!(
            registry.authenticate_by_token("a"),
            Err(AuthenticationFailed)
        );
        let disabled = DeviceRecord {
            is_enabled: false,
            ..device(1, "c")
        };
        registry.replace_all(vec![disabled, device(3, "")]);
        assert_eq!(
            registry.authenticate_by_token("c"),
            Err(AuthenticationFailed)
        );
        assert_eq!(
            registry.authenticate_by_token("b"),
            Err(AuthenticationFailed)
        );
    }

    #[test]
    fn a_device_without_a_token_cannot_connect() {
        let registry = registry(vec![DeviceRecord {
            token_hash: None,
            ..device(1, "a")
        }]);
        assert_eq!(
            registry.authenticate(Uuid::from_u128(1), ""),
            Err(AuthenticationFailed)
        );
    }

    #[test]
    fn a_gateway_speaks_for_its_enabled_children_only() {
        let child = DeviceRecord {
            gateway_id: Some(Uuid::from_u128(1)),
            ..device(2, "b")
        };
        let registry = registry(vec![device(1, "a"), child, device(3, "c")]);
        let may = |child| registry.may_speak_for(Uuid::from_u128(1), Uuid::from_u128(child));
        assert_eq!(may(1), Ok(()));
        assert_eq!(may(2), Ok(()));
        assert_eq!(may(3), Err(RejectCode::ForbiddenDevice));
        assert_eq!(may(4), Err(RejectCode::UnknownDevice));
    }

    #[test]
    fn a_device_is_reached_by_itself_or_is_named_why_not() {
        let without_token = |id| DeviceRecord {
            token_hash: None,
            ..device(id, "")
        };
        let child = DeviceRecord {
            gateway_id: Some(Uuid::from_u128(1)),
            ..without_token(2)
        };
        let disabled = DeviceRecord {
            is_enabled: false,
            ..device(4, "d")
        };
        let unread = DeviceRegistry::default();
        assert_eq!(
            unread.reachability(Uuid::from_u128(9)),
            Reachability::ByItself
        );
        let registry = registry(vec![device(1, "a"), child, without_token(3), disabled]);
        let found = [1, 2, 3, 4, 5].map(|id| registry.reachability(Uuid::from_u128(id)));
        let expected = [
            Reachability::ByItself,
            Reachability::ThroughGateway,
            Reachability::WithoutToken,
            Reachability::Disabled,
            Reachability::Unknown,
        ];
        assert_eq!(found, expected);
        let spoken_for = [2, 4, 5].map(|id| registry.may_be_spoken_for(Uuid::from_u128(id)));
        let expected = [
            Ok(()),
            Err(RejectCode::ForbiddenDevice),
            Err(RejectCode::UnknownDevice),
        ];
        assert_eq!(spoken_for, expected);
    }

    #[test]
    fn devices_that_lost_their_right_are_named() {
        let registry = registry(vec![device(1, "a"), device(2, "b"), device(3, "c")]);
        let ids = [1, 2, 3].map(Uuid::from_u128);
        let cut = registry.replace(
            &ids,
            vec![
                device(1, "new token"),
                DeviceRecord {
                    last_seq: 10,
                    ..device(2, "b")
                },
            ],
        );
        assert_eq!(cut, [Uuid::from_u128(1), Uuid::from_u128(3)]);
        assert_eq!(registry.len(), 2);
    }

    #[test]
    fn a_snapshot_reads_back_and_a_damaged_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.snapshot");
        registry(vec![device(1, "a")]).save(&path).unwrap();
        let restored = DeviceRegistry::default();
        restored.restore(&path).unwrap();
        assert!(restored.authenticate(Uuid::from_u128(1), "a").is_ok());
        fs::write(&path, b"damaged").unwrap();
        assert!(restored.restore(&path).is_err());
    }
}
