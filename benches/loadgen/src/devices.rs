//! The devices that a load speaks for, as `hse devices add --json` prints them.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use uuid::Uuid;

use crate::error::BenchError;

#[derive(Debug, Clone, Deserialize)]
pub struct Device {
    pub device_id: Uuid,
    pub token: String,
    /// A gateway speaks for these, in turn; empty for a device that speaks for itself.
    #[serde(default)]
    pub children: Vec<Uuid>,
}

/// Reads the first `wanted` devices.
///
/// # Errors
/// The file cannot be read, is not a list of devices, or holds fewer.
pub fn read(path: &Path, wanted: usize) -> Result<Vec<Device>, BenchError> {
    let mut devices = read_all(path)?;
    if devices.len() < wanted {
        return Err(BenchError::TooFewDevices {
            wanted,
            found: devices.len(),
        });
    }
    devices.truncate(wanted);
    Ok(devices)
}

/// # Errors
/// The file cannot be read or is not a list of devices.
pub fn read_all(path: &Path) -> Result<Vec<Device>, BenchError> {
    let text = fs::read_to_string(path).map_err(BenchError::io("reading the devices"))?;
    Ok(serde_json::from_str(&text)?)
}
