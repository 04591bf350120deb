//! Opening: from a directory to a journal that can be written, by way of everything that can be read.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::watch;
use uuid::Uuid;

use super::config::{JournalConfig, LimitOutOfRange};
use super::cursor::{Cursor, CursorFile};
use super::directory::{self, Directory, LOCK, layout_of};
use super::handle::{Condition, JournalHandle, JournalObserver, JournalState};
use super::meta::{FORMAT_VERSION, Meta, StoredMeta};
use super::reader::{JournalReader, ReadError, Record};
use super::record::HEADER_BYTES;
use super::scan::{Scan, Tail, scan};
use super::segment::{self, LastRecord, Layout, in_memory};
use super::storage::{Access, Storage, StorageLock};

const RECOVERY_BATCH_BYTES: usize = 1 << 20;

#[derive(Debug, Error)]
pub enum OpenError {
    #[error(transparent)]
    Config(#[from] LimitOutOfRange),
    #[error("the journal {directory} cannot be read or made")]
    Io {
        directory: String,
        #[source]
        source: io::Error,
    },
    #[error("the journal {directory} is open in another process")]
    Locked { directory: String },
    #[error("{directory}/META is missing, though there are segments or a cursor")]
    MetaMissing { directory: String },
    #[error("{directory}/META is damaged")]
    MetaDamaged { directory: String },
    #[error("the journal {directory} has format {found}; this program knows formats up to {known}")]
    NewerFormat {
        directory: String,
        found: u32,
        known: u32,
    },
    #[error(
        "{directory}/CURSOR is missing, though there are records; to read all of them again: hse journal repair {directory}"
    )]
    CursorMissing { directory: String },
    #[error(
        "{directory}/CURSOR is damaged; to read all records again: hse journal repair {directory}"
    )]
    CursorDamaged { directory: String },
    #[error("{directory}/CURSOR belongs to journal {found}, META to {journal_id}")]
    ForeignCursor {
        directory: String,
        journal_id: Uuid,
        found: Uuid,
    },
    #[error(
        "{directory}/META is older (generation {meta}) than CURSOR ({cursor}): an old copy was put back"
    )]
    OldMeta {
        directory: String,
        meta: u64,
        cursor: u64,
    },
    #[error(
        "{directory}/{file} is missing; to go on without its records: hse journal repair {directory}"
    )]
    MissingSegment { directory: String, file: String },
    #[error(
        "{directory}/{file} has {found} bytes, not {expected}; to keep what is readable: hse journal repair {directory}"
    )]
    WrongSegmentSize {
        directory: String,
        file: String,
        found: u64,
        expected: u64,
    },
    #[error(
        "{directory}/{file} is damaged at offset {offset} (position {position}), and records that were acknowledged later \
         begin at position {next_readable}; to skip the stretch: hse journal repair {directory}"
    )]
    Damaged {
        directory: String,
        file: String,
        offset: u64,
        position: u64,
        next_readable: u64,
    },
}

/// The tail could not be made safe to write after.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("the journal {directory} cannot be made ready for writing")]
    Io {
        directory: String,
        #[source]
        source: io::Error,
    },
}

/// A journal that was read to its end and is not written yet.
pub struct OpenedJournal {
    pub(super) config: JournalConfig,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) lock: StorageLock,
    pub(super) meta: Meta,
    pub(super) cursor: Cursor,
    pub(super) indexes: BTreeSet<u64>,
    pub(super) scan: Scan,
}

impl OpenedJournal {
    /// Opens the journal in `storage`, or makes one. An existing journal is only read; all its checksums are checked.
    pub fn open(config: JournalConfig, storage: Arc<dyn Storage>) -> Result<Self, OpenError> {
        config.validate()?;
        let place = Place::of(&*storage);
        let lock = storage.try_lock(LOCK).map_err(place.io())?;
        let lock = lock.ok_or_else(|| OpenError::Locked {
            directory: place.directory(),
        })?;
        let meta = read_or_create_meta(&*storage, &config)?;
        let cursor = read_or_create_cursor(&*storage, &meta)?;
        let found = Directory::read(&*storage, Some(meta.segment_bytes)).map_err(place.io())?;
        place.check_segments(&found, &meta, cursor.position)?;
        let layout = layout_of(&meta);
        let scan = scan(&*storage, layout, cursor.position, &found.segments).map_err(place.io())?;
        if let Tail::Damaged { next_readable } = scan.tail {
            return Err(OpenError::Damaged {
                directory: place.directory(),
                file: segment::file_name(layout.index_of(scan.end)),
                offset: layout.offset_of(scan.end),
                position: scan.end,
                next_readable,
            });
        }
        Ok(Self {
            config,
            storage,
            lock,
            meta,
            cursor,
            indexes: found.segments,
            scan,
        })
    }

