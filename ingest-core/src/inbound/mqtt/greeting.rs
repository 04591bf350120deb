//! How a connection begins: CONNECT, the device taken over from an older connection, CONNACK.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::debug;
use uuid::Uuid;

use super::codec::{
    CodecError, Connack, Connect, Qos, ReasonCode, Version, Words, decode_connect, split,
    write_connack,
};
use super::deliveries::Limits;
use super::end::{End, protocol_error, shutting_down};
use super::newcomer::USERNAME;
use super::topics::TOPIC_ALIAS_MAXIMUM;
use crate::config::WRITE_TIMEOUT;
use crate::inbound::buffered::Buffered;
use crate::metrics::Kind;
use crate::node::Node;
use crate::pipeline::commands::CommandLink;
use crate::pipeline::live::{Peer, Presence};
use crate::pipeline::registry::AuthenticationFailed;
use crate::pipeline::sessions::Session;
use crate::pipeline::window::Watermark;

/// Room for any CONNECT with names, a token and a short will, and no more.
pub const CONNECT_BYTES_MAX: u32 = 4096;

/// Who has connected.
pub enum Greeted {
    Device(Connected),
    /// A stranger that wants to become a device.
    Newcomer(Client),
}

/// A device that has shown who it is.
pub struct Connected {
    pub device_id: Uuid,
    pub client: Client,
    /// How far the registry says that its events were stored.
    pub known: Watermark,
    /// The longest silence that it may keep.
    pub idle_timeout: Duration,
    pub will: Option<OwnedWill>,
    pub wants_problem_information: bool,
    // Dropped in this order, see `inbound::greeting`.
    pub commands: CommandLink,
    pub presence: Presence,
    pub session: Session,
}

/// What is said for the device when it is gone without a word.
pub struct OwnedWill {
    pub topic: String,
    pub payload: Vec<u8>,
}

/// What is told to whom, once that is known.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    pub version: Version,
    pub limits: Limits,
}

impl Client {
    /// A reason, where it is not too much.
    pub fn words(self, text: &str) -> Words<'_> {
        Words {
            text,
            packet_bytes_max: self.limits.packet_bytes_max,
        }
    }
}

/// A connection that did not begin. It hears why.
pub struct Refused {
    pub client: Option<Client>,
    pub end: End,
}

impl From<End> for Refused {
    fn from(end: End) -> Self {
        Self { client: None, end }
    }
}

/// From the first byte to CONNACK.
///
/// # Errors
/// How the connection ends instead.
pub async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    socket: &mut Buffered<S>,
    peer: Peer,
) -> Result<Greeted, Refused> {
    let hello_timeout = Duration::from_secs(node.config.hello_timeout_s);
    let said = tokio::select! {
        () = node.stopping.cancelled() => return Err(shutting_down().into()),
        said = timeout(hello_timeout, read_connect(node, socket)) => {
            said.unwrap_or_else(|_| Err(protocol_error("no CONNECT in time").into()))?
        }
    };
    let said = match said {
        Heard::Device(said) => said,
        Heard::Newcomer(client) => return Ok(Greeted::Newcomer(client)),
    };
    let client = Some(said.client);
    let connected = take_device(node, socket, peer, said).await;
    (connected.map(Greeted::Device)).map_err(|end| Refused { client, end })
}

async fn take_device<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    socket: &mut Buffered<S>,
    peer: Peer,
    said: Said,
) -> Result<Connected, End> {
    let device_id = said.device_id;
    let (session, _) = tokio::select! {
        () = node.stopping.cancelled() => return Err(shutting_down()),
        taken = node.sessions.take_over(device_id, None, said.known) => taken?,
    };
    // Once more: a revocation between the first look and the take-over found no session to end.
    let still_allowed = node.registry.authenticate(device_id, &said.token);
    still_allowed.map_err(|_| auth_failed())?;
    let config = &node.config;
    let offered = Connack {
        receive_maximum: u16::try_from(config.inflight_frames_max).unwrap_or(u16::MAX),
        packet_bytes_max: config.frame_bytes_max,
        topic_alias_maximum: TOPIC_ALIAS_MAXIMUM,
        assigned_client_id: said.is_nameless.then(|| device_id.to_string()),
    };
    write_connack(&mut socket.outgoing, said.client.version, Ok(&offered));
    timeout(WRITE_TIMEOUT, socket.flush())
        .await
        .map_err(io::Error::from)??;
    // Who hears that the device is there can send it commands.
    let commands = node.commands.connect(device_id, peer);
    let presence = node.live.connected(device_id, peer.protocol, peer.address);
    Ok(Connected {
        device_id,
        client: said.client,
        known: said.known,
        idle_timeout: idle_timeout(said.keep_alive),
        will: said.will,
        wants_problem_information: said.wants_problem_information,
        commands,
        presence,
        session,
    })
}

