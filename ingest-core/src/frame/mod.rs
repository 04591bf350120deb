//! HDP/1, the device protocol: bytes in, values out, no I/O.
//!
//! **Format.** A frame is a big-endian u32 length (of kind and body), a kind byte, and a body that is exactly one
//! MessagePack array, positional: trailing elements may be left out and read as nil, elements beyond those known
//! are skipped. `PROTOCOL.md` is the contract; `tests/vectors/` holds it as bytes, for every language.
//!
//! **The way of the bytes.** [`split`] cuts a frame off a buffer, [`decode`] makes it an [`Incoming`],
//! [`EventIter`] walks the events of an EVENTS body once: each event comes with its encoded bytes, which is
//! what the journal keeps, and the same iterator reads them back. [`Outgoing`] is what the core says. The JSON
//! form ([`json`]) is transcoded to a kind and a body at the edge, so that there is one set of rules.
//! [`device`] is the other side, for load generators and tests.
//!
//! **Invariants.**
//! - A length is refused from its four bytes: nothing is read or reserved for it.
//! - Decoding allocates nothing and never panics; time is linear in the bytes, stack bounded by the nesting limit.
//! - What [`decode`] and [`EventIter`] take is well-formed to the last byte, elements that are skipped included.
//! - Content (how long a type may be, which times are possible) is no matter of form: [`crate::event`] checks it.
//!
//! **Absent.** Sockets, time-outs, sessions, sequence windows.

use uuid::Uuid;

pub use error::{ErrorCode, FrameError};
pub use events::{EncodedEvent, EventIter, encode_event};
pub use outgoing::Outgoing;

use elements::Elements;

pub mod device;
mod elements;
mod error;
mod events;
pub mod json;
mod outgoing;
#[cfg(test)]
mod tests;

pub const PROTOCOL_VERSION: u64 = 1;
/// One EVENTS frame carries 1 to this many events.
pub const EVENTS_PER_FRAME_MAX: u32 = 10_000;
/// `frame_bytes_max` of a connection until its device is authenticated: room for any HELLO and no more.
pub const FRAME_BYTES_MAX_BEFORE_HELLO: u32 = 4096;
/// The length field; the length counts what comes after it.
pub const HEADER_BYTES: usize = 4;

/// The kind byte of every frame; the high bit is set in those that the core sends.
pub mod kind {
    pub const HELLO: u8 = 0x01;
    pub const EVENTS: u8 = 0x02;
    pub const RESULT: u8 = 0x03;
    pub const PING: u8 = 0x04;
    pub const BYE: u8 = 0x05;
    pub const WELCOME: u8 = 0x81;
    pub const ACK: u8 = 0x82;
    pub const BUSY: u8 = 0x83;
    pub const COMMAND: u8 = 0x84;
    pub const PONG: u8 = 0x85;
    pub const ERROR: u8 = 0x86;
}

/// A frame that is whole, its body not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawFrame<'a> {
    pub kind: u8,
    pub body: &'a [u8],
    /// Bytes of the buffer that the frame took, header included.
    pub frame_bytes: usize,
}

/// What a device says.
#[derive(Debug, Clone)]
pub enum Incoming<'a> {
    Hello(Hello<'a>),
    Events(Events<'a>),
    Result(CommandResult<'a>),
    Ping { nonce: u64 },
    Bye,
}

/// A HELLO of this version; another version does not get this far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    pub device_id: Uuid,
    pub token: &'a str,
    /// At most `i64::MAX`, which is what the database holds.
    pub epoch: u64,
    pub agent: Option<&'a str>,
}

/// An EVENTS frame of which the envelope was checked.
#[derive(Debug, Clone)]
pub struct Events<'a> {
    /// The sequence number of the first event; that of the last one and its successor are within `i64`.
    pub first_seq: u64,
    pub num_events: u32,
    /// Take nothing before this has come to its end without an error: one error makes the frame malformed.
    pub events: EventIter<'a>,
}

impl<'a> Events<'a> {
    /// Events without numbers, encoded one after the other; `first_seq` stands for nothing.
    #[must_use]
    pub fn without_numbers(events: &'a [u8], num_events: u32) -> Self {
        Self {
            first_seq: 1,
            num_events,
            events: EventIter::new(events, num_events),
        }
    }
}

