//! What a codec that others wrote (rmqtt-codec) makes of the same bytes. What is taken here it must take and read alike; what it
//! takes and is refused here must be refused by a rule that it is known not to hold to. The fuzzer uses this file too: it finds
//! `codec` beside it.

use bytes::BytesMut;
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::types::QoS;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder;

use super::codec::{self, CodecError, Packet, Version};

/// Longer than any packet, so that lengths are refused by their form alone.
const PACKET_BYTES_MAX: u32 = u32::MAX;

/// Rules that the other codec does not hold to.
const ONLY_HERE: [CodecError; 15] = [
    CodecError::Malformed("bytes left over"),
    // MQTT-1.5.4-2
    CodecError::Malformed("a string holds NUL"),
    // MQTT-3.1.2-11, -13 and -15 in version 5
    CodecError::Malformed("flags of a will that is not there"),
    CodecError::Malformed("QoS 3"),
    // MQTT-3.1.2-22 of version 3.1.1
    CodecError::Malformed("a password without a user name"),
    // MQTT-3.3.1-2
    CodecError::Malformed("DUP with QoS 0"),
    // MQTT-3.3.2-2
    CodecError::TopicNameInvalid,
    // MQTT-4.7.3-1 for wills, in version 5 for publications
    CodecError::Protocol("an empty topic name"),
    CodecError::Malformed("an empty topic filter"),
    // MQTT-3.3.4-6, and MQTT-3.14.2-1 of a server's reference
    CodecError::Malformed("a property that cannot stand here"),
    // MQTT-3.8.3-4 of version 3.1.1, MQTT-3.8.3-5
    CodecError::Malformed("reserved bits of a subscription"),
    // They are understood, and not served.
    CodecError::SubscriptionIdentifier,
    // Version 3.1 came before 3.1.1.
    CodecError::UnsupportedVersion { level: 3 },
    CodecError::UnsupportedVersion { level: 0 },
    // Section 3.1.2.3 of version 3.1.1
    CodecError::Malformed("the reserved flag of CONNECT"),
];

/// Where in a conversation a packet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    First,
    Later(Version),
}

/// What a client says, as far as both codecs tell it.
#[derive(Debug, PartialEq)]
pub enum Said {
    Connect(Box<Greeting>),
    Publish {
        is_dup: bool,
        qos: u8,
        topic: String,
        packet_id: Option<u16>,
        topic_alias: Option<u16>,
        payload: Vec<u8>,
    },
    Puback(u16),
    Subscribe(u16, Vec<(String, u8)>),
    Unsubscribe(u16, Vec<String>),
    Pingreq,
    Disconnect {
        is_will_wanted: bool,
    },
}

#[derive(Debug, PartialEq)]
pub struct Greeting {
    version: Version,
    is_clean: bool,
    keep_alive: u16,
    client_id: String,
    will: Option<(String, Vec<u8>, u8)>,
    username: Option<String>,
    password: Option<Vec<u8>>,
    session_expiry: u32,
    receive_maximum: u16,
    packet_bytes_max: Option<u32>,
    wants_problem_information: bool,
    authentication_method: Option<String>,
}

/// What both make of the packet at the front of `bytes`; none where it is refused or not whole.
///
/// # Panics
/// They do not agree.
pub fn compared(bytes: &[u8], place: Place) -> Option<Said> {
    match (here(bytes, place), there(bytes, place)) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours, theirs, "{place:?} {bytes:02x?}");
            ours
        }
        (Ok(Some(ours)), Err(error)) => {
            let is_known = is_only_there(&ours, &error, bytes);
            assert!(is_known, "only the other says {error:?} of {ours:?}");
            Some(ours)
        }
        // How long a packet may be is told before it is whole.
        (Ok(None), Err(_)) | (Err(_), Ok(None) | Err(_)) => None,
        (Err(error), Ok(Some(theirs))) => {
            let is_known = ONLY_HERE.contains(&error);
            assert!(is_known, "only here {error:?} of {theirs:?} {bytes:02x?}");
            None
        }
    }
}

