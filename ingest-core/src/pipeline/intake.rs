//! From an EVENTS frame to the journal's queue: sequence, content, right to speak, append.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use uuid::Uuid;

use super::clock::now_us;
use super::entry::{Entry, Rejected, Source};
use super::lane::Lane;
use super::live::{LiveFeed, Outline};
use super::registry::DeviceRegistry;
use super::unreadable::{Unreadable, reason_of};
use super::window::{Admission, SequenceWindow};
use crate::event::{Event, RejectCode, check_event};
use crate::frame::{EncodedEvent, Events, FrameError};
use crate::journal::{AppendError, AppendTicket};
use crate::metrics::{Code, Metrics, Reason};

/// What became of a frame. Every variant but `Refused` is acknowledged once `durable` is reached.
pub enum Taken {
    /// All of it, up to `last_seq`, was taken before. It need not be durable yet.
    Duplicate {
        last_seq: u64,
    },
    Queued(Queued),
    /// Nothing of it was taken.
    Refused(Refusal),
}

impl From<Result<Queued, Refusal>> for Taken {
    fn from(queued: Result<Queued, Refusal>) -> Self {
        match queued {
            Ok(queued) => Self::Queued(queued),
            Err(refusal) => Self::Refused(refusal),
        }
    }
}

/// A frame on its way to the disk.
pub struct Queued {
    pub ticket: AppendTicket,
    /// 0 for events apart from the device's window.
    pub last_seq: u64,
    pub num_events: u64,
    /// For the ACK: sequence numbers of events that become dead letters.
    pub rejected: Vec<(u64, RejectCode)>,
    /// The entry, for the live feed once it is durable.
    pub payload: Bytes,
    pub outline: Outline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    JournalFull,
    /// An earlier frame of this connection was refused.
    AfterRefusal,
    /// It can never be taken: the journal was made with segments too small for it.
    TooLarge,
    /// The journal is poisoned or closed: the process ends.
    JournalGone,
}

impl Refusal {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JournalFull => "journal_full",
            Self::AfterRefusal => "after_refusal",
            Self::TooLarge => "too_large",
            Self::JournalGone => "journal_gone",
        }
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full { .. } => Self::JournalFull,
            AppendError::TooLarge { .. } => Self::TooLarge,
            AppendError::Poisoned | AppendError::Closed => Self::JournalGone,
        }
    }
}

/// One connected device's way into its lane.
pub struct Intake {
    pub source: Source,
    pub device_id: Uuid,
    pub lane: Arc<Lane>,
    pub registry: Arc<DeviceRegistry>,
    pub metrics: Arc<Metrics>,
    pub live: Arc<LiveFeed>,
    pub retention_us: i64,
}

impl Intake {
    /// Takes a frame's events into the journal's queue.
    ///
    /// # Errors
    /// [`FrameError`] when an event cannot be decoded; then nothing of the frame is taken.
    pub fn take(
        &self,
        window: &mut SequenceWindow,
        frame: Events<'_>,
    ) -> Result<Taken, FrameError> {
        let (first_seq, num_events) = (frame.first_seq, u64::from(frame.num_events));
        let received_us = now_us();
        let checked = self.check(frame, received_us)?;
        let num_known = match window.admit(first_seq, num_events) {
            Admission::Duplicate { last_seq } => {
                self.metrics.events_duplicate.inc_by(num_events);
                return Ok(Taken::Duplicate { last_seq });
            }
            Admission::AfterRefusal => return Ok(Taken::Refused(Refusal::AfterRefusal)),
            Admission::Take { num_known, is_jump } => {
                self.metrics.sequence_jumps.inc_by(u64::from(is_jump));
                num_known
            }
        };
        self.metrics.events_duplicate.inc_by(num_known);
        let checked = checked.without_first(num_known);
        let entry = Entry {
            source: self.source,
            device_id: self.device_id,
            epoch: window.epoch(),
            first_seq: first_seq + num_known,
            received_us,
            num_events: checked.num_events,
            rejected: checked.rejected,
            events: checked.events,
        };
        let refusals_seen = window.refusals_seen(self.lane.journal.num_refusals());
        Ok(
            match self.queue(&entry, checked.outline, Some(refusals_seen)) {
                Ok(queued) => {
                    let last_seq = entry.last_seq();
                    window.take(last_seq);
                    Taken::Queued(Queued { last_seq, ..queued })
                }
                Err(refusal) => {
                    if refusal == Refusal::JournalFull {
                        window.refuse(entry.first_seq);
                    }
                    Taken::Refused(refusal)
                }
            },
        )
    }

