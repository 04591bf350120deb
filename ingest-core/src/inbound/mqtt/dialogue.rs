//! What a device asks and is told beside its commands: answers to its questions, what it is desired to be, and, for a gateway, the
//! same for its children.
//!
//! **Invariants.** What is desired of a device is read one after the other, so that what it is told last is the newest. Questions
//! that wait are bounded; one that comes beyond is refused.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::time::sleep;
use tracing::debug;
use uuid::Uuid;

use super::topics::Channel;
use crate::inbound::formats::thingsboard::ToldAttributes;
use crate::node::{DeviceDesk, Node};
use crate::pipeline::attributes::{Attributes, Changed, DesiredChanges, Listening};
use crate::pipeline::live::Presence;

/// Questions of one connection that wait for their answers.
const QUESTIONS_MAX: usize = 16;
/// Readings of one connection at a time.
const READINGS_MAX: usize = 2;
/// A reading that failed is tried again after this long.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What a device is to be told.
pub enum Said {
    /// By this subscription, to this topic.
    Answer {
        channel: Channel,
        topic: String,
        payload: Value,
    },
    /// This is otherwise desired of a device, the connected one or a child of it.
    Desired { of: Uuid, changes: Value },
}

enum Outcome {
    /// None where the database did not answer: the device asks again.
    Answered(Option<Said>),
    Read {
        of: Uuid,
        attributes: Attributes,
    },
}

type Question = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// One connection's side conversation. Nothing of it is there before it is needed.
pub struct Dialogue {
    device_id: Uuid,
    desk: Arc<DeviceDesk>,
    changes: Arc<DesiredChanges>,
    open: Option<Box<Open>>,
}

#[derive(Default)]
struct Open {
    questions: FuturesUnordered<Question>,
    num_asked: usize,
    listening: Option<Listening>,
    follows_itself: bool,
    follows_children: bool,
    /// Of whom what is desired is to be read, and is being read.
    to_read: HashSet<Uuid>,
    reading: HashSet<Uuid>,
    told: HashMap<Uuid, ToldAttributes>,
    /// Children that the gateway says are there.
    children: HashMap<Uuid, Presence>,
}

impl Dialogue {
    pub fn new(node: &Node, device_id: Uuid) -> Self {
        Self {
            device_id,
            desk: Arc::clone(&node.desk),
            changes: Arc::clone(&node.desired),
            open: None,
        }
    }

    fn open(&mut self) -> &mut Open {
        self.open.get_or_insert_default()
    }

    /// Has something be said in its turn. False when too much waits.
    pub fn say(&mut self, said: Said) -> bool {
        self.ask(Box::pin(async move { Outcome::Answered(Some(said)) }))
    }

    /// Has a question about the attributes of a device be answered. False when too many wait.
    pub fn ask_attributes(
        &mut self,
        of: Uuid,
        answer: impl FnOnce(&Attributes) -> Said + Send + 'static,
    ) -> bool {
        let desk = Arc::clone(&self.desk);
        self.ask(Box::pin(async move {
            let read = desk.attributes(of).await;
            if let Err(error) = &read {
                debug!(%error, "a device's question is not answered");
            }
            Outcome::Answered(read.ok().map(|attributes| answer(&attributes)))
        }))
    }

    fn ask(&mut self, question: Question) -> bool {
        let open = self.open();
        if open.num_asked >= QUESTIONS_MAX {
            return false;
        }
        open.num_asked += 1;
        open.questions.push(question);
        true
    }

    /// The device subscribed to something: it hears what is desired now, and each change.
    pub fn follow(&mut self, channel: Channel) {
        let (device_id, changes) = (self.device_id, Arc::clone(&self.changes));
        let open = self.open();
        match channel {
            Channel::Desired { .. } => open.follows_itself = true,
            Channel::GatewayDesired => open.follows_children = true,
            _ => return,
        }
        if open.listening.is_none() {
            open.listening = Some(changes.listen(device_id));
        }
        open.told.clear();
        open.want_all(device_id);
    }

    /// The gateway says that a child is there.
    pub fn child_came(&mut self, child: Uuid, presence: impl FnOnce() -> Presence) {
        let open = self.open();
        open.children.entry(child).or_insert_with(presence);
        open.told.remove(&child);
        if open.follows_children {
            open.to_read.insert(child);
        }
    }

    /// The gateway says that a child is gone.
    pub fn child_left(&mut self, child: Uuid) {
        let open = self.open();
        open.children.remove(&child);
        open.told.remove(&child);
    }

    /// Waits for something to be said. Cancel-safe. Pends when nothing is asked and nothing is followed.
    pub async fn next(&mut self) -> Said {
        let Self {
            device_id,
            desk,
            open: Some(open),
            ..
        } = self
        else {
            return std::future::pending().await;
        };
        loop {
            open.read_wanted(desk);
            tokio::select! {
                Some(outcome) = open.questions.next(), if !open.questions.is_empty() => {
                    if let Some(said) = open.said(outcome) {
                        return said;
                    }
                }
                changed = heard(open.listening.as_ref()) => open.want(changed, *device_id),
            }
        }
    }
}

async fn heard(listening: Option<&Listening>) -> Changed {
    match listening {
        Some(listening) => listening.next().await,
        None => std::future::pending().await,
    }
}

impl Open {
    fn want(&mut self, changed: Changed, device_id: Uuid) {
        let Changed::These(ids) = changed else {
            self.want_all(device_id);
            return;
        };
        let wanted = ids.into_iter().filter(|id| match *id == device_id {
            true => self.follows_itself,
            false => self.follows_children && self.children.contains_key(id),
        });
        self.to_read.extend(wanted);
    }

    fn want_all(&mut self, device_id: Uuid) {
        if self.follows_itself {
            self.to_read.insert(device_id);
        }
        if self.follows_children {
            self.to_read.extend(self.children.keys());
        }
    }

    /// Begins to read what is wanted, as much as may be read at a time.
    fn read_wanted(&mut self, desk: &Arc<DeviceDesk>) {
        while self.reading.len() < READINGS_MAX {
            let mut wanted = self.to_read.iter().filter(|id| !self.reading.contains(*id));
            let Some(of) = wanted.next().copied() else {
                return;
            };
            self.to_read.remove(&of);
            self.reading.insert(of);
            let desk = Arc::clone(desk);
            self.questions.push(Box::pin(async move {
                loop {
                    match desk.attributes(of).await {
                        Ok(attributes) => return Outcome::Read { of, attributes },
                        Err(error) => debug!(%error, "what is desired of a device cannot be read"),
                    }
                    sleep(READ_AGAIN_AFTER).await;
                }
            }));
        }
    }

    fn said(&mut self, outcome: Outcome) -> Option<Said> {
        match outcome {
            Outcome::Answered(said) => {
                self.num_asked = self.num_asked.saturating_sub(1);
                said
            }
            Outcome::Read { of, attributes } => {
                self.reading.remove(&of);
                let told = self.told.entry(of).or_default();
                let changes = told.changes(&attributes.desired)?;
                Some(Said::Desired { of, changes })
            }
        }
    }
}
