//! One blocking connection, for what needs no speed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hse_ingest_core::frame::device::{self, Received, Welcome};
use hse_ingest_core::frame::{Hello, split};

use crate::devices::Device;
use crate::error::BenchError;
use crate::mqtt::{self, Heard};
use crate::target;

const RECEIVED_BYTES_MAX: u32 = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);

pub struct Client {
    stream: TcpStream,
    inbox: Vec<u8>,
}

/// The frames that the blocking client waits for.
pub enum Answer {
    Welcome(Welcome),
    Ack { seq: u64 },
    Busy { retry_after: Duration },
    Other,
}

impl Client {
    /// Connects, says HELLO and waits for WELCOME.
    ///
    /// # Errors
    /// `Io` when the core is not there (yet), `Refused` when it does not take the device.
    pub fn greet(
        address: SocketAddr,
        index: usize,
        device: &Device,
        epoch: u64,
    ) -> Result<(Self, Welcome), BenchError> {
        let stream = target::connect(address, index).map_err(BenchError::io("connecting"))?;
        stream
            .set_read_timeout(Some(TIMEOUT))
            .map_err(BenchError::io("connecting"))?;
        let mut client = Self {
            stream,
            inbox: Vec::new(),
        };
        let mut out = Vec::new();
        let hello = Hello {
            device_id: device.device_id,
            token: &device.token,
            epoch,
            agent: None,
        };
        device::encode_hello(&mut out, &hello);
        client.send(&out)?;
        loop {
            if let Answer::Welcome(welcome) = client.receive()? {
                return Ok((client, welcome));
            }
        }
    }

    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), BenchError> {
        self.stream
            .write_all(bytes)
            .map_err(BenchError::io("sending"))
    }

    /// Waits for the next frame.
    ///
    /// # Errors
    /// The connection is gone, the core said ERROR, or what came is no frame.
    pub fn receive(&mut self) -> Result<Answer, BenchError> {
        loop {
            if let Some((answer, num_bytes)) = self.take_frame()? {
                self.inbox.drain(..num_bytes);
                return Ok(answer);
            }
            let mut scratch = [0; 4096];
            let n = self
                .stream
                .read(&mut scratch)
                .map_err(BenchError::io("receiving"))?;
            if n == 0 {
                return Err(BenchError::io("receiving")(io::Error::from(
                    ErrorKind::UnexpectedEof,
                )));
            }
            self.inbox
                .extend_from_slice(scratch.get(..n).unwrap_or_default());
        }
    }

    fn take_frame(&self) -> Result<Option<(Answer, usize)>, BenchError> {
        let Some(frame) = split(&self.inbox, RECEIVED_BYTES_MAX)? else {
            return Ok(None);
        };
        let answer = match device::decode(frame.kind, frame.body)? {
            Received::Welcome(welcome) => Answer::Welcome(welcome),
            Received::Ack { seq, .. } => Answer::Ack { seq },
            Received::Busy { retry_after_ms, .. } => Answer::Busy {
                retry_after: Duration::from_millis(retry_after_ms),
            },
            Received::Error { code, message } => {
                return Err(BenchError::Refused {
                    device: String::new(),
                    code: code.to_owned(),
                    message: message.to_owned(),
                });
            }
            Received::Command { .. } | Received::Pong { .. } => Answer::Other,
        };
        Ok(Some((answer, frame.frame_bytes)))
    }
}

/// One that speaks MQTT.
pub struct MqttClient {
    stream: TcpStream,
}

impl MqttClient {
    /// Connects, says CONNECT and waits for CONNACK.
    ///
    /// # Errors
    /// `Io` when the server is not there, `Protocol` when it does not take the device.
    pub fn greet(address: SocketAddr, index: usize, device: &Device) -> Result<Self, BenchError> {
        let stream = target::connect(address, index).map_err(BenchError::io("connecting"))?;
        stream
            .set_read_timeout(Some(TIMEOUT))
            .map_err(BenchError::io("connecting"))?;
        let mut client = Self { stream };
        let mut out = Vec::new();
        mqtt::write_connect(&mut out, device);
        client.send(&out)?;
        match client.receive()? {
            Heard::Welcome => Ok(client),
            Heard::Puback { .. } | Heard::Other => Err(BenchError::Protocol {
                what: "CONNECT is answered with something else than CONNACK",
            }),
        }
    }

    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), BenchError> {
        self.stream
            .write_all(bytes)
            .map_err(BenchError::io("sending"))
    }

    /// Waits for the next packet. Nobody sends this client more than one at a time.
    ///
    /// # Errors
    /// The connection is gone, or what came is said to no publisher.
    pub fn receive(&mut self) -> Result<Heard, BenchError> {
        let mut received = Vec::new();
        loop {
            if let Some((heard, _)) = mqtt::take(&received)? {
                return Ok(heard);
            }
            let mut byte = [0];
            self.stream
                .read_exact(&mut byte)
                .map_err(BenchError::io("receiving"))?;
            received.extend_from_slice(&byte);
        }
    }
}
