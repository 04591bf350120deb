//! One connection of one device: what is in flight, what waits, what must be sent again.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hse_ingest_core::event::Event;
use hse_ingest_core::frame::device::{self, Received};
use hse_ingest_core::frame::{Hello, split};

use super::tally::Tally;
use super::{Dialect, Plan};
use crate::devices::Device;
use crate::error::BenchError;
use crate::mqtt::{self, Heard};
use crate::target;
use crate::workload::{fill_frame, now_us};

/// What a core may send in one frame; ACKs with 10 000 rejections fit.
const RECEIVED_BYTES_MAX: u32 = 1 << 20;
const RECONNECT_AFTER: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Down {
        retry_at: Instant,
    },
    Greeting,
    Ready,
    /// The core said BUSY: nothing leaves before this, and then everything unacknowledged goes first.
    HeldOff {
        until: Instant,
    },
}

/// An EVENTS frame that is not acknowledged. Its events are not kept: they can be made again.
struct Pending {
    first_seq: u64,
    last_seq: u64,
    num_events: u32,
    time_us: i64,
    intended: Instant,
    /// By which a PUBACK names it.
    packet_id: u16,
}

pub struct Session {
    index: usize,
    device: Device,
    dialect: Dialect,
    epoch: u64,
    inflight_max: usize,
    phase: Phase,
    pub stream: Option<TcpStream>,
    next_seq: u64,
    last_packet_id: u16,
    pending: VecDeque<Pending>,
    /// Intended sends that could not leave yet, oldest first.
    waiting: VecDeque<Instant>,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

/// What a session needs of its worker to read and write.
pub struct Desk<'a> {
    pub tally: &'a mut Tally,
    pub events: &'a mut Vec<Event<'static>>,
    pub window: std::ops::Range<Instant>,
    pub now: Instant,
    /// Counts up with each acknowledged event, for the gate.
    pub newly_acked: &'a mut u64,
}

