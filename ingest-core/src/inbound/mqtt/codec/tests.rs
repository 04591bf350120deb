use super::*;
use crate::inbound::mqtt::codec;

mod differential;
mod second_codec;

const MAX: u32 = 1 << 20;

/// A packet of the type and flags `first`.
fn packet(first: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let mut out = vec![first];
    let mut left = body.len();
    loop {
        let low = u8::try_from(left & 0x7f).unwrap();
        left >>= 7;
        out.push(if left == 0 { low } else { low | 0x80 });
        if left == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    [&length, text.as_bytes()].concat()
}

fn raw(bytes: &[u8]) -> RawPacket<'_> {
    split(bytes, MAX).unwrap().unwrap()
}

fn decoded(bytes: &[u8], version: Version) -> Result<Packet<'_>, CodecError> {
    decode(raw(bytes), version)
}

fn connect_311(flags: u8, rest: &[u8]) -> Vec<u8> {
    packet(0x10, &[&text("MQTT"), &[4, flags, 0, 60], rest])
}

fn connect_5(flags: u8, properties: &[u8], rest: &[u8]) -> Vec<u8> {
    let length = u8::try_from(properties.len()).unwrap();
    packet(
        0x10,
        &[&text("MQTT"), &[5, flags, 0, 60, length], properties, rest],
    )
}

fn publish(first: u8, rest: &[&[u8]]) -> Vec<u8> {
    packet(first, rest)
}

fn is_malformed<T>(outcome: Result<T, CodecError>) -> bool {
    matches!(outcome, Err(CodecError::Malformed(_)))
}

fn is_protocol_error<T>(outcome: Result<T, CodecError>) -> bool {
    matches!(outcome, Err(CodecError::Protocol(_)))
}

#[test]
fn a_connect_of_each_version_is_read_whole() {
    let rest = [text("c"), text("w/t"), text("gone"), text("u"), text("p")].concat();
    let bytes = connect_311(0b1110_1110, &rest);
    let connect = decode_connect(raw(&bytes)).unwrap();
    assert_eq!(
        (connect.version, connect.is_clean, connect.keep_alive),
        (Version::V311, true, 60)
    );
    assert_eq!(
        (connect.client_id, connect.username, connect.password),
        ("c", Some("u"), Some(&b"p"[..]))
    );
    let will = Will {
        topic: "w/t",
        payload: b"gone",
        qos: Qos::AtLeastOnce,
    };
    assert_eq!(connect.will, Some(will));

    let properties = [
        0x11, 0, 0, 0, 9, 0x21, 0, 7, 0x27, 0, 0, 1, 0, 0x17, 0, 0x26, 0, 0, 0, 0, 0x26, 0, 0, 0, 0,
    ];
    let rest = [text(""), text("token")].concat();
    let bytes = connect_5(0b1000_0000, &properties, &rest);
    let connect = decode_connect(raw(&bytes)).unwrap();
    assert_eq!(
        (connect.version, connect.is_clean, connect.username),
        (Version::V5, false, Some("token"))
    );
    assert_eq!((connect.session_expiry, connect.receive_maximum), (9, 7));
    assert_eq!(connect.packet_bytes_max, Some(256));
    assert!(!connect.wants_problem_information);
}

#[test]
fn a_packet_is_cut_off_once_it_is_whole_and_refused_by_its_length_before() {
    let bytes = connect_311(2, &text("client"));
    for num_bytes in 0..bytes.len() {
        assert_eq!(split(&bytes[..num_bytes], MAX), Ok(None), "{num_bytes}");
    }
    let two = [bytes.clone(), bytes.clone()].concat();
    assert_eq!(split(&two, MAX).unwrap().unwrap().packet_bytes, bytes.len());
    let exactly = u32::try_from(bytes.len()).unwrap();
    assert!(split(&bytes, exactly).is_ok());
    assert!(matches!(
        split(&bytes[..2], exactly - 1),
        Err(CodecError::TooLarge { .. })
    ));
    assert!(is_malformed(split(&[0x10, 0xff, 0xff, 0xff, 0xff], MAX)));
    assert!(matches!(
        split(&[0x10, 0xff, 0xff, 0xff, 0x7f], MAX),
        Err(CodecError::TooLarge { .. })
    ));
}

