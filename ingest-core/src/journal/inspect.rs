//! Looking at a journal without touching it, also while a process writes it: then the view is of a moment,
//! and its end may look unfinished because it is being written.

use std::io;
use std::path::Path;

use serde::Serialize;
use uuid::Uuid;

use super::directory::{Directory, layout_of};
use super::meta::FORMAT_VERSION;
use super::recovery::{OpenError, Place, first_missing, read_cursor, read_meta};
use super::scan::{Scan, Tail, scan};
use super::segment::{self, Layout};
use super::storage::{DirectoryStorage, Storage};

/// A live process frees segments under our feet; then we look again.
const LOOKS_MAX: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    pub directory: String,
    pub format_version: u32,
    pub journal_id: Uuid,
    pub generation: u64,
    pub segment_bytes: u64,
    pub cursor: InspectedCursor,
    pub segments: Vec<InspectedSegment>,
    pub num_spare_segments: usize,
    /// Of data, from the cursor on.
    pub num_records: u64,
    pub first_position: u64,
    pub end: u64,
    pub undrained_bytes: u64,
    pub tail: InspectedTail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedCursor {
    pub sequence: u64,
    pub generation: u64,
    pub position: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedSegment {
    pub file: String,
    pub start: u64,
    /// Of data, from the cursor on.
    pub num_records: u64,
    /// End of the records; the segment's start when it has none.
    pub end: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum InspectedTail {
    /// Closed cleanly.
    Sealed,
    /// In use, or its process was killed; nothing of an unfinished write is to be seen.
    Open,
    /// Bytes of a write that never finished, or is being written: opening will cut them.
    Torn { position: u64, traces_end: u64 },
    /// Opening refuses this.
    Damaged {
        file: String,
        offset: u64,
        position: u64,
        next_readable: u64,
    },
    /// Opening refuses this.
    MissingSegment { file: String },
    /// Opening refuses this.
    WrongSegmentSize { file: String, found: u64 },
}

pub fn inspect(directory: &Path) -> Result<Inspection, OpenError> {
    let storage = DirectoryStorage::existing(directory).map_err(|source| OpenError::Io {
        directory: directory.display().to_string(),
        source,
    })?;
    inspect_storage(&storage)
}

pub fn inspect_storage(storage: &dyn Storage) -> Result<Inspection, OpenError> {
    let mut looks = 1;
    loop {
        match look(storage) {
            Err(OpenError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && looks < LOOKS_MAX =>
            {
                looks += 1;
            }
            looked => return looked,
        }
    }
}

fn look(storage: &dyn Storage) -> Result<Inspection, OpenError> {
    let place = Place::of(storage);
    let meta = read_meta(storage)?;
    let cursor = read_cursor(storage, &meta)?;
    let layout = layout_of(&meta);
    let found = Directory::read(storage, Some(meta.segment_bytes)).map_err(place.io())?;
    let scan = scan(storage, layout, cursor.position, &found.segments).map_err(place.io())?;
    let segments = found.segments.iter().map(|&index| {
        let scanned = scan.segments.iter().find(|scanned| scanned.index == index);
        InspectedSegment {
            file: segment::file_name(index),
            start: layout.start_of(index),
            num_records: scanned.map_or(0, |scanned| scanned.num_data_records),
            end: scanned.map_or(layout.start_of(index), |scanned| scanned.end),
        }
    });
    Ok(Inspection {
        directory: place.directory(),
        format_version: FORMAT_VERSION,
        journal_id: meta.journal_id,
        generation: meta.generation,
        segment_bytes: meta.segment_bytes,
        cursor: InspectedCursor {
            sequence: cursor.sequence,
            generation: cursor.generation,
            position: cursor.position,
        },
        segments: segments.collect(),
        num_spare_segments: found.spares.len(),
        num_records: scan.num_data_records,
        first_position: cursor.position,
        end: scan.end,
        undrained_bytes: scan.end - cursor.position,
        tail: tail_of(layout, &found, cursor.position, &scan),
    })
}

fn tail_of(layout: Layout, found: &Directory, cursor: u64, scan: &Scan) -> InspectedTail {
    if let Some(&(index, bytes)) = found.odd_sizes.first() {
        return InspectedTail::WrongSegmentSize {
            file: segment::file_name(index),
            found: bytes,
        };
    }
    if let Some(index) = first_missing(&found.segments, layout, cursor) {
        return InspectedTail::MissingSegment {
            file: segment::file_name(index),
        };
    }
    match scan.tail {
        Tail::Sealed => InspectedTail::Sealed,
        Tail::Unfinished { traces_end } if traces_end == scan.end => InspectedTail::Open,
        Tail::Unfinished { traces_end } => InspectedTail::Torn {
            position: scan.end,
            traces_end,
        },
        Tail::Damaged { next_readable } => InspectedTail::Damaged {
            file: segment::file_name(layout.index_of(scan.end)),
            offset: layout.offset_of(scan.end),
            position: scan.end,
            next_readable,
        },
    }
}