    /// Takes events apart from the device's window: of an epoch that is over, of which the database alone knows what it
    /// has, or of none, whose events have no numbers; then `frame.first_seq` stands for nothing.
    ///
    /// # Errors
    /// As [`Self::take`]; the inner one where nothing of it was taken.
    pub fn take_apart(
        &self,
        epoch: Option<u64>,
        frame: Events<'_>,
    ) -> Result<Result<Queued, Refusal>, FrameError> {
        let (first_seq, received_us) = (frame.first_seq, now_us());
        let checked = self.check(frame, received_us)?;
        let (num_events, events) = (checked.num_events, checked.events);
        let mut entry = Entry {
            device_id: self.device_id,
            rejected: checked.rejected,
            ..Entry::unsequenced(self.source, received_us, num_events, events)
        };
        if let Some(epoch) = epoch {
            (entry.epoch, entry.first_seq) = (epoch, first_seq);
        }
        Ok(self.queue(&entry, checked.outline, None))
    }

    /// Takes what cannot be understood, to be kept as a dead letter.
    ///
    /// # Errors
    /// Why it is not kept.
    pub fn take_unreadable(&self, unreadable: &Unreadable<'_>) -> Result<Queued, Refusal> {
        let event = unreadable.encode();
        let entry = Entry {
            device_id: self.device_id,
            rejected: vec![Rejected {
                index: 0,
                code: RejectCode::BadPayload,
            }],
            ..Entry::unsequenced(self.source, now_us(), 1, &event)
        };
        self.queue(&entry, EventsOutline::default(), None)
    }

    /// `refusals_seen` is the window's, for events that must not pass those before them.
    fn queue(
        &self,
        entry: &Entry<'_>,
        events: EventsOutline,
        refusals_seen: Option<u64>,
    ) -> Result<Queued, Refusal> {
        let num_events = u64::from(entry.num_events);
        let payload = Bytes::from(entry.encode());
        let journal = &self.lane.journal;
        let appended = match refusals_seen {
            Some(seen) => journal.append_after(payload.clone(), seen),
            None => journal.append(payload.clone()),
        };
        let ticket = appended?;
        let outline = events.outline(payload.len() - entry.events.len());
        self.lane.note_taken(num_events, entry.received_us);
        let rejected = (entry.rejected.iter())
            .map(|r| (entry.first_seq + u64::from(r.index), r.code))
            .collect();
        Ok(Queued {
            ticket,
            last_seq: 0,
            num_events,
            rejected,
            payload,
            outline,
        })
    }

    fn check<'a>(
        &self,
        mut frame: Events<'a>,
        received_us: i64,
    ) -> Result<Checked<'a>, FrameError> {
        let oldest_us = received_us.saturating_sub(self.retention_us);
        let mut checked = Checked {
            num_events: 0,
            rejected: Vec::new(),
            events: &[],
            outline: EventsOutline::default(),
        };
        let mut offset = 0;
        for event in &mut frame.events {
            let EncodedEvent { event, encoded } = event?;
            let verdict =
                check_event(&event, received_us, oldest_us).and_then(|()| match event.device_id {
                    Some(child) => self.registry.may_speak_for(self.device_id, child),
                    None => Ok(()),
                });
            // A part of a message that is kept as it came.
            let verdict = verdict.map_err(|code| match reason_of(&event) {
                Some(_) => RejectCode::BadPayload,
                None => code,
            });
            match verdict {
                Ok(()) => checked.outline.note(&event, offset, received_us),
                Err(code) => checked.rejected.push(Rejected {
                    index: checked.num_events,
                    code,
                }),
            }
            offset += encoded.len();
            checked.num_events += 1;
        }
        checked.events = frame.events.consumed();
        Ok(checked)
    }

    /// Notes the journal's answer for a frame.
    ///
    /// # Errors
    /// Why the device must send it again.
    pub fn settle(
        &self,
        window: &mut SequenceWindow,
        queued: &Queued,
        outcome: Result<(), AppendError>,
    ) -> Result<(), Refusal> {
        match &outcome {
            Ok(()) => window.make_durable(queued.last_seq),
            Err(AppendError::Full { .. }) => window.fall_back(),
            Err(_) => {}
        }
        self.settle_outcome(queued, outcome)
    }

    /// Waits for the journal's answer for events apart from any window, and notes it.
    ///
    /// # Errors
    /// Why they must be sent again.
    pub async fn settle_apart(&self, mut queued: Queued) -> Result<(), Refusal> {
        let outcome = (&mut queued.ticket).await.map(drop);
        self.settle_outcome(&queued, outcome)
    }

    /// Notes the journal's answer for events apart from any window.
    ///
    /// # Errors
    /// Why they must be sent again.
    pub fn settle_outcome(
        &self,
        queued: &Queued,
        outcome: Result<(), AppendError>,
    ) -> Result<(), Refusal> {
        outcome?;
        self.note_durable(queued);
        Ok(())
    }

    fn note_durable(&self, queued: &Queued) {
        self.metrics.events_accepted.inc_by(queued.num_events);
        for (_, code) in &queued.rejected {
            let code = code.as_str();
            let rejected = &self.metrics.events_rejected;
            rejected.get_or_create(&Code { code }).inc();
        }
        self.live.events(&queued.payload, queued.outline);
    }

    /// Counts a BUSY.
    pub fn count_refusal(&self, refusal: Refusal) {
        self.metrics
            .busy
            .get_or_create(&Reason {
                reason: refusal.as_str(),
            })
            .inc();
    }

    /// The time from a frame's arrival to its ACK.
    pub fn observe_ack(&self, read_at: Instant) {
        self.metrics
            .ack_latency
            .observe(read_at.elapsed().as_secs_f64());
    }
}

