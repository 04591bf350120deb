//! A storage in memory that breaks on purpose: it forgets what was not synced, fails the n-th operation,
//! fills up, and writes short. Clones are one disk; [`FakeStorage::cut_power`] and [`FakeStorage::kill`] end the
//! process that held it, whose handles are dead from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::queue::locked;
use super::storage::{Access, Storage, StorageFile, StorageLock, StoredFile};

const SECTOR: usize = 512;

#[derive(Clone)]
pub struct FakeStorage {
    disk: Arc<Mutex<Disk>>,
    gate: Arc<Gate>,
    /// Which life of the process this handle belongs to.
    life: u64,
}

#[derive(Default)]
struct Disk {
    life: u64,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Directory states since the last sync of it: a power cut keeps one of them.
    unsynced_names: Vec<BTreeMap<String, usize>>,
    files: Vec<FileContent>,
    is_locked: bool,
    faults: Faults,
    num_changes: u64,
    num_syncs: u64,
    random: u64,
}

#[derive(Clone, Default)]
pub struct Faults {
    /// The change (write, sync, create, rename, unlink, allocate) of this number, from 1, happens half, and is the
    /// process's last.
    pub die_at_change: Option<u64>,
    /// The file sync of this number, from 1, fails.
    pub fail_sync: Option<u64>,
    /// Bytes that all files together may have.
    pub bytes_max: Option<u64>,
    /// Longer writes find the disk full after their first half, also in space that is there already, as on file
    /// systems that write elsewhere.
    pub write_bytes_max: Option<usize>,
    pub short_writes: bool,
}

#[derive(Clone, Default)]
struct FileContent {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that differ from what is durable and that the cache knows to be dirty.
    dirty: BTreeSet<usize>,
}

struct FakeFile {
    storage: FakeStorage,
    number: usize,
}

/// Where writes and syncs wait while a test holds them.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_held: bool,
    num_held: usize,
}

/// Lets them go when dropped.
pub struct Hold(Arc<Gate>);

impl Drop for Hold {
    fn drop(&mut self) {
        locked(&self.0.state).is_held = false;
        self.0.changed.notify_all();
    }
}

impl Gate {
    fn pass(&self) {
        let mut state = locked(&self.state);
        state.num_held += 1;
        while state.is_held {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.num_held -= 1;
    }
}

struct FakeLock {
    disk: Arc<Mutex<Disk>>,
    life: u64,
}

impl Drop for FakeLock {
    fn drop(&mut self) {
        let mut disk = locked(&self.disk);
        if disk.life == self.life {
            disk.is_locked = false;
        }
    }
}

impl FakeStorage {
    pub fn new(seed: u64) -> Self {
        let disk = Disk {
            random: seed,
            ..Disk::default()
        };
        Self {
            disk: Arc::new(Mutex::new(disk)),
            gate: Arc::default(),
            life: 0,
        }
    }

    /// From now on writes and syncs wait.
    pub fn hold(&self) -> Hold {
        locked(&self.gate.state).is_held = true;
        Hold(Arc::clone(&self.gate))
    }

    pub fn num_held(&self) -> usize {
        locked(&self.gate.state).num_held
    }