impl Session {
    pub fn new(index: usize, device: Device, plan: &Plan, now: Instant) -> Self {
        Self {
            index,
            device,
            dialect: plan.dialect,
            epoch: plan.epoch,
            inflight_max: plan.inflight_max,
            phase: Phase::Down { retry_at: now },
            stream: None,
            next_seq: 1,
            last_packet_id: 0,
            pending: VecDeque::new(),
            waiting: VecDeque::new(),
            inbox: Vec::new(),
            outbox: Vec::new(),
        }
    }

    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.is_ready() && self.pending.len() < self.inflight_max
    }

    /// For the closed loop: whether another frame may be intended.
    pub fn has_room_for_more(&self) -> bool {
        self.is_ready() && self.pending.len() + self.waiting.len() < self.inflight_max
    }

    pub fn num_pending_events(&self) -> u64 {
        self.pending
            .iter()
            .map(|frame| u64::from(frame.num_events))
            .sum()
    }

    pub fn must_connect(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Down { retry_at } if retry_at <= now)
    }

    pub fn must_resend(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::HeldOff { until } if until <= now)
    }

    /// Connects and says HELLO, or CONNECT.
    pub fn connect(&mut self, address: SocketAddr) -> io::Result<()> {
        let stream = target::connect(address, self.index)?;
        stream.set_nonblocking(true)?;
        self.inbox.clear();
        self.outbox.clear();
        match self.dialect {
            Dialect::Hdp => {
                let hello = Hello {
                    device_id: self.device.device_id,
                    token: &self.device.token,
                    epoch: self.epoch,
                    agent: None,
                };
                device::encode_hello(&mut self.outbox, &hello);
            }
            Dialect::Mqtt => mqtt::write_connect(&mut self.outbox, &self.device),
        }
        self.stream = Some(stream);
        self.phase = Phase::Greeting;
        self.flush()
    }

    pub fn drop_connection(&mut self, now: Instant) {
        self.stream = None;
        self.phase = Phase::Down {
            retry_at: now + RECONNECT_AFTER,
        };
    }

    /// Notes that a frame is meant to leave now.
    pub fn intend(&mut self, intended: Instant) {
        self.waiting.push_back(intended);
    }

    /// Sends what waits, as far as the window lets it, in one write.
    pub fn send_waiting(&mut self, events_per_frame: u32, desk: &mut Desk<'_>) -> io::Result<()> {
        let outbox_before = self.outbox.len();
        while self.has_room()
            && let Some(intended) = self.waiting.pop_front()
        {
            // The window is far smaller than there are identifiers, so none is in use twice.
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            let frame = Pending {
                packet_id: self.last_packet_id,
                first_seq: self.next_seq,
                last_seq: self.next_seq + u64::from(events_per_frame) - 1,
                num_events: events_per_frame,
                time_us: now_us(),
                intended,
            };
            self.next_seq = frame.last_seq + 1;
            desk.tally.events_sent += u64::from(events_per_frame);
            self.encode(&frame, desk.events)?;
            self.pending.push_back(frame);
        }
        desk.tally.frames_held_back += u64::from(!self.waiting.is_empty());
        if self.outbox.len() > outbox_before {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Sends again all that is not acknowledged, in order.
    pub fn resend(&mut self, desk: &mut Desk<'_>) -> io::Result<()> {
        self.phase = Phase::Ready;
        let pending = std::mem::take(&mut self.pending);
        for frame in &pending {
            self.encode(frame, desk.events)?;
        }
        self.pending = pending;
        self.flush()
    }

    fn encode(&mut self, frame: &Pending, events: &mut Vec<Event<'static>>) -> io::Result<()> {
        fill_frame(
            events,
            &self.device,
            frame.first_seq,
            frame.num_events,
            frame.time_us,
        );
        match self.dialect {
            Dialect::Hdp => device::encode_events(&mut self.outbox, frame.first_seq, events),
            Dialect::Mqtt => mqtt::write_events(&mut self.outbox, frame.packet_id, events)
                .map_err(io::Error::other)?,
        }
        Ok(())
    }

    /// Writes as much as the socket takes; the rest goes when it is writable again.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        let mut num_written = 0;
        while let Some(rest) = self
            .outbox
            .get(num_written..)
            .filter(|rest| !rest.is_empty())
        {
            match stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => num_written += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outbox.drain(..num_written);
        Ok(())
    }

    /// Reads all that has come; `false` when the core closed the connection.
    pub fn read(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        let Some(stream) = &mut self.stream else {
            return Ok(true);
        };
        loop {
            match stream.read(scratch) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    self.inbox
                        .extend_from_slice(scratch.get(..n).unwrap_or_default());
                    if n < scratch.len() {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the whole frames of what was read.
    ///
    /// # Errors
    /// The core refuses the device, or sent something that no core sends.
    pub fn take_frames(&mut self, desk: &mut Desk<'_>) -> Result<(), BenchError> {
        let inbox = std::mem::take(&mut self.inbox);
        let num_left = match self.dialect {
            Dialect::Hdp => self.take_hdp(&inbox, desk)?,
            Dialect::Mqtt => self.take_mqtt(&inbox, desk)?,
        };
        let num_taken = inbox.len() - num_left;
        self.inbox = inbox;
        self.inbox.drain(..num_taken);
        Ok(())
    }

    /// Returns how many bytes are left, of a frame that has not come whole.
    fn take_hdp(&mut self, inbox: &[u8], desk: &mut Desk<'_>) -> Result<usize, BenchError> {
        let mut rest = inbox;
        while let Some(frame) = split(rest, RECEIVED_BYTES_MAX)? {
            rest = rest.get(frame.frame_bytes..).unwrap_or_default();
            let received = device::decode(frame.kind, frame.body)?;
            self.take(received, desk)?;
        }
        Ok(rest.len())
    }

    fn take_mqtt(&mut self, inbox: &[u8], desk: &mut Desk<'_>) -> Result<usize, BenchError> {
        let mut rest = inbox;
        while let Some((heard, num_bytes)) = mqtt::take(rest)? {
            rest = rest.get(num_bytes..).unwrap_or_default();
            match heard {
                Heard::Welcome => self.begin(desk.now),
                Heard::Puback { packet_id } => {
                    let mut pending = self.pending.iter();
                    let place = pending.position(|frame| frame.packet_id == packet_id);
                    if let Some(frame) = place.and_then(|place| self.pending.remove(place)) {
                        note_acknowledged(&frame, desk);
                    }
                }
                Heard::Other => {}
            }
        }
        Ok(rest.len())
    }

    /// What a lost connection left unanswered goes first, at once.
    fn begin(&mut self, now: Instant) {
        self.phase = match self.pending.is_empty() {
            true => Phase::Ready,
            false => Phase::HeldOff { until: now },
        };
    }

    fn take(&mut self, received: Received<'_>, desk: &mut Desk<'_>) -> Result<(), BenchError> {
        match received {
            Received::Welcome(welcome) => {
                self.take_acknowledged(welcome.last_seq, desk);
                if self.pending.is_empty() {
                    self.next_seq = self.next_seq.max(welcome.last_seq + 1);
                }
                self.inflight_max = self
                    .inflight_max
                    .min(usize::try_from(welcome.max_inflight_frames).unwrap_or(usize::MAX));
                self.begin(desk.now);
            }
            Received::Ack { seq, rejected } => {
                desk.tally.events_rejected += u64::try_from(rejected.len()).unwrap_or(u64::MAX);
                self.take_acknowledged(seq, desk);
            }
            Received::Busy { retry_after_ms, .. } => {
                desk.tally.frames_busy += 1;
                if self.is_ready() {
                    self.phase = Phase::HeldOff {
                        until: desk.now + Duration::from_millis(retry_after_ms),
                    };
                }
            }
            Received::Error { code, message } => {
                desk.tally.count_error(code);
                if matches!(
                    code,
                    "auth_failed"
                        | "malformed"
                        | "too_large"
                        | "unsupported_version"
                        | "stale_epoch"
                ) {
                    return Err(BenchError::Refused {
                        device: self.device.device_id.to_string(),
                        code: code.to_owned(),
                        message: message.to_owned(),
                    });
                }
            }
            Received::Command { .. } | Received::Pong { .. } => {}
        }
        Ok(())
    }

    fn take_acknowledged(&mut self, seq: u64, desk: &mut Desk<'_>) {
        while self
            .pending
            .front()
            .is_some_and(|frame| frame.last_seq <= seq)
            && let Some(frame) = self.pending.pop_front()
        {
            note_acknowledged(&frame, desk);
        }
    }
}

fn note_acknowledged(frame: &Pending, desk: &mut Desk<'_>) {
    let num_events = u64::from(frame.num_events);
    desk.tally.events_acked += num_events;
    *desk.newly_acked += num_events;
    if desk.window.contains(&desk.now) {
        desk.tally.events_acked_in_window += num_events;
    }
    if desk.window.contains(&frame.intended) {
        let latency = desk.now.saturating_duration_since(frame.intended);
        desk.tally.latencies.record(latency);
    }
}