/// Rules of the other codec that the specification does not have, or that are not held to here.
fn is_only_there(said: &Said, error: &DecodeError, bytes: &[u8]) -> bool {
    match said {
        // In version 5 the server gives a name (MQTT-3.1.3-6), in 3.1.1 it is refused behind the codec.
        Said::Connect(greeting) if greeting.client_id.is_empty() && !greeting.is_clean => {
            matches!(error, DecodeError::InvalidClientId)
        }
        // A message that expires at once.
        Said::Connect(_) | Said::Publish { .. } => {
            bytes.windows(5).any(|window| window == [2, 0, 0, 0, 0])
        }
        // Reason codes that are none: nothing depends on them.
        Said::Puback(_) | Said::Disconnect { .. } => matches!(error, DecodeError::MalformedPacket),
        Said::Subscribe(..) | Said::Unsubscribe(..) | Said::Pingreq => false,
    }
}

fn here(bytes: &[u8], place: Place) -> Result<Option<Said>, CodecError> {
    let Some(raw) = codec::split(bytes, PACKET_BYTES_MAX)? else {
        return Ok(None);
    };
    let said = match place {
        Place::First => Said::of_connect(&codec::decode_connect(raw)?),
        Place::Later(version) => Said::of_packet(&codec::decode(raw, version)?),
    };
    Ok(Some(said))
}

fn there(bytes: &[u8], place: Place) -> Result<Option<Said>, DecodeError> {
    // It reserves what a length declares, and takes packets of any length unless told not to.
    let bytes_max = u32::try_from(bytes.len()).unwrap_or(u32::MAX).max(1);
    let v3 = || {
        let decoded = v3::Codec::new(bytes_max).decode(&mut BytesMut::from(bytes))?;
        decoded.map(|(packet, _)| Said::of_v3(packet)).transpose()
    };
    let v5 = || {
        let decoded = v5::Codec::new(bytes_max, 0).decode(&mut BytesMut::from(bytes))?;
        decoded.map(|(packet, _)| Said::of_v5(packet)).transpose()
    };
    let said = match place {
        Place::First => v5().or_else(|_| v3())?,
        Place::Later(Version::V311) => v3()?,
        Place::Later(Version::V5) => v5()?,
    };
    let is_first = matches!(said, Some(Said::Connect(_)));
    if said.is_some() && is_first != (place == Place::First) {
        return Err(DecodeError::UnsupportedPacketType);
    }
    Ok(said)
}

impl Said {
    fn of_connect(connect: &codec::Connect<'_>) -> Self {
        let will = connect.will.map(|will| {
            let (topic, payload) = (will.topic.to_owned(), will.payload.to_owned());
            (topic, payload, will.qos.bits())
        });
        Self::Connect(Box::new(Greeting {
            version: connect.version,
            is_clean: connect.is_clean,
            keep_alive: connect.keep_alive,
            client_id: connect.client_id.to_owned(),
            will,
            username: connect.username.map(str::to_owned),
            password: connect.password.map(<[u8]>::to_owned),
            session_expiry: connect.session_expiry,
            receive_maximum: connect.receive_maximum,
            packet_bytes_max: connect.packet_bytes_max,
            wants_problem_information: connect.wants_problem_information,
            authentication_method: connect.authentication_method.map(str::to_owned),
        }))
    }

    fn of_packet(packet: &Packet<'_>) -> Self {
        match packet {
            Packet::Publish(publish) => Self::Publish {
                is_dup: publish.is_dup,
                qos: publish.qos.bits(),
                topic: publish.topic.to_owned(),
                packet_id: publish.packet_id,
                topic_alias: publish.topic_alias,
                payload: publish.payload.to_owned(),
            },
            Packet::Puback { packet_id } => Self::Puback(*packet_id),
            Packet::Subscribe(subscribe) => {
                let asked = subscribe.subscriptions();
                let filters = asked.map(|asked| (asked.filter.to_owned(), asked.qos.bits()));
                Self::Subscribe(subscribe.packet_id, filters.collect())
            }
            Packet::Unsubscribe(unsubscribe) => {
                let filters = unsubscribe.filters().map(str::to_owned);
                Self::Unsubscribe(unsubscribe.packet_id, filters.collect())
            }
            Packet::Pingreq => Self::Pingreq,
            Packet::Disconnect(disconnect) => Self::Disconnect {
                is_will_wanted: disconnect.is_will_wanted,
            },
        }
    }

