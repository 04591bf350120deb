//! The vocabulary: what an event is, which content is refused, and how its metadata becomes JSON.
//!
//! Nothing here knows frames, journals or tables. [`Event`] borrows from the bytes it was decoded from, so that
//! a batch is decoded and checked without an allocation.
//!
//! **Invariants.** An event that [`check_event`] takes can be stored: no NUL character reaches a text column,
//! no float that JSON cannot hold reaches a jsonb column, [`metadata_to_json`] cannot fail on it.
//!
//! **Absent.** Whose device it is (`unknown_device`, `forbidden_device`): the registry knows that.

use std::fmt;

use serde::{Serialize, Serializer};
use uuid::Uuid;

pub use metadata::metadata_to_json;

mod metadata;
pub mod msgpack;
#[cfg(test)]
mod tests;

/// An event type has 1 to this many characters.
pub const TYPE_CHARS_MAX: usize = 50;
/// A unit has at most this many characters.
pub const UNIT_CHARS_MAX: usize = 20;
/// Metadata as encoded, in bytes.
pub const METADATA_BYTES_MAX: usize = 8 * 1024;
/// How far a device's clock may run ahead of the core's, in microseconds: 24 hours.
pub const TIME_AHEAD_US_MAX: i64 = 24 * 3600 * 1_000_000;

/// One thing that a device reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event<'a> {
    /// Microseconds since 1970-01-01 UTC by the device's clock; `None` stands for the time of receipt.
    pub time_us: Option<i64>,
    pub event_type: &'a str,
    /// Integers and booleans (true = 1.0) came as such on the wire.
    pub value: Option<f64>,
    pub unit: Option<&'a str>,
    /// A MessagePack map as it was sent.
    pub metadata: Option<&'a [u8]>,
    /// A child of the connected device; `None` stands for the connected device itself.
    pub device_id: Option<Uuid>,
}

/// Why an event is kept as a dead letter. The numbers are in journals: a retired one is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RejectCode {
    BadType = 1,
    BadValue = 2,
    BadUnit = 3,
    BadMetadata = 4,
    BadTime = 5,
    UnknownDevice = 6,
    ForbiddenDevice = 7,
    /// What came is no event; it is kept as it came (see `pipeline::unreadable`).
    BadPayload = 8,
}

impl RejectCode {
    pub const ALL: [Self; 8] = [
        Self::BadType,
        Self::BadValue,
        Self::BadUnit,
        Self::BadMetadata,
        Self::BadTime,
        Self::UnknownDevice,
        Self::ForbiddenDevice,
        Self::BadPayload,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadType => "bad_type",
            Self::BadValue => "bad_value",
            Self::BadUnit => "bad_unit",
            Self::BadMetadata => "bad_metadata",
            Self::BadTime => "bad_time",
            Self::UnknownDevice => "unknown_device",
            Self::ForbiddenDevice => "forbidden_device",
            Self::BadPayload => "bad_payload",
        }
    }

    pub fn as_u8(self) -> u8 {
        self as u8
    }

    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_u8() == number)
    }
}

impl fmt::Display for RejectCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for RejectCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Applies the content rules in the order of the codes; the first one broken is the answer.
///
/// `now_us` is the core's clock and `oldest_us` the beginning of the retention, both in microseconds since
/// 1970-01-01 UTC.
///
/// # Errors
/// The code of the first rule that the event breaks. The two codes about devices and that of a payload are never among them.
pub fn check_event(event: &Event<'_>, now_us: i64, oldest_us: i64) -> Result<(), RejectCode> {
    if !is_event_type(event.event_type) {
        return Err(RejectCode::BadType);
    }
    if event.value.is_some_and(|value| !value.is_finite()) {
        return Err(RejectCode::BadValue);
    }
    if event.unit.is_some_and(|unit| !is_unit(unit)) {
        return Err(RejectCode::BadUnit);
    }
    if let Some(metadata) = event.metadata {
        metadata::check(metadata)?;
    }
    if event.time_us.is_some_and(|time_us| {
        time_us > now_us.saturating_add(TIME_AHEAD_US_MAX) || time_us < oldest_us
    }) {
        return Err(RejectCode::BadTime);
    }
    Ok(())
}

fn is_event_type(text: &str) -> bool {
    let is_printable_ascii = |byte| matches!(byte, b' '..=b'~');
    // Nearly all types are plain ASCII, for which the bytes answer.
    if text.len() <= TYPE_CHARS_MAX && text.bytes().all(is_printable_ascii) {
        return !text.is_empty();
    }
    has_chars_at_most(text, TYPE_CHARS_MAX) && !text.chars().any(char::is_control)
}

fn is_unit(text: &str) -> bool {
    has_chars_at_most(text, UNIT_CHARS_MAX) && !text.as_bytes().contains(&0)
}

/// Counts characters only where the bytes leave it open.
fn has_chars_at_most(text: &str, chars_max: usize) -> bool {
    text.len() <= chars_max || (text.len() <= 4 * chars_max && text.chars().count() <= chars_max)
}
