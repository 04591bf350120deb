//! Repair: gives up what cannot be read, keeps all that can, and says exactly which is which.
//! A person asks for it; opening never does it by itself.

use std::io;
use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;
use uuid::Uuid;

use super::cursor::Cursor;
use super::directory::{Directory, LOCK, layout_of};
use super::meta::Meta;
use super::record::{HEADER_BYTES, Header, RecordKind};
use super::recovery::{OpenError, Place, first_missing, read_cursor, read_meta};
use super::scan::{Tail, scan};
use super::segment::{self, Layout};
use super::storage::{Access, Storage};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    pub journal_id: Uuid,
    /// Stretches that held something once and cannot be read, in order.
    pub lost: Vec<LostStretch>,
    /// Segments that were missing or had a wrong size, and were made again with what was left of them.
    pub remade_segments: Vec<String>,
    /// Where the cursor was put because it could not be read or pointed at what is gone.
    /// From there on everything will be drained; the database's own cursor keeps it from being stored twice.
    pub cursor_moved_to: Option<u64>,
    /// Where the readable records end now.
    pub end: u64,
    pub num_records: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostStretch {
    pub file: String,
    pub offset: u64,
    pub position: u64,
    pub end: u64,
}

#[derive(Debug, Error)]
pub enum RepairError {
    /// Without META nobody knows which records are this journal's.
    #[error(transparent)]
    Unrepairable(#[from] OpenError),
    #[error("the journal {directory} has no segments: there is nothing to repair")]
    Empty { directory: String },
    #[error("the journal {directory} cannot be repaired")]
    Io {
        directory: String,
        #[source]
        source: io::Error,
    },
}

/// Takes the journal's lock. May be run again after a crash in its middle, and does nothing to a healthy journal.
pub fn repair(storage: Arc<dyn Storage>) -> Result<RepairReport, RepairError> {
    let storage = &*storage;
    let place = Place::of(storage);
    let io_error = |source| RepairError::Io {
        directory: place.directory(),
        source,
    };
    let lock = storage.try_lock(LOCK).map_err(io_error)?;
    let _lock = lock.ok_or_else(|| OpenError::Locked {
        directory: place.directory(),
    })?;
    let meta = read_meta(storage)?;
    let layout = layout_of(&meta);
    let found = Directory::read(storage, Some(meta.segment_bytes)).map_err(io_error)?;
    let Some(&first) = found.segments.first() else {
        return Err(RepairError::Empty {
            directory: place.directory(),
        });
    };
    let mut report = RepairReport {
        journal_id: meta.journal_id,
        lost: Vec::new(),
        remade_segments: Vec::new(),
        cursor_moved_to: None,
        end: 0,
        num_records: 0,
    };
    let cursor = repair_cursor(
        storage,
        &meta,
        found.has_cursor,
        layout.start_of(first),
        &mut report,
    )?;
    remake_segments(storage, layout, cursor, &mut report).map_err(io_error)?;
    pad_damage(storage, layout, cursor, &mut report).map_err(io_error)?;
    Ok(report)
}

/// A cursor that cannot be read goes to the first segment's start; one before it has lost what lay between.
fn repair_cursor(
    storage: &dyn Storage,
    meta: &Meta,
    has_cursor: bool,
    first_start: u64,
    report: &mut RepairReport,
) -> Result<u64, RepairError> {
    let place = Place::of(storage);
    let known = match has_cursor.then(|| read_cursor(storage, meta)) {
        Some(Ok(cursor)) => Some(cursor),
        None | Some(Err(OpenError::CursorDamaged { .. })) => None,
        Some(Err(error)) => return Err(error.into()),
    };
    if let Some(cursor) = known.filter(|cursor| cursor.position >= first_start) {
        return Ok(cursor.position);
    }
    let sequence = known.map_or(0, |cursor| cursor.sequence + 1);
    let cursor = Cursor {
        sequence,
        position: first_start,
        ..Cursor::at_start_of(meta.journal_id, meta.generation)
    };
    cursor.create(storage).map_err(|source| RepairError::Io {
        directory: place.directory(),
        source,
    })?;
    if let Some(known) = known {
        report
            .lost
            .extend(stretches(layout_of(meta), known.position, first_start));
    }
    report.cursor_moved_to = Some(first_start);
    Ok(first_start)
}

fn remake_segments(
    storage: &dyn Storage,
    layout: Layout,
    cursor: u64,
    report: &mut RepairReport,
) -> io::Result<()> {
    let mut found = Directory::read(storage, Some(layout.segment_bytes))?;
    let mut content = Vec::new();
    for (index, _) in found.odd_sizes {
        segment::read_whole(storage, layout, index, &mut content)?;
        segment::create(storage, layout, index, &content)?;
        report.remade_segments.push(segment::file_name(index));
    }
    while let Some(index) = first_missing(&found.segments, layout, cursor) {
        segment::create(storage, layout, index, &[])?;
        found.segments.insert(index);
        report.remade_segments.push(segment::file_name(index));
    }
    Ok(())
}

/// Puts a pad over each stretch that cannot be read and is followed by one that can. The unfinished write at the end,
/// if there is one, is left to opening.
fn pad_damage(
    storage: &dyn Storage,
    layout: Layout,
    cursor: u64,
    report: &mut RepairReport,
) -> io::Result<()> {
    let indexes = Directory::read(storage, Some(layout.segment_bytes))?.segments;
    loop {
        let scan = scan(storage, layout, cursor, &indexes)?;
        let Tail::Damaged { next_readable } = scan.tail else {
            report.end = scan.end;
            report.num_records = scan.num_data_records;
            return Ok(());
        };
        for stretch in stretches(layout, scan.end, next_readable) {
            let file = storage.open(&stretch.file, Access::ReadWrite)?;
            let len = u32::try_from(stretch.end - stretch.position - HEADER_BYTES as u64)
                .map_err(io::Error::other)?;
            let pad = Header {
                kind: RecordKind::Pad,
                position: stretch.position,
                group_delta: 0,
                len,
            };
            file.write_all_at(&pad.encode(&[], layout.seed), stretch.offset)?;
            file.sync_data()?;
            report.lost.push(stretch);
        }
    }
}

/// One stretch a segment.
fn stretches(layout: Layout, from: u64, to: u64) -> impl Iterator<Item = LostStretch> {
    let mut position = from;
    std::iter::from_fn(move || {
        let start = position;
        position = to.min(start + layout.rest_of(start));
        (start < position).then(|| LostStretch {
            file: segment::file_name(layout.index_of(start)),
            offset: layout.offset_of(start),
            position: start,
            end: position,
        })
    })
}
