//! A batch in the form in which it is sent: one COPY stream for each table.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use super::copy::{
    CopyEncoder, NUM_DEAD_LETTER_COLUMNS, NUM_EVENT_COLUMNS, write_dead_letter, write_event,
};
use super::dead_letters::first_attempt_us;
use crate::event::RejectCode;
use crate::pipeline::batch::{Batch, HOUR_US, Row};
use crate::pipeline::clock::now_us;
use crate::pipeline::entry::Source;
use crate::pipeline::unreadable::reason_of;

/// The code of a row that only the database refused.
pub const REFUSED_BY_DATABASE: &str = "refused_by_database";

/// A row that the database refused, by its index in the batch.
pub type RefusedRows = BTreeMap<usize, String>;

/// A batch, encoded.
pub struct Encoded {
    pub events: Vec<Bytes>,
    pub outbox: Vec<Bytes>,
    /// The hours that the rows lie in, each device's own.
    pub hours: Vec<Bytes>,
    /// Since 1970; `None` without rows.
    pub earliest_hour: Option<i64>,
}

impl Encoded {
    /// Whether an hour had ended by then.
    pub fn has_ended_hours(&self, now_us: i64) -> bool {
        self.earliest_hour
            .is_some_and(|hour| hour < now_us.div_euclid(HOUR_US))
    }
}

/// Must the control plane act on it? Always on what the core itself says: nobody else can say it, and somebody waits for it.
pub fn is_relevant(row: &Row<'_>, relevant: &HashSet<String>) -> bool {
    row.source == Source::Core || relevant.contains(row.event.event_type)
}

/// Encodes the rows that the database does not refuse.
pub fn encode(batch: &Batch, relevant: &HashSet<String>, refused: &RefusedRows) -> Encoded {
    let mut events = CopyEncoder::new(NUM_EVENT_COLUMNS);
    let mut outbox = CopyEncoder::new(NUM_EVENT_COLUMNS);
    let mut hours = CopyEncoder::new(2);
    let mut last = None;
    let mut earliest_hour: Option<i64> = None;
    for (index, row) in batch.rows().enumerate() {
        if refused.contains_key(&index) {
            continue;
        }
        write_event(&mut events, &row);
        if is_relevant(&row, relevant) {
            write_event(&mut outbox, &row);
        }
        // Rows are sorted by day, device and time, so the hours of a device are neighbours.
        let (device_id, hour) = (row.device_id, row.time_us.div_euclid(HOUR_US));
        if last != Some((device_id, hour)) {
            last = Some((device_id, hour));
            earliest_hour = Some(earliest_hour.map_or(hour, |earliest| earliest.min(hour)));
            hours.row();
            hours.uuid(device_id);
            hours.timestamptz(hour.saturating_mul(HOUR_US));
        }
    }
    Encoded {
        events: events.finish(),
        outbox: outbox.finish(),
        hours: hours.finish(),
        earliest_hour,
    }
}

/// Encodes what was rejected at the door and what the database refused.
pub fn encode_dead_letters(batch: &Batch, refused: &RefusedRows) -> Vec<Bytes> {
    let mut out = CopyEncoder::new(NUM_DEAD_LETTER_COLUMNS);
    let next_attempt_us = first_attempt_us(now_us());
    for (row, code) in batch.rejected() {
        let (reason, next_attempt_us) = match code {
            // What cannot be understood never becomes a row.
            RejectCode::BadPayload => (reason_of(&row.event), None),
            _ => (None, Some(next_attempt_us)),
        };
        let reason = reason.as_deref().unwrap_or(code.as_str());
        write_dead_letter(&mut out, &row, code.as_str(), reason, next_attempt_us);
    }
    for (index, reason) in refused {
        for row in batch.rows_in(*index..index + 1) {
            let next_attempt_us = Some(next_attempt_us);
            write_dead_letter(&mut out, &row, REFUSED_BY_DATABASE, reason, next_attempt_us);
        }
    }
    out.finish()
}
