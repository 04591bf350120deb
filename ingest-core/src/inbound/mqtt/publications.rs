//! What becomes of a PUBLISH: events, the result of a command, or a dead letter. Whatever it is, it goes to the journal.

use tracing::error;
use uuid::Uuid;

use super::codec::ReasonCode;
use super::deliveries::Deliveries;
use super::device_api::request_of;
use super::dialogue::Dialogue;
use super::end::{End, internal};
use super::greeting::OwnedWill;
use super::in_flight::{Answer, Asked};
use super::others::read_other;
use super::topics::Topic;
use crate::event::msgpack::{write_map_len, write_str};
use crate::event::{Event, RejectCode};
use crate::frame::json::{MessageError, events_message, result_message};
use crate::frame::{self, Events, Incoming, encode_event, kind};
use crate::inbound::awaited::Awaited;
use crate::inbound::formats::shelly::RpcAnswer;
use crate::inbound::formats::{Decoded, FormatError, Told, result_body};
use crate::journal::AppendError;
use crate::node::Node;
use crate::pipeline::commands::CommandLink;
use crate::pipeline::entry::Source;
use crate::pipeline::intake::{Intake, Queued, Refusal, Taken};
use crate::pipeline::live::Peer;
use crate::pipeline::unreadable::Unreadable;
use crate::pipeline::unsequenced::QueuedUnsequenced;
use crate::pipeline::window::{SequenceWindow, Watermark};

/// The type of the event that tells of a will whose topic is not that of events.
const LAST_WILL: &str = "last_will";

/// What was done with a publication.
pub enum Taking {
    InFlight {
        awaited: Awaited,
        answer: Answer,
    },
    /// It is answered once this is known.
    Asked(Asked),
    /// Nothing was: it is to be tried again once what is in flight is decided.
    AfterInFlight,
    /// Nothing was: the journal has no room.
    JournalFull,
}

/// One device's publications on their way into the journal.
pub struct Publications<'a> {
    pub(super) node: &'a Node,
    pub intake: Intake,
    known: Watermark,
    pub(super) peer: Peer,
}

/// A publication, or a will.
#[derive(Debug, Clone, Copy)]
pub struct Message<'m> {
    pub topic: &'m str,
    pub payload: &'m [u8],
}

/// The connection's part in it.
pub struct Turn<'c> {
    pub window: &'c mut SequenceWindow,
    pub commands: &'c CommandLink,
    pub deliveries: &'c mut Deliveries,
    pub dialogue: &'c mut Dialogue,
    /// The result of a command that the publication is beside its events.
    pub beside: &'c mut Option<QueuedUnsequenced>,
    /// Nothing of this connection is on its way to the disk.
    pub is_idle: bool,
}

/// Why a message cannot be taken for what its topic says.
#[derive(Debug)]
pub enum Unfit {
    /// It is kept as a dead letter.
    Unreadable(ReasonCode, String),
    JournalFull,
    JournalGone,
}

impl From<Refusal> for Unfit {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            // After what the journal gave back a connection ends, so nothing of its is after a refusal for long.
            Refusal::JournalFull | Refusal::AfterRefusal => Self::JournalFull,
            Refusal::TooLarge => Unfit::payload("more than this node's journal can hold at a time"),
            Refusal::JournalGone => Self::JournalGone,
        }
    }
}

impl From<FormatError> for Unfit {
    fn from(error: FormatError) -> Self {
        let reason = match error {
            FormatError::Topic => ReasonCode::TopicNameInvalid,
            _ => ReasonCode::PayloadFormatInvalid,
        };
        Self::Unreadable(reason, error.to_string())
    }
}

impl Unfit {
    /// The payload is not what its topic says.
    pub fn payload(why: impl ToString) -> Self {
        Self::Unreadable(ReasonCode::PayloadFormatInvalid, why.to_string())
    }
}

impl<'a> Publications<'a> {
    /// `known` is how far the registry says that the device's events were stored.
    pub fn new(node: &'a Node, device_id: Uuid, known: Watermark, peer: Peer) -> Self {
        let intake = node.intake(Source::Mqtt, device_id);
        Self {
            node,
            intake,
            known,
            peer,
        }
    }

