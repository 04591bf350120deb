use serde::{Serialize, Serializer};
use std::fmt;
use thiserror::Error;

use super::EVENTS_PER_FRAME_MAX;
use crate::event::msgpack::MsgpackError;

/// The code of an ERROR frame, which is always the last one before the close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    Malformed,
    TooLarge,
    UnsupportedVersion,
    AuthFailed,
    StaleEpoch,
    Superseded,
    HelloTimeout,
    IdleTimeout,
    ShuttingDown,
    Internal,
}

impl ErrorCode {
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::TooLarge,
        Self::UnsupportedVersion,
        Self::AuthFailed,
        Self::StaleEpoch,
        Self::Superseded,
        Self::HelloTimeout,
        Self::IdleTimeout,
        Self::ShuttingDown,
        Self::Internal,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::UnsupportedVersion => "unsupported_version",
            Self::AuthFailed => "auth_failed",
            Self::StaleEpoch => "stale_epoch",
            Self::Superseded => "superseded",
            Self::HelloTimeout => "hello_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::ShuttingDown => "shutting_down",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Why a frame or a line cannot be taken. Its text is the message of the ERROR frame, so it says nothing but
/// what the sender knows, and is short whatever was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("{num_bytes} bytes, at most {num_bytes_max} are taken")]
    TooLarge { num_bytes: u64, num_bytes_max: u32 },
    #[error("version {version} is not spoken here")]
    UnsupportedVersion { version: u64 },
    #[error("a frame of length 0 has no kind")]
    Empty,
    #[error("no frame is of kind 0x{kind:02x}")]
    UnknownKind { kind: u8 },
    #[error("a frame of kind 0x{kind:02x} comes from the other side")]
    WrongSide { kind: u8 },
    #[error("{element}: {source}")]
    BadElement {
        element: &'static str,
        source: MsgpackError,
    },
    #[error("{element} is missing")]
    Missing { element: &'static str },
    #[error("{element} is out of range")]
    OutOfRange { element: &'static str },
    #[error("{num_events} events, 1 to {EVENTS_PER_FRAME_MAX} make a frame")]
    EventCount { num_events: u32 },
    #[error("device_id is neither 16 bytes nor a UUID")]
    BadDeviceId,
    #[error("{num_bytes} bytes left over")]
    BytesLeftOver { num_bytes: usize },
    #[error("not the JSON form of a frame, column {column}")]
    BadJson { column: usize },
    /// The transport's messages are not what the protocol allows.
    #[error("websocket: {what}")]
    BadMessage { what: &'static str },
}

impl FrameError {
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::UnsupportedVersion { .. } => ErrorCode::UnsupportedVersion,
            Self::Empty
            | Self::UnknownKind { .. }
            | Self::WrongSide { .. }
            | Self::BadElement { .. }
            | Self::Missing { .. }
            | Self::OutOfRange { .. }
            | Self::EventCount { .. }
            | Self::BadDeviceId
            | Self::BytesLeftOver { .. }
            | Self::BadJson { .. }
            | Self::BadMessage { .. } => ErrorCode::Malformed,
        }
    }
}
