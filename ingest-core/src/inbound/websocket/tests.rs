use std::io::Cursor;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf, duplex};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::messages::{Content, Decoder, write_close, write_messages};
use super::stream::WebSocketStream;
use crate::frame::{ErrorCode, FrameError};

const PING: &[u8] = b"\0\0\0\x03\x04\x91\x01";
const MASK: [u8; 4] = [0x11, 0x82, 0xf3, 0x04];

/// A client's frame, whatever its head says.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    let mut frame = vec![first, 0x80 | length];
    frame.extend(MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// What a decoder makes of these bytes, given to it in parts of `part_bytes`: the data, what it answers, how it ended.
fn decode(raw: &[u8], part_bytes: usize) -> (Vec<u8>, Vec<u8>, Result<(), FrameError>) {
    decode_as(Content::Hdp, raw, part_bytes)
}

fn decode_as(
    content: Content,
    raw: &[u8],
    part_bytes: usize,
) -> (Vec<u8>, Vec<u8>, Result<(), FrameError>) {
    let mut decoder = Decoder::new(content);
    let (mut data, mut outgoing) = (Vec::new(), Vec::new());
    for part in raw.chunks(part_bytes) {
        let mut room = vec![0; part.len() + 1];
        let mut buffer = ReadBuf::new(&mut room);
        let decoded = decoder.decode(part, &mut buffer, &mut outgoing);
        data.extend_from_slice(buffer.filled());
        if decoded.is_err() || decoder.is_closed() {
            return (data, outgoing, decoded);
        }
    }
    (data, outgoing, Ok(()))
}

fn decoded(raw: &[u8]) -> Vec<u8> {
    let (data, _, ended) = decode(raw, raw.len());
    ended.unwrap();
    data
}

fn refused(raw: &[u8]) -> FrameError {
    let whole = decode(raw, raw.len()).2.unwrap_err();
    assert_eq!(decode(raw, 1).2, Err(whole), "in parts");
    whole
}

#[test]
fn a_binary_message_is_its_frames_and_a_text_message_its_lines() {
    assert_eq!(decoded(&masked(0x82, &PING.repeat(3))), PING.repeat(3));
    assert_eq!(decoded(&masked(0x81, b"{\"bye\":{}}")), b"{\"bye\":{}}\n");
    assert_eq!(decoded(&masked(0x81, b"{}\n{}\n")), b"{}\n{}\n");
}

#[test]
fn a_message_in_parts_with_a_ping_between_them_is_one() {
    let raw = [
        masked(0x02, &PING[..3]),
        masked(0x89, b"are you there"),
        masked(0x00, b""),
        masked(0x80, &PING[3..]),
    ]
    .concat();
    for part_bytes in 1..raw.len() {
        let (data, outgoing, ended) = decode(&raw, part_bytes);
        assert_eq!((data.as_slice(), ended), (PING, Ok(())));
        assert_eq!(
            outgoing,
            [b"\x8a\x0d".as_slice(), b"are you there"].concat()
        );
    }
}

#[test]
fn what_breaks_a_rule_is_malformed_whole_or_in_parts() {
    let unmasked = [b"\x82\x07".as_slice(), PING].concat();
    let second = |first, second: u8| [masked(0x82, PING), masked(first, &[second])].concat();
    let long_ping = [vec![0x89, 0xfe, 0, 126], MASK.to_vec(), vec![0; 126]].concat();
    let negative = [vec![0x82, 0xff, 0x80], vec![0; 7], MASK.to_vec()].concat();
    for (name, raw) in [
        ("not masked", unmasked),
        ("a reserved bit", masked(0xc2, PING)),
        ("an unknown opcode", masked(0x83, PING)),
        ("nothing continued", masked(0x80, PING)),
        ("text after binary", second(0x81, b'{')),
        (
            "binary after text",
            [masked(0x81, b"{}"), masked(0x82, PING)].concat(),
        ),
        (
            "a message in a message",
            [masked(0x02, PING), masked(0x82, PING)].concat(),
        ),
        ("a ping in parts", masked(0x09, b"")),
        ("a long ping", long_ping),
        ("a negative length", negative),
        ("half a frame", masked(0x82, &PING[..6])),
        (
            "a frame and a half",
            masked(0x82, &[PING, &PING[..2]].concat()),
        ),
        ("an empty message", masked(0x82, b"")),
        ("text that is no object", masked(0x81, b" {}")),
        ("a close with half a code", masked(0x88, &[3])),
        ("a close with no code", masked(0x88, &1005u16.to_be_bytes())),
        (
            "a close that is not UTF-8",
            masked(0x88, &[0x03, 0xe8, 0xff]),
        ),
    ] {
        assert_eq!(refused(&raw).code(), ErrorCode::Malformed, "{name}");
    }
}

#[test]
fn of_mqtt_binary_messages_are_cut_anywhere_and_text_is_refused() {
    let said = b"\x10\x0c\x00\x04MQTT{\x04\x02\x00\x3c";
    let raw: Vec<u8> = (said.chunks(5))
        .flat_map(|part| [masked(0x82, part), masked(0x82, b""), masked(0x89, b"")].concat())
        .collect();
    for part_bytes in [1, 3, raw.len()] {
        let (data, _, ended) = decode_as(Content::Mqtt, &raw, part_bytes);
        assert_eq!((&data[..], ended), (&said[..], Ok(())));
    }
    for text in [masked(0x81, said), masked(0x81, b"{}")] {
        let (data, _, ended) = decode_as(Content::Mqtt, &text, text.len());
        assert!(data.is_empty());
        assert_eq!(ended.unwrap_err().code(), ErrorCode::Malformed);
    }
    let mut out = Vec::new();
    write_messages(&mut out, Content::Mqtt, b"{\x02\x00\x01");
    assert_eq!(out, b"\x82\x04{\x02\x00\x01");
}

#[test]
fn a_binary_message_does_not_pass_for_json() {
    assert_eq!(
        refused(&masked(0x82, b"{\"bye\":{}}")).code(),
        ErrorCode::TooLarge
    );
}

#[test]
fn what_came_before_a_mistake_is_given_out() {
    let raw = [masked(0x82, PING), masked(0xc2, PING)].concat();
    let (data, _, ended) = decode(&raw, raw.len());
    assert_eq!((data.as_slice(), ended.is_err()), (PING, true));
}

#[test]
fn nothing_is_read_after_a_close() {
    let raw = [masked(0x88, &1000u16.to_be_bytes()), masked(0x82, PING)].concat();
    assert_eq!(decode(&raw, raw.len()), (Vec::new(), Vec::new(), Ok(())));
}

#[test]
fn pings_of_a_peer_that_does_not_read_do_not_pile_up() {
    let raw = masked(0x89, &[b'x'; 125]).repeat(1000);
    let (_, outgoing, _) = decode(&raw, raw.len());
    assert!(outgoing.len() < 5000, "{}", outgoing.len());
}

/// What a client of another's making reads.
fn read_by_a_client(raw: Vec<u8>) -> Vec<Message> {
    let mut client = WebSocket::from_raw_socket(Cursor::new(raw), Role::Client, None);
    std::iter::from_fn(|| client.read().ok()).collect()
}

#[test]
fn frames_leave_as_one_message_and_lines_as_one_each() {
    let mut raw = Vec::new();
    write_messages(&mut raw, Content::Hdp, &PING.repeat(30_000));
    write_messages(
        &mut raw,
        Content::Hdp,
        b"{\"pong\":{\"nonce\":1}}\n{\"ack\":{\"seq\":1}}\n",
    );
    write_close(&mut raw);
    let read = read_by_a_client(raw);
    let text = |text: &str| Message::Text(text.into());
    assert_eq!(read[0], Message::Binary(PING.repeat(30_000).into()));
    assert_eq!(
        read[1..3],
        [
            text("{\"pong\":{\"nonce\":1}}"),
            text("{\"ack\":{\"seq\":1}}")
        ]
    );
    assert!(matches!(&read[3], Message::Close(Some(close)) if u16::from(close.code) == 1000));
    assert_eq!(read.len(), 4);
}

/// What a client of another's making writes.
fn written_by_a_client(messages: &[Message]) -> Vec<u8> {
    let config = WebSocketConfig::default();
    let mut client =
        WebSocket::from_raw_socket(Cursor::new(Vec::new()), Role::Client, Some(config));
    for message in messages {
        client.send(message.clone()).unwrap();
    }
    client.get_ref().get_ref().clone()
}

proptest! {
    #[test]
    fn what_another_client_writes_is_read_in_whatever_parts_it_comes(
        frames in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..300), 1..4usize), 1..20),
        part_bytes in 1..700usize,
    ) {
        let mut expected = Vec::new();
        let mut messages = Vec::new();
        for (body, times) in &frames {
            let frame = [&u32::try_from(body.len()).unwrap().to_be_bytes(), body.as_slice()].concat();
            expected.extend(frame.repeat(*times));
            messages.push(Message::Binary(frame.repeat(*times).into()));
            messages.push(Message::Ping(vec![1, 2, 3].into()));
        }
        let (data, _, ended) = decode(&written_by_a_client(&messages), part_bytes);
        prop_assert_eq!(ended, Ok(()));
        prop_assert_eq!(data, expected);
    }

    #[test]
    fn no_bytes_make_it_panic_or_give_out_more_than_came(
        raw in prop::collection::vec(any::<u8>(), 0..2000), part_bytes in 1..500usize,
    ) {
        let (data, _, _) = decode(&raw, part_bytes);
        prop_assert!(data.len() <= raw.len());
    }
}

