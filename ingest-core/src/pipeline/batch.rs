//! One batch: what the drain reads from the journal, and the order in which the database gets it.
//!
//! Rows are sorted by (UTC day, device, time). A day is a partition or a chunk, so each is written in one stretch; and
//! within it the index on (device, time) is met in its own order, which makes COPY two to three times faster than
//! rows in order of arrival.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::entry::{Entry, EntryError, Source};
use super::ranges::SequenceRanges;
use crate::event::{Event, RejectCode};
use crate::frame::{EventIter, FrameError};

pub const DAY_US: i64 = 86_400_000_000;
pub const HOUR_US: i64 = 3_600_000_000;

/// A record of the journal that cannot be turned into rows. It passed its checksum, so it is not damage: a defect, or
/// a newer release's journal. Nothing is skipped; the drain stops and says so.
#[derive(Debug, thiserror::Error)]
#[error("journal record at position {position} cannot be stored: {source}")]
pub struct UnreadableRecord {
    pub position: u64,
    #[source]
    pub source: UnreadableReason,
}

#[derive(Debug, thiserror::Error)]
pub enum UnreadableReason {
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error(transparent)]
    Event(#[from] FrameError),
}

/// Where an event's bytes lie, and what the database must know of it beside them.
#[derive(Debug, Clone, Copy)]
struct Slot {
    day: i64,
    device_id: Uuid,
    time_us: i64,
    payload: usize,
    offset: usize,
    len: usize,
    connected: Uuid,
    epoch: u64,
    seq: u64,
    received_us: i64,
    source: Source,
    rejected: Option<RejectCode>,
}

/// One event on its way to the database.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    pub time_us: i64,
    pub device_id: Uuid,
    pub event: Event<'a>,
    /// The event as the device encoded it, for dead letters.
    pub encoded: &'a [u8],
    pub source: Source,
    /// Whose sequence number it is: the connected device.
    pub connected: Uuid,
    pub epoch: u64,
    /// 0 for an event that came without one (see `entry`).
    pub seq: u64,
    pub received_us: i64,
}

/// Events of one stretch of the journal, sorted for COPY.
#[derive(Debug, Default)]
pub struct Batch {
    /// Journal positions: the batch holds all records in `start..end`.
    pub start: u64,
    pub end: u64,
    /// What the batch adds to each (device, epoch), in the order in which the rows are locked.
    pub sequences: BTreeMap<(Uuid, u64), SequenceRanges>,
    /// By the core's clock, microseconds; the age of the batch.
    pub oldest_received_us: i64,
    is_filtered: bool,
    payloads: Vec<Bytes>,
    rows: Vec<Slot>,
    rejected: Vec<Slot>,
}

impl Batch {
    #[must_use]
    pub fn new(start: u64) -> Self {
        Self {
            start,
            end: start,
            oldest_received_us: i64::MAX,
            ..Self::default()
        }
    }

    /// Adds the record at `position`, whose successor begins at `end`.
    ///
    /// # Errors
    /// [`UnreadableRecord`]; the batch is then of no use.
    pub fn push(
        &mut self,
        position: u64,
        end: u64,
        payload: Bytes,
    ) -> Result<(), UnreadableRecord> {
        self.slice(&payload)
            .map_err(|source| UnreadableRecord { position, source })?;
        self.payloads.push(payload);
        self.end = end;
        Ok(())
    }

    fn slice(&mut self, payload: &[u8]) -> Result<(), UnreadableReason> {
        let entry = Entry::decode(payload)?;
        self.oldest_received_us = self.oldest_received_us.min(entry.received_us);
        let mut ranges = entry.is_sequenced().then(|| {
            let key = (entry.device_id, entry.epoch);
            self.sequences.entry(key).or_default()
        });
        let mut verdicts = entry.rejected.iter().peekable();
        let mut offset = payload.len() - entry.events.len();
        for (index, event) in (0u32..).zip(EventIter::new(entry.events, entry.num_events)) {
            let event = event?;
            let len = event.encoded.len();
            let rejected = verdicts
                .next_if(|verdict| verdict.index == index)
                .map(|verdict| verdict.code);
            let seq = match ranges {
                Some(_) => entry.first_seq.saturating_add(u64::from(index)),
                None => 0,
            };
            // The same number twice: taken again after a refusal (see `SequenceWindow`).
            if !ranges.as_ref().is_some_and(|ranges| ranges.contains(seq)) {
                let time_us = event.event.time_us.unwrap_or(entry.received_us);
                let device_id = event.event.device_id.unwrap_or(entry.device_id);
                let speaks_itself = !entry.device_id.is_nil();
                let slot = Slot {
                    day: time_us.div_euclid(DAY_US),
                    device_id,
                    time_us,
                    payload: self.payloads.len(),
                    offset,
                    len,
                    connected: if speaks_itself {
                        entry.device_id
                    } else {
                        device_id
                    },
                    epoch: entry.epoch,
                    seq,
                    received_us: entry.received_us,
                    source: entry.source,
                    rejected,
                };
                if rejected.is_some() {
                    self.rejected.push(slot)
                } else {
                    self.rows.push(slot)
                }
            }
            offset += len;
        }
        if let Some(ranges) = &mut ranges {
            ranges.insert(entry.first_seq..entry.last_seq() + 1);
        }
        Ok(())
    }

    /// Puts the rows into the database's order. Call it once, when the last record was added.
    pub fn sort(&mut self) {
        self.rows
            .sort_unstable_by_key(|slot| (slot.day, slot.device_id, slot.time_us, slot.seq));
    }

