use super::*;
use crate::frame::json::line_to_frame;

/// An event that owns what an [`Event`] borrows.
#[derive(Debug, Clone)]
struct OwnedEvent {
    time_us: Option<i64>,
    event_type: String,
    value: Option<f64>,
    unit: Option<String>,
    metadata: Option<Vec<u8>>,
    device_id: Option<Uuid>,
}

impl OwnedEvent {
    fn borrow(&self) -> Event<'_> {
        Event {
            time_us: self.time_us,
            event_type: &self.event_type,
            value: self.value,
            unit: self.unit.as_deref(),
            metadata: self.metadata.as_deref(),
            device_id: self.device_id,
        }
    }
}

/// Any MessagePack value, nested up to seven deep.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Binary),
        (any::<i8>(), prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(tag, data)| Value::Ext(tag, data)),
    ];
    leaf.prop_recursive(7, 64, 20, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
            prop::collection::vec((inner.clone(), inner), 0..20).prop_map(Value::Map),
        ]
    })
}

prop_compose! {
    fn owned_event()(
        time_us in any::<Option<i64>>(),
        event_type in any::<String>(),
        value in prop::option::of(any::<f64>().prop_filter("not NaN", |value| !value.is_nan())),
        unit in any::<Option<String>>(),
        pairs in prop::option::of(prop::collection::vec((value(), value()), 0..3)),
        device_id in any::<Option<u128>>(),
    ) -> OwnedEvent {
        OwnedEvent {
            time_us,
            event_type,
            value,
            unit,
            metadata: pairs.map(|pairs| encoded(&Value::Map(pairs))),
            device_id: device_id.map(Uuid::from_u128),
        }
    }
}

/// Whether rmpv reads the bytes as one value, of which the decoder would take all strings and the nesting.
pub(super) fn is_one_value(mut bytes: &[u8], nesting_max: u8) -> bool {
    fn is_taken(value: &Value, nesting_left: u8) -> bool {
        let open = |mut values: Box<dyn Iterator<Item = &Value> + '_>| {
            nesting_left > 0 && values.all(|value| is_taken(value, nesting_left - 1))
        };
        match value {
            Value::String(text) => text.is_str(),
            Value::Array(values) => open(Box::new(values.iter())),
            Value::Map(pairs) => open(Box::new(pairs.iter().flat_map(|(key, value)| [key, value]))),
            _ => true,
        }
    }
    rmpv::decode::read_value(&mut bytes)
        .is_ok_and(|value| bytes.is_empty() && is_taken(&value, nesting_max))
}

/// The reserved byte is refused by the decoder and a nil for rmpv; bytes without it are judged alike.
fn without_reserved(bytes: Vec<u8>) -> Vec<u8> {
    bytes
        .into_iter()
        .map(|byte| if byte == 0xc1 { 0xc0 } else { byte })
        .collect()
}

