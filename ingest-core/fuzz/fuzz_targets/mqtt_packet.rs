//! Bytes as an MQTT client may send them: cut and decoded, and held beside another codec.

#![no_main]

use hse_ingest_core::inbound::mqtt::codec::{self, Packet, Version};
use libfuzzer_sys::fuzz_target;
use second_codec::{Place, compared};

#[path = "../../src/inbound/mqtt/codec/tests/second_codec.rs"]
mod second_codec;

const PACKET_BYTES_MAX: u32 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((how, bytes)) = data.split_first() else {
        return;
    };
    let version = if how & 1 == 0 {
        Version::V311
    } else {
        Version::V5
    };
    let place = if how & 2 == 0 {
        Place::First
    } else {
        Place::Later(version)
    };
    // Without the length in front the fuzzer finds its way into bodies sooner.
    match (how & 4, bytes.split_first()) {
        (0, _) | (_, None) => packets(bytes, place),
        (_, Some((first, body))) => packets(&whole(*first, body), place),
    }
});

fn packets(bytes: &[u8], place: Place) {
    let mut rest = bytes;
    let mut place = place;
    while let Ok(Some(raw)) = codec::split(rest, PACKET_BYTES_MAX) {
        let (packet, behind) = rest.split_at(raw.packet_bytes);
        let is_taken = compared(packet, place).is_some();
        match place {
            Place::First => {
                let connect = codec::decode_connect(raw);
                assert_eq!(connect.is_ok(), is_taken);
                let Ok(connect) = connect else { return };
                place = Place::Later(connect.version);
            }
            Place::Later(version) => {
                let decoded = codec::decode(raw, version);
                assert_eq!(decoded.is_ok(), is_taken);
                let Ok(decoded) = decoded else { return };
                check(&decoded);
            }
        }
        rest = behind;
    }
    compared(rest, place);
}

fn check(packet: &Packet<'_>) {
    match packet {
        Packet::Publish(publish) => {
            assert!(publish.packet_id != Some(0) && publish.topic_alias != Some(0));
            assert!(!publish.topic.contains(['+', '#', '\0']));
            assert!(!publish.topic.is_empty() || publish.topic_alias.is_some());
        }
        Packet::Subscribe(subscribe) => assert!(subscribe.subscriptions().next().is_some()),
        Packet::Unsubscribe(unsubscribe) => assert!(unsubscribe.filters().next().is_some()),
        Packet::Puback { .. } | Packet::Pingreq | Packet::Disconnect(_) => {}
    }
}

fn whole(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut left = body.len();
    loop {
        let low = u8::try_from(left & 0x7f).expect("seven bits");
        left >>= 7;
        out.push(if left == 0 { low } else { low | 0x80 });
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}
