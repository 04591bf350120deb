//! What the server says, as bytes. Texts are cut to what a packet can hold.

use super::packet::{Qos, Version};
use super::reason::ReasonCode;

const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBACK: u8 = 0x90;
const UNSUBACK: u8 = 0xb0;
const PINGRESP: u8 = 0xd0;
const DISCONNECT: u8 = 0xe0;

const FAILURE_OF_311: u8 = 0x80;

/// Property identifiers that the server sends.
mod id {
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub const REASON_STRING: u8 = 0x1f;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const SUBSCRIPTION_IDENTIFIERS: u8 = 0x29;
    pub const SHARED_SUBSCRIPTIONS: u8 = 0x2a;
}

/// What a client that is let in is told in version 5.
#[derive(Debug, Clone)]
pub struct Connack {
    pub receive_maximum: u16,
    pub packet_bytes_max: u32,
    pub topic_alias_maximum: u16,
    /// For a client that named none.
    pub assigned_client_id: Option<String>,
}

/// A message for the client.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// With it the message is of QoS 1, without it of QoS 0.
    pub packet_id: Option<u16>,
}

/// Why, in words, for a client of version 5: they are left out where its packet would be larger than it takes.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a> {
    pub text: &'a str,
    pub packet_bytes_max: usize,
}

