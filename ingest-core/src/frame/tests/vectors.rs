//! The golden vectors of `tests/vectors/`, which the Python tests read too.

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::*;
use crate::event::metadata_to_json;
use crate::frame::json::line_to_frame;

const FRAME_BYTES_MAX: u32 = 1 << 20;

#[derive(Deserialize)]
struct FrameVector {
    name: String,
    kind: String,
    hex: String,
    is_as_encoded: bool,
    value: Json,
}

#[derive(Deserialize)]
struct MalformedVector {
    name: String,
    sender: String,
    hex: String,
    error: String,
}

#[derive(Deserialize)]
struct LineVector {
    name: String,
    line: String,
    hex: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct RejectedVector {
    name: String,
    hex: String,
    now_us: i64,
    oldest_us: i64,
    code: Option<String>,
}

fn read<T: for<'de> Deserialize<'de>>(file: &str) -> Vec<T> {
    let path = format!("{}/../tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let vectors: Vec<T> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(vectors.len() > 10, "{file}");
    vectors
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn whole_frame(bytes: &[u8]) -> RawFrame<'_> {
    let frame = split(bytes, FRAME_BYTES_MAX).unwrap().unwrap();
    assert_eq!(frame.frame_bytes, bytes.len());
    frame
}

fn map_json(map: &[u8]) -> Json {
    let mut text = Vec::new();
    metadata_to_json(map, &mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// What was left out is not in the vectors.
fn without_nulls(object: Json) -> Json {
    let Json::Object(pairs) = object else {
        panic!("not an object")
    };
    pairs
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .collect()
}

fn event_json(event: &Event<'_>) -> Json {
    without_nulls(json!({
        "time_us": event.time_us,
        "type": event.event_type,
        "value": event.value,
        "unit": event.unit,
        "metadata": event.metadata.map(map_json),
        "device_id": event.device_id,
    }))
}

/// The value of a frame from a device, and the frame encoded again.
fn from_device(frame: RawFrame<'_>) -> (&'static str, Json, Vec<u8>) {
    let mut again = Vec::new();
    match decode(frame.kind, frame.body).unwrap() {
        Incoming::Hello(hello) => {
            device::encode_hello(&mut again, &hello);
            let Hello {
                device_id,
                token,
                epoch,
                agent,
            } = hello;
            let value = json!({"version": 1, "device_id": device_id, "token": token, "epoch": epoch, "agent": agent});
            ("hello", without_nulls(value), again)
        }
        Incoming::Events(Events {
            first_seq,
            num_events,
            events,
        }) => {
            let events: Vec<_> = events.map(|event| event.unwrap().event).collect();
            assert_eq!(events.len(), num_events as usize);
            device::encode_events(&mut again, first_seq, &events);
            let events: Vec<_> = events.iter().map(event_json).collect();
            (
                "events",
                json!({"first_seq": first_seq, "events": events}),
                again,
            )
        }
        Incoming::Result(result) => {
            device::encode_result(&mut again, &result);
            let CommandResult {
                request_id,
                status,
                message,
                data,
            } = result;
            let data = data.map(map_json);
            let value = json!({"request_id": request_id, "status": status, "message": message, "data": data});
            ("result", without_nulls(value), again)
        }
        Incoming::Ping { nonce } => {
            device::encode_ping(&mut again, nonce);
            ("ping", json!({"nonce": nonce}), again)
        }
        Incoming::Bye => {
            device::encode_bye(&mut again);
            ("bye", json!({}), again)
        }
    }
}

/// Says again what a device heard, so that the core's encoders meet the same bytes.
fn from_core(frame: RawFrame<'_>) -> (Json, Vec<u8>) {
    let heard = device::decode(frame.kind, frame.body).unwrap();
    let codes: Vec<_> = match &heard {
        Received::Ack { rejected, .. } => rejected
            .iter()
            .map(|(seq, name)| {
                (
                    *seq,
                    RejectCode::ALL
                        .into_iter()
                        .find(|code| code.as_str() == *name)
                        .unwrap(),
                )
            })
            .collect(),
        _ => Vec::new(),
    };
    let again = match heard {
        Received::Welcome(welcome) => Outgoing::Welcome {
            version: welcome.version,
            last_seq: welcome.last_seq,
            max_inflight_frames: welcome.max_inflight_frames.try_into().unwrap(),
            frame_bytes_max: welcome.frame_bytes_max.try_into().unwrap(),
            server_time_us: welcome.server_time_us,
            keepalive_s: welcome.keepalive_s.try_into().unwrap(),
        },
        Received::Ack { seq, .. } => Outgoing::Ack {
            seq,
            rejected: &codes,
        },
        Received::Busy {
            seq,
            retry_after_ms,
            reason,
        } => Outgoing::Busy {
            seq,
            retry_after_ms: retry_after_ms.try_into().unwrap(),
            reason,
        },
        Received::Command {
            request_id,
            command_type,
            params,
            deadline_us,
        } => Outgoing::Command {
            request_id,
            command_type,
            params,
            deadline_us,
        },
        Received::Pong { nonce } => Outgoing::Pong { nonce },
        Received::Error { code, message } => {
            let code = ErrorCode::ALL
                .into_iter()
                .find(|known| known.as_str() == code)
                .unwrap();
            Outgoing::Error { code, message }
        }
    };
    let (mut bytes, mut line) = (Vec::new(), Vec::new());
    again.encode(&mut bytes);
    again.encode_json_line(&mut line).unwrap();
    (serde_json::from_slice(&line).unwrap(), bytes)
}

#[test]
fn frames_have_the_values_of_the_vectors_and_are_encoded_to_their_bytes() {
    for FrameVector {
        name,
        kind,
        hex,
        is_as_encoded,
        value,
    } in read("frames.json")
    {
        let bytes = bytes_of(&hex);
        let frame = whole_frame(&bytes);
        let (object, again) = if frame.kind < kind::WELCOME {
            let (named, value, again) = from_device(frame);
            (json!({ named: value }), again)
        } else {
            from_core(frame)
        };
        assert_eq!(object, json!({ kind: value }), "{name}");
        assert_eq!(again == bytes, is_as_encoded, "{name}: {again:02x?}");
    }
}

#[test]
fn malformed_vectors_are_refused_with_their_code() {
    for MalformedVector {
        name,
        sender,
        hex,
        error,
    } in read("malformed.json")
    {
        let bytes = bytes_of(&hex);
        let outcome = split(&bytes, FRAME_BYTES_MAX).and_then(|frame| {
            let RawFrame { kind, body, .. } = frame.expect("a whole frame");
            match sender.as_str() {
                "device" => decode_whole(kind, body).map(|_| ()),
                _ => device::decode(kind, body).map(|_| ()),
            }
        });
        assert_eq!(
            outcome.map_err(|refused| refused.code().as_str()),
            Err(error.as_str()),
            "{name}"
        );
    }
}

#[test]
fn lines_are_the_frames_of_the_vectors() {
    for LineVector {
        name,
        line,
        hex,
        error,
    } in read("json_lines.json")
    {
        let mut body = Vec::new();
        let outcome = line_to_frame(line.as_bytes(), &mut body)
            .and_then(|kind| decode_whole(kind, &body).map(|_| kind))
            .map_err(|refused| refused.code().as_str());
        match hex {
            Some(hex) => {
                let bytes = bytes_of(&hex);
                let frame = whole_frame(&bytes);
                assert_eq!(outcome, Ok(frame.kind), "{name}");
                assert_eq!(body, frame.body, "{name}");
            }
            None => assert_eq!(outcome.err(), error.as_deref(), "{name}"),
        }
    }
}

#[test]
fn content_is_judged_as_in_the_vectors() {
    for RejectedVector {
        name,
        hex,
        now_us,
        oldest_us,
        code,
    } in read("rejected.json")
    {
        let bytes = bytes_of(&hex);
        let event = only_event(whole_frame(&bytes).body);
        let refused = check_event(&event, now_us, oldest_us).err();
        assert_eq!(refused.map(RejectCode::as_str), code.as_deref(), "{name}");
    }
}
