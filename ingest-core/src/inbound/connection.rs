//! One device's connection: HELLO, then events in and acknowledgements out, until one side ends it.
//!
//! Acknowledgements leave in the order in which frames came, and cumulatively: when several frames became durable
//! together, one ACK tells of all. At most `inflight_frames_max` frames wait; beyond that the socket is not read.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::awaited::{Awaited, Waiting, first_outcome};
use super::end::{End, internal, say_end, shutting_down};
use super::greeting::{Connected, greet};
use super::wire::Wire;
use crate::config::{AFTER_REFUSAL_MAX, BUSY_RETRY_AFTER, WRITE_TIMEOUT};
use crate::event::RejectCode;
use crate::frame::{ErrorCode, Incoming, Outgoing};
use crate::journal::AppendError;
use crate::metrics::Kind;
use crate::node::Node;
use crate::pipeline::commands::{Command, CommandLink};
use crate::pipeline::entry::Source;
use crate::pipeline::intake::{Intake, Refusal, Taken};
use crate::pipeline::live::{Peer, Presence};
use crate::pipeline::results::Outcome;
use crate::pipeline::sessions::Session;

/// Serves one connection to its end.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(node: &Node, stream: S, peer: Peer) {
    let mut wire = Wire::new(stream);
    let end = match greet(node, &mut wire, peer).await {
        // Boxed: it lives as long as the connection, and the greeting's state need not.
        Ok(connected) => Box::pin(Connection::new(node, wire, connected).run()).await,
        Err(end) => {
            say_end(node, &mut wire, &end).await;
            end
        }
    };
    match end {
        End::Closed => debug!("device closed its connection"),
        End::Broken(error) => debug!(%error, "connection broke"),
        End::Error(code, message) => debug!(%code, message, "connection ended"),
    }
}

/// Verdicts of one ACK; with more it might not fit a line of the JSON form (64 KiB).
const REJECTED_PER_ACK_MAX: usize = 1000;

/// Commands written in one go; between two goes the device's own frames have their turn.
const COMMANDS_PER_WRITE_MAX: usize = 16;

