use proptest::prelude::*;
use rmpv::Value;
use uuid::Uuid;

use super::device::{self, Received};
use super::*;
use crate::event::msgpack::MsgpackError;
use crate::event::{Event, RejectCode, check_event};

mod json_form;
mod properties;
mod vectors;

const DEVICE: Uuid = Uuid::from_u128(0x8c1f_0000_0000_4000_8000_0000_0000_0001);
const NOW_US: i64 = 1_767_225_600_000_000;

fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

fn body(elements: Vec<Value>) -> Vec<u8> {
    encoded(&Value::Array(elements))
}

fn bin(id: Uuid) -> Value {
    Value::Binary(id.as_bytes().to_vec())
}

fn hello() -> Vec<Value> {
    vec![1.into(), bin(DEVICE), "secret".into(), 7.into()]
}

fn event(event_type: &str) -> Value {
    Value::Array(vec![Value::Nil, event_type.into()])
}

fn events(first_seq: impl Into<Value>, events: Vec<Value>) -> Vec<u8> {
    body(vec![first_seq.into(), Value::Array(events)])
}

/// Decodes to the end, as the connection does before it takes anything.
fn decode_whole(kind: u8, body: &[u8]) -> Result<Vec<EncodedEvent<'_>>, FrameError> {
    match decode(kind, body)? {
        Incoming::Events(events) => events.events.collect(),
        _ => Ok(Vec::new()),
    }
}

fn only_event(bytes: &[u8]) -> Event<'_> {
    match *decode_whole(kind::EVENTS, bytes).unwrap() {
        [EncodedEvent { event, .. }] => event,
        ref other => panic!("{} events", other.len()),
    }
}

#[track_caller]
fn assert_malformed(kind: u8, body: &[u8]) {
    let error = decode_whole(kind, body).expect_err("decoded");
    assert_eq!(error.code(), ErrorCode::Malformed, "{error}");
}

#[track_caller]
fn assert_event_malformed(elements: Vec<Value>) {
    assert_malformed(kind::EVENTS, &events(1, vec![Value::Array(elements)]));
}

/// Arrays within each other, `depth` of them.
fn nested(depth: u8) -> Value {
    (0..depth).fold(Value::Nil, |inner, _| Value::Array(vec![inner]))
}

#[test]
fn the_example_in_bytes_is_a_ping_and_its_pong() {
    let frame = split(&[0, 0, 0, 3, 4, 0x91, 1], 4096).unwrap().unwrap();
    assert_eq!((frame.kind, frame.frame_bytes), (kind::PING, 7));
    assert!(matches!(
        decode(frame.kind, frame.body),
        Ok(Incoming::Ping { nonce: 1 })
    ));
    let mut out = Vec::new();
    Outgoing::Pong { nonce: 1 }.encode(&mut out);
    assert_eq!(out, [0, 0, 0, 3, 0x85, 0x91, 1]);
}

#[test]
fn frames_stand_back_to_back() {
    let mut stream = Vec::new();
    device::encode_ping(&mut stream, 1);
    device::encode_bye(&mut stream);
    let first = split(&stream, 4096).unwrap().unwrap();
    let second = split(&stream[first.frame_bytes..], 4096).unwrap().unwrap();
    assert_eq!((first.kind, second.kind), (kind::PING, kind::BYE));
    assert_eq!(first.frame_bytes + second.frame_bytes, stream.len());
}

#[test]
fn a_frame_that_has_not_arrived_as_a_whole_is_waited_for() {
    let mut frame = Vec::new();
    device::encode_ping(&mut frame, u64::MAX);
    for length in 0..frame.len() {
        assert_eq!(split(&frame[..length], 4096), Ok(None), "{length}");
    }
}

#[test]
fn a_frame_too_long_is_refused_from_its_length() {
    assert!(matches!(split(&[0, 0, 0x10, 0], 4096), Ok(None)));
    for header in [[0, 0, 0x10, 1], [0xff; 4]] {
        assert_eq!(
            split(&header, 4096).unwrap_err().code(),
            ErrorCode::TooLarge
        );
    }
    assert_eq!(split(&[0xff; 3], 4096), Ok(None));
}

