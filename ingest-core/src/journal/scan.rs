//! What a journal's segments say, from the cursor on. Reads only; opening, inspection and repair
//! all start from this, and differ in what they make of it.

use std::collections::BTreeSet;
use std::io;

use super::record::{HEADER_BYTES, RecordKind};
use super::segment::{self, LastRecord, Layout};
use super::storage::Storage;

#[derive(Debug)]
pub struct Scan {
    /// Where the readable records end, and the next would begin.
    pub end: u64,
    pub num_data_records: u64,
    /// The last readable record, if there is one at or after the place the scan began at.
    pub last: Option<LastRecord>,
    pub tail: Tail,
    pub segments: Vec<ScannedSegment>,
}

/// What follows the readable records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing that was begun, or only traces of one write that never finished. Bytes up to `traces_end` may read
    /// as records of that write, and must be gone before another is written in its place.
    Unfinished { traces_end: u64 },
    /// The last record is the seal of a clean close.
    Sealed,
    /// Records of a later write were found, so what was at `end` had been synced and is now unreadable.
    Damaged { next_readable: u64 },
}

#[derive(Clone, Copy, Debug)]
pub struct ScannedSegment {
    pub index: u64,
    pub num_data_records: u64,
    /// End of the records in this segment.
    pub end: u64,
}

/// Reads the segments from `from` on, which is where a record begins or will begin.
/// A segment that is missing ends the scan: the caller checks that none is.
pub fn scan(
    storage: &dyn Storage,
    layout: Layout,
    from: u64,
    indexes: &BTreeSet<u64>,
) -> io::Result<Scan> {
    let mut scan = Scan {
        end: from,
        num_data_records: 0,
        last: None,
        tail: Tail::Unfinished { traces_end: from },
        segments: Vec::new(),
    };
    let mut buffer = Vec::new();
    while indexes.contains(&layout.index_of(scan.end)) {
        let index = layout.index_of(scan.end);
        segment::read_whole(storage, layout, index, &mut buffer)?;
        let chain = segment::follow(layout, &buffer, scan.end, |_| {});
        let num_data_records = chain.num_data_records;
        scan.segments.push(ScannedSegment {
            index,
            num_data_records,
            end: chain.end,
        });
        scan.num_data_records += num_data_records;
        scan.last = chain.last.or(scan.last);
        scan.end = chain.end;
        if !chain.is_complete {
            break;
        }
    }
    scan.tail = read_tail(storage, layout, &scan, indexes, buffer)?;
    Ok(scan)
}

/// A write begins only after the one before was synced. So whatever is readable after the break either belongs to
/// the write that was broken off, or proves that the break is no torn write.
fn read_tail(
    storage: &dyn Storage,
    layout: Layout,
    scan: &Scan,
    indexes: &BTreeSet<u64>,
    mut buffer: Vec<u8>,
) -> io::Result<Tail> {
    let mut traces_end = scan.end;
    let mut next_readable = None;
    for &index in indexes.range(layout.index_of(scan.end)..) {
        segment::read_whole(storage, layout, index, &mut buffer)?;
        let mut from = layout.start_of(index);
        if index == layout.index_of(scan.end) {
            from = scan.end + HEADER_BYTES as u64;
            if segment::is_begun_at(layout, &buffer, scan.end) {
                traces_end = from;
            }
        }
        for record in segment::search(layout, index, &buffer, from) {
            let next_readable = *next_readable.get_or_insert(record.header.position);
            if record.header.group_start() > scan.end {
                return Ok(Tail::Damaged { next_readable });
            }
            traces_end = record.header.position + record.header.bytes_on_disk() as u64;
        }
    }
    let is_sealed = scan.last.is_some_and(|last| last.kind == RecordKind::Seal);
    Ok(match is_sealed && traces_end == scan.end {
        true => Tail::Sealed,
        false => Tail::Unfinished { traces_end },
    })
}

impl Scan {
    /// True when no record was found, nor traces of one.
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
            && self.tail
                == Tail::Unfinished {
                    traces_end: self.end,
                }
    }
}