struct Connection<'a, S> {
    node: &'a Node,
    wire: Wire<S>,
    // Dropped in this order, see `Connected`.
    commands: CommandLink,
    presence: Presence,
    session: Session,
    /// Commands that were queued for the socket and not written whole yet.
    unwritten: Vec<Arc<str>>,
    intake: Intake,
    waiting: VecDeque<Waiting>,
    /// After BUSY the socket is left alone until then.
    paused_until: Option<Instant>,
    /// When events were last refused for the journal's sake.
    refused_at: Instant,
    idle_deadline: Instant,
    is_broken: bool,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Connection<'a, S> {
    fn new(node: &'a Node, wire: Wire<S>, connected: Connected) -> Self {
        let Connected {
            device_id,
            commands,
            presence,
            session,
        } = connected;
        let intake = node.intake(Source::Hdp, device_id);
        let idle_deadline = Instant::now() + node.config.idle_timeout();
        Self {
            node,
            wire,
            commands,
            presence,
            session,
            unwritten: Vec::new(),
            intake,
            waiting: VecDeque::new(),
            paused_until: None,
            refused_at: Instant::now(),
            idle_deadline,
            is_broken: false,
        }
    }

    /// Serves until an end, then decides what is in flight and says the last words.
    async fn run(mut self) -> End {
        let end = match self.exchange().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.is_broken = matches!(end, End::Broken(_));
        while let Some(waiting) = self.waiting.pop_front() {
            let settled = self.settle(waiting).await;
            if let Err(End::Error(code, message)) = settled {
                say_end(self.node, &mut self.wire, &End::Error(code, message)).await;
                return end;
            }
        }
        let Self {
            node,
            mut wire,
            commands,
            session,
            presence,
            ..
        } = self;
        drop(commands);
        // Everything is decided: a newer connection need not wait for our last words.
        drop(presence);
        drop(session);
        say_end(node, &mut wire, &end).await;
        end
    }

    async fn exchange(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            self.take_frames()?;
            self.flush().await?;
            if self.waiting.is_empty() && self.waiting.capacity() > 0 {
                self.waiting = VecDeque::new();
            }
            let may_read = self.waiting.len() < self.node.config.inflight_frames_max
                && self.paused_until.is_none();
            let deadline = self.paused_until.unwrap_or(self.idle_deadline);
            tokio::select! {
                biased;
                reason = self.session.end.received() => return Err(reason.into()),
                () = self.node.stopping.cancelled() => return Err(shutting_down()),
                outcome = first_outcome(&mut self.waiting), if !self.waiting.is_empty() => self.acknowledge(outcome).await?,
                command = self.commands.next() => self.queue_commands(command),
                is_open = self.wire.fill(), if may_read => {
                    if !is_open? {
                        return Err(End::Closed);
                    }
                }
                () = sleep_until(deadline), if may_read || self.paused_until.is_some() => match self.paused_until.take() {
                    Some(_) => self.idle_deadline = Instant::now() + self.node.config.idle_timeout(),
                    None => return Err(self.idle_timeout()),
                },
            }
        }
    }

    fn idle_timeout(&self) -> End {
        let silence = self.node.config.idle_timeout().as_secs();
        End::Error(
            ErrorCode::IdleTimeout,
            format!("nothing received for {silence} s: send PING when idle"),
        )
    }

    /// Takes the whole frames that were read, as many as may be in flight.
    fn take_frames(&mut self) -> Result<(), End> {
        while self.waiting.len() < self.node.config.inflight_frames_max
            && self.paused_until.is_none()
        {
            let read_at = std::time::Instant::now();
            let Some(incoming) = self.wire.next(self.node.config.frame_bytes_max)? else {
                return Ok(());
            };
            // Whole frames count, so that bytes let fall one by one do not hold a connection for ever.
            self.idle_deadline = Instant::now() + self.node.config.idle_timeout();
            match incoming {
                Incoming::Events(events) => {
                    self.node
                        .metrics
                        .frames
                        .get_or_create(&Kind { kind: "events" })
                        .inc();
                    let taken = self.intake.take(&mut self.session.window, events)?;
                    self.note_taken(taken, read_at)?;
                }
                Incoming::Ping { nonce } => {
                    self.node
                        .metrics
                        .frames
                        .get_or_create(&Kind { kind: "ping" })
                        .inc();
                    self.presence.seen();
                    self.wire.queue(&Outgoing::Pong { nonce });
                }
                Incoming::Result(result) => {
                    self.node
                        .metrics
                        .frames
                        .get_or_create(&Kind { kind: "result" })
                        .inc();
                    self.presence.seen();
                    let outcome = Outcome::of(&result);
                    let is_awaited =
                        outcome.is_some_and(|outcome| self.commands.complete(&outcome));
                    let ticket = self
                        .node
                        .keep_result(self.intake.device_id, outcome, is_awaited);
                    self.waiting.extend(ticket.map(|ticket| Waiting {
                        read_at,
                        awaited: Awaited::Result(ticket),
                    }));
                }
                Incoming::Bye => return Err(End::Closed),
                Incoming::Hello(_) => {
                    return Err(End::Error(
                        ErrorCode::Malformed,
                        "HELLO was said before".to_owned(),
                    ));
                }
            }
        }
        Ok(())
    }

    fn note_taken(&mut self, taken: Taken, read_at: std::time::Instant) -> Result<(), End> {
        match taken {
            Taken::Queued(queued) => self.waiting.push_back(Waiting {
                read_at,
                awaited: Awaited::Queued(queued),
            }),
            Taken::Duplicate { last_seq } => self.waiting.push_back(Waiting {
                read_at,
                awaited: Awaited::Duplicate { last_seq },
            }),
            Taken::Refused(refusal) => self.refuse(refusal)?,
        }
        Ok(())
    }

    fn refuse(&mut self, refusal: Refusal) -> Result<(), End> {
        match refusal {
            Refusal::JournalFull => {
                self.refused_at = Instant::now();
                self.paused_until = Some(self.refused_at + BUSY_RETRY_AFTER);
            }
            Refusal::AfterRefusal if self.refused_at.elapsed() > AFTER_REFUSAL_MAX => {
                let next = self.session.window.taken() + 1;
                let message =
                    format!("events from {next} on were refused: connect again to give them up");
                return Err(End::Error(ErrorCode::Internal, message));
            }
            Refusal::AfterRefusal => {}
            Refusal::TooLarge => {
                let message =
                    "the frame is larger than this node's journal can hold: send fewer events";
                return Err(End::Error(ErrorCode::TooLarge, message.to_owned()));
            }
            Refusal::JournalGone => return Err(internal()),
        }
        self.say_busy(refusal);
        Ok(())
    }

    /// BUSY acknowledges nothing: it names what is durable, and what is on its way besides may safely be sent again.
    fn say_busy(&mut self, refusal: Refusal) {
        self.intake.count_refusal(refusal);
        let retry_after_ms = u32::try_from(BUSY_RETRY_AFTER.as_millis()).unwrap_or(u32::MAX);
        let seq = self.session.window.durable();
        self.wire.queue(&Outgoing::Busy {
            seq,
            retry_after_ms,
            reason: refusal.as_str(),
        });
    }

    /// The first waiting frame is decided; those behind it that are decided too share its ACK.
    async fn acknowledge(&mut self, outcome: Result<(), AppendError>) -> Result<(), End> {
        let mut rejected = Vec::new();
        let mut has_events = false;
        let mut next = self.waiting.pop_front().map(|first| (first, outcome));
        while let Some((waiting, outcome)) = next {
            has_events |= !matches!(waiting.awaited, Awaited::Result(_));
            self.decide(&waiting, outcome, &mut rejected)?;
            if rejected.len() >= REJECTED_PER_ACK_MAX {
                break;
            }
            next = first_outcome(&mut self.waiting)
                .now_or_never()
                .and_then(|outcome| Some((self.waiting.pop_front()?, outcome)));
        }
        if has_events {
            self.say_ack(&rejected);
        }
        Ok(())
    }

    /// Notes the journal's answer for one frame; says BUSY if it was not taken.
    fn decide(
        &mut self,
        waiting: &Waiting,
        outcome: Result<(), AppendError>,
        rejected: &mut Vec<(u64, RejectCode)>,
    ) -> Result<(), End> {
        let queued = match &waiting.awaited {
            Awaited::Queued(queued) => queued,
            // An ACK says what is durable, whatever it answers.
            Awaited::Duplicate { .. } | Awaited::Nothing => return Ok(()),
            Awaited::Result(queued) => {
                let noted = self.node.note_result_kept(queued, outcome);
                return noted.map_err(|_| internal());
            }
        };
        match self
            .intake
            .settle(&mut self.session.window, queued, outcome)
        {
            Ok(()) => {
                self.intake.observe_ack(waiting.read_at);
                rejected.extend(&queued.rejected);
                Ok(())
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn say_ack(&mut self, rejected: &[(u64, RejectCode)]) {
        self.node.metrics.acks.inc();
        let durable = self.session.window.durable();
        let mut verdicts = rejected;
        // Of many verdicts, each ACK but the last goes as far as its own.
        while let Some((part, rest)) = verdicts.split_at_checked(REJECTED_PER_ACK_MAX) {
            let seq = part.last().map_or(durable, |(seq, _)| *seq);
            self.wire.queue(&Outgoing::Ack {
                seq,
                rejected: part,
            });
            verdicts = rest;
        }
        self.wire.queue(&Outgoing::Ack {
            seq: durable,
            rejected: verdicts,
        });
    }

    /// Waits for the journal's answer for a frame that was in flight at the end.
    async fn settle(&mut self, mut waiting: Waiting) -> Result<(), End> {
        let outcome = waiting.awaited.outcome().await;
        let is_result = matches!(waiting.awaited, Awaited::Result(_));
        let mut rejected = Vec::new();
        let decided = self.decide(&waiting, outcome, &mut rejected);
        if let Err(failure) = &decided {
            warn!(
                ?failure,
                "events in flight at the end of a connection were not made durable"
            );
        } else if !self.is_broken && !is_result {
            self.say_ack(&rejected);
        }
        decided
    }

    /// Writes what is queued. A device that does not read is not read either, and closed when it keeps on.
    async fn flush(&mut self) -> Result<(), End> {
        let Self {
            node,
            wire,
            session,
            ..
        } = self;
        tokio::select! {
            biased;
            written = timeout(WRITE_TIMEOUT, wire.flush()) => written.map_err(io::Error::from)??,
            reason = session.end.received() => return Err(reason.into()),
            () = node.stopping.cancelled() => return Err(shutting_down()),
        }
        for request_id in self.unwritten.drain(..) {
            self.commands.note_delivered(&request_id);
        }
        Ok(())
    }

    /// Queues a command and those that wait behind it; [`Self::flush`] writes them.
    fn queue_commands(&mut self, first: Command) {
        let mut next = Some(first);
        while let Some(command) = next {
            self.wire.queue(&Outgoing::Command {
                request_id: &command.request_id,
                command_type: &command.command_type,
                params: &command.params,
                deadline_us: command.deadline_us,
            });
            self.unwritten.push(command.request_id);
            let has_room = self.unwritten.len() < COMMANDS_PER_WRITE_MAX;
            next = has_room.then(|| self.commands.try_next()).flatten();
        }
    }
}