#[test]
fn a_packet_that_is_cut_within_is_an_error_and_never_a_panic() {
    let rest = [text("c"), text("w/t"), text("gone"), text("u"), text("p")].concat();
    for bytes in [
        connect_311(0b1110_1110, &rest),
        connect_5(2, &[0x21, 0, 7], &text("c")),
    ] {
        for num_bytes in 0..bytes.len() - 2 {
            let cut = packet(0x10, &[&bytes[2..2 + num_bytes]]);
            assert!(decode_connect(raw(&cut)).is_err(), "{num_bytes}");
        }
    }
    let subscribe = packet(0x82, &[&[0, 1], &text("a/+"), &[1]]);
    for num_bytes in 0..subscribe.len() - 2 {
        let cut = packet(0x82, &[&subscribe[2..2 + num_bytes]]);
        assert!(decoded(&cut, Version::V311).is_err(), "{num_bytes}");
    }
}

#[test]
fn only_a_connect_begins_a_connection_and_only_once() {
    let ping = packet(0xc0, &[]);
    assert!(is_protocol_error(decode_connect(raw(&ping))));
    let connect = connect_311(2, &text("c"));
    assert!(is_protocol_error(decoded(&connect, Version::V311)));
}

#[test]
fn another_protocol_or_version_is_named_as_such() {
    let cases = [("MQTT", 3u8), ("MQTT", 6), ("MQIsdp", 3), ("HTTP", 4)];
    for (name, level) in cases {
        let bytes = packet(0x10, &[&text(name), &[level, 2, 0, 60], &text("c")]);
        assert!(matches!(
            decode_connect(raw(&bytes)),
            Err(CodecError::UnsupportedVersion { .. })
        ));
    }
}

#[test]
fn flags_that_contradict_each_other_are_malformed() {
    let of_311 = |flags| {
        let bytes = connect_311(flags, &[text("c"), text("u"), text("p")].concat());
        decode_connect(raw(&bytes)).map(drop)
    };
    assert!(is_malformed(of_311(0b0000_0001)));
    assert!(is_malformed(of_311(0b0001_1110)));
    assert!(is_malformed(of_311(0b0000_1010)));
    assert!(is_malformed(of_311(0b0010_0010)));
    assert!(is_malformed(of_311(0b0100_0010)));
    for first in [0x11, 0xc1, 0x80, 0xa0, 0xe2, 0x42] {
        let bytes = packet(first, &[&[0, 1], &text("a"), &[0]]);
        let outcome = match first {
            0x11 => decode_connect(raw(&bytes)).map(drop),
            _ => decoded(&bytes, Version::V311).map(drop),
        };
        assert!(is_malformed(outcome), "{first:#x}");
    }
}

#[test]
fn a_publish_is_read_with_its_alias_and_the_rest_is_payload() {
    let bytes = publish(0x3b, &[&text("a/b"), &[0, 9], b"\x01"]);
    let Ok(Packet::Publish(said)) = decoded(&bytes, Version::V311) else {
        panic!()
    };
    assert_eq!(
        (said.is_dup, said.qos, said.packet_id),
        (true, Qos::AtLeastOnce, Some(9))
    );
    assert_eq!((said.topic, said.payload), ("a/b", &b"\x01"[..]));

    let bytes = publish(0x30, &[&text(""), &[3, 0x23, 0, 4], b"x"]);
    let Ok(Packet::Publish(said)) = decoded(&bytes, Version::V5) else {
        panic!()
    };
    assert_eq!(
        (said.topic, said.topic_alias, said.payload),
        ("", Some(4), &b"x"[..])
    );
}

#[test]
fn a_publish_that_the_specification_forbids_is_refused() {
    let topic = text("a");
    let of = |first, rest: &[&[u8]], version| {
        let bytes = publish(first, rest);
        decoded(&bytes, version).map(drop)
    };
    assert!(
        is_malformed(of(0x36, &[&topic, &[0, 1]], Version::V311)),
        "QoS 3"
    );
    assert!(
        is_malformed(of(0x38, &[&topic], Version::V311)),
        "DUP with QoS 0"
    );
    assert!(
        is_malformed(of(0x32, &[&topic, &[0, 0]], Version::V311)),
        "packet id 0"
    );
    assert!(
        is_malformed(of(0x32, &[&topic, &[0]], Version::V311)),
        "half a packet id"
    );
    assert!(
        is_malformed(of(0x30, &[&[0, 2, 0xc3, 0x28]], Version::V311)),
        "UTF-8"
    );
    assert!(
        is_malformed(of(0x30, &[&[0, 2, b'a', 0]], Version::V311)),
        "NUL"
    );
    assert!(
        is_malformed(of(0x30, &[&[0, 3, 0xed, 0xa0, 0x80]], Version::V311)),
        "surrogate"
    );
    assert!(is_protocol_error(of(0x30, &[&text("")], Version::V311)));
    assert!(is_protocol_error(of(0x30, &[&text(""), &[0]], Version::V5)));
    for wildcard in ["a/+", "#", "a#b"] {
        assert_eq!(
            of(0x30, &[&text(wildcard)], Version::V311),
            Err(CodecError::TopicNameInvalid)
        );
    }
    let alias_0 = of(0x30, &[&topic, &[3, 0x23, 0, 0]], Version::V5);
    assert_eq!(alias_0, Err(CodecError::TopicAliasInvalid));
    let twice = of(0x30, &[&topic, &[6, 0x23, 0, 1, 0x23, 0, 1]], Version::V5);
    assert!(is_protocol_error(twice));
    let foreign = of(0x30, &[&topic, &[2, 0x24, 1]], Version::V5);
    assert!(is_malformed(foreign));
    let longer_than_there_is = of(0x30, &[&topic, &[9, 0x23, 0, 1]], Version::V5);
    assert!(is_malformed(longer_than_there_is));
}

