//! Telemetry of a device, and of the children of a gateway.

use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{ChildOf, no_such_child};
use crate::inbound::formats::{About, Decoded, FormatError, Told};

/// Reads a message of telemetry.
///
/// # Errors
/// Why it is none.
pub fn telemetry(payload: &[u8]) -> Result<Decoded, FormatError> {
    let mut decoded = Decoded::default();
    push_messages(&mut decoded, &serde_json::from_slice(payload)?, None)?;
    decoded.checked()
}

/// Reads a message of a gateway, `{"child": [telemetry, ...], ...}`. What is said of an unknown child becomes a dead letter.
///
/// # Errors
/// Why it is none.
pub fn gateway_telemetry(told: Told<'_>, child_of: ChildOf<'_>) -> Result<Decoded, FormatError> {
    let Value::Object(by_child) = serde_json::from_slice(told.payload)? else {
        return Err(FormatError::Shape("a gateway's telemetry is an object"));
    };
    let mut decoded = Decoded::default();
    for (name, messages) in &by_child {
        match child_of(name) {
            Some(child) => push_messages(&mut decoded, messages, Some(child))?,
            None => push_stranger(&mut decoded, told.topic, name, messages),
        }
    }
    decoded.checked()
}

/// What a gateway says of a name that means none of its children.
pub(super) fn push_stranger(decoded: &mut Decoded, topic: &str, name: &str, said: &Value) {
    let payload = Value::from(Map::from_iter([(name.to_owned(), said.clone())])).to_string();
    let told = Told {
        topic,
        payload: payload.as_bytes(),
    };
    decoded.push_unreadable(told, &no_such_child(name));
}

fn push_messages(
    decoded: &mut Decoded,
    messages: &Value,
    child: Option<Uuid>,
) -> Result<(), FormatError> {
    match messages {
        Value::Array(all) => all
            .iter()
            .try_for_each(|one| push_values(decoded, one, child)),
        one => push_values(decoded, one, child),
    }
}

fn push_values(
    decoded: &mut Decoded,
    message: &Value,
    child: Option<Uuid>,
) -> Result<(), FormatError> {
    let Value::Object(object) = message else {
        return Err(FormatError::Shape(
            "telemetry is an object or a list of objects",
        ));
    };
    let (values, time_us) = match (object.get("ts"), object.get("values")) {
        (Some(ts), Some(Value::Object(values))) => {
            let time_us = ts.as_i64().and_then(|ms| ms.checked_mul(1000));
            let time_us = time_us.ok_or(FormatError::Shape("ts is not in milliseconds"))?;
            (values, Some(time_us))
        }
        (None, Some(Value::Object(values))) if object.len() == 1 => (values, None),
        _ => (object, None),
    };
    values.iter().try_for_each(|(key, value)| {
        let about = About {
            key,
            time_us,
            unit: None,
            device_id: child,
        };
        decoded.push_value(about, value)
    })
}

/// The child that a gateway says has come or gone: `{"device": "child", ...}`.
///
/// # Errors
/// It names none.
pub fn gateway_device(payload: &[u8]) -> Result<String, FormatError> {
    #[derive(Deserialize)]
    struct Named {
        device: String,
    }
    let named: Named = serde_json::from_slice(payload)?;
    Ok(named.device)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::inbound::formats::told;

    fn read(payload: &str) -> Vec<Value> {
        told(&telemetry(payload.as_bytes()).unwrap())
    }

    #[test]
    fn each_form_of_telemetry_is_an_event_for_each_key() {
        let (a, b) = (
            json!({"type": "a", "value": 1.5}),
            json!({"type": "b", "value": 1.0}),
        );
        assert_eq!(read(r#"{"a": 1.5, "b": true}"#), [a.clone(), b.clone()]);
        assert_eq!(read(r#"[{"a": 1.5}, {"b": true}]"#), [a.clone(), b.clone()]);
        assert_eq!(read(r#"{"values": {"a": 1.5, "b": 1}}"#), [a, b]);
        let timed = r#"{"ts": 1767225600000, "values": {"a": 2}}"#;
        let expected = json!({"type": "a", "value": 2.0, "time_us": 1_767_225_600_000_000_i64});
        assert_eq!(read(timed), std::slice::from_ref(&expected));
        assert_eq!(
            read(&format!("[{timed}, {timed}]")),
            [expected.clone(), expected]
        );
        let text = json!({"type": "s", "metadata": {"value": "on"}});
        let object = json!({"type": "o", "metadata": {"value": {"x": 1}}});
        assert_eq!(read(r#"{"o": {"x": 1}, "s": "on"}"#), [object, text]);
        assert_eq!(read(r#"{"ts": 5}"#), [json!({"type": "ts", "value": 5.0})]);
        assert_eq!(read(r#"{"n": null}"#), [json!({"type": "n"})]);
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
            assert!(telemetry(payload.as_bytes()).is_err(), "{payload}");
        }
    }

    #[test]
    fn a_gateway_speaks_for_children_by_their_names_and_of_others_it_is_kept() {
        let payload = br#"{"A": [{"ts": 5, "values": {"x": 1, "y": 2}}, {"x": 3}], "B": [{"x": 4}], "C": {"x": 5}}"#;
        let child_of = |name: &str| match name {
            "A" => Some(Uuid::from_u128(1)),
            "C" => Some(Uuid::from_u128(3)),
            _ => None,
        };
        let topic = "v1/gateway/telemetry";
        let decoded = gateway_telemetry(Told { topic, payload }, &child_of).unwrap();
        let reason = "no enabled child of this gateway has the serial number or the name \"B\"";
        let expected = [
            json!({"type": "x", "value": 1.0, "time_us": 5000, "device_id": "1"}),
            json!({"type": "y", "value": 2.0, "time_us": 5000, "device_id": "1"}),
            json!({"type": "x", "value": 3.0, "device_id": "1"}),
            json!({"unreadable": reason}),
            json!({"type": "x", "value": 5.0, "device_id": "3"}),
        ];
        assert_eq!(told(&decoded), expected);
        for payload in [&b"[]"[..], b"{}", br#"{"A": 1}"#] {
            assert!(gateway_telemetry(Told { topic, payload }, &child_of).is_err());
        }
    }

    #[test]
    fn a_gateway_names_who_comes_and_goes() {
        let payload = br#"{"device": "A", "type": "meter"}"#;
        assert_eq!(gateway_device(payload).unwrap(), "A");
        assert!(gateway_device(b"{}").is_err());
    }
}
