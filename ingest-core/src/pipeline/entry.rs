//! What the journal keeps of one EVENTS frame, or of what came without sequence numbers, little-endian:
//!
//! ```text
//! version u8 = 1 | source u8 | device 16 | epoch u64 | first_seq u64 | received_us i64 | num_events u32
//! | num_rejected u32 | num_rejected x { index u32, code u8 } | the events as the device encoded them
//! ```
//!
//! The events stay MessagePack, byte for byte as they came: the smallest form there is, and nothing is encoded twice.
//! Verdicts are kept beside them, because they depend on the moment: the clock, and whose child a device was.
//!
//! An entry without sequence numbers has the source's number for its epoch, and its first number is 0. Where its source is not
//! a device, its device is nil, and each of its events names its device. That it is stored once is the cursor's doing alone: it
//! lies in one journal, which one cursor reads. Were an old copy of a journal put back, what the copy still holds of such entries
//! would be offered again and stored a second time; events with numbers would not (see `drain`).

use bytes::{Buf, BufMut};
use uuid::Uuid;

use crate::event::RejectCode;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + 1 + 16 + 8 + 8 + 8 + 4 + 4;
const REJECTED_BYTES: usize = 4 + 1;

/// By which door events came in; the `source` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A device, over HDP/1.
    Hdp,
    /// A service that speaks for devices (`NotifyDeviceEvents`).
    Grpc,
    /// The core itself: what it says of a device, and no device can say.
    Core,
    /// A device, over MQTT; with numbers or without.
    Mqtt,
    /// A device that was asked, over Modbus.
    Modbus,
    /// A device, over HTTP.
    Http,
}

impl Source {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hdp => "hdp",
            Self::Grpc => "grpc",
            Self::Core => "core",
            Self::Mqtt => "mqtt",
            Self::Modbus => "modbus",
            Self::Http => "http",
        }
    }

    /// The source that [`Self::as_str`] names so; none for a name that a newer release gave.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = (1..).map_while(Self::from_u8);
        all.find(|source| source.as_str() == name)
    }

    /// By which door an event came of which only `epoch` and `seq` were kept. Of one with a number only this much is known:
    /// that it was a device's.
    #[must_use]
    pub fn of(epoch: u64, seq: u64) -> Self {
        let named = u8::try_from(epoch).ok().and_then(Self::from_u8);
        match (seq, named) {
            (0, Some(source)) => source,
            _ => Self::Hdp,
        }
    }

    fn to_u8(self) -> u8 {
        match self {
            Self::Hdp => 1,
            Self::Grpc => 2,
            Self::Core => 3,
            Self::Mqtt => 4,
            Self::Modbus => 5,
            Self::Http => 6,
        }
    }

    fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Hdp),
            2 => Some(Self::Grpc),
            3 => Some(Self::Core),
            4 => Some(Self::Mqtt),
            5 => Some(Self::Modbus),
            6 => Some(Self::Http),
            _ => None,
        }
    }
}

/// The event at `index` of an entry is kept as a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected {
    pub index: u32,
    pub code: RejectCode,
}

/// One frame's worth of events, taken together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    pub source: Source,
    /// The connected device, whose sequence numbers these are.
    pub device_id: Uuid,
    pub epoch: u64,
    pub first_seq: u64,
    /// Microseconds since 1970, by the core's clock.
    pub received_us: i64,
    pub num_events: u32,
    /// By ascending index.
    pub rejected: Vec<Rejected>,
    /// The encoded events, one behind the other.
    pub events: &'a [u8],
}

/// A journal record that passed its checksum and still is not an entry: written by a newer version, or a defect.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("journal entry cannot be read: {0}")]
pub struct EntryError(&'static str);

impl<'a> Entry<'a> {
    /// Events without sequence numbers, each of which names its device.
    #[must_use]
    pub fn unsequenced(
        source: Source,
        received_us: i64,
        num_events: u32,
        events: &'a [u8],
    ) -> Self {
        Self {
            source,
            device_id: Uuid::nil(),
            epoch: u64::from(source.to_u8()),
            first_seq: 0,
            received_us,
            num_events,
            rejected: Vec::new(),
            events,
        }
    }
}

impl Entry<'_> {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(
            HEADER_BYTES + self.rejected.len() * REJECTED_BYTES + self.events.len(),
        );
        out.put_u8(VERSION);
        out.put_u8(self.source.to_u8());
        out.put_slice(self.device_id.as_bytes());
        out.put_u64_le(self.epoch);
        out.put_u64_le(self.first_seq);
        out.put_i64_le(self.received_us);
        out.put_u32_le(self.num_events);
        // A frame holds at most 10 000 events.
        out.put_u32_le(u32::try_from(self.rejected.len()).unwrap_or(u32::MAX));
        for rejected in &self.rejected {
            out.put_u32_le(rejected.index);
            out.put_u8(rejected.code.as_u8());
        }
        out.put_slice(self.events);
        out
    }
}

