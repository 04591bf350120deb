//! The same bytes in two codecs: what a client's library writes, what is left of it when some bytes are changed, and what the
//! server says.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::BytesMut;
use proptest::prelude::*;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{self, PublishProperties};
use rmqtt_codec::{error::EncodeError, v3};
use tokio_util::codec::{Decoder, Encoder};

use super::second_codec::{Place, Said, compared};
use super::*;

fn text() -> impl Strategy<Value = String> {
    "[^\0+#]{1,12}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![
        Just(QoS::AtMostOnce),
        Just(QoS::AtLeastOnce),
        Just(QoS::ExactlyOnce)
    ]
}

fn packet_id() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|id| NonZeroU16::new(id).unwrap())
}

fn user_properties() -> impl Strategy<Value = v5::UserProperties> {
    let property = (text(), text()).prop_map(|(name, value)| (name.into(), value.into()));
    prop::collection::vec(property, 0..3)
}

fn written(encoded: Result<(), EncodeError>, out: BytesMut) -> Vec<u8> {
    encoded.unwrap();
    out.to_vec()
}

fn written_v3(packet: v3::Packet) -> Vec<u8> {
    let mut out = BytesMut::new();
    let encoded = v3::Codec::default().encode(packet, &mut out);
    written(encoded, out)
}

fn written_v5(packet: v5::Packet) -> Vec<u8> {
    let mut out = BytesMut::new();
    let encoded = v5::Codec::default().encode(packet, &mut out);
    written(encoded, out)
}

fn connect_v3() -> impl Strategy<Value = Vec<u8>> {
    let will = (text(), bytes(), qos(), any::<bool>());
    let who = (
        text(),
        prop::option::of((text(), prop::option::of(bytes()))),
    );
    (any::<bool>(), any::<u16>(), prop::option::of(will), who).prop_map(
        |(clean_session, keep_alive, will, (client_id, user))| {
            let (username, password) = user.unzip();
            let last_will = will.map(|(topic, message, qos, retain)| v3::LastWill {
                qos,
                retain,
                topic: topic.into(),
                message: message.into(),
            });
            written_v3(v3::Packet::Connect(Box::new(v3::Connect {
                clean_session,
                keep_alive,
                last_will,
                client_id: client_id.into(),
                username: username.map(Into::into),
                password: password.flatten().map(Into::into),
                ..v3::Connect::default()
            })))
        },
    )
}

fn will_v5() -> impl Strategy<Value = v5::LastWill> {
    let message = (text(), bytes(), qos(), any::<bool>());
    let properties = (
        prop::option::of(any::<u32>()),
        prop::option::of(any::<bool>()),
        prop::option::of(text()),
        user_properties(),
    );
    (message, properties).prop_map(
        |((topic, message, qos, retain), (delay, is_utf8, response, user_properties))| {
            v5::LastWill {
                qos,
                retain,
                topic: topic.into(),
                message: message.into(),
                will_delay_interval_sec: delay,
                correlation_data: None,
                message_expiry_interval: None,
                content_type: None,
                user_properties,
                is_utf8_payload: is_utf8,
                response_topic: response.map(Into::into),
            }
        },
    )
}

fn connect_v5() -> impl Strategy<Value = Vec<u8>> {
    let who = (text(), prop::option::of(text()), prop::option::of(bytes()));
    let limits = (
        any::<u32>(),
        prop::option::of(1..=u16::MAX),
        prop::option::of(1..=u32::MAX),
        any::<bool>(),
        prop::option::of(text()),
    );
    let session = (any::<bool>(), any::<u16>(), user_properties());
    (who, limits, session, prop::option::of(will_v5())).prop_map(
        |((client_id, username, password), limits, session, last_will)| {
            let (session_expiry, receive_max, packet_bytes_max, has_problems, method) = limits;
            let (clean_start, keep_alive, user_properties) = session;
            written_v5(v5::Packet::Connect(Box::new(v5::Connect {
                clean_start,
                keep_alive,
                session_expiry_interval_secs: session_expiry,
                auth_method: method.map(Into::into),
                request_problem_info: has_problems,
                receive_max: receive_max.and_then(NonZeroU16::new),
                max_packet_size: packet_bytes_max.and_then(NonZeroU32::new),
                user_properties,
                last_will,
                client_id: client_id.into(),
                username: username.map(Into::into),
                password: password.map(Into::into),
                ..v5::Connect::default()
            })))
        },
    )
}

