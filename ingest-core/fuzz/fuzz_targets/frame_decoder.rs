//! Bytes as a device may send them: cut, decoded, checked, written as JSON and read back from the journal's form.
//! rmpv is the oracle of what one well-formed body is.

#![no_main]

use hse_ingest_core::event::{RejectCode, check_event, metadata_to_json};
use hse_ingest_core::frame::{self, EncodedEvent, EventIter, FrameError, Incoming, device, kind};
use libfuzzer_sys::fuzz_target;
use rmpv::Value;

const FRAME_BYTES_MAX: u32 = 1 << 20;
const NESTING_MAX: u8 = 16;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some(raw)) = frame::split(rest, FRAME_BYTES_MAX) {
        assert_eq!(raw.frame_bytes, 5 + raw.body.len());
        body(raw.kind, raw.body);
        rest = &rest[raw.frame_bytes..];
    }
    // Without the header the fuzzer finds its way into bodies sooner.
    if let Some((kind, bytes)) = bytes.split_first() {
        body(*kind, bytes);
    }
});

fn body(kind: u8, body: &[u8]) {
    let is_well_formed = is_one_array(body);
    if let Some(is_well_formed) = is_well_formed {
        // BYE asks for nothing but an array, so it is taken exactly where the oracle finds one.
        assert_eq!(frame::decode(kind::BYE, body).is_ok(), is_well_formed);
    }
    let is_taken = match frame::decode(kind, body) {
        Ok(Incoming::Events(frame)) => events(frame.events, frame.num_events),
        Ok(Incoming::Result(result)) => {
            let _ = result
                .data
                .map(|data| metadata_to_json(data, &mut Vec::new()));
            true
        }
        Ok(Incoming::Hello(_) | Incoming::Ping { .. } | Incoming::Bye) => true,
        Err(_) => false,
    };
    let is_heard = device::decode(kind, body).is_ok();
    assert!(!(is_taken && is_heard), "a kind belongs to one side");
    assert!(
        !((is_taken || is_heard) && is_well_formed == Some(false)),
        "taken, though it is not well-formed"
    );
}

/// Whether all events are taken; if so, the journal must give the same ones back.
fn events(mut iter: EventIter<'_>, num_events: u32) -> bool {
    let decoded: Result<Vec<EncodedEvent<'_>>, FrameError> = iter.by_ref().collect();
    let Ok(decoded) = decoded else {
        assert!(iter.next().is_none());
        return false;
    };
    assert_eq!(decoded.len(), num_events as usize);
    let mut again = EventIter::new(iter.consumed(), num_events);
    for EncodedEvent { event, encoded } in &decoded {
        let from_journal = again.next().expect("as many").expect("well-formed");
        assert_eq!(from_journal.encoded, *encoded);
        let checked = check_event(event, 0, i64::MIN);
        if let Some(metadata) = event.metadata {
            let mut text = Vec::new();
            let written = metadata_to_json(metadata, &mut text);
            assert!(
                checked.is_err() || written.is_ok(),
                "what was checked can be written"
            );
            match written {
                Ok(()) => drop(serde_json::from_slice::<serde_json::Value>(&text).expect("JSON")),
                Err(code) => assert_eq!(code, RejectCode::BadMetadata),
            }
        }
        let mut encoded = Vec::new();
        frame::encode_event(event, &mut encoded);
        let reencoded = EventIter::new(&encoded, 1)
            .next()
            .expect("one")
            .expect("well-formed");
        let is_nan = event.value.is_some_and(f64::is_nan);
        assert!(is_nan || reencoded.event == *event);
    }
    true
}

/// Whether the bytes are one array as HDP/1 has it; `None` where the oracle's rules differ.
fn is_one_array(mut bytes: &[u8]) -> Option<bool> {
    // rmpv reads the reserved byte as nil, and gives up on nesting by a budget of its own.
    if bytes.contains(&0xc1) {
        return None;
    }
    let value = rmpv::decode::read_value_with_max_depth(&mut bytes, 64);
    match value {
        Ok(value) => Some(bytes.is_empty() && value.is_array() && is_taken(&value, NESTING_MAX)),
        Err(_) => Some(false),
    }
}

fn is_taken(value: &Value, nesting_left: u8) -> bool {
    match value {
        Value::String(text) => text.is_str(),
        Value::Array(values) => {
            nesting_left > 0 && values.iter().all(|value| is_taken(value, nesting_left - 1))
        }
        Value::Map(pairs) => {
            nesting_left > 0
                && pairs.iter().all(|(key, value)| {
                    is_taken(key, nesting_left - 1) && is_taken(value, nesting_left - 1)
                })
        }
        _ => true,
    }
}
