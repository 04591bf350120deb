//! Tasmota, as it is when it is not configured otherwise. Topics: <https://tasmota.github.io/docs/MQTT/>.
//!
//! ```text
//! tele/{name}/SENSOR   {"Time": "...", "ENERGY": {"Power": 12, ...}, "TempUnit": "C"}   also {name}/tele/SENSOR
//! tele/{name}/STATE    {"Time": "...", "POWER": "ON", "Wifi": {...}}
//! tele/{name}/LWT      Online | Offline
//! stat/{name}/RESULT   {"POWER": "ON"}; stat/{name}/POWER is ON
//! cmnd/{name}/POWER    what it is told: ON
//! ```
//!
//! `Time` is the device's local time, mostly without a word of where that is; such a time is kept as text (`device_time`), and the
//! event has that of its receipt.
//!
//! What it answers a command with has no number: it is known by the command's name, which is a key of the answer, or by `STATUS`.

use serde_json::{Map, Value};

use super::flat::{ONLINE, Reading};
use super::time::rfc3339_us;
use super::{Decoded, FormatError};

const LEFT_OUT: [&str; 4] = ["Time", "TempUnit", "PressureUnit", "SpeedUnit"];

/// What a topic of Tasmota brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TasmotaTopic<'a> {
    /// An object of values.
    Values,
    /// The same, after a command or when something was switched by hand.
    Answer {
        level: &'a str,
    },
    LastWill,
    /// One value, as text.
    Value {
        key: &'a str,
    },
}

impl<'a> TasmotaTopic<'a> {
    #[must_use]
    pub fn of(topic: &'a str) -> Option<Self> {
        let mut levels = topic.split('/');
        let (first, second, last) = (levels.next()?, levels.next()?, levels.next()?);
        if levels.next().is_some() {
            return None;
        }
        let prefix = [first, second]
            .into_iter()
            .find(|level| matches!(*level, "tele" | "stat"))?;
        match (prefix, last) {
            (_, "LWT") => Some(Self::LastWill),
            ("tele", _) => Some(Self::Values),
            (_, level) if level == "RESULT" || level.starts_with("STATUS") => {
                Some(Self::Answer { level })
            }
            (_, key) if !key.is_empty() => Some(Self::Value { key }),
            _ => None,
        }
    }
}

/// Reads what was published to such a topic.
///
/// # Errors
/// Why it is not what it should be.
pub fn tasmota(topic: TasmotaTopic<'_>, payload: &[u8]) -> Result<Decoded, FormatError> {
    let mut decoded = Decoded::default();
    match topic {
        TasmotaTopic::Values | TasmotaTopic::Answer { .. } => {
            let value: Value = serde_json::from_slice(payload)?;
            let Value::Object(object) = &value else {
                return Err(FormatError::Shape("Tasmota's telemetry is an object"));
            };
            let said = object.get("Time").and_then(Value::as_str);
            let units = Units::of(object);
            let reading = Reading {
                time_us: said.and_then(rfc3339_us),
                device_id: None,
                unit_of: &|key| units.of_key(key),
                left_out: &LEFT_OUT,
            };
            reading.push(&mut decoded, "", &value)?;
            if let (Some(said), None) = (said, reading.time_us) {
                reading.push_text(&mut decoded, "device_time", said)?;
            }
        }
        TasmotaTopic::LastWill => {
            let text = std::str::from_utf8(payload)?;
            if !matches!(text, "Online" | "Offline") {
                return Err(FormatError::Shape("neither Online nor Offline"));
            }
            Reading::plain(None).push_text(&mut decoded, ONLINE, text)?;
        }
        TasmotaTopic::Value { key } => {
            let text = std::str::from_utf8(payload)?;
            match text.parse::<serde_json::Number>() {
                Ok(number) => {
                    Reading::plain(None).push(&mut decoded, key, &Value::Number(number))?;
                }
                Err(_) => Reading::plain(None).push_text(&mut decoded, key, text)?,
            }
        }
    }
    decoded.checked()
}

