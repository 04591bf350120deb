//! Sockets to list: a frame, an LPUSH, an ACK.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use hse_ingest_core::event::metadata_to_json;
use hse_ingest_core::frame::{
    self, Events, FRAME_BYTES_MAX_BEFORE_HELLO, Incoming, Outgoing, PROTOCOL_VERSION, split,
};
use redis::aio::MultiplexedConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::{Counters, QUEUE, QueuedEvent};
use crate::devices::Device;
use crate::error::BenchError;
use crate::workload::now_us;

const FRAME_BYTES_MAX: u32 = 1 << 20;
const INFLIGHT_FRAMES_MAX: u32 = 64;
const KEEPALIVE_S: u32 = 60;

/// Who may connect, and the last sequence number of each, in memory.
pub struct Devices {
    tokens: HashMap<Uuid, String>,
    last_seqs: Mutex<HashMap<Uuid, u64>>,
}

impl Devices {
    pub fn new(devices: Vec<Device>) -> Self {
        let tokens = devices
            .into_iter()
            .map(|device| (device.device_id, device.token))
            .collect();
        Self {
            tokens,
            last_seqs: Mutex::new(HashMap::new()),
        }
    }

    fn last_seq(&self, device_id: Uuid) -> u64 {
        self.last_seqs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&device_id)
            .copied()
            .unwrap_or(0)
    }

    fn note(&self, device_id: Uuid, last_seq: u64) {
        self.last_seqs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(device_id, last_seq);
    }
}

pub async fn accept(
    listener: TcpListener,
    devices: Arc<Devices>,
    redis: MultiplexedConnection,
    counters: Arc<Counters>,
) -> Result<(), BenchError> {
    loop {
        let (stream, _) = listener
            .accept()
            .await
            .map_err(BenchError::io("accepting"))?;
        let connection = Connection {
            devices: Arc::clone(&devices),
            redis: redis.clone(),
            counters: Arc::clone(&counters),
            device_id: None,
        };
        tokio::spawn(async move {
            if let Err(error) = connection.serve(stream).await {
                eprintln!("hse-loadgen: literal: {error}");
            }
        });
    }
}

struct Connection {
    devices: Arc<Devices>,
    redis: MultiplexedConnection,
    counters: Arc<Counters>,
    device_id: Option<Uuid>,
}

impl Connection {
    async fn serve(mut self, mut stream: TcpStream) -> Result<(), BenchError> {
        stream
            .set_nodelay(true)
            .map_err(BenchError::io("accepting"))?;
        let mut inbox = Vec::with_capacity(16 << 10);
        let mut outbox = Vec::new();
        loop {
            let frame_bytes_max = if self.device_id.is_some() {
                FRAME_BYTES_MAX
            } else {
                FRAME_BYTES_MAX_BEFORE_HELLO
            };
            if let Some(frame) = split(&inbox, frame_bytes_max)? {
                let num_bytes = frame.frame_bytes;
                let goes_on = self
                    .take(frame::decode(frame.kind, frame.body)?, &mut outbox)
                    .await?;
                inbox.drain(..num_bytes);
                stream
                    .write_all(&outbox)
                    .await
                    .map_err(BenchError::io("answering"))?;
                outbox.clear();
                if !goes_on {
                    return Ok(());
                }
                continue;
            }
            match stream.read_buf(&mut inbox).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(BenchError::io("reading")(error)),
            }
        }
    }

    /// Handles one frame; `false` when the connection is to be closed.
    async fn take(
        &mut self,
        incoming: Incoming<'_>,
        outbox: &mut Vec<u8>,
    ) -> Result<bool, BenchError> {
        match (incoming, self.device_id) {
            (Incoming::Hello(hello), None) => {
                if self
                    .devices
                    .tokens
                    .get(&hello.device_id)
                    .is_none_or(|token| token != hello.token)
                {
                    return Ok(false);
                }
                self.device_id = Some(hello.device_id);
                let welcome = Outgoing::Welcome {
                    version: PROTOCOL_VERSION,
                    last_seq: self.devices.last_seq(hello.device_id),
                    max_inflight_frames: INFLIGHT_FRAMES_MAX,
                    frame_bytes_max: FRAME_BYTES_MAX,
                    server_time_us: now_us(),
                    keepalive_s: KEEPALIVE_S,
                };
                welcome.encode(outbox);
            }
            (Incoming::Events(events), Some(device_id)) => {
                let last_seq = events.first_seq + u64::from(events.num_events) - 1;
                self.push(&events, device_id).await?;
                self.devices.note(device_id, last_seq);
                self.counters
                    .accepted
                    .fetch_add(u64::from(events.num_events), Ordering::Relaxed);
                Outgoing::Ack {
                    seq: last_seq,
                    rejected: &[],
                }
                .encode(outbox);
            }
            (Incoming::Ping { nonce }, Some(_)) => Outgoing::Pong { nonce }.encode(outbox),
            (
                Incoming::Hello(_)
                | Incoming::Events(_)
                | Incoming::Result(_)
                | Incoming::Ping { .. }
                | Incoming::Bye,
                _,
            ) => {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn push(&mut self, events: &Events<'_>, device_id: Uuid) -> Result<(), BenchError> {
        let mut command = redis::cmd("LPUSH");
        command.arg(QUEUE);
        for encoded in events.events.clone() {
            let event = encoded?.event;
            let metadata = event.metadata.map(|metadata| {
                let mut json = Vec::new();
                metadata_to_json(metadata, &mut json)
                    .ok()
                    .and_then(|()| serde_json::from_slice(&json).ok())
            });
            let queued = QueuedEvent {
                time_us: event.time_us.unwrap_or_else(now_us),
                device_id: event.device_id.unwrap_or(device_id),
                event_type: event.event_type.to_owned(),
                value: event.value,
                unit: event.unit.map(str::to_owned),
                metadata: metadata.flatten(),
                source: "hdp".to_owned(),
            };
            command.arg(serde_json::to_vec(&queued)?);
        }
        let _length: i64 = command.query_async(&mut self.redis).await?;
        Ok(())
    }
}

/// Answers every request with the counter that the load generator's gate reads, under the core's name.
pub async fn serve_metrics(
    listener: TcpListener,
    counters: Arc<Counters>,
) -> Result<(), BenchError> {
    loop {
        let (mut stream, _) = listener
            .accept()
            .await
            .map_err(BenchError::io("accepting"))?;
        let mut request = [0; 1024];
        stream
            .read(&mut request)
            .await
            .map_err(BenchError::io("reading a request"))?;
        let body = format!(
            "hse_ingest_events_accepted_total {}\nhse_ingest_events_stored_total {}\n",
            counters.accepted.load(Ordering::Relaxed),
            counters.stored.load(Ordering::Relaxed),
        );
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream
            .write_all((head + &body).as_bytes())
            .await
            .map_err(BenchError::io("answering a request"))?;
    }
}
