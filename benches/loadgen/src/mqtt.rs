//! As much of MQTT 3.1.1 as a device needs that publishes with QoS 1, to this system or to any broker.

use std::io::Write;

use hse_ingest_core::event::Event;
use serde_json::json;

use crate::devices::Device;
use crate::error::BenchError;

pub const PINGREQ: &[u8] = &[0xc0, 0];
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH_QOS_1: u8 = 0x32;
const PUBACK: u8 = 0x40;
/// A user name, a password, and a clean session.
const FLAGS: u8 = 0xc2;
const KEEP_ALIVE_S: u16 = 600;
const TOPIC: &str = "hse/v1/events";
/// What a broker may send a device that has subscribed to nothing.
const RECEIVED_BYTES_MAX: usize = 127;

/// What a server says to a publisher.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Welcome,
    Puback { packet_id: u16 },
    Other,
}

/// Says who the device is.
pub fn write_connect(out: &mut Vec<u8>, device: &Device) {
    let id = device.device_id.to_string();
    let mut body = Vec::with_capacity(256);
    write_text(&mut body, "MQTT");
    body.extend_from_slice(&[4, FLAGS]);
    body.extend_from_slice(&KEEP_ALIVE_S.to_be_bytes());
    for text in [&id, &id, &device.token] {
        write_text(&mut body, text);
    }
    write_packet(out, CONNECT, &body);
}

/// Publishes events: one as itself, several as a list.
///
/// # Errors
/// An event cannot be written as JSON.
pub fn write_events(
    out: &mut Vec<u8>,
    packet_id: u16,
    events: &[Event<'_>],
) -> Result<(), BenchError> {
    let mut body = Vec::with_capacity(64 + 160 * events.len());
    write_text(&mut body, TOPIC);
    body.extend_from_slice(&packet_id.to_be_bytes());
    let is_list = events.len() != 1;
    for (index, event) in events.iter().enumerate() {
        match (is_list, index) {
            (false, _) => {}
            (true, 0) => body.push(b'['),
            (true, _) => body.push(b','),
        }
        write_event(&mut body, event)?;
    }
    if is_list {
        body.push(b']');
    }
    write_packet(out, PUBLISH_QOS_1, &body);
    Ok(())
}

fn write_event(out: &mut Vec<u8>, event: &Event<'_>) -> Result<(), BenchError> {
    let mut fields = json!({
        "time_us": event.time_us,
        "type": event.event_type,
        "value": event.value,
        "unit": event.unit,
    });
    if let (Some(child), Some(fields)) = (event.device_id, fields.as_object_mut()) {
        fields.insert("device_id".to_owned(), json!(child));
    }
    serde_json::to_writer(out.by_ref(), &fields)?;
    Ok(())
}

/// Takes the first packet off what was received; none when it has not come whole.
///
/// # Errors
/// The server refuses the device, or says what is said to no publisher.
pub fn take(received: &[u8]) -> Result<Option<(Heard, usize)>, BenchError> {
    let [first, length, rest @ ..] = received else {
        return Ok(None);
    };
    let num_bytes = usize::from(*length);
    if num_bytes > RECEIVED_BYTES_MAX {
        return Err(BenchError::Protocol {
            what: "a long packet for a device that only publishes",
        });
    }
    let Some(body) = rest.get(..num_bytes) else {
        return Ok(None);
    };
    let heard = match (*first, body) {
        (CONNACK, [_, 0]) => Heard::Welcome,
        (CONNACK, _) => {
            return Err(BenchError::Protocol {
                what: "CONNACK is a refusal",
            });
        }
        (PUBACK, [high, low]) => Heard::Puback {
            packet_id: u16::from_be_bytes([*high, *low]),
        },
        _ => Heard::Other,
    };
    Ok(Some((heard, 2 + num_bytes)))
}

fn write_packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    let mut left = body.len();
    loop {
        let low = left.to_le_bytes().first().copied().unwrap_or(0) & 0x7f;
        left >>= 7;
        if left == 0 {
            out.push(low);
            break;
        }
        out.push(low | 0x80);
    }
    out.extend_from_slice(body);
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    // Ids, tokens and topics are far shorter.
    let num_bytes = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&num_bytes.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use hse_ingest_core::inbound::mqtt::codec::{
        Packet, Qos, Version, decode, decode_connect, split,
    };
    use uuid::Uuid;

    use super::*;
    use crate::workload::fill_frame;

    fn device() -> Device {
        Device {
            device_id: Uuid::from_u128(7),
            token: "secret".to_owned(),
            children: Vec::new(),
        }
    }

    #[test]
    fn the_core_understands_what_is_said() {
        let mut out = Vec::new();
        write_connect(&mut out, &device());
        let raw = split(&out, 4096).unwrap().unwrap();
        let connect = decode_connect(raw).unwrap();
        assert_eq!(connect.password, Some(&b"secret"[..]));
        for num_events in [1, 2, 100] {
            let mut events = Vec::new();
            fill_frame(&mut events, &device(), 1, num_events, 9);
            out.clear();
            write_events(&mut out, 9, &events).unwrap();
            let raw = split(&out, 1 << 20).unwrap().unwrap();
            let Ok(Packet::Publish(publish)) = decode(raw, Version::V311) else {
                panic!()
            };
            assert_eq!(
                (publish.packet_id, publish.qos),
                (Some(9), Qos::AtLeastOnce)
            );
            let read: serde_json::Value = serde_json::from_slice(publish.payload).unwrap();
            let num_read = read.as_array().map_or(1, Vec::len);
            assert_eq!(u32::try_from(num_read).unwrap(), num_events);
        }
    }

    #[test]
    fn answers_are_taken_one_by_one_and_a_refusal_is_an_error() {
        let said = [0x20, 2, 0, 0, 0x40, 2, 1, 2, 0xd0, 0, 0x40];
        assert_eq!(take(&said).unwrap(), Some((Heard::Welcome, 4)));
        let puback = Heard::Puback { packet_id: 258 };
        assert_eq!(take(&said[4..]).unwrap(), Some((puback, 4)));
        assert_eq!(take(&said[8..]).unwrap(), Some((Heard::Other, 2)));
        assert_eq!(take(&said[10..]).unwrap(), None);
        assert!(take(&[0x20, 2, 0, 5]).is_err());
    }
}
