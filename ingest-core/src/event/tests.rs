use proptest::prelude::*;
use rmpv::Value;
use serde_json::json;

use super::*;

const NOW_US: i64 = 1_767_225_600_000_000;
const OLDEST_US: i64 = NOW_US - 730 * 24 * 3600 * 1_000_000;

fn event() -> Event<'static> {
    Event {
        time_us: None,
        event_type: "temperature",
        value: None,
        unit: None,
        metadata: None,
        device_id: None,
    }
}

fn check(event: &Event<'_>) -> Result<(), RejectCode> {
    check_event(event, NOW_US, OLDEST_US)
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

fn map(key: impl Into<Value>, value: impl Into<Value>) -> Value {
    Value::Map(vec![(key.into(), value.into())])
}

fn check_metadata(metadata: &Value) -> Result<(), RejectCode> {
    check(&Event {
        metadata: Some(&encoded(metadata)),
        ..event()
    })
}

fn json_text(metadata: &Value) -> String {
    let mut out = Vec::new();
    metadata_to_json(&encoded(metadata), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Arrays within each other, `depth` of them.
fn nested(depth: u8) -> Value {
    (0..depth).fold(Value::Nil, |inner, _| Value::Array(vec![inner]))
}

#[test]
fn a_type_has_1_to_50_characters() {
    let fifty = "é".repeat(50);
    assert_eq!(
        check(&Event {
            event_type: "t",
            ..event()
        }),
        Ok(())
    );
    assert_eq!(
        check(&Event {
            event_type: &fifty,
            ..event()
        }),
        Ok(())
    );
    for bad in [
        String::new(),
        "é".repeat(51),
        "t".repeat(51),
        "𝄞".repeat(51),
    ] {
        assert_eq!(
            check(&Event {
                event_type: &bad,
                ..event()
            }),
            Err(RejectCode::BadType),
            "{bad:?}"
        );
    }
}

#[test]
fn a_type_has_no_control_characters() {
    for bad in ["a\0b", "a\n", "\u{7f}", "\u{85}", "\u{9f}b"] {
        assert_eq!(
            check(&Event {
                event_type: bad,
                ..event()
            }),
            Err(RejectCode::BadType),
            "{bad:?}"
        );
    }
    assert_eq!(
        check(&Event {
            event_type: "Zähler 1 / ΔT \u{a0}",
            ..event()
        }),
        Ok(())
    );
}

#[test]
fn a_unit_has_at_most_20_characters_and_no_nul() {
    let twenty = "Ω".repeat(20);
    for good in ["", "°C", "\t", &twenty] {
        assert_eq!(
            check(&Event {
                unit: Some(good),
                ..event()
            }),
            Ok(()),
            "{good:?}"
        );
    }
    for bad in ["Ω".repeat(21), "u".repeat(21), "a\0".to_owned()] {
        assert_eq!(
            check(&Event {
                unit: Some(&bad),
                ..event()
            }),
            Err(RejectCode::BadUnit),
            "{bad:?}"
        );
    }
}

#[test]
fn a_value_is_finite() {
    for good in [0.0, -0.0, f64::MAX, f64::MIN_POSITIVE] {
        assert_eq!(
            check(&Event {
                value: Some(good),
                ..event()
            }),
            Ok(())
        );
    }
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(
            check(&Event {
                value: Some(bad),
                ..event()
            }),
            Err(RejectCode::BadValue)
        );
    }
}

#[test]
fn a_time_is_within_the_retention_and_at_most_24_hours_ahead() {
    let at = |time_us| {
        check(&Event {
            time_us: Some(time_us),
            ..event()
        })
    };
    for good in [OLDEST_US, NOW_US, NOW_US + TIME_AHEAD_US_MAX] {
        assert_eq!(at(good), Ok(()), "{good}");
    }
    for bad in [
        i64::MIN,
        0,
        OLDEST_US - 1,
        NOW_US + TIME_AHEAD_US_MAX + 1,
        i64::MAX,
    ] {
        assert_eq!(at(bad), Err(RejectCode::BadTime), "{bad}");
    }
}

#[test]
fn metadata_has_at_most_8_kib_encoded() {
    // A map of one pair, a key of one character and a string with 3 bytes of head: 6 bytes beside the text.
    let of = |bytes: usize| map("k", "x".repeat(bytes - 6));
    assert_eq!(encoded(&of(METADATA_BYTES_MAX)).len(), METADATA_BYTES_MAX);
    assert_eq!(check_metadata(&of(METADATA_BYTES_MAX)), Ok(()));
    assert_eq!(
        check_metadata(&of(METADATA_BYTES_MAX + 1)),
        Err(RejectCode::BadMetadata)
    );
}

#[test]
fn metadata_that_json_cannot_hold_is_refused() {
    let bad = [
        map(1, 1),
        map(Value::Nil, 1),
        map(Value::Binary(vec![b'k']), 1),
        map("k", map(true, 1)),
        map("k", "a\0"),
        map("k\0", 1),
        map("k", Value::Array(vec![Value::from("\0")])),
        map("k", f64::NAN),
        map("k", f64::INFINITY),
        map("k", f32::NEG_INFINITY),
        map("k", Value::Binary(vec![1])),
        map("k", Value::Ext(-1, vec![0; 4])),
        Value::Array(vec![]),
        Value::Nil,
    ];
    for metadata in bad {
        assert_eq!(
            check_metadata(&metadata),
            Err(RejectCode::BadMetadata),
            "{metadata}"
        );
        let mut out = b"before".to_vec();
        assert_eq!(
            metadata_to_json(&encoded(&metadata), &mut out),
            Err(RejectCode::BadMetadata),
            "{metadata}"
        );
        assert_eq!(out, b"before");
    }
}

#[test]
fn metadata_is_exactly_one_map() {
    for bad in [
        &b""[..],
        b"\x81",
        b"\x81\xa1k",
        b"\x80\x80",
        b"\xc1",
        b"\x81\xa1\xff\x01",
        b"\xdf\xff\xff\xff\xff",
    ] {
        assert_eq!(
            check(&Event {
                metadata: Some(bad),
                ..event()
            }),
            Err(RejectCode::BadMetadata),
            "{bad:02x?}"
        );
        assert_eq!(
            metadata_to_json(bad, &mut Vec::new()),
            Err(RejectCode::BadMetadata),
            "{bad:02x?}"
        );
    }
}

#[test]
fn metadata_is_nested_no_deeper_than_a_frame_allows() {
    assert_eq!(
        check_metadata(&map("k", nested(metadata::METADATA_NESTING_MAX - 1))),
        Ok(())
    );
    assert_eq!(
        check_metadata(&map("k", nested(metadata::METADATA_NESTING_MAX))),
        Err(RejectCode::BadMetadata)
    );
    let deep = encoded(&map("k", nested(200)));
    assert_eq!(
        metadata_to_json(&deep, &mut Vec::new()),
        Err(RejectCode::BadMetadata)
    );
}

#[test]
fn the_first_broken_rule_is_the_answer() {
    let mut event = Event {
        time_us: Some(0),
        event_type: "",
        value: Some(f64::NAN),
        unit: Some("\0"),
        metadata: Some(b""),
        device_id: None,
    };
    assert_eq!(check(&event), Err(RejectCode::BadType));
    event.event_type = "t";
    assert_eq!(check(&event), Err(RejectCode::BadValue));
    event.value = None;
    assert_eq!(check(&event), Err(RejectCode::BadUnit));
    event.unit = None;
    assert_eq!(check(&event), Err(RejectCode::BadMetadata));
    event.metadata = None;
    assert_eq!(check(&event), Err(RejectCode::BadTime));
}

#[test]
fn json_strings_are_escaped() {
    let text = "quote \" back \\ line \n tab \t bell \u{7} é 𝄞 </script>";
    let parsed: serde_json::Value = serde_json::from_str(&json_text(&map(text, text))).unwrap();
    assert_eq!(parsed, json!({ text: text }));
}

#[test]
fn json_integers_are_exact() {
    for value in [u64::MAX, 1 << 53, (1 << 53) + 1, 0] {
        assert_eq!(json_text(&map("k", value)), format!("{{\"k\":{value}}}"));
    }
    for value in [i64::MIN, -(1 << 53) - 1, -1] {
        assert_eq!(json_text(&map("k", value)), format!("{{\"k\":{value}}}"));
    }
}

#[test]
fn json_floats_are_the_shortest_that_read_back_the_same() {
    assert_eq!(json_text(&map("k", 0.1_f64)), r#"{"k":0.1}"#);
    assert_eq!(json_text(&map("k", 0.1_f32)), r#"{"k":0.1}"#);
    assert_eq!(json_text(&map("k", 1.0_f64)), r#"{"k":1.0}"#);
    let text = json_text(&map("k", -1.8038824734742478e248_f64));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&text).unwrap(),
        json!({"k": -1.8038824734742478e248_f64})
    );
}

#[test]
fn json_keeps_the_order_and_the_structure() {
    let metadata = Value::Map(vec![
        (
            "z".into(),
            Value::Array(vec![
                Value::Nil,
                true.into(),
                false.into(),
                Value::Map(vec![]),
            ]),
        ),
        ("a".into(), map("b", Value::Array(vec![]))),
    ]);
    assert_eq!(
        json_text(&metadata),
        r#"{"z":[null,true,false,{}],"a":{"b":[]}}"#
    );
}

#[test]
fn reject_codes_have_stable_numbers_and_names() {
    let expected = [
        (1, "bad_type"),
        (2, "bad_value"),
        (3, "bad_unit"),
        (4, "bad_metadata"),
        (5, "bad_time"),
        (6, "unknown_device"),
        (7, "forbidden_device"),
        (8, "bad_payload"),
    ];
    for (number, name) in expected {
        let code = RejectCode::from_u8(number).unwrap();
        assert_eq!(
            (code.as_u8(), code.as_str(), code.to_string()),
            (number, name, name.to_owned())
        );
        assert_eq!(serde_json::to_value(code).unwrap(), json!(name));
    }
    assert_eq!([0, 9, 255].map(RejectCode::from_u8), [None; 3]);
    assert_eq!(RejectCode::ALL.len(), expected.len());
}

#[test]
fn a_declared_length_beyond_the_bytes_is_refused_before_anything_is_read_for_it() {
    use msgpack::{MsgpackError, Reader, Token};
    for head in [
        &b"\xdd\xff\xff\xff\xff\x01"[..],
        b"\xdf\x80\x00\x00\x00\x01",
        b"\x92\x01",
        b"\x81\x01",
        b"\xdc\x00\x02\x01",
    ] {
        assert_eq!(
            Reader::new(head).token(),
            Err(MsgpackError::Truncated),
            "{head:02x?}"
        );
    }
    assert_eq!(Reader::new(b"\x92\x01\x01").token(), Ok(Token::Array(2)));
    assert_eq!(Reader::new(b"\x81\x01\x01").token(), Ok(Token::Map(1)));
}

/// What JSON can hold, with the MessagePack that carries it.
fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<u64>().prop_map(|value| json!(value)),
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(|value| json!(value)),
        "[^\\x00]{0,12}".prop_map(|value| json!(value)),
    ];
    leaf.prop_recursive(6, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|values| json!(values)),
            prop::collection::btree_map("[^\\x00]{0,6}", inner, 0..6)
                .prop_map(|pairs| json!(pairs)),
        ]
    })
}

proptest! {
    #[test]
    fn what_json_can_hold_comes_out_of_messagepack_as_it_went_in(
        metadata in prop::collection::btree_map("[^\\x00]{0,6}", json_value(), 0..6),
    ) {
        let metadata = json!(metadata);
        let bytes = rmp_serde::to_vec(&metadata).unwrap();
        prop_assume!(bytes.len() <= METADATA_BYTES_MAX);
        prop_assert_eq!(check(&Event { metadata: Some(&bytes), ..event() }), Ok(()));
        let mut out = Vec::new();
        prop_assert_eq!(metadata_to_json(&bytes, &mut out), Ok(()));
        prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).unwrap(), metadata);
    }

    #[test]
    fn what_the_check_takes_becomes_json_and_arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let is_taken = check(&Event { metadata: Some(&bytes), ..event() }).is_ok();
        let mut out = Vec::new();
        if metadata_to_json(&bytes, &mut out).is_ok() {
            serde_json::from_slice::<serde_json::Value>(&out).unwrap();
        } else {
            prop_assert!(!is_taken);
        }
    }
}
