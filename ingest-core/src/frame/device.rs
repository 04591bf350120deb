//! The device's side of the protocol, for load generators and tests.

use super::elements::Elements;
use super::outgoing::write_frame;
use super::{CommandResult, FrameError, Hello, PROTOCOL_VERSION, encode_event, kind};
use crate::event::Event;
use crate::event::msgpack::{write_array_len, write_bin, write_nil, write_str, write_uint};

/// What the core says. Codes are text: a newer core may know more of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received<'a> {
    Welcome(Welcome),
    Ack {
        seq: u64,
        rejected: Vec<(u64, &'a str)>,
    },
    Busy {
        seq: u64,
        retry_after_ms: u64,
        reason: &'a str,
    },
    Command {
        request_id: &'a str,
        command_type: &'a str,
        params: &'a [u8],
        deadline_us: i64,
    },
    Pong {
        nonce: u64,
    },
    Error {
        code: &'a str,
        message: &'a str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    pub version: u64,
    pub last_seq: u64,
    pub max_inflight_frames: u64,
    pub frame_bytes_max: u64,
    pub server_time_us: i64,
    pub keepalive_s: u64,
}

pub fn encode_hello(out: &mut Vec<u8>, hello: &Hello<'_>) {
    write_frame(
        out,
        kind::HELLO,
        if hello.agent.is_some() { 5 } else { 4 },
        |out| {
            write_uint(out, PROTOCOL_VERSION);
            write_bin(out, hello.device_id.as_bytes());
            write_str(out, hello.token);
            write_uint(out, hello.epoch);
            if let Some(agent) = hello.agent {
                write_str(out, agent);
            }
        },
    );
}

/// Appends one EVENTS frame; the i-th event, from 0, has the sequence number `first_seq + i`.
pub fn encode_events(out: &mut Vec<u8>, first_seq: u64, events: &[Event<'_>]) {
    write_frame(out, kind::EVENTS, 2, |out| {
        write_uint(out, first_seq);
        write_array_len(out, events.len());
        for event in events {
            encode_event(event, out);
        }
    });
}

pub fn encode_result(out: &mut Vec<u8>, result: &CommandResult<'_>) {
    let num_elements = match (result.message, result.data) {
        (_, Some(_)) => 4,
        (Some(_), None) => 3,
        (None, None) => 2,
    };
    write_frame(out, kind::RESULT, num_elements, |out| {
        write_str(out, result.request_id);
        write_uint(out, result.status);
        match (result.message, result.data) {
            (Some(message), _) => write_str(out, message),
            (None, Some(_)) => write_nil(out),
            (None, None) => {}
        }
        if let Some(data) = result.data {
            out.extend_from_slice(data);
        }
    });
}

pub fn encode_ping(out: &mut Vec<u8>, nonce: u64) {
    write_frame(out, kind::PING, 1, |out| write_uint(out, nonce));
}

pub fn encode_bye(out: &mut Vec<u8>) {
    write_frame(out, kind::BYE, 0, |_| {});
}

/// Decodes what the core sent; frames are cut by [`super::split`].
///
/// # Errors
/// The frame is not one that a core of this protocol sends.
pub fn decode(kind: u8, body: &[u8]) -> Result<Received<'_>, FrameError> {
    if matches!(
        kind,
        kind::HELLO | kind::EVENTS | kind::RESULT | kind::PING | kind::BYE
    ) {
        return Err(FrameError::WrongSide { kind });
    }
    let mut elements = Elements::of_body(body)?;
    let received = match kind {
        kind::WELCOME => Received::Welcome(Welcome {
            version: elements.uint("version")?,
            last_seq: elements.uint("last_seq")?,
            max_inflight_frames: elements.uint("max_inflight_frames")?,
            frame_bytes_max: elements.uint("frame_bytes_max")?,
            server_time_us: elements.int("server_time_us")?,
            keepalive_s: elements.uint("keepalive_s")?,
        }),
        kind::ACK => Received::Ack {
            seq: elements.uint("seq")?,
            rejected: decode_rejected(&mut elements)?,
        },
        kind::BUSY => Received::Busy {
            seq: elements.uint("seq")?,
            retry_after_ms: elements.uint("retry_after_ms")?,
            reason: elements.str("reason")?,
        },
        kind::COMMAND => Received::Command {
            request_id: elements.str("request_id")?,
            command_type: elements.str("command_type")?,
            params: elements.map("params")?,
            deadline_us: elements.int("deadline_us")?,
        },
        kind::PONG => Received::Pong {
            nonce: elements.uint("nonce")?,
        },
        kind::ERROR => Received::Error {
            code: elements.str("code")?,
            message: elements.str("message")?,
        },
        _ => return Err(FrameError::UnknownKind { kind }),
    };
    elements.end_body()?;
    Ok(received)
}

fn decode_rejected<'a>(elements: &mut Elements<'a>) -> Result<Vec<(u64, &'a str)>, FrameError> {
    let num_rejected = elements.optional_array_len("rejected")?;
    let mut rejected = Vec::new();
    for _ in 0..num_rejected {
        let mut pair = Elements::of_array(
            elements.reader(),
            "rejected",
            elements.nesting_left().saturating_sub(1),
        )?;
        rejected.push((pair.uint("seq")?, pair.str("code")?));
        elements.resume_at(pair.end()?);
    }
    Ok(rejected)
}
