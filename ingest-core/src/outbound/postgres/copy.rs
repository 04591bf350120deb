//! Rows in PostgreSQL's COPY BINARY format (documentation of COPY, "Binary Format").
//!
//! ```text
//! "PGCOPY\n\xff\r\n\0" | flags i32 = 0 | extension bytes i32 = 0 | row ... | -1 i16
//! row = num_columns i16 | per column: num_bytes i32 (-1 = NULL) | value big-endian
//! ```
//!
//! Encoded by hand because a library's writer dispatches per cell and sends 4 KiB at a time; here a batch becomes a few
//! buffers that the socket takes whole.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::event::{Event, metadata_to_json};
use crate::pipeline::batch::Row;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const NULL: i32 = -1;
const JSONB_VERSION: u8 = 1;
/// 2000-01-01, from which PostgreSQL counts, in microseconds since 1970.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
/// The socket gets pieces of about this size.
const PIECE_BYTES: usize = 256 << 10;

/// A COPY stream under way: call [`Self::row`], then one column method per column, for each row.
pub struct CopyEncoder {
    pieces: Vec<Bytes>,
    current: BytesMut,
    json: Vec<u8>,
    num_columns: i16,
    num_rows: usize,
}

impl CopyEncoder {
    #[must_use]
    pub fn new(num_columns: i16) -> Self {
        let mut current = BytesMut::with_capacity(PIECE_BYTES + 4096);
        current.put_slice(SIGNATURE);
        current.put_i32(0);
        current.put_i32(0);
        Self {
            pieces: Vec::new(),
            current,
            json: Vec::new(),
            num_columns,
            num_rows: 0,
        }
    }

    pub fn row(&mut self) {
        if self.current.len() >= PIECE_BYTES {
            let full = std::mem::replace(
                &mut self.current,
                BytesMut::with_capacity(PIECE_BYTES + 4096),
            );
            self.pieces.push(full.freeze());
        }
        self.current.put_i16(self.num_columns);
        self.num_rows += 1;
    }

    pub fn null(&mut self) {
        self.current.put_i32(NULL);
    }

    pub fn timestamptz(&mut self, time_us: i64) {
        self.int8(time_us.saturating_sub(POSTGRES_EPOCH_US));
    }

    pub fn int8(&mut self, value: i64) {
        self.current.put_i32(8);
        self.current.put_i64(value);
    }

    pub fn float8(&mut self, value: f64) {
        self.current.put_i32(8);
        self.current.put_f64(value);
    }

    pub fn uuid(&mut self, id: Uuid) {
        self.bytes(id.as_bytes());
    }

    /// For `text` and `bytea`. What comes here is bounded by `frame_bytes_max`, far below what the length can say.
    pub fn bytes(&mut self, value: &[u8]) {
        self.current
            .put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.current.put_slice(value);
    }

    /// A MessagePack map that passed `check_event`, as `jsonb`.
    pub fn jsonb(&mut self, metadata: &[u8]) {
        self.json.clear();
        self.json.push(JSONB_VERSION);
        match metadata_to_json(metadata, &mut self.json) {
            Ok(()) => {
                self.current
                    .put_i32(i32::try_from(self.json.len()).unwrap_or(i32::MAX));
                self.current.put_slice(&self.json);
            }
            // Checked at the door; were the rules ever to part, the row keeps its value and loses only this.
            Err(_) => self.null(),
        }
    }

    fn text_or_null(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.bytes(text.as_bytes()),
            None => self.null(),
        }
    }

    /// The stream's pieces, or none when there is no row.
    #[must_use]
    pub fn finish(mut self) -> Vec<Bytes> {
        if self.num_rows == 0 {
            return Vec::new();
        }
        self.current.put_i16(-1);
        self.pieces.push(self.current.freeze());
        self.pieces
    }
}

/// The columns that `device_events` and `event_outbox` share, in the order of [`write_event`].
pub const EVENT_COLUMNS: &str = "time, device_id, event_type, value, unit, metadata, source";
pub const NUM_EVENT_COLUMNS: i16 = 7;

/// One row of [`EVENT_COLUMNS`].
pub fn write_event(out: &mut CopyEncoder, row: &Row<'_>) {
    let Event {
        event_type,
        value,
        unit,
        metadata,
        ..
    } = row.event;
    out.row();
    out.timestamptz(row.time_us);
    out.uuid(row.device_id);
    out.bytes(event_type.as_bytes());
    match value {
        Some(value) => out.float8(value),
        None => out.null(),
    }
    out.text_or_null(unit);
    match metadata {
        Some(metadata) => out.jsonb(metadata),
        None => out.null(),
    }
    out.bytes(row.source.as_str().as_bytes());
}

pub const DEAD_LETTER_COLUMNS: &str = "device_id, epoch, seq, received_at, code, reason, event, status, attempts, next_attempt_at, source";
pub const NUM_DEAD_LETTER_COLUMNS: i16 = 11;

/// One row of [`DEAD_LETTER_COLUMNS`], to be tried again at `next_attempt_us`, or never.
pub fn write_dead_letter(
    out: &mut CopyEncoder,
    row: &Row<'_>,
    code: &str,
    reason: &str,
    next_attempt_us: Option<i64>,
) {
    out.row();
    out.uuid(row.connected);
    // HELLO and EVENTS are refused beyond i64 (see `frame`).
    out.int8(i64::try_from(row.epoch).unwrap_or(i64::MAX));
    out.int8(i64::try_from(row.seq).unwrap_or(i64::MAX));
    out.timestamptz(row.received_us);
    out.bytes(code.as_bytes());
    out.bytes(reason.as_bytes());
    out.bytes(row.encoded);
    out.bytes(match next_attempt_us {
        Some(_) => &b"pending"[..],
        None => b"permanent",
    });
    out.current.put_i32(4);
    out.current.put_i32(0);
    match next_attempt_us {
        Some(time_us) => out.timestamptz(time_us),
        None => out.null(),
    }
    out.bytes(row.source.as_str().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_signature_rows_and_trailer() {
        let mut out = CopyEncoder::new(2);
        out.row();
        out.timestamptz(POSTGRES_EPOCH_US + 1);
        out.null();
        let bytes: Vec<u8> = out.finish().concat();
        let expected = [
            SIGNATURE,
            &[0; 8],
            &[0, 2, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1],
            &[255; 4],
            &[255; 2],
        ]
        .concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn no_row_is_no_stream() {
        assert!(CopyEncoder::new(2).finish().is_empty());
    }

    #[test]
    fn a_large_stream_comes_in_pieces() {
        let mut out = CopyEncoder::new(1);
        for _ in 0..100_000 {
            out.row();
            out.int8(1);
        }
        assert!(out.finish().len() > 3);
    }
}
