//! Zigbee2MQTT, which is a gateway: its devices are its children, under their friendly names.
//! Topics: <https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html>.
//!
//! ```text
//! zigbee2mqtt/{name}               {"temperature": 21.5, "battery": 90, "linkquality": 120}; a name may have levels
//! zigbee2mqtt/{name}/availability  {"state": "online"} | online
//! zigbee2mqtt/bridge/state         the same, of the gateway itself
//! zigbee2mqtt/{name}/set           what it is told: {"state": "ON"}; it says the state as soon as it is so
//! zigbee2mqtt/bridge/request/...   the same of the gateway itself, with a `transaction`, which its `response` has, too
//! zigbee2mqtt/bridge/...           what it says of itself: an event `bridge.{...}` of the gateway, with the payload in its metadata
//! ```

use serde::Deserialize;
use serde_json::{Map, Value};

use super::flat::{ONLINE, Reading};
use super::{About, Decoded, FormatError};
use crate::inbound::formats::Told;
use crate::inbound::formats::thingsboard::{ChildOf, no_such_child};

const BASE: &str = "zigbee2mqtt/";
const AVAILABILITY: &str = "/availability";
/// What others say to it, which it does not publish.
const ASKED: [&str; 2] = ["/set", "/get"];

/// By which it hears commands, and itself.
pub const ALL: &str = "zigbee2mqtt/#";
/// The command that asks for values.
const GET: &str = "get";

/// Where Zigbee2MQTT hears a command for a child.
#[must_use]
pub fn command_topic(name: &str, command: &str) -> String {
    format!("{BASE}{name}/{command}")
}

/// Where it hears one for itself.
#[must_use]
pub fn request_topic(command: &str) -> String {
    format!("{BASE}bridge/request/{command}")
}

/// Does a child's state say that a command was done? That all is now as it was to be set, or that all that was asked for is there.
#[must_use]
pub fn is_done(command: &str, params: &Map<String, Value>, state: &Map<String, Value>) -> bool {
    let is_same = |wanted: &Value, said: &Value| match (wanted.as_f64(), said.as_f64()) {
        (Some(wanted), Some(said)) => wanted == said,
        _ => wanted == said,
    };
    params.iter().all(|(key, wanted)| {
        let said = state.get(key);
        said.is_some_and(|said| command == GET || is_same(wanted, said))
    })
}

/// What the gateway answers for itself.
#[derive(Debug, Deserialize)]
pub struct Response {
    /// The number of its command.
    pub transaction: u32,
    status: String,
    #[serde(default)]
    pub error: String,
    #[serde(default)]
    pub data: Value,
}

impl Response {
    /// None for what is no answer, or one to somebody else.
    #[must_use]
    pub fn read(about: &str, payload: &[u8]) -> Option<Self> {
        about.strip_prefix("response/")?;
        serde_json::from_slice(payload).ok()
    }

    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status == "ok"
    }
}

