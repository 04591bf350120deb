//! One connection to the broker. Its client is made anew for each: one that connects again by itself would send acknowledgements of
//! the old connection on the new one, where the same number is another publication.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};
use uuid::Uuid;

use super::BrokerSettings;
use crate::config::{BUSY_RETRY_AFTER, LAST_WORDS_TIMEOUT};
use crate::event::RejectCode;
use crate::inbound::formats::thingsboard::no_such_child;
use crate::inbound::formats::{Decoded, FormatError, Told};
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
    #[error("more came than was taken in time; what was not is asked for again")]
    Missed,
    #[error("the connection to the broker has ended")]
    Ended,
}

/// What the client hands on at a time beside the publications that it may be sent: CONNACK, SUBACK and their like.
const OTHERS_MAX: usize = 16;

/// How long a client waits for us. Meanwhile it neither pings nor acknowledges, which a broker puts up with for 45 s.
const HELD_UP_MAX: Duration = Duration::from_secs(5);

/// A publication that is decided: whether it is durable.
type Settled = (Publish, Result<(), Refusal>);

/// One connection, from its first step on.
struct Link<'a> {
    node: &'a Arc<Node>,
    settings: &'a BrokerSettings,
    client: AsyncClient,
    /// Why the client takes nothing any more, once it does not. In a task of its own: nothing says that its turn may be given
    /// up halfway.
    driven: AbortOnDropHandle<Box<ConnectionError>>,
    packets: mpsc::Receiver<Packet>,
    in_flight: FuturesOrdered<BoxFuture<'static, Settled>>,
    /// The journal had no room for it; nothing more is taken before.
    held: Option<Held>,
}

struct Held {
    reading: Reading,
    again_at: Instant,
}

/// Serves one connection to its end, or until `stop`.
///
/// # Errors
/// Why it ended before.
pub async fn serve(
    node: &Arc<Node>,
    settings: &BrokerSettings,
    delays: &mut Circuit,
    stop: &CancellationToken,
) -> Result<(), LinkError> {
    let may_speak = node.registry.may_be_spoken_for(settings.device_id);
    may_speak.map_err(LinkError::NoGateway)?;
    let mut link = Link::new(node, settings);
    let ended = match stop.run_until_cancelled(link.exchange(delays)).await {
        Some(Ok(never)) => match never {},
        Some(Err(LinkError::Behind)) => Err(link.why_behind().await),
        Some(Err(ended)) => Err(ended),
        None => Ok(()),
    };
    // What is not said by then comes again.
    let _ = timeout(LAST_WORDS_TIMEOUT, link.leave()).await;
    ended
}

impl<'a> Link<'a> {
    fn new(node: &'a Arc<Node>, settings: &'a BrokerSettings) -> Self {
        let (client, eventloop) = AsyncClient::new(settings.options(node), REQUESTS_MAX);
        // Of a broker that keeps to Receive Maximum there is always room for a publication of QoS 1.
        let (sender, packets) = mpsc::channel(node.config.inflight_frames_max + OTHERS_MAX);
        Self {
            node,
            settings,
            client,
            driven: AbortOnDropHandle::new(tokio::spawn(drive(eventloop, sender))),
            packets,
            in_flight: FuturesOrdered::new(),
            held: None,
        }
    }

    async fn exchange(&mut self, delays: &mut Circuit) -> Result<Infallible, LinkError> {
        let inflight_max = self.node.config.inflight_frames_max;
        loop {
            let again_at = self.held.as_ref().map(|held| held.again_at);
            let may_take = again_at.is_none() && self.in_flight.len() < inflight_max;
            tokio::select! {
                biased;
                // What it handed on and nobody took comes again: it can be acknowledged no more.
                why = &mut self.driven => return Err(why.map_or(LinkError::Ended, LinkError::Connection)),
                Some(settled) = self.in_flight.next(), if !self.in_flight.is_empty() => self.acknowledge(settled)?,
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {
                    if let Some(held) = self.held.take() {
                        self.take(held.reading)?;
                    }
                }
                packet = self.packets.recv(), if may_take => {
                    self.take_packet(packet.ok_or(LinkError::Missed)?, delays)?;
                }
            }
        }
    }

    /// Acknowledges what is durable of what is in flight, and takes leave; the broker hangs up when it has read that.
    async fn leave(&mut self) {
        while let Some((publish, kept)) = self.in_flight.next().await {
            if kept.is_ok() {
                let _ = self.client.try_ack(&publish);
            }
        }
        let _ = self.client.try_disconnect();
        self.packets.close();
        if !self.driven.is_finished() {
            let _ = (&mut self.driven).await;
        }
    }

