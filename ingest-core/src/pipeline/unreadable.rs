//! What a device sent that is no event: kept as it came, as a dead letter of the code `bad_payload`.
//!
//! ```text
//! type unreadable | metadata { reason str, topic str, payload bin }
//! ```
//!
//! It lies in the journal in the form of an event with a verdict, so it goes the way of any dead letter. It never becomes a row:
//! JSON cannot hold binary data, so metadata with it is refused however often it is tried.

use crate::event::Event;
use crate::event::msgpack::{Reader, Token, write_bin, write_map_len, write_str};
use crate::frame::encode_event;

const UNREADABLE: &str = "unreadable";
const REASON: &str = "reason";
const TOPIC: &str = "topic";
const PAYLOAD: &str = "payload";
/// Of a reason, which may repeat what was sent.
const REASON_CHARS_MAX: usize = 500;

/// A message that cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable<'a> {
    /// Where it was sent to.
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// Why it cannot be understood, in words.
    pub reason: &'a str,
}

impl Unreadable<'_> {
    /// The event that the journal keeps of it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let num_bytes = self.reason.len() + self.topic.len() + self.payload.len() + 64;
        let mut metadata = Vec::with_capacity(num_bytes);
        write_map_len(&mut metadata, 3);
        write_str(&mut metadata, REASON);
        write_str(&mut metadata, self.reason);
        write_str(&mut metadata, TOPIC);
        write_str(&mut metadata, self.topic);
        write_str(&mut metadata, PAYLOAD);
        write_bin(&mut metadata, self.payload);
        let event = Event {
            time_us: None,
            event_type: UNREADABLE,
            value: None,
            unit: None,
            metadata: Some(&metadata),
            device_id: None,
        };
        let mut out = Vec::with_capacity(num_bytes);
        encode_event(&event, &mut out);
        out
    }
}

/// Why what `event` keeps cannot be understood; none where it is another event.
///
/// A device that speaks MessagePack can send this form itself, so the reason is made into what a column of text can hold.
#[must_use]
pub fn reason_of(event: &Event<'_>) -> Option<String> {
    if event.event_type != UNREADABLE {
        return None;
    }
    let mut reader = Reader::new(event.metadata?);
    let mut next = || reader.token().ok();
    let (Token::Map(3), Token::Str(REASON), Token::Str(reason)) = (next()?, next()?, next()?)
    else {
        return None;
    };
    let (Token::Str(TOPIC), Token::Str(_), Token::Str(PAYLOAD), Token::Bin(_)) =
        (next()?, next()?, next()?, next()?)
    else {
        return None;
    };
    let kept = reason.chars().filter(|char| *char != '\0');
    Some(kept.take(REASON_CHARS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{RejectCode, check_event};
    use crate::frame::EventIter;

    #[test]
    fn what_is_kept_tells_why_and_is_never_taken_for_an_event() {
        let unreadable = Unreadable {
            topic: "a/b",
            payload: b"\0\xff",
            reason: "not JSON",
        };
        let bytes = unreadable.encode();
        let event = EventIter::first(&bytes).unwrap().event;
        assert_eq!(reason_of(&event).as_deref(), Some("not JSON"));
        assert_eq!(check_event(&event, 0, 0), Err(RejectCode::BadMetadata));
        let other = Event {
            event_type: "a",
            ..event
        };
        assert_eq!(reason_of(&other), None);
        let without = Event {
            metadata: None,
            ..event
        };
        assert_eq!(reason_of(&without), None);
    }

    #[test]
    fn a_device_that_sends_the_form_itself_says_nothing_that_cannot_be_stored() {
        let said = "\0a".repeat(1000);
        let unreadable = Unreadable {
            topic: "",
            payload: b"",
            reason: &said,
        };
        let bytes = unreadable.encode();
        let event = EventIter::first(&bytes).unwrap().event;
        assert_eq!(reason_of(&event), Some("a".repeat(500)));
    }
}
