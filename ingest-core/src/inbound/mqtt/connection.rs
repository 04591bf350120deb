//! One device's connection: packets in, acknowledgements and commands out, until one side ends it.
//!
//! A publication that cannot be taken yet stays where it was read, and so does all that comes behind it: that is how a device is
//! told to wait. At most `inflight_frames_max` publications are on their way to the disk.

use std::io;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tracing::{error, warn};

use super::codec::{
    Packet, Publish, Qos, ReasonCode, Version, decode, split, write_connack, write_disconnect,
    write_pingresp,
};
use super::deliveries::{Deliveries, NotSent};
use super::dialogue::{Dialogue, Said};
use super::end::{End, internal, not_kept, protocol_error, say_end, shutting_down};
use super::greeting::{Client, Connected, Greeted, OwnedWill, Refused, greet};
use super::in_flight::{Answer, InFlight, Waiting};
use super::newcomer::serve_newcomer;
use super::publications::{Message, Publications, Taking, Turn};
use super::thingsboard::GATEWAY_ATTRIBUTES;
use super::topics::{Channel, TopicAliases};
use crate::config::{BUSY_RETRY_AFTER, WRITE_TIMEOUT};
use crate::inbound::awaited::Awaited;
use crate::inbound::buffered::Buffered;
use crate::inbound::formats::thingsboard::gateway_update;
use crate::journal::AppendError;
use crate::metrics::Kind;
use crate::node::Node;
use crate::pipeline::commands::{Command, CommandLink};
use crate::pipeline::intake::Refusal;
use crate::pipeline::live::{Peer, Presence};
use crate::pipeline::sessions::Session;

/// Serves one connection to its end.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(node: &Node, stream: S, peer: Peer) {
    let mut socket = Buffered::new(stream);
    match greet(node, &mut socket, peer).await {
        // Boxed: it lives as long as the connection, and the greeting's state need not.
        Ok(Greeted::Device(connected)) => {
            Box::pin(Connection::new(node, socket, connected, peer).run()).await;
        }
        Ok(Greeted::Newcomer(client)) => {
            let end = Box::pin(serve_newcomer(node, &mut socket, client.version)).await;
            say_end(node, &mut socket, &end, last_words(client)).await;
        }
        Err(Refused { client, end }) => {
            let write = |out: &mut Vec<u8>, reason, text: &str| {
                if let Some(client) = client {
                    write_connack(out, client.version, Err((reason, client.words(text))));
                }
            };
            say_end(node, &mut socket, &end, write).await;
        }
    }
}

/// DISCONNECT, for who understands it.
fn last_words(client: Client) -> impl FnOnce(&mut Vec<u8>, ReasonCode, &str) {
    move |out, reason, text| {
        if client.version == Version::V5 {
            write_disconnect(out, reason, client.words(text));
        }
    }
}

