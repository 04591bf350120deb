//! The registry on disk, for a start without the database.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{DeviceRecord, DeviceRegistry};
use crate::pipeline::profiles::ProfileRecord;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("registry snapshot: {0}")]
    Io(#[from] io::Error),
    #[error("registry snapshot cannot be read; it is made anew once the database answers: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    #[error("registry snapshot: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

/// What the snapshot holds; that of an older version is a list of devices alone.
#[derive(Serialize, Deserialize)]
struct Snapshot<Device, Profile> {
    devices: Vec<Device>,
    profiles: Vec<Profile>,
}

impl DeviceRegistry {
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
            let profiles = self.read_profiles();
            rmp_serde::to_vec(&Snapshot {
                devices: devices.all().collect(),
                profiles: profiles.values().map(|known| &known.record).collect(),
            })?
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
        let snapshot = rmp_serde::from_slice(&bytes);
        let snapshot: Snapshot<DeviceRecord, ProfileRecord> = snapshot.or_else(|error| {
            let devices = rmp_serde::from_slice(&bytes).map_err(|_| error)?;
            Ok::<_, rmp_serde::decode::Error>(Snapshot {
                devices,
                profiles: Vec::new(),
            })
        })?;
        self.replace_profiles(None, snapshot.profiles);
        self.replace_all(snapshot.devices);
        Ok(())
    }
}
