//! Commands on their way to the device that subscribed to them.
//!
//! A command is published once; it is delivered when it was written whole, as in HDP/1. With QoS 1 the device acknowledges it,
//! which bounds how many it is given at a time, and tells nothing more: what it did tells its result.

use std::sync::Arc;

use uuid::Uuid;

use super::codec::{
    Publication, Qos, ReasonCode, Subscribe, Unsubscribe, Version, write_publish, write_suback,
    write_unsuback,
};
use super::firmware::{self, Outcome, Said, Unanswered, answer_of_bridge};
use super::thingsboard::GATEWAY_RPC;
use super::topics::{Channel, Topic, channel_of, command_topic};
use crate::config::COMMANDS_PER_DEVICE_MAX;
use crate::event::metadata_to_json;
use crate::inbound::formats::thingsboard::{ChildOf, gateway_request, request_message};
use crate::inbound::formats::zigbee2mqtt::ZigbeeTopic;
use crate::inbound::numbered::Numbered;
use crate::pipeline::commands::Command;

/// Commands written in one go; between two goes the device's own packets have their turn.
const COMMANDS_PER_WRITE_MAX: usize = 16;

/// What a client said that it takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages of QoS 1 that are not acknowledged.
    receive_maximum: usize,
    pub packet_bytes_max: usize,
}

impl Limits {
    pub fn new(receive_maximum: u16, packet_bytes_max: Option<u32>) -> Self {
        let packet_bytes_max = packet_bytes_max.map(usize::try_from);
        Self {
            receive_maximum: usize::from(receive_maximum).min(COMMANDS_PER_DEVICE_MAX),
            packet_bytes_max: packet_bytes_max.map_or(usize::MAX, |max| max.unwrap_or(usize::MAX)),
        }
    }
}

/// What a child of the gateway that is connected is called.
pub type ChildName<'a> = &'a dyn Fn(Uuid) -> Option<Box<str>>;

/// Why a command is not sent.
#[derive(Debug, PartialEq, Eq)]
pub enum NotSent {
    TooLarge,
    /// The client has subscribed to commands for its children alone.
    NotForChild,
    NoSuchChild,
    /// The type of the command cannot stand in a topic.
    NoTopic,
}

impl NotSent {
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::TooLarge => {
                "too_large: the command is larger than the device takes; nothing was written"
            }
            Self::NotForChild => {
                "the gateway hears commands for its children alone, and this one names none by device_id; nothing was written"
            }
            Self::NoSuchChild => "device_id names no child of this gateway; nothing was written",
            Self::NoTopic => {
                "invalid_command: the device hears commands under topics, in which this type cannot stand; nothing was written"
            }
        }
    }
}

pub struct Deliveries {
    version: Version,
    limits: Limits,
    /// By which commands come, while there is one.
    subscription: Option<(Channel, Qos)>,
    /// All others.
    heard: Vec<(Channel, Qos)>,
    pub numbered: Numbered,
    pub unanswered: Unanswered,
    /// Packet identifiers of messages that were not acknowledged.
    unacknowledged: Vec<u16>,
    last_packet_id: u16,
    /// Commands that were queued for the socket and not written whole yet.
    unwritten: Vec<Arc<str>>,
}

impl Deliveries {
    pub fn new(version: Version, limits: Limits) -> Self {
        Self {
            version,
            limits,
            subscription: None,
            heard: Vec::new(),
            numbered: Numbered::default(),
            unanswered: Unanswered::default(),
            unacknowledged: Vec::new(),
            last_packet_id: 0,
            unwritten: Vec::new(),
        }
    }

    /// Answers each filter; of several that are granted the commands come by the last one, but for those of a Tasmota, which subscribes
    /// to its own first, and then to those of its group. Returns what is heard now.
    pub fn subscribe(&mut self, subscribe: &Subscribe<'_>, out: &mut Vec<u8>) -> Vec<Channel> {
        let (version, packet_id) = (self.version, subscribe.packet_id);
        let mut granted = Vec::new();
        let answers = subscribe.subscriptions().map(|asked| {
            let channel = channel_of(asked.filter)?;
            let qos = asked.qos.min(Qos::AtLeastOnce);
            let is_of_tasmota = |channel: &Channel| matches!(channel, Channel::Tasmota { .. });
            let current = self.subscription.as_ref().map(|(channel, _)| channel);
            if !channel.is_of_commands() {
                self.heard.retain(|(known, _)| *known != channel);
                self.heard.push((channel.clone(), qos));
            } else if !(is_of_tasmota(&channel) && current.is_some_and(is_of_tasmota)) {
                self.subscription = Some((channel.clone(), qos));
            }
            granted.push(channel);
            Ok(qos)
        });
        write_suback(out, version, packet_id, answers);
        granted
    }