#[test]
fn a_frame_of_length_0_is_malformed() {
    assert_eq!(
        split(&[0; 4], 4096).unwrap_err().code(),
        ErrorCode::Malformed
    );
}

#[test]
fn an_unknown_kind_and_one_of_the_other_side_are_malformed() {
    for kind in 0..=255 {
        match (kind, decode(kind, &[0x90])) {
            (
                kind::HELLO | kind::EVENTS | kind::RESULT | kind::PING,
                Err(FrameError::Missing { .. }),
            ) => {}
            (kind::BYE, Ok(Incoming::Bye)) => {}
            (kind::WELCOME..=kind::ERROR, Err(FrameError::WrongSide { .. })) => {}
            (_, Err(FrameError::UnknownKind { .. })) => {}
            (kind, other) => panic!("{kind:#x}: {other:?}"),
        }
    }
    for kind in [
        kind::HELLO,
        kind::EVENTS,
        kind::RESULT,
        kind::PING,
        kind::BYE,
    ] {
        assert_eq!(
            device::decode(kind, &[0x90]),
            Err(FrameError::WrongSide { kind })
        );
    }
}

#[test]
fn a_body_that_is_not_exactly_one_array_is_malformed() {
    for body in [
        &b""[..],
        b"\x80",
        b"\xc0",
        b"\x01",
        b"\xa0",
        b"\x90\x90",
        b"\x90\xc0",
        b"\xdc\x00",
        b"\x91",
    ] {
        assert_malformed(kind::BYE, body);
    }
}

#[test]
fn elements_beyond_those_known_are_ignored_but_well_formed() {
    let mut elements = hello();
    elements.extend(["agent".into(), nested(15), Value::Ext(1, vec![2])]);
    let bytes = body(elements);
    assert!(matches!(
        decode(kind::HELLO, &bytes),
        Ok(Incoming::Hello(Hello {
            agent: Some("agent"),
            ..
        }))
    ));
    assert_malformed(kind::BYE, &body(vec![nested(16)]));
    assert_malformed(kind::BYE, b"\x91\xc1");
    assert_malformed(kind::BYE, b"\x91\xa1\xff");
    assert_malformed(kind::EVENTS, b"\x93\x01\x91\x92\xc0\xa1t\xc1");
    assert_malformed(kind::EVENTS, b"\x93\x01\x91\x92\xc0\xa1t");
}

#[test]
fn elements_of_an_event_beyond_those_known_are_ignored_and_kept() {
    let extended = Value::Array(vec![
        Value::Nil,
        "t".into(),
        Value::Nil,
        Value::Nil,
        Value::Nil,
        Value::Nil,
        "new".into(),
        nested(13),
    ]);
    let bytes = events(1, vec![extended.clone()]);
    let decoded = decode_whole(kind::EVENTS, &bytes).unwrap();
    assert_eq!(decoded[0].encoded, encoded(&extended));
}

#[test]
fn nesting_of_16_is_taken_and_of_17_is_malformed() {
    let with_metadata = |inner| {
        let metadata = Value::Map(vec![("k".into(), nested(inner))]);
        events(
            1,
            vec![Value::Array(vec![
                Value::Nil,
                "t".into(),
                Value::Nil,
                Value::Nil,
                metadata,
            ])],
        )
    };
    assert!(decode_whole(kind::EVENTS, &with_metadata(12)).is_ok());
    assert_malformed(kind::EVENTS, &with_metadata(13));
    assert_malformed(kind::EVENTS, &[0x91; 100_000]);
}

#[test]
fn a_hello_names_its_device_by_bytes_or_by_text() {
    for id in [bin(DEVICE), DEVICE.to_string().into()] {
        let mut elements = hello();
        elements[1] = id;
        let bytes = body(elements);
        let Ok(Incoming::Hello(hello)) = decode(kind::HELLO, &bytes) else {
            panic!("refused")
        };
        assert_eq!(
            hello,
            Hello {
                device_id: DEVICE,
                token: "secret",
                epoch: 7,
                agent: None
            }
        );
    }
    for id in [
        Value::Binary(vec![0; 15]),
        Value::Binary(vec![0; 17]),
        "8c1f".into(),
        "".into(),
        5.into(),
    ] {
        let mut elements = hello();
        elements[1] = id;
        assert_malformed(kind::HELLO, &body(elements));
    }
}

