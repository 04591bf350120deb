//! The files of a journal's directory, and its creation.

use std::collections::BTreeSet;
use std::io;

use uuid::Uuid;

use super::cursor::{CURSOR, Cursor};
use super::meta::{META, Meta};
use super::record::Seed;
use super::segment::{self, Layout};
use super::storage::Storage;

pub const LOCK: &str = "LOCK";
const SEGMENT_ZERO: u64 = 0;

/// What the directory holds, by name and size only.
#[derive(Debug, Default)]
pub struct Directory {
    pub has_meta: bool,
    pub has_cursor: bool,
    pub segments: BTreeSet<u64>,
    /// Size in bytes by index, of the segments that do not have the size the journal was made with.
    pub odd_sizes: Vec<(u64, u64)>,
    pub spares: Vec<String>,
    /// Files that a crash left half made; nothing refers to them.
    pub leftovers: Vec<String>,
}

impl Directory {
    /// Without a segment size (there is no META yet) every size passes.
    pub fn read(storage: &dyn Storage, segment_bytes: Option<u64>) -> io::Result<Self> {
        let mut directory = Self::default();
        for file in storage.list()? {
            directory.has_meta |= file.name == META;
            directory.has_cursor |= file.name == CURSOR;
            let has_odd_size = segment_bytes.is_some_and(|bytes| bytes != file.bytes);
            if let Some(index) = segment::index_in_name(&file.name) {
                directory.segments.insert(index);
                if has_odd_size {
                    directory.odd_sizes.push((index, file.bytes));
                }
            } else if file.name.ends_with(".spare") && !has_odd_size {
                directory.spares.push(file.name);
            } else if file.name.ends_with(".spare") || file.name.ends_with(".tmp") {
                directory.leftovers.push(file.name);
            }
        }
        directory.odd_sizes.sort_unstable();
        directory.spares.sort_unstable();
        Ok(directory)
    }
}

pub fn layout_of(meta: &Meta) -> Layout {
    Layout {
        segment_bytes: meta.segment_bytes,
        seed: Seed::of(meta.journal_id),
    }
}

/// The first step of a new journal. After a crash the next opening finishes what this began.
pub fn create_meta(storage: &dyn Storage, segment_bytes: u64) -> io::Result<Meta> {
    let meta = Meta {
        journal_id: Uuid::new_v4(),
        generation: 1,
        segment_bytes,
    };
    meta.write(storage)?;
    Ok(meta)
}

/// Makes what is missing of a new journal. The cursor comes last and says that creation is complete,
/// so that afterwards a missing segment is a loss and never taken for a beginning.
pub fn finish_creation(storage: &dyn Storage, meta: &Meta) -> io::Result<Cursor> {
    segment::create(storage, layout_of(meta), SEGMENT_ZERO, &[])?;
    let cursor = Cursor::at_start_of(meta.journal_id, meta.generation);
    cursor.create(storage)?;
    Ok(cursor)
}
