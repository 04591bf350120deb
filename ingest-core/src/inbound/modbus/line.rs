//! One endpoint with its slaves: a connection that they share, and one request on it at a time.
//!
//! **Invariants.**
//! - Slaves that do not answer take what the others leave (see `turn`).
//! - A command is sent to a slave that answered when it was asked last.
//! - What is told is in the journal's queue; what the journal gave back is told again.
//! - A command whose writing was begun is answered before the line ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::endpoint::{ConnectError, Endpoint};
use super::link::{Failure, Link};
use super::networks::Networks;
use super::slave::{NotRead, Slave, Voice, ask_for};
use super::telling::{NotUnderstood, Reading};
use super::turn::{self, Asking, Next};
use super::writing::{self, ILLEGAL_FUNCTION, STATUS_REFUSED, Write};
use crate::config::{MODBUS_FAILURES_MAX, MODBUS_SPOKEN_FOR_RETRY};
use crate::frame::{CommandResult, Events};
use crate::inbound::awaited::Awaited;
use crate::journal::AppendError;
use crate::metrics::Kind;
use crate::node::Node;
use crate::pipeline::clock::now_us;
use crate::pipeline::commands::Command;
use crate::pipeline::intake::Refusal;
use crate::pipeline::live::{Peer, Protocol};
use crate::pipeline::profiles::Framing;
use crate::pipeline::registry::PolledDevice;
use crate::pipeline::results;
use crate::pipeline::unreadable::Unreadable;

/// What was told and is not durable yet, and the slave that told it.
struct Pending {
    slave: usize,
    awaited: Awaited,
}

pub struct Line {
    node: Arc<Node>,
    endpoint: Endpoint,
    link: Link,
    slaves: Vec<Slave>,
    /// A command has come, or a device is to be let go.
    wake: Arc<Notify>,
    pending: VecDeque<Pending>,
    /// Slaves that did not answer have had their share of the line until then.
    silent_from: Instant,
    /// Attempts in a row that did not reach the endpoint.
    num_attempts: u32,
}

/// The journal takes nothing any more: the node ends.
struct JournalGone;

impl Line {
    #[must_use]
    pub fn new(node: &Arc<Node>, endpoint: Endpoint, devices: &[PolledDevice]) -> Self {
        let config = &node.config;
        let reply_timeout = Duration::from_millis(config.modbus_timeout_ms);
        let networks = Networks::new(config.modbus_networks.clone());
        let link = Link::new(endpoint.clone(), networks, reply_timeout);
        let slaves = devices.iter().filter_map(|device| Slave::new(node, device));
        Self {
            slaves: slaves.collect(),
            node: Arc::clone(node),
            endpoint,
            link,
            wake: Arc::default(),
            pending: VecDeque::new(),
            silent_from: Instant::now(),
            num_attempts: 0,
        }
    }

