//! Reads segments: bytes as they come, and well-formed ones that were then changed. The records are encoded here a
//! second time, from the format's description, so that reader and writer cannot be wrong together.
#![no_main]

use hse_ingest_core::journal::read_segment;
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

const JOURNAL_ID: Uuid = Uuid::from_u128(0x6f70_a2c1_5d1e_4c0b_9a52_38d7_7c40_11ee);
const SEGMENT_BYTES: usize = 4096;
const HEADER_BYTES: usize = 24;

fuzz_target!(|data: &[u8]| {
    let Some((&[how, index], data)) = data.split_first_chunk() else {
        return;
    };
    match how % 2 {
        0 => read_anything(index, data),
        _ => read_changed(index, data),
    }
});

fn read_anything(index: u8, segment: &[u8]) {
    let contents = read_segment(JOURNAL_ID, u32::from(index), segment);
    let start = usize::from(index) * segment.len().max(1);
    let mut end = start;
    for (position, payload) in contents.records {
        let position = usize::try_from(position).unwrap();
        assert!(position >= end && position % 8 == start % 8);
        let offset = position - start + HEADER_BYTES;
        assert_eq!(&segment[offset..offset + payload.len()], payload);
        end = position + HEADER_BYTES + payload.len();
    }
    assert!(usize::try_from(contents.end).unwrap() >= end);
    assert!(
        contents
            .readable_after
            .iter()
            .all(|&position| position > contents.end)
    );
}

/// Data: number of changes, the changes as (offset, mask), then payloads as (length, bytes).
fn read_changed(index: u8, data: &[u8]) {
    let start = usize::from(index) * SEGMENT_BYTES;
    let Some((&num_changes, data)) = data.split_first() else {
        return;
    };
    let Some((changes, mut data)) = data.split_at_checked(usize::from(num_changes % 4) * 3) else {
        return;
    };
    let mut segment = Vec::new();
    let mut expected = Vec::new();
    while let Some((&len, rest)) = data.split_first() {
        let (payload, rest) = rest.split_at(usize::from(len).min(rest.len()));
        data = rest;
        if segment.len() + HEADER_BYTES + payload.len().next_multiple_of(8) > SEGMENT_BYTES {
            break;
        }
        expected.push((segment.len(), payload));
        append(&mut segment, start, payload);
    }
    segment.resize(SEGMENT_BYTES, 0);
    let mut first_changed = SEGMENT_BYTES;
    for change in changes.chunks_exact(3) {
        let offset = usize::from(u16::from_le_bytes([change[0], change[1]])) % SEGMENT_BYTES;
        segment[offset] ^= change[2];
        if change[2] != 0 {
            first_changed = first_changed.min(offset);
        }
    }
    let contents = read_segment(JOURNAL_ID, u32::from(index), &segment);
    let is_untouched = |(offset, payload): &&(usize, &[u8])| {
        offset + HEADER_BYTES + payload.len() <= first_changed
    };
    let num_untouched = expected.iter().take_while(is_untouched).count();
    assert!(contents.records.len() >= num_untouched);
    // Up to three changed bytes cannot make a record that was not written: CRC32C notices them at this length,
    // or they are in the padding, or they undo each other.
    for ((position, found), (offset, payload)) in contents.records.iter().zip(&expected) {
        assert_eq!((*position, *found), ((start + offset) as u64, *payload));
    }
    assert!(contents.records.len() <= expected.len());
}

fn append(segment: &mut Vec<u8>, start: usize, payload: &[u8]) {
    let position = (start + segment.len()) as u64;
    let len = u32::try_from(payload.len()).unwrap().to_le_bytes();
    let mut rest = position.to_le_bytes().to_vec();
    rest.extend([0; 4]);
    rest.extend([1, 0, 0, 0]);
    let crc = [JOURNAL_ID.as_bytes(), &len[..], &rest, payload]
        .into_iter()
        .fold(0, crc32c::crc32c_append);
    segment.extend(len);
    segment.extend(crc.to_le_bytes());
    segment.extend(rest);
    segment.extend(payload);
    segment.resize(segment.len().next_multiple_of(8), 0);
}