/// What a topic of Zigbee2MQTT brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZigbeeTopic<'a> {
    Values { name: &'a str },
    Availability { name: &'a str },
    BridgeState,
    Bridge { about: &'a str },
}

impl<'a> ZigbeeTopic<'a> {
    #[must_use]
    pub fn of(topic: &'a str) -> Option<Self> {
        let name = topic.strip_prefix(BASE).filter(|name| !name.is_empty())?;
        if name == "bridge/state" {
            return Some(Self::BridgeState);
        }
        if let Some(about) = name.strip_prefix("bridge/") {
            return Some(Self::Bridge { about });
        }
        if ASKED.iter().any(|asked| name.ends_with(asked)) {
            return None;
        }
        match name.strip_suffix(AVAILABILITY) {
            Some(name) if !name.is_empty() => Some(Self::Availability { name }),
            _ => Some(Self::Values { name }),
        }
    }
}

/// Reads what was published to such a topic.
///
/// # Errors
/// Why it is not what it should be. What is said of an unknown child becomes a dead letter.
pub fn zigbee2mqtt(
    topic: ZigbeeTopic<'_>,
    told: Told<'_>,
    child_of: ChildOf<'_>,
) -> Result<Decoded, FormatError> {
    let mut decoded = Decoded::default();
    let child = match topic {
        ZigbeeTopic::Values { name } | ZigbeeTopic::Availability { name } => match child_of(name) {
            Some(child) => Some(child),
            None => {
                decoded.push_unreadable(told, &no_such_child(name));
                return Ok(decoded);
            }
        },
        ZigbeeTopic::BridgeState | ZigbeeTopic::Bridge { .. } => None,
    };
    let reading = Reading::plain(child);
    match topic {
        ZigbeeTopic::Values { .. } => {
            let values: Value = serde_json::from_slice(told.payload)?;
            if !values.is_object() {
                return Err(FormatError::Shape("a device's state is an object"));
            }
            reading.push(&mut decoded, "", &values)?;
        }
        ZigbeeTopic::Availability { .. } | ZigbeeTopic::BridgeState => {
            let text = std::str::from_utf8(told.payload)?;
            let said: Option<Value> = serde_json::from_str(text).ok();
            let state = said.as_ref().and_then(|said| said.get("state")?.as_str());
            let state = state.unwrap_or(text);
            if !matches!(state, "online" | "offline") {
                return Err(FormatError::Shape("neither online nor offline"));
            }
            reading.push_text(&mut decoded, ONLINE, state)?;
        }
        ZigbeeTopic::Bridge { about } => {
            let text = std::str::from_utf8(told.payload)?;
            let said = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
            let said = match said {
                Value::Number(number) => Value::from(number.to_string()),
                Value::Bool(is_true) => Value::from(is_true.to_string()),
                other => other,
            };
            let key = format!("bridge.{}", about.replace('/', "."));
            let about = About {
                key: &key,
                ..About::default()
            };
            decoded.push_value(about, &said)?;
        }
    }
    decoded.checked()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::inbound::formats::told as said_by;

    fn read(topic: &str, payload: &str) -> Vec<Value> {
        let known = ZigbeeTopic::of(topic).unwrap();
        let payload = payload.as_bytes();
        let child_of = |name: &str| (name == "hall/lamp").then(|| Uuid::from_u128(1));
        said_by(&zigbee2mqtt(known, Told { topic, payload }, &child_of).unwrap())
    }

    #[test]
    fn what_a_device_says_is_its_own() {
        let said = read(
            "zigbee2mqtt/hall/lamp",
            r#"{"state": "ON", "brightness": 120, "color": {"x": 0.4}, "update": null}"#,
        );
        let expected = [
            json!({"type": "brightness", "value": 120.0, "device_id": "1"}),
            json!({"type": "color.x", "value": 0.4, "device_id": "1"}),
            json!({"type": "state", "value": 1.0, "metadata": {"value": "ON"}, "device_id": "1"}),
        ];
        assert_eq!(said, expected);
        let gone = json!({"type": "online", "value": 0.0, "metadata": {"value": "offline"}, "device_id": "1"});
        for payload in [r#"{"state": "offline"}"#, "offline"] {
            let topic = "zigbee2mqtt/hall/lamp/availability";
            assert_eq!(read(topic, payload), std::slice::from_ref(&gone));
        }
    }

    #[test]
    fn of_an_unknown_device_it_is_kept() {
        let said = read("zigbee2mqtt/door", r#"{"contact": true}"#);
        assert!(said[0]["unreadable"].as_str().unwrap().contains("\"door\""));
    }

    #[test]
    fn what_the_bridge_says_is_the_gateway_s() {
        let online = json!({"type": "online", "value": 1.0, "metadata": {"value": "online"}});
        let state = "zigbee2mqtt/bridge/state";
        assert_eq!(read(state, r#"{"state": "online"}"#), [online]);
        let log = json!({"type": "bridge.logging", "metadata": {"value": {"level": "info"}}});
        assert_eq!(
            read("zigbee2mqtt/bridge/logging", r#"{"level": "info"}"#),
            [log]
        );
        let event = json!({"type": "bridge.response.permit_join", "metadata": {"value": "true"}});
        let topic = "zigbee2mqtt/bridge/response/permit_join";
        assert_eq!(read(topic, "true"), [event]);
    }

    #[test]
    fn a_command_is_done_when_the_state_says_so() {
        let state = json!({"state": "ON", "brightness": 120.0, "linkquality": 7});
        let state = state.as_object().unwrap();
        for (command, params, done) in [
            ("set", json!({"state": "ON"}), true),
            ("set", json!({"state": "ON", "brightness": 120}), true),
            ("set", json!({"state": "OFF"}), false),
            ("set", json!({"state": "ON", "color": 1}), false),
            ("get", json!({"brightness": ""}), true),
            ("get", json!({"color": ""}), false),
        ] {
            let params = params.as_object().unwrap();
            assert_eq!(is_done(command, params, state), done, "{params:?}");
        }
        let response = |about, payload: &str| {
            let response = Response::read(about, payload.as_bytes())?;
            Some((response.transaction, response.is_ok()))
        };
        let about = "response/permit_join";
        let failed = r#"{"status": "error", "error": "no", "transaction": 7}"#;
        assert_eq!(response(about, failed), Some((7, false)));
        let done = r#"{"status": "ok", "data": {}, "transaction": 7}"#;
        assert_eq!(response(about, done), Some((7, true)));
        assert_eq!(response("logging", done), None);
        assert_eq!(
            response(about, r#"{"status": "ok", "transaction": "x"}"#),
            None
        );
    }

    #[test]
    fn what_is_none_is_refused() {
        for topic in [
            "zigbee2mqtt",
            "zigbee2mqtt/",
            "zigbee2mqtt/lamp/set",
            "other/lamp",
        ] {
            assert_eq!(ZigbeeTopic::of(topic), None, "{topic}");
        }
        let topic = "zigbee2mqtt/hall/lamp";
        let child_of = |_: &str| Some(Uuid::nil());
        for payload in [&b"1"[..], b"{", b"{}"] {
            let told = Told { topic, payload };
            let known = ZigbeeTopic::of(topic).unwrap();
            assert!(zigbee2mqtt(known, told, &child_of).is_err());
        }
    }
}
