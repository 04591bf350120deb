//! One segment: its name, its making, and reading records out of its bytes. Pure where it can be:
//! what a whole segment says is a function of its bytes, which is what the fuzzer calls.

use std::io;
use std::sync::Arc;

use uuid::Uuid;

use super::record::{HEADER_BYTES, Header, Parsed, RecordKind, Seed, ValidRecord, parse};
use super::storage::{Access, Storage, StorageFile};

const SEGMENT_TEMPORARY: &str = "next.tmp";
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// How positions map to segments, and what their checksums start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub segment_bytes: u64,
    pub seed: Seed,
}

/// The records from some position on, as far as they follow each other without a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The segment's end when the chain reached it, else where the first bytes are that are no record.
    pub end: u64,
    /// True when the chain reached the segment's end.
    pub is_complete: bool,
    pub num_data_records: u64,
    pub last: Option<LastRecord>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRecord {
    pub kind: RecordKind,
    pub group_start: u64,
    /// End of what was written for it: a pad's own bytes are its header.
    pub end: u64,
}

/// What the bytes of one segment say, for tools that have nothing but them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentContents<'a> {
    /// Position and payload of the data records that follow each other from the segment's start.
    pub records: Vec<(u64, &'a [u8])>,
    /// Where they end.
    pub end: u64,
    /// Positions of what reads as a record behind that.
    pub readable_after: Vec<u64>,
}

impl Layout {
    pub fn index_of(self, position: u64) -> u64 {
        position / self.segment_bytes
    }

    pub fn start_of(self, index: u64) -> u64 {
        index.saturating_mul(self.segment_bytes)
    }

    pub fn offset_of(self, position: u64) -> u64 {
        position % self.segment_bytes
    }

    /// Bytes from `position` to the end of its segment.
    pub fn rest_of(self, position: u64) -> u64 {
        self.segment_bytes - self.offset_of(position)
    }

    /// The next place after `position` where a record can begin: a rest shorter than a header is no place.
    pub fn place_after(self, position: u64) -> u64 {
        match self.rest_of(position) {
            rest if rest < HEADER_BYTES as u64 => position + rest,
            _ => position,
        }
    }
}

pub fn file_name(index: u64) -> String {
    format!("{index:020}.seg")
}

pub fn spare_name(index: u64) -> String {
    format!("{index:020}.spare")
}

pub fn index_in_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// Bytes of a file that are known to fit in memory: at most one segment.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a segment is at most 1 GiB"
)]
pub fn in_memory(bytes: u64) -> usize {
    bytes as usize
}

/// Makes a segment under its final name, durably. Zeros are written and synced, not only reserved, so that
/// writing records later changes no metadata and `fdatasync` has none to write.
pub fn create(
    storage: &dyn Storage,
    layout: Layout,
    index: u64,
    content: &[u8],
) -> io::Result<Arc<dyn StorageFile>> {
    let made = write_new(storage, layout, content);
    if made.is_err() {
        // Gives back what a full disk gave so far. If this fails too, opening removes the file.
        let _ = storage.unlink(SEGMENT_TEMPORARY);
    }
    let file = made?;
    storage.rename(SEGMENT_TEMPORARY, &file_name(index))?;
    storage.sync_dir()?;
    Ok(file)
}

fn write_new(
    storage: &dyn Storage,
    layout: Layout,
    content: &[u8],
) -> io::Result<Arc<dyn StorageFile>> {
    let file = storage.create(SEGMENT_TEMPORARY)?;
    file.allocate(layout.segment_bytes)?;
    file.write_all_at(content, 0)?;
    write_zeros(&*file, content.len() as u64, layout.segment_bytes)?;
    file.sync_all()?;
    Ok(file)
}

pub fn write_zeros(file: &dyn StorageFile, from: u64, to: u64) -> io::Result<()> {
    let mut offset = from;
    while offset < to {
        let count = in_memory((to - offset).min(ZEROS.len() as u64));
        file.write_all_at(ZEROS.get(..count).unwrap_or(&ZEROS), offset)?;
        offset += count as u64;
    }
    Ok(())
}

