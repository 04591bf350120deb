//! Publications that wait for the journal, in the order in which they came, which is that of their PUBACKs.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Instant;

use super::codec::{ReasonCode, write_puback};
use super::greeting::Client;
use crate::inbound::awaited::Awaited;
use crate::journal::AppendError;

/// What a publisher is told once its publication is durable. Version 3.1.1 has no words for it.
#[derive(Debug)]
pub struct Answer {
    pub reason: ReasonCode,
    pub message: Option<String>,
    /// Nothing was done for now. Version 3.1.1, which has no words for that, is left without an acknowledgement.
    pub is_to_be_repeated: bool,
}

/// An answer that somebody else than the journal gives.
pub type Asked = Pin<Box<dyn Future<Output = Answer> + Send>>;

impl Answer {
    pub const SUCCESS: Self = Self {
        reason: ReasonCode::Success,
        message: None,
        is_to_be_repeated: false,
    };

    /// It was understood and is not done.
    pub fn refusal(reason: ReasonCode, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: Some(message.into()),
            is_to_be_repeated: false,
        }
    }

    /// It cannot be done for now.
    pub fn not_now(message: impl Into<String>) -> Self {
        Self {
            is_to_be_repeated: true,
            ..Self::refusal(ReasonCode::UnspecifiedError, message)
        }
    }
}

/// A publication that waits for the journal's answer.
pub struct Waiting {
    pub read_at: Instant,
    /// None for QoS 0, which hears nothing.
    pub packet_id: Option<u16>,
    pub awaited: Awaited,
    /// Becomes `answer`.
    pub asked: Option<Asked>,
    pub answer: Answer,
}

impl Waiting {
    /// One that nobody waits to hear of.
    pub fn unacknowledged(awaited: Awaited, answer: Answer) -> Self {
        Self {
            read_at: Instant::now(),
            packet_id: None,
            awaited,
            asked: None,
            answer,
        }
    }

    /// Queues its PUBACK, if it is to have one.
    pub fn acknowledge(&self, out: &mut Vec<u8>, client: Client, with_words: bool) {
        if let Some(packet_id) = self.packet_id {
            let text = self.answer.message.as_deref().filter(|_| with_words);
            let words = text.map(|text| client.words(text));
            write_puback(out, client.version, packet_id, self.answer.reason, words);
        }
    }
}

#[derive(Default)]
pub struct InFlight {
    waiting: VecDeque<Waiting>,
}

impl InFlight {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Is a publication of this packet identifier under way?
    pub fn holds(&self, packet_id: u16) -> bool {
        let mut packet_ids = self.waiting.iter().map(|waiting| waiting.packet_id);
        packet_ids.any(|waiting| waiting == Some(packet_id))
    }

    pub fn push(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    /// Takes the first one; its answer is in.
    pub fn pop(&mut self) -> Option<Waiting> {
        let first = self.waiting.pop_front();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        first
    }

    /// The journal's answer for the first one. Pends when none waits. Cancel-safe.
    pub async fn first_outcome(&mut self) -> Result<(), AppendError> {
        match self.waiting.front_mut() {
            Some(waiting) => {
                if let Some(asked) = &mut waiting.asked {
                    waiting.answer = asked.await;
                    waiting.asked = None;
                }
                waiting.awaited.outcome().await
            }
            None => std::future::pending().await,
        }
    }
}
