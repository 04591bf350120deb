//! Where appends wait for the writer, and what an append is answered.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::oneshot;

use super::config::JournalConfig;
use super::record;

/// The record's place, durable when this is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub position: u64,
    pub end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AppendError {
    #[error("the journal takes nothing now: {cause}; try again in {retry_after:?}")]
    Full {
        cause: FullCause,
        retry_after: Duration,
    },
    #[error("the journal's disk failed; nothing is taken any more")]
    Poisoned,
    #[error("a record of {bytes} bytes is larger than {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("the journal is closed")]
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FullCause {
    #[error("the writer is behind")]
    Queue,
    #[error("too much is undrained")]
    Undrained,
    #[error("the disk is full")]
    Disk,
}

impl FullCause {
    pub(super) fn error(self) -> AppendError {
        let retry_after = match self {
            Self::Queue => Duration::from_millis(20),
            Self::Undrained | Self::Disk => Duration::from_secs(1),
        };
        AppendError::Full {
            cause: self,
            retry_after,
        }
    }
}

/// Resolves when the record is durable, or refused. Dropping it does not take the record back.
#[derive(Debug)]
pub struct AppendTicket(oneshot::Receiver<Result<Appended, AppendError>>);

impl AppendTicket {
    /// For threads outside the async runtime.
    pub fn wait(self) -> Result<Appended, AppendError> {
        self.0.blocking_recv().unwrap_or(Err(AppendError::Poisoned))
    }
}

impl Future for AppendTicket {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // A writer that is gone without an answer has failed.
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(AppendError::Poisoned)))
    }
}

pub struct Waiting {
    pub payload: Bytes,
    reply: oneshot::Sender<Result<Appended, AppendError>>,
}

impl Waiting {
    pub fn answer(self, answer: Result<Appended, AppendError>) {
        // Nobody listens when the connection is gone; the record stays, and the device will send again.
        let _ = self.reply.send(answer);
    }

    pub fn bytes_on_disk(&self) -> u64 {
        record::bytes_on_disk(self.payload.len()) as u64
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Closing,
    Poisoned,
}

struct QueueState {
    waiting: VecDeque<Waiting>,
    /// Waiting, or in the writer's hands.
    bytes: u64,
    durable_end: u64,
    /// Before this there is nothing to drain: the cursor, or past it where only a seal follows.
    drained_up_to: u64,
    num_refusals: u64,
    /// True from the high watermark until the low one.
    is_refusing: bool,
    phase: Phase,
}

pub struct QueueDepth {
    pub undrained_bytes: u64,
    pub waiting_bytes: u64,
}

pub struct AppendQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
    limits: Limits,
}

struct Limits {
    record_bytes_max: usize,
    group_bytes_max: u64,
    queue_bytes_max: u64,
    bytes_max: u64,
    resume_bytes: u64,
}

impl AppendQueue {
    pub fn new(
        config: &JournalConfig,
        record_bytes_max: usize,
        durable_end: u64,
        drained_up_to: u64,
    ) -> Self {
        let state = QueueState {
            waiting: VecDeque::new(),
            bytes: 0,
            durable_end,
            drained_up_to,
            num_refusals: 0,
            is_refusing: false,
            phase: Phase::Open,
        };
        let limits = Limits {
            record_bytes_max,
            group_bytes_max: config.group_bytes_max as u64,
            queue_bytes_max: config.queue_bytes_max,
            bytes_max: config.bytes_max,
            resume_bytes: config.resume_bytes(),
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            limits,
        }
    }

    pub fn push(&self, payload: Bytes, refusals_seen: u64) -> Result<AppendTicket, AppendError> {
        let bytes_max = self.limits.record_bytes_max;
        if payload.len() > bytes_max {
            return Err(AppendError::TooLarge {
                bytes: payload.len(),
                bytes_max,
            });
        }
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { payload, reply };
        let bytes = waiting.bytes_on_disk();
        let mut state = locked(&self.state);
        if refusals_seen != state.num_refusals {
            return Err(FullCause::Disk.error());
        }
        state.admit(bytes, &self.limits)?;
        state.bytes += bytes;
        state.waiting.push_back(waiting);
        drop(state);
        self.changed.notify_one();
        Ok(AppendTicket(answer))
    }

    /// Moves all that waits into `group`, up to the group's limit. Blocks until there is something;
    /// false when there never will be.
    pub fn take_group(&self, group: &mut VecDeque<Waiting>) -> bool {
        let mut state = locked(&self.state);
        while state.waiting.is_empty() {
            if state.phase != Phase::Open {
                return false;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let mut bytes = 0;
        let is_taken = |next: &&Waiting| {
            bytes += next.bytes_on_disk();
            bytes <= self.limits.group_bytes_max
        };
        // The first is taken whatever its size.
        let num_taken = state.waiting.iter().take_while(is_taken).count().max(1);
        group.extend(state.waiting.drain(..num_taken));
        true
    }

    pub fn group_is_durable(&self, bytes: u64, durable_end: u64) {
        let mut state = locked(&self.state);
        state.bytes = state.bytes.saturating_sub(bytes);
        state.durable_end = durable_end;
    }

    /// Takes what waits behind the refused group, to be refused with it: one of it may belong behind one of the group.
    pub fn group_is_refused(&self, group: &mut VecDeque<Waiting>) {
        let mut state = locked(&self.state);
        state.num_refusals += 1;
        group.append(&mut state.waiting);
        let bytes: u64 = group.iter().map(Waiting::bytes_on_disk).sum();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    pub fn is_refusing(&self) -> bool {
        let mut state = locked(&self.state);
        let undrained = state.undrained_bytes() + state.bytes;
        state.is_refusing &= undrained > self.limits.resume_bytes;
        state.is_refusing
    }

    pub fn num_refusals(&self) -> u64 {
        locked(&self.state).num_refusals
    }

    pub fn is_drained_up_to(&self, position: u64) {
        let mut state = locked(&self.state);
        state.drained_up_to = state.drained_up_to.max(position);
    }

    pub fn depth(&self) -> QueueDepth {
        let state = locked(&self.state);
        QueueDepth {
            undrained_bytes: state.undrained_bytes(),
            waiting_bytes: state.bytes,
        }
    }

    /// Nothing more is taken; what waits is still written.
    pub fn close(&self) {
        let mut state = locked(&self.state);
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Nothing more is taken, and what waits is answered so.
    pub fn poison(&self) {
        let mut state = locked(&self.state);
        state.phase = Phase::Poisoned;
        state.bytes = 0;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        for one in waiting {
            one.answer(Err(AppendError::Poisoned));
        }
    }
}

impl QueueState {
    fn undrained_bytes(&self) -> u64 {
        self.durable_end.saturating_sub(self.drained_up_to)
    }

    fn admit(&mut self, bytes: u64, limits: &Limits) -> Result<(), AppendError> {
        match self.phase {
            Phase::Open => {}
            Phase::Closing => return Err(AppendError::Closed),
            Phase::Poisoned => return Err(AppendError::Poisoned),
        }
        let undrained = self.undrained_bytes() + self.bytes;
        self.is_refusing &= undrained > limits.resume_bytes;
        self.is_refusing |= undrained + bytes > limits.bytes_max;
        if self.is_refusing {
            return Err(FullCause::Undrained.error());
        }
        if self.bytes > 0 && self.bytes + bytes > limits.queue_bytes_max {
            return Err(FullCause::Queue.error());
        }
        Ok(())
    }
}

/// No code of ours panics while holding a lock in a way that leaves what it guards half changed.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
