//! CURSOR: up to where the journal was drained. Two 4 KiB slots written in turn, so that a torn write
//! leaves the older one; both filled at creation, so that a full disk cannot stop them.
//!
//! `magic 8 | journal_id 16 | sequence u64 | generation u64 | position u64 | unagreed_end u64 | crc32c u32`

use std::io;
use std::sync::Arc;

use crc32c::crc32c;
use uuid::Uuid;

use super::storage::{Access, Storage, StorageFile};

pub const CURSOR: &str = "CURSOR";
const CURSOR_TEMPORARY: &str = "CURSOR.tmp";
const MAGIC: [u8; 8] = *b"HSECURS\0";
const SLOT_BYTES: usize = 4096;
const SLOTS: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub journal_id: Uuid,
    /// One more at every write; the newest valid slot counts, and its parity says which slot it is in.
    pub sequence: u64,
    pub generation: u64,
    pub position: u64,
    /// Where the journal ended when it was opened, until it has agreed with whoever stores its records; then
    /// [`AGREED`]. They know a journal that this is an older copy of, if they know positions beyond.
    pub unagreed_end: u64,
}

/// The journal and whoever stores its records know the same positions.
pub const AGREED: u64 = u64::MAX;

impl Cursor {
    pub fn at_start_of(journal_id: Uuid, generation: u64) -> Self {
        Self {
            journal_id,
            sequence: 0,
            generation,
            position: 0,
            unagreed_end: AGREED,
        }
    }

    /// The newest valid slot; `None` when neither is.
    pub fn read(storage: &dyn Storage) -> io::Result<Option<Self>> {
        let file = storage.open(CURSOR, Access::Read)?;
        let mut newest: Option<Self> = None;
        for slot in 0..SLOTS {
            let mut bytes = [0; SLOT_BYTES];
            let count = file.read_full_at(&mut bytes, slot * SLOT_BYTES as u64)?;
            let found = bytes
                .get(..count)
                .and_then(decode)
                .filter(|cursor| cursor.slot() == slot);
            if found.map(|cursor| cursor.sequence) >= newest.map(|cursor| cursor.sequence) {
                newest = found.or(newest);
            }
        }
        Ok(newest)
    }

    /// Makes the file, or replaces it whole, with this as its only valid slot.
    pub fn create(&self, storage: &dyn Storage) -> io::Result<()> {
        let file = storage.create(CURSOR_TEMPORARY)?;
        file.write_all_at(&[0; SLOT_BYTES * 2], 0)?;
        file.write_all_at(&self.encode(), self.slot() * SLOT_BYTES as u64)?;
        file.sync_all()?;
        storage.rename(CURSOR_TEMPORARY, CURSOR)?;
        storage.sync_dir()
    }

    fn slot(&self) -> u64 {
        self.sequence % SLOTS
    }

    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(self.journal_id.as_bytes());
        bytes[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.generation.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.position.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.unagreed_end.to_le_bytes());
        let crc = crc32c(&bytes[0..56]);
        bytes[56..60].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

fn decode(bytes: &[u8]) -> Option<Cursor> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (journal_id, rest) = rest.split_first_chunk::<16>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (generation, rest) = rest.split_first_chunk::<8>()?;
    let (position, rest) = rest.split_first_chunk::<8>()?;
    let (unagreed_end, rest) = rest.split_first_chunk::<8>()?;
    let crc = u32::from_le_bytes(*rest.first_chunk()?);
    (*magic == MAGIC && crc == crc32c(bytes.get(..56)?)).then(|| Cursor {
        journal_id: Uuid::from_bytes(*journal_id),
        sequence: u64::from_le_bytes(*sequence),
        generation: u64::from_le_bytes(*generation),
        position: u64::from_le_bytes(*position),
        unagreed_end: u64::from_le_bytes(*unagreed_end),
    })
}

/// The open file: the only place that moves the cursor.
pub struct CursorFile {
    file: Arc<dyn StorageFile>,
    current: Cursor,
}

impl CursorFile {
    pub fn open(storage: &dyn Storage, current: Cursor) -> io::Result<Self> {
        Ok(Self {
            file: storage.open(CURSOR, Access::ReadWrite)?,
            current,
        })
    }

    pub fn position(&self) -> u64 {
        self.current.position
    }

    pub fn unagreed_end(&self) -> u64 {
        self.current.unagreed_end
    }

    /// Durable when this returns. After an error the slot that holds the present position is untouched.
    pub fn move_to(&mut self, position: u64, generation: u64) -> io::Result<()> {
        self.write(Cursor {
            position,
            generation,
            ..self.current
        })
    }

    /// Notes where the journal ended, unless an earlier opening has done so and not agreed since.
    pub fn note_end(&mut self, end: u64, generation: u64) -> io::Result<()> {
        self.write(Cursor {
            unagreed_end: self.current.unagreed_end.min(end),
            generation,
            ..self.current
        })
    }

    pub fn note_agreement(&mut self, generation: u64) -> io::Result<()> {
        self.write(Cursor {
            unagreed_end: AGREED,
            generation,
            ..self.current
        })
    }

    fn write(&mut self, next: Cursor) -> io::Result<()> {
        let next = Cursor {
            sequence: self.current.sequence + 1,
            ..next
        };
        self.file
            .write_all_at(&next.encode(), next.slot() * SLOT_BYTES as u64)?;
        self.file.sync_data()?;
        self.current = next;
        Ok(())
    }
}