    /// Asks the slaves when they are due, and writes what is commanded, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let ended = self.serve(&stop).await;
        // What was told is told to those who watch, too, once it is durable.
        while ended.is_ok() && !self.pending.is_empty() {
            let outcome = first_outcome(&mut self.pending).await;
            if self.settle(outcome).is_err() {
                return;
            }
        }
    }

    async fn serve(&mut self, stop: &CancellationToken) -> Result<(), JournalGone> {
        while !stop.is_cancelled() {
            self.slaves.iter_mut().for_each(Slave::let_go);
            self.settle_decided()?;
            if let Some((slave, command)) = self.next_command() {
                self.write(slave, &command).await;
            }
            let has_room = self.pending.len() < self.node.config.inflight_frames_max;
            let until = match self.next() {
                Next::Nobody => {
                    stop.cancelled().await;
                    return Ok(());
                }
                Next::Ask { place, asking } if has_room => {
                    // A poll that is given up leaves nothing behind: its connection goes with it.
                    let _ = stop.run_until_cancelled(self.poll(place, asking)).await;
                    continue;
                }
                Next::Ask { .. } => Instant::now(),
                Next::Wait { until } => until,
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => {}
                outcome = first_outcome(&mut self.pending) => self.settle(outcome)?,
                () = sleep_until(until), if has_room => {}
            }
        }
        Ok(())
    }

    fn next(&self) -> Next {
        let (now, next_attempt) = (Instant::now(), self.link.next_attempt());
        if next_attempt > now && !self.slaves.is_empty() {
            return Next::Wait {
                until: next_attempt,
            };
        }
        let turns = self.slaves.iter().map(|slave| &slave.turn);
        turn::next(turns, self.silent_from, self.link.reply_timeout(), now)
    }

    async fn poll(&mut self, place: usize, asking: Asking) {
        let Some(slave) = self.slaves.get_mut(place) else {
            return;
        };
        let (metrics, begun) = (&self.node.metrics, Instant::now());
        let is_spoken_for =
            slave.voice.is_none() && self.node.commands.peer_of(slave.device_id).is_some();
        if is_spoken_for {
            debug!(device_id = %slave.device_id, "not polled: the device is connected by itself");
            slave.turn.due = begun + MODBUS_SPOKEN_FOR_RETRY;
            return;
        }
        if !slave.turn.is_silent() && self.num_attempts == 0 {
            let late = begun.saturating_duration_since(slave.turn.due);
            metrics.modbus_lateness.observe(late.as_secs_f64());
        }
        slave.turn.begin(asking, begun);
        let polled = slave.ask(&mut self.link, asking).await;
        let kind = match &polled.failure {
            None => "answered",
            Some(NotRead::Failed(Failure::NotConnected(_))) => "not_connected",
            Some(_) => "unanswered",
        };
        metrics.modbus_polls.get_or_create(&Kind { kind }).inc();
        match &polled.failure {
            None => self.note_answer(place, begun.elapsed()).await,
            Some(failure) => self.note_failure(place, failure, begun.elapsed()),
        }
        self.tell(place, &polled.readings);
    }

    async fn note_answer(&mut self, place: usize, taken: Duration) {
        if std::mem::take(&mut self.num_attempts) > 0 {
            info!(
                host = self.endpoint.host,
                port = self.endpoint.port,
                "polled endpoint is back"
            );
        }
        let (Some(slave), Some(connection)) = (self.slaves.get_mut(place), self.link.connection())
        else {
            return;
        };
        let protocol = match self.endpoint.framing {
            Framing::Tcp => Protocol::ModbusTcp,
            Framing::RtuOverTcp => Protocol::ModbusRtuOverTcp,
        };
        let address = connection.peer;
        slave.turn.note_answer(taken);
        slave
            .speak(&self.node, Peer { address, protocol }, &self.wake)
            .await;
        if let Some(voice) = &slave.voice {
            voice.presence.seen();
        }
    }

    /// Nobody is there, which is nobody's fault but the endpoint's. A connection that was closed for a silent slave's sake may
    /// not be had again at once.
    fn note_away(&mut self, error: &ConnectError) {
        self.num_attempts = self.num_attempts.saturating_add(1);
        if self.num_attempts == 1 {
            warn!(host = self.endpoint.host, port = self.endpoint.port, %error, "polled endpoint is away; it is tried ever less often");
        }
        if self.num_attempts >= MODBUS_FAILURES_MAX {
            self.slaves.iter_mut().for_each(|slave| slave.voice = None);
        }
    }

    fn note_failure(&mut self, place: usize, failure: &NotRead, taken: Duration) {
        if let NotRead::Failed(Failure::NotConnected(error)) = failure {
            self.note_away(error);
            return;
        }
        let is_shared = self.slaves.len() > 1;
        let Some(slave) = self.slaves.get_mut(place) else {
            return;
        };
        let now = Instant::now();
        slave.note_failure(now);
        debug!(device_id = %slave.device_id, unit_id = slave.unit_id, %failure, "polled device does not answer");
        if is_shared {
            self.silent_from = turn::silent_from(taken, now);
        }
    }

    fn tell(&mut self, place: usize, readings: &[(usize, Reading)]) {
        let Some(slave) = self.slaves.get_mut(place) else {
            return;
        };
        let telling = (slave.teller).tell(&slave.format, readings, now_us());
        let mut queued = Vec::new();
        let mut refused = None;
        if telling.num_events > 0 {
            let events = Events::without_numbers(&telling.events, telling.num_events);
            match slave.intake.take_apart(None, events) {
                Ok(Ok(events)) => queued.push(events),
                Ok(Err(refusal)) => refused = Some(refusal),
                // They were encoded here.
                Err(error) => error!(%error, "events that were made here cannot be read"),
            }
        }
        for not_understood in &telling.not_understood {
            match slave
                .intake
                .take_unreadable(&unreadable(not_understood, &payload(not_understood)))
            {
                Ok(letter) => queued.push(letter),
                Err(refusal) => refused = Some(refusal),
            }
        }
        self.pending
            .extend(queued.into_iter().map(|queued| Pending {
                slave: place,
                awaited: Awaited::Queued(queued),
            }));
        match refused {
            None => slave.teller.note_told(telling),
            // What is read next is told instead.
            Some(refusal) => note_refusal(slave, refusal),
        }
    }

    fn next_command(&mut self) -> Option<(usize, Command)> {
        let mut slaves = self.slaves.iter_mut().enumerate();
        let command = slaves.find_map(|(place, slave)| Some((place, slave.next_command()?)));
        if command.is_some() {
            // There may be more.
            self.wake.notify_one();
        }
        command
    }

    async fn write(&mut self, place: usize, command: &Command) {
        let Some(slave) = self.slaves.get(place) else {
            return;
        };
        let (format, unit_id, begun) = (Arc::clone(&slave.format), slave.unit_id, Instant::now());
        let written = match Write::of(&format, command) {
            Ok(write) => write_and_read_back(&mut self.link, unit_id, &write).await,
            Err(refused) => Ok(Written::nothing(writing::Outcome::refused(&refused))),
        };
        let failure = match written {
            Ok(written) => {
                self.note_end(place, command, &written.outcome);
                self.tell(place, &written.readings);
                written.failure
            }
            Err(failure) => {
                if let Some(voice) = self.voice_of(place) {
                    (voice.commands).refuse(&command.request_id, &no_end(&failure));
                }
                Some(failure.into())
            }
        };
        if let Some(failure) = failure {
            self.note_failure(place, &failure, begun.elapsed());
        }
    }

    fn note_end(&mut self, place: usize, command: &Command, outcome: &writing::Outcome) {
        let Some(voice) = self.voice_of(place) else {
            return;
        };
        let is_written = outcome.status != STATUS_REFUSED;
        if is_written {
            voice.commands.note_delivered(&command.request_id);
        }
        let result = CommandResult {
            request_id: &command.request_id,
            status: outcome.status,
            message: Some(&*outcome.message).filter(|message| !message.is_empty()),
            data: Some(&outcome.data),
        };
        let outcome = results::Outcome::of(&result);
        let is_awaited = outcome.is_some_and(|outcome| match is_written {
            true => voice.commands.complete(&outcome),
            false => voice.commands.answer_unwritten(&outcome),
        });
        let kept = (self.node).keep_result(command.device_id, outcome, is_awaited);
        self.pending.extend(kept.map(|queued| Pending {
            slave: place,
            awaited: Awaited::Result(queued),
        }));
    }

    fn voice_of(&self, place: usize) -> Option<&Voice> {
        self.slaves.get(place)?.voice.as_ref()
    }

    fn settle_decided(&mut self) -> Result<(), JournalGone> {
        while let Some(outcome) = first_outcome(&mut self.pending).now_or_never() {
            self.settle(outcome)?;
        }
        Ok(())
    }

    /// Notes the journal's answer for what was told first.
    fn settle(&mut self, outcome: Result<(), AppendError>) -> Result<(), JournalGone> {
        let Some(Pending { slave, awaited }) = self.pending.pop_front() else {
            return Ok(());
        };
        let Some(slave) = self.slaves.get_mut(slave) else {
            return Ok(());
        };
        match awaited {
            Awaited::Queued(queued) => match slave.intake.settle_outcome(&queued, outcome) {
                Ok(()) => {}
                Err(Refusal::JournalGone) => return Err(JournalGone),
                Err(refusal) => {
                    slave.teller.forget();
                    note_refusal(slave, refusal);
                }
            },
            Awaited::Result(queued) => {
                let noted = self.node.note_result_kept(&queued, outcome);
                noted.map_err(|_| JournalGone)?;
            }
            Awaited::Duplicate { .. } | Awaited::Nothing => {}
        }
        Ok(())
    }
}

