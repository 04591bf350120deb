//! How a connection ends, and its last words.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::wire::Wire;
use crate::config::LAST_WORDS_TIMEOUT;
use crate::frame::{ErrorCode, FrameError, Outgoing};
use crate::metrics::Code;
use crate::node::Node;
use crate::pipeline::sessions::{EndReason, TakeOverError};

/// How a connection ends.
#[derive(Debug)]
pub enum End {
    /// The device said BYE or closed its side.
    Closed,
    /// The socket broke, or the device did not read for too long: there is nobody to tell.
    Broken(io::Error),
    /// The device is told why.
    Error(ErrorCode, String),
}

impl From<io::Error> for End {
    /// What a transport found wrong with the peer's messages is told to the peer.
    fn from(error: io::Error) -> Self {
        match error.downcast::<FrameError>() {
            Ok(violation) => violation.into(),
            Err(error) => Self::Broken(error),
        }
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Error(error.code(), error.to_string())
    }
}

impl From<TakeOverError> for End {
    fn from(error: TakeOverError) -> Self {
        match error {
            TakeOverError::StaleEpoch(stale) => {
                Self::Error(ErrorCode::StaleEpoch, stale.to_string())
            }
            TakeOverError::Ended(reason) => reason.into(),
        }
    }
}

impl From<EndReason> for End {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::Superseded => Self::Error(
                ErrorCode::Superseded,
                "this device connected again".to_owned(),
            ),
            EndReason::Revoked => auth_failed(),
        }
    }
}

pub fn auth_failed() -> End {
    End::Error(
        ErrorCode::AuthFailed,
        "unknown device, wrong token, or disabled device".to_owned(),
    )
}

pub fn shutting_down() -> End {
    End::Error(
        ErrorCode::ShuttingDown,
        "this node is stopping: reconnect after a random delay".to_owned(),
    )
}

pub fn internal() -> End {
    End::Error(
        ErrorCode::Internal,
        "this node cannot make events durable: reconnect after a random delay".to_owned(),
    )
}

/// Tells the device why, if it can still be told.
pub async fn say_end<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    wire: &mut Wire<S>,
    end: &End,
) {
    match end {
        End::Broken(_) => return,
        End::Closed => {}
        End::Error(code, message) => {
            node.metrics
                .errors
                .get_or_create(&Code {
                    code: code.as_str(),
                })
                .inc();
            wire.queue(&Outgoing::Error {
                code: *code,
                message,
            });
        }
    }
    // The peer may be gone already; there is nobody left to tell.
    let _ = timeout(LAST_WORDS_TIMEOUT, async {
        wire.flush().await.and(wire.shutdown().await)
    })
    .await;
}
