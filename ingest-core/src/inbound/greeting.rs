//! How a connection begins: HELLO, the device taken over from an older connection, WELCOME.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::debug;
use uuid::Uuid;

use super::end::{End, auth_failed, shutting_down};
use super::wire::Wire;
use crate::config::WRITE_TIMEOUT;
use crate::frame::{
    ErrorCode, FRAME_BYTES_MAX_BEFORE_HELLO, Hello, Incoming, Outgoing, PROTOCOL_VERSION,
};
use crate::metrics::Kind;
use crate::node::Node;
use crate::pipeline::clock::now_us;
use crate::pipeline::commands::CommandLink;
use crate::pipeline::live::{Peer, Presence};
use crate::pipeline::sessions::Session;
use crate::pipeline::window::Watermark;

/// A device that has shown who it is.
pub struct Connected {
    pub device_id: Uuid,
    // Dropped in this order: what waits for this connection ends, then it is told that it has gone, and then another may have
    // the device.
    pub commands: CommandLink,
    pub presence: Presence,
    pub session: Session,
}

/// From the first byte to WELCOME.
///
/// # Errors
/// How the connection ends instead.
pub async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    wire: &mut Wire<S>,
    peer: Peer,
) -> Result<Connected, End> {
    let hello_timeout = Duration::from_secs(node.config.hello_timeout_s);
    let late = End::Error(
        ErrorCode::HelloTimeout,
        format!("no HELLO within {} s", hello_timeout.as_secs()),
    );
    let said = tokio::select! {
        () = node.stopping.cancelled() => return Err(shutting_down()),
        hello = timeout(hello_timeout, hello(node, wire)) => hello.unwrap_or(Err(late))?,
    };
    let device_id = said.device_id;
    let (session, last_seq) = tokio::select! {
        () = node.stopping.cancelled() => return Err(shutting_down()),
        taken = node.sessions.take_over(device_id, Some(said.epoch), said.known) => taken?,
    };
    // Once more: a revocation between the first look and the take-over found no session to end.
    let still_allowed = node.registry.authenticate(device_id, &said.token);
    still_allowed.map_err(|_| auth_failed())?;
    let config = &node.config;
    wire.queue(&Outgoing::Welcome {
        version: PROTOCOL_VERSION,
        last_seq,
        max_inflight_frames: u32::try_from(config.inflight_frames_max).unwrap_or(u32::MAX),
        frame_bytes_max: config.frame_bytes_max,
        server_time_us: now_us(),
        keepalive_s: u32::try_from(config.keepalive_s).unwrap_or(u32::MAX),
    });
    timeout(WRITE_TIMEOUT, wire.flush())
        .await
        .map_err(io::Error::from)??;
    // Who hears that the device is there can send it commands.
    let commands = node.commands.connect(device_id, peer);
    let presence = node.live.connected(device_id, peer.protocol, peer.address);
    Ok(Connected {
        device_id,
        commands,
        presence,
        session,
    })
}

/// A HELLO that was let in.
struct Said {
    device_id: Uuid,
    token: String,
    epoch: u64,
    known: Watermark,
}

async fn hello<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    wire: &mut Wire<S>,
) -> Result<Said, End> {
    loop {
        if let Some(incoming) = wire.next(FRAME_BYTES_MAX_BEFORE_HELLO)? {
            let Incoming::Hello(Hello {
                device_id,
                token,
                epoch,
                agent,
            }) = incoming
            else {
                return Err(End::Error(
                    ErrorCode::Malformed,
                    "the first frame must be HELLO".to_owned(),
                ));
            };
            node.metrics
                .frames
                .get_or_create(&Kind { kind: "hello" })
                .inc();
            debug!(%device_id, agent, "hello");
            if !node.registry.is_loaded() {
                return Err(End::Error(
                    ErrorCode::Internal,
                    "the device registry is not loaded yet: try again".to_owned(),
                ));
            }
            let known = node
                .registry
                .authenticate(device_id, token)
                .map_err(|_| auth_failed())?;
            let token = token.to_owned();
            return Ok(Said {
                device_id,
                token,
                epoch,
                known,
            });
        }
        if !wire.fill().await? {
            return Err(End::Closed);
        }
    }
}
