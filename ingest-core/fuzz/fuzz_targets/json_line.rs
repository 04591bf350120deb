//! Lines as a device may send them: transcoded to a body that is well-formed, whatever `decode` then says of it.
//! serde_json is the oracle of what JSON is.

#![no_main]

use std::collections::BTreeMap;

use hse_ingest_core::event::check_event;
use hse_ingest_core::frame::json::{LINE_BYTES_MAX, line_to_frame, split_line};
use hse_ingest_core::frame::{self, ErrorCode, Incoming, kind};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some(raw)) = split_line(rest, LINE_BYTES_MAX) {
        line(raw.line);
        rest = &rest[raw.line_bytes..];
    }
    line(rest);
});

fn line(line: &[u8]) {
    let mut body = Vec::new();
    let kind = match line_to_frame(line, &mut body) {
        Ok(kind) => kind,
        Err(error) => return assert_eq!(error.code(), ErrorCode::Malformed),
    };
    // Numbers beyond f64 and half surrogate pairs are no matter where a value is skipped, so the oracle skips too.
    let object: BTreeMap<String, IgnoredAny> =
        serde_json::from_slice(line).unwrap_or_else(|error| panic!("not an object: {error}"));
    assert_eq!(object.len(), 1);
    assert!(frame::decode(kind::BYE, &body).is_ok(), "well-formed");
    let mut rest = body.as_slice();
    rmpv::decode::read_value(&mut rest).expect("MessagePack");
    assert!(rest.is_empty());
    if let Ok(Incoming::Events(events)) = frame::decode(kind, &body) {
        for event in events.events.map_while(Result::ok) {
            let _ = check_event(&event.event, 0, i64::MIN);
        }
    }
}
