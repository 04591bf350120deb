//! Shelly of the second generation and later. Topics: <https://shelly-api-docs.shelly.cloud/gen2/ComponentsAndServices/Mqtt>.
//!
//! ```text
//! {prefix}/events/rpc               {"src", "method": "NotifyStatus", "params": {"ts": s, "em:0": {"total_act_power": 12, ...}}}
//! {prefix}/status/{component}:{id}  {"id": 0, "output": true, ...}
//! {prefix}/online                   true | false
//! {prefix}/rpc                      what it is told: {"id": n, "src": "hse", "method": "Switch.Set", "params": {...}}
//! hse/rpc                           its answer: {"id": n, "result": {...}} | {"id": n, "error": {"code", "message"}}
//! ```
//!
//! A value has its path for a type: `em:0.total_act_power`. A status says what has changed since the one before, which is as many
//! events. An event, such as a button that was pressed, is one of the type `input:0.single_push` without a value.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::flat::{ONLINE, Reading};
use super::time::seconds_us;
use super::{About, Decoded, FormatError, result_body};

/// What a topic of a Shelly brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShellyTopic<'a> {
    Notification,
    /// Of one component.
    Status {
        component: &'a str,
    },
    Online,
}

impl<'a> ShellyTopic<'a> {
    #[must_use]
    pub fn of(topic: &'a str) -> Option<Self> {
        if let Some(prefix) = topic.strip_suffix("/events/rpc") {
            return (!prefix.is_empty()).then_some(Self::Notification);
        }
        let (rest, last) = topic.rsplit_once('/')?;
        if last == "online" {
            return Some(Self::Online);
        }
        let prefix = rest.strip_suffix("/status")?;
        let is_component = !prefix.is_empty() && !last.is_empty();
        is_component.then_some(Self::Status { component: last })
    }
}

/// Reads what was published to such a topic.
///
/// # Errors
/// Why it is not what it should be.
pub fn shelly(topic: ShellyTopic<'_>, payload: &[u8]) -> Result<Decoded, FormatError> {
    let mut decoded = Decoded::default();
    match topic {
        ShellyTopic::Notification => push_notification(&mut decoded, payload)?,
        ShellyTopic::Status { component } => {
            let status = serde_json::from_slice(payload)?;
            push_component(&mut decoded, component, &status, None)?;
        }
        ShellyTopic::Online => {
            let is_there: bool = serde_json::from_slice(payload)?;
            Reading::plain(None).push(&mut decoded, ONLINE, &Value::from(is_there))?;
        }
    }
    decoded.checked()
}

/// Who asks; the answers go to its topic.
const ASKER: &str = "hse";
/// Where answers to commands come.
pub const ANSWERS: &str = "hse/rpc";

/// The prefix of a Shelly that hears commands by this filter; none for another one.
#[must_use]
pub fn prefix_of(filter: &str) -> Option<&str> {
    let prefix = filter.strip_suffix("/rpc")?;
    (!prefix.is_empty() && !prefix.contains(['+', '#'])).then_some(prefix)
}

/// Where a Shelly hears a command, and what.
#[must_use]
pub fn request(
    prefix: &str,
    number: u32,
    method: &str,
    params: Map<String, Value>,
) -> (String, String) {
    let message = json!({"id": number, "src": ASKER, "method": method, "params": params});
    (format!("{prefix}/rpc"), message.to_string())
}

/// What a Shelly answers.
#[derive(Debug, Deserialize)]
pub struct RpcAnswer {
    pub id: u32,
    #[serde(default)]
    result: Value,
    error: Option<Value>,
}

impl RpcAnswer {
    /// # Errors
    /// It is none.
    pub fn read(payload: &[u8]) -> Result<Self, FormatError> {
        Ok(serde_json::from_slice(payload)?)
    }

    /// As a result: the code of an error stands in the data.
    ///
    /// # Errors
    /// No result can hold it.
    pub fn result_body(self, request_id: &str) -> Result<Vec<u8>, FormatError> {
        let Some(error) = self.error else {
            return result_body(request_id, 0, "", self.result);
        };
        let message = error.get("message").and_then(Value::as_str);
        let message = message.unwrap_or("refused").to_owned();
        result_body(request_id, 1, &message, error)
    }
}

fn push_notification(decoded: &mut Decoded, payload: &[u8]) -> Result<(), FormatError> {
    let message: Value = serde_json::from_slice(payload)?;
    let method = message.get("method").and_then(Value::as_str);
    let Some(Value::Object(params)) = message.get("params") else {
        return Err(FormatError::Shape("a notification without params"));
    };
    let time_us = time_of(params)?;
    match method {
        Some("NotifyStatus" | "NotifyFullStatus") => {
            let components = params.iter().filter(|(name, _)| *name != "ts");
            for (component, status) in components {
                push_component(decoded, component, status, time_us)?;
            }
            Ok(())
        }
        Some("NotifyEvent") => push_events(decoded, params, time_us),
        _ => Err(FormatError::Shape(
            "neither NotifyStatus, NotifyFullStatus nor NotifyEvent",
        )),
    }
}

fn time_of(object: &Map<String, Value>) -> Result<Option<i64>, FormatError> {
    // Before it knows the time a Shelly says null.
    let Some(said) = object.get("ts").filter(|ts| !ts.is_null()) else {
        return Ok(None);
    };
    let time_us = said.as_f64().and_then(seconds_us);
    time_us
        .map(Some)
        .ok_or(FormatError::Shape("ts is not in seconds"))
}

