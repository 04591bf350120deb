//! Commands under numbers, for firmware that knows them so.

use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use crate::config::COMMANDS_PER_DEVICE_MAX;

/// The largest number that all firmware can hold.
const NUMBER_MAX: u32 = 0x7fff_ffff;

/// The request ids of the last commands that a device was sent; as many as may wait for their results.
#[derive(Default)]
pub struct Numbered {
    known: VecDeque<(u32, Arc<str>)>,
    last: Option<u32>,
}

impl Numbered {
    /// Notes a command; its number.
    pub fn note(&mut self, request_id: &Arc<str>) -> u32 {
        if self.known.len() >= COMMANDS_PER_DEVICE_MAX {
            self.known.pop_front();
        }
        // Drawn anew for each connection: a late answer to a command of another one must not be taken for that of this one's.
        let last = (self.last).unwrap_or_else(|| Uuid::new_v4().as_fields().0 >> 2);
        let number = last % NUMBER_MAX + 1;
        self.last = Some(number);
        self.known.push_back((number, Arc::clone(request_id)));
        number
    }

    /// The command that was sent under a number.
    #[must_use]
    pub fn request_of(&self, number: &str) -> Option<Arc<str>> {
        let number: u32 = number.parse().ok()?;
        let mut known = self.known.iter();
        let found = known.find(|(sent, _)| *sent == number)?;
        Some(Arc::clone(&found.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_another_connection_is_no_command_of_this_one() {
        let (mut before, mut now) = (Numbered::default(), Numbered::default());
        let late = before.note(&"unlock".into());
        let number = now.note(&"lock".into());
        assert_eq!(now.request_of(&late.to_string()), None);
        assert_eq!(now.request_of(&number.to_string()).as_deref(), Some("lock"));
    }

    #[test]
    fn numbers_go_up_and_stay_within_31_bits() {
        let mut numbered = Numbered::default();
        let first = numbered.note(&"a".into());
        assert_eq!(numbered.note(&"b".into()), first + 1);
        numbered.last = Some(NUMBER_MAX - 1);
        assert_eq!(numbered.note(&"c".into()), NUMBER_MAX);
        assert_eq!(numbered.note(&"d".into()), 1);
    }
}