#[test]
fn a_required_element_that_is_nil_or_left_out_is_malformed() {
    let result = vec!["r1".into(), 0.into()];
    for (kind, elements) in [
        (kind::HELLO, hello()),
        (kind::RESULT, result),
        (kind::PING, vec![1.into()]),
        (kind::EVENTS, vec![1.into(), Value::Array(vec![event("t")])]),
    ] {
        assert!(decode_whole(kind, &body(elements.clone())).is_ok());
        for index in 0..elements.len() {
            let mut with_nil = elements.clone();
            with_nil[index] = Value::Nil;
            assert_malformed(kind, &body(with_nil));
            assert_malformed(kind, &body(elements[..index].to_vec()));
        }
    }
    assert_event_malformed(vec![]);
    assert_event_malformed(vec![1.into(), Value::Nil]);
}

#[test]
fn an_element_of_the_wrong_type_is_malformed() {
    for (kind, elements) in [
        (
            kind::HELLO,
            vec!["1".into(), bin(DEVICE), "secret".into(), 7.into()],
        ),
        (
            kind::HELLO,
            vec![1.into(), bin(DEVICE), Value::Binary(vec![1]), 7.into()],
        ),
        (
            kind::HELLO,
            vec![1.into(), bin(DEVICE), "secret".into(), (-7).into()],
        ),
        (
            kind::HELLO,
            vec![1.into(), bin(DEVICE), "secret".into(), 7.0.into()],
        ),
        (
            kind::HELLO,
            vec![1.into(), bin(DEVICE), "secret".into(), 7.into(), 1.into()],
        ),
        (
            kind::EVENTS,
            vec!["1".into(), Value::Array(vec![event("t")])],
        ),
        (kind::EVENTS, vec![1.into(), Value::Map(vec![])]),
        (kind::EVENTS, vec![1.into(), Value::Array(vec![Value::Nil])]),
        (
            kind::EVENTS,
            vec![1.into(), Value::Array(vec![Value::Map(vec![])])],
        ),
        (kind::RESULT, vec![1.into(), 0.into()]),
        (kind::RESULT, vec!["r".into(), true.into()]),
        (kind::RESULT, vec!["r".into(), 0.into(), 1.into()]),
        (
            kind::RESULT,
            vec!["r".into(), 0.into(), Value::Nil, Value::Array(vec![])],
        ),
        (kind::PING, vec![(-1).into()]),
        (kind::PING, vec![1.0.into()]),
    ] {
        assert_malformed(kind, &body(elements));
    }
    let nil = Value::Nil;
    assert_event_malformed(vec!["1".into(), "t".into()]);
    assert_event_malformed(vec![1.0.into(), "t".into()]);
    assert_event_malformed(vec![nil.clone(), 1.into()]);
    assert_event_malformed(vec![nil.clone(), "t".into(), "1".into()]);
    assert_event_malformed(vec![nil.clone(), "t".into(), nil.clone(), 1.into()]);
    assert_event_malformed(vec![
        nil.clone(),
        "t".into(),
        nil.clone(),
        nil.clone(),
        Value::Array(vec![]),
    ]);
    for id in [
        DEVICE.to_string().into(),
        Value::Binary(vec![0; 15]),
        1.into(),
    ] {
        assert_event_malformed(vec![
            nil.clone(),
            "t".into(),
            nil.clone(),
            nil.clone(),
            nil.clone(),
            id,
        ]);
    }
}

#[test]
fn text_that_is_not_utf_8_is_malformed() {
    assert_malformed(kind::RESULT, b"\x92\xa1\xff\x00");
    assert_malformed(
        kind::EVENTS,
        b"\x92\x01\x91\x95\xc0\xa1t\xc0\xc0\x81\xa1\xffk",
    );
}

#[test]
fn another_version_is_unsupported_whatever_its_elements_mean() {
    for elements in [
        vec![2.into()],
        vec![0.into()],
        vec![u64::MAX.into(), "x".into(), 1.into()],
    ] {
        let error = decode(kind::HELLO, &body(elements)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnsupportedVersion);
    }
    assert_malformed(kind::HELLO, b"\x92\x02\xc1");
}