fn push_component(
    decoded: &mut Decoded,
    component: &str,
    status: &Value,
    time_us: Option<i64>,
) -> Result<(), FormatError> {
    let Value::Object(status) = status else {
        return Err(FormatError::Shape("a component's status is an object"));
    };
    let reading = Reading {
        time_us,
        unit_of: &unit_of,
        ..Reading::plain(None)
    };
    let values = status.iter().filter(|(name, _)| *name != "id");
    for (name, value) in values {
        reading.push(decoded, &format!("{component}.{name}"), value)?;
    }
    Ok(())
}

fn push_events(
    decoded: &mut Decoded,
    params: &Map<String, Value>,
    time_us: Option<i64>,
) -> Result<(), FormatError> {
    let Some(Value::Array(events)) = params.get("events") else {
        return Err(FormatError::Shape("NotifyEvent without events"));
    };
    for event in events {
        let said = |name| event.get(name).and_then(Value::as_str);
        let (Some(component), Some(name)) = (said("component"), said("event")) else {
            return Err(FormatError::Shape(
                "an event without a component and a name",
            ));
        };
        let own = event.as_object().map_or(Ok(None), time_of)?;
        let key = format!("{component}.{name}");
        let about = About {
            key: &key,
            time_us: own.or(time_us),
            ..About::default()
        };
        decoded.push_value(about, &Value::Null)?;
    }
    Ok(())
}

fn unit_of(key: &str) -> Option<&'static str> {
    let name = key.rsplit('.').next()?;
    Some(match name {
        "apower" | "act_power" | "total_act_power" | "a_act_power" | "b_act_power"
        | "c_act_power" => "W",
        "aprt_power" | "total_aprt_power" | "a_aprt_power" | "b_aprt_power" | "c_aprt_power" => {
            "VA"
        }
        "voltage" | "a_voltage" | "b_voltage" | "c_voltage" => "V",
        "current" | "total_current" | "a_current" | "b_current" | "c_current" | "n_current" => "A",
        "freq" | "a_freq" | "b_freq" | "c_freq" => "Hz",
        "tC" => "C",
        "tF" => "F",
        "rh" => "%",
        "lux" => "lx",
        "total" if key.ends_with("energy.total") => "Wh",
        "total_act" | "total_act_ret" | "total_act_energy" => "Wh",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::inbound::formats::told;

    fn read(topic: &str, payload: &str) -> Vec<Value> {
        let topic = ShellyTopic::of(topic).unwrap();
        told(&shelly(topic, payload.as_bytes()).unwrap())
    }

    #[test]
    fn a_status_is_an_event_for_each_value_that_it_says() {
        let payload = r#"{"src":"shellypro3em-1","dst":"shellypro3em-1/events","method":"NotifyStatus","params":
            {"ts":1767225600.25,"em:0":{"id":0,"total_act_power":12.5,"errors":["power_meter_failure"]},"switch:0":{"id":0,"output":true}}}"#;
        let time_us = 1_767_225_600_250_000_i64;
        let expected = [
            json!({"type": "em:0.errors.0", "metadata": {"value": "power_meter_failure"}, "time_us": time_us}),
            json!({"type": "em:0.total_act_power", "value": 12.5, "unit": "W", "time_us": time_us}),
            json!({"type": "switch:0.output", "value": 1.0, "time_us": time_us}),
        ];
        assert_eq!(read("shellies/a/events/rpc", payload), expected);
    }

    #[test]
    fn a_button_is_an_event_without_a_value() {
        let payload = r#"{"method":"NotifyEvent","params":{"ts":null,"events":
            [{"component":"input:0","id":0,"event":"single_push","ts":1767225600}]}}"#;
        let expected = json!({"type": "input:0.single_push", "time_us": 1_767_225_600_000_000_i64});
        assert_eq!(read("a/events/rpc", payload), [expected]);
    }

    #[test]
    fn a_component_s_status_has_the_time_of_its_receipt() {
        let payload = r#"{"id":0,"apower":5,"aenergy":{"total":7}}"#;
        let expected = [
            json!({"type": "switch:0.aenergy.total", "value": 7.0, "unit": "Wh"}),
            json!({"type": "switch:0.apower", "value": 5.0, "unit": "W"}),
        ];
        assert_eq!(read("a/status/switch:0", payload), expected);
        let gone = json!({"type": "online", "value": 0.0});
        assert_eq!(read("a/online", "false"), [gone]);
    }

    #[test]
    fn what_is_none_is_refused() {
        for topic in ["a/rpc", "/events/rpc", "a/status", "/status/x", "a"] {
            assert_eq!(ShellyTopic::of(topic), None, "{topic}");
        }
        for payload in [
            "1",
            r#"{"method":"NotifyStatus"}"#,
            r#"{"method":"Other","params":{}}"#,
            r#"{"method":"NotifyStatus","params":{"ts":"now","a":{"b":1}}}"#,
            r#"{"method":"NotifyStatus","params":{"ts":5,"a":7}}"#,
            r#"{"method":"NotifyStatus","params":{"ts":5}}"#,
            r#"{"method":"NotifyEvent","params":{"ts":5,"events":[{}]}}"#,
        ] {
            let refused = shelly(ShellyTopic::Notification, payload.as_bytes());
            assert!(refused.is_err(), "{payload}");
        }
    }
}
