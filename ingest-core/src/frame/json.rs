//! The JSON form of the protocol, for `nc`, small controllers and people: one object a line, one key an object.
//!
//! A line is transcoded to the kind and the body of its frame and goes through [`super::decode`] like any other,
//! so types, ranges and required elements have one set of rules. Transcoding knows names only: which key stands
//! at which position. Unknown keys are skipped. A device is named by the text of its UUID. Protocols that carry messages
//! of their own ([`message`]) have the same names and rules.

use std::fmt;
use std::ops::Range;

use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use uuid::Uuid;

use super::{FrameError, kind};
use crate::event::msgpack::{
    NESTING_MAX, write_array_len, write_bin, write_bool, write_f64, write_int, write_map_len,
    write_nil, write_str, write_uint,
};

pub use message::{MessageError, events_message, fault_of, result_message};

mod message;

/// A line has at most this many bytes, its newline not counted.
pub const LINE_BYTES_MAX: u32 = 64 * 1024;

/// A line that is whole, its content not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawLine<'a> {
    pub line: &'a [u8],
    /// Bytes of the buffer that the line took, newline included.
    pub line_bytes: usize,
}

/// Cuts the first line off a buffer; `None` when it has not arrived as a whole.
///
/// # Errors
/// `TooLarge` as soon as more than `line_bytes_max` bytes are there without a newline.
pub fn split_line(buf: &[u8], line_bytes_max: u32) -> Result<Option<RawLine<'_>>, FrameError> {
    let newline = buf.iter().position(|byte| *byte == b'\n');
    let num_bytes = newline.unwrap_or(buf.len());
    if u32::try_from(num_bytes).map_or(true, |num_bytes| num_bytes > line_bytes_max) {
        let num_bytes = u64::try_from(num_bytes).unwrap_or(u64::MAX);
        return Err(FrameError::TooLarge {
            num_bytes,
            num_bytes_max: line_bytes_max,
        });
    }
    Ok(newline.and_then(|newline| {
        let line = buf.get(..newline)?;
        Some(RawLine {
            line,
            line_bytes: newline + 1,
        })
    }))
}

/// Turns a line into a kind and a body for [`super::decode`]; what `body` held is dropped.
///
/// # Errors
/// `BadJson` when it is not one object of one known key, nested too deep, or not UTF-8 or JSON at all.
pub fn line_to_frame(line: &[u8], body: &mut Vec<u8>) -> Result<u8, FrameError> {
    body.clear();
    let line = std::str::from_utf8(line).map_err(|error| FrameError::BadJson {
        column: error.valid_up_to() + 1,
    })?;
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let kind = deserializer.deserialize_map(LineVisitor { body });
    kind.and_then(|kind| deserializer.end().map(|()| kind))
        .map_err(|error| FrameError::BadJson {
            column: error.column(),
        })
}

/// How the value of a key is written.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// As what it is; `decode` judges.
    Any,
    /// The text of a UUID as 16 bytes.
    DeviceId,
    /// A list of events.
    Events,
    /// An event.
    Event,
}

/// An object that stands for an array: its keys in the order of their positions.
type Positions = &'static [(&'static str, Form)];

const HELLO: Positions = &[
    ("version", Form::Any),
    ("device_id", Form::DeviceId),
    ("token", Form::Any),
    ("epoch", Form::Any),
    ("agent", Form::Any),
];
const EVENTS: Positions = &[("first_seq", Form::Any), ("events", Form::Events)];
const EVENT: Positions = &[
    ("time_us", Form::Any),
    ("type", Form::Any),
    ("value", Form::Any),
    ("unit", Form::Any),
    ("metadata", Form::Any),
    ("device_id", Form::DeviceId),
];
const RESULT: Positions = &[
    ("request_id", Form::Any),
    ("status", Form::Any),
    ("message", Form::Any),
    ("data", Form::Any),
];
const PING: Positions = &[("nonce", Form::Any)];
const BYE: Positions = &[];
/// A message of events may be one event or an envelope, so it knows the keys of both.
const POSITIONS_MAX: usize = 9;

fn positions_of(name: &str) -> Option<(u8, Positions)> {
    match name {
        "hello" => Some((kind::HELLO, HELLO)),
        "events" => Some((kind::EVENTS, EVENTS)),
        "result" => Some((kind::RESULT, RESULT)),
        "ping" => Some((kind::PING, PING)),
        "bye" => Some((kind::BYE, BYE)),
        _ => None,
    }
}

/// The line itself: an object of one key, which names the kind.
struct LineVisitor<'o> {
    body: &'o mut Vec<u8>,
}

impl<'de> Visitor<'de> for LineVisitor<'_> {
    type Value = u8;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of one key")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u8, A::Error> {
        let name = map
            .next_key::<String>()?
            .ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let (kind, positions) =
            positions_of(&name).ok_or_else(|| A::Error::unknown_variant("", &[]))?;
        map.next_value_seed(Positional {
            positions,
            out: self.body,
            nesting_left: NESTING_MAX,
        })?;
        match map.next_key::<IgnoredAny>()? {
            None => Ok(kind),
            Some(_) => Err(A::Error::custom("more than one key")),
        }
    }
}