#[test]
fn an_epoch_is_one_that_the_database_holds() {
    let with_epoch = |epoch: u64| body(vec![1.into(), bin(DEVICE), "secret".into(), epoch.into()]);
    assert!(decode(kind::HELLO, &with_epoch(u64::MAX >> 1)).is_ok());
    assert!(decode(kind::HELLO, &with_epoch(0)).is_ok());
    assert_malformed(kind::HELLO, &with_epoch((u64::MAX >> 1) + 1));
}

#[test]
fn sequence_numbers_start_at_1_and_end_where_the_database_does() {
    let two = || vec![event("t"), event("t")];
    let largest = u64::MAX >> 1;
    assert!(decode_whole(kind::EVENTS, &events(1, two())).is_ok());
    assert!(decode_whole(kind::EVENTS, &events(largest - 2, two())).is_ok());
    for first_seq in [0, largest - 1, largest, u64::MAX - 1, u64::MAX] {
        assert_malformed(kind::EVENTS, &events(first_seq, two()));
    }
}

#[test]
fn a_frame_has_1_to_10_000_events() {
    let of = |num_events| events(1, vec![event("t"); num_events]);
    assert_eq!(
        decode_whole(kind::EVENTS, &of(10_000)).unwrap().len(),
        10_000
    );
    assert_malformed(kind::EVENTS, &of(0));
    assert_malformed(kind::EVENTS, &of(10_001));
}

#[test]
fn every_element_of_an_event_is_read() {
    let metadata = Value::Map(vec![("k".into(), 1.into())]);
    let bytes = events(
        1,
        vec![Value::Array(vec![
            NOW_US.into(),
            "t".into(),
            21.5.into(),
            "C".into(),
            metadata.clone(),
            bin(DEVICE),
        ])],
    );
    let expected = Event {
        time_us: Some(NOW_US),
        event_type: "t",
        value: Some(21.5),
        unit: Some("C"),
        metadata: Some(&encoded(&metadata)),
        device_id: Some(DEVICE),
    };
    assert_eq!(only_event(&bytes), expected);
}

#[test]
fn a_value_is_an_integer_a_float_or_a_boolean() {
    for (value, expected) in [
        (Value::from(true), 1.0),
        (false.into(), 0.0),
        (3.into(), 3.0),
        ((-3).into(), -3.0),
        (1.5_f32.into(), 1.5),
        (1.5.into(), 1.5),
        (u64::MAX.into(), 18_446_744_073_709_551_615.0),
    ] {
        let bytes = events(1, vec![Value::Array(vec![Value::Nil, "t".into(), value])]);
        assert_eq!(only_event(&bytes).value, Some(expected));
    }
}

#[test]
fn a_time_beyond_what_is_held_is_a_bad_time_not_a_malformed_frame() {
    let bytes = events(1, vec![Value::Array(vec![u64::MAX.into(), "t".into()])]);
    assert_eq!(
        check_event(&only_event(&bytes), NOW_US, 0),
        Err(RejectCode::BadTime)
    );
}

#[test]
fn a_metadata_key_that_is_no_string_is_content() {
    let metadata = Value::Map(vec![(1.into(), 1.into())]);
    let bytes = events(
        1,
        vec![Value::Array(vec![
            Value::Nil,
            "t".into(),
            Value::Nil,
            Value::Nil,
            metadata,
        ])],
    );
    assert_eq!(
        check_event(&only_event(&bytes), NOW_US, 0),
        Err(RejectCode::BadMetadata)
    );
}

#[test]
fn encodings_that_are_not_the_shortest_are_read() {
    let mut bytes =
        b"\xdd\x00\x00\x00\x02\xcf\x00\x00\x00\x00\x00\x00\x00\x01\xdc\x00\x01\xdd\x00\x00\x00\x05"
            .to_vec();
    bytes.extend(b"\xd3\x00\x00\x00\x00\x00\x00\x00\x05\xdb\x00\x00\x00\x01t\xd2\xff\xff\xff\xff\xda\x00\x01C");
    bytes.extend(b"\xdf\x00\x00\x00\x01\xd9\x01k\xd1\x00\x07");
    let event = only_event(&bytes);
    assert_eq!(
        (event.time_us, event.event_type, event.value, event.unit),
        (Some(5), "t", Some(-1.0), Some("C"))
    );
}