/// Where a Tasmota hears commands that has subscribed to `filter`: what comes before their names. None for another filter.
#[must_use]
pub fn commands_of(filter: &str) -> Option<&str> {
    let base = filter.strip_suffix('#')?;
    let mut levels = base.split('/');
    let (first, second, end) = (levels.next()?, levels.next()?, levels.next()?);
    let is_named = |level: &str| !level.is_empty() && !level.contains(['+', '#']);
    let is_of_commands =
        (first == "cmnd" && is_named(second)) || (second == "cmnd" && is_named(first));
    (is_of_commands && end.is_empty() && levels.next().is_none()).then_some(base)
}

/// What a Tasmota is told with a command: `value` as text, nothing where there are no parameters, else all of them as JSON.
#[must_use]
pub fn command_payload(params: &Map<String, Value>) -> String {
    match (params.get("value"), params.len()) {
        (Some(Value::String(text)), 1) => text.clone(),
        (Some(value), 1) => value.to_string(),
        (None, 0) => String::new(),
        _ => Value::Object(params.clone()).to_string(),
    }
}

/// Whether an answer is that to `command`, and then whether it was done.
#[must_use]
pub fn is_done(level: &str, answer: &Map<String, Value>, command: &str) -> Option<bool> {
    if answer.contains_key("Command") {
        // `Unknown` or `Error`, of the command that it was given before all others.
        return Some(false);
    }
    // `POWER` is answered with `POWER1` by who has several, and the other way round.
    let bare = |name: &str| {
        name.trim_end_matches(|c: char| c.is_ascii_digit())
            .to_ascii_lowercase()
    };
    let is_named = |name: &str| bare(name) == bare(command);
    (is_named(level) || answer.keys().any(|key| is_named(key))).then_some(true)
}

/// Units that the device says once for all, and those that it never says.
struct Units<'a> {
    temperature: Option<&'a str>,
    pressure: Option<&'a str>,
}

impl<'a> Units<'a> {
    fn of(object: &'a serde_json::Map<String, Value>) -> Self {
        let said = |name| object.get(name).and_then(Value::as_str);
        Self {
            temperature: said("TempUnit"),
            pressure: said("PressureUnit"),
        }
    }

    fn of_key(&self, key: &str) -> Option<&'a str> {
        // A list of phases counts from 0 behind the name.
        let named = key.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        let (sensor, name) = named.rsplit_once('.')?;
        match (sensor, name) {
            (_, "Temperature" | "DewPoint") => self.temperature,
            (_, "Pressure" | "SeaPressure") => self.pressure,
            (_, "Humidity") => Some("%"),
            (_, "Illuminance") => Some("lx"),
            ("ENERGY", "Power" | "ExportPower") => Some("W"),
            ("ENERGY", "ApparentPower") => Some("VA"),
            ("ENERGY", "ReactivePower") => Some("var"),
            ("ENERGY", "Voltage") => Some("V"),
            ("ENERGY", "Current") => Some("A"),
            ("ENERGY", "Frequency") => Some("Hz"),
            ("ENERGY", "Total" | "Today" | "Yesterday" | "ExportActive") => Some("kWh"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::inbound::formats::told;

    fn read(topic: &str, payload: &str) -> Vec<Value> {
        let topic = TasmotaTopic::of(topic).unwrap();
        told(&tasmota(topic, payload.as_bytes()).unwrap())
    }

    #[test]
    fn what_a_plug_measures_has_its_units() {
        let payload = r#"{"Time":"2026-01-01T00:00:00","ENERGY":{"TotalStartTime":"2025-01-01T00:00:00","Total":3.185,
            "Power":12,"Voltage":[230,231],"Factor":0.5},"AM2301":{"Temperature":21.5,"Humidity":40},"TempUnit":"C"}"#;
        let said = read("tele/plug/SENSOR", payload);
        let value =
            |key: &str, value: f64, unit: &str| json!({"type": key, "value": value, "unit": unit});
        for expected in [
            value("ENERGY.Total", 3.185, "kWh"),
            value("ENERGY.Power", 12.0, "W"),
            value("ENERGY.Voltage.0", 230.0, "V"),
            value("ENERGY.Voltage.1", 231.0, "V"),
            value("AM2301.Temperature", 21.5, "C"),
            value("AM2301.Humidity", 40.0, "%"),
            json!({"type": "ENERGY.Factor", "value": 0.5}),
            json!({"type": "device_time", "metadata": {"value": "2026-01-01T00:00:00"}}),
        ] {
            assert!(said.contains(&expected), "{expected} in {said:?}");
        }
        assert_eq!(said, read("plug/tele/SENSOR", payload));
    }

