//! Keys and values as others read them: `device:state:{device_id}` and `ingest:node:{name}`, JSON, times in milliseconds.
//!
//! The order of the fields is part of the form: the scripts that merge states cut them by their names.

use std::net::SocketAddr;

use serde::Serialize;
use uuid::Uuid;

use crate::pipeline::live::{DeviceState, NewestEvent};

/// A node's entry is gone so many seconds after its last sign of life.
pub const NODE_KEPT_SECONDS: u64 = 15;
/// The state of a device that is not connected is kept so long: seven days.
pub const OFFLINE_KEPT_SECONDS: u64 = 7 * 24 * 3600;
/// The set of all nodes' names; those whose entry is gone are taken out by whoever sees it.
pub const NODE_NAMES_KEY: &str = "ingest:node_names";
pub const STATE_KEYS: &str = "device:state:*";

#[must_use]
pub fn state_key(device_id: Uuid) -> String {
    format!("device:state:{device_id}")
}

#[must_use]
pub fn node_key(name: &str) -> String {
    format!("ingest:node:{name}")
}

/// How others find this node.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeEntry {
    pub name: String,
    /// This run of the process.
    pub run: Uuid,
    /// `host:port`; none while gRPC is not served.
    pub grpc_address: Option<String>,
    /// Milliseconds since 1970.
    pub started_at: i64,
}

#[derive(Serialize)]
struct Event<'a> {
    r#type: &'a str,
    value: Option<f64>,
    unit: Option<&'a str>,
    timestamp: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection<'a> {
    connected: bool,
    last_seen: i64,
    protocol: &'a str,
    remote_address: Option<SocketAddr>,
    node: &'a str,
    run: Uuid,
    connected_at: i64,
}

/// A state in the parts that the script puts together.
#[derive(Debug, PartialEq)]
pub struct StateParts {
    pub event_ms: Option<i64>,
    pub event: String,
    pub begin_ms: i64,
    pub connection: String,
}

impl StateParts {
    #[must_use]
    pub fn of(state: &DeviceState, node: &NodeEntry) -> Self {
        let connection = state.connection.as_ref();
        let begin_ms = connection.map_or(0, |connection| milliseconds(connection.connected_us));
        let connection = Connection {
            connected: state.is_connected,
            last_seen: milliseconds(state.last_seen_us),
            protocol: connection.map_or("", |connection| connection.protocol.as_str()),
            remote_address: connection.map(|connection| connection.remote_address),
            node: &node.name,
            run: node.run,
            connected_at: begin_ms,
        };
        let event = state.newest_event.as_ref();
        Self {
            event_ms: event.map(|event| milliseconds(event.time_us)),
            event: event.map_or_else(|| "null".to_owned(), event_json),
            begin_ms,
            connection: json(&connection),
        }
    }
}

fn event_json(event: &NewestEvent) -> String {
    json(&Event {
        r#type: &event.event_type,
        value: event.value,
        unit: event.unit.as_deref(),
        timestamp: milliseconds(event.time_us),
    })
}

#[must_use]
pub fn milliseconds(microseconds: i64) -> i64 {
    microseconds.div_euclid(1000)
}

/// Of our own structs and of texts, which always serialise.
#[must_use]
pub fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pipeline::live::{DeviceConnection, Protocol};

    fn node() -> NodeEntry {
        NodeEntry {
            name: "a \"node\"".to_owned(),
            run: Uuid::from_u128(9),
            grpc_address: None,
            started_at: 1,
        }
    }

    #[test]
    fn a_state_is_in_the_form_that_the_script_cuts() {
        let connection = DeviceConnection {
            device_id: Uuid::from_u128(1),
            protocol: Protocol::Hdp,
            remote_address: "127.0.0.1:7".parse().unwrap(),
            connected_us: 5_999,
        };
        let newest_event = NewestEvent {
            time_us: -1,
            event_type: ",\"connectionState\":".into(),
            value: Some(0.1),
            unit: None,
        };
        let state = DeviceState {
            device_id: Uuid::from_u128(1),
            connection: Some(Arc::new(connection)),
            is_connected: true,
            last_seen_us: 7_000,
            newest_event: Some(newest_event),
        };
        let parts = StateParts::of(&state, &node());
        let event = r#"{"type":",\"connectionState\":","value":0.1,"unit":null,"timestamp":-1}"#;
        let connection = r#"{"connected":true,"lastSeen":7,"protocol":"hdp","remoteAddress":"127.0.0.1:7","node":"a \"node\"","run":"00000000-0000-0000-0000-000000000009","connectedAt":5}"#;
        assert_eq!((parts.event_ms, parts.begin_ms), (Some(-1), 5));
        assert_eq!(
            (parts.event.as_str(), parts.connection.as_str()),
            (event, connection)
        );
    }

    #[test]
    fn a_device_that_nobody_heard_of_is_offline_and_has_no_event() {
        let state = DeviceState {
            device_id: Uuid::from_u128(1),
            connection: None,
            is_connected: false,
            last_seen_us: 0,
            newest_event: None,
        };
        let parts = StateParts::of(&state, &node());
        assert_eq!((parts.event_ms, parts.event.as_str()), (None, "null"));
        assert!(parts.connection.starts_with(r#"{"connected":false,"#));
    }
}