/// Fills `buffer` with the whole segment; what the file is short of reads as zeros.
pub fn read_whole(
    storage: &dyn Storage,
    layout: Layout,
    index: u64,
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    buffer.resize(in_memory(layout.segment_bytes), 0);
    let count = storage
        .open(&file_name(index), Access::Read)?
        .read_full_at(buffer, 0)?;
    if let Some(missing) = buffer.get_mut(count..) {
        missing.fill(0);
    }
    Ok(())
}

/// Reads a segment of a journal from its bytes alone; they are taken to be the whole segment.
pub fn read_segment(journal_id: Uuid, index: u32, segment: &[u8]) -> SegmentContents<'_> {
    let layout = Layout {
        segment_bytes: segment.len().max(1) as u64,
        seed: Seed::of(journal_id),
    };
    let index = u64::from(index);
    let mut records = Vec::new();
    let chain = follow(layout, segment, layout.start_of(index), |record| {
        if record.header.kind == RecordKind::Data {
            records.push((record.header.position, record.payload));
        }
    });
    let after = search(layout, index, segment, chain.end);
    let readable_after = after.map(|record| record.header.position).collect();
    SegmentContents {
        records,
        end: chain.end,
        readable_after,
    }
}

/// Follows the records in `segment`, the bytes of the segment that holds `from`, where one may begin.
pub fn follow<'a>(
    layout: Layout,
    segment: &'a [u8],
    from: u64,
    mut visit: impl FnMut(ValidRecord<'a>),
) -> Chain {
    let mut chain = Chain {
        end: from,
        is_complete: false,
        num_data_records: 0,
        last: None,
    };
    let segment_end = from.saturating_add(layout.rest_of(from));
    loop {
        chain.end = if chain.end == segment_end {
            segment_end
        } else {
            layout.place_after(chain.end)
        };
        if chain.end == segment_end {
            chain.is_complete = true;
            return chain;
        }
        let Some(record) = record_at(layout, segment, chain.end) else {
            return chain;
        };
        let header = record.header;
        chain.end += header.bytes_on_disk() as u64;
        chain.num_data_records += u64::from(header.kind == RecordKind::Data);
        let end = match header.kind {
            RecordKind::Pad => header.position + HEADER_BYTES as u64,
            RecordKind::Data | RecordKind::Seal => chain.end,
        };
        chain.last = Some(LastRecord {
            kind: header.kind,
            group_start: header.group_start(),
            end,
        });
        visit(record);
    }
}

/// All that reads as a record at its own position, from `from` on, whatever lies between.
/// Nothing when `from` is the end of the segment.
pub fn search(
    layout: Layout,
    index: u64,
    segment: &[u8],
    from: u64,
) -> impl Iterator<Item = ValidRecord<'_>> {
    let segment_end = layout.start_of(index).saturating_add(layout.segment_bytes);
    let mut position = from;
    std::iter::from_fn(move || {
        while position < segment_end {
            let here = position;
            match record_at(layout, segment, here) {
                Some(record) => {
                    position += record.header.bytes_on_disk() as u64;
                    return Some(record);
                }
                None => position += 8,
            }
        }
        None
    })
}

/// True when a record was begun at `position`, whole or not.
pub fn is_begun_at(layout: Layout, segment: &[u8], position: u64) -> bool {
    let bytes = segment.get(in_memory(layout.offset_of(position))..);
    let header = bytes.and_then(|bytes| bytes.first_chunk());
    header.is_some_and(|header| Header::decode(header, position).is_some())
}

/// A write never crosses a segment's start, so neither does a record's group.
fn record_at(layout: Layout, segment: &[u8], position: u64) -> Option<ValidRecord<'_>> {
    let offset = layout.offset_of(position);
    let bytes = segment.get(in_memory(offset)..)?;
    match parse(bytes, position, bytes.len(), layout.seed) {
        Parsed::Valid(record) => (u64::from(record.header.group_delta) <= offset).then_some(record),
        Parsed::Incomplete { .. } | Parsed::Invalid => None,
    }
}
