//! Bytes to packets.

use thiserror::Error;

use super::packet::{
    Connect, Disconnect, Packet, Publish, Qos, Subscribe, Unsubscribe, Version, Will, check_topic,
    filter, subscription,
};
use super::properties::{Place, Properties};
use super::reader::{Reader, variable};
use super::reason::ReasonCode;

/// Control packet types, the high four bits of the first byte.
mod kind {
    pub const CONNECT: u8 = 1;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const SUBSCRIBE: u8 = 8;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const PINGREQ: u8 = 12;
    pub const DISCONNECT: u8 = 14;
}

/// Bits of CONNECT's flags.
mod flag {
    pub const RESERVED: u8 = 0x01;
    pub const CLEAN: u8 = 0x02;
    pub const WILL: u8 = 0x04;
    pub const WILL_RETAIN: u8 = 0x20;
    pub const PASSWORD: u8 = 0x40;
    pub const USERNAME: u8 = 0x80;
}

/// The reason code of a DISCONNECT that asks for the will.
const DISCONNECT_WITH_WILL: u8 = 0x04;
/// The reason code, and nothing behind it.
const NO_PROPERTIES: usize = 1;

/// A packet that is whole, its content not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawPacket<'a> {
    /// Type and flags.
    first: u8,
    body: &'a [u8],
    /// Bytes of the buffer that the packet took.
    pub packet_bytes: usize,
}

/// Why a packet cannot be taken. Its text may be told to the client, so it says nothing but what the client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CodecError {
    #[error("{num_bytes} bytes, at most {num_bytes_max} are taken")]
    TooLarge { num_bytes: u64, num_bytes_max: u32 },
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    #[error("MQTT 3.1.1 (level 4) and 5 are spoken here, not level {level}")]
    UnsupportedVersion { level: u8 },
    #[error("a wildcard in a topic name")]
    TopicNameInvalid,
    #[error("topic alias 0, or one that is too large or stands for nothing")]
    TopicAliasInvalid,
    #[error("subscription identifiers are not kept here")]
    SubscriptionIdentifier,
}

impl CodecError {
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::TooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::Malformed(_) => ReasonCode::MalformedPacket,
            Self::Protocol(_) => ReasonCode::ProtocolError,
            Self::UnsupportedVersion { .. } => ReasonCode::UnsupportedProtocolVersion,
            Self::TopicNameInvalid => ReasonCode::TopicNameInvalid,
            Self::TopicAliasInvalid => ReasonCode::TopicAliasInvalid,
            Self::SubscriptionIdentifier => ReasonCode::SubscriptionIdentifiersNotSupported,
        }
    }
}

/// Cuts the first packet off a buffer; none when it has not come whole.
///
/// # Errors
/// `TooLarge` and `Malformed`, as soon as the fixed header is there.
pub fn split(buffer: &[u8], packet_bytes_max: u32) -> Result<Option<RawPacket<'_>>, CodecError> {
    let Some((first, rest)) = buffer.split_first() else {
        return Ok(None);
    };
    let Some((length, length_bytes)) = variable(rest)? else {
        return Ok(None);
    };
    let header_bytes = 1 + length_bytes;
    let num_bytes = u64::from(length) + header_bytes as u64;
    if num_bytes > u64::from(packet_bytes_max) {
        return Err(CodecError::TooLarge {
            num_bytes,
            num_bytes_max: packet_bytes_max,
        });
    }
    let packet_bytes = usize::try_from(num_bytes).unwrap_or(usize::MAX);
    let body = buffer.get(header_bytes..packet_bytes);
    Ok(body.map(|body| RawPacket {
        first: *first,
        body,
        packet_bytes,
    }))
}

/// Decodes the packet that begins a connection.
///
/// # Errors
/// [`CodecError`] when it is no CONNECT, or none that is understood.
pub fn decode_connect(raw: RawPacket<'_>) -> Result<Connect<'_>, CodecError> {
    if raw.first >> 4 != kind::CONNECT {
        return Err(CodecError::Protocol("the first packet must be CONNECT"));
    }
    raw.check_flags(0)?;
    let mut reader = Reader::new(raw.body);
    if reader.binary()? != b"MQTT" {
        return Err(CodecError::UnsupportedVersion { level: 0 });
    }
    let version = match reader.byte()? {
        4 => Version::V311,
        5 => Version::V5,
        level => return Err(CodecError::UnsupportedVersion { level }),
    };
    let connect = connect(&mut reader, version)?;
    end(reader)?;
    Ok(connect)
}

fn connect<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Connect<'a>, CodecError> {
    let flags = reader.byte()?;
    let has = |bit| flags & bit != 0;
    if has(flag::RESERVED) {
        return Err(CodecError::Malformed("the reserved flag of CONNECT"));
    }
    let will_qos = Qos::of_bits(flags >> 3)?;
    if !has(flag::WILL) && (will_qos != Qos::AtMostOnce || has(flag::WILL_RETAIN)) {
        return Err(CodecError::Malformed("flags of a will that is not there"));
    }
    if version == Version::V311 && has(flag::PASSWORD) && !has(flag::USERNAME) {
        return Err(CodecError::Malformed("a password without a user name"));
    }
    let mut connect = Connect {
        version,
        is_clean: has(flag::CLEAN),
        keep_alive: reader.two_bytes()?,
        client_id: "",
        will: None,
        username: None,
        password: None,
        session_expiry: 0,
        receive_maximum: u16::MAX,
        packet_bytes_max: None,
        wants_problem_information: false,
        authentication_method: None,
    };
    if version == Version::V5 {
        connect.take_properties(&Properties::read(reader, Place::Connect)?);
    }
    connect.client_id = reader.string()?;
    if has(flag::WILL) {
        connect.will = Some(will(reader, version, will_qos)?);
    }
    if has(flag::USERNAME) {
        connect.username = Some(reader.string()?);
    }
    if has(flag::PASSWORD) {
        connect.password = Some(reader.binary()?);
    }
    Ok(connect)
}

