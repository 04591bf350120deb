//! One command, and what is told of it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use uuid::Uuid;

use crate::pipeline::clock::now_us;

/// One command for one device.
#[derive(Debug)]
pub struct Command {
    pub device_id: Uuid,
    pub request_id: Arc<str>,
    pub command_type: String,
    /// A MessagePack map.
    pub params: Vec<u8>,
    /// As the device is told, Unix microseconds.
    pub deadline_us: i64,
    /// Until when the result is waited for here.
    pub deadline: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandState {
    Sent,
    Delivered,
    Succeeded,
    Failed,
    Offline,
    TimedOut,
    Rejected,
}

impl CommandState {
    #[must_use]
    pub fn is_end(self) -> bool {
        !matches!(self, Self::Sent | Self::Delivered)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Offline => "offline",
            Self::TimedOut => "timed_out",
            Self::Rejected => "rejected",
        }
    }
}

/// One state of one command, as a listener hears it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub device_id: Uuid,
    pub request_id: Arc<str>,
    pub state: CommandState,
    pub time_us: i64,
    /// The device's; 0 where it did not answer.
    pub status: u64,
    pub message: String,
    /// A MessagePack map.
    pub data: Option<Bytes>,
}

impl Progress {
    #[must_use]
    pub fn new(device_id: Uuid, request_id: &Arc<str>, state: CommandState, message: &str) -> Self {
        Self {
            device_id,
            request_id: Arc::clone(request_id),
            state,
            time_us: now_us(),
            status: 0,
            message: message.to_owned(),
            data: None,
        }
    }
}
