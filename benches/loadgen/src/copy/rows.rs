//! A block of rows in PostgreSQL's binary COPY format.
//!
//! Per row: i16 number of fields, then per field an i32 length (-1 = null) and the bytes in network order;
//! timestamps are microseconds since 2000-01-01.

use bytes::Bytes;
use hse_ingest_core::event::Event;
use uuid::Uuid;

use crate::devices::Device;
use crate::workload::fill_frame;

/// Signature, flags, length of the header's extension.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
pub const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

const NUM_FIELDS: i16 = 7;
/// The time's bytes come after the number of fields and the time's length.
const TIME_OFFSET: usize = 6;
const UNIX_TO_2000_US: i64 = 946_684_800_000_000;
/// The rows' clock: 200 000 rows a second, about what a drain does here.
const ROW_EVERY_US: i64 = 5;

/// Encoded rows, sent round and round with later times each time.
pub struct Block {
    bytes: Vec<u8>,
    /// Where each row begins, and the end.
    offsets: Vec<usize>,
    next_row: usize,
    span_us: i64,
}

impl Block {
    /// Encodes `num_rows` rows of frames from `devices` in turn; `sort_rows` 0 leaves them as they come.
    pub fn encode(
        devices: &[Device],
        events_per_frame: u32,
        num_rows: u32,
        sort_rows: usize,
        start_us: i64,
    ) -> Self {
        let mut rows = arrivals(devices, events_per_frame, num_rows, start_us);
        if sort_rows > 0 {
            for run in rows.chunks_mut(sort_rows) {
                run.sort_by_key(|(device_id, event)| (*device_id, event.time_us));
            }
        }
        let mut bytes = Vec::with_capacity(rows.len() * 96);
        let mut offsets = Vec::with_capacity(rows.len() + 1);
        for (device_id, event) in &rows {
            offsets.push(bytes.len());
            encode_row(&mut bytes, *device_id, event);
        }
        offsets.push(bytes.len());
        Self {
            bytes,
            offsets,
            next_row: 0,
            span_us: i64::from(num_rows) * ROW_EVERY_US,
        }
    }

    /// Takes the next rows: about `num_bytes` of them, at most `num_rows`, at least one.
    pub fn take(&mut self, num_rows: u64, num_bytes: usize) -> (Bytes, u64) {
        let last_row = self.offsets.len() - 1;
        if self.next_row == last_row {
            self.next_row = 0;
            self.move_on();
        }
        let begin = self.offsets.get(self.next_row).copied().unwrap_or(0);
        let row_of_bytes = self
            .offsets
            .partition_point(|&offset| offset <= begin + num_bytes)
            - 1;
        let row_of_rows = self
            .next_row
            .saturating_add(usize::try_from(num_rows).unwrap_or(usize::MAX));
        let end_row = row_of_bytes
            .max(self.next_row + 1)
            .min(row_of_rows)
            .min(last_row);
        let end = self.offsets.get(end_row).copied().unwrap_or(begin);
        let taken = u64::try_from(end_row - self.next_row).unwrap_or(0);
        self.next_row = end_row;
        (
            Bytes::copy_from_slice(self.bytes.get(begin..end).unwrap_or_default()),
            taken,
        )
    }

    fn move_on(&mut self) {
        for offset in &self.offsets {
            let time = self
                .bytes
                .get_mut(offset + TIME_OFFSET..)
                .and_then(<[u8]>::first_chunk_mut::<8>);
            // The last offset is the end: no row there.
            if let Some(time) = time {
                *time = (i64::from_be_bytes(*time) + self.span_us).to_be_bytes();
            }
        }
    }
}

fn arrivals(
    devices: &[Device],
    events_per_frame: u32,
    num_rows: u32,
    start_us: i64,
) -> Vec<(Uuid, Event<'static>)> {
    let wanted = usize::try_from(num_rows).unwrap_or(0);
    let mut rows = Vec::with_capacity(wanted);
    let mut frame = Vec::new();
    let mut first_seq = 1;
    let mut time_us = start_us;
    while rows.len() < wanted && !devices.is_empty() {
        for device in devices {
            time_us += i64::from(events_per_frame) * ROW_EVERY_US;
            fill_frame(&mut frame, device, first_seq, events_per_frame, time_us);
            rows.extend(
                frame
                    .iter()
                    .map(|event| (event.device_id.unwrap_or(device.device_id), *event)),
            );
        }
        first_seq += u64::from(events_per_frame);
    }
    rows.truncate(wanted);
    rows
}

fn encode_row(out: &mut Vec<u8>, device_id: Uuid, event: &Event<'_>) {
    out.extend_from_slice(&NUM_FIELDS.to_be_bytes());
    field(
        out,
        Some(&(event.time_us.unwrap_or(0) - UNIX_TO_2000_US).to_be_bytes()),
    );
    field(out, Some(device_id.as_bytes()));
    field(out, Some(event.event_type.as_bytes()));
    field(
        out,
        event
            .value
            .map(f64::to_be_bytes)
            .as_ref()
            .map(<[u8; 8]>::as_slice),
    );
    field(out, event.unit.map(str::as_bytes));
    field(out, None);
    field(out, Some(b"hdp"));
}

fn field(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let length = bytes.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap_or(i32::MAX));
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Vec<Device> {
        (0..3)
            .map(|_| Device {
                device_id: Uuid::new_v4(),
                token: String::new(),
                children: Vec::new(),
            })
            .collect()
    }

    fn times(bytes: &[u8], offsets: &[usize]) -> Vec<i64> {
        let begins = &offsets[..offsets.len() - 1];
        begins
            .iter()
            .map(|o| i64::from_be_bytes(bytes[o + 6..o + 14].try_into().unwrap()))
            .collect()
    }

    #[test]
    fn every_row_is_taken_once_a_pass_and_later_in_the_next() {
        let mut block = Block::encode(&devices(), 7, 1000, 0, UNIX_TO_2000_US);
        let offsets = block.offsets.clone();
        let mut passes = Vec::new();
        for _ in 0..2 {
            let mut bytes = Vec::new();
            let mut num_rows = 0;
            while num_rows < 1000 {
                let (chunk, taken) = block.take(1000 - num_rows, 4096);
                assert!(taken > 0);
                bytes.extend_from_slice(&chunk);
                num_rows += taken;
            }
            assert_eq!(bytes.len(), *offsets.last().unwrap());
            passes.push(times(&bytes, &offsets));
        }
        assert!(passes[0].iter().max() < passes[1].iter().min());
    }

    #[test]
    fn sorted_runs_hold_the_same_rows() {
        let devices = devices();
        let arrival = Block::encode(&devices, 4, 120, 0, UNIX_TO_2000_US);
        let sorted = Block::encode(&devices, 4, 120, 120, UNIX_TO_2000_US);
        assert_ne!(arrival.bytes, sorted.bytes);
        let rows = |block: &Block| {
            let mut rows: Vec<Vec<u8>> = block
                .offsets
                .windows(2)
                .map(|w| block.bytes[w[0]..w[1]].to_vec())
                .collect();
            rows.sort();
            rows
        };
        assert_eq!(rows(&arrival), rows(&sorted));
    }
}
