//! The MQTT device API of ThingsBoard, as far as it is telemetry and server-side RPC: firmware that was written for it works by
//! changing the host. Format: <https://thingsboard.io/docs/reference/mqtt-api/>.
//!
//! ```text
//! v1/devices/me/telemetry         v2/t            {"k": v} | [{"k": v}] | {"ts": ms, "values": {"k": v}} | a list of those
//! v1/devices/me/rpc/request/+     v2/r/req/+      a command: {"method", "params"}, its number in the topic
//! v1/devices/me/rpc/response/{n}  v2/r/res/{n}    its result, any JSON or text
//! ```
//!
//! A key is an event's type. A number or a boolean is its value; any other value is `value` in its metadata. What comes without
//! `ts` has the time of its receipt. An answer of RPC has no status, so a command that was answered has succeeded.

use serde_json::{Map, Value, json};

use super::publications::Unfit;
use crate::event::Event;
use crate::event::msgpack::{write_array_len, write_str, write_uint};
use crate::frame::{EVENTS_PER_FRAME_MAX, encode_event};

const TELEMETRY: [&str; 3] = ["v1/devices/me/telemetry", "v2/t", "v2/t/j"];
/// With the number of the request behind it.
const RESPONSES: [&str; 3] = ["v1/devices/me/rpc/response/", "v2/r/res/j/", "v2/r/res/"];
/// A filter, and the topic of a request without its number.
const REQUESTS: [(&str, &str); 3] = [
    ("v1/devices/me/rpc/request/+", "v1/devices/me/rpc/request/"),
    ("v2/r/req/j/+", "v2/r/req/j/"),
    ("v2/r/req/+", "v2/r/req/"),
];

#[must_use]
pub fn is_telemetry(topic: &str) -> bool {
    TELEMETRY.contains(&topic)
}

/// The number of the request that a response is for.
#[must_use]
pub fn response_number(topic: &str) -> Option<&str> {
    RESPONSES
        .iter()
        .find_map(|prefix| topic.strip_prefix(prefix))
}

/// The topic of requests, without their number, for who subscribed to `filter`.
#[must_use]
pub fn request_topic(filter: &str) -> Option<&'static str> {
    let known = REQUESTS.iter().find(|(known, _)| *known == filter);
    known.map(|(_, topic)| *topic)
}

/// Events, encoded one after the other.
#[derive(Debug, Default)]
pub struct Telemetry {
    pub num_events: u32,
    pub events: Vec<u8>,
}

impl Telemetry {
    /// Reads a message of telemetry.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(payload: &[u8]) -> Result<Self, Unfit> {
        let mut telemetry = Self::default();
        match serde_json::from_slice(payload).map_err(Unfit::payload)? {
            Value::Array(all) => {
                for one in &all {
                    telemetry.take_values(one)?;
                }
            }
            one => telemetry.take_values(&one)?,
        }
        if !(1..=EVENTS_PER_FRAME_MAX).contains(&telemetry.num_events) {
            let num_events = telemetry.num_events;
            return Err(Unfit::payload(format!(
                "{num_events} values, 1 to {EVENTS_PER_FRAME_MAX} make a message"
            )));
        }
        Ok(telemetry)
    }

    fn take_values(&mut self, message: &Value) -> Result<(), Unfit> {
        let Value::Object(object) = message else {
            return Err(Unfit::payload(
                "telemetry is an object or a list of objects",
            ));
        };
        match (object.get("ts"), object.get("values")) {
            (Some(ts), Some(Value::Object(values))) => {
                let time_us = ts.as_i64().and_then(|ms| ms.checked_mul(1000));
                let time_us = time_us.ok_or_else(|| Unfit::payload("ts is not in milliseconds"))?;
                self.take_each(values, Some(time_us))
            }
            _ => self.take_each(object, None),
        }
    }

    fn take_each(
        &mut self,
        values: &Map<String, Value>,
        time_us: Option<i64>,
    ) -> Result<(), Unfit> {
        for (key, value) in values {
            let (number, metadata) = match value {
                Value::Number(number) => (number.as_f64(), None),
                Value::Bool(is_true) => (Some(f64::from(u8::from(*is_true))), None),
                Value::Null => (None, None),
                other => (None, Some(encoded(&json!({"value": other}))?)),
            };
            let event = Event {
                time_us,
                event_type: key,
                value: number,
                unit: None,
                metadata: metadata.as_deref(),
                device_id: None,
            };
            encode_event(&event, &mut self.events);
            self.num_events = self.num_events.saturating_add(1);
        }
        Ok(())
    }
}