    pub fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>, out: &mut Vec<u8>) {
        let (version, packet_id) = (self.version, unsubscribe.packet_id);
        let answers = unsubscribe.filters().map(|filter| {
            let Ok(channel) = channel_of(filter) else {
                return ReasonCode::NoSubscriptionExisted;
            };
            let before = self.heard.len();
            self.heard.retain(|(known, _)| *known != channel);
            let current = self.subscription.as_ref().map(|(known, _)| known);
            if current == Some(&channel) {
                self.subscription = None;
            } else if self.heard.len() == before {
                return ReasonCode::NoSubscriptionExisted;
            }
            ReasonCode::Success
        });
        write_unsuback(out, version, packet_id, answers);
    }

    fn qos_of(&self, channel: &Channel) -> Option<Qos> {
        let mut heard = self.heard.iter();
        heard
            .find(|(known, _)| known == channel)
            .map(|(_, qos)| *qos)
    }

    /// May the device be given a command?
    pub fn has_room(&self) -> bool {
        let of_children = self.qos_of(&Channel::GatewayRpc);
        let own = self.subscription.as_ref().map(|(_, qos)| *qos);
        let mut subscribed = [own, of_children].into_iter().flatten().peekable();
        subscribed.peek().is_some()
            && subscribed.all(|qos| qos == Qos::AtMostOnce || self.has_packet_id())
            && self.unwritten.len() < COMMANDS_PER_WRITE_MAX
    }

    /// May the device be told anything else?
    pub fn has_packet_id(&self) -> bool {
        self.unacknowledged.len() < self.limits.receive_maximum
    }

    /// Queues a command for the socket.
    ///
    /// # Errors
    /// [`NotSent`]; nothing was queued.
    pub fn queue(
        &mut self,
        out: &mut Vec<u8>,
        command: &Command,
        child_name: ChildName<'_>,
    ) -> Result<(), NotSent> {
        // Looked for only where somebody hears of children: the parameters are read for it.
        let child = || {
            let child = child_of(command)?;
            Some((child, child_name(child)))
        };
        let for_child = self.qos_of(&Channel::GatewayRpc).and_then(|qos| {
            let (_, name) = child()?;
            Some((qos, name?))
        });
        let own = self.subscription.as_ref();
        let mut wanted = None;
        let (topic, payload, qos) = match (for_child, own) {
            (Some((qos, name)), _) => {
                let number = self.numbered.note(&command.request_id);
                let kind = &command.command_type;
                let payload = gateway_request(&name, number, kind, &params(command));
                (GATEWAY_RPC.to_owned(), payload, qos)
            }
            (None, Some((Channel::Rpc { topic }, qos))) => {
                let number = self.numbered.note(&command.request_id);
                let payload = request_message(&command.command_type, &params(command));
                (format!("{topic}{number}"), payload, *qos)
            }
            (None, Some((Channel::Commands, qos))) => {
                (command_topic(&command.request_id), message(command), *qos)
            }
            (None, Some((firmware, qos))) => {
                let number = self.numbered.note(&command.request_id);
                let child = (*firmware == Channel::Zigbee).then(child).flatten();
                let said = said_to(firmware, command, number, child)?;
                wanted = said.wanted;
                (said.topic, said.payload.into_bytes(), *qos)
            }
            (None, None) => return Err(NotSent::NotForChild),
        };
        if !self.write(out, &topic, &payload, qos) {
            return Err(NotSent::TooLarge);
        }
        if let Some(wanted) = wanted {
            self.unanswered.note(command, wanted);
        }
        self.unwritten.push(Arc::clone(&command.request_id));
        Ok(())
    }

    /// Queues what is told beside commands, where it is heard. What is larger than the client takes is not told.
    pub fn tell(&mut self, out: &mut Vec<u8>, channel: &Channel, topic: &str, payload: &[u8]) {
        if let Some(qos) = self.qos_of(channel) {
            self.write(out, topic, payload, qos);
        }
    }

    /// The command that a publication of firmware answers, where it does, and how.
    pub fn answered_by(
        &mut self,
        topic: &Topic<'_>,
        payload: &[u8],
        child_of: ChildOf<'_>,
    ) -> Option<Outcome> {
        match topic {
            Topic::Zigbee(ZigbeeTopic::Bridge { about }) => {
                answer_of_bridge(&self.numbered, about, payload)
            }
            _ => self.unanswered.answered_by(topic, payload, child_of),
        }
    }

    /// Where what is desired of the connected device is heard.
    pub fn desired_topics(&self) -> Vec<(Channel, &'static str)> {
        let heard = self.heard.iter().filter_map(|(channel, _)| match channel {
            Channel::Desired { topic } => Some((channel.clone(), *topic)),
            _ => None,
        });
        heard.collect()
    }

    /// False when it is larger than the client takes.
    fn write(&mut self, out: &mut Vec<u8>, topic: &str, payload: &[u8], qos: Qos) -> bool {
        let packet_id = match qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce | Qos::ExactlyOnce => Some(self.free_packet_id()),
        };
        let before = out.len();
        let publication = Publication {
            topic,
            payload,
            packet_id,
        };
        let packet_bytes = write_publish(out, self.version, &publication);
        if packet_bytes > self.limits.packet_bytes_max {
            out.truncate(before);
            return false;
        }
        self.unacknowledged.extend(packet_id);
        true
    }

    /// The commands that were written since the last time.
    pub fn written(&mut self) -> impl Iterator<Item = Arc<str>> {
        self.unwritten.drain(..)
    }

    /// The device said PUBACK. One that stands for nothing changes nothing.
    pub fn acknowledge(&mut self, packet_id: u16) {
        self.unacknowledged.retain(|waiting| *waiting != packet_id);
    }

    fn free_packet_id(&mut self) -> u16 {
        loop {
            // Few are taken, so this ends soon.
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            if !self.unacknowledged.contains(&self.last_packet_id) {
                return self.last_packet_id;
            }
        }
    }
}

