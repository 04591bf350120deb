//! `GetDeviceStatus`, `GetDeviceEvents` and `GetNode`: what this node knows, and what was stored.

use prost::Message;
use tonic::Status;
use tracing::warn;
use uuid::Uuid;

use super::values::{device_id, seconds, struct_of};
use super::{MESSAGE_BYTES_MAX, wire};
use crate::node::Node;
use crate::pipeline::live::{NewestEvent, Peer};
use crate::pipeline::ports::{EventQuery, SinkError, StoredEvent};
use crate::pipeline::registry::Reachability;

const EVENTS_DEFAULT: u32 = 100;
const EVENTS_MAX: u32 = 10_000;
/// Types that one question can name.
const EVENT_TYPES_MAX: usize = 100;
/// An answer is filled up to here; what is around the events takes little.
const EVENTS_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1024;
/// The type of an event that makes a connected device's status one of an error.
const ERROR: &str = "error";
const SECOND_US: i64 = 1_000_000;

/// # Errors
/// `INVALID_ARGUMENT`, `NOT_FOUND` for a device that is not registered, `UNAVAILABLE` without the database.
pub async fn status(
    node: &Node,
    request: wire::DeviceStatusRequest,
) -> Result<wire::DeviceStatusResponse, Status> {
    let device = known_device(node, &request.device_id)?;
    let states = node.live.states.as_ref();
    let state = states.and_then(|states| states.get(device));
    let newest = state.as_ref().and_then(|state| state.newest_event.as_ref());
    let last = match newest {
        Some(event) => Some(live_event(device, event)),
        None => newest_stored(node, device).await?,
    };
    let mut answer = wire::DeviceStatusResponse {
        device_id: device.to_string(),
        status: "offline".to_owned(),
        last_seen: last.as_ref().map_or(0, |event| event.timestamp),
        last_event: last,
        ..wire::DeviceStatusResponse::default()
    };
    if let Some(state) = &state {
        answer.last_seen = answer.last_seen.max(seconds(state.last_seen_us));
    }
    let through_gateway = || {
        let state = state.as_ref().filter(|state| state.is_connected)?;
        let connection = state.connection.as_ref()?;
        let (address, protocol) = (connection.remote_address, connection.protocol);
        Some(Peer { address, protocol })
    };
    if let Some(peer) = node.commands.peer_of(device).or_else(through_gateway) {
        let is_error = answer
            .last_event
            .as_ref()
            .is_some_and(|event| event.event_type == ERROR);
        let status = if is_error { "error" } else { "online" };
        answer.status = status.to_owned();
        answer.node.clone_from(&node.name);
        answer.protocol = peer.protocol.as_str().to_owned();
        answer.remote_address = peer.address.to_string();
    }
    Ok(answer)
}

/// What the device reported last, of what was stored.
async fn newest_stored(node: &Node, device: Uuid) -> Result<Option<wire::DeviceEvent>, Status> {
    let query = EventQuery {
        device_id: device,
        from_us: None,
        to_us: None,
        event_types: Vec::new(),
        is_reported_only: true,
        limit: 1,
    };
    let mut stored = node.reads.events(&query).await.map_err(away)?;
    Ok(stored.pop().map(|event| wire_event(device, event)))
}

fn live_event(device: Uuid, event: &NewestEvent) -> wire::DeviceEvent {
    wire::DeviceEvent {
        device_id: device.to_string(),
        event_type: event.event_type.to_string(),
        timestamp: seconds(event.time_us),
        value: event.value.unwrap_or_default(),
        unit: event.unit.as_deref().unwrap_or_default().to_owned(),
        exact_value: event.value,
        time_us: event.time_us,
        metadata: None,
    }
}

/// # Errors
/// `INVALID_ARGUMENT`, `NOT_FOUND` for a device that is not registered, `RESOURCE_EXHAUSTED` for an answer that would be too
/// large, `UNAVAILABLE` without the database.
pub async fn events(
    node: &Node,
    request: wire::DeviceEventsRequest,
) -> Result<wire::DeviceEventsResponse, Status> {
    let device = known_device(node, &request.device_id)?;
    if request.event_types.len() > EVENT_TYPES_MAX {
        return Err(Status::invalid_argument(format!(
            "{} event types, at most {EVENT_TYPES_MAX} can be asked for",
            request.event_types.len()
        )));
    }
    let limit = match u32::try_from(request.limit) {
        Ok(0) => EVENTS_DEFAULT,
        Ok(limit) => limit.min(EVENTS_MAX),
        Err(_) => return Err(Status::invalid_argument("limit is below 0")),
    };
    let time = |seconds: i64| (seconds != 0).then(|| seconds.saturating_mul(SECOND_US));
    let query = EventQuery {
        device_id: device,
        from_us: time(request.start_time),
        to_us: time(request.end_time),
        event_types: request.event_types,
        is_reported_only: false,
        limit,
    };
    let stored = node.reads.events(&query).await.map_err(away)?;
    let mut events = Vec::with_capacity(stored.len());
    let mut num_bytes = 0;
    for event in stored {
        let event = wire_event(device, event);
        // A field's key and its length take up to 10 bytes.
        num_bytes += event.encoded_len() + 10;
        if num_bytes > EVENTS_BYTES_MAX {
            return Err(Status::resource_exhausted(
                "the answer would be larger than a message can be: ask for fewer events, or for less time",
            ));
        }
        events.push(event);
    }
    Ok(wire::DeviceEventsResponse {
        total_count: i32::try_from(events.len()).unwrap_or(i32::MAX),
        events,
    })
}

/// Which node this is.
pub fn node(node: &Node) -> wire::Node {
    let positions = node.live.hub.positions();
    wire::Node {
        name: node.name.clone(),
        run: node.live.hub.run().to_string(),
        num_connected: u32::try_from(node.live.num_connected()).unwrap_or(u32::MAX),
        first_position: positions.first,
        last_position: positions.last,
    }
}

fn known_device(node: &Node, text: &str) -> Result<Uuid, Status> {
    let device =
        device_id(text).ok_or_else(|| Status::invalid_argument("device_id is not a UUID"))?;
    match node.registry.reachability(device) {
        Reachability::Unknown => Err(Status::not_found("there is no such device")),
        _ => Ok(device),
    }
}

fn wire_event(device: Uuid, event: StoredEvent) -> wire::DeviceEvent {
    wire::DeviceEvent {
        device_id: device.to_string(),
        event_type: event.event_type,
        timestamp: seconds(event.time_us),
        value: event.value.unwrap_or_default(),
        unit: event.unit.unwrap_or_default(),
        exact_value: event.value,
        time_us: event.time_us,
        metadata: event.metadata.and_then(struct_of),
    }
}

fn away(error: SinkError) -> Status {
    warn!(%error, "what was stored cannot be read for the control plane");
    match error {
        SinkError::Misconfigured(_) => Status::failed_precondition(
            "the database does not let this node read events: see the node's log",
        ),
        SinkError::Away(_) | SinkError::Deadline(_) => {
            Status::unavailable("the database does not answer in time")
        }
    }
}
