//! One device that is polled: how it is asked, and its voice in the node while it answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_modbus::{Request, Response};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::link::{Failure, Link};
use super::plan::{Read, plan};
use super::telling::{Reading, Teller};
use super::turn::{Asking, Turn};
use crate::config::{MODBUS_FAILURES_MAX, MODBUS_SPOKEN_FOR_RETRY, MODBUS_TAKE_OVER_TIMEOUT};
use crate::node::Node;
use crate::pipeline::commands::{Command, CommandLink};
use crate::pipeline::entry::Source;
use crate::pipeline::intake::Intake;
use crate::pipeline::live::{Peer, Presence};
use crate::pipeline::profiles::{Format, ModbusFormat, ModbusFunction};
use crate::pipeline::registry::PolledDevice;
use crate::pipeline::sessions::{EndReason, Session};
use crate::pipeline::window::Watermark;

/// Exceptions with which a gateway says that the slave is not there.
const GATEWAY_EXCEPTIONS: [u8; 2] = [10, 11];
/// Exceptions that may be due to one register of several.
const EXCEPTIONS_OF_CONTENT: [u8; 2] = [2, 3];

/// What a device is in the node for as long as it answers: connected, and to be sent commands.
pub struct Voice {
    // Dropped in this order: what a newer connection waits for comes last.
    pub commands: CommandLink,
    pub presence: Presence,
    session: Session,
    /// Wakes the line when the session is to end.
    _watch: AbortOnDropHandle<()>,
}

/// What came of asking a device for all of its registers.
pub struct Polled {
    pub readings: Vec<(usize, Reading)>,
    pub failure: Option<NotRead>,
}

/// Why not all registers of a device were read.
#[derive(Debug, thiserror::Error)]
pub enum NotRead {
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error("the gateway does not reach it (exception {0})")]
    BehindGateway(u8),
    #[error("{0} addresses were asked for, and {1} came")]
    WrongLength(u16, usize),
}

pub struct Slave {
    pub device_id: Uuid,
    pub unit_id: u8,
    pub format: Arc<ModbusFormat>,
    pub turn: Turn,
    reads: Vec<Read>,
    pub teller: Teller,
    pub intake: Intake,
    pub voice: Option<Voice>,
}

impl Slave {
    /// None for a device whose profile has no registers.
    #[must_use]
    pub fn new(node: &Node, device: &PolledDevice) -> Option<Self> {
        let Format::Modbus(format) = &device.profile.format else {
            return None;
        };
        let interval = Duration::from_millis(u64::from(format.poll_interval_ms.max(1)));
        Some(Self {
            device_id: device.device_id,
            unit_id: device.address.unit_id,
            turn: Turn::new(
                Instant::now() + stagger(device.device_id, interval),
                interval,
            ),
            reads: plan(format),
            format: Arc::clone(format),
            teller: Teller::default(),
            intake: node.intake(Source::Modbus, device.device_id),
            voice: None,
        })
    }

    /// It did not answer; after some times it is taken for gone.
    pub fn note_failure(&mut self, now: Instant) {
        self.turn.note_failure(now);
        if self.turn.num_failures() >= MODBUS_FAILURES_MAX {
            self.voice = None;
        }
    }

    /// A command, if there is one and the device answered when it was asked last. One that did not is asked first, soon.
    pub fn next_command(&mut self) -> Option<Command> {
        let commands = &self.voice.as_ref()?.commands;
        if !self.turn.is_silent() {
            return commands.try_next();
        }
        if commands.has_next() {
            self.turn.hasten(Instant::now());
        }
        None
    }

    /// Lets the device go when it is to have another connection, or has lost its right.
    pub fn let_go(&mut self) {
        let voice = self.voice.as_ref();
        let Some(reason) = voice.and_then(|voice| voice.session.end.sent()) else {
            return;
        };
        self.voice = None;
        if reason == EndReason::Superseded {
            // Whoever takes it over is left the time to do so.
            self.turn.due = Instant::now() + MODBUS_SPOKEN_FOR_RETRY;
        }
    }