/// `{"request_id", "command_type", "params", "deadline_us"}`, as in the JSON form of HDP/1.
fn message(command: &Command) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + 2 * command.params.len());
    let mut put = |key: &str, text: &str| {
        out.extend_from_slice(key.as_bytes());
        // Writing to a Vec cannot fail.
        let _ = serde_json::to_writer(&mut out, text);
    };
    put("{\"request_id\":", &command.request_id);
    put(",\"command_type\":", &command.command_type);
    out.extend_from_slice(b",\"params\":");
    out.extend_from_slice(&params(command));
    out.extend_from_slice(format!(",\"deadline_us\":{}}}", command.deadline_us).as_bytes());
    out
}

/// A command in the words of the firmware that hears it; `child` is whom it is for, and what the gateway calls him.
fn said_to(
    firmware: &Channel,
    command: &Command,
    number: u32,
    child: Option<(Uuid, Option<Box<str>>)>,
) -> Result<Said, NotSent> {
    if command.command_type.contains(['+', '#', '\0']) {
        return Err(NotSent::NoTopic);
    }
    let child = match &child {
        Some((child, Some(name))) => Some((*child, &**name)),
        Some((_, None)) => return Err(NotSent::NoSuchChild),
        None => None,
    };
    let params = serde_json::from_slice(&params(command)).unwrap_or_default();
    firmware::said(firmware, command, params, number, child).ok_or(NotSent::NoTopic)
}

/// The child that a command for a gateway is meant for.
fn child_of(command: &Command) -> Option<Uuid> {
    let params: serde_json::Value = serde_json::from_slice(&params(command)).ok()?;
    Uuid::try_parse(params.get("device_id")?.as_str()?).ok()
}

