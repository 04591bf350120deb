//! Attributes: what a device reported to be is "client", what it is desired to be "shared".

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::ChildOf;
use super::telemetry::push_stranger;
use crate::event::Event;
use crate::inbound::formats::{Decoded, FormatError, Told};
use crate::pipeline::attributes::{ATTRIBUTES_REPORTED, Attributes};

/// Reads what a device reports of itself.
///
/// # Errors
/// Why it is no report.
pub fn attributes(payload: &[u8]) -> Result<Decoded, FormatError> {
    let mut decoded = Decoded::default();
    push_report(&mut decoded, &serde_json::from_slice(payload)?, None)?;
    Ok(decoded)
}

/// Reads what a gateway reports of its children, `{"child": {"k": v}, ...}`.
///
/// # Errors
/// Why it is no report.
pub fn gateway_attributes(told: Told<'_>, child_of: ChildOf<'_>) -> Result<Decoded, FormatError> {
    let Value::Object(by_child) = serde_json::from_slice(told.payload)? else {
        return Err(FormatError::Shape("a gateway's attributes are an object"));
    };
    let mut decoded = Decoded::default();
    for (name, report) in &by_child {
        match child_of(name) {
            Some(child) => push_report(&mut decoded, report, Some(child))?,
            None => push_stranger(&mut decoded, told.topic, name, report),
        }
    }
    decoded.checked()
}

fn push_report(
    decoded: &mut Decoded,
    report: &Value,
    child: Option<Uuid>,
) -> Result<(), FormatError> {
    if !report.is_object() {
        return Err(FormatError::Shape("attributes are an object"));
    }
    let metadata = rmp_serde::to_vec(report)?;
    decoded.push(&Event {
        time_us: None,
        event_type: ATTRIBUTES_REPORTED,
        value: None,
        unit: None,
        metadata: Some(&metadata),
        device_id: child,
    });
    Ok(())
}

/// Which attributes a device asks for. Where it names none of either kind, it asks for all.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttributeRequest {
    /// Names with commas between them.
    pub client_keys: Option<String>,
    pub shared_keys: Option<String>,
}

impl AttributeRequest {
    /// # Errors
    /// It is not one.
    pub fn read(payload: &[u8]) -> Result<Self, FormatError> {
        if payload.is_empty() {
            return Ok(Self::default());
        }
        Ok(serde_json::from_slice(payload)?)
    }

    /// `{"client": {...}, "shared": {...}}`, each where there is something.
    #[must_use]
    pub fn answer(&self, known: &Attributes) -> Value {
        let is_for_all = self.client_keys.is_none() && self.shared_keys.is_none();
        let mut answer = Map::new();
        for (name, keys, all) in [
            ("client", &self.client_keys, &known.reported),
            ("shared", &self.shared_keys, &known.desired),
        ] {
            let asked = match keys {
                Some(keys) => some_of(all, keys.split(',').map(str::trim)),
                None if is_for_all => all.clone(),
                None => Map::new(),
            };
            if !asked.is_empty() {
                answer.insert(name.to_owned(), asked.into());
            }
        }
        answer.into()
    }
}

fn some_of<'k>(
    all: &Map<String, Value>,
    keys: impl Iterator<Item = &'k str>,
) -> Map<String, Value> {
    let found = keys.filter_map(|key| Some((key.to_owned(), all.get(key)?.clone())));
    found.collect()
}

/// Which attributes of a child a gateway asks for.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct GatewayAttributeRequest {
    pub id: u64,
    pub device: String,
    /// Of what was reported; else of what is desired.
    #[serde(default)]
    client: bool,
    key: Option<String>,
    keys: Option<Vec<String>>,
}

impl GatewayAttributeRequest {
    /// # Errors
    /// It is not one.
    pub fn read(payload: &[u8]) -> Result<Self, FormatError> {
        let request: Self = serde_json::from_slice(payload)?;
        if request.key.is_none() && request.keys.is_none() {
            return Err(FormatError::Shape("neither key nor keys"));
        }
        Ok(request)
    }

    /// `value` where one was asked for, else `values`.
    #[must_use]
    pub fn answer(&self, known: &Attributes) -> Value {
        let all = match self.client {
            true => &known.reported,
            false => &known.desired,
        };
        let (id, device) = (self.id, &self.device);
        match (&self.key, &self.keys) {
            (_, Some(keys)) => {
                let values = some_of(all, keys.iter().map(String::as_str));
                json!({"id": id, "device": device, "values": values})
            }
            (Some(key), None) => match all.get(key) {
                Some(value) => json!({"id": id, "device": device, "value": value}),
                None => json!({"id": id, "device": device}),
            },
            (None, None) => json!({"id": id, "device": device}),
        }
    }
}

/// What a device was told that it is desired to be: of each attribute a hash, so that thousands of devices cost little.
#[derive(Debug, Default)]
pub struct ToldAttributes {
    hashes: BTreeMap<String, u64>,
    hasher: foldhash::quality::RandomState,
}

