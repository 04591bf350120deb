//! The events of an EVENTS body, and of a journal record: one walk gives each event and its bytes.

use super::FrameError;
use super::elements::Elements;
use crate::event::Event;
use crate::event::msgpack::{
    NESTING_MAX, Reader, write_array_len, write_bin, write_f64, write_int, write_nil, write_str,
};

/// How many arrays and maps may be opened from an event on, itself included: it lies in the list, in the body.
const EVENT_NESTING_MAX: u8 = NESTING_MAX - 2;

/// An event, and the bytes that it was decoded from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncodedEvent<'a> {
    pub event: Event<'a>,
    pub encoded: &'a [u8],
}

/// Decodes events one by one. An error ends it and condemns all that came before: what follows the last event
/// is checked before that one is given out.
#[derive(Debug, Clone)]
pub struct EventIter<'a> {
    start: Reader<'a>,
    reader: Reader<'a>,
    num_left: u32,
    /// The body around the events; there is none in a journal record.
    body: Option<Elements<'a>>,
}

impl<'a> EventIter<'a> {
    /// Events encoded one after the other, as the journal keeps them.
    pub fn new(events: &'a [u8], num_events: u32) -> Self {
        let start = Reader::new(events);
        Self {
            start,
            reader: start,
            num_left: num_events,
            body: None,
        }
    }

    /// The first of events encoded one after the other; those behind it are not looked at.
    ///
    /// # Errors
    /// [`FrameError`] when it is not one.
    pub fn first(events: &'a [u8]) -> Result<EncodedEvent<'a>, FrameError> {
        let start = Reader::new(events);
        let (event, after) = decode_event(start)?;
        Ok(EncodedEvent {
            event,
            encoded: after.since(&start),
        })
    }

    /// The events of a body in which the list was just opened.
    pub(super) fn within(body: Elements<'a>, num_events: u32) -> Self {
        let start = body.reader();
        Self {
            start,
            reader: start,
            num_left: num_events,
            body: Some(body),
        }
    }

    /// The encoded events given out so far, one after the other; at the end, what the journal keeps.
    pub fn consumed(&self) -> &'a [u8] {
        self.reader.since(&self.start)
    }

    fn decode_next(&mut self) -> Result<EncodedEvent<'a>, FrameError> {
        let before = self.reader;
        let (event, after) = decode_event(before)?;
        self.reader = after;
        if self.num_left == 0 {
            self.end()?;
        }
        Ok(EncodedEvent {
            event,
            encoded: after.since(&before),
        })
    }

    fn end(&self) -> Result<(), FrameError> {
        if let Some(mut body) = self.body.clone() {
            body.resume_at(self.reader);
            return body.end_body();
        }
        match self.reader.rest().len() {
            0 => Ok(()),
            num_bytes => Err(FrameError::BytesLeftOver { num_bytes }),
        }
    }
}

impl<'a> Iterator for EventIter<'a> {
    type Item = Result<EncodedEvent<'a>, FrameError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.num_left = self.num_left.checked_sub(1)?;
        let decoded = self.decode_next();
        if decoded.is_err() {
            self.num_left = 0;
        }
        Some(decoded)
    }
}

impl std::iter::FusedIterator for EventIter<'_> {}

#[inline]
fn decode_event(reader: Reader<'_>) -> Result<(Event<'_>, Reader<'_>), FrameError> {
    let mut elements = Elements::of_array(reader, "event", EVENT_NESTING_MAX)?;
    let event = Event {
        time_us: elements.optional_int("time_us")?,
        event_type: elements.str("type")?,
        value: elements.optional_number("value")?,
        unit: elements.optional_str("unit")?,
        metadata: elements.optional_map("metadata")?,
        device_id: elements.optional_device_id()?,
    };
    Ok((event, elements.end()?))
}

/// Appends an event as it stands in an EVENTS frame and in the journal, without the trailing elements that it
/// has not. The metadata are bytes that are a MessagePack map already.
pub fn encode_event(event: &Event<'_>, out: &mut Vec<u8>) {
    let is_there = [
        event.value.is_some(),
        event.unit.is_some(),
        event.metadata.is_some(),
        event.device_id.is_some(),
    ];
    let num_optional = is_there
        .iter()
        .rposition(|is_there| *is_there)
        .map_or(0, |last| last + 1);
    write_array_len(out, 2 + num_optional);
    match event.time_us {
        Some(time_us) => write_int(out, time_us),
        None => write_nil(out),
    }
    write_str(out, event.event_type);
    for element in 0..num_optional {
        match (element, event) {
            (
                0,
                Event {
                    value: Some(value), ..
                },
            ) => write_f64(out, *value),
            (
                1,
                Event {
                    unit: Some(unit), ..
                },
            ) => write_str(out, unit),
            (
                2,
                Event {
                    metadata: Some(metadata),
                    ..
                },
            ) => out.extend_from_slice(metadata),
            (
                3,
                Event {
                    device_id: Some(device_id),
                    ..
                },
            ) => write_bin(out, device_id.as_bytes()),
            _ => write_nil(out),
        }
    }
}
