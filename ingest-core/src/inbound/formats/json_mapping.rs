//! Plain JSON, by the mapping of the device's profile: where the value of each point stands (docs/device-profiles.md).
//!
//! What a path does not lead to is not in this payload, which is no error. A payload of which nothing is mapped, a time that cannot
//! be read and a value that is not of its point's type become dead letters.

use serde_json::{Value, json};

use super::time::{rfc3339_us, seconds_us};
use super::{Decoded, FormatError, Told};
use crate::event::Event;
use crate::pipeline::profiles::{
    IMPLAUSIBLE, JsonFormat, JsonPlace, JsonTime, Mapped, PointKind, QUALITY, Scaling, TimeForm,
};

/// Reads a payload by a mapping.
///
/// # Errors
/// Why nothing of it can be read.
pub fn mapped(told: Told<'_>, format: &JsonFormat) -> Result<Decoded, FormatError> {
    let payload: Value = serde_json::from_slice(told.payload)?;
    let mut decoded = Decoded::default();
    match &format.items {
        None => push_reading(&mut decoded, told, &payload, format),
        Some(path) => match lookup(&payload, path) {
            Some(Value::Array(items)) => {
                for item in items {
                    push_reading(&mut decoded, told, item, format);
                }
            }
            Some(_) => return Err(FormatError::Shape("items is no list")),
            None => return Err(FormatError::Shape("there are no items")),
        },
    }
    match decoded.num_events {
        0 => Err(FormatError::Shape("nothing that the profile maps")),
        _ => decoded.checked(),
    }
}

fn push_reading(decoded: &mut Decoded, told: Told<'_>, reading: &Value, format: &JsonFormat) {
    let values = format.mappings.iter().filter_map(|mapping| {
        let raw = lookup(reading, &mapping.place.path)?;
        // As where it is not: there is no value.
        (!raw.is_null()).then_some((mapping, raw))
    });
    let mut values = values.peekable();
    if values.peek().is_none() {
        return;
    }
    let time_us = match format.time.as_ref().map(|time| time_of(reading, time)) {
        None => None,
        Some(Ok(time_us)) => Some(time_us),
        Some(Err(why)) => return push_unreadable(decoded, told, reading, why),
    };
    for (mapping, raw) in values {
        if let Err(why) = push_value(decoded, mapping, raw, time_us) {
            let part = json!({ &*mapping.point.key: raw });
            push_unreadable(decoded, told, &part, why);
        }
    }
}

fn push_unreadable(decoded: &mut Decoded, told: Told<'_>, part: &Value, why: &str) {
    let payload = part.to_string();
    let payload = payload.as_bytes();
    decoded.push_unreadable(Told { payload, ..told }, why);
}

fn push_value(
    decoded: &mut Decoded,
    mapping: &Mapped<JsonPlace>,
    raw: &Value,
    time_us: Option<i64>,
) -> Result<(), &'static str> {
    let point = &mapping.point;
    let scaling = &mapping.place.scaling;
    let (value, metadata) = match point.kind {
        PointKind::Number => {
            let value = scaled(number(raw)?, scaling)?;
            let quality = (!point.is_plausible(value)).then(|| json!({ QUALITY: IMPLAUSIBLE }));
            (Some(value), quality)
        }
        PointKind::Boolean => (Some(f64::from(u8::from(boolean(raw)?))), None),
        PointKind::Text => match raw {
            Value::String(text) => (None, Some(json!({ "value": text }))),
            _ => return Err("the value of a point of texts is no text"),
        },
    };
    let metadata = metadata.map(|metadata| rmp_serde::to_vec(&metadata));
    let metadata = metadata
        .transpose()
        .map_err(|_| "a value that no event can hold")?;
    decoded.push(&Event {
        time_us,
        event_type: &point.key,
        value,
        unit: scaling.unit.as_deref().or(point.unit.as_deref()),
        metadata: metadata.as_deref(),
        device_id: None,
    });
    Ok(())
}

fn scaled(raw: f64, scaling: &Scaling) -> Result<f64, &'static str> {
    let value = raw * scaling.scale + scaling.offset;
    value
        .is_finite()
        .then_some(value)
        .ok_or("a value beyond all numbers")
}

/// A number, or a text that is one.
fn number(raw: &Value) -> Result<f64, &'static str> {
    let number = match raw {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number
        .filter(|number| number.is_finite())
        .ok_or("the value of a point of numbers is no number")
}

