//! One device's connection: HELLO, then events in and acknowledgements out, until one side ends it.
//!
//! Acknowledgements leave in the order in which frames came, and cumulatively: when several frames became durable
//! together, one ACK tells of all. At most `inflight_frames_max` frames wait; beyond that the socket is not read.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};
use uuid::Uuid;

use super::end::{End, auth_failed, internal, say_end, shutting_down};
use super::wire::Wire;
use crate::config::{AFTER_REFUSAL_MAX, BUSY_RETRY_AFTER, WRITE_TIMEOUT};
use crate::event::RejectCode;
use crate::frame::{
    ErrorCode, FRAME_BYTES_MAX_BEFORE_HELLO, Hello, Incoming, Outgoing, PROTOCOL_VERSION,
};
use crate::journal::AppendError;
use crate::metrics::Kind;
use crate::node::Node;
use crate::pipeline::clock::now_us;
use crate::pipeline::intake::{Intake, Queued, Refusal, Taken};
use crate::pipeline::live::{Presence, Protocol};
use crate::pipeline::sessions::Session;
use crate::pipeline::window::Watermark;

/// Where a connection comes from, and by which door.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub address: SocketAddr,
    pub protocol: Protocol,
}

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

/// A device that has shown who it is.
struct Connected {
    device_id: Uuid,
    // Dropped first: that this connection has gone is told before another may have the device.
    presence: Presence,
    session: Session,
}

/// From the first byte to WELCOME.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    wire: &mut Wire<S>,
    peer: Peer,
) -> Result<Connected, End> {
    let hello_timeout = Duration::from_secs(node.config.hello_timeout_s);
    let late = End::Error(
        ErrorCode::HelloTimeout,
        format!("no HELLO within {} s", hello_timeout.as_secs()),
    );
    let said = tokio::select! {
        () = node.stopping.cancelled() => return Err(shutting_down()),
        hello = timeout(hello_timeout, hello(node, wire)) => hello.unwrap_or(Err(late))?,
    };
    let device_id = said.device_id;
    let (session, last_seq) = tokio::select! {
        () = node.stopping.cancelled() => return Err(shutting_down()),
        taken = node.sessions.take_over(device_id, said.epoch, said.known) => taken?,
    };
    // Once more: a revocation between the first look and the take-over found no session to end.
    let still_allowed = node.registry.authenticate(device_id, &said.token);
    still_allowed.map_err(|_| auth_failed())?;
    let config = &node.config;
    wire.queue(&Outgoing::Welcome {
        version: PROTOCOL_VERSION,
        last_seq,
        max_inflight_frames: u32::try_from(config.inflight_frames_max).unwrap_or(u32::MAX),
        frame_bytes_max: config.frame_bytes_max,
        server_time_us: now_us(),
        keepalive_s: u32::try_from(config.keepalive_s).unwrap_or(u32::MAX),
    });
    timeout(WRITE_TIMEOUT, wire.flush())
        .await
        .map_err(io::Error::from)??;
    let presence = node.live.connected(device_id, peer.protocol, peer.address);
    Ok(Connected {
        device_id,
        session,
        presence,
    })
}

/// A HELLO that was let in.
struct Said {
    device_id: Uuid,
    token: String,
    epoch: u64,
    known: Watermark,
}

async fn hello<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    wire: &mut Wire<S>,
) -> Result<Said, End> {
    loop {
        if let Some(incoming) = wire.next(FRAME_BYTES_MAX_BEFORE_HELLO)? {
            let Incoming::Hello(Hello {
                device_id,
                token,
                epoch,
                agent,
            }) = incoming
            else {
                return Err(End::Error(
                    ErrorCode::Malformed,
                    "the first frame must be HELLO".to_owned(),
                ));
            };
            node.metrics
                .frames
                .get_or_create(&Kind { kind: "hello" })
                .inc();
            debug!(%device_id, agent, "hello");
            if !node.registry.is_loaded() {
                return Err(End::Error(
                    ErrorCode::Internal,
                    "the device registry is not loaded yet: try again".to_owned(),
                ));
            }
            let known = node
                .registry
                .authenticate(device_id, token)
                .map_err(|_| auth_failed())?;
            let token = token.to_owned();
            return Ok(Said {
                device_id,
                token,
                epoch,
                known,
            });
        }
        if !wire.fill().await? {
            return Err(End::Closed);
        }
    }
}