struct Connection<'a, S> {
    node: &'a Node,
    socket: Buffered<S>,
    client: Client,
    idle_timeout: Duration,
    will: Option<OwnedWill>,
    wants_problem_information: bool,
    // Dropped in this order, see `Connected`.
    commands: CommandLink,
    presence: Presence,
    session: Session,
    publications: Publications<'a>,
    aliases: TopicAliases,
    in_flight: InFlight,
    deliveries: Deliveries,
    dialogue: Dialogue,
    /// A publication waits to be taken, so nothing more is read.
    is_held: bool,
    /// It is tried again then.
    paused_until: Option<Instant>,
    idle_deadline: Instant,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Connection<'a, S> {
    fn new(node: &'a Node, socket: Buffered<S>, connected: Connected, peer: Peer) -> Self {
        let device_id = connected.device_id;
        Self {
            node,
            socket,
            client: connected.client,
            idle_timeout: connected.idle_timeout,
            will: connected.will,
            wants_problem_information: connected.wants_problem_information,
            commands: connected.commands,
            presence: connected.presence,
            session: connected.session,
            publications: Publications::new(node, device_id, connected.known, peer),
            aliases: TopicAliases::default(),
            in_flight: InFlight::default(),
            deliveries: Deliveries::new(connected.client.version, connected.client.limits),
            dialogue: Dialogue::new(node, device_id),
            is_held: false,
            paused_until: None,
            idle_deadline: Instant::now() + connected.idle_timeout,
        }
    }

    /// Serves until an end, then decides what is in flight, publishes the will, and says the last words.
    async fn run(mut self) {
        let end = match self.exchange().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.settle_in_flight(&end).await;
        if end.wants_will() {
            self.publish_will().await;
        }
        let Self {
            node,
            mut socket,
            client,
            commands,
            session,
            presence,
            ..
        } = self;
        drop(commands);
        // Everything is decided: a newer connection need not wait for our last words.
        drop(presence);
        drop(session);
        say_end(node, &mut socket, &end, last_words(client)).await;
    }

    async fn exchange(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            self.take_packets()?;
            self.flush().await?;
            let may_read = !self.is_held && self.has_room();
            let deadline = self.paused_until.unwrap_or(self.idle_deadline);
            tokio::select! {
                biased;
                reason = self.session.end.received() => return Err(reason.into()),
                () = self.node.stopping.cancelled() => return Err(shutting_down()),
                outcome = self.in_flight.first_outcome(), if !self.in_flight.is_empty() => self.acknowledge(outcome)?,
                command = self.commands.next(), if self.deliveries.has_room() => self.queue_commands(command),
                said = self.dialogue.next(), if self.deliveries.has_packet_id() => self.tell(said),
                is_open = self.socket.fill(), if may_read => {
                    if !is_open? {
                        return Err(End::Gone);
                    }
                }
                () = sleep_until(deadline), if may_read || self.paused_until.is_some() => match self.paused_until.take() {
                    Some(_) => self.idle_deadline = Instant::now() + self.idle_timeout,
                    None => return Err(self.keep_alive_timeout()),
                },
            }
        }
    }

    fn keep_alive_timeout(&self) -> End {
        let silence = self.idle_timeout.as_secs();
        End::Error(
            ReasonCode::KeepAliveTimeout,
            format!(
                "nothing received for {silence} s, which is more than one and a half times the keep-alive"
            ),
        )
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < self.node.config.inflight_frames_max
    }

    /// Takes the whole packets that were read, until one has to wait.
    fn take_packets(&mut self) -> Result<(), End> {
        if self.paused_until.is_some() {
            return Ok(());
        }
        let received = self.socket.lend();
        let mut used = 0;
        let taken = self.take_packets_of(&received, &mut used);
        self.socket.return_lent(received, used);
        taken
    }

    fn take_packets_of(&mut self, received: &[u8], used: &mut usize) -> Result<(), End> {
        self.is_held = false;
        while self.has_room() {
            let unused = received.get(*used..).unwrap_or_default();
            let Some(raw) = split(unused, self.node.config.frame_bytes_max)? else {
                return Ok(());
            };
            // Whole packets count, so that bytes let fall one by one do not hold a connection for ever.
            self.idle_deadline = Instant::now() + self.idle_timeout;
            let packet = decode(raw, self.client.version)?;
            if !self.take_packet(&packet)? {
                self.is_held = true;
                return Ok(());
            }
            let kind = packet.kind();
            let packets = &self.node.metrics.mqtt_packets;
            packets.get_or_create(&Kind { kind }).inc();
            *used += raw.packet_bytes;
        }
        Ok(())
    }

    /// False when the packet has to wait.
    fn take_packet(&mut self, packet: &Packet<'_>) -> Result<bool, End> {
        match packet {
            Packet::Publish(publish) => return self.take_publish(publish),
            Packet::Puback { packet_id } => self.deliveries.acknowledge(*packet_id),
            Packet::Subscribe(subscribe) => {
                let out = &mut self.socket.outgoing;
                for channel in self.deliveries.subscribe(subscribe, out) {
                    self.dialogue.follow(channel);
                }
            }
            Packet::Unsubscribe(unsubscribe) => {
                let out = &mut self.socket.outgoing;
                self.deliveries.unsubscribe(unsubscribe, out);
            }
            Packet::Pingreq => {
                self.presence.seen();
                write_pingresp(&mut self.socket.outgoing);
            }
            Packet::Disconnect(disconnect) => {
                let is_will_wanted = disconnect.is_will_wanted;
                return Err(End::Disconnected { is_will_wanted });
            }
        }
        Ok(true)
    }

    fn take_publish(&mut self, publish: &Publish<'_>) -> Result<bool, End> {
        if publish.qos == Qos::ExactlyOnce {
            let message = "QoS 2 is not served: number the events to have them stored exactly once";
            return Err(End::Error(ReasonCode::QosNotSupported, message.to_owned()));
        }
        if publish.packet_id.is_some_and(|id| self.in_flight.holds(id)) {
            // What is under way is acknowledged once, however often it is sent.
            return match publish.is_dup {
                true => Ok(true),
                false => Err(protocol_error("a packet identifier that is in use")),
            };
        }
        let message = Message {
            topic: self.aliases.resolve(publish)?,
            payload: publish.payload,
        };
        let mut beside = None;
        let turn = Turn {
            window: &mut self.session.window,
            commands: &self.commands,
            deliveries: &mut self.deliveries,
            dialogue: &mut self.dialogue,
            beside: &mut beside,
            is_idle: self.in_flight.is_empty(),
        };
        let taking = self.publications.take(message, turn);
        if let Some(result) = beside {
            self.in_flight.push(Waiting::unacknowledged(
                Awaited::Result(result),
                Answer::SUCCESS,
            ));
        }
        let (awaited, asked, answer) = match taking? {
            Taking::InFlight { awaited, answer } => (awaited, None, answer),
            Taking::Asked(asked) => (Awaited::Nothing, Some(asked), Answer::SUCCESS),
            Taking::AfterInFlight => return Ok(false),
            Taking::JournalFull => {
                self.paused_until = Some(Instant::now() + BUSY_RETRY_AFTER);
                return Ok(false);
            }
        };
        self.in_flight.push(Waiting {
            read_at: std::time::Instant::now(),
            packet_id: publish.packet_id,
            awaited,
            asked,
            answer,
        });
        Ok(true)
    }

    /// The first publication in flight is decided; those behind it that are decided too are acknowledged in the same go.
    fn acknowledge(&mut self, outcome: Result<(), AppendError>) -> Result<(), End> {
        let mut next = self.in_flight.pop().map(|first| (first, outcome));
        while let Some((waiting, outcome)) = next {
            self.decide(&waiting, outcome)?;
            next = self
                .in_flight
                .first_outcome()
                .now_or_never()
                .and_then(|outcome| Some((self.in_flight.pop()?, outcome)));
        }
        Ok(())
    }

    /// Notes the journal's answer for a publication, and queues its PUBACK.
    fn decide(&mut self, waiting: &Waiting, outcome: Result<(), AppendError>) -> Result<(), End> {
        let intake = &self.publications.intake;
        match &waiting.awaited {
            Awaited::Queued(queued) => intake
                .settle(&mut self.session.window, queued, outcome)
                .map_err(not_kept)?,
            Awaited::Result(queued) => {
                outcome.map_err(|error| not_kept(error.into()))?;
                let noted = self.node.note_result_kept(queued, Ok(()));
                noted.map_err(|_| internal())?;
            }
            // The journal gave back what it repeats. No other epoch begins while it waits.
            Awaited::Duplicate { last_seq } if *last_seq > self.session.window.durable() => {
                return Err(not_kept(Refusal::AfterRefusal));
            }
            Awaited::Duplicate { .. } | Awaited::Nothing => {}
        }
        if waiting.answer.is_to_be_repeated && self.client.version == Version::V311 {
            let message = waiting.answer.message.clone().unwrap_or_default();
            return Err(End::Error(ReasonCode::ServerBusy, message));
        }
        let out = &mut self.socket.outgoing;
        waiting.acknowledge(out, self.client, self.wants_problem_information);
        if waiting.packet_id.is_some() {
            self.node.metrics.acks.inc();
            intake.observe_ack(waiting.read_at);
        }
        Ok(())
    }

    /// Waits for what is in flight, and acknowledges it where there is still somebody to tell.
    async fn settle_in_flight(&mut self, end: &End) {
        while !self.in_flight.is_empty() {
            let outcome = self.in_flight.first_outcome().await;
            let Some(waiting) = self.in_flight.pop() else {
                return;
            };
            if let Err(failure) = self.decide(&waiting, outcome) {
                warn!(
                    ?failure,
                    "publications in flight at the end of a connection were not made durable"
                );
                return;
            }
        }
        if end.is_broken() {
            self.socket.outgoing.clear();
        }
    }

    async fn publish_will(&mut self) {
        let Some(will) = self.will.take() else {
            return;
        };
        let turn = Turn {
            window: &mut self.session.window,
            commands: &self.commands,
            deliveries: &mut self.deliveries,
            dialogue: &mut self.dialogue,
            beside: &mut None,
            is_idle: true,
        };
        let taken = self.publications.take_will(&will, turn);
        let device_id = self.publications.intake.device_id;
        let Ok(Taking::InFlight { awaited, answer }) = taken else {
            error!(%device_id, "a device's will was not kept: the journal took nothing of it");
            return;
        };
        let mut waiting = Waiting::unacknowledged(awaited, answer);
        let outcome = waiting.awaited.outcome().await;
        if let Err(failure) = self.decide(&waiting, outcome) {
            error!(%device_id, ?failure, "a device's will was not kept");
        }
    }

    /// Writes what is queued. A device that does not read is not read either, and closed when it keeps on.
    async fn flush(&mut self) -> Result<(), End> {
        let Self {
            node,
            socket,
            session,
            ..
        } = self;
        tokio::select! {
            biased;
            written = timeout(WRITE_TIMEOUT, socket.flush()) => written.map_err(io::Error::from)??,
            reason = session.end.received() => return Err(reason.into()),
            () = node.stopping.cancelled() => return Err(shutting_down()),
        }
        for request_id in self.deliveries.written() {
            self.commands.note_delivered(&request_id);
        }
        Ok(())
    }

    /// Queues a command and those that wait behind it; [`Self::flush`] writes them.
    fn queue_commands(&mut self, first: Command) {
        let own = self.publications.intake.device_id;
        let child_name = |child| {
            let (gateway, name) = self.node.registry.gateway_and_name_of(child)?;
            (gateway == own).then_some(name)
        };
        let mut next = Some(first);
        while let Some(command) = next {
            let out = &mut self.socket.outgoing;
            match self.deliveries.queue(out, &command, &child_name) {
                Ok(()) => {}
                Err(why @ (NotSent::TooLarge | NotSent::NoTopic)) => {
                    self.commands.reject(&command.request_id, why.as_str());
                }
                // It may hear otherwise later on.
                Err(why @ (NotSent::NotForChild | NotSent::NoSuchChild)) => {
                    self.commands.refuse(&command.request_id, why.as_str());
                }
            }
            let has_room = self.deliveries.has_room();
            next = has_room.then(|| self.commands.try_next()).flatten();
        }
    }

    /// Queues what is told beside commands.
    fn tell(&mut self, said: Said) {
        let out = &mut self.socket.outgoing;
        let own = self.publications.intake.device_id;
        match said {
            Said::Answer {
                channel,
                topic,
                payload,
            } => {
                let payload = payload.to_string();
                self.deliveries
                    .tell(out, &channel, &topic, payload.as_bytes());
            }
            Said::Desired { of, changes } if of == own => {
                let payload = changes.to_string();
                for (channel, topic) in self.deliveries.desired_topics() {
                    self.deliveries
                        .tell(out, &channel, topic, payload.as_bytes());
                }
            }
            Said::Desired { of, changes } => {
                let now = self.node.registry.gateway_and_name_of(of);
                if let Some((_, name)) = now.filter(|(gateway, _)| *gateway == own) {
                    let payload = gateway_update(&name, &changes).to_string();
                    let channel = Channel::GatewayDesired;
                    self.deliveries
                        .tell(out, &channel, GATEWAY_ATTRIBUTES, payload.as_bytes());
                }
            }
        }
    }
}