/// True and false, 1 and 0, and the words of switches.
fn boolean(raw: &Value) -> Result<bool, &'static str> {
    match raw {
        Value::Bool(is_true) => return Ok(*is_true),
        Value::Number(number) if number.as_f64() == Some(1.0) => return Ok(true),
        Value::Number(number) if number.as_f64() == Some(0.0) => return Ok(false),
        _ => {}
    }
    match raw.as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("true" | "on" | "1") => Ok(true),
        Some("false" | "off" | "0") => Ok(false),
        _ => Err("the value of a point of booleans is none"),
    }
}

fn time_of(reading: &Value, time: &JsonTime) -> Result<i64, &'static str> {
    let said = lookup(reading, &time.path).ok_or("the path of the time leads to nothing")?;
    let time_us = match time.form {
        TimeForm::Rfc3339 => said.as_str().and_then(rfc3339_us),
        TimeForm::S => number(said).ok().and_then(seconds_us),
        TimeForm::Ms => whole(said)
            .and_then(|ms| ms.checked_mul(1000))
            .or_else(|| number(said).ok().and_then(|ms| seconds_us(ms / 1000.0))),
        TimeForm::Us => whole(said),
        TimeForm::Ns => whole(said).map(|ns| ns.div_euclid(1000)),
    };
    time_us.ok_or("a time that cannot be read")
}

