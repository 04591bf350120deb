//! How a connection ends, and its last words.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::debug;

use super::codec::{CodecError, ReasonCode};
use crate::config::LAST_WORDS_TIMEOUT;
use crate::frame::FrameError;
use crate::inbound::buffered::Buffered;
use crate::metrics::Code;
use crate::node::Node;
use crate::pipeline::intake::Refusal;
use crate::pipeline::sessions::{EndReason, TakeOverError};

/// How a connection ends.
#[derive(Debug)]
pub enum End {
    /// The device said DISCONNECT.
    Disconnected { is_will_wanted: bool },
    /// The device closed its side without a word.
    Gone,
    /// The socket broke, or the device did not read for too long: there is nobody to tell.
    Broken(io::Error),
    /// The device is told why, as far as its version has words for it.
    Error(ReasonCode, String),
}

impl End {
    /// Is the device gone in a way that its will was left for? That this node stops is none, and who lost the right to speak
    /// has none.
    #[must_use]
    pub fn wants_will(&self) -> bool {
        match self {
            Self::Disconnected { is_will_wanted } => *is_will_wanted,
            Self::Error(ReasonCode::ServerShuttingDown | ReasonCode::NotAuthorized, _) => false,
            Self::Gone | Self::Broken(_) | Self::Error(..) => true,
        }
    }

    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Broken(_))
    }
}

impl From<io::Error> for End {
    /// What a transport found wrong with the peer's messages is told to the peer.
    fn from(error: io::Error) -> Self {
        match error.downcast::<FrameError>() {
            Ok(violation) => Self::Error(ReasonCode::MalformedPacket, violation.to_string()),
            Err(error) => Self::Broken(error),
        }
    }
}

impl From<CodecError> for End {
    fn from(error: CodecError) -> Self {
        Self::Error(error.reason(), error.to_string())
    }
}

impl From<TakeOverError> for End {
    fn from(error: TakeOverError) -> Self {
        match error {
            // Such a connection says no epoch, so none of its is stale.
            TakeOverError::StaleEpoch(stale) => {
                Self::Error(ReasonCode::ImplementationSpecificError, stale.to_string())
            }
            TakeOverError::Ended(reason) => reason.into(),
        }
    }
}

impl From<EndReason> for End {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::Superseded => Self::Error(
                ReasonCode::SessionTakenOver,
                "this device connected again".to_owned(),
            ),
            EndReason::Revoked => Self::Error(
                ReasonCode::NotAuthorized,
                "unknown device, wrong token, or disabled device".to_owned(),
            ),
        }
    }
}

pub fn shutting_down() -> End {
    End::Error(
        ReasonCode::ServerShuttingDown,
        "this node is stopping: reconnect after a random delay".to_owned(),
    )
}

pub fn internal() -> End {
    End::Error(
        ReasonCode::ImplementationSpecificError,
        "this node cannot make events durable: reconnect after a random delay".to_owned(),
    )
}

pub fn protocol_error(message: &str) -> End {
    End::Error(ReasonCode::ProtocolError, message.to_owned())
}

/// The device must send again what was not acknowledged, on another connection: this one has acknowledged what came before.
pub fn not_kept(refusal: Refusal) -> End {
    match refusal {
        Refusal::JournalFull | Refusal::AfterRefusal => End::Error(
            ReasonCode::ServerBusy,
            "the journal is full: connect again and send what was not acknowledged".to_owned(),
        ),
        Refusal::TooLarge | Refusal::JournalGone => internal(),
    }
}

/// Counts the end; has `write_last_words` tell the device why, if it can still be told; and closes.
pub async fn say_end<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    socket: &mut Buffered<S>,
    end: &End,
    write_last_words: impl FnOnce(&mut Vec<u8>, ReasonCode, &str),
) {
    match end {
        End::Disconnected { .. } => debug!("device disconnected"),
        End::Gone => debug!("device closed its connection"),
        End::Broken(error) => {
            debug!(%error, "connection broke");
            return;
        }
        End::Error(reason, message) => {
            let code = reason.as_str();
            debug!(code, message, "connection ended");
            node.metrics.errors.get_or_create(&Code { code }).inc();
            write_last_words(&mut socket.outgoing, *reason, message);
        }
    }
    // The peer may be gone already; there is nobody left to tell.
    let _ = timeout(LAST_WORDS_TIMEOUT, async {
        socket.flush().await.and(socket.shutdown().await)
    })
    .await;
}
