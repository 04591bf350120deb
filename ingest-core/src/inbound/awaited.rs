//! What a connection waits for: the journal's answers, in the order in which the frames came.

use std::collections::VecDeque;
use std::time::Instant;

use crate::journal::AppendError;
use crate::pipeline::intake::Queued;
use crate::pipeline::unsequenced::QueuedUnsequenced;

/// A frame that waits for the journal's answer.
pub struct Waiting {
    pub read_at: Instant,
    pub awaited: Awaited,
}

pub enum Awaited {
    Queued(Queued),
    /// It was taken before and only the acknowledgement is repeated; like the first one, once all of it is durable.
    Duplicate {
        last_seq: u64,
    },
    /// A RESULT, which is not acknowledged: it waits so that a device can send no more of them than are durable in time.
    Result(QueuedUnsequenced),
    /// Nothing of it went to the journal.
    Nothing,
}

impl Awaited {
    /// The journal's answer. Cancel-safe.
    pub async fn outcome(&mut self) -> Result<(), AppendError> {
        match self {
            Self::Queued(queued) => (&mut queued.ticket).await.map(drop),
            Self::Result(queued) => (&mut queued.ticket).await.map(drop),
            // What it repeats was decided before it.
            Self::Duplicate { .. } | Self::Nothing => Ok(()),
        }
    }
}

/// The journal's answer for the first waiting frame. Pends when none waits.
pub async fn first_outcome(waiting: &mut VecDeque<Waiting>) -> Result<(), AppendError> {
    match waiting.front_mut() {
        Some(waiting) => waiting.awaited.outcome().await,
        None => std::future::pending().await,
    }
}
