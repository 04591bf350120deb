//! `SubscribeToDeviceChanges` and `StreamDeviceChanges`: the live feed, for programs that show what happens, one change or many at
//! a time.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::info;
use uuid::Uuid;

use super::gate::CallPermit;
use super::values::{device_id, json_of, seconds, struct_of};
use super::wire::{self, ChangeKind, DeviceChangeEvent, DeviceChanges};
use crate::node::Node;
use crate::pipeline::live::{
    Delivery, DeviceConnection, Filter, LiveEvent, LiveItem, Position, Subscription,
};

/// What one subscriber can name; who wants more takes all and chooses.
const DEVICES_MAX: usize = 10_000;
const EVENT_TYPES_MAX: usize = 100;
const CLIENT_ID_CHARS_MAX: usize = 100;

/// What lets a subscriber be one.
pub type Permits = (Option<CallPermit>, OwnedSemaphorePermit);

/// Tells what happens, as many changes at a time as are there, until the caller or the node ends it.
///
/// # Errors
/// `INVALID_ARGUMENT` for a filter that cannot be meant.
pub fn subscribe(
    node: &Arc<Node>,
    request: &wire::SubscriptionRequest,
    permits: Permits,
) -> Result<impl Stream<Item = Result<DeviceChanges, Status>> + use<>, Status> {
    let filter = filter(request)?;
    let resume_after = request.resume_after.as_ref().map(|position| Position {
        // A run that is none of ours is another one.
        run: Uuid::try_parse(&position.node_run).unwrap_or_default(),
        number: position.number,
    });
    let client: String = request
        .client_id
        .chars()
        .take(CLIENT_ID_CHARS_MAX)
        .collect();
    info!(client, "changes are subscribed to");
    let reader = Reader {
        subscription: node.live.hub.subscribe(filter, resume_after),
        run: node.live.hub.run().to_string(),
        node: node.name.clone(),
        stopping: node.stopping.clone(),
        is_ended: false,
        _permits: permits,
    };
    Ok(stream::unfold(reader, async |mut reader| {
        let next = reader.next().await?;
        Some((next, reader))
    }))
}

/// The same, one by one.
pub fn one_by_one(
    told: impl Stream<Item = Result<DeviceChanges, Status>>,
) -> impl Stream<Item = Result<DeviceChangeEvent, Status>> {
    told.map_ok(|many| stream::iter(many.changes.into_iter().map(Ok)))
        .try_flatten()
}

fn filter(request: &wire::SubscriptionRequest) -> Result<Filter, Status> {
    if request.device_ids.len() > DEVICES_MAX || request.event_types.len() > EVENT_TYPES_MAX {
        return Err(Status::invalid_argument(format!(
            "at most {DEVICES_MAX} devices and {EVENT_TYPES_MAX} event types can be named: leave them out and choose"
        )));
    }
    let ids = request.device_ids.iter().map(|text| {
        device_id(text).ok_or_else(|| Status::invalid_argument("a device_id is not a UUID"))
    });
    let device_ids: HashSet<_, _> = ids.collect::<Result<_, _>>()?;
    let event_types: HashSet<_> = request.event_types.iter().cloned().collect();
    Ok(Filter {
        device_ids: (!device_ids.is_empty()).then_some(device_ids),
        event_types: (!event_types.is_empty()).then_some(event_types),
        with_connections: request.with_connections,
    })
}

/// One subscriber.
struct Reader {
    subscription: Subscription,
    run: String,
    node: String,
    stopping: CancellationToken,
    is_ended: bool,
    _permits: Permits,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<DeviceChanges, Status>> {
        if self.is_ended {
            return None;
        }
        loop {
            let delivery = tokio::select! {
                () = self.stopping.cancelled() => {
                    self.is_ended = true;
                    return Some(Err(Status::unavailable("this node is stopping: subscribe again, or elsewhere")));
                }
                delivery = self.subscription.next() => delivery,
            };
            let changes = self.changes_of(&delivery);
            if !changes.is_empty() {
                return Some(Ok(DeviceChanges { changes }));
            }
        }
    }

    /// Bounded by what the ring hands out at a time.
    fn changes_of(&self, delivery: &Delivery) -> Vec<DeviceChangeEvent> {
        let Self {
            subscription,
            run,
            node,
            ..
        } = self;
        let mut changes = Vec::new();
        let at = |number: u64, kind: ChangeKind| DeviceChangeEvent {
            kind: kind.into(),
            position: Some(wire::Position {
                node_run: run.clone(),
                number,
            }),
            node: node.clone(),
            ..DeviceChangeEvent::default()
        };
        let mut items = delivery.items(subscription.filter()).peekable();
        if delivery.num_missed > 0 {
            let first = items.peek().map(|(number, _)| *number);
            let before = first.map_or(delivery.last_number, |number| number.saturating_sub(1));
            changes.push(DeviceChangeEvent {
                num_missed: delivery.num_missed,
                ..at(before, ChangeKind::Missed)
            });
        }
        for (number, item) in items {
            changes.push(match item {
                LiveItem::Event(event) => event_change(at(number, ChangeKind::Event), &event),
                LiveItem::Connected(connection) => connection_change(
                    at(number, ChangeKind::Connected),
                    connection,
                    connection.connected_us,
                ),
                LiveItem::Disconnected {
                    connection,
                    time_us,
                } => connection_change(at(number, ChangeKind::Disconnected), connection, time_us),
            });
        }
        changes
    }
}

fn event_change(change: DeviceChangeEvent, live: &LiveEvent<'_>) -> DeviceChangeEvent {
    let metadata = live.event.metadata.and_then(json_of);
    DeviceChangeEvent {
        device_id: live.device_id.to_string(),
        event_type: live.event.event_type.to_owned(),
        timestamp: seconds(live.time_us),
        value: live.event.value.unwrap_or_default(),
        unit: live.event.unit.unwrap_or_default().to_owned(),
        metadata: metadata.as_ref().map(texts).unwrap_or_default(),
        time_us: live.time_us,
        exact_value: live.event.value,
        typed_metadata: metadata.and_then(struct_of),
        received_us: live.received_us,
        ..change
    }
}

fn connection_change(
    change: DeviceChangeEvent,
    connection: &DeviceConnection,
    time_us: i64,
) -> DeviceChangeEvent {
    DeviceChangeEvent {
        device_id: connection.device_id.to_string(),
        timestamp: seconds(time_us),
        time_us,
        received_us: time_us,
        protocol: connection.protocol.as_str().to_owned(),
        remote_address: connection.remote_address.to_string(),
        ..change
    }
}

/// Metadata as the source plan has them: texts as they are, anything else as its JSON.
fn texts(metadata: &serde_json::Value) -> BTreeMap<String, String> {
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let members = metadata.as_object().into_iter().flatten();
    members
        .map(|(key, value)| (key.clone(), text(value)))
        .collect()
}