fn publish(version: Version) -> impl Strategy<Value = Vec<u8>> {
    let message = (text(), bytes(), qos(), packet_id());
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let properties = (
        prop::option::of(1..=u16::MAX),
        prop::option::of(1..=u32::MAX),
        prop::option::of(text()),
        user_properties(),
    );
    (message, flags, properties).prop_map(move |(message, flags, properties)| {
        let (topic, payload, qos, packet_id) = message;
        let (dup, retain, has_alias_only) = flags;
        let (topic_alias, expiry, content_type, user_properties) = properties;
        let is_nameless = version == Version::V5 && has_alias_only && topic_alias.is_some();
        let properties = PublishProperties {
            topic_alias: topic_alias.and_then(NonZeroU16::new),
            message_expiry_interval: expiry.and_then(NonZeroU32::new),
            content_type: content_type.map(Into::into),
            user_properties,
            ..PublishProperties::default()
        };
        let publish = Box::new(Publish {
            dup: dup && qos != QoS::AtMostOnce,
            retain,
            qos,
            topic: if is_nameless { String::new() } else { topic }.into(),
            packet_id: (qos != QoS::AtMostOnce).then_some(packet_id),
            payload: payload.into(),
            properties: (version == Version::V5).then_some(properties),
        });
        match version {
            Version::V311 => written_v3(v3::Packet::Publish(publish)),
            Version::V5 => written_v5(v5::Packet::Publish(publish)),
        }
    })
}

fn subscribe(version: Version) -> impl Strategy<Value = Vec<u8>> {
    let filters = prop::collection::vec((text(), qos(), any::<bool>(), any::<bool>()), 1..4);
    (packet_id(), filters, user_properties()).prop_map(
        move |(packet_id, filters, user_properties)| match version {
            Version::V311 => {
                let filters = filters.into_iter();
                written_v3(v3::Packet::Subscribe {
                    packet_id,
                    topic_filters: filters.map(|(f, qos, ..)| (f.into(), qos)).collect(),
                })
            }
            Version::V5 => {
                let option = |(filter, qos, no_local, retain_as_published): (String, _, _, _)| {
                    let options = v5::SubscriptionOptions {
                        qos,
                        no_local,
                        retain_as_published,
                        retain_handling: v5::RetainHandling::NoAtSubscribe,
                    };
                    (filter.into(), options)
                };
                written_v5(v5::Packet::Subscribe(v5::Subscribe {
                    packet_id,
                    id: None,
                    user_properties,
                    topic_filters: filters.into_iter().map(option).collect(),
                }))
            }
        },
    )
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Vec<u8>> {
    (packet_id(), prop::collection::vec(text(), 1..4)).prop_map(move |(packet_id, filters)| {
        let topic_filters = filters.into_iter().map(Into::into).collect();
        match version {
            Version::V311 => written_v3(v3::Packet::Unsubscribe {
                packet_id,
                topic_filters,
            }),
            Version::V5 => written_v5(v5::Packet::Unsubscribe(v5::Unsubscribe {
                packet_id,
                user_properties: Vec::new(),
                topic_filters,
            })),
        }
    })
}

/// PUBACK, DISCONNECT and PINGREQ.
fn short(version: Version) -> impl Strategy<Value = Vec<u8>> {
    let words = (prop::option::of(text()), user_properties());
    (0..3, packet_id(), words, any::<bool>()).prop_map(
        move |(which, packet_id, (words, user_properties), has_will)| {
            let reason_string = words.map(Into::into);
            match (which, version) {
                (0, Version::V311) => written_v3(v3::Packet::PublishAck { packet_id }),
                (1, Version::V311) => written_v3(v3::Packet::Disconnect),
                (0, Version::V5) => written_v5(v5::Packet::PublishAck(v5::PublishAck {
                    packet_id,
                    reason_code: v5::PublishAckReason::NoMatchingSubscribers,
                    properties: user_properties,
                    reason_string,
                })),
                (1, Version::V5) => written_v5(v5::Packet::Disconnect(v5::Disconnect {
                    session_expiry_interval_secs: Some(7),
                    reason_string,
                    user_properties,
                    ..v5::Disconnect::new(match has_will {
                        true => v5::DisconnectReasonCode::DisconnectWithWillMessage,
                        false => v5::DisconnectReasonCode::NormalDisconnection,
                    })
                })),
                (_, Version::V311) => written_v3(v3::Packet::PingRequest),
                (_, Version::V5) => written_v5(v5::Packet::PingRequest),
            }
        },
    )
}

fn later(version: Version) -> impl Strategy<Value = (Vec<u8>, Place)> {
    let packet = prop_oneof![
        4 => publish(version).boxed(),
        2 => subscribe(version).boxed(),
        1 => unsubscribe(version).boxed(),
        2 => short(version).boxed(),
    ];
    packet.prop_map(move |bytes| (bytes, Place::Later(version)))
}

/// What a client's library writes, and where it stands.
fn packets() -> impl Strategy<Value = (Vec<u8>, Place)> {
    prop_oneof![
        connect_v3().prop_map(|bytes| (bytes, Place::First)),
        connect_v5().prop_map(|bytes| (bytes, Place::First)),
        later(Version::V311),
        later(Version::V5),
    ]
}

/// A byte that becomes another one; where and which.
fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
}

