//! Events on their way to the disk: who is answered, is answered when they are durable.

use std::sync::Arc;
use std::time::Instant;

use tracing::error;
use uuid::Uuid;

use crate::inbound::formats::{Decoded, FormatError, Told};
use crate::inbound::unnumbered::queue;
use crate::node::Node;
use crate::pipeline::entry::Source;
use crate::pipeline::intake::{Queued, Refusal};

/// What became of what a device sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// All of it, as events or as dead letters.
    Events,
    /// Nothing of it can be taken for an event; it is kept as dead letters.
    Unreadable(String),
    /// Nothing of it; it is to be sent again.
    Refused(Refusal),
}

/// Keeps what was read, or what could not be. Returns when it is durable; that it is goes on when nobody waits any more.
pub async fn keep(
    node: &Arc<Node>,
    device_id: Uuid,
    told: Told<'_>,
    decoded: Result<Decoded, FormatError>,
) -> Kept {
    let read_at = Instant::now();
    let intake = node.intake(Source::Http, device_id);
    let taken = match queue(&intake, told, &decoded) {
        Ok(taken) => taken,
        Err(refusal) => {
            intake.count_refusal(refusal);
            return Kept::Refused(refusal);
        }
    };
    let queued = taken.queued;
    let unreadable = (taken.why_unreadable).or_else(|| all_refused(&queued));
    let settled = tokio::spawn(async move {
        let settled = intake.settle_apart(queued).await;
        intake.observe_ack(read_at);
        settled
    });
    match (settled.await, unreadable) {
        (Ok(Ok(())), None) => Kept::Events,
        (Ok(Ok(())), Some(why)) => Kept::Unreadable(why),
        (Ok(Err(refusal)), _) => Kept::Refused(refusal),
        (Err(failure), _) => {
            error!(%failure, "what waits for the journal has ended");
            Kept::Refused(Refusal::JournalGone)
        }
    }
}

/// Why, where nothing of it is an event.
fn all_refused(queued: &Queued) -> Option<String> {
    let (_, code) = queued.rejected.first()?;
    let is_all = queued.rejected.len() as u64 == queued.num_events;
    is_all.then(|| code.to_string())
}