/// The answer to a COMMAND.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandResult<'a> {
    pub request_id: &'a str,
    /// 0 = done.
    pub status: u64,
    pub message: Option<&'a str>,
    /// A MessagePack map as it was sent.
    pub data: Option<&'a [u8]>,
}

/// Cuts the first frame off a buffer; `None` when it has not arrived as a whole.
///
/// # Errors
/// `TooLarge` and `Empty`, as soon as the length field is there.
pub fn split(buf: &[u8], frame_bytes_max: u32) -> Result<Option<RawFrame<'_>>, FrameError> {
    let Some((length_bytes, rest)) = buf.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length_bytes);
    if length == 0 {
        return Err(FrameError::Empty);
    }
    if length > frame_bytes_max {
        return Err(FrameError::TooLarge {
            num_bytes: u64::from(length),
            num_bytes_max: frame_bytes_max,
        });
    }
    let Ok(length) = usize::try_from(length) else {
        return Ok(None);
    };
    let Some((kind, body)) = rest.get(..length).and_then(<[u8]>::split_first) else {
        return Ok(None);
    };
    Ok(Some(RawFrame {
        kind: *kind,
        body,
        frame_bytes: HEADER_BYTES + length,
    }))
}

/// Decodes what a device sent. The events of an EVENTS frame are checked while they are iterated.
///
/// # Errors
/// The frame cannot be taken; [`FrameError::code`] says what to answer.
pub fn decode(kind: u8, body: &[u8]) -> Result<Incoming<'_>, FrameError> {
    match kind {
        kind::HELLO => decode_hello(body).map(Incoming::Hello),
        kind::EVENTS => decode_events(body).map(Incoming::Events),
        kind::RESULT => decode_result(body).map(Incoming::Result),
        kind::PING => {
            let mut elements = Elements::of_body(body)?;
            let nonce = elements.uint("nonce")?;
            elements.end_body()?;
            Ok(Incoming::Ping { nonce })
        }
        kind::BYE => {
            Elements::of_body(body)?.end_body()?;
            Ok(Incoming::Bye)
        }
        kind::WELCOME | kind::ACK | kind::BUSY | kind::COMMAND | kind::PONG | kind::ERROR => {
            Err(FrameError::WrongSide { kind })
        }
        _ => Err(FrameError::UnknownKind { kind }),
    }
}

fn decode_hello(body: &[u8]) -> Result<Hello<'_>, FrameError> {
    let mut elements = Elements::of_body(body)?;
    let version = elements.uint("version")?;
    if version != PROTOCOL_VERSION {
        // What the other elements mean is for that version to say; that they are an array is not.
        elements.end_body()?;
        return Err(FrameError::UnsupportedVersion { version });
    }
    let device_id = elements.device_id()?;
    let token = elements.str("token")?;
    let epoch = elements.uint("epoch")?;
    let agent = elements.optional_str("agent")?;
    elements.end_body()?;
    if i64::try_from(epoch).is_err() {
        return Err(FrameError::OutOfRange { element: "epoch" });
    }
    Ok(Hello {
        device_id,
        token,
        epoch,
        agent,
    })
}

fn decode_events(body: &[u8]) -> Result<Events<'_>, FrameError> {
    let mut elements = Elements::of_body(body)?;
    let first_seq = elements.uint("first_seq")?;
    let num_events = elements.array_len("events")?;
    if !(1..=EVENTS_PER_FRAME_MAX).contains(&num_events) {
        return Err(FrameError::EventCount { num_events });
    }
    let next_seq = first_seq
        .checked_add(u64::from(num_events))
        .map(i64::try_from);
    if first_seq == 0 || !matches!(next_seq, Some(Ok(_))) {
        return Err(FrameError::OutOfRange {
            element: "first_seq",
        });
    }
    Ok(Events {
        first_seq,
        num_events,
        events: EventIter::within(elements, num_events),
    })
}

fn decode_result(body: &[u8]) -> Result<CommandResult<'_>, FrameError> {
    let mut elements = Elements::of_body(body)?;
    let result = CommandResult {
        request_id: elements.str("request_id")?,
        status: elements.uint("status")?,
        message: elements.optional_str("message")?,
        data: elements.optional_map("data")?,
    };
    elements.end_body()?;
    Ok(result)
}
