//! What was read of the devices, and who is meant by a token, or by what a gateway calls its child.

use std::collections::HashMap;

use uuid::Uuid;

use super::DeviceRecord;
use crate::pipeline::child_names::ChildNames;
use crate::pipeline::profiles::ModbusAddress;
use crate::pipeline::tokens::{TokenHash, TokenOwners};
use crate::pipeline::window::Watermark;

/// Devices by their ids, and by what they are found by.
#[derive(Default)]
pub struct KnownDevices {
    devices: HashMap<Uuid, DeviceRecord, foldhash::fast::RandomState>,
    owners: TokenOwners,
    children: ChildNames,
}

impl KnownDevices {
    pub fn of(records: Vec<DeviceRecord>) -> Self {
        let mut known = Self::default();
        for record in records {
            known.put(record.id, Some(record));
        }
        known
    }

    pub fn len(&self) -> usize {
        self.devices.len()
    }

    pub fn all(&self) -> impl Iterator<Item = &DeviceRecord> {
        self.devices.values()
    }

    pub fn get(&self, id: Uuid) -> Option<&DeviceRecord> {
        self.devices.get(&id)
    }

    /// Whose token has this hash.
    pub fn owner_of(&self, hash: &TokenHash) -> Option<Uuid> {
        self.owners.owner(hash)
    }

    /// The child that `gateway` calls so.
    pub fn child_of(&self, gateway: Uuid, name: &str) -> Option<Uuid> {
        self.children.child(gateway, name)
    }

    /// Which of them are polled, by which profile, and where.
    pub fn polling(&self) -> HashMap<Uuid, (Uuid, &ModbusAddress)> {
        let devices = self.all();
        devices
            .filter_map(|device| Some((device.id, device.polling()?)))
            .collect()
    }

    /// Puts a device, or none, in the place of what was known of it. Returns that.
    pub fn put(&mut self, id: Uuid, device: Option<DeviceRecord>) -> Option<DeviceRecord> {
        let old = self.devices.remove(&id);
        if let Some(old) = &old {
            if let Some(child) = old.called_as() {
                self.children.remove(&child);
            }
            if let Some(hash) = &old.token_hash {
                self.owners.remove(hash, id);
            }
        }
        if let Some(new) = device {
            if let Some(child) = new.called_as() {
                self.children.add(&child);
            }
            if let Some(hash) = new.token_hash {
                self.owners.add(hash, id);
            }
            self.devices.insert(id, new);
        }
        old
    }

    /// Notes how far a device's events are durable.
    pub fn note_watermark(&mut self, id: Uuid, found: Watermark) {
        if let Some(device) = self.devices.get_mut(&id) {
            let latest = device.watermark().later(found);
            (device.epoch, device.last_seq) = (latest.epoch, latest.seq);
        }
    }
}