proptest! {
    #[test]
    fn what_a_library_writes_is_taken_and_read_alike((bytes, place) in packets()) {
        prop_assert!(compared(&bytes, place).is_some(), "{bytes:02x?}");
    }

    #[test]
    fn what_is_changed_is_taken_by_both_or_refused_by_both((mut bytes, place) in packets(), changes in changes()) {
        for (index, byte) in changes {
            let place = index.index(bytes.len());
            bytes[place] = byte;
        }
        compared(&bytes, place);
    }

    #[test]
    fn what_is_cut_is_waited_for((bytes, place) in packets(), cut in any::<prop::sample::Index>()) {
        let num_bytes = cut.index(bytes.len());
        prop_assert_eq!(compared(&bytes[..num_bytes], place), None);
    }

    #[test]
    fn a_packet_that_ends_before_its_content_does_is_refused_by_both((bytes, place) in packets(), cut in any::<prop::sample::Index>()) {
        // The lengths of these are two bytes at most.
        let header_bytes = if bytes[1] < 0x80 { 2 } else { 3 };
        let body = &bytes[header_bytes..];
        let shorter = packet(bytes[0], &[&body[..cut.index(body.len() + 1)]]);
        compared(&shorter, place);
    }

    #[test]
    fn a_message_from_here_is_read_there(topic in text(), payload in bytes(), packet_id in prop::option::of(1..=u16::MAX), is_v5 in any::<bool>()) {
        let version = if is_v5 { Version::V5 } else { Version::V311 };
        let mut out = Vec::new();
        let publication = Publication { topic: &topic, payload: &payload, packet_id };
        write_publish(&mut out, version, &publication);
        let said = compared(&out, Place::Later(version));
        let expected = Said::Publish {
            is_dup: false,
            qos: u8::from(packet_id.is_some()),
            topic,
            packet_id,
            topic_alias: None,
            payload,
        };
        prop_assert_eq!(said, Some(expected));
    }

    #[test]
    fn a_puback_from_here_is_read_there(packet_id in packet_id(), words in prop::option::of(text())) {
        for (reason, expected) in [
            (ReasonCode::Success, v5::PublishAckReason::Success),
            (ReasonCode::NotAuthorized, v5::PublishAckReason::NotAuthorized),
            (ReasonCode::TopicNameInvalid, v5::PublishAckReason::TopicNameInvalid),
            (ReasonCode::PayloadFormatInvalid, v5::PublishAckReason::PayloadFormatInvalid),
        ] {
            let mut out = Vec::new();
            write_puback(&mut out, Version::V5, packet_id.get(), reason, words.as_deref().map(in_words));
            let v5::Packet::PublishAck(ack) = heard_v5(&out) else { panic!() };
            let told = words.as_deref().filter(|_| reason != ReasonCode::Success);
            prop_assert_eq!((ack.packet_id, ack.reason_code), (packet_id, expected));
            prop_assert_eq!(ack.reason_string.as_deref(), told);
            out.clear();
            write_puback(&mut out, Version::V311, packet_id.get(), reason, words.as_deref().map(in_words));
            prop_assert_eq!(heard_v3(&out), v3::Packet::PublishAck { packet_id });
        }
    }
}

