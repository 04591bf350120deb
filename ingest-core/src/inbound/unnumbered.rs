//! What a device says without numbers and in a form that is not ours, on its way into the journal.

use super::formats::{Decoded, FormatError, Told};
use crate::pipeline::intake::{Intake, Queued, Refusal};
use crate::pipeline::unreadable::Unreadable;

pub struct InQueue {
    pub queued: Queued,
    /// Why all of it is one dead letter, where it is.
    pub why_unreadable: Option<String>,
}

/// Queues the events that were read; what could not be read is kept as it came.
///
/// # Errors
/// Why it is not kept.
pub fn queue(
    intake: &Intake,
    told: Told<'_>,
    decoded: &Result<Decoded, FormatError>,
) -> Result<InQueue, Refusal> {
    let why = match decoded {
        Ok(decoded) => match intake.take_apart(None, decoded.as_events()) {
            Ok(queued) => {
                return Ok(InQueue {
                    queued: queued?,
                    why_unreadable: None,
                });
            }
            Err(failure) => failure.to_string(),
        },
        Err(failure) => failure.to_string(),
    };
    let queued = intake.take_unreadable(&Unreadable {
        topic: told.topic,
        payload: told.payload,
        reason: &why,
    })?;
    Ok(InQueue {
        queued,
        why_unreadable: Some(why),
    })
}