impl<'a> Entry<'a> {
    /// Reads an entry back.
    ///
    /// # Errors
    /// [`EntryError`] when the bytes are not an entry of a known version.
    pub fn decode(mut bytes: &'a [u8]) -> Result<Self, EntryError> {
        if bytes.remaining() < HEADER_BYTES {
            return Err(EntryError("shorter than its header"));
        }
        if bytes.get_u8() != VERSION {
            return Err(EntryError("unknown version: a newer release wrote it"));
        }
        let source = Source::from_u8(bytes.get_u8()).ok_or(EntryError("unknown source"))?;
        let mut device_id = [0; 16];
        bytes.copy_to_slice(&mut device_id);
        let (epoch, first_seq) = (bytes.get_u64_le(), bytes.get_u64_le());
        let received_us = bytes.get_i64_le();
        let (num_events, num_rejected) = (bytes.get_u32_le(), bytes.get_u32_le() as usize);
        if bytes.remaining() < num_rejected.saturating_mul(REJECTED_BYTES) {
            return Err(EntryError("shorter than its verdicts"));
        }
        let mut rejected = Vec::with_capacity(num_rejected);
        for _ in 0..num_rejected {
            let index = bytes.get_u32_le();
            let code = RejectCode::from_u8(bytes.get_u8()).ok_or(EntryError("unknown verdict"))?;
            rejected.push(Rejected { index, code });
        }
        let device_id = Uuid::from_bytes(device_id);
        Ok(Self {
            source,
            device_id,
            epoch,
            first_seq,
            received_us,
            num_events,
            rejected,
            events: bytes,
        })
    }

    /// Do its events have sequence numbers, by which the database knows them?
    #[must_use]
    pub fn is_sequenced(&self) -> bool {
        self.first_seq > 0
    }

    /// The last sequence number it holds.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.first_seq
            .saturating_add(u64::from(self.num_events))
            .saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry<'static> {
        Entry {
            source: Source::Hdp,
            device_id: Uuid::from_u128(7),
            epoch: 3,
            first_seq: 11,
            received_us: -5,
            num_events: 2,
            rejected: vec![Rejected {
                index: 1,
                code: RejectCode::BadType,
            }],
            events: b"events",
        }
    }

    #[test]
    fn an_entry_reads_back_as_it_was_written() {
        let bytes = entry().encode();
        assert_eq!(Entry::decode(&bytes), Ok(entry()));
        assert_eq!(entry().last_seq(), 12);
    }

    #[test]
    fn an_entry_without_numbers_reads_back_and_is_known_by_the_absence_of_one() {
        for source in [
            Source::Grpc,
            Source::Core,
            Source::Mqtt,
            Source::Modbus,
            Source::Http,
        ] {
            let entry = Entry::unsequenced(source, 9, 2, b"events");
            let bytes = entry.encode();
            let read = Entry::decode(&bytes).unwrap();
            assert_eq!(read, entry);
            assert_eq!(Source::of(read.epoch, read.first_seq), source);
            assert_eq!(Source::named(source.as_str()), Some(source));
        }
        assert_eq!(Source::of(3, 1), Source::Hdp);
        assert_eq!(Source::named("hdp"), Some(Source::Hdp));
        assert_eq!(Source::named("a newer door"), None);
    }

    #[test]
    fn a_cut_header_is_an_error_and_not_a_panic() {
        let bytes = entry().encode();
        for len in 0..HEADER_BYTES + REJECTED_BYTES {
            assert!(Entry::decode(&bytes[..len]).is_err(), "{len}");
        }
    }
}
