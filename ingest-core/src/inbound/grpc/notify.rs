//! `NotifyDeviceEvents`: events from a service that speaks for devices, through the journal like any other.

use std::sync::Arc;

use tokio::time::timeout;
use tonic::Status;
use tracing::error;

use super::values::{device_id, time_us, write_struct};
use super::{NOTIFY_TIMEOUT, wire};
use crate::event::{Event, METADATA_BYTES_MAX, RejectCode};
use crate::frame::EVENTS_PER_FRAME_MAX;
use crate::journal::AppendError;
use crate::metrics::Code;
use crate::node::Node;
use crate::pipeline::batch::DAY_US;
use crate::pipeline::clock::now_us;
use crate::pipeline::entry::Source;
use crate::pipeline::live::Outline;
use crate::pipeline::unsequenced::{Gathered, append};

/// Takes the events of one call into the journal, and answers when they are durable.
///
/// # Errors
/// `INVALID_ARGUMENT` for a call that is too large, `UNAVAILABLE` when nothing was taken, and `UNKNOWN` when that is not known.
pub async fn notify(
    node: &Arc<Node>,
    request: wire::NotifyEventsRequest,
) -> Result<wire::NotifyEventsResponse, Status> {
    if request.events.len() > EVENTS_PER_FRAME_MAX as usize {
        return Err(Status::invalid_argument(format!(
            "{} events, at most {EVENTS_PER_FRAME_MAX} are taken at a time",
            request.events.len()
        )));
    }
    if !node.registry.is_loaded() {
        return Err(Status::unavailable(
            "the device registry is not loaded yet: nothing was taken, try again",
        ));
    }
    let gathered = gather(node, &request);
    if gathered.events.len() > node.config.frame_bytes_max as usize {
        return Err(Status::invalid_argument(
            "the events are larger than this node's journal takes at a time: send fewer",
        ));
    }
    make_durable(node, &gathered).await?;
    Ok(answer(node, &gathered))
}

fn gather(node: &Node, request: &wire::NotifyEventsRequest) -> Gathered {
    let received_us = now_us();
    let retention_us = i64::from(node.config.retention_days) * DAY_US;
    let mut gathered = Gathered::new(received_us, received_us.saturating_sub(retention_us));
    let mut metadata = Vec::new();
    for (index, event) in request.events.iter().enumerate() {
        metadata.clear();
        let fields = event.metadata.as_ref().filter(|m| !m.fields.is_empty());
        let is_map = fields.is_none_or(|fields| write_struct(fields, &mut metadata).is_ok());
        if !is_map || metadata.len() > METADATA_BYTES_MAX {
            gathered.rejected.push((index, RejectCode::BadMetadata));
            continue;
        }
        let taken = Event {
            time_us: time_us(event.timestamp, event.time_us),
            event_type: &event.event_type,
            value: Some(event.exact_value.unwrap_or(event.value)),
            unit: Some(event.unit.as_str()).filter(|unit| !unit.is_empty()),
            metadata: fields.map(|_| metadata.as_slice()),
            device_id: device_id(&event.device_id),
        };
        gathered.take(&node.registry, index, &taken);
    }
    gathered
}

async fn make_durable(node: &Arc<Node>, gathered: &Gathered) -> Result<(), Status> {
    let Some(device) = gathered.first_device else {
        return Ok(());
    };
    let lane = node.lane(device);
    let queued = append(
        &lane,
        Source::Grpc,
        gathered.received_us,
        gathered.num_events,
        &gathered.events,
    )
    .map_err(refused)?;
    // A task of its own: what became durable is told to those who watch, also when the caller has gone.
    let (node, payload) = (Arc::clone(node), queued.payload);
    let durable = tokio::spawn(async move {
        queued.ticket.await?;
        node.live.events(&payload, Outline::Mixed);
        Ok::<_, AppendError>(())
    });
    match timeout(NOTIFY_TIMEOUT, durable).await {
        Ok(Ok(Ok(()))) => Ok(()),
        // What the journal gives back may have been written, and survives a crash that follows at once.
        Ok(Ok(Err(refusal))) => Err(Status::unknown(format!(
            "it is not known whether the events were taken: {refusal}"
        ))),
        Ok(Err(_)) | Err(_) => {
            error!("whether events of a call are durable is not known in time");
            Err(Status::unknown(
                "it is not known whether the events were taken: the disk does not answer",
            ))
        }
    }
}

/// Nothing of the call is in the journal.
fn refused(refusal: AppendError) -> Status {
    match refusal {
        AppendError::Full { .. } => Status::unavailable(format!("nothing was taken: {refusal}")),
        AppendError::TooLarge { .. } => Status::invalid_argument(refusal.to_string()),
        AppendError::Poisoned | AppendError::Closed => Status::unavailable(
            "nothing was taken: this node takes nothing any more, try another, or again later",
        ),
    }
}

fn answer(node: &Node, gathered: &Gathered) -> wire::NotifyEventsResponse {
    let metrics = &node.metrics;
    metrics
        .events_accepted
        .inc_by(u64::from(gathered.num_events));
    for (_, code) in &gathered.rejected {
        let code = code.as_str();
        metrics.events_rejected.get_or_create(&Code { code }).inc();
    }
    let rejected = gathered.rejected.iter();
    wire::NotifyEventsResponse {
        success: gathered.rejected.is_empty(),
        // Both are at most `EVENTS_PER_FRAME_MAX`.
        events_received: i32::try_from(gathered.num_events).unwrap_or(i32::MAX),
        rejected: rejected
            .map(|(index, code)| wire::RejectedEvent {
                index: i32::try_from(*index).unwrap_or(i32::MAX),
                code: code.as_str().to_owned(),
            })
            .collect(),
    }
}