    pub fn shared(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    pub fn set_faults(&self, faults: Faults) {
        locked(&self.disk).faults = faults;
    }

    pub fn num_changes(&self) -> u64 {
        locked(&self.disk).num_changes
    }

    pub fn num_syncs(&self) -> u64 {
        locked(&self.disk).num_syncs
    }

    pub fn bytes(&self) -> u64 {
        locked(&self.disk).bytes()
    }

    /// The process is gone; what it wrote is still to be seen.
    pub fn kill(&self) -> Self {
        let mut disk = locked(&self.disk);
        disk.life += 1;
        disk.is_locked = false;
        disk.faults = Faults::default();
        Self {
            disk: Arc::clone(&self.disk),
            gate: Arc::default(),
            life: disk.life,
        }
    }

    /// The machine is gone: of what was not synced, any sectors survive.
    pub fn cut_power(&self) -> Self {
        let next = self.kill();
        locked(&self.disk).forget_unsynced();
        next
    }

    pub fn read_file(&self, name: &str) -> Vec<u8> {
        let disk = locked(&self.disk);
        disk.files[disk.names[name]].seen.clone()
    }

    /// Changes a file behind everybody's back, durably.
    pub fn damage_file(&self, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = locked(&self.disk);
        let number = disk.names[name];
        let file = &mut disk.files[number];
        damage(&mut file.seen);
        file.durable = file.seen.clone();
        file.dirty.clear();
    }

    /// An own disk with the same content, all of it durable.
    pub fn copy(&self) -> Self {
        let disk = locked(&self.disk);
        let files = disk.files.iter().map(|file| FileContent {
            seen: file.seen.clone(),
            durable: file.seen.clone(),
            dirty: BTreeSet::new(),
        });
        let names = disk.names.clone();
        let files = files.collect();
        let random = disk.random;
        let copy = Disk {
            durable_names: names.clone(),
            names,
            files,
            random,
            ..Disk::default()
        };
        Self {
            disk: Arc::new(Mutex::new(copy)),
            gate: Arc::default(),
            life: 0,
        }
    }

    pub fn names(&self) -> Vec<String> {
        locked(&self.disk).names.keys().cloned().collect()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = locked(&self.disk);
        disk.begin_change(self.life)?;
        let result = change(&mut disk);
        disk.end_change()?;
        result
    }
}

impl Disk {
    fn random(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&self) -> u64 {
        self.names
            .values()
            .map(|&number| self.files[number].seen.len() as u64)
            .sum()
    }

    fn alive(&self, life: u64) -> io::Result<()> {
        let has_died = self
            .faults
            .die_at_change
            .is_some_and(|last| self.num_changes >= last);
        match self.life != life || has_died {
            true => Err(io::Error::other("this process is dead")),
            false => Ok(()),
        }
    }

    fn begin_change(&mut self, life: u64) -> io::Result<()> {
        self.alive(life)?;
        self.num_changes += 1;
        Ok(())
    }

    /// A dying process does not hear how its last change ended.
    fn end_change(&mut self) -> io::Result<()> {
        self.alive(self.life)
    }

    fn is_last_change(&self) -> bool {
        self.faults.die_at_change == Some(self.num_changes)
    }

    fn change_names(
        &mut self,
        change: impl FnOnce(&mut BTreeMap<String, usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.is_last_change() && self.random().is_multiple_of(2) {
            return Ok(());
        }
        change(&mut self.names)?;
        self.unsynced_names.push(self.names.clone());
        Ok(())
    }

    fn forget_unsynced(&mut self) {
        let kept = usize::try_from(self.random() % (self.unsynced_names.len() as u64 + 1)).unwrap();
        if kept > 0 {
            self.durable_names = self.unsynced_names[kept - 1].clone();
        }
        self.unsynced_names.clear();
        self.names = self.durable_names.clone();
        for number in 0..self.files.len() {
            let mut file = std::mem::take(&mut self.files[number]);
            // The length is metadata: it may or may not have been written.
            if self.random().is_multiple_of(2) {
                file.durable.resize(file.seen.len(), 0);
            }
            for sector in std::mem::take(&mut file.dirty) {
                if self.random().is_multiple_of(2) {
                    file.persist(sector);
                }
            }
            file.seen = file.durable.clone();
            self.files[number] = file;
        }
    }

    fn sync_file(&mut self, number: usize) -> io::Result<()> {
        self.num_syncs += 1;
        let is_half = self.is_last_change();
        if self.faults.fail_sync == Some(self.num_syncs) {
            // As Linux does: the pages are clean in the cache, and never reach the disk.
            self.files[number].dirty.clear();
            return Err(io::Error::from_raw_os_error(5));
        }
        let dirty: Vec<usize> = self.files[number].dirty.iter().copied().collect();
        for sector in dirty {
            if !is_half || self.random().is_multiple_of(2) {
                let file = &mut self.files[number];
                file.grow_durable();
                file.persist(sector);
                file.dirty.remove(&sector);
            }
        }
        if !is_half {
            self.files[number].grow_durable();
        }
        Ok(())
    }

    fn grow(&mut self, number: usize, bytes: usize) -> io::Result<()> {
        let more = bytes.saturating_sub(self.files[number].seen.len());
        if self
            .faults
            .bytes_max
            .is_some_and(|max| self.bytes() + more as u64 > max)
            && more > 0
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let len = self.files[number].seen.len().max(bytes);
        self.files[number].seen.resize(len, 0);
        Ok(())
    }

    fn write(&mut self, number: usize, bytes: &[u8], offset: usize) -> io::Result<usize> {
        let is_out_of_space = self
            .faults
            .write_bytes_max
            .is_some_and(|max| bytes.len() > max);
        let mut count = bytes.len();
        if is_out_of_space {
            count /= 2;
        } else if self.faults.short_writes && count > 1 {
            count = 1 + usize::try_from(self.random() % (count as u64 - 1)).unwrap();
        }
        self.grow(number, offset + count)?;
        let file = &mut self.files[number];
        file.seen[offset..offset + count].copy_from_slice(&bytes[..count]);
        file.dirty
            .extend(offset / SECTOR..(offset + count).div_ceil(SECTOR));
        match is_out_of_space {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(count),
        }
    }
}

impl FileContent {
    fn grow_durable(&mut self) {
        let len = self.durable.len().max(self.seen.len());
        self.durable.resize(len, 0);
    }