#[test]
fn a_puback_is_two_bytes_or_in_version_5_more() {
    let of = |body: &[u8], version| {
        let bytes = packet(0x40, &[body]);
        matches!(
            decoded(&bytes, version),
            Ok(Packet::Puback { packet_id: 258 })
        )
    };
    assert!(of(&[1, 2], Version::V311));
    assert!(!of(&[1, 2, 0], Version::V311));
    assert!(of(&[1, 2], Version::V5));
    assert!(of(&[1, 2, 0x10], Version::V5));
    assert!(of(&[1, 2, 0x10, 0], Version::V5));
    assert!(of(&[1, 2, 0x10, 4, 0x1f, 0, 1, b'a'], Version::V5));
    assert!(!of(&[1, 2, 0x10, 0, 0], Version::V5));
    assert!(!of(&[0, 0], Version::V5));
}

#[test]
fn subscriptions_are_read_and_their_reserved_bits_refused() {
    let bytes = packet(0x82, &[&[0, 7], &text("a/+"), &[1], &text("b"), &[0]]);
    let Ok(Packet::Subscribe(subscribe)) = decoded(&bytes, Version::V311) else {
        panic!()
    };
    let read: Vec<_> = subscribe
        .subscriptions()
        .map(|s| (s.filter, s.qos))
        .collect();
    assert_eq!(read, [("a/+", Qos::AtLeastOnce), ("b", Qos::AtMostOnce)]);
    let of = |options, version, properties: &[u8]| {
        let bytes = packet(0x82, &[&[0, 7], properties, &text("a"), &[options]]);
        decoded(&bytes, version).map(drop)
    };
    assert!(is_malformed(of(0x03, Version::V311, &[])));
    assert!(is_malformed(of(0x04, Version::V311, &[])));
    assert!(of(0x2d, Version::V5, &[0]).is_ok());
    assert!(is_malformed(of(0x40, Version::V5, &[0])));
    assert!(is_protocol_error(of(0x30, Version::V5, &[0])));
    assert_eq!(
        of(0, Version::V5, &[2, 0x0b, 1]),
        Err(CodecError::SubscriptionIdentifier)
    );
    let none = packet(0x82, &[&[0, 7]]);
    assert!(is_protocol_error(decoded(&none, Version::V311)));
    let empty = packet(0xa2, &[&[0, 7], &text("")]);
    assert!(is_malformed(decoded(&empty, Version::V311)));
}

#[test]
fn a_disconnect_tells_whether_the_will_is_wanted() {
    let of = |body: &[u8], version| {
        let bytes = packet(0xe0, &[body]);
        match decoded(&bytes, version) {
            Ok(Packet::Disconnect(leave)) => Some(leave.is_will_wanted),
            _ => None,
        }
    };
    assert_eq!(of(&[], Version::V311), Some(false));
    assert_eq!(of(&[4], Version::V311), None);
    assert_eq!(of(&[], Version::V5), Some(false));
    assert_eq!(of(&[4], Version::V5), Some(true));
    assert_eq!(of(&[0, 5, 0x11, 0, 0, 0, 9], Version::V5), Some(false));
}

#[test]
fn packets_of_qos_2_and_of_servers_are_protocol_errors() {
    for first in [0x20, 0x50, 0x62, 0x70, 0x90, 0xb0, 0xd0, 0xf0, 0x00] {
        let bytes = packet(first, &[&[0, 1]]);
        assert!(
            is_protocol_error(decoded(&bytes, Version::V5)),
            "{first:#x}"
        );
    }
}

fn offered() -> Connack {
    Connack {
        receive_maximum: 64,
        packet_bytes_max: 1 << 20,
        topic_alias_maximum: 8,
        assigned_client_id: None,
    }
}

fn in_words(text: &str) -> Words<'_> {
    Words {
        text,
        packet_bytes_max: usize::MAX,
    }
}