#[tokio::test]
async fn a_stream_answers_pings_ends_at_the_close_and_says_its_own() {
    let (ours, mut theirs) = duplex(4096);
    let mut stream = WebSocketStream::new(ours, Content::Hdp, masked(0x82, PING));
    let raw = [masked(0x89, b"hi"), masked(0x82, PING), masked(0x88, b"")].concat();
    theirs.write_all(&raw).await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, PING.repeat(2));
    stream.write_all(b"\0\0\0\x01\x85").await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let mut heard = Vec::new();
    theirs.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"\x8a\x02hi\x82\x05\0\0\0\x01\x85\x88\x02\x03\xe8");
}

#[tokio::test]
async fn a_mistake_is_an_error_after_what_came_before_it() {
    let (ours, mut theirs) = duplex(4096);
    let mut stream = WebSocketStream::new(ours, Content::Hdp, Vec::new());
    let raw = [masked(0x82, PING), masked(0x01, b"{")].concat();
    theirs.write_all(&raw).await.unwrap();
    let mut received = [0; 64];
    let num_bytes = stream.read(&mut received).await.unwrap();
    assert_eq!(&received[..num_bytes], PING);
    let error = stream.read(&mut received).await.unwrap_err();
    let violation = error.downcast::<FrameError>().unwrap();
    assert_eq!(violation.code(), ErrorCode::Malformed);
}

#[tokio::test]
async fn what_the_socket_does_not_take_is_written_before_anything_else() {
    let (ours, mut theirs) = duplex(3);
    let mut stream = WebSocketStream::new(ours, Content::Hdp, Vec::new());
    let writing = tokio::spawn(async move {
        for nonce in 0..20u8 {
            stream.write_all(&[0, 0, 0, 1, nonce]).await.unwrap();
        }
        stream.shutdown().await.unwrap();
    });
    let mut heard = Vec::new();
    theirs.read_to_end(&mut heard).await.unwrap();
    writing.await.unwrap();
    let read = read_by_a_client(heard);
    let said = |nonce| Message::Binary(vec![0, 0, 0, 1, nonce].into());
    assert_eq!(read[..20], (0..20).map(said).collect::<Vec<_>>());
}