    pub fn journal_id(&self) -> Uuid {
        self.meta.journal_id
    }

    pub fn generation(&self) -> u64 {
        self.meta.generation
    }

    /// Up to where the journal was drained, as far as it knows itself; the database may know better.
    pub fn cursor_position(&self) -> u64 {
        self.cursor.position
    }

    /// Where the readable records end.
    pub fn end(&self) -> u64 {
        self.scan.end
    }

    pub fn num_records(&self) -> u64 {
        self.scan.num_data_records
    }

    /// True when the journal was closed, and not killed.
    pub fn is_sealed(&self) -> bool {
        self.scan.tail == Tail::Sealed
    }

    /// All records from the cursor on, in order. May be called again.
    pub fn records(&self) -> RecoveredRecords {
        let state = JournalState {
            durable_end: self.scan.end,
            condition: Condition::Running,
        };
        let (storage, layout) = (Arc::clone(&self.storage), layout_of(&self.meta));
        let reader = JournalReader::new(
            storage,
            layout,
            self.cursor.position,
            watch::Sender::new(state).subscribe(),
        );
        RecoveredRecords {
            reader,
            is_failed: false,
            batch: Vec::new().into_iter(),
        }
    }

    /// Makes the tail safe to write after, and starts the threads.
    pub fn start(self, observer: Arc<dyn JournalObserver>) -> Result<JournalHandle, StartError> {
        let storage = Arc::clone(&self.storage);
        let place = Place::of(&*storage);
        let start = |result: io::Result<JournalHandle>| result.map_err(place.start());
        start(
            self.settle()
                .and_then(|cursor| JournalHandle::spawn(self, cursor, observer)),
        )
    }

    fn settle(&self) -> io::Result<CursorFile> {
        let layout = layout_of(&self.meta);
        // Renames of a process that was killed before it synced them.
        self.storage.sync_dir()?;
        if let Some(last) = self.scan.last {
            self.write_again(layout, last)?;
        }
        self.wipe_tail(layout)?;
        let mut cursor = CursorFile::open(&*self.storage, self.cursor)?;
        // What was read may have been in the page cache only, and segments are about to be freed because of it.
        cursor.note_end(self.scan.end, self.meta.generation)?;
        Ok(cursor)
    }

    /// The last write may be in the page cache only: its process was killed before the sync, or its sync failed,
    /// after which the cache calls clean what the disk does not have. So it is not synced but written again.
    fn write_again(&self, layout: Layout, last: LastRecord) -> io::Result<()> {
        let start = last.group_start.max(self.cursor.position);
        let mut group = vec![0; in_memory(last.end - start)];
        let file = self.segment(layout.index_of(start))?;
        file.read_exact_at(&mut group, layout.offset_of(start))?;
        file.write_all_at(&group, layout.offset_of(start))?;
        file.sync_data()
    }

    /// Nothing of a write that never finished may be read after a later, shorter write in its place.
    fn wipe_tail(&self, layout: Layout) -> io::Result<()> {
        let end = self.scan.end;
        let traces_end = match self.scan.tail {
            Tail::Unfinished { traces_end } => traces_end,
            Tail::Sealed | Tail::Damaged { .. } => end,
        };
        if !self.indexes.contains(&layout.index_of(end)) {
            return Ok(());
        }
        let wipe_end = traces_end.max(end + HEADER_BYTES as u64);
        let file = self.segment(layout.index_of(end))?;
        let offset = layout.offset_of(end);
        segment::write_zeros(&*file, offset, offset + (wipe_end - end))?;
        file.sync_data()
    }

    pub(super) fn segment(&self, index: u64) -> io::Result<Arc<dyn super::storage::StorageFile>> {
        self.storage
            .open(&segment::file_name(index), Access::ReadWrite)
    }
}

/// Iterates over what was there at opening.
pub struct RecoveredRecords {
    reader: JournalReader,
    is_failed: bool,
    batch: std::vec::IntoIter<Record>,
}

impl Iterator for RecoveredRecords {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(record) = self.batch.next() {
            return Some(Ok(record));
        }
        if self.is_failed {
            return None;
        }
        match self.reader.next_batch(RECOVERY_BATCH_BYTES) {
            Ok(batch) => {
                self.batch = batch.into_iter();
                self.batch.next().map(Ok)
            }
            Err(error) => {
                // Said once; there is nothing behind it to go on with.
                self.is_failed = true;
                Some(Err(error))
            }
        }
    }
}

