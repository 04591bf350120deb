//! Reading what is durable, while the writer goes on.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::sync::watch;

use super::handle::JournalState;
use super::record::{HEADER_BYTES, Parsed, RecordKind, parse};
use super::segment::{self, Layout, in_memory};
use super::storage::{Access, Storage, StorageFile};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub position: u64,
    /// Where the next record may begin: draining this one means freeing up to here.
    pub end: u64,
    /// A view into the bytes of the whole batch, which stay in memory until the last view is gone.
    pub payload: Bytes,
}

#[derive(Debug, Error)]
pub enum ReadError {
    #[error("{file} cannot be read")]
    Io {
        file: String,
        #[source]
        source: io::Error,
    },
    #[error("{file} is damaged at offset {offset} (position {position})")]
    Damaged {
        file: String,
        offset: u64,
        position: u64,
    },
}

/// Reads forward from a position. It keeps no segment from being freed: whoever frees is who reads.
pub struct JournalReader {
    storage: Arc<dyn Storage>,
    layout: Layout,
    position: u64,
    state: watch::Receiver<JournalState>,
    open: Option<OpenSegment>,
}

struct OpenSegment {
    index: u64,
    file: Arc<dyn StorageFile>,
}

/// Why a stretch of bytes gave no further record.
enum Stop {
    /// The bytes end where the next record is not known to be whole.
    Needs(usize),
    Damaged,
}

impl JournalReader {
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        layout: Layout,
        position: u64,
        state: watch::Receiver<JournalState>,
    ) -> Self {
        Self {
            storage,
            layout,
            position,
            state,
            open: None,
        }
    }

    /// Where the next batch begins; all before it was handed out. May be freed up to when all that was is stored.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next durable records, no more than `bytes_max` bytes of them but at least one; none when all are read.
    /// Blocks for the disk.
    pub fn next_batch(&mut self, bytes_max: usize) -> Result<Vec<Record>, ReadError> {
        let durable_end = self.state.borrow().durable_end;
        let mut records = Vec::new();
        let mut wanted = bytes_max.max(HEADER_BYTES);
        while records.is_empty() && self.position < durable_end {
            let bytes = self.read(wanted, durable_end)?;
            let start = self.position;
            match self.take_records(&bytes, &mut records) {
                Stop::Needs(needed) if self.position == start => {
                    // All that is durable was in hand, and the record claims more.
                    if bytes.len() < wanted || needed <= wanted {
                        return Err(self.damaged());
                    }
                    wanted = needed;
                }
                // What was read before the damage is handed out first; the next call meets it again.
                Stop::Damaged if records.is_empty() => return Err(self.damaged()),
                Stop::Needs(_) | Stop::Damaged => {}
            }
        }
        Ok(records)
    }

    fn read(&mut self, wanted: usize, durable_end: u64) -> Result<Bytes, ReadError> {
        let index = self.layout.index_of(self.position);
        let rest = self
            .layout
            .rest_of(self.position)
            .min(durable_end - self.position);
        let mut bytes = BytesMut::zeroed(in_memory(rest.min(wanted as u64)));
        let offset = self.layout.offset_of(self.position);
        self.segment(index)
            .and_then(|file| file.read_exact_at(&mut bytes, offset))
            .map_err(|source| ReadError::Io {
                file: segment::file_name(index),
                source,
            })?;
        Ok(bytes.freeze())
    }

    fn segment(&mut self, index: u64) -> io::Result<Arc<dyn StorageFile>> {
        if let Some(open) = self.open.as_ref().filter(|open| open.index == index) {
            return Ok(Arc::clone(&open.file));
        }
        let file = self
            .storage
            .open(&segment::file_name(index), Access::Read)?;
        self.open = Some(OpenSegment {
            index,
            file: Arc::clone(&file),
        });
        Ok(file)
    }

    /// Moves past the records at the start of `bytes`, which were read at the present position.
    fn take_records(&mut self, bytes: &Bytes, records: &mut Vec<Record>) -> Stop {
        let start = self.position;
        let segment_end = start + self.layout.rest_of(start);
        loop {
            self.position = self.layout.place_after(self.position);
            let offset = in_memory(self.position - start);
            if self.position >= segment_end || offset >= bytes.len() {
                return Stop::Needs(HEADER_BYTES);
            }
            let rest = bytes.get(offset..).unwrap_or_default();
            let position = self.position;
            let record = match parse(
                rest,
                position,
                in_memory(segment_end - position),
                self.layout.seed,
            ) {
                Parsed::Valid(record) => record,
                Parsed::Incomplete { needed } => return Stop::Needs(needed),
                Parsed::Invalid => return Stop::Damaged,
            };
            self.position += record.header.bytes_on_disk() as u64;
            if record.header.kind == RecordKind::Data {
                let payload = bytes.slice_ref(record.payload);
                records.push(Record {
                    position,
                    end: self.position,
                    payload,
                });
            }
            if self.position >= segment_end {
                return Stop::Needs(HEADER_BYTES);
            }
        }
    }

    fn damaged(&self) -> ReadError {
        ReadError::Damaged {
            file: segment::file_name(self.layout.index_of(self.position)),
            offset: self.layout.offset_of(self.position),
            position: self.position,
        }
    }
}