fn whole(said: &Value) -> Option<i64> {
    match said {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Follows a path in the one form in which profiles keep it:
/// `"$" *( "." name / "['" *( char / "\'" / "\\" ) "']" / "[" index "]" )`.
fn lookup<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    let mut rest = path.strip_prefix('$')?;
    let mut found = value;
    while !rest.is_empty() {
        if let Some(named) = rest.strip_prefix('.') {
            let end = named.find(['.', '[']).unwrap_or(named.len());
            let (name, behind) = named.split_at_checked(end)?;
            (found, rest) = (found.get(name)?, behind);
        } else if let Some(quoted) = rest.strip_prefix("['") {
            let (name, behind) = unquoted(quoted)?;
            (found, rest) = (found.get(&name)?, behind);
        } else {
            let (index, behind) = rest.strip_prefix('[')?.split_once(']')?;
            (found, rest) = (found.get(index.parse::<usize>().ok()?)?, behind);
        }
    }
    Some(found)
}

/// The name up to `']`, and what is behind it.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.push(characters.next()?.1),
            '\'' => return Some((name, quoted.get(at..)?.strip_prefix("']")?)),
            other => name.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::inbound::formats::told;
    use crate::pipeline::profiles::{DeviceProfile, Format, ProfileRecord};

    fn format(format: Value) -> JsonFormat {
        let point = |key: &str, kind: &str, unit: Value| {
            json!({
                "key": key, "name": key, "unit": unit, "type": kind, "counter": {"kind": "none"},
                "min": if key == "power" { json!(0) } else { json!(null) }, "max": null,
            })
        };
        let profile = DeviceProfile::of(&ProfileRecord {
            id: Uuid::nil(),
            version: 1,
            expected_interval_s: None,
            points: json!([
                point("power", "number", json!("W")),
                point("relay", "boolean", json!(null)),
                point("mode", "text", json!(null)),
            ]),
            format,
            organization_id: Uuid::nil(),
        });
        match profile.format {
            Format::Json(format) => format,
            other => panic!("{other:?}"),
        }
    }

    fn mapping(path: &str, point: &str, scale: f64) -> Value {
        json!({"path": path, "point": point, "scale": scale, "offset": 0, "unit": null})
    }

    fn read(format: &JsonFormat, payload: &str) -> Vec<Value> {
        let payload = payload.as_bytes();
        told(
            &mapped(
                Told {
                    topic: "t",
                    payload,
                },
                format,
            )
            .unwrap(),
        )
    }

    #[test]
    fn each_value_that_is_there_is_an_event_of_its_point() {
        let format = format(json!({
            "kind": "json", "items": null, "time": {"path": "$.params.ts", "form": "s"},
            "mappings": [
                mapping("$.params['em:0'].power", "power", 0.5),
                mapping("$.list[1]", "relay", 1.0),
                mapping("$['it\\'s'].mode", "mode", 1.0),
            ],
        }));
        let payload = r#"{"params": {"ts": 1767225600.5, "em:0": {"power": "43"}}, "list": [0, "ON"], "it's": {"mode": "eco"}}"#;
        let time_us = 1_767_225_600_500_000_i64;
        let expected = [
            json!({"type": "power", "value": 21.5, "unit": "W", "time_us": time_us}),
            json!({"type": "relay", "value": 1.0, "time_us": time_us}),
            json!({"type": "mode", "metadata": {"value": "eco"}, "time_us": time_us}),
        ];
        assert_eq!(read(&format, payload), expected);
        let delta = r#"{"params": {"ts": 1767225600.5}, "list": [0, false]}"#;
        assert_eq!(
            read(&format, delta),
            [json!({"type": "relay", "value": 0.0, "time_us": time_us})]
        );
    }

    #[test]
    fn each_item_is_a_reading_by_itself() {
        let format = format(json!({
            "kind": "json", "items": "$.data", "time": {"path": "$.at", "form": "rfc3339"},
            "mappings": [mapping("$.w", "power", 1.0)],
        }));
        let payload = r#"{"data": [{"at": "2026-01-01T00:00:00Z", "w": 1}, {"at": "soon", "w": 2}, {"w": 3}, {"x": 4}]}"#;
        let said = read(&format, payload);
        let first = json!({"type": "power", "value": 1.0, "unit": "W", "time_us": 1_767_225_600_000_000_i64});
        assert_eq!((said.len(), &said[0]), (3, &first));
        assert!(said[1]["unreadable"].is_string() && said[2]["unreadable"].is_string());
    }

    #[test]
    fn times_are_read_in_their_form() {
        for (form, said) in [
            ("s", "1767225600"),
            ("s", "\"1767225600\""),
            ("ms", "1767225600000"),
            ("us", "1767225600000000"),
            ("ns", "1767225600000000999"),
        ] {
            let format = format(json!({
                "kind": "json", "items": null, "time": {"path": "$.t", "form": form},
                "mappings": [mapping("$.w", "power", 1.0)],
            }));
            let said = read(&format, &format!(r#"{{"t": {said}, "w": 1}}"#));
            assert_eq!(said[0]["time_us"], 1_767_225_600_000_000_i64, "{form}");
        }
    }

    #[test]
    fn a_value_that_is_not_plausible_is_marked_and_one_of_another_type_is_kept_as_it_came() {
        let format = format(json!({
            "kind": "json", "items": null, "time": null,
            "mappings": [mapping("$.w", "power", 1.0), mapping("$.r", "relay", 1.0), mapping("$.m", "mode", 1.0)],
        }));
        let marked = json!({"type": "power", "value": -1.0, "unit": "W", "metadata": {"quality": "implausible"}});
        assert_eq!(read(&format, r#"{"w": -1}"#), [marked]);
        let said = read(&format, r#"{"w": "much", "r": 2, "m": 3}"#);
        assert_eq!(said.len(), 3);
        assert!(said.iter().all(|letter| letter["unreadable"].is_string()));
        assert_eq!(read(&format, r#"{"w": null, "r": 1}"#).len(), 1);
    }

    #[test]
    fn a_payload_of_which_nothing_is_mapped_is_refused() {
        let format = format(json!({
            "kind": "json", "items": "$.data", "time": null, "mappings": [mapping("$.w", "power", 1.0)],
        }));
        for payload in [
            r#"{"data": [{"x": 1}]}"#,
            r#"{"data": 1}"#,
            "{}",
            "[]",
            "w=1",
        ] {
            let payload = payload.as_bytes();
            assert!(
                mapped(
                    Told {
                        topic: "t",
                        payload
                    },
                    &format
                )
                .is_err()
            );
        }
    }

    #[test]
    fn a_path_leads_to_one_value_or_to_none() {
        let value = json!({"a": {"b c": [1, {"d": 2}]}, "x'y\\z": 3, "0": 4});
        for (path, expected) in [
            ("$", Some(value.clone())),
            ("$.a['b c'][0]", Some(json!(1))),
            ("$['a']['b c'][1].d", Some(json!(2))),
            ("$['x\\'y\\\\z']", Some(json!(3))),
            ("$['0']", Some(json!(4))),
            ("$[0]", None),
            ("$.a.b", None),
            ("$.a['b c'][9]", None),
            ("a", None),
            ("$['a", None),
            ("$x", None),
        ] {
            assert_eq!(lookup(&value, path).cloned(), expected, "{path}");
        }
    }
}
