//! Commands under numbers, for firmware that knows them so.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::COMMANDS_PER_DEVICE_MAX;

/// The request ids of the last commands that a device was sent; as many as may wait for their results.
#[derive(Default)]
pub struct Numbered {
    known: VecDeque<(u32, Arc<str>)>,
    last: u32,
}

impl Numbered {
    /// Notes a command; its number.
    pub fn note(&mut self, request_id: &Arc<str>) -> u32 {
        if self.known.len() >= COMMANDS_PER_DEVICE_MAX {
            self.known.pop_front();
        }
        self.last = self.last.wrapping_add(1);
        self.known.push_back((self.last, Arc::clone(request_id)));
        self.last
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