    /// Leaves out what `is_stored` says the database has. Returns how many events that were.
    pub fn drop_stored(&mut self, is_stored: impl Fn(Uuid, u64, u64) -> bool) -> usize {
        self.is_filtered = true;
        let before = self.num_events();
        let is_new =
            |slot: &Slot| slot.seq == 0 || !is_stored(slot.connected, slot.epoch, slot.seq);
        self.rows.retain(is_new);
        self.rejected.retain(is_new);
        before - self.num_events()
    }

    #[must_use]
    pub fn num_events(&self) -> usize {
        self.rows.len() + self.rejected.len()
    }

    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.rows.len()
    }

    /// Was anything left out because the database had it?
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        self.is_filtered
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The events that become rows, in the order of [`Self::sort`].
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().filter_map(|slot| self.row(slot))
    }

    /// The rows in `range` of [`Self::rows`].
    pub fn rows_in(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = Row<'_>> {
        self.rows
            .get(range)
            .unwrap_or_default()
            .iter()
            .filter_map(|slot| self.row(slot))
    }

    /// The events that become dead letters, with the verdict of the moment they came in.
    pub fn rejected(&self) -> impl Iterator<Item = (Row<'_>, RejectCode)> {
        self.rejected
            .iter()
            .filter_map(|slot| Some((self.row(slot)?, slot.rejected?)))
    }

    /// The UTC days of the rows, in microseconds since 1970, ascending.
    #[must_use]
    pub fn days_us(&self) -> Vec<i64> {
        let mut days: Vec<_> = self
            .rows
            .iter()
            .map(|slot| slot.day.saturating_mul(DAY_US))
            .collect();
        days.dedup();
        days
    }

    // Each slot was made from bytes that decoded, so this is `Some` for all of them.
    fn row(&self, slot: &Slot) -> Option<Row<'_>> {
        let encoded = self
            .payloads
            .get(slot.payload)?
            .get(slot.offset..slot.offset + slot.len)?;
        let event = EventIter::new(encoded, 1).next()?.ok()?.event;
        Some(Row {
            time_us: slot.time_us,
            device_id: slot.device_id,
            event,
            encoded,
            source: slot.source,
            connected: slot.connected,
            epoch: slot.epoch,
            seq: slot.seq,
            received_us: slot.received_us,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::encode_event;
    use crate::pipeline::entry::Rejected;

    fn encoded(device: u128, time_us: i64) -> Vec<u8> {
        let mut out = Vec::new();
        let event = Event {
            time_us: Some(time_us),
            event_type: "t",
            value: Some(1.0),
            unit: None,
            metadata: None,
            device_id: Some(Uuid::from_u128(device)),
        };
        encode_event(&event, &mut out);
        out
    }

    fn push(batch: &mut Batch, entry: &Entry<'_>) {
        let position = batch.end;
        batch
            .push(position, position + 1, entry.encode().into())
            .unwrap();
    }

    #[test]
    fn of_a_device_that_gives_no_numbers_what_was_rejected_is_a_dead_letter_and_the_rest_are_rows()
    {
        let bytes = [encoded(1, 5), encoded(9, 6), encoded(1, 7)].concat();
        let rejected = vec![Rejected {
            index: 1,
            code: RejectCode::UnknownDevice,
        }];
        let entry = Entry {
            device_id: Uuid::from_u128(1),
            rejected,
            ..Entry::unsequenced(Source::Mqtt, 7, 3, &bytes)
        };
        let mut batch = Batch::new(0);
        push(&mut batch, &entry);
        assert!(batch.sequences.is_empty());
        batch.drop_stored(|_, _, _| true);
        let rows: Vec<_> = batch.rows().map(|row| row.time_us).collect();
        assert_eq!(rows, [5, 7]);
        let letters: Vec<_> = batch.rejected().collect();
        let [(letter, RejectCode::UnknownDevice)] = letters[..] else {
            panic!()
        };
        assert_eq!((letter.connected, letter.seq), (Uuid::from_u128(1), 0));
    }

    proptest! {
        /// Whatever comes between, whatever the database has of numbered events: each event without a number is one row.
        #[test]
        fn events_without_numbers_are_rows_each_once_and_touch_no_ranges(
            groups in prop::collection::vec((any::<bool>(), prop::collection::vec((1u128..5, 0i64..DAY_US * 3), 1..5)), 1..20),
        ) {
            let mut batch = Batch::new(0);
            let mut expected = Vec::new();
            let mut next_seq = 1;
            for (is_sequenced, events) in &groups {
                let bytes: Vec<u8> = events.iter().flat_map(|(device, time)| encoded(*device, *time)).collect();
                let num_events = u32::try_from(events.len()).unwrap();
                let mut entry = Entry::unsequenced(Source::Grpc, 7, num_events, &bytes);
                if *is_sequenced {
                    (entry.source, entry.device_id, entry.epoch, entry.first_seq) = (Source::Hdp, Uuid::from_u128(9), 2, next_seq);
                    next_seq += u64::from(num_events);
                } else {
                    expected.extend(events.iter().map(|(device, time)| (Uuid::from_u128(*device), *time)));
                }
                push(&mut batch, &entry);
            }
            batch.sort();
            prop_assert_eq!(batch.sequences.len(), usize::from(next_seq > 1));
            batch.drop_stored(|_, _, _| true);
            let mut left: Vec<_> = batch.rows().map(|row| (row.device_id, row.time_us)).collect();
            prop_assert!(batch.rows().all(|row| row.source == Source::Grpc && row.connected == row.device_id && row.seq == 0));
            left.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(left, expected);
        }
    }
}