fn heard_v3(bytes: &[u8]) -> v3::Packet {
    let mut codec = v3::Codec::default();
    codec.decode(&mut BytesMut::from(bytes)).unwrap().unwrap().0
}

fn heard_v5(bytes: &[u8]) -> v5::Packet {
    let mut codec = v5::Codec::default();
    codec.decode(&mut BytesMut::from(bytes)).unwrap().unwrap().0
}

#[test]
fn a_connack_from_here_is_read_there() {
    let mut out = Vec::new();
    let offered = Connack {
        assigned_client_id: Some("name".to_owned()),
        ..offered()
    };
    write_connack(&mut out, Version::V5, Ok(&offered));
    let v5::Packet::ConnectAck(told) = heard_v5(&out) else {
        panic!()
    };
    let expected = v5::ConnectAck {
        session_expiry_interval_secs: Some(0),
        receive_max: NonZeroU16::new(64).unwrap(),
        max_qos: QoS::AtLeastOnce,
        max_packet_size: Some(1 << 20),
        assigned_client_id: Some("name".into()),
        topic_alias_max: 8,
        subscription_identifiers_available: false,
        shared_subscription_available: false,
        ..v5::ConnectAck::default()
    };
    assert_eq!(*told, expected);
    for reason in [
        ReasonCode::BadUserNameOrPassword,
        ReasonCode::ServerShuttingDown,
        ReasonCode::UnsupportedProtocolVersion,
        ReasonCode::BadAuthenticationMethod,
    ] {
        out.clear();
        write_connack(&mut out, Version::V5, Err((reason, in_words("why"))));
        let v5::Packet::ConnectAck(told) = heard_v5(&out) else {
            panic!()
        };
        assert_eq!(u8::from(told.reason_code), reason.in_connack().as_u8());
        assert_eq!(told.reason_string.as_deref(), Some("why"));
    }
}

#[test]
fn the_other_answers_from_here_are_read_there() {
    let packet_id = NonZeroU16::new(7).unwrap();
    let answers = [Ok(Qos::AtLeastOnce), Err(ReasonCode::NotAuthorized)];
    let mut out = Vec::new();
    write_suback(&mut out, Version::V5, 7, answers.into_iter());
    let v5::Packet::SubscribeAck(heard) = heard_v5(&out) else {
        panic!()
    };
    let told = [
        v5::SubscribeAckReason::GrantedQos1,
        v5::SubscribeAckReason::NotAuthorized,
    ];
    assert_eq!((heard.packet_id, &heard.status[..]), (packet_id, &told[..]));
    out.clear();
    write_suback(&mut out, Version::V311, 7, answers.into_iter());
    let status = vec![
        v3::SubscribeReturnCode::Success(QoS::AtLeastOnce),
        v3::SubscribeReturnCode::Failure,
    ];
    assert_eq!(
        heard_v3(&out),
        v3::Packet::SubscribeAck { packet_id, status }
    );

    out.clear();
    let answers = [ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    write_unsuback(&mut out, Version::V5, 7, answers.into_iter());
    let v5::Packet::UnsubscribeAck(heard) = heard_v5(&out) else {
        panic!()
    };
    let told = [
        v5::UnsubscribeAckReason::Success,
        v5::UnsubscribeAckReason::NoSubscriptionExisted,
    ];
    assert_eq!((heard.packet_id, &heard.status[..]), (packet_id, &told[..]));
    out.clear();
    write_unsuback(&mut out, Version::V311, 7, answers.into_iter());
    assert_eq!(heard_v3(&out), v3::Packet::UnsubscribeAck { packet_id });

    out.clear();
    write_pingresp(&mut out);
    assert_eq!(heard_v5(&out), v5::Packet::PingResponse);
    out.clear();
    write_disconnect(
        &mut out,
        ReasonCode::SessionTakenOver,
        in_words("this device connected again"),
    );
    let v5::Packet::Disconnect(heard) = heard_v5(&out) else {
        panic!()
    };
    assert_eq!(
        heard.reason_code,
        v5::DisconnectReasonCode::SessionTakenOver
    );
    let told = heard.reason_string.as_deref();
    assert_eq!(told, Some("this device connected again"));
}