impl ToldAttributes {
    /// What is otherwise now, and `deleted` with the names of what is not there any more; none where nothing is.
    pub fn changes(&mut self, desired: &Map<String, Value>) -> Option<Value> {
        let mut changes = Map::new();
        for (name, value) in desired {
            let hash = self.hasher.hash_one(value.to_string());
            if self.hashes.insert(name.clone(), hash) != Some(hash) {
                changes.insert(name.clone(), value.clone());
            }
        }
        let mut deleted = Vec::new();
        self.hashes.retain(|name, _| {
            let is_there = desired.contains_key(name);
            if !is_there {
                deleted.push(Value::from(name.as_str()));
            }
            is_there
        });
        if !deleted.is_empty() {
            changes.insert("deleted".to_owned(), deleted.into());
        }
        (!changes.is_empty()).then(|| changes.into())
    }
}

/// What a gateway is told of a child.
#[must_use]
pub fn gateway_update(child: &str, changes: &Value) -> Value {
    json!({"device": child, "data": changes})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::formats::told;

    fn known() -> Attributes {
        let object = |value: Value| value.as_object().unwrap().clone();
        Attributes {
            desired: object(json!({"interval": 60, "mode": {"eco": true}})),
            reported: object(json!({"firmware": "1.2", "rssi": -70})),
        }
    }

    #[test]
    fn a_report_is_one_event_with_all_that_is_reported() {
        let decoded = attributes(br#"{"firmware": "1.2", "net": {"rssi": -70}}"#).unwrap();
        let expected = json!({
            "type": "attributes_reported",
            "metadata": {"firmware": "1.2", "net": {"rssi": -70}},
        });
        assert_eq!(told(&decoded), [expected]);
        for payload in [&b"[]"[..], b"1", b"{"] {
            assert!(attributes(payload).is_err());
        }
    }

    #[test]
    fn a_gateway_reports_for_its_children() {
        let topic = "v1/gateway/attributes";
        let payload = br#"{"A": {"x": 1}, "B": {"x": 2}}"#;
        let child_of = |name: &str| (name == "A").then(|| Uuid::from_u128(1));
        let decoded = gateway_attributes(Told { topic, payload }, &child_of).unwrap();
        let said = told(&decoded);
        assert_eq!(
            said[0],
            json!({"type": "attributes_reported", "device_id": "1", "metadata": {"x": 1}})
        );
        assert!(said[1]["unreadable"].as_str().unwrap().contains("\"B\""));
    }

    #[test]
    fn a_request_is_answered_with_what_it_asks_for() {
        for (request, answer) in [
            (
                r#"{"clientKeys": "firmware, none", "sharedKeys": "mode"}"#,
                json!({"client": {"firmware": "1.2"}, "shared": {"mode": {"eco": true}}}),
            ),
            (
                r#"{"sharedKeys": "interval"}"#,
                json!({"shared": {"interval": 60}}),
            ),
            (r#"{"clientKeys": "none"}"#, json!({})),
            (
                "{}",
                json!({"client": known().reported, "shared": known().desired}),
            ),
            (
                "",
                json!({"client": known().reported, "shared": known().desired}),
            ),
        ] {
            let read = AttributeRequest::read(request.as_bytes()).unwrap();
            assert_eq!(read.answer(&known()), answer, "{request}");
        }
        assert!(AttributeRequest::read(b"[]").is_err());
    }

    #[test]
    fn a_gateway_s_request_is_answered_in_the_form_of_the_question() {
        for (request, answer) in [
            (
                r#"{"id": 7, "device": "A", "client": true, "key": "rssi"}"#,
                json!({"id": 7, "device": "A", "value": -70}),
            ),
            (
                r#"{"id": 7, "device": "A", "client": false, "keys": ["interval", "x"]}"#,
                json!({"id": 7, "device": "A", "values": {"interval": 60}}),
            ),
            (
                r#"{"id": 7, "device": "A", "key": "rssi"}"#,
                json!({"id": 7, "device": "A"}),
            ),
        ] {
            let read = GatewayAttributeRequest::read(request.as_bytes()).unwrap();
            assert_eq!(read.answer(&known()), answer, "{request}");
        }
        assert!(GatewayAttributeRequest::read(br#"{"id": 7, "device": "A"}"#).is_err());
    }

    #[test]
    fn a_device_is_told_what_is_otherwise_than_it_was_told() {
        let mut told = ToldAttributes::default();
        let desired = known().desired;
        assert_eq!(told.changes(&Map::new()), None);
        assert_eq!(told.changes(&desired), Some(desired.clone().into()));
        assert_eq!(told.changes(&desired), None);
        let now = json!({"mode": {"eco": false}});
        let changes = json!({"mode": {"eco": false}, "deleted": ["interval"]});
        assert_eq!(told.changes(now.as_object().unwrap()), Some(changes));
    }
}