    /// Takes what was published.
    ///
    /// # Errors
    /// How the connection ends: the journal takes nothing any more.
    pub fn take(&self, message: Message<'_>, turn: Turn<'_>) -> Result<Taking, End> {
        let topic = Topic::of(message.topic);
        let taken = match topic {
            Topic::Events => self.take_events(message, turn),
            Topic::Result { request_id } => {
                let mut body = Vec::with_capacity(message.payload.len() + request_id.len());
                result_message(&request_id, message.payload, &mut body)
                    .map_err(Unfit::payload)
                    .and_then(|()| self.take_result(&body, turn))
            }
            Topic::Senml
            | Topic::Tasmota(_)
            | Topic::Shelly(_)
            | Topic::Zigbee(_)
            | Topic::Unknown => {
                let told = Told {
                    topic: message.topic,
                    payload: message.payload,
                };
                let own = self.intake.device_id;
                let decoded = read_other(self.node, own, &topic, told).map_err(Unfit::from);
                decoded.and_then(|decoded| {
                    self.take_answer(&topic, message.payload, turn)?;
                    self.take_decoded(&decoded)
                })
            }
            Topic::ShellyAnswer => RpcAnswer::read(message.payload)
                .map_err(Unfit::from)
                .and_then(|answer| {
                    let request_id = request_of(&turn, &answer.id.to_string())?;
                    self.take_result(&answer.result_body(&request_id)?, turn)
                }),
            of_thingsboard => self.take_of_thingsboard(of_thingsboard, message, turn),
        };
        self.or_kept(message, taken)
    }

    /// Takes what a device left to be said. Where that is not for the topic of events, it is an event itself.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_will(&self, will: &OwnedWill, turn: Turn<'_>) -> Result<Taking, End> {
        let message = Message {
            topic: &will.topic,
            payload: &will.payload,
        };
        if Topic::of(message.topic).is_of_events() {
            return self.take(message, turn);
        }
        let taken = match std::str::from_utf8(message.payload) {
            Ok(text) => self.take_last_will(message.topic, text),
            Err(_) => Err(Unfit::payload("a will that is not text")),
        };
        self.or_kept(message, taken)
    }

    /// What cannot be taken for what it should be is kept as it came.
    fn or_kept(&self, message: Message<'_>, taken: Result<Taking, Unfit>) -> Result<Taking, End> {
        let kept = taken.or_else(|unfit| match unfit {
            Unfit::Unreadable(reason, why) => {
                let unreadable = Unreadable {
                    topic: message.topic,
                    payload: message.payload,
                    reason: &why,
                };
                let queued = self.intake.take_unreadable(&unreadable)?;
                let message = format!("kept as a dead letter: {why}");
                Ok(Taking::InFlight {
                    awaited: Awaited::Queued(queued),
                    answer: Answer::refusal(reason, message),
                })
            }
            other => Err(other),
        });
        match kept {
            Ok(taking) => Ok(taking),
            Err(Unfit::JournalFull) => {
                self.intake.count_refusal(Refusal::JournalFull);
                Ok(Taking::JournalFull)
            }
            Err(Unfit::JournalGone) => Err(internal()),
            // The limit of a packet is below that of a record.
            Err(Unfit::Unreadable(_, why)) => {
                error!(why, "a message is larger than any record of the journal");
                Err(internal())
            }
        }
    }

    fn take_events(&self, message: Message<'_>, turn: Turn<'_>) -> Result<Taking, Unfit> {
        let mut body = Vec::with_capacity(message.payload.len());
        let epoch = events_message(message.payload, &mut body).map_err(Unfit::payload)?;
        let events = events_of(&body).map_err(Unfit::payload)?;
        let taken = match epoch {
            Some(epoch) if epoch > turn.window.epoch() && !turn.is_idle => {
                return Ok(Taking::AfterInFlight);
            }
            Some(epoch) => self.take_numbered(epoch, events, turn.window),
            None => self.intake.take_apart(None, events).map(Taken::from),
        };
        taking(taken.map_err(Unfit::payload)?)
    }

    /// Events of a higher epoch begin it; those of a lower one are stored as far as the database has not got them.
    fn take_numbered(
        &self,
        epoch: u64,
        events: Events<'_>,
        window: &mut SequenceWindow,
    ) -> Result<Taken, frame::FrameError> {
        let (sessions, device_id) = (&self.node.sessions, self.intake.device_id);
        let is_current = epoch == window.epoch()
            || (sessions.begin_epoch(device_id, window, epoch, self.known)).is_ok();
        if is_current {
            self.intake.take(window, events)
        } else {
            self.intake.take_apart(Some(epoch), events).map(Taken::from)
        }
    }

    /// What firmware says of itself may be the answer to a command, too.
    fn take_answer(&self, topic: &Topic<'_>, payload: &[u8], turn: Turn<'_>) -> Result<(), Unfit> {
        let own = self.intake.device_id;
        let child_of = |name: &str| self.node.registry.child_of(own, name);
        let Some(answer) = (turn.deliveries).answered_by(topic, payload, &child_of) else {
            return Ok(());
        };
        let (request_id, status) = (answer.request_id, answer.status);
        let body = result_body(&request_id, status, &answer.message, answer.data)?;
        let queued = self.queue_result(&body, turn.commands)?;
        // Not before: a journal without room is tried again.
        turn.deliveries.unanswered.forget(&request_id);
        *turn.beside = Some(queued);
        Ok(())
    }

    pub(super) fn take_result(&self, body: &[u8], turn: Turn<'_>) -> Result<Taking, Unfit> {
        let queued = self.queue_result(body, turn.commands)?;
        Ok(Taking::InFlight {
            awaited: Awaited::Result(queued),
            answer: Answer::SUCCESS,
        })
    }

    fn queue_result(
        &self,
        body: &[u8],
        commands: &CommandLink,
    ) -> Result<QueuedUnsequenced, Unfit> {
        let decoded = frame::decode(kind::RESULT, body).map_err(Unfit::payload)?;
        let Incoming::Result(result) = decoded else {
            return Err(Unfit::payload("no result"));
        };
        let taken = (self.node).take_result(self.intake.device_id, commands, &result);
        let queued = taken.map_err(|error| match error {
            AppendError::TooLarge { .. } => Unfit::payload(error),
            error => Refusal::from(error).into(),
        })?;
        queued.ok_or_else(|| Unfit::payload("no command has such a request id"))
    }

    fn take_last_will(&self, topic: &str, text: &str) -> Result<Taking, Unfit> {
        let mut metadata = Vec::with_capacity(topic.len() + text.len() + 32);
        write_map_len(&mut metadata, 2);
        write_str(&mut metadata, "topic");
        write_str(&mut metadata, topic);
        write_str(&mut metadata, "payload");
        write_str(&mut metadata, text);
        let event = Event {
            time_us: None,
            event_type: LAST_WILL,
            value: None,
            unit: None,
            metadata: Some(&metadata),
            device_id: None,
        };
        let mut encoded = Vec::with_capacity(metadata.len() + 32);
        encode_event(&event, &mut encoded);
        self.take_decoded(&Decoded {
            num_events: 1,
            events: encoded,
        })
    }

    /// Takes events without numbers.
    pub(super) fn take_decoded(&self, decoded: &Decoded) -> Result<Taking, Unfit> {
        let taken = self.intake.take_apart(None, decoded.as_events());
        taking(taken.map_err(Unfit::payload)?.into())
    }
}

