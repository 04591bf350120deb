//! A device that has no token yet: it connects as `provision`, asks for one with a provisioning key, and is told it.
//!
//! **Invariants.** It is a stranger: it says a few small packets within the time of a greeting, hears one answer for each question,
//! and whatever it did wrong is the same answer.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;

use super::codec::{
    Connack, Packet, Publication, Publish, Qos, ReasonCode, Version, decode, split, write_connack,
    write_pingresp, write_puback, write_publish, write_suback,
};
use super::end::{End, protocol_error, shutting_down};
use super::greeting::CONNECT_BYTES_MAX;
use super::thingsboard::{PROVISION_REQUEST, PROVISION_RESPONSE};
use crate::config::WRITE_TIMEOUT;
use crate::inbound::buffered::Buffered;
use crate::inbound::formats::thingsboard::{ProvisionRequest, provision_failure, provisioned};
use crate::node::Node;

/// Whom it says it is.
pub const USERNAME: &str = "provision";
/// Questions of one connection.
const REQUESTS_MAX: usize = 4;
/// A device connects as soon as it has its token; its answer waits this long for the registry to know it.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(2);
const REGISTRY_LOOK_EVERY: Duration = Duration::from_millis(20);

struct Newcomer<'a, S> {
    node: &'a Node,
    socket: &'a mut Buffered<S>,
    version: Version,
    hears_answers: bool,
    num_requests: usize,
}

/// Serves a stranger to its end.
pub async fn serve_newcomer<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    socket: &mut Buffered<S>,
    version: Version,
) -> End {
    let deadline = Instant::now() + Duration::from_secs(node.config.hello_timeout_s);
    let newcomer = Newcomer {
        node,
        socket,
        version,
        hears_answers: false,
        num_requests: 0,
    };
    let served = tokio::select! {
        () = node.stopping.cancelled() => return shutting_down(),
        served = timeout_at(deadline, newcomer.run()) => served,
    };
    match served {
        Ok(Err(end)) => end,
        Ok(Ok(never)) => match never {},
        Err(_) => protocol_error("who comes for a token has the time of a greeting for it"),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Newcomer<'_, S> {
    async fn run(mut self) -> Result<std::convert::Infallible, End> {
        let offered = Connack {
            receive_maximum: 1,
            packet_bytes_max: CONNECT_BYTES_MAX,
            topic_alias_maximum: 0,
            assigned_client_id: Some(USERNAME.to_owned()),
        };
        write_connack(&mut self.socket.outgoing, self.version, Ok(&offered));
        loop {
            self.flush().await?;
            let asked = self.take_packet()?;
            match asked {
                Some(Asked::Token { packet_id, payload }) => {
                    let answer = self.answer(&payload).await;
                    self.tell(packet_id, &answer);
                }
                Some(Asked::Nothing) => {}
                None => {
                    if !self.socket.fill().await? {
                        return Err(End::Gone);
                    }
                }
            }
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        let flushed = timeout(WRITE_TIMEOUT, self.socket.flush()).await;
        Ok(flushed.map_err(std::io::Error::from)??)
    }

    /// None when no whole packet is there.
    fn take_packet(&mut self) -> Result<Option<Asked>, End> {
        let unused = (self.socket.received)
            .get(self.socket.used..)
            .unwrap_or_default();
        let Some(raw) = split(unused, CONNECT_BYTES_MAX)? else {
            return Ok(None);
        };
        let packet_bytes = raw.packet_bytes;
        let out = &mut self.socket.outgoing;
        let asked = match decode(raw, self.version)? {
            Packet::Publish(publish) => asked_by(&publish)?,
            Packet::Subscribe(subscribe) => {
                let answers = subscribe.subscriptions().map(|one| {
                    if one.filter != PROVISION_RESPONSE {
                        return Err(ReasonCode::NotAuthorized);
                    }
                    self.hears_answers = true;
                    Ok(Qos::AtMostOnce)
                });
                write_suback(out, self.version, subscribe.packet_id, answers);
                Asked::Nothing
            }
            Packet::Pingreq => {
                write_pingresp(out);
                Asked::Nothing
            }
            Packet::Disconnect(_) => {
                return Err(End::Disconnected {
                    is_will_wanted: false,
                });
            }
            Packet::Puback { .. } | Packet::Unsubscribe(_) => {
                return Err(protocol_error("nothing is here to be said so"));
            }
        };
        self.socket.used += packet_bytes;
        Ok(Some(asked))
    }

    async fn answer(&mut self, payload: &[u8]) -> Value {
        self.num_requests += 1;
        let request = match ProvisionRequest::read(payload) {
            Ok(request) if self.num_requests <= REQUESTS_MAX => request,
            _ => return provision_failure(),
        };
        provision(self.node, &request).await
    }

    fn tell(&mut self, packet_id: Option<u16>, answer: &Value) {
        let out = &mut self.socket.outgoing;
        if self.hears_answers {
            let payload = answer.to_string();
            let publication = Publication {
                topic: PROVISION_RESPONSE,
                payload: payload.as_bytes(),
                packet_id: None,
            };
            write_publish(out, self.version, &publication);
        }
        if let Some(packet_id) = packet_id {
            write_puback(out, self.version, packet_id, ReasonCode::Success, None);
        }
    }
}

/// Lets a device in that has no token, and says what it is told.
pub async fn provision(node: &Node, request: &ProvisionRequest) -> Value {
    let asked = (node.desk).provision(&request.key, request.secret_hash, &request.serial_number);
    let token = match asked.await {
        Ok(Some(device)) => device.token,
        Ok(None) => return provision_failure(),
        Err(error) => {
            debug!(%error, "a device is not let in for now");
            return provision_failure();
        }
    };
    let is_known = async {
        while node.registry.authenticate_by_token(&token).is_err() {
            sleep(REGISTRY_LOOK_EVERY).await;
        }
    };
    // It is let in all the same; it only has to try again to connect.
    let _ = timeout(REGISTRY_TIMEOUT, is_known).await;
    provisioned(&token)
}

enum Asked {
    Token {
        packet_id: Option<u16>,
        payload: Vec<u8>,
    },
    Nothing,
}

fn asked_by(publish: &Publish<'_>) -> Result<Asked, End> {
    if publish.topic != PROVISION_REQUEST || publish.qos == Qos::ExactlyOnce {
        let message = "who has no token publishes to /provision/request alone";
        return Err(End::Error(ReasonCode::NotAuthorized, message.to_owned()));
    }
    Ok(Asked::Token {
        packet_id: publish.packet_id,
        payload: publish.payload.to_owned(),
    })
}