/// The body of a RESULT frame that says what a response does.
///
/// # Errors
/// It is neither JSON nor text.
pub fn result_body(request_id: &str, payload: &[u8]) -> Result<Vec<u8>, Unfit> {
    let text = std::str::from_utf8(payload).map_err(Unfit::payload)?;
    let answer = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let data = match answer {
        object @ Value::Object(_) => object,
        other => json!({"value": other}),
    };
    let mut body = Vec::with_capacity(payload.len() + request_id.len() + 16);
    write_array_len(&mut body, 4);
    write_str(&mut body, request_id);
    write_uint(&mut body, 0);
    write_str(&mut body, "");
    body.extend_from_slice(&encoded(&data)?);
    Ok(body)
}

/// What a request says.
#[must_use]
pub fn request_message(method: &str, params: &[u8]) -> Vec<u8> {
    // Parameters are checked where commands are made.
    let params = serde_json::from_slice(params).unwrap_or(Value::Null);
    json!({"method": method, "params": params})
        .to_string()
        .into_bytes()
}

fn encoded(value: &Value) -> Result<Vec<u8>, Unfit> {
    rmp_serde::to_vec(value).map_err(Unfit::payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::metadata_to_json;
    use crate::frame::{EventIter, Incoming, decode, kind};

    fn read(payload: &str) -> Vec<(Option<i64>, String, Option<f64>, String)> {
        let telemetry = Telemetry::read(payload.as_bytes()).unwrap();
        let events = EventIter::new(&telemetry.events, telemetry.num_events);
        let told = events.map(|event| {
            let event = event.unwrap().event;
            let mut json = Vec::new();
            if let Some(metadata) = event.metadata {
                metadata_to_json(metadata, &mut json).unwrap();
            }
            let metadata = String::from_utf8(json).unwrap();
            (
                event.time_us,
                event.event_type.to_owned(),
                event.value,
                metadata,
            )
        });
        told.collect()
    }

    fn number(
        time_us: Option<i64>,
        key: &str,
        value: f64,
    ) -> (Option<i64>, String, Option<f64>, String) {
        (time_us, key.to_owned(), Some(value), String::new())
    }

    #[test]
    fn each_form_of_telemetry_is_an_event_for_each_key() {
        let (a, b) = (number(None, "a", 1.5), number(None, "b", 1.0));
        assert_eq!(read(r#"{"a": 1.5, "b": true}"#), [a.clone(), b.clone()]);
        assert_eq!(read(r#"[{"a": 1.5}, {"b": true}]"#), [a, b]);
        let timed = r#"{"ts": 1767225600000, "values": {"a": 2}}"#;
        let expected = number(Some(1_767_225_600_000_000), "a", 2.0);
        assert_eq!(read(timed), std::slice::from_ref(&expected));
        assert_eq!(
            read(&format!("[{timed}, {timed}]")),
            [expected.clone(), expected]
        );
        let text = (None, "s".to_owned(), None, r#"{"value":"on"}"#.to_owned());
        let object = (
            None,
            "o".to_owned(),
            None,
            r#"{"value":{"x":1}}"#.to_owned(),
        );
        assert_eq!(read(r#"{"o": {"x": 1}, "s": "on"}"#), [object, text]);
        assert_eq!(read(r#"{"ts": 5}"#), [number(None, "ts", 5.0)]);
    }

    #[test]
    fn what_is_no_telemetry_is_refused() {
        for payload in [
            "1",
            "{}",
            "[]",
            "[1]",
            "{\"a\": 1",
            r#"{"ts": "now", "values": {"a": 1}}"#,
        ] {
            assert!(Telemetry::read(payload.as_bytes()).is_err(), "{payload}");
        }
    }

    #[test]
    fn a_response_of_any_kind_is_a_result() {
        for (payload, data) in [
            (r#"{"ok": true}"#, r#"{"ok":true}"#),
            ("7", r#"{"value":7}"#),
            ("done", r#"{"value":"done"}"#),
        ] {
            let body = result_body("r", payload.as_bytes()).unwrap();
            let Incoming::Result(result) = decode(kind::RESULT, &body).unwrap() else {
                panic!()
            };
            let mut json = Vec::new();
            metadata_to_json(result.data.unwrap(), &mut json).unwrap();
            assert_eq!((result.request_id, result.status), ("r", 0));
            assert_eq!(json, data.as_bytes());
        }
        assert!(result_body("r", b"\xff").is_err());
    }
}