    /// There is room for all that it may be asked for, so a client that takes no more has ended, or soon will have.
    async fn why_behind(&mut self) -> LinkError {
        match timeout(LAST_WORDS_TIMEOUT, &mut self.driven).await {
            Ok(why) => why.map_or(LinkError::Ended, LinkError::Connection),
            Err(_) => LinkError::Behind,
        }
    }

    fn acknowledge(&self, (publish, kept): Settled) -> Result<(), LinkError> {
        kept.map_err(LinkError::NotKept)?;
        self.client.try_ack(&publish).map_err(|_| LinkError::Behind)
    }

    fn take_packet(&mut self, packet: Packet, delays: &mut Circuit) -> Result<(), LinkError> {
        match packet {
            Packet::ConnAck(_) => {
                for pattern in &self.settings.patterns {
                    let filter = format!("$share/{}/{}", self.settings.group, pattern.filter);
                    let asked = self.client.try_subscribe(filter, QoS::AtLeastOnce);
                    asked.map_err(|_| LinkError::Behind)?;
                }
            }
            Packet::SubAck(answer) => {
                let is_granted =
                    |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                let mut codes = answer.return_codes.into_iter();
                if let Some(code) = codes.find(|code| !is_granted(code)) {
                    return Err(LinkError::Refused(code));
                }
                info!("topics of the broker are heard");
                delays.close();
            }
            Packet::Publish(publish) => {
                let reading = Reading::new(self.node, self.settings, publish)?;
                self.take(reading)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes a publication, or holds it until the journal has room.
    fn take(&mut self, mut reading: Reading) -> Result<(), LinkError> {
        match reading.queue() {
            Ok(queued) => {
                let Reading {
                    publish, intake, ..
                } = reading;
                let settled = async move { (publish, intake.settle_apart(queued).await) };
                self.in_flight.push_back(Box::pin(settled));
            }
            Err(refusal @ (Refusal::JournalFull | Refusal::AfterRefusal)) => {
                reading.intake.count_refusal(refusal);
                let again_at = Instant::now() + BUSY_RETRY_AFTER;
                self.held = Some(Held { reading, again_at });
            }
            Err(refusal) => {
                let topic = topic_of(&reading.publish);
                error!(%topic, "a publication of the broker is not kept");
                return Err(LinkError::NotKept(refusal));
            }
        }
        Ok(())
    }
}

/// Has the client do its work, and hands on what came. What is not taken in time, and all that comes after it, is let go: what is
/// not acknowledged comes again on another connection.
async fn drive(mut eventloop: EventLoop, sender: mpsc::Sender<Packet>) -> Box<ConnectionError> {
    let mut taker = Some(sender);
    loop {
        match eventloop.poll().await {
            Ok(Event::Incoming(packet)) => {
                if let Some(sender) = &taker
                    && sender.send_timeout(packet, HELD_UP_MAX).await.is_err()
                {
                    taker = None;
                }
            }
            Ok(Event::Outgoing(_)) => {}
            Err(error) => return Box::new(error),
        }
    }
}

/// A publication as it was understood, on its way into the journal.
struct Reading {
    publish: Publish,
    intake: Intake,
    decoded: Result<Decoded, FormatError>,
}

impl Reading {
    fn new(node: &Node, settings: &BrokerSettings, publish: Publish) -> Result<Self, LinkError> {
        let kind = "from_broker";
        let packets = &node.metrics.mqtt_packets;
        packets.get_or_create(&Kind { kind }).inc();
        let may_speak = node.registry.may_be_spoken_for(settings.device_id);
        may_speak.map_err(LinkError::NoGateway)?;
        let topic = topic_of(&publish);
        let told = Told {
            topic: &topic,
            payload: &publish.payload,
        };
        let (speaker, decoded) = match speaker(node, settings, &topic) {
            Ok(speaker) => (
                speaker,
                read_any(node, speaker, &Topic::of(told.topic), told),
            ),
            Err(why) => (settings.device_id, Err(FormatError::Stranger(why))),
        };
        Ok(Self {
            intake: node.intake(Source::Mqtt, speaker),
            decoded,
            publish,
        })
    }

    /// Puts it into the journal's queue.
    fn queue(&mut self) -> Result<Queued, Refusal> {
        let topic = topic_of(&self.publish);
        let told = Told {
            topic: &topic,
            payload: &self.publish.payload,
        };
        let taken = match queue(&self.intake, told, &self.decoded) {
            Err(Refusal::TooLarge) if self.decoded.is_ok() => {
                self.decoded = Err(FormatError::Shape(TOO_LARGE));
                queue(&self.intake, told, &self.decoded)
            }
            taken => taken,
        };
        Ok(taken?.queued)
    }
}

/// What of a topic is not text no filter of ours asks for.
fn topic_of(publish: &Publish) -> Cow<'_, str> {
    String::from_utf8_lossy(&publish.topic)
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