/// What the device answered to a write.
struct Written {
    outcome: writing::Outcome,
    readings: Vec<(usize, Reading)>,
    /// Why it was not read back.
    failure: Option<NotRead>,
}

impl Written {
    fn nothing(outcome: writing::Outcome) -> Self {
        Self {
            outcome,
            readings: Vec::new(),
            failure: None,
        }
    }
}

async fn write_and_read_back(
    link: &mut Link,
    unit_id: u8,
    write: &Write<'_>,
) -> Result<Written, Failure> {
    let mut answer = link
        .call(unit_id, write.request(false), Asking::Write)
        .await?;
    if answer == Err(ILLEGAL_FUNCTION) && write.has_alternative() {
        answer = link
            .call(unit_id, write.request(true), Asking::Write)
            .await?;
    }
    if let Err(code) = answer {
        return Ok(Written::nothing(write.refused(code)));
    }
    let (found, failure) = match ask_for(link, unit_id, &write.read_back(), Asking::Poll).await {
        Ok(answer) => (answer.ok(), None),
        Err(failure) => (None, Some(failure)),
    };
    let outcome = write.done(found.as_deref());
    let readings = found.map(|words| (write.place, Reading::Words(words)));
    Ok(Written {
        outcome,
        readings: readings.into_iter().collect(),
        failure,
    })
}

/// What is known of a write of which the device has told no end.
fn no_end(failure: &Failure) -> String {
    match failure {
        Failure::NotConnected(error) => format!("{error}; nothing was written"),
        Failure::NoAnswer(error) => format!("{error}; the device may have done it"),
    }
}

fn note_refusal(slave: &Slave, refusal: Refusal) {
    slave.intake.count_refusal(refusal);
    if refusal == Refusal::TooLarge {
        error!(device_id = %slave.device_id, "what was read is more than the journal can hold at a time");
    }
}

/// The bytes as they were on the wire.
fn payload(not_understood: &NotUnderstood) -> Vec<u8> {
    let words = not_understood.words.iter();
    words.flat_map(|word| word.to_be_bytes()).collect()
}

fn unreadable<'a>(not_understood: &'a NotUnderstood, payload: &'a [u8]) -> Unreadable<'a> {
    Unreadable {
        topic: &not_understood.place,
        payload,
        reason: &not_understood.reason,
    }
}

/// The journal's answer for what was told first. Pends when nothing waits. Cancel-safe.
async fn first_outcome(pending: &mut VecDeque<Pending>) -> Result<(), AppendError> {
    match pending.front_mut() {
        Some(first) => first.awaited.outcome().await,
        None => std::future::pending().await,
    }
}
