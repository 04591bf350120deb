//! Events that come without sequence numbers: what a service says for devices, and what the core says itself.
//!
//! One call is one record of one journal, so it is taken whole or not at all. That it is stored once is the cursor's doing (see
//! `entry`); that it is not sent twice is the caller's, who knows after an answer that it is durable, and without one nothing.

use bytes::Bytes;
use uuid::Uuid;

use super::entry::{Entry, Source};
use super::lane::Lane;
use super::registry::DeviceRegistry;
use crate::event::{Event, RejectCode, check_event};
use crate::frame::encode_event;
use crate::journal::{AppendError, AppendTicket};

/// Events on their way to the disk.
pub struct QueuedUnsequenced {
    pub ticket: AppendTicket,
    /// The entry, for the live feed once it is durable.
    pub payload: Bytes,
}

/// Puts encoded events, each of which names its device, into a journal's queue.
///
/// # Errors
/// The journal's, when it takes nothing of it.
pub fn append(
    lane: &Lane,
    source: Source,
    received_us: i64,
    num_events: u32,
    events: &[u8],
) -> Result<QueuedUnsequenced, AppendError> {
    let entry = Entry::unsequenced(source, received_us, num_events, events);
    let payload = Bytes::from(entry.encode());
    let ticket = lane.journal.append(payload.clone())?;
    lane.note_taken(u64::from(num_events), received_us);
    Ok(QueuedUnsequenced { ticket, payload })
}

/// Events of one call, checked one by one.
#[derive(Debug)]
pub struct Gathered {
    pub received_us: i64,
    oldest_us: i64,
    pub num_events: u32,
    /// Those that were taken, encoded.
    pub events: Vec<u8>,
    /// Whose lane the call goes to; any would do.
    pub first_device: Option<Uuid>,
    /// By their place in the call, ascending.
    pub rejected: Vec<(usize, RejectCode)>,
}

impl Gathered {
    /// Nothing yet, at the time `received_us`; events before `oldest_us` are too old.
    #[must_use]
    pub fn new(received_us: i64, oldest_us: i64) -> Self {
        Self {
            received_us,
            oldest_us,
            num_events: 0,
            events: Vec::new(),
            first_device: None,
            rejected: Vec::new(),
        }
    }

    /// Takes the event at `index` of the call, or notes why not. `event.device_id` is none where it cannot be a device's.
    pub fn take(&mut self, registry: &DeviceRegistry, index: usize, event: &Event<'_>) {
        let verdict = check_event(event, self.received_us, self.oldest_us).and_then(|()| {
            let device = event.device_id.ok_or(RejectCode::UnknownDevice)?;
            registry.may_be_spoken_for(device).map(|()| device)
        });
        match verdict {
            Ok(device) => {
                self.first_device.get_or_insert(device);
                self.num_events += 1;
                encode_event(event, &mut self.events);
            }
            Err(code) => self.rejected.push((index, code)),
        }
    }
}