#[test]
fn a_flaw_anywhere_in_a_frame_comes_before_its_last_event() {
    let good = events(1, vec![event("a"), event("b")]);
    for (flawed, num_before) in [
        ([&good[..], b"\xc0"].concat(), 1),
        (events(1, vec![event("a"), Value::Array(vec![])]), 1),
        ([b"\x93", &good[1..], b"\xc1"].concat(), 1),
        (good[..good.len() - 1].to_vec(), 1),
    ] {
        let Ok(Incoming::Events(mut frame)) = decode(kind::EVENTS, &flawed) else {
            panic!("envelope")
        };
        assert_eq!(
            frame.events.by_ref().take_while(Result::is_ok).count(),
            num_before
        );
        assert!(
            frame.events.next().is_none(),
            "an iterator that failed has ended"
        );
        assert_malformed(kind::EVENTS, &flawed);
    }
}

#[test]
fn the_journal_gives_back_the_events_of_a_frame() {
    let extended = Value::Array(vec![
        5.into(),
        "b".into(),
        1.into(),
        Value::Nil,
        Value::Nil,
        Value::Nil,
        9.into(),
    ]);
    let bytes = body(vec![
        1.into(),
        Value::Array(vec![event("a"), extended]),
        "extra".into(),
    ]);
    let Ok(Incoming::Events(frame)) = decode(kind::EVENTS, &bytes) else {
        panic!("envelope")
    };
    let mut iter = frame.events;
    let from_frame: Vec<_> = iter.by_ref().collect::<Result<_, _>>().unwrap();
    let kept = iter.consumed();
    let from_journal: Vec<_> = EventIter::new(kept, frame.num_events)
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(from_journal, from_frame);
    assert_eq!(
        kept,
        from_frame
            .iter()
            .map(|event| event.encoded)
            .collect::<Vec<_>>()
            .concat()
    );
    assert_eq!(
        EventIter::new(kept, 1).collect::<Result<Vec<_>, _>>(),
        Err(FrameError::BytesLeftOver {
            num_bytes: from_frame[1].encoded.len()
        })
    );
    assert!(
        EventIter::new(kept, 3)
            .collect::<Result<Vec<_>, _>>()
            .is_err()
    );
}

#[test]
fn a_result_is_read_with_and_without_what_may_be_left_out() {
    let data = Value::Map(vec![("k".into(), 1.into())]);
    let bytes = body(vec!["r1".into(), 4.into(), "jammed".into(), data.clone()]);
    let Ok(Incoming::Result(result)) = decode(kind::RESULT, &bytes) else {
        panic!("refused")
    };
    let encoded_data = encoded(&data);
    let expected = CommandResult {
        request_id: "r1",
        status: 4,
        message: Some("jammed"),
        data: Some(&encoded_data),
    };
    assert_eq!(result, expected);
    let bytes = body(vec!["r1".into(), 0.into()]);
    let Ok(Incoming::Result(result)) = decode(kind::RESULT, &bytes) else {
        panic!("refused")
    };
    assert_eq!(
        result,
        CommandResult {
            request_id: "r1",
            status: 0,
            message: None,
            data: None
        }
    );
}

#[test]
fn errors_say_which_element_and_stay_short() {
    let error = decode(kind::PING, b"\x91\xa1x").unwrap_err();
    assert_eq!(
        error,
        FrameError::BadElement {
            element: "nonce",
            source: MsgpackError::WrongType
        }
    );
    assert_eq!(error.to_string(), "nonce: of the wrong type");
    let error = json::line_to_frame(&[b'x'; 60_000], &mut Vec::new()).unwrap_err();
    assert!(error.to_string().len() < 100);
}

#[test]
fn error_codes_have_the_names_of_the_protocol() {
    let names = ErrorCode::ALL.map(ErrorCode::as_str);
    let expected = [
        "malformed",
        "too_large",
        "unsupported_version",
        "auth_failed",
        "stale_epoch",
        "superseded",
        "hello_timeout",
        "idle_timeout",
        "shutting_down",
        "internal",
    ];
    assert_eq!(names, expected);
}

