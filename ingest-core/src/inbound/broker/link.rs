//! One connection to the broker. Its client is made anew for each: one that connects again by itself would send acknowledgements of
//! the old connection on the new one, where the same number is another publication.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::{error, info};
use uuid::Uuid;

use super::BrokerSettings;
use crate::config::BUSY_RETRY_AFTER;
use crate::event::RejectCode;
use crate::inbound::formats::thingsboard::no_such_child;
use crate::inbound::formats::{FormatError, Told};
use crate::inbound::mqtt::{Topic, read_any};
use crate::inbound::unnumbered::queue;
use crate::metrics::Kind;
use crate::node::Node;
use crate::pipeline::circuit::Circuit;
use crate::pipeline::entry::Source;
use crate::pipeline::intake::{Intake, Queued, Refusal};

/// What the client may be asked for at a time: an acknowledgement for each packet identifier that there is, whatever a broker makes
/// of Receive Maximum, and the subscriptions.
const REQUESTS_MAX: usize = u16::MAX as usize + 64;

/// Why what a publication comes to is a dead letter: the broker would send it again for ever.
const TOO_LARGE: &str = "more than this node's journal can hold at a time";

/// Why a connection ended. Another one is made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the gateway that the broker is does not exist, or is disabled: {0}")]
    NoGateway(RejectCode),
    #[error("the connection to the broker: {0}")]
    Connection(#[from] Box<ConnectionError>),
    #[error("the broker refuses the topics that are asked for: {0:?}")]
    Refused(SubscribeReasonCode),
    #[error("the connection to the broker is behind")]
    Behind,
    #[error("this node cannot make anything durable")]
    NotKept(Refusal),
    #[error("the connection to the broker has ended")]
    Ended,
}

/// Ends the task of a connection that is not served any more.
struct Driven(AbortHandle);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves one connection to its end.
pub async fn serve(node: &Arc<Node>, settings: &BrokerSettings, delays: &mut Circuit) -> LinkError {
    match connect(node, settings, delays).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

async fn connect(
    node: &Arc<Node>,
    settings: &BrokerSettings,
    delays: &mut Circuit,
) -> Result<std::convert::Infallible, LinkError> {
    let may_speak = node.registry.may_be_spoken_for(settings.device_id);
    may_speak.map_err(LinkError::NoGateway)?;
    let inflight_max = node.config.inflight_frames_max;
    let (client, eventloop) = AsyncClient::new(settings.options(node), REQUESTS_MAX);
    let (sender, mut events) = mpsc::channel(1);
    // In a task of its own: nothing says that a client's turn may be given up halfway.
    let _driven = Driven(tokio::spawn(drive(eventloop, sender)).abort_handle());
    let mut in_flight = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            Some(settled) = in_flight.next(), if !in_flight.is_empty() => {
                let (publish, kept): (Publish, Result<(), Refusal>) = settled;
                kept.map_err(LinkError::NotKept)?;
                if client.try_ack(&publish).is_err() {
                    return Err(why_ended(&mut events).await.unwrap_or(LinkError::Behind));
                }
            }
            event = events.recv(), if in_flight.len() < inflight_max => {
                match event.ok_or(LinkError::Ended)?? {
                    Packet::ConnAck(_) => {
                        for pattern in &settings.patterns {
                            let filter = format!("$share/{}/{}", settings.group, pattern.filter);
                            client.try_subscribe(filter, QoS::AtLeastOnce).map_err(|_| LinkError::Behind)?;
                        }
                    }
                    Packet::SubAck(answer) => {
                        let is_granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                        if let Some(code) = answer.return_codes.into_iter().find(|code| !is_granted(code)) {
                            return Err(LinkError::Refused(code));
                        }
                        info!("topics of the broker are heard");
                        delays.close();
                    }
                    Packet::Publish(publish) => {
                        let (intake, queued) = take(node, settings, &publish).await?;
                        in_flight.push_back(async move { (publish, intake.settle_apart(queued).await) });
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Why a client takes nothing any more, if it has said so.
async fn why_ended(
    events: &mut mpsc::Receiver<Result<Packet, Box<ConnectionError>>>,
) -> Option<LinkError> {
    events.close();
    while let Some(event) = events.recv().await {
        if let Err(error) = event {
            return Some(error.into());
        }
    }
    None
}

/// Has the client do its work, and hands on what came.
async fn drive(
    mut eventloop: EventLoop,
    sender: mpsc::Sender<Result<Packet, Box<ConnectionError>>>,
) {
    loop {
        let event = match eventloop.poll().await {
            Ok(Event::Incoming(packet)) => Ok(packet),
            Ok(Event::Outgoing(_)) => continue,
            Err(error) => Err(Box::new(error)),
        };
        let has_ended = event.is_err();
        if sender.send(event).await.is_err() || has_ended {
            return;
        }
    }
}

/// Puts a publication into the journal's queue. A journal without room is waited for.
async fn take(
    node: &Node,
    settings: &BrokerSettings,
    publish: &Publish,
) -> Result<(Intake, Queued), LinkError> {
    let kind = "from_broker";
    node.metrics
        .mqtt_packets
        .get_or_create(&Kind { kind })
        .inc();
    // What of a topic is not text no filter of ours asks for.
    let topic = String::from_utf8_lossy(&publish.topic);
    let told = Told {
        topic: &topic,
        payload: &publish.payload,
    };
    let may_speak = node.registry.may_be_spoken_for(settings.device_id);
    may_speak.map_err(LinkError::NoGateway)?;
    let (speaker, mut decoded) = match speaker(node, settings, &topic) {
        Ok(speaker) => (
            speaker,
            read_any(node, speaker, &Topic::of(told.topic), told),
        ),
        Err(why) => (settings.device_id, Err(FormatError::Stranger(why))),
    };
    let intake = node.intake(Source::Mqtt, speaker);
    loop {
        match queue(&intake, told, &decoded) {
            Ok(taken) => return Ok((intake, taken.queued)),
            Err(refusal @ (Refusal::JournalFull | Refusal::AfterRefusal)) => {
                intake.count_refusal(refusal);
                sleep(BUSY_RETRY_AFTER).await;
            }
            Err(Refusal::TooLarge) if decoded.is_ok() => {
                decoded = Err(FormatError::Shape(TOO_LARGE))
            }
            Err(refusal) => {
                error!(%topic, "a publication of the broker is not kept");
                return Err(LinkError::NotKept(refusal));
            }
        }
    }
}

/// Whose publication it is: the child that its topic names, or the gateway itself.
fn speaker(node: &Node, settings: &BrokerSettings, topic: &str) -> Result<Uuid, String> {
    let mut named = settings.patterns.iter().filter_map(|p| p.device_of(topic));
    match named.next().flatten() {
        None => Ok(settings.device_id),
        Some(name) => {
            let child = node.registry.child_of(settings.device_id, name);
            child.ok_or_else(|| no_such_child(name))
        }
    }
}