    fn persist(&mut self, sector: usize) {
        let start = (sector * SECTOR).min(self.durable.len());
        let end = (start + SECTOR)
            .min(self.durable.len())
            .min(self.seen.len());
        self.durable[start..end].copy_from_slice(&self.seen[start..end]);
    }
}

impl Storage for FakeStorage {
    fn location(&self) -> &Path {
        Path::new("/fake/lane-0")
    }

    fn try_lock(&self, _name: &str) -> io::Result<Option<StorageLock>> {
        let mut disk = locked(&self.disk);
        disk.alive(self.life)?;
        if std::mem::replace(&mut disk.is_locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(FakeLock {
            disk: Arc::clone(&self.disk),
            life: self.life,
        })))
    }

    fn list(&self) -> io::Result<Vec<StoredFile>> {
        let disk = locked(&self.disk);
        disk.alive(self.life)?;
        let files = disk.names.iter().map(|(name, &number)| StoredFile {
            name: name.clone(),
            bytes: disk.files[number].seen.len() as u64,
        });
        Ok(files.collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.change(|disk| {
            let number = disk.files.len();
            disk.files.push(FileContent::default());
            disk.change_names(|names| {
                names.insert(name.to_owned(), number);
                Ok(())
            })?;
            let file = FakeFile {
                storage: self.clone(),
                number,
            };
            Ok(Arc::new(file) as Arc<dyn StorageFile>)
        })
    }

    fn open(&self, name: &str, _access: Access) -> io::Result<Arc<dyn StorageFile>> {
        let disk = locked(&self.disk);
        disk.alive(self.life)?;
        let &number = disk.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FakeFile {
            storage: self.clone(),
            number,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|disk| {
            disk.change_names(|names| {
                let number = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
                names.insert(to.to_owned(), number);
                Ok(())
            })
        })
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.change(|disk| {
            disk.change_names(|names| {
                names
                    .remove(name)
                    .map(|_| ())
                    .ok_or_else(|| io::ErrorKind::NotFound.into())
            })
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.change(|disk| {
            if !disk.is_last_change() || disk.random() % 2 == 0 {
                disk.durable_names = disk.names.clone();
                disk.unsynced_names.clear();
            }
            Ok(())
        })
    }
}

impl StorageFile for FakeFile {
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.storage
            .change(|disk| disk.grow(self.number, usize::try_from(bytes).unwrap()))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = locked(&self.storage.disk);
        disk.alive(self.storage.life)?;
        let seen = &disk.files[self.number].seen;
        let start = usize::try_from(offset).unwrap().min(seen.len());
        let count = buffer.len().min(seen.len() - start);
        buffer[..count].copy_from_slice(&seen[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.storage.gate.pass();
        self.storage
            .change(|disk| disk.write(self.number, bytes, usize::try_from(offset).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.storage.gate.pass();
        self.storage.change(|disk| disk.sync_file(self.number))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}