#[test]
fn words_are_left_out_where_the_packet_would_be_larger_than_the_client_takes() {
    for packet_bytes_max in [11, 12, 13] {
        let words = Words {
            text: "why",
            packet_bytes_max,
        };
        let mut out = Vec::new();
        write_connack(
            &mut out,
            Version::V5,
            Err((ReasonCode::NotAuthorized, words)),
        );
        let connack = std::mem::take(&mut out);
        write_puback(
            &mut out,
            Version::V5,
            5,
            ReasonCode::NotAuthorized,
            Some(words),
        );
        let puback = std::mem::take(&mut out);
        write_disconnect(&mut out, ReasonCode::NotAuthorized, words);
        for (packet, with, without) in [(connack, 11, 5), (puback, 12, 6), (out, 10, 4)] {
            let expected = if with <= packet_bytes_max {
                with
            } else {
                without
            };
            assert_eq!(packet.len(), expected);
            assert_eq!(packet.ends_with(b"why"), with <= packet_bytes_max);
        }
    }
}

#[test]
fn a_connack_of_version_5_tells_what_is_served_or_why_not() {
    let mut out = Vec::new();
    write_connack(&mut out, Version::V5, Ok(&offered()));
    let expected = [
        &[0x20, 25, 0, 0, 22, 0x11, 0, 0, 0, 0, 0x21, 0, 64, 0x24, 1][..],
        &[0x27, 0, 0x10, 0, 0, 0x22, 0, 8, 0x29, 0, 0x2a, 0],
    ]
    .concat();
    assert_eq!(out, expected);

    out.clear();
    write_connack(
        &mut out,
        Version::V5,
        Err((ReasonCode::SessionTakenOver, in_words(""))),
    );
    write_connack(
        &mut out,
        Version::V311,
        Err((ReasonCode::ServerShuttingDown, in_words(""))),
    );
    let expected = [&[0x20, 6, 0, 0x89, 3, 0x1f, 0, 0][..], &[0x20, 2, 0, 3]].concat();
    assert_eq!(out, expected, "no code that a CONNACK does not know");
}

#[test]
fn what_the_server_says_is_what_the_specification_shows() {
    let mut out = Vec::new();
    let offered = offered();
    write_connack(&mut out, Version::V311, Ok(&offered));
    write_connack(
        &mut out,
        Version::V311,
        Err((ReasonCode::BadUserNameOrPassword, in_words(""))),
    );
    write_connack(
        &mut out,
        Version::V311,
        Err((ReasonCode::ProtocolError, in_words(""))),
    );
    write_pingresp(&mut out);
    write_puback(
        &mut out,
        Version::V311,
        5,
        ReasonCode::TopicNameInvalid,
        None,
    );
    write_puback(&mut out, Version::V5, 5, ReasonCode::Success, None);
    write_puback(
        &mut out,
        Version::V5,
        5,
        ReasonCode::PayloadFormatInvalid,
        Some(in_words("no")),
    );
    let expected = [
        &[0x20, 2, 0, 0][..],
        &[0x20, 2, 0, 4],
        &[0xd0, 0],
        &[0x40, 2, 0, 5],
        &[0x40, 2, 0, 5],
        &[0x40, 9, 0, 5, 0x99, 5, 0x1f, 0, 2, b'n', b'o'],
    ]
    .concat();
    assert_eq!(out, expected);

    out.clear();
    let answers = [Ok(Qos::AtLeastOnce), Err(ReasonCode::NotAuthorized)];
    write_suback(&mut out, Version::V311, 7, answers.into_iter());
    write_suback(&mut out, Version::V5, 7, answers.into_iter());
    let expected = [&[0x90, 4, 0, 7, 1, 0x80][..], &[0x90, 5, 0, 7, 0, 1, 0x87]].concat();
    assert_eq!(out, expected);
}

#[test]
fn a_message_that_is_written_reads_back_however_long_it_is() {
    for num_bytes in [0, 1, 120, 128, 16_383, 16_384, 100_000] {
        let payload = vec![b'x'; num_bytes];
        for (version, packet_id) in [(Version::V311, None), (Version::V5, Some(3))] {
            let publication = Publication {
                topic: "a/b",
                payload: &payload,
                packet_id,
            };
            let mut out = Vec::new();
            let written = write_publish(&mut out, version, &publication);
            assert_eq!((written, raw(&out).packet_bytes), (out.len(), out.len()));
            let Ok(Packet::Publish(read)) = decoded(&out, version) else {
                panic!()
            };
            assert_eq!(
                (read.topic, read.payload, read.packet_id),
                ("a/b", &payload[..], packet_id)
            );
        }
    }
}