fn taking(taken: Taken) -> Result<Taking, Unfit> {
    match taken {
        Taken::Queued(queued) => Ok(Taking::InFlight {
            answer: answer(&queued),
            awaited: Awaited::Queued(queued),
        }),
        Taken::Duplicate { last_seq } => Ok(Taking::InFlight {
            answer: Answer::SUCCESS,
            awaited: Awaited::Duplicate { last_seq },
        }),
        Taken::Refused(refusal) => Err(refusal.into()),
    }
}

fn events_of(body: &[u8]) -> Result<Events<'_>, MessageError> {
    match frame::decode(kind::EVENTS, body)? {
        Incoming::Events(events) => Ok(events),
        _ => Err(frame::FrameError::Empty.into()),
    }
}

/// Success, or how many of the events are dead letters and why the first one is.
fn answer(queued: &Queued) -> Answer {
    let Some((_, code)) = queued.rejected.first() else {
        return Answer::SUCCESS;
    };
    let (num_rejected, num_events) = (queued.rejected.len(), queued.num_events);
    let message = format!("{num_rejected} of {num_events} events are kept as dead letters: {code}");
    let reason = match code {
        RejectCode::UnknownDevice | RejectCode::ForbiddenDevice => ReasonCode::NotAuthorized,
        _ => ReasonCode::PayloadFormatInvalid,
    };
    Answer::refusal(reason, message)
}