#[track_caller]
fn assert_heard(spoken: &Outgoing<'_>, heard: Received<'_>) {
    let mut bytes = Vec::new();
    spoken.encode(&mut bytes);
    let frame = split(&bytes, 4096).unwrap().unwrap();
    assert_eq!(frame.frame_bytes, bytes.len());
    assert_eq!(device::decode(frame.kind, frame.body), Ok(heard));
}

#[test]
fn a_device_hears_the_welcome_of_the_core() {
    let spoken = Outgoing::Welcome {
        version: 1,
        last_seq: 41,
        max_inflight_frames: 64,
        frame_bytes_max: 1 << 20,
        server_time_us: NOW_US,
        keepalive_s: 60,
    };
    let heard = device::Welcome {
        version: 1,
        last_seq: 41,
        max_inflight_frames: 64,
        frame_bytes_max: 1 << 20,
        server_time_us: NOW_US,
        keepalive_s: 60,
    };
    assert_heard(&spoken, Received::Welcome(heard));
}

#[test]
fn a_device_hears_what_became_of_its_events() {
    let rejected: Vec<_> = RejectCode::ALL
        .into_iter()
        .zip(2..)
        .map(|(code, seq)| (seq, code))
        .collect();
    let named = rejected
        .iter()
        .map(|(seq, code)| (*seq, code.as_str()))
        .collect();
    assert_heard(
        &Outgoing::Ack {
            seq: 9,
            rejected: &[],
        },
        Received::Ack {
            seq: 9,
            rejected: vec![],
        },
    );
    assert_heard(
        &Outgoing::Ack {
            seq: 9,
            rejected: &rejected,
        },
        Received::Ack {
            seq: 9,
            rejected: named,
        },
    );
    assert_heard(
        &Outgoing::Busy {
            seq: 9,
            retry_after_ms: 250,
            reason: "journal full",
        },
        Received::Busy {
            seq: 9,
            retry_after_ms: 250,
            reason: "journal full",
        },
    );
}

#[test]
fn a_device_hears_commands_pongs_and_errors() {
    let params = encoded(&Value::Map(vec![("level".into(), 3.into())]));
    assert_heard(
        &Outgoing::Command {
            request_id: "r1",
            command_type: "dim",
            params: &params,
            deadline_us: -5,
        },
        Received::Command {
            request_id: "r1",
            command_type: "dim",
            params: &params,
            deadline_us: -5,
        },
    );
    assert_heard(
        &Outgoing::Pong { nonce: u64::MAX },
        Received::Pong { nonce: u64::MAX },
    );
    assert_heard(
        &Outgoing::Error {
            code: ErrorCode::StaleEpoch,
            message: "older than 7",
        },
        Received::Error {
            code: "stale_epoch",
            message: "older than 7",
        },
    );
}

/// Run in release mode; what it prints is the cost of the hot path, the fastest of many rounds.
#[test]
#[ignore = "a measurement, not a check"]
fn time_to_decode_and_check_100_events() {
    let plain = Event {
        time_us: Some(NOW_US),
        event_type: "temperature",
        value: Some(21.5),
        unit: Some("C"),
        metadata: None,
        device_id: None,
    };
    let metadata = encoded(&Value::Map(vec![
        ("quality".into(), "good".into()),
        ("channel".into(), 3.into()),
    ]));
    let with_metadata = Event {
        metadata: Some(&metadata),
        ..plain
    };
    for (name, event) in [("plain", plain), ("with metadata", with_metadata)] {
        let mut frame = Vec::new();
        device::encode_events(&mut frame, 1, &[event; 100]);
        let fastest = (0..5_000).map(|_| {
            let start = std::time::Instant::now();
            let raw = split(std::hint::black_box(&frame), 1 << 20)
                .unwrap()
                .unwrap();
            let Ok(Incoming::Events(events)) = decode(raw.kind, raw.body) else {
                panic!("envelope")
            };
            for event in events.events {
                check_event(&event.unwrap().event, NOW_US, 0).unwrap();
            }
            start.elapsed()
        });
        println!(
            "{name}: {:?} a frame of {} bytes",
            fastest.min().unwrap(),
            frame.len()
        );
    }
}