/// The parameters as JSON.
fn params(command: &Command) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * command.params.len());
    // Fails for what is no map only, and parameters are checked where commands are made.
    match metadata_to_json(&command.params, &mut out) {
        Ok(()) => out,
        Err(_) => b"{}".to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::super::codec::{Packet, Publish, decode, split};
    use super::*;

    fn command() -> Command {
        Command {
            device_id: Uuid::nil(),
            request_id: "r/1".into(),
            command_type: "set".to_owned(),
            params: b"\x81\xa1k\x07".to_vec(),
            deadline_us: 9,
            deadline: Instant::now(),
        }
    }

    fn published(out: &[u8]) -> Publish<'_> {
        let raw = split(out, 1 << 20).unwrap().unwrap();
        match decode(raw, Version::V5) {
            Ok(Packet::Publish(publish)) => publish,
            _ => panic!(),
        }
    }

    fn nobody(_: Uuid) -> Option<Box<str>> {
        None
    }

    fn deliveries(receive_maximum: u16, packet_bytes_max: Option<u32>) -> Deliveries {
        let limits = Limits::new(receive_maximum, packet_bytes_max);
        let mut deliveries = Deliveries::new(Version::V5, limits);
        deliveries.subscription = Some((Channel::Commands, Qos::AtLeastOnce));
        deliveries
    }

    #[test]
    fn a_command_is_published_whole_and_named_once_it_is_written() {
        let (mut deliveries, mut out) = (deliveries(9, None), Vec::new());
        deliveries.queue(&mut out, &command(), &nobody).unwrap();
        let publish = published(&out);
        assert_eq!(
            (publish.topic, publish.packet_id),
            ("hse/v1/commands/r%2F1", Some(1))
        );
        let said: serde_json::Value = serde_json::from_slice(publish.payload).unwrap();
        let expected = serde_json::json!({"request_id": "r/1", "command_type": "set", "params": {"k": 7}, "deadline_us": 9});
        assert_eq!(said, expected);
        let written: Vec<_> = deliveries.written().collect();
        assert_eq!(written, [Arc::from("r/1")]);
    }

    #[test]
    fn no_more_is_given_than_the_device_takes_at_a_time() {
        let (mut deliveries, mut out) = (deliveries(2, None), Vec::new());
        for _ in 0..2 {
            assert!(deliveries.has_room());
            deliveries.queue(&mut out, &command(), &nobody).unwrap();
        }
        assert!(!deliveries.has_room());
        deliveries.acknowledge(9);
        assert!(!deliveries.has_room());
        deliveries.acknowledge(1);
        assert!(deliveries.has_room());
        deliveries.last_packet_id = u16::MAX;
        assert_eq!(deliveries.free_packet_id(), 1);
        deliveries.last_packet_id = 1;
        assert_eq!(deliveries.free_packet_id(), 3);
        deliveries.subscription = None;
        assert!(!deliveries.has_room());
    }

    #[test]
    fn firmware_that_reads_numbers_is_given_one_for_each_command() {
        let (mut deliveries, mut out) = (deliveries(9, None), Vec::new());
        let topic = "v2/r/req/";
        deliveries.subscription = Some((Channel::Rpc { topic }, Qos::AtMostOnce));
        let mut numbers = Vec::new();
        for _ in 0..70 {
            out.clear();
            deliveries.queue(&mut out, &command(), &nobody).unwrap();
            let publish = published(&out);
            assert_eq!(publish.payload, br#"{"method":"set","params":{"k":7}}"#);
            numbers.push(publish.topic.strip_prefix(topic).unwrap().to_owned());
        }
        for number in numbers.split_off(6) {
            assert!(deliveries.numbered.request_of(&number).is_some());
        }
        for unknown in numbers.iter().map(String::as_str).chain(["x", ""]) {
            assert_eq!(deliveries.numbered.request_of(unknown), None);
        }
    }

    #[test]
    fn a_command_for_a_child_goes_where_the_gateway_hears_of_its_children() {
        let (mut deliveries, mut out) = (deliveries(9, None), Vec::new());
        let child = Uuid::from_u128(5);
        let name = |id| (id == child).then(|| "lamp".into());
        let params = rmp_serde::to_vec(&serde_json::json!({"device_id": child, "on": true}));
        let for_child = Command {
            params: params.unwrap(),
            ..command()
        };
        deliveries.queue(&mut out, &for_child, &name).unwrap();
        assert!(out.windows(15).any(|part| part == b"hse/v1/commands"));
        deliveries
            .heard
            .push((Channel::GatewayRpc, Qos::AtMostOnce));
        out.clear();
        deliveries.queue(&mut out, &for_child, &name).unwrap();
        let publish = published(&out);
        let told: serde_json::Value = serde_json::from_slice(publish.payload).unwrap();
        let number = told["data"]["id"].to_string();
        assert!(deliveries.numbered.request_of(&number).is_some());
        let data =
            serde_json::json!({"id": told["data"]["id"], "method": "set", "params": {"on": true}});
        assert_eq!(told, serde_json::json!({"device": "lamp", "data": data}));
        deliveries.subscription = None;
        assert!(deliveries.has_room());
        let other = deliveries.queue(&mut out, &command(), &name);
        assert_eq!(other, Err(NotSent::NotForChild));
    }

    #[test]
    fn what_is_told_beside_commands_is_told_where_it_is_heard() {
        let (mut deliveries, mut out) = (deliveries(9, None), Vec::new());
        let topic = "v1/devices/me/attributes/response/";
        let channel = Channel::Responses { topic };
        deliveries.tell(&mut out, &channel, "x/1", b"{}");
        assert!(out.is_empty());
        deliveries.heard.push((channel.clone(), Qos::AtLeastOnce));
        deliveries.tell(&mut out, &channel, "x/1", b"{}");
        assert!(out.ends_with(b"{}"));
        assert_eq!(deliveries.unacknowledged, [1]);
    }

    #[test]
    fn what_is_too_large_for_the_device_is_not_written() {
        let (mut deliveries, mut out) = (deliveries(9, Some(50)), Vec::new());
        let queued = deliveries.queue(&mut out, &command(), &nobody);
        assert_eq!(queued, Err(NotSent::TooLarge));
        assert!(out.is_empty() && deliveries.written().next().is_none());
    }
}