proptest! {
    #[test]
    fn events_come_out_as_they_went_in(
        first_seq in 1..=u64::MAX >> 2,
        events in prop::collection::vec(owned_event(), 1..20),
    ) {
        let events: Vec<_> = events.iter().map(OwnedEvent::borrow).collect();
        let mut frame = Vec::new();
        device::encode_events(&mut frame, first_seq, &events);
        let raw = split(&frame, u32::MAX).unwrap().unwrap();
        prop_assert_eq!(raw.frame_bytes, frame.len());
        let Ok(Incoming::Events(decoded)) = decode(raw.kind, raw.body) else { panic!("envelope") };
        prop_assert_eq!(decoded.first_seq, first_seq);
        let decoded: Vec<_> = decoded.events.map(|event| event.unwrap().event).collect();
        prop_assert_eq!(decoded, events);
    }

    #[test]
    fn hellos_come_out_as_they_went_in(
        device_id: u128, token: String, epoch in 0..=u64::MAX >> 1, agent: Option<String>,
    ) {
        let hello = Hello { device_id: Uuid::from_u128(device_id), token: &token, epoch, agent: agent.as_deref() };
        let mut frame = Vec::new();
        device::encode_hello(&mut frame, &hello);
        let raw = split(&frame, u32::MAX).unwrap().unwrap();
        let Ok(Incoming::Hello(decoded)) = decode(raw.kind, raw.body) else { panic!("refused") };
        prop_assert_eq!(decoded, hello);
    }

    #[test]
    fn results_come_out_as_they_went_in(
        request_id: String, status: u64, message: Option<String>, pair in prop::option::of((value(), value())),
    ) {
        let data = pair.map(|pair| encoded(&Value::Map(vec![pair])));
        let result =
            CommandResult { request_id: &request_id, status, message: message.as_deref(), data: data.as_deref() };
        let mut frame = Vec::new();
        device::encode_result(&mut frame, &result);
        let raw = split(&frame, u32::MAX).unwrap().unwrap();
        let Ok(Incoming::Result(decoded)) = decode(raw.kind, raw.body) else { panic!("refused") };
        prop_assert_eq!(decoded, result);
    }

    #[test]
    fn a_valid_frame_cut_anywhere_is_waited_for_and_its_body_cut_anywhere_is_malformed(
        event in owned_event(),
    ) {
        let mut frame = Vec::new();
        device::encode_events(&mut frame, 1, &[event.borrow()]);
        for length in 0..frame.len() {
            prop_assert_eq!(split(&frame[..length], u32::MAX), Ok(None));
        }
        let body = &frame[HEADER_BYTES + 1..];
        for length in 0..body.len() {
            let error = decode_whole(kind::EVENTS, &body[..length]).unwrap_err();
            prop_assert_eq!(error.code(), ErrorCode::Malformed);
        }
    }

    #[test]
    fn a_body_is_taken_where_rmpv_reads_one_array(value in value()) {
        let bytes = encoded(&Value::Array(vec![value.clone()]));
        prop_assert!(decode(kind::BYE, &bytes).is_ok());
        let bytes = encoded(&value);
        prop_assert_eq!(decode(kind::BYE, &bytes).is_ok(), matches!(value, Value::Array(_)));
    }

    #[test]
    fn a_body_with_a_byte_changed_is_taken_where_rmpv_takes_it(
        value in value(), index: prop::sample::Index, byte: u8,
    ) {
        let mut bytes = encoded(&Value::Array(vec![value]));
        *index.get_mut(&mut bytes) = byte;
        let bytes = without_reserved(bytes);
        let is_array = matches!(bytes[0], 0x90..=0x9f | 0xdc | 0xdd);
        prop_assert_eq!(decode(kind::BYE, &bytes).is_ok(), is_array && is_one_value(&bytes, 16));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind: u8, num_events: u32) {
        let _ = split(&bytes, 4096);
        let _ = decode_whole(kind, &bytes);
        let _ = device::decode(kind, &bytes);
        let _ = line_to_frame(&bytes, &mut Vec::new());
        let mut iter = EventIter::new(&bytes, num_events);
        iter.by_ref().for_each(drop);
        prop_assert!(iter.consumed().len() <= bytes.len());
    }

    #[test]
    fn arbitrary_arrays_never_panic_and_what_is_taken_is_well_formed(
        elements in prop::collection::vec(value(), 0..8), kind in 1_u8..=5,
    ) {
        let bytes = body(elements);
        if decode_whole(kind, &bytes).is_ok() {
            prop_assert!(is_one_value(&bytes, 16));
        }
    }

    #[test]
    fn lines_of_arbitrary_json_become_well_formed_bodies(line in "\\{\"(ping|events|result|hello|bye)\": \\{(\"(nonce|first_seq|events|data|x)\": [\\[{\"a:1, }\\]]{1,9},?){0,3}\\}\\}") {
        let mut body = Vec::new();
        if line_to_frame(line.as_bytes(), &mut body).is_ok() {
            prop_assert!(is_one_value(&body, 16));
        }
    }
}