fn read_or_create_meta(storage: &dyn Storage, config: &JournalConfig) -> Result<Meta, OpenError> {
    let place = Place::of(storage);
    let found = Directory::read(storage, None).map_err(place.io())?;
    if found.has_meta {
        return read_meta(storage);
    }
    if found.has_cursor || !found.segments.is_empty() {
        return Err(OpenError::MetaMissing {
            directory: place.directory(),
        });
    }
    directory::create_meta(storage, config.segment_bytes).map_err(place.io())
}

pub(super) fn read_meta(storage: &dyn Storage) -> Result<Meta, OpenError> {
    let place = Place::of(storage);
    match Meta::read(storage).map_err(place.io())? {
        StoredMeta::Known(meta) => Ok(meta),
        StoredMeta::Damaged => Err(OpenError::MetaDamaged {
            directory: place.directory(),
        }),
        StoredMeta::Newer { version } => Err(OpenError::NewerFormat {
            directory: place.directory(),
            found: version,
            known: FORMAT_VERSION,
        }),
    }
}

fn read_or_create_cursor(storage: &dyn Storage, meta: &Meta) -> Result<Cursor, OpenError> {
    let place = Place::of(storage);
    let found = Directory::read(storage, None).map_err(place.io())?;
    if found.has_cursor {
        return read_cursor(storage, meta);
    }
    let is_unfinished = found.segments.is_empty()
        || (found.segments.iter().eq([&0])
            && scan(storage, layout_of(meta), 0, &found.segments)
                .map_err(place.io())?
                .is_empty());
    match is_unfinished {
        true => directory::finish_creation(storage, meta).map_err(place.io()),
        false => Err(OpenError::CursorMissing {
            directory: place.directory(),
        }),
    }
}

pub(super) fn read_cursor(storage: &dyn Storage, meta: &Meta) -> Result<Cursor, OpenError> {
    let place = Place::of(storage);
    let cursor = Cursor::read(storage).map_err(place.io())?;
    let cursor = cursor.ok_or_else(|| OpenError::CursorDamaged {
        directory: place.directory(),
    })?;
    if cursor.journal_id != meta.journal_id {
        let (journal_id, found) = (meta.journal_id, cursor.journal_id);
        return Err(OpenError::ForeignCursor {
            directory: place.directory(),
            journal_id,
            found,
        });
    }
    if cursor.generation > meta.generation {
        let (meta, cursor) = (meta.generation, cursor.generation);
        return Err(OpenError::OldMeta {
            directory: place.directory(),
            meta,
            cursor,
        });
    }
    Ok(cursor)
}

/// Errors name the directory, as people write it.
pub(super) struct Place<'a>(&'a dyn Storage);

impl<'a> Place<'a> {
    pub(super) fn of(storage: &'a dyn Storage) -> Self {
        Self(storage)
    }

    pub(super) fn directory(&self) -> String {
        self.0.location().display().to_string()
    }

    pub(super) fn io(&self) -> impl Fn(io::Error) -> OpenError {
        let directory = self.directory();
        move |source| OpenError::Io {
            directory: directory.clone(),
            source,
        }
    }

    fn start(&self) -> impl Fn(io::Error) -> StartError {
        let directory = self.directory();
        move |source| StartError::Io {
            directory: directory.clone(),
            source,
        }
    }

    /// From the cursor's segment on, none may be missing and all must have their size.
    fn check_segments(&self, found: &Directory, meta: &Meta, cursor: u64) -> Result<(), OpenError> {
        let layout = layout_of(meta);
        let directory = self.directory();
        if let Some(&(index, bytes)) = found.odd_sizes.first() {
            let file = segment::file_name(index);
            let (found, expected) = (bytes, meta.segment_bytes);
            return Err(OpenError::WrongSegmentSize {
                directory,
                file,
                found,
                expected,
            });
        }
        match first_missing(&found.segments, layout, cursor) {
            Some(index) => Err(OpenError::MissingSegment {
                directory,
                file: segment::file_name(index),
            }),
            None => Ok(()),
        }
    }
}

/// A cursor at a segment's very start may be waiting for that segment to be made, next to the last one.
pub(super) fn first_missing(segments: &BTreeSet<u64>, layout: Layout, cursor: u64) -> Option<u64> {
    let first = layout.index_of(cursor);
    let last = segments.last().copied();
    let waits_for_first =
        layout.offset_of(cursor) == 0 && last.is_some() && last == first.checked_sub(1);
    match last.filter(|&last| last >= first) {
        Some(last) => (first..=last).find(|index| !segments.contains(index)),
        None => (!waits_for_first).then_some(first),
    }
}