fn will<'a>(reader: &mut Reader<'a>, version: Version, qos: Qos) -> Result<Will<'a>, CodecError> {
    if version == Version::V5 {
        Properties::read(reader, Place::Will)?;
    }
    let topic = reader.string()?;
    check_topic(topic)?;
    let payload = reader.binary()?;
    Ok(Will {
        topic,
        payload,
        qos,
    })
}

/// Decodes a packet behind CONNECT.
///
/// # Errors
/// [`CodecError`]; the connection ends with it.
pub fn decode(raw: RawPacket<'_>, version: Version) -> Result<Packet<'_>, CodecError> {
    let mut reader = Reader::new(raw.body);
    match raw.first >> 4 {
        kind::PUBLISH => publish(raw.first, reader, version).map(Packet::Publish),
        kind::PUBACK => {
            raw.check_flags(0)?;
            puback(reader, version)
        }
        kind::SUBSCRIBE => {
            raw.check_flags(0b0010)?;
            subscribe(reader, version).map(Packet::Subscribe)
        }
        kind::UNSUBSCRIBE => {
            raw.check_flags(0b0010)?;
            unsubscribe(reader, version).map(Packet::Unsubscribe)
        }
        kind::PINGREQ => {
            raw.check_flags(0)?;
            end(reader)?;
            Ok(Packet::Pingreq)
        }
        kind::DISCONNECT => {
            raw.check_flags(0)?;
            disconnect(&mut reader, version).map(Packet::Disconnect)
        }
        kind::CONNECT => Err(CodecError::Protocol("CONNECT was said before")),
        _ => Err(CodecError::Protocol("a packet that no client sends here")),
    }
}

impl RawPacket<'_> {
    fn check_flags(&self, expected: u8) -> Result<(), CodecError> {
        if self.first & 0x0f == expected {
            Ok(())
        } else {
            Err(CodecError::Malformed("flags of the fixed header"))
        }
    }
}

fn publish(first: u8, mut reader: Reader<'_>, version: Version) -> Result<Publish<'_>, CodecError> {
    let qos = Qos::of_bits(first >> 1)?;
    let is_dup = first & 0b1000 != 0;
    if is_dup && qos == Qos::AtMostOnce {
        return Err(CodecError::Malformed("DUP with QoS 0"));
    }
    let topic = reader.string()?;
    let packet_id = match qos {
        Qos::AtMostOnce => None,
        Qos::AtLeastOnce | Qos::ExactlyOnce => Some(reader.packet_id()?),
    };
    let topic_alias = match version {
        Version::V311 => None,
        Version::V5 => Properties::read(&mut reader, Place::Publish)?.topic_alias,
    };
    if !topic.is_empty() || topic_alias.is_none() {
        check_topic(topic)?;
    }
    Ok(Publish {
        is_dup,
        qos,
        topic,
        packet_id,
        topic_alias,
        payload: reader.rest(),
    })
}

fn puback(mut reader: Reader<'_>, version: Version) -> Result<Packet<'_>, CodecError> {
    let packet_id = reader.packet_id()?;
    if version == Version::V5 && !reader.is_empty() {
        reader.byte()?;
        if !reader.is_empty() {
            Properties::read(&mut reader, Place::Puback)?;
        }
    }
    end(reader)?;
    Ok(Packet::Puback { packet_id })
}

fn subscribe(mut reader: Reader<'_>, version: Version) -> Result<Subscribe<'_>, CodecError> {
    let packet_id = reader.packet_id()?;
    if version == Version::V5
        && Properties::read(&mut reader, Place::Subscribe)?.has_subscription_identifier
    {
        return Err(CodecError::SubscriptionIdentifier);
    }
    let filters = reader;
    check_filters(reader, |reader| subscription(reader, version).map(drop))?;
    Ok(Subscribe {
        packet_id,
        version,
        filters,
    })
}

fn unsubscribe(mut reader: Reader<'_>, version: Version) -> Result<Unsubscribe<'_>, CodecError> {
    let packet_id = reader.packet_id()?;
    if version == Version::V5 {
        Properties::read(&mut reader, Place::Unsubscribe)?;
    }
    let filters = reader;
    check_filters(reader, |reader| filter(reader).map(drop))?;
    Ok(Unsubscribe { packet_id, filters })
}

fn check_filters<'a>(
    mut reader: Reader<'a>,
    read: impl Fn(&mut Reader<'a>) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    if reader.is_empty() {
        return Err(CodecError::Protocol("no topic filter"));
    }
    while !reader.is_empty() {
        read(&mut reader)?;
    }
    Ok(())
}

fn disconnect(reader: &mut Reader<'_>, version: Version) -> Result<Disconnect, CodecError> {
    let mut is_will_wanted = false;
    if version == Version::V5 && !reader.is_empty() {
        let num_bytes = reader.rest().len();
        is_will_wanted = reader.byte()? == DISCONNECT_WITH_WILL;
        if num_bytes > NO_PROPERTIES {
            Properties::read(reader, Place::Disconnect)?;
        }
    }
    end(*reader)?;
    Ok(Disconnect { is_will_wanted })
}

fn end(reader: Reader<'_>) -> Result<(), CodecError> {
    if reader.is_empty() {
        Ok(())
    } else {
        Err(CodecError::Malformed("bytes left over"))
    }
}