    fn of_v3(packet: v3::Packet) -> Result<Self, DecodeError> {
        let said = match packet {
            v3::Packet::Connect(connect) => Self::Connect(Box::new(Greeting {
                version: match connect.protocol.level() {
                    4 => Version::V311,
                    _ => return Err(DecodeError::UnsupportedProtocolLevel),
                },
                is_clean: connect.clean_session,
                keep_alive: connect.keep_alive,
                client_id: connect.client_id.to_string(),
                will: (connect.last_will).map(|will| {
                    let qos = will.qos.value();
                    (will.topic.to_string(), will.message.to_vec(), qos)
                }),
                username: connect.username.map(|name| name.to_string()),
                password: connect.password.map(|password| password.to_vec()),
                session_expiry: 0,
                receive_maximum: u16::MAX,
                packet_bytes_max: None,
                wants_problem_information: false,
                authentication_method: None,
            })),
            v3::Packet::Publish(publish) => Self::of_publish(*publish),
            v3::Packet::PublishAck { packet_id } => Self::Puback(packet_id.get()),
            v3::Packet::Subscribe {
                packet_id,
                topic_filters,
            } => {
                let filters = topic_filters.into_iter();
                let filters = filters.map(|(filter, qos)| (filter.to_string(), QoS::value(&qos)));
                Self::Subscribe(packet_id.get(), filters.collect())
            }
            v3::Packet::Unsubscribe {
                packet_id,
                topic_filters,
            } => {
                let filters = topic_filters.iter().map(ToString::to_string);
                Self::Unsubscribe(packet_id.get(), filters.collect())
            }
            v3::Packet::PingRequest => Self::Pingreq,
            v3::Packet::Disconnect => Self::Disconnect {
                is_will_wanted: false,
            },
            // No client sends them here.
            _ => return Err(DecodeError::UnsupportedPacketType),
        };
        Ok(said)
    }

    fn of_v5(packet: v5::Packet) -> Result<Self, DecodeError> {
        let said = match packet {
            v5::Packet::Connect(connect) => Self::Connect(Box::new(Greeting {
                version: Version::V5,
                is_clean: connect.clean_start,
                keep_alive: connect.keep_alive,
                client_id: connect.client_id.to_string(),
                will: (connect.last_will).map(|will| {
                    let qos = will.qos.value();
                    (will.topic.to_string(), will.message.to_vec(), qos)
                }),
                username: connect.username.map(|name| name.to_string()),
                password: connect.password.map(|password| password.to_vec()),
                session_expiry: connect.session_expiry_interval_secs,
                receive_maximum: connect.receive_max.map_or(u16::MAX, u16::from),
                packet_bytes_max: connect.max_packet_size.map(u32::from),
                wants_problem_information: connect.request_problem_info,
                authentication_method: connect.auth_method.map(|method| method.to_string()),
            })),
            v5::Packet::Publish(publish) => Self::of_publish(*publish),
            v5::Packet::PublishAck(ack) => Self::Puback(ack.packet_id.get()),
            v5::Packet::Subscribe(subscribe) => {
                let filters = subscribe.topic_filters.iter();
                let filters =
                    filters.map(|(filter, asked)| (filter.to_string(), asked.qos.value()));
                Self::Subscribe(subscribe.packet_id.get(), filters.collect())
            }
            v5::Packet::Unsubscribe(unsubscribe) => {
                let filters = unsubscribe.topic_filters.iter().map(ToString::to_string);
                Self::Unsubscribe(unsubscribe.packet_id.get(), filters.collect())
            }
            v5::Packet::PingRequest => Self::Pingreq,
            v5::Packet::Disconnect(disconnect) => Self::Disconnect {
                is_will_wanted: disconnect.reason_code
                    == v5::DisconnectReasonCode::DisconnectWithWillMessage,
            },
            _ => return Err(DecodeError::UnsupportedPacketType),
        };
        Ok(said)
    }

    fn of_publish(publish: rmqtt_codec::types::Publish) -> Self {
        let properties = publish.properties.unwrap_or_default();
        Self::Publish {
            is_dup: publish.dup,
            qos: publish.qos.value(),
            topic: publish.topic.to_string(),
            packet_id: publish.packet_id.map(u16::from),
            topic_alias: properties.topic_alias.map(u16::from),
            payload: publish.payload.to_vec(),
        }
    }
}
