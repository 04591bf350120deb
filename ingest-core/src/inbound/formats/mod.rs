//! What devices say in forms that are not ours, as events: payload in, encoded events out, no I/O.
//!
//! ```text
//! json_mapping       plain JSON, by the mapping of the device's profile
//! line_protocol      Influx line protocol, over HTTP
//! senml              RFC 8428 in JSON
//! shelly             Shelly of the second generation and later
//! tasmota            Tasmota
//! thingsboard        ThingsBoard's device API: telemetry, attributes, RPC, gateways; over MQTT and HTTP
//! zigbee2mqtt        Zigbee2MQTT, as a gateway with children
//! flat, time         objects within objects as events; times
//! ```
//!
//! **Invariants.** Nothing of a payload is dropped: what is no value of an event is kept as a dead letter, within the message
//! where the rest of it can be understood, else in its place. A time that a device says is its own or none, never another one.

mod flat;
pub mod json_mapping;
pub mod line_protocol;
pub mod senml;
pub mod shelly;
pub mod tasmota;
pub mod thingsboard;
mod time;
pub mod zigbee2mqtt;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::event::Event;
use crate::event::msgpack::{write_array_len, write_str, write_uint};
use crate::frame::json::fault_of;
use crate::frame::{EVENTS_PER_FRAME_MAX, Events, encode_event};
use crate::pipeline::unreadable::Unreadable;

/// What a message may come to: names, units and tags that stand in it once are those of many events.
const DECODED_BYTES_MAX: usize = 16 << 20;

/// Why a payload is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("not JSON: {}", fault_of(.0))]
    Json(#[from] serde_json::Error),
    #[error("not UTF-8: {0}")]
    Text(#[from] std::str::Utf8Error),
    #[error("{0}")]
    Shape(&'static str),
    #[error("{0}")]
    Stranger(String),
    #[error("nothing is published to this topic here")]
    Topic,
    #[error("the device's profile cannot be used: {0}")]
    Profile(String),
    #[error("{0} values, 1 to {EVENTS_PER_FRAME_MAX} make a message")]
    Count(u32),
    #[error("more than {DECODED_BYTES_MAX} bytes of events: send it in parts")]
    Size,
    #[error("a value that no event can hold: {0}")]
    Value(#[from] rmp_serde::encode::Error),
}

/// Where a payload was sent to, for what of it is kept as a dead letter.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
}

/// Events, encoded one after the other.
#[derive(Debug, Default)]
pub struct Decoded {
    pub num_events: u32,
    pub events: Vec<u8>,
}

impl Decoded {
    #[must_use]
    pub fn as_events(&self) -> Events<'_> {
        Events::without_numbers(&self.events, self.num_events)
    }

    /// # Errors
    /// There are none, or more than a message may have.
    pub fn checked(self) -> Result<Self, FormatError> {
        match self.num_events {
            _ if self.is_full() => Err(FormatError::Size),
            1..=EVENTS_PER_FRAME_MAX => Ok(self),
            num_events => Err(FormatError::Count(num_events)),
        }
    }

    /// More than a message may come to: nothing more is taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.events.len() > DECODED_BYTES_MAX
    }

    pub fn push(&mut self, event: &Event<'_>) {
        if self.is_full() {
            return;
        }
        encode_event(event, &mut self.events);
        self.num_events = self.num_events.saturating_add(1);
    }

    /// An event of a JSON value: a number or a boolean is its value, null is none, and any other is `value` in its metadata.
    ///
    /// # Errors
    /// [`FormatError::Value`].
    pub fn push_value(&mut self, about: About<'_>, value: &Value) -> Result<(), FormatError> {
        let (number, metadata) = match value {
            Value::Number(number) => (number.as_f64(), None),
            Value::Bool(is_true) => (Some(f64::from(u8::from(*is_true))), None),
            Value::Null => (None, None),
            other => (None, Some(rmp_serde::to_vec(&json!({"value": other}))?)),
        };
        self.push(&Event {
            time_us: about.time_us,
            event_type: about.key,
            value: number,
            unit: about.unit,
            metadata: metadata.as_deref(),
            device_id: about.device_id,
        });
        Ok(())
    }

    /// A part of a payload that cannot be understood, while the rest of it can: it becomes a dead letter.
    pub fn push_unreadable(&mut self, told: Told<'_>, reason: &str) {
        if self.is_full() {
            return;
        }
        let unreadable = Unreadable {
            topic: told.topic,
            payload: told.payload,
            reason,
        };
        self.events.extend_from_slice(&unreadable.encode());
        self.num_events = self.num_events.saturating_add(1);
    }
}

/// The body of a RESULT frame. What is no object is `value` of one.
///
/// # Errors
/// No result can hold it.
pub fn result_body(
    request_id: &str,
    status: u64,
    message: &str,
    answer: Value,
) -> Result<Vec<u8>, FormatError> {
    let data = match answer {
        object @ Value::Object(_) => object,
        other => json!({"value": other}),
    };
    let data = rmp_serde::to_vec(&data)?;
    let mut body = Vec::with_capacity(data.len() + request_id.len() + message.len() + 16);
    write_array_len(&mut body, 4);
    write_str(&mut body, request_id);
    write_uint(&mut body, status);
    write_str(&mut body, message);
    body.extend_from_slice(&data);
    Ok(body)
}

/// Whose value it is, of what, and when.
#[derive(Debug, Clone, Copy, Default)]
pub struct About<'a> {
    pub key: &'a str,
    pub time_us: Option<i64>,
    pub unit: Option<&'a str>,
    /// A child of the device that speaks.
    pub device_id: Option<Uuid>,
}

/// Reads what was encoded, for tests.
#[cfg(test)]
pub fn told(decoded: &Decoded) -> Vec<Value> {
    use crate::event::metadata_to_json;
    use crate::frame::EventIter;
    use crate::pipeline::unreadable::reason_of;

    let events = EventIter::new(&decoded.events, decoded.num_events);
    let told = events.map(|event| {
        let event = event.unwrap().event;
        let mut json = serde_json::Map::new();
        if let Some(reason) = reason_of(&event) {
            return json!({"unreadable": reason});
        }
        json.insert("type".to_owned(), event.event_type.into());
        if let Some(value) = event.value {
            json.insert("value".to_owned(), value.into());
        }
        if let Some(time_us) = event.time_us {
            json.insert("time_us".to_owned(), time_us.into());
        }
        if let Some(unit) = event.unit {
            json.insert("unit".to_owned(), unit.into());
        }
        if let Some(device_id) = event.device_id {
            json.insert(
                "device_id".to_owned(),
                device_id.as_u128().to_string().into(),
            );
        }
        if let Some(metadata) = event.metadata {
            let mut text = Vec::new();
            metadata_to_json(metadata, &mut text).unwrap();
            json.insert(
                "metadata".to_owned(),
                serde_json::from_slice(&text).unwrap(),
            );
        }
        Value::Object(json)
    });
    told.collect()
}
