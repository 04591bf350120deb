//! Messages of other protocols that say in JSON what a device says in frames:
//!
//! ```text
//! an event          {"type": "temperature", "value": 21.5}
//! events            [event, ...]
//! numbered events   {"epoch": 7, "first_seq": 1, "events": [event, ...]}; without epoch and first_seq they have no numbers
//! a result          {"status": 0, "message": "done", "data": {}}; whose it is says the place it was sent to
//! ```

use thiserror::Error;

use super::{
    EVENT, EVENTS, Form, FrameError, MapAccess, NESTING_MAX, POSITIONS_MAX, Positional, Positions,
    SeqAccess, Transcode, Values, Visitor, fmt, opened, write_array_len, write_str, write_uint,
};
use crate::event::msgpack::{MsgpackError, Reader, Token};
use serde::de::{DeserializeSeed, Deserializer};

#[expect(
    clippy::indexing_slicing,
    reason = "in a constant, where it is checked at compile time"
)]
/// The keys of the envelope, then those of an event, in the order of [`EVENTS`] and [`EVENT`].
const MESSAGE: Positions = &[
    EVENTS[0],
    EVENTS[1],
    ("epoch", Form::Any),
    EVENT[0],
    EVENT[1],
    EVENT[2],
    EVENT[3],
    EVENT[4],
    EVENT[5],
];
const _: () = assert!(MESSAGE.len() == POSITIONS_MAX && EVENT.len() == 6);

/// The keys of a result, in the order of their positions behind the request id.
const ANSWER: Positions = &[
    ("status", Form::Any),
    ("message", Form::Any),
    ("data", Form::Any),
];

/// What stands for the number of events that have none.
const NO_NUMBER: u64 = 1;

/// Why a message is not what it should be, in words for a person.
#[derive(Debug, Error)]
pub enum MessageError {
    #[error("not the JSON that is taken here: {}", fault_of(.0))]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Why JSON is not what it should be, without the value that is not: it may be a secret, and more people read why.
#[must_use]
pub fn fault_of(error: &serde_json::Error) -> String {
    let why = error.to_string();
    match why.rsplit_once(", expected ") {
        Some((_found, expected)) if error.is_data() => format!("expected {expected}"),
        _ => why,
    }
}

/// Turns a message into the body of an EVENTS frame; what `body` held is dropped. Returns the epoch of numbered events.
///
/// # Errors
/// [`MessageError`]. That the body is one of events says `decode`.
pub fn events_message(message: &[u8], body: &mut Vec<u8>) -> Result<Option<u64>, MessageError> {
    body.clear();
    let mut deserializer = serde_json::Deserializer::from_slice(message);
    let numbers = deserializer.deserialize_any(MessageVisitor { body })?;
    deserializer.end()?;
    Ok(match numbers {
        Numbers::None => None,
        Numbers::Of { epoch } => Some(epoch?),
        Numbers::Half { missing } => return Err(FrameError::Missing { element: missing }.into()),
    })
}

/// Turns the answer to a command into the body of a RESULT frame; what `body` held is dropped.
///
/// # Errors
/// [`MessageError`]. That the body is a result says `decode`.
pub fn result_message(
    request_id: &str,
    message: &[u8],
    body: &mut Vec<u8>,
) -> Result<(), MessageError> {
    body.clear();
    let mut positional = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(message);
    let answer = Positional {
        positions: ANSWER,
        out: &mut positional,
        nesting_left: NESTING_MAX,
    };
    answer.deserialize(&mut deserializer)?;
    deserializer.end()?;
    // At most three elements: the head is one byte.
    let (head, elements) = positional.split_first().unwrap_or((&0x90, &[]));
    write_array_len(body, 1 + usize::from(head & 0x0f));
    write_str(body, request_id);
    body.extend_from_slice(elements);
    Ok(())
}

enum Numbers {
    None,
    Of {
        epoch: Result<u64, FrameError>,
    },
    /// One of the two that go together.
    Half {
        missing: &'static str,
    },
}

struct MessageVisitor<'o> {
    body: &'o mut Vec<u8>,
}