/// The answer to CONNECT: what is offered, or why not. There is never a session that was kept.
pub fn write_connack(
    out: &mut Vec<u8>,
    version: Version,
    answer: Result<&Connack, (ReasonCode, Words<'_>)>,
) {
    let reason = answer.map_or_else(|(reason, _)| reason.in_connack(), |_| ReasonCode::Success);
    if version == Version::V311 {
        if let Some(return_code) = reason.connect_return_code() {
            write_packet(out, CONNACK, |out| out.extend_from_slice(&[0, return_code]));
        }
        return;
    }
    let write_head = |out: &mut Vec<u8>| out.extend_from_slice(&[0, reason.as_u8()]);
    match answer {
        Ok(offered) => write_packet(out, CONNACK, |out| {
            write_head(out);
            write_with_length(out, |out| write_offered(out, offered));
        }),
        Err((_, words)) => write_explained(out, CONNACK, Some(words), write_head),
    }
}

fn write_offered(out: &mut Vec<u8>, offered: &Connack) {
    out.push(id::SESSION_EXPIRY);
    out.extend_from_slice(&0u32.to_be_bytes());
    out.push(id::RECEIVE_MAXIMUM);
    out.extend_from_slice(&offered.receive_maximum.to_be_bytes());
    out.extend_from_slice(&[id::MAXIMUM_QOS, 1]);
    out.push(id::MAXIMUM_PACKET_SIZE);
    out.extend_from_slice(&offered.packet_bytes_max.to_be_bytes());
    if let Some(client_id) = &offered.assigned_client_id {
        write_text_property(out, id::ASSIGNED_CLIENT_IDENTIFIER, client_id);
    }
    out.push(id::TOPIC_ALIAS_MAXIMUM);
    out.extend_from_slice(&offered.topic_alias_maximum.to_be_bytes());
    out.extend_from_slice(&[id::SUBSCRIPTION_IDENTIFIERS, 0]);
    out.extend_from_slice(&[id::SHARED_SUBSCRIPTIONS, 0]);
}

/// `reason` and `words` are for version 5; the other has no words for them.
pub fn write_puback(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    reason: ReasonCode,
    words: Option<Words<'_>>,
) {
    let packet_id = packet_id.to_be_bytes();
    if version == Version::V311 || reason == ReasonCode::Success {
        write_packet(out, PUBACK, |out| out.extend_from_slice(&packet_id));
        return;
    }
    write_explained(out, PUBACK, words, |out| {
        out.extend_from_slice(&packet_id);
        out.push(reason.as_u8());
    });
}

/// One answer for each filter.
pub fn write_suback(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    answers: impl Iterator<Item = Result<Qos, ReasonCode>>,
) {
    write_packet(out, SUBACK, |out| {
        out.extend_from_slice(&packet_id.to_be_bytes());
        if version == Version::V5 {
            out.push(0);
        }
        out.extend(answers.map(|answer| match (answer, version) {
            (Ok(qos), _) => qos.bits(),
            (Err(_), Version::V311) => FAILURE_OF_311,
            (Err(reason), Version::V5) => reason.as_u8(),
        }));
    });
}

/// One answer for each filter, which version 3.1.1 does not hear.
pub fn write_unsuback(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    answers: impl Iterator<Item = ReasonCode>,
) {
    write_packet(out, UNSUBACK, |out| {
        out.extend_from_slice(&packet_id.to_be_bytes());
        if version == Version::V5 {
            out.push(0);
            out.extend(answers.map(ReasonCode::as_u8));
        }
    });
}

pub fn write_pingresp(out: &mut Vec<u8>) {
    write_packet(out, PINGRESP, |_| ());
}

/// The last words to a client of version 5; the other version has none.
pub fn write_disconnect(out: &mut Vec<u8>, reason: ReasonCode, words: Words<'_>) {
    write_explained(out, DISCONNECT, Some(words), |out| {
        out.push(reason.as_u8());
    });
}

/// Appends the message and returns how many bytes its packet has.
pub fn write_publish(out: &mut Vec<u8>, version: Version, publication: &Publication<'_>) -> usize {
    let Publication {
        topic,
        payload,
        packet_id,
    } = *publication;
    let qos = match packet_id {
        Some(_) => Qos::AtLeastOnce,
        None => Qos::AtMostOnce,
    };
    let before = out.len();
    write_packet(out, PUBLISH | qos.bits() << 1, |out| {
        write_string(out, topic);
        if let Some(packet_id) = packet_id {
            out.extend_from_slice(&packet_id.to_be_bytes());
        }
        if version == Version::V5 {
            out.push(0);
        }
        out.extend_from_slice(payload);
    });
    out.len() - before
}

/// Writes a packet that has no other property than why.
fn write_explained(
    out: &mut Vec<u8>,
    first: u8,
    words: Option<Words<'_>>,
    write_head: impl Fn(&mut Vec<u8>),
) {
    let before = out.len();
    write_packet(out, first, |out| {
        write_head(out);
        write_with_length(out, |out| {
            if let Some(Words { text, .. }) = words {
                write_text_property(out, id::REASON_STRING, text);
            }
        });
    });
    if words.is_some_and(|words| out.len() - before > words.packet_bytes_max) {
        out.truncate(before);
        write_explained(out, first, None, write_head);
    }
}

fn write_packet(out: &mut Vec<u8>, first: u8, write_body: impl FnOnce(&mut Vec<u8>)) {
    out.push(first);
    write_with_length(out, write_body);
}

/// Writes a length in front of what it counts, which is known after that only.
fn write_with_length(out: &mut Vec<u8>, write_body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write_body(out);
    let end = out.len();
    // Nothing here comes near the 256 MiB that can be said.
    let mut left = u32::try_from(end - start).unwrap_or(u32::MAX);
    loop {
        let [low, ..] = left.to_le_bytes();
        left >>= 7;
        if left == 0 {
            out.push(low & 0x7f);
            break;
        }
        out.push(low | 0x80);
    }
    if let Some(body_and_length) = out.get_mut(start..) {
        body_and_length.rotate_left(end - start);
    }
}

fn write_text_property(out: &mut Vec<u8>, property: u8, text: &str) {
    out.push(property);
    write_string(out, text);
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    let mut cuts = (0..=text.len().min(usize::from(u16::MAX))).rev();
    let text = cuts.find_map(|cut| text.get(..cut)).unwrap_or_default();
    let num_bytes = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&num_bytes.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
