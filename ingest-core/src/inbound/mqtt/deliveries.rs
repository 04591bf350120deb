//! Commands on their way to the device that subscribed to them.
//!
//! A command is published once; it is delivered when it was written whole, as in HDP/1. With QoS 1 the device acknowledges it,
//! which bounds how many it is given at a time, and tells nothing more: what it did tells its result.

use std::collections::VecDeque;
use std::sync::Arc;

use super::codec::{
    Publication, Qos, ReasonCode, Subscribe, Unsubscribe, Version, write_publish, write_suback,
    write_unsuback,
};
use super::thingsboard::request_message;
use super::topics::{Channel, channel_of, command_topic};
use crate::config::COMMANDS_PER_DEVICE_MAX;
use crate::event::metadata_to_json;
use crate::pipeline::commands::Command;

/// Commands written in one go; between two goes the device's own packets have their turn.
const COMMANDS_PER_WRITE_MAX: usize = 16;

/// What a client said that it takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages of QoS 1 that are not acknowledged.
    receive_maximum: usize,
    packet_bytes_max: usize,
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

/// The command is larger than the client takes.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLarge;

pub struct Deliveries {
    version: Version,
    limits: Limits,
    /// While there is one.
    subscription: Option<(Channel, Qos)>,
    numbered: VecDeque<(u32, Arc<str>)>,
    last_number: u32,
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
            numbered: VecDeque::new(),
            last_number: 0,
            unacknowledged: Vec::new(),
            last_packet_id: 0,
            unwritten: Vec::new(),
        }
    }

    /// Answers each filter; of several that are granted the commands come by the last one.
    pub fn subscribe(&mut self, subscribe: &Subscribe<'_>, out: &mut Vec<u8>) {
        let (version, packet_id) = (self.version, subscribe.packet_id);
        let answers = subscribe.subscriptions().map(|asked| {
            let channel = channel_of(asked.filter)?;
            let granted = asked.qos.min(Qos::AtLeastOnce);
            self.subscription = Some((channel, granted));
            Ok(granted)
        });
        write_suback(out, version, packet_id, answers);
    }

    pub fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>, out: &mut Vec<u8>) {
        let (version, packet_id) = (self.version, unsubscribe.packet_id);
        let answers = unsubscribe.filters().map(|filter| {
            let unsubscribed = channel_of(filter).ok();
            let subscribed = self.subscription.map(|(channel, _)| channel);
            if unsubscribed.is_none() || unsubscribed != subscribed {
                return ReasonCode::NoSubscriptionExisted;
            }
            self.subscription = None;
            ReasonCode::Success
        });
        write_unsuback(out, version, packet_id, answers);
    }

    /// May the device be given a command?
    pub fn has_room(&self) -> bool {
        let has_packet_id = match self.subscription.map(|(_, qos)| qos) {
            None => false,
            Some(Qos::AtMostOnce) => true,
            Some(Qos::AtLeastOnce | Qos::ExactlyOnce) => {
                self.unacknowledged.len() < self.limits.receive_maximum
            }
        };
        has_packet_id && self.unwritten.len() < COMMANDS_PER_WRITE_MAX
    }

    /// Queues a command for the socket.
    ///
    /// # Errors
    /// [`TooLarge`]; nothing was queued.
    pub fn queue(&mut self, out: &mut Vec<u8>, command: &Command) -> Result<(), TooLarge> {
        let (channel, qos) = (self.subscription).unwrap_or((Channel::Commands, Qos::AtMostOnce));
        let packet_id = match qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce | Qos::ExactlyOnce => Some(self.free_packet_id()),
        };
        let (topic, payload) = match channel {
            Channel::Commands => (command_topic(&command.request_id), message(command)),
            Channel::Rpc { topic } => {
                let number = self.number(&command.request_id);
                let params = params(command);
                let payload = request_message(&command.command_type, &params);
                (format!("{topic}{number}"), payload)
            }
        };
        let before = out.len();
        let publication = Publication {
            topic: &topic,
            payload: &payload,
            packet_id,
        };
        let packet_bytes = write_publish(out, self.version, &publication);
        if packet_bytes > self.limits.packet_bytes_max {
            out.truncate(before);
            return Err(TooLarge);
        }
        self.unacknowledged.extend(packet_id);
        self.unwritten.push(Arc::clone(&command.request_id));
        Ok(())
    }

    /// The commands that were written since the last time.
    pub fn written(&mut self) -> impl Iterator<Item = Arc<str>> {
        self.unwritten.drain(..)
    }

    /// The device said PUBACK. One that stands for nothing changes nothing.
    pub fn acknowledge(&mut self, packet_id: u16) {
        self.unacknowledged.retain(|waiting| *waiting != packet_id);
    }

    /// Notes a command under a number, for firmware that reads one in the topic.
    fn number(&mut self, request_id: &Arc<str>) -> u32 {
        if self.numbered.len() >= COMMANDS_PER_DEVICE_MAX {
            self.numbered.pop_front();
        }
        self.last_number = self.last_number.wrapping_add(1);
        self.numbered
            .push_back((self.last_number, Arc::clone(request_id)));
        self.last_number
    }

    /// The command that was sent under a number; as many are remembered as may wait for their results.
    pub fn request_of(&self, number: &str) -> Option<Arc<str>> {
        let number: u32 = number.parse().ok()?;
        let mut numbered = self.numbered.iter();
        let found = numbered.find(|(known, _)| *known == number)?;
        Some(Arc::clone(&found.1))
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
    use uuid::Uuid;

    use super::super::codec::{Packet, decode, split};
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

    fn deliveries(receive_maximum: u16, packet_bytes_max: Option<u32>) -> Deliveries {
        let limits = Limits::new(receive_maximum, packet_bytes_max);
        let mut deliveries = Deliveries::new(Version::V5, limits);
        deliveries.subscription = Some((Channel::Commands, Qos::AtLeastOnce));
        deliveries
    }

    #[test]
    fn a_command_is_published_whole_and_named_once_it_is_written() {
        let (mut deliveries, mut out) = (deliveries(9, None), Vec::new());
        deliveries.queue(&mut out, &command()).unwrap();
        let raw = split(&out, 1 << 20).unwrap().unwrap();
        let Ok(Packet::Publish(publish)) = decode(raw, Version::V5) else {
            panic!()
        };
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
            deliveries.queue(&mut out, &command()).unwrap();
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
        for number in 1..=70 {
            out.clear();
            deliveries.queue(&mut out, &command()).unwrap();
            let topic = format!("v2/r/req/{number}");
            assert_eq!(out.get(4..4 + topic.len()), Some(topic.as_bytes()));
        }
        assert!(out.ends_with(br#"{"method":"set","params":{"k":7}}"#));
        assert_eq!(deliveries.request_of("70").as_deref(), Some("r/1"));
        for unknown in ["6", "71", "x", ""] {
            assert_eq!(deliveries.request_of(unknown), None);
        }
    }

    #[test]
    fn what_is_too_large_for_the_device_is_not_written() {
        let (mut deliveries, mut out) = (deliveries(9, Some(50)), Vec::new());
        assert_eq!(deliveries.queue(&mut out, &command()), Err(TooLarge));
        assert!(out.is_empty() && deliveries.written().next().is_none());
    }
}
