//! One record: a 24-byte header and its payload, little-endian, padded to 8 bytes.

use crc32c::{crc32c, crc32c_append};
use uuid::Uuid;

pub const HEADER_BYTES: usize = 24;
const ALIGNMENT: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    Data = 1,
    /// Takes the place of bytes that carry nothing: the rest of a segment, or a stretch that repair gave up.
    /// Its checksum covers the header only.
    Pad = 2,
    /// Written and synced by a clean close: nothing before it can be a torn write.
    Seal = 3,
}

/// What every checksum of a journal starts from, so that a record of another journal is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    pub fn of(journal_id: Uuid) -> Self {
        Self(crc32c(journal_id.as_bytes()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: RecordKind,
    pub position: u64,
    /// How far the record lies behind the start of the write it was part of.
    pub group_delta: u32,
    /// Payload bytes, without the padding.
    pub len: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidRecord<'a> {
    pub header: Header,
    /// Empty unless the record is [`RecordKind::Data`].
    pub payload: &'a [u8],
}

#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    Valid(ValidRecord<'a>),
    /// Could be valid, but only with this many bytes in hand.
    Incomplete {
        needed: usize,
    },
    Invalid,
}

pub fn bytes_on_disk(payload_bytes: usize) -> usize {
    HEADER_BYTES + payload_bytes.next_multiple_of(ALIGNMENT)
}

impl Header {
    /// Header, payload and padding together.
    pub fn bytes_on_disk(&self) -> usize {
        bytes_on_disk(self.len as usize)
    }

    /// Start of the write that this record was part of.
    pub fn group_start(&self) -> u64 {
        self.position.saturating_sub(u64::from(self.group_delta))
    }

    pub fn encode(&self, payload: &[u8], seed: Seed) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.position.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.group_delta.to_le_bytes());
        bytes[20] = self.kind as u8;
        let crc = checksum(&bytes, payload, seed);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` when the bytes cannot be the header of a record at `position`. Looks at the position first:
    /// it is what rules out nearly everything when a segment is searched.
    pub fn decode(bytes: &[u8; HEADER_BYTES], position: u64) -> Option<Self> {
        let [
            l0,
            l1,
            l2,
            l3,
            _,
            _,
            _,
            _,
            p0,
            p1,
            p2,
            p3,
            p4,
            p5,
            p6,
            p7,
            g0,
            g1,
            g2,
            g3,
            kind,
            reserved @ ..,
        ] = *bytes;
        if u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7]) != position || reserved != [0; 3] {
            return None;
        }
        let kind = match kind {
            1 => RecordKind::Data,
            2 => RecordKind::Pad,
            3 => RecordKind::Seal,
            _ => return None,
        };
        let group_delta = u32::from_le_bytes([g0, g1, g2, g3]);
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        Some(Self {
            kind,
            position,
            group_delta,
            len,
        })
    }
}

pub fn append_data(
    buffer: &mut Vec<u8>,
    payload: &[u8],
    group_start: u64,
    seed: Seed,
) -> Result<(), std::num::TryFromIntError> {
    let group_delta = u32::try_from(buffer.len())?;
    let len = u32::try_from(payload.len())?;
    let position = group_start + u64::from(group_delta);
    let header = Header {
        kind: RecordKind::Data,
        position,
        group_delta,
        len,
    };
    buffer.extend_from_slice(&header.encode(payload, seed));
    buffer.extend_from_slice(payload);
    buffer.resize(buffer.len().next_multiple_of(ALIGNMENT), 0);
    Ok(())
}

/// Reads the record that `bytes` begins with, expected at `position`, where `segment_rest` bytes are left
/// until the segment ends.
pub fn parse(bytes: &[u8], position: u64, segment_rest: usize, seed: Seed) -> Parsed<'_> {
    let Some((header_bytes, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return match segment_rest < HEADER_BYTES {
            true => Parsed::Invalid,
            false => Parsed::Incomplete {
                needed: HEADER_BYTES,
            },
        };
    };
    let Some(header) = Header::decode(header_bytes, position) else {
        return Parsed::Invalid;
    };
    if header.bytes_on_disk() > segment_rest || u64::from(header.group_delta) > position {
        return Parsed::Invalid;
    }
    let payload = match header.kind {
        RecordKind::Data => match rest.get(..header.len as usize) {
            Some(payload) => payload,
            None => {
                return Parsed::Incomplete {
                    needed: header.bytes_on_disk(),
                };
            }
        },
        RecordKind::Pad | RecordKind::Seal => &[],
    };
    let [_, _, _, _, c0, c1, c2, c3, ..] = *header_bytes;
    if u32::from_le_bytes([c0, c1, c2, c3]) != checksum(header_bytes, payload, seed) {
        return Parsed::Invalid;
    }
    Parsed::Valid(ValidRecord { header, payload })
}

/// Over the header without the checksum's own four bytes, then the payload.
fn checksum(header: &[u8; HEADER_BYTES], payload: &[u8], seed: Seed) -> u32 {
    let crc = crc32c_append(seed.0, &header[0..4]);
    let crc = crc32c_append(crc, &header[8..HEADER_BYTES]);
    crc32c_append(crc, payload)
}
