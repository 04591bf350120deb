//! A device's RESULT, as those who wait for it hear it and as the journal keeps it: an event of the connected device that only the
//! core can say, so that a result is durable when nobody listens.
//!
//! ```text
//! type command_result | no value | metadata { request_id, status, message?, data?, is_data_left_out? } | source core
//! ```
//!
//! Every RESULT is kept, also one that is late, comes twice or answers nothing: who reads it decides by device and request id.
//! Not kept is one whose request id no command can have.

use uuid::Uuid;

use crate::event::msgpack::{write_bool, write_map_len, write_str, write_uint};
use crate::event::{Event, check_event};
use crate::frame::{CommandResult, encode_event};

/// The event type.
pub const COMMAND_RESULT: &str = "command_result";
/// A request id has 1 to this many characters.
pub const REQUEST_ID_CHARS_MAX: usize = 64;
/// What is longer is cut.
const MESSAGE_CHARS_MAX: usize = 1000;

/// Can a command have this request id?
#[must_use]
pub fn is_request_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 4 * REQUEST_ID_CHARS_MAX
        && text.chars().count() <= REQUEST_ID_CHARS_MAX
        && !text.chars().any(char::is_control)
}

/// A RESULT, cut to what can be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome<'a> {
    pub request_id: &'a str,
    /// 0 = done.
    pub status: u64,
    pub message: Option<&'a str>,
    /// A MessagePack map.
    pub data: Option<&'a [u8]>,
    /// The device sent data that is too large, nested too deep, or nothing that JSON can hold.
    pub is_data_left_out: bool,
}

impl<'a> Outcome<'a> {
    /// None for a result whose request id no command can have.
    #[must_use]
    pub fn of(result: &CommandResult<'a>) -> Option<Self> {
        if !is_request_id(result.request_id) {
            return None;
        }
        let outcome = Self {
            request_id: result.request_id,
            status: result.status,
            message: result
                .message
                .map(cut)
                .filter(|message| !message.contains('\0')),
            data: result.data,
            is_data_left_out: false,
        };
        let metadata = outcome.metadata();
        match check_event(&event(&metadata, None), 0, 0) {
            Ok(()) => Some(outcome),
            Err(_) => Some(Self {
                data: None,
                is_data_left_out: true,
                ..outcome
            }),
        }
    }

    /// The event that the journal keeps of it, encoded.
    #[must_use]
    pub fn encode(&self, device_id: Uuid) -> Vec<u8> {
        let metadata = self.metadata();
        let mut out = Vec::with_capacity(metadata.len() + 64);
        encode_event(&event(&metadata, Some(device_id)), &mut out);
        out
    }

    fn metadata(&self) -> Vec<u8> {
        let num_optional = usize::from(self.message.is_some())
            + usize::from(self.data.is_some())
            + usize::from(self.is_data_left_out);
        let mut out = Vec::with_capacity(128 + self.data.map_or(0, <[u8]>::len));
        write_map_len(&mut out, 2 + num_optional);
        write_str(&mut out, "request_id");
        write_str(&mut out, self.request_id);
        write_str(&mut out, "status");
        write_uint(&mut out, self.status);
        if let Some(message) = self.message {
            write_str(&mut out, "message");
            write_str(&mut out, message);
        }
        if let Some(data) = self.data {
            write_str(&mut out, "data");
            out.extend_from_slice(data);
        }
        if self.is_data_left_out {
            write_str(&mut out, "is_data_left_out");
            write_bool(&mut out, true);
        }
        out
    }
}

fn event(metadata: &[u8], device_id: Option<Uuid>) -> Event<'_> {
    Event {
        time_us: None,
        event_type: COMMAND_RESULT,
        value: None,
        unit: None,
        metadata: Some(metadata),
        device_id,
    }
}

fn cut(message: &str) -> &str {
    let end = message.char_indices().nth(MESSAGE_CHARS_MAX);
    end.and_then(|(end, _)| message.get(..end))
        .unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::metadata_to_json;
    use crate::frame::EventIter;

    fn stored(result: &CommandResult<'_>) -> serde_json::Value {
        let bytes = Outcome::of(result).unwrap().encode(Uuid::from_u128(5));
        let event = EventIter::new(&bytes, 1).next().unwrap().unwrap().event;
        assert_eq!(event.device_id, Some(Uuid::from_u128(5)));
        assert_eq!(check_event(&event, 0, 0), Ok(()));
        let mut json = Vec::new();
        metadata_to_json(event.metadata.unwrap(), &mut json).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn a_result_is_kept_with_all_it_says() {
        let result = CommandResult {
            request_id: "r",
            status: 3,
            message: Some("jammed"),
            data: Some(b"\x81\xa1k\x07"),
        };
        let expected = serde_json::json!({"request_id": "r", "status": 3, "message": "jammed", "data": {"k": 7}});
        assert_eq!(stored(&result), expected);
    }

    #[test]
    fn data_that_cannot_be_stored_is_left_out_and_the_result_is_kept() {
        let mut large = vec![0x81, 0xa1, b'k', 0xda, 0x40, 0x00];
        large.resize(large.len() + 0x4000, b'x');
        let binary = b"\x81\xa1k\xc4\x01\x00";
        for data in [&large[..], &binary[..]] {
            let result = CommandResult {
                request_id: "r",
                status: 0,
                message: None,
                data: Some(data),
            };
            let expected =
                serde_json::json!({"request_id": "r", "status": 0, "is_data_left_out": true});
            assert_eq!(stored(&result), expected);
        }
    }

    proptest! {
        #[test]
        fn whatever_a_device_says_can_be_stored(request_id in any::<String>(), status in any::<u64>(), message in any::<Option<String>>()) {
            let message = message.map(|message| message.repeat(100));
            let result = CommandResult { request_id: &request_id, status, message: message.as_deref(), data: None };
            if Outcome::of(&result).is_some() {
                let kept = stored(&result);
                prop_assert_eq!(&kept["request_id"], &serde_json::json!(request_id));
            } else {
                prop_assert!(!is_request_id(&request_id));
            }
        }
    }
}