/// Decoded events with their verdicts.
struct Checked<'a> {
    num_events: u32,
    rejected: Vec<Rejected>,
    events: &'a [u8],
    outline: EventsOutline,
}

/// An [`Outline`] in the making; the offset counts from the first event.
#[derive(Default)]
struct EventsOutline {
    is_mixed: bool,
    /// Its time and its offset.
    newest: Option<(i64, usize)>,
}

impl EventsOutline {
    #[inline]
    fn note(&mut self, event: &Event<'_>, offset: usize, received_us: i64) {
        self.is_mixed |= event.device_id.is_some();
        let time_us = event.time_us.unwrap_or(received_us);
        if self
            .newest
            .is_none_or(|(newest_us, _)| newest_us <= time_us)
        {
            self.newest = Some((time_us, offset));
        }
    }

    fn outline(&self, events_offset: usize) -> Outline {
        if self.is_mixed {
            return Outline::Mixed;
        }
        let newest_offset = self.newest.map(|(_, offset)| events_offset + offset);
        Outline::Own { newest_offset }
    }
}

impl<'a> Checked<'a> {
    /// Leaves out events that were taken before.
    fn without_first(self, num_known: u64) -> Self {
        let num_known = u32::try_from(num_known)
            .unwrap_or(u32::MAX)
            .min(self.num_events);
        if num_known == 0 {
            return self;
        }
        let mut known = crate::frame::EventIter::new(self.events, self.num_events);
        let known_bytes: usize = (&mut known)
            .take(num_known as usize)
            .flatten()
            .map(|event| event.encoded.len())
            .sum();
        let rejected = self
            .rejected
            .into_iter()
            .filter(|rejected| rejected.index >= num_known);
        Checked {
            num_events: self.num_events - num_known,
            rejected: rejected
                .map(|r| Rejected {
                    index: r.index - num_known,
                    ..r
                })
                .collect(),
            events: self.events.get(known_bytes..).unwrap_or_default(),
            // The newest may be among those that are left out.
            outline: EventsOutline {
                is_mixed: true,
                newest: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(events: &[(Option<i64>, Option<Uuid>)]) -> Outline {
        let mut outline = EventsOutline::default();
        for (number, (time_us, device_id)) in events.iter().enumerate() {
            let event = Event {
                time_us: *time_us,
                event_type: "t",
                value: None,
                unit: None,
                metadata: None,
                device_id: *device_id,
            };
            outline.note(&event, number * 10, 50);
        }
        outline.outline(100)
    }

    #[test]
    fn the_newest_event_is_the_latest_by_its_time_and_of_several_the_last() {
        let newest = |events| match outline(events) {
            Outline::Own { newest_offset } => newest_offset,
            Outline::Mixed => panic!(),
        };
        assert_eq!(newest(&[]), None);
        assert_eq!(newest(&[(Some(9), None), (Some(7), None)]), Some(100));
        assert_eq!(newest(&[(Some(9), None), (Some(9), None)]), Some(110));
        assert_eq!(newest(&[(Some(9), None), (None, None)]), Some(110));
    }

    #[test]
    fn events_of_children_make_it_mixed() {
        let child = Some(Uuid::from_u128(2));
        assert_eq!(outline(&[(None, None), (None, child)]), Outline::Mixed);
    }
}