/// Writes an object as the array that it stands for.
struct Positional<'o> {
    positions: Positions,
    out: &'o mut Vec<u8>,
    nesting_left: u8,
}

impl<'de> DeserializeSeed<'de> for Positional<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Positional<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let nesting_left = opened(self.nesting_left)?;
        let values = Values::write(map, self.positions, self.out, nesting_left)?;
        values.put_in_order(self.out, |out, values| out.array(values));
        Ok(())
    }
}

/// The values of an object, written as they came, and where each position's stands.
struct Values {
    start: usize,
    ranges: [Option<Range<usize>>; POSITIONS_MAX],
}

/// Writes values again, from where they were written first.
struct InOrder<'o> {
    out: &'o mut Vec<u8>,
}

impl Values {
    fn write<'de, A: MapAccess<'de>>(
        mut map: A,
        positions: Positions,
        out: &mut Vec<u8>,
        nesting_left: u8,
    ) -> Result<Self, A::Error> {
        let start = out.len();
        let mut ranges: [Option<Range<usize>>; POSITIONS_MAX] = [const { None }; POSITIONS_MAX];
        while let Some(key) = map.next_key::<String>()? {
            let named = positions
                .iter()
                .zip(&mut ranges)
                .find(|((name, _), _)| *name == key);
            let Some(((_, form), range)) = named else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if range.is_some() {
                return Err(A::Error::custom("a key twice"));
            }
            let value_start = out.len();
            map.next_value_seed(Transcode {
                form: *form,
                out,
                nesting_left,
            })?;
            *range = Some(value_start..out.len());
        }
        Ok(Self { start, ranges })
    }

    /// Has the values written again in order, and cuts the first writing out.
    fn put_in_order(
        &self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut InOrder<'_>, &[Option<Range<usize>>]),
    ) {
        let values_end = out.len();
        write(&mut InOrder { out }, &self.ranges);
        out.drain(self.start..values_end);
    }
}

impl InOrder<'_> {
    /// The array that the values stand for, without those that are missing at its end.
    fn array(&mut self, values: &[Option<Range<usize>>]) {
        let num_elements = values
            .iter()
            .rposition(Option::is_some)
            .map_or(0, |last| last + 1);
        write_array_len(self.out, num_elements);
        for value in values.iter().take(num_elements) {
            self.value(value);
        }
    }

    fn value(&mut self, value: &Option<Range<usize>>) {
        match value {
            Some(range) => self.out.extend_from_within(range.clone()),
            None => write_nil(self.out),
        }
    }
}

/// Writes a JSON value as MessagePack.
struct Transcode<'o> {
    form: Form,
    out: &'o mut Vec<u8>,
    nesting_left: u8,
}

impl<'de> DeserializeSeed<'de> for Transcode<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.form {
            Form::Event => Positional {
                positions: EVENT,
                out: self.out,
                nesting_left: self.nesting_left,
            }
            .deserialize(deserializer),
            Form::Any | Form::DeviceId | Form::Events => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Transcode<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value of the protocol")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        write_nil(self.out);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        write_bool(self.out, value);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        write_int(self.out, value);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        write_uint(self.out, value);
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        write_f64(self.out, value);
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.form {
            Form::DeviceId => {
                let device_id = Uuid::try_parse(text)
                    .map_err(|_| E::invalid_value(Unexpected::Other("text"), &self))?;
                write_bin(self.out, device_id.as_bytes());
            }
            Form::Any | Form::Events | Form::Event => write_str(self.out, text),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let nesting_left = opened(self.nesting_left)?;
        let form = match self.form {
            Form::Events => Form::Event,
            Form::Any | Form::DeviceId | Form::Event => Form::Any,
        };
        let start = self.out.len();
        let mut length = 0;
        while seq
            .next_element_seed(Transcode {
                form,
                out: self.out,
                nesting_left,
            })?
            .is_some()
        {
            length += 1;
        }
        insert_head(self.out, start, |head| write_array_len(head, length));
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let nesting_left = opened(self.nesting_left)?;
        let start = self.out.len();
        let mut num_pairs = 0;
        while map
            .next_key_seed(Transcode {
                form: Form::Any,
                out: self.out,
                nesting_left,
            })?
            .is_some()
        {
            map.next_value_seed(Transcode {
                form: Form::Any,
                out: self.out,
                nesting_left,
            })?;
            num_pairs += 1;
        }
        insert_head(self.out, start, |head| write_map_len(head, num_pairs));
        Ok(())
    }
}

fn opened<E: Error>(nesting_left: u8) -> Result<u8, E> {
    nesting_left
        .checked_sub(1)
        .ok_or_else(|| E::custom("nested too deep"))
}

/// How many elements there are is known after them only: the head is moved in front of them.
fn insert_head(out: &mut Vec<u8>, start: usize, write_head: impl FnOnce(&mut Vec<u8>)) {
    let values_end = out.len();
    write_head(out);
    if let Some(value_and_head) = out.get_mut(start..) {
        value_and_head.rotate_left(values_end - start);
    }
}
