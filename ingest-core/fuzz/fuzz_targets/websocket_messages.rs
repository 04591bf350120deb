//! Bytes as a WebSocket client may send them: read in parts of any size, and held beside tungstenite.

#![no_main]

use std::io::{self, Cursor, Read, Write};

use hse_ingest_core::frame::FrameError;
use hse_ingest_core::inbound::websocket::messages::{Content, Decoder};
use libfuzzer_sys::fuzz_target;
use tokio::io::ReadBuf;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

const BYTES_MAX: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((how, raw)) = data.split_first() else {
        return;
    };
    let content = if how & 1 == 0 {
        Content::Hdp
    } else {
        Content::Mqtt
    };
    let whole = Heard::of(content, raw, raw.len().max(1));
    assert_eq!(whole, Heard::of(content, raw, usize::from(how >> 1) + 1));
    if content == Content::Mqtt {
        beside_tungstenite(raw, &whole);
    }
});

#[derive(Debug, PartialEq)]
struct Heard {
    data: Vec<u8>,
    answers: Vec<u8>,
    outcome: Result<(), FrameError>,
    is_closed: bool,
}

impl Heard {
    fn of(content: Content, raw: &[u8], part_bytes: usize) -> Self {
        let mut decoder = Decoder::new(content);
        let (mut data, mut answers) = (Vec::new(), Vec::new());
        let mut outcome = Ok(());
        for part in raw.chunks(part_bytes) {
            // A text message that ends without a newline gets one, and has at least one byte.
            let mut room = vec![0; 2 * part.len() + 1];
            let mut buffer = ReadBuf::new(&mut room);
            outcome = decoder.decode(part, &mut buffer, &mut answers);
            data.extend_from_slice(buffer.filled());
            if outcome.is_err() || decoder.is_closed() {
                break;
            }
        }
        Self {
            data,
            answers,
            outcome,
            is_closed: decoder.is_closed(),
        }
    }
}

/// What it takes we take, and what it does not take we do not either; of a message that does not end it says nothing.
fn beside_tungstenite(raw: &[u8], ours: &Heard) {
    // It reserves what a header declares.
    let config = WebSocketConfig::default()
        .max_message_size(Some(BYTES_MAX))
        .max_frame_size(Some(BYTES_MAX));
    let mut theirs =
        WebSocket::from_raw_socket(Script(Cursor::new(raw)), Role::Server, Some(config));
    let mut data = Vec::new();
    loop {
        match theirs.read() {
            Ok(Message::Binary(bytes)) => data.extend_from_slice(&bytes),
            Ok(Message::Text(_)) => return assert!(ours.outcome.is_err(), "text is no MQTT"),
            Ok(Message::Close(_)) => {
                assert!(ours.is_closed || ours.outcome.is_err());
                break;
            }
            Ok(_) => {}
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => break,
            Err(Error::Protocol(_) | Error::Utf8(_)) => {
                assert!(ours.outcome.is_err(), "{ours:?}");
                break;
            }
            Err(_) => break,
        }
    }
    assert!(ours.data.starts_with(&data));
}

/// A socket on which all of this was sent, and which takes what is answered.
struct Script<'a>(Cursor<&'a [u8]>);

impl Read for Script<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Script<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