    /// Makes it a connected device, unless it is one by itself.
    pub async fn speak(&mut self, node: &Arc<Node>, peer: Peer, wake: &Arc<Notify>) {
        if self.voice.is_some() || node.commands.peer_of(self.device_id).is_some() {
            return;
        }
        let taking = (node.sessions).take_over(self.device_id, None, Watermark::default());
        let Ok(Ok((session, _))) = timeout(MODBUS_TAKE_OVER_TIMEOUT, taking).await else {
            return;
        };
        let (end, waker) = (Arc::clone(&session.end), Arc::clone(wake));
        let watch = tokio::spawn(async move {
            end.received().await;
            waker.notify_one();
        });
        let wake = Arc::clone(wake);
        self.voice = Some(Voice {
            commands: node.commands.connect_waking(self.device_id, peer, wake),
            presence: (node.live).connected(self.device_id, peer.protocol, peer.address),
            session,
            _watch: AbortOnDropHandle::new(watch),
        });
    }

    /// Asks for all registers, until one request has no answer.
    pub async fn ask(&mut self, link: &mut Link, mut asking: Asking) -> Polled {
        let mut polled = Polled {
            readings: Vec::new(),
            failure: None,
        };
        let mut at = 0;
        while let Some(read) = self.reads.get(at) {
            let begun = Instant::now();
            let answer = ask_for(link, self.unit_id, read, asking).await;
            if answer.is_ok() {
                asking.note_answer(begun.elapsed());
            }
            match answer {
                Ok(Ok(words)) => self.note_words(read, &words, &mut polled.readings),
                Ok(Err(code)) if is_to_be_split(read, code) => {
                    let split = read.split(&self.format);
                    // The same place again: what is asked for one by one stays so.
                    self.reads.splice(at..=at, split);
                    continue;
                }
                Ok(Err(code)) => {
                    let refused = read.registers.iter();
                    (polled.readings)
                        .extend(refused.map(|place| (*place, Reading::Exception(code))));
                }
                Err(failure) => {
                    polled.failure = Some(failure);
                    break;
                }
            }
            at += 1;
        }
        polled
    }

    fn note_words(&self, read: &Read, words: &[u16], readings: &mut Vec<(usize, Reading)>) {
        for place in &read.registers {
            let register = self.format.registers.get(*place);
            let words = register.and_then(|mapped| {
                let from = usize::from(mapped.place.address - read.address);
                words.get(from..from + usize::from(mapped.place.kind.num_registers()))
            });
            // As many words came as were asked for, so they are there.
            readings.extend(words.map(|words| (*place, Reading::Words(words.to_vec()))));
        }
    }
}

/// Spreads devices of one interval over it, each always to the same place.
fn stagger(device_id: Uuid, interval: Duration) -> Duration {
    let offset = device_id.as_u128() % interval.as_micros().max(1);
    Duration::from_micros(u64::try_from(offset).unwrap_or(0))
}

fn is_to_be_split(read: &Read, code: u8) -> bool {
    read.registers.len() > 1 && EXCEPTIONS_OF_CONTENT.contains(&code)
}

/// What a request reads, a word for each address; or the number of the slave's exception.
///
/// # Errors
/// [`NotRead`].
pub async fn ask_for(
    link: &mut Link,
    unit_id: u8,
    read: &Read,
    asking: Asking,
) -> Result<Result<Vec<u16>, u8>, NotRead> {
    let (address, count) = (read.address, read.count);
    let request = match read.function {
        ModbusFunction::Coils => Request::ReadCoils(address, count),
        ModbusFunction::DiscreteInputs => Request::ReadDiscreteInputs(address, count),
        ModbusFunction::HoldingRegisters => Request::ReadHoldingRegisters(address, count),
        ModbusFunction::InputRegisters => Request::ReadInputRegisters(address, count),
    };
    let words = match link.call(unit_id, request, asking).await? {
        Err(code) if GATEWAY_EXCEPTIONS.contains(&code) => {
            return Err(NotRead::BehindGateway(code));
        }
        Err(code) => return Ok(Err(code)),
        Ok(Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits)) => {
            // Whole bytes of bits are sent: those behind the last one are none.
            let asked = bits.len().min(usize::from(count));
            bits.into_iter().take(asked).map(u16::from).collect()
        }
        Ok(Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words)) => words,
        // The codec has compared the functions.
        Ok(_) => Vec::new(),
    };
    if words.len() != usize::from(count) {
        link.drop_connection();
        return Err(NotRead::WrongLength(count, words.len()));
    }
    Ok(Ok(words))
}
