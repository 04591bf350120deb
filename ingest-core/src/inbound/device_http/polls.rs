//! Devices that ask for their commands again and again. Between two questions a device counts as connected, for a while: its
//! commands wait for the next one, and its results are known by their numbers.
//!
//! **Invariant.** As for any other device there is one connection: it takes the device over, and is taken over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::inbound::numbered::Numbered;
use crate::node::Node;
use crate::pipeline::commands::{Command, CommandLink};
use crate::pipeline::live::{Peer, Presence};
use crate::pipeline::sessions::{EndReason, Session, TakeOverError};
use crate::pipeline::window::Watermark;

/// A device that has not asked for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// One device, from its first question on.
pub struct Polled {
    device_id: Uuid,
    state: Mutex<State>,
    /// It is not there any more.
    is_over: CancellationToken,
    // Dropped in this order, see `inbound::greeting`.
    pub commands: CommandLink,
    _presence: Presence,
    session: Session,
}

struct State {
    /// The later one of now and when the question that waits will be over.
    last_seen: Instant,
    numbered: Numbered,
}

/// All devices that ask.
#[derive(Default)]
pub struct Polls {
    devices: Mutex<HashMap<Uuid, Arc<Polled>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Polls {
    /// The device that asks, and has shown its token, connected.
    ///
    /// # Errors
    /// Somebody else has it, or it lost its right, while it waited.
    pub async fn connect(
        self: &Arc<Self>,
        node: &Arc<Node>,
        device_id: Uuid,
        token: &str,
        known: Watermark,
        peer: Peer,
    ) -> Result<Arc<Polled>, TakeOverError> {
        if let Some(polled) = self.of(device_id) {
            return Ok(polled);
        }
        let (session, _) = node.sessions.take_over(device_id, None, known).await?;
        // Once more: a revocation between the first look and the take-over found no session to end.
        if node.registry.authenticate(device_id, token).is_err() {
            return Err(TakeOverError::Ended(EndReason::Revoked));
        }
        let polled = Arc::new(Polled {
            device_id,
            state: Mutex::new(State {
                last_seen: Instant::now(),
                numbered: Numbered::default(),
            }),
            is_over: CancellationToken::new(),
            commands: node.commands.connect(device_id, peer),
            _presence: node.live.connected(device_id, peer.protocol, peer.address),
            session,
        });
        lock(&self.devices).insert(device_id, Arc::clone(&polled));
        let (polls, node, kept) = (Arc::clone(self), Arc::clone(node), Arc::clone(&polled));
        tokio::spawn(async move { polls.forget_when_gone(&node, kept).await });
        Ok(polled)
    }

    /// The device, if it has asked for commands lately.
    pub fn of(&self, device_id: Uuid) -> Option<Arc<Polled>> {
        lock(&self.devices).get(&device_id).cloned()
    }

    async fn forget_when_gone(&self, node: &Node, polled: Arc<Polled>) {
        loop {
            let gone_at = lock(&polled.state).last_seen + GONE_AFTER;
            if gone_at <= Instant::now() {
                break;
            }
            tokio::select! {
                _ = polled.session.end.received() => break,
                () = polled.is_over.cancelled() => break,
                () = node.stopping.cancelled() => break,
                () = sleep_until(gone_at) => {}
            }
        }
        self.forget(&polled);
    }

    /// The device is not there any more, as far as it is still this one.
    fn forget(&self, polled: &Arc<Polled>) {
        polled.is_over.cancel();
        let mut devices = lock(&self.devices);
        let current = devices.get(&polled.device_id);
        if current.is_some_and(|current| Arc::ptr_eq(current, polled)) {
            devices.remove(&polled.device_id);
        }
    }
}

impl Polled {
    /// A command and its number; none when none comes until `deadline`, or when the device is somebody else's now.
    pub async fn next_command(&self, node: &Node, deadline: Instant) -> Option<(u32, Command)> {
        lock(&self.state).last_seen = deadline;
        let command = tokio::select! {
            biased;
            _ = self.session.end.received() => None,
            () = node.stopping.cancelled() => None,
            command = self.commands.next() => Some(command),
            () = sleep_until(deadline) => None,
        };
        let mut state = lock(&self.state);
        state.last_seen = Instant::now();
        command.map(|command| (state.numbered.note(&command.request_id), command))
    }

    /// The command that was sent under a number.
    pub fn request_of(&self, number: &str) -> Option<Arc<str>> {
        let mut state = lock(&self.state);
        state.last_seen = Instant::now();
        state.numbered.request_of(number)
    }
}
