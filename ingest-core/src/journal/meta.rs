//! META: who this journal is. Written whole to a temporary file, synced, and renamed into place.
//!
//! `magic 8 | format version u32 | reserved u32 | journal_id 16 | generation u64 | segment_bytes u64 | crc32c u32`

use std::io;

use crc32c::crc32c;
use uuid::Uuid;

use super::config::is_segment_size;
use super::storage::{Access, Storage};

pub const META: &str = "META";
const META_TEMPORARY: &str = "META.tmp";
const MAGIC: [u8; 8] = *b"HSEJRNL\0";
const META_BYTES: usize = 52;
pub const FORMAT_VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub journal_id: Uuid,
    /// Raised when positions of this journal may have meant other records before: an old copy was restored.
    pub generation: u64,
    pub segment_bytes: u64,
}

#[derive(Debug)]
pub enum StoredMeta {
    Known(Meta),
    Newer { version: u32 },
    Damaged,
}

impl Meta {
    pub fn read(storage: &dyn Storage) -> io::Result<StoredMeta> {
        let mut bytes = [0; META_BYTES];
        let count = storage
            .open(META, Access::Read)?
            .read_full_at(&mut bytes, 0)?;
        Ok(bytes
            .get(..count)
            .and_then(decode)
            .unwrap_or(StoredMeta::Damaged))
    }

    pub fn write(&self, storage: &dyn Storage) -> io::Result<()> {
        let file = storage.create(META_TEMPORARY)?;
        file.write_all_at(&self.encode(), 0)?;
        file.sync_all()?;
        storage.rename(META_TEMPORARY, META)?;
        storage.sync_dir()
    }

    fn encode(&self) -> [u8; META_BYTES] {
        let mut bytes = [0; META_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(self.journal_id.as_bytes());
        bytes[32..40].copy_from_slice(&self.generation.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.segment_bytes.to_le_bytes());
        let crc = crc32c(&bytes[0..48]);
        bytes[48..52].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// `None` when damaged. The version is looked at before the checksum: a newer format may keep it elsewhere.
fn decode(bytes: &[u8]) -> Option<StoredMeta> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    let (_reserved, rest) = rest.split_first_chunk::<4>()?;
    let (journal_id, rest) = rest.split_first_chunk::<16>()?;
    let (generation, rest) = rest.split_first_chunk::<8>()?;
    let (segment_bytes, rest) = rest.split_first_chunk::<8>()?;
    let version = u32::from_le_bytes(*version);
    if *magic != MAGIC {
        return None;
    }
    if version > FORMAT_VERSION {
        return Some(StoredMeta::Newer { version });
    }
    let crc = u32::from_le_bytes(*rest.first_chunk()?);
    let segment_bytes = u64::from_le_bytes(*segment_bytes);
    if crc != crc32c(bytes.get(..48)?)
        || version != FORMAT_VERSION
        || !is_segment_size(segment_bytes)
    {
        return None;
    }
    let generation = u64::from_le_bytes(*generation);
    Some(StoredMeta::Known(Meta {
        journal_id: Uuid::from_bytes(*journal_id),
        generation,
        segment_bytes,
    }))
}