impl<'de> Visitor<'de> for MessageVisitor<'_> {
    type Value = Numbers;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an event, a list of events, or an object with events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Numbers, A::Error> {
        write_array_len(self.body, 2);
        write_uint(self.body, NO_NUMBER);
        let list = Transcode {
            form: Form::Events,
            out: self.body,
            nesting_left: opened(NESTING_MAX)?,
        };
        list.visit_seq(seq).map(|()| Numbers::None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Numbers, A::Error> {
        let values = Values::write(map, MESSAGE, self.body, opened(NESTING_MAX)?)?;
        let [first_seq, events, epoch, event @ ..] = &values.ranges;
        let numbers = match (first_seq, epoch) {
            (None, None) => Numbers::None,
            (None, Some(_)) => Numbers::Half {
                missing: "first_seq",
            },
            (Some(_), None) => Numbers::Half { missing: "epoch" },
            (Some(_), Some(_)) if events.is_none() => Numbers::Half { missing: "events" },
            (Some(_), Some(range)) => Numbers::Of {
                epoch: epoch_of(self.body.get(range.clone()).unwrap_or_default()),
            },
        };
        values.put_in_order(self.body, |out, _| {
            write_array_len(out.out, 2);
            match first_seq {
                Some(_) => out.value(first_seq),
                None => write_uint(out.out, NO_NUMBER),
            }
            match events {
                Some(_) => out.value(events),
                None => {
                    write_array_len(out.out, 1);
                    out.array(event);
                }
            }
        });
        Ok(numbers)
    }
}

fn epoch_of(encoded: &[u8]) -> Result<u64, FrameError> {
    let element = "epoch";
    match Reader::new(encoded).token() {
        Ok(Token::Uint(epoch)) if i64::try_from(epoch).is_ok() => Ok(epoch),
        Ok(Token::Uint(_)) => Err(FrameError::OutOfRange { element }),
        Ok(_) => Err(FrameError::BadElement {
            element,
            source: MsgpackError::WrongType,
        }),
        Err(source) => Err(FrameError::BadElement { element, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Incoming, decode, kind};

    fn read(message: &str) -> Result<(Option<u64>, u64, Vec<String>), MessageError> {
        let mut body = vec![1, 2, 3];
        let epoch = events_message(message.as_bytes(), &mut body)?;
        let Incoming::Events(events) = decode(kind::EVENTS, &body)? else {
            panic!()
        };
        let types = events
            .events
            .map(|event| event.map(|event| event.event.event_type.to_owned()));
        Ok((epoch, events.first_seq, types.collect::<Result<_, _>>()?))
    }

    #[test]
    fn an_event_a_list_and_an_envelope_are_events() {
        let types = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let one = read(r#"{"value": 1.5, "type": "a", "metadata": {"k": [1]}}"#).unwrap();
        assert_eq!(one, (None, 1, types(&["a"])));
        let list = read(r#"[{"type": "a"}, {"type": "b", "unit": "C"}]"#).unwrap();
        assert_eq!(list, (None, 1, types(&["a", "b"])));
        let envelope = read(r#"{"events": [{"type": "a"}], "more": {}}"#).unwrap();
        assert_eq!(envelope, (None, 1, types(&["a"])));
        let numbered = r#"{"first_seq": 9, "events": [{"type": "a"}], "epoch": 7}"#;
        assert_eq!(read(numbered).unwrap(), (Some(7), 9, types(&["a"])));
    }

    #[test]
    fn what_is_no_message_of_events_says_why() {
        let cases = [
            ("21.5", "an event, a list of events"),
            ("\"a, expected b\"", "here: expected an event"),
            ("{\"type\": \"a\"", "EOF"),
            ("{\"type\": \"a\"} x", "trailing"),
            ("\u{feff}{}", "expected value"),
            ("{}", "type"),
            ("[]", "0 events"),
            ("[1]", "an object"),
            (
                r#"{"epoch": 1, "events": [{"type": "a"}]}"#,
                "first_seq is missing",
            ),
            (
                r#"{"first_seq": 1, "events": [{"type": "a"}]}"#,
                "epoch is missing",
            ),
            (
                r#"{"first_seq": 1, "epoch": 1, "type": "a"}"#,
                "events is missing",
            ),
            (
                r#"{"first_seq": 1, "epoch": -1, "events": [{"type": "a"}]}"#,
                "epoch",
            ),
            (
                r#"{"first_seq": 0, "epoch": 1, "events": [{"type": "a"}]}"#,
                "first_seq",
            ),
            (r#"{"type": "a", "type": "b"}"#, "a key twice"),
        ];
        for (message, expected) in cases {
            let why = read(message).unwrap_err().to_string();
            assert!(why.contains(expected), "{message}: {why}");
        }
        assert!(read(&format!("{}{}", "[".repeat(9000), "]".repeat(9000))).is_err());
    }

    #[test]
    fn an_answer_is_a_result_of_the_request_that_its_place_names() {
        let mut body = Vec::new();
        let message = br#"{"status": 3, "data": {"k": 1}, "request_id": "other"}"#;
        result_message("r-1", message, &mut body).unwrap();
        let Incoming::Result(result) = decode(kind::RESULT, &body).unwrap() else {
            panic!()
        };
        assert_eq!(
            (result.request_id, result.status, result.message),
            ("r-1", 3, None)
        );
        assert_eq!(result.data, Some(&b"\x81\xa1k\x01"[..]));
        result_message("r-1", b"{}", &mut body).unwrap();
        assert!(decode(kind::RESULT, &body).is_err());
        assert!(result_message("r-1", b"[]", &mut body).is_err());
    }
}