/// One and a half times the keep-alive. Who asks for none is given the longest there is: a connection does not wait for ever.
fn idle_timeout(keep_alive_s: u16) -> Duration {
    let keep_alive_s = match keep_alive_s {
        0 => u16::MAX,
        asked => asked,
    };
    Duration::from_millis(u64::from(keep_alive_s) * 1500)
}

/// A CONNECT that was let in.
enum Heard {
    Device(Said),
    Newcomer(Client),
}

struct Said {
    client: Client,
    device_id: Uuid,
    token: String,
    known: Watermark,
    keep_alive: u16,
    is_nameless: bool,
    will: Option<OwnedWill>,
    wants_problem_information: bool,
}

async fn read_connect<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    socket: &mut Buffered<S>,
) -> Result<Heard, Refused> {
    loop {
        let unused = socket.received.get(socket.used..).unwrap_or_default();
        if let Some(raw) = split(unused, CONNECT_BYTES_MAX).map_err(End::from)? {
            let packet_bytes = raw.packet_bytes;
            let connect = decode_connect(raw).map_err(refused_unread)?;
            let kind = "connect";
            node.metrics
                .mqtt_packets
                .get_or_create(&Kind { kind })
                .inc();
            let client = Client {
                version: connect.version,
                limits: Limits::new(connect.receive_maximum, connect.packet_bytes_max),
            };
            let heard = admit(node, &connect, client).map_err(|end| Refused {
                client: Some(client),
                end,
            })?;
            socket.used += packet_bytes;
            return Ok(heard);
        }
        if !socket.fill().await.map_err(End::from)? {
            return Err(End::Gone.into());
        }
    }
}

/// A client of another version hears so in the nearest one that is spoken here.
fn refused_unread(error: CodecError) -> Refused {
    let version = match error {
        CodecError::UnsupportedVersion { level: 6.. } => Some(Version::V5),
        CodecError::UnsupportedVersion { .. } => Some(Version::V311),
        _ => None,
    };
    let limits = Limits::new(u16::MAX, None);
    Refused {
        client: version.map(|version| Client { version, limits }),
        end: error.into(),
    }
}

fn admit(node: &Node, connect: &Connect<'_>, client: Client) -> Result<Heard, End> {
    let refused = |reason, message: &str| Err(End::Error(reason, message.to_owned()));
    if connect.authentication_method.is_some() {
        return refused(
            ReasonCode::BadAuthenticationMethod,
            "only a user name and a password are understood",
        );
    }
    let will_qos = connect.will.map(|will| will.qos);
    if connect.version == Version::V5 && will_qos == Some(Qos::ExactlyOnce) {
        return refused(ReasonCode::QosNotSupported, "a will of QoS 2");
    }
    let is_nameless = connect.client_id.is_empty();
    if connect.version == Version::V311 && is_nameless && !connect.is_clean {
        return refused(
            ReasonCode::ClientIdentifierNotValid,
            "a session without a client identifier",
        );
    }
    if !node.registry.is_loaded() {
        return refused(
            ReasonCode::ServerUnavailable,
            "the device registry is not loaded yet: try again",
        );
    }
    let has_password = connect
        .password
        .is_some_and(|password| !password.is_empty());
    if connect.username == Some(USERNAME) && !has_password {
        return Ok(Heard::Newcomer(client));
    }
    let (device_id, token, known) = authenticate(node, connect).map_err(|_| auth_failed())?;
    debug!(%device_id, client_id = connect.client_id, "connect");
    Ok(Heard::Device(Said {
        client,
        device_id,
        token: token.to_owned(),
        known,
        keep_alive: connect.keep_alive,
        is_nameless,
        will: connect.will.map(|will| OwnedWill {
            topic: will.topic.to_owned(),
            payload: will.payload.to_owned(),
        }),
        wants_problem_information: connect.wants_problem_information,
    }))
}

/// The user name is the device and the password its token; or the user name alone is the token, and says who it is.
fn authenticate<'c>(
    node: &Node,
    connect: &Connect<'c>,
) -> Result<(Uuid, &'c str, Watermark), AuthenticationFailed> {
    let username = connect.username.unwrap_or_default();
    match connect.password {
        None | Some(b"") => {
            let (device_id, known) = node.registry.authenticate_by_token(username)?;
            Ok((device_id, username, known))
        }
        Some(password) => {
            // Neither is anybody's, and both cost the same time as somebody's.
            let device_id = Uuid::try_parse(username).unwrap_or(Uuid::nil());
            let token = std::str::from_utf8(password).unwrap_or_default();
            let known = node.registry.authenticate(device_id, token)?;
            Ok((device_id, token, known))
        }
    }
}

fn auth_failed() -> End {
    End::Error(
        ReasonCode::BadUserNameOrPassword,
        "unknown device, wrong token, or disabled device".to_owned(),
    )
}