    #[test]
    fn a_time_that_says_where_it_is_is_the_event_s() {
        let said = read(
            "tele/plug/SENSOR",
            r#"{"Time":"2026-01-01T03:00:00+03:00","A":1}"#,
        );
        let expected = json!({"type": "A", "value": 1.0, "time_us": 1_767_225_600_000_000_i64});
        assert_eq!(said, [expected]);
    }

    #[test]
    fn switches_are_1_and_0() {
        let on = json!({"type": "POWER", "value": 1.0, "metadata": {"value": "ON"}});
        for (topic, payload) in [
            ("stat/plug/RESULT", r#"{"POWER":"ON"}"#),
            ("stat/plug/POWER", "ON"),
        ] {
            assert_eq!(read(topic, payload), std::slice::from_ref(&on));
        }
        let gone = json!({"type": "online", "value": 0.0, "metadata": {"value": "Offline"}});
        assert_eq!(read("tele/plug/LWT", "Offline"), [gone]);
        let dimmed = json!({"type": "Dimmer", "value": 40.0});
        assert_eq!(read("stat/plug/Dimmer", "40"), [dimmed]);
    }

    #[test]
    fn commands_are_heard_where_it_says_and_answered_by_their_names() {
        for (filter, base) in [
            ("cmnd/plug/#", Some("cmnd/plug/")),
            ("plug/cmnd/#", Some("plug/cmnd/")),
            ("cmnd/+/#", None),
            ("cmnd//#", None),
            ("cmnd/plug/+", None),
            ("cmnd/plug/a/#", None),
            ("stat/plug/#", None),
            ("#", None),
        ] {
            assert_eq!(commands_of(filter), base, "{filter}");
        }
        for (params, payload) in [
            (json!({}), ""),
            (json!({"value": "ON"}), "ON"),
            (json!({"value": 40}), "40"),
            (json!({"value": 1, "x": 2}), r#"{"value":1,"x":2}"#),
        ] {
            assert_eq!(command_payload(params.as_object().unwrap()), payload);
        }
        for (level, answer, command, done) in [
            ("RESULT", json!({"POWER": "ON"}), "Power1", Some(true)),
            ("RESULT", json!({"POWER2": "ON"}), "POWER", Some(true)),
            ("STATUS5", json!({"StatusNET": {}}), "Status", Some(true)),
            (
                "RESULT",
                json!({"Command": "Unknown"}),
                "POWER",
                Some(false),
            ),
            ("RESULT", json!({"Dimmer": 40}), "POWER", None),
        ] {
            let answer = answer.as_object().unwrap();
            assert_eq!(is_done(level, answer, command), done, "{command}");
        }
    }

    #[test]
    fn other_topics_and_other_payloads_are_none() {
        for topic in ["tele/plug", "a/b/c", "tele/a/b/SENSOR", "cmnd/plug/POWER"] {
            assert_eq!(TasmotaTopic::of(topic), None, "{topic}");
        }
        for (topic, payload) in [
            ("tele/plug/SENSOR", "12"),
            ("tele/plug/SENSOR", "{"),
            ("tele/plug/SENSOR", "{}"),
            ("tele/plug/LWT", "Away"),
        ] {
            let known = TasmotaTopic::of(topic).unwrap();
            assert!(tasmota(known, payload.as_bytes()).is_err(), "{payload}");
        }
    }
}