/// Verdicts of one ACK; with more it might not fit a line of the JSON form (64 KiB).
const REJECTED_PER_ACK_MAX: usize = 1000;

/// A frame that waits for its acknowledgement.
struct Waiting {
    read_at: std::time::Instant,
    /// None when it was taken before and only the acknowledgement is repeated.
    queued: Option<Queued>,
}

struct Connection<'a, S> {
    node: &'a Node,
    wire: Wire<S>,
    presence: Presence,
    session: Session,
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
            session,
            presence,
        } = connected;
        let intake = Intake {
            device_id,
            lane: node.lane(device_id),
            registry: Arc::clone(&node.registry),
            metrics: Arc::clone(&node.metrics),
            live: Arc::clone(&node.live),
            retention_us: i64::from(node.config.retention_days) * crate::pipeline::batch::DAY_US,
        };
        let idle_deadline = Instant::now() + node.config.idle_timeout();
        Self {
            node,
            wire,
            session,
            presence,
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
            session,
            presence,
            ..
        } = self;
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
                // Commands are not sent yet, so no result is awaited.
                Incoming::Result(result) => {
                    self.node
                        .metrics
                        .frames
                        .get_or_create(&Kind { kind: "result" })
                        .inc();
                    debug!(
                        request_id = result.request_id,
                        "result for no known command"
                    );
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
                queued: Some(queued),
            }),
            Taken::Duplicate => self.waiting.push_back(Waiting {
                read_at,
                queued: None,
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
        let mut next = self.waiting.pop_front().map(|first| (first, outcome));
        while let Some((waiting, outcome)) = next {
            self.decide(&waiting, outcome, &mut rejected)?;
            if rejected.len() >= REJECTED_PER_ACK_MAX {
                break;
            }
            next = first_outcome(&mut self.waiting)
                .now_or_never()
                .and_then(|outcome| Some((self.waiting.pop_front()?, outcome)));
        }
        self.say_ack(&rejected);
        Ok(())
    }

    /// Notes the journal's answer for one frame; says BUSY if it was not taken.
    fn decide(
        &mut self,
        waiting: &Waiting,
        outcome: Result<(), AppendError>,
        rejected: &mut Vec<(u64, RejectCode)>,
    ) -> Result<(), End> {
        let Some(queued) = &waiting.queued else {
            return Ok(());
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
        let outcome = match &mut waiting.queued {
            Some(queued) => (&mut queued.ticket).await.map(drop),
            None => Ok(()),
        };
        let mut rejected = Vec::new();
        let decided = self.decide(&waiting, outcome, &mut rejected);
        if let Err(failure) = &decided {
            warn!(
                ?failure,
                "events in flight at the end of a connection were not made durable"
            );
        } else if !self.is_broken {
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
            written = timeout(WRITE_TIMEOUT, wire.flush()) => Ok(written.map_err(io::Error::from)??),
            reason = session.end.received() => Err(reason.into()),
            () = node.stopping.cancelled() => Err(shutting_down()),
        }
    }
}

/// The journal's answer for the first waiting frame. Pends when none waits.
async fn first_outcome(waiting: &mut VecDeque<Waiting>) -> Result<(), AppendError> {
    match waiting.front_mut() {
        Some(Waiting {
            queued: Some(queued),
            ..
        }) => (&mut queued.ticket).await.map(drop),
        Some(Waiting { queued: None, .. }) => Ok(()),
        None => std::future::pending().await,
    }
}
