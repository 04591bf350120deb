//! Commands on their way to a device, and what waits for its results.
//!
//! A connection holds its device's [`CommandLink`]; a caller hands a command to [`Commands::send`] and hears of it through
//! its listener: `SENT`, `DELIVERED`, and one end. A result is matched by (connection, request id), and only for a command
//! that this connection was sent whole: one that is late, comes twice, or belongs to another changes nothing here. It is kept in the
//! journal all the same (see `results`).
//!
//! Invariants:
//! - each listener hears of each state at most once, in order, and of exactly one end, as long as it listens;
//! - `OFFLINE` says that not a byte was sent; a command of which a byte may have been sent never ends so;
//! - deadlines are of the monotonic clock; a wall clock that is set changes none;
//! - commands of one call reach a device in their order, or the later ones not at all;
//! - what waits is bounded for each device and for the node (`config`).
//!
//! A command that is sent again under its request id while it is waited for, or just was, is not sent to the device twice:
//! the caller joins those who wait, or hears how it ended.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use uuid::Uuid;

use super::live::Peer;
use super::results::Outcome;
use crate::config::{COMMANDS_MAX, COMMANDS_PER_DEVICE_MAX, LISTENERS_PER_COMMAND_MAX};
use crate::metrics::{Kind, Metrics};

pub use progress::{Command, CommandState, Progress};

mod progress;
#[cfg(test)]
mod tests;

/// A listener hears of so many states of one command at most; its channel must hold them all.
pub const STATES_PER_COMMAND_MAX: usize = 3;
/// Ends that a connection remembers, for callers that ask again.
const ENDS_KEPT_MAX: usize = 32;
/// With nothing to wait for, the deadlines are looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// Why a command was not taken. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    #[error("the device is not connected to this node")]
    Offline,
    #[error("{COMMANDS_PER_DEVICE_MAX} commands wait for this device already")]
    DeviceFull,
    #[error("{COMMANDS_MAX} commands wait on this node already")]
    NodeFull,
    #[error("{LISTENERS_PER_COMMAND_MAX} callers wait for this command already")]
    ListenersFull,
}

/// Where the commands of one call go: for each device to the connection that it had at the first of them. Once one was not
/// taken the later ones for that device are not either, for the same reason, so that they are never out of order.
#[derive(Default)]
pub struct Routes(HashMap<Uuid, Result<Arc<Link>, NotSent>>);

/// Orders deadlines; the number tells equal ones apart.
type DeadlineKey = (Instant, u64);

/// Whose deadline it is.
type Due = (Weak<Link>, Arc<str>);

/// All connected devices of a node, and what waits for them.
pub struct Commands {
    links: Mutex<HashMap<Uuid, Arc<Link>, foldhash::fast::RandomState>>,
    deadlines: Mutex<BTreeMap<DeadlineKey, Due>>,
    is_earlier: Notify,
    next_number: AtomicU64,
    free: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

struct Link {
    device_id: Uuid,
    peer: Peer,
    state: Mutex<LinkState>,
    has_work: Arc<Notify>,
}

#[derive(Default)]
struct LinkState {
    is_closed: bool,
    /// Not written yet, in the order in which they came.
    unwritten: VecDeque<Arc<str>>,
    waiting: HashMap<Arc<str>, Waiting, foldhash::fast::RandomState>,
    ended: VecDeque<Progress>,
}

struct Waiting {
    /// Until it is written.
    command: Option<Command>,
    is_delivered: bool,
    since: Instant,
    key: DeadlineKey,
    listeners: Vec<mpsc::Sender<Progress>>,
    _permit: OwnedSemaphorePermit,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Commands {
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            links: Mutex::default(),
            deadlines: Mutex::default(),
            is_earlier: Notify::new(),
            next_number: AtomicU64::new(0),
            free: Arc::new(Semaphore::new(COMMANDS_MAX)),
            metrics,
        }
    }

    /// A device's connection begins to take commands. It has the device's window, so there is no other one.
    #[must_use]
    pub fn connect(self: &Arc<Self>, device_id: Uuid, peer: Peer) -> CommandLink {
        self.connect_waking(device_id, peer, Arc::default())
    }

    /// As [`Self::connect`], for who serves several devices: `has_work` is notified when one of them has a command to be
    /// taken with [`CommandLink::try_next`].
    #[must_use]
    pub fn connect_waking(
        self: &Arc<Self>,
        device_id: Uuid,
        peer: Peer,
        has_work: Arc<Notify>,
    ) -> CommandLink {
        let link = Arc::new(Link {
            device_id,
            peer,
            state: Mutex::default(),
            has_work,
        });
        lock(&self.links).insert(device_id, Arc::clone(&link));
        CommandLink {
            commands: Arc::clone(self),
            link,
        }
    }

    /// How a device is connected, if it is.
    #[must_use]
    pub fn peer_of(&self, device_id: Uuid) -> Option<Peer> {
        lock(&self.links).get(&device_id).map(|link| link.peer)
    }

    #[must_use]
    pub fn num_waiting(&self) -> usize {
        COMMANDS_MAX - self.free.available_permits()
    }

    /// Takes a command for its device's connection. `listener` hears of it from `SENT` on; its channel must have room for
    /// [`STATES_PER_COMMAND_MAX`] messages of each command that it is used for. `routes` are the call's.
    ///
    /// # Errors
    /// [`NotSent`]; the listener then hears nothing.
    pub fn send(
        &self,
        command: Command,
        listener: &mpsc::Sender<Progress>,
        routes: &mut Routes,
    ) -> Result<(), NotSent> {
        let device_id = command.device_id;
        let route = routes.0.entry(device_id).or_insert_with(|| {
            let link = lock(&self.links).get(&device_id).cloned();
            link.ok_or(NotSent::Offline)
        });
        let link = Arc::clone(route.as_ref().map_err(|refusal| *refusal)?);
        let taken = self.send_by(&link, command, listener);
        if let Err(refusal) = taken {
            *route = Err(refusal);
        }
        taken
    }

    fn send_by(
        &self,
        link: &Arc<Link>,
        command: Command,
        listener: &mpsc::Sender<Progress>,
    ) -> Result<(), NotSent> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let key = (command.deadline, number);
        let request_id = Arc::clone(&command.request_id);
        if link.take(command, key, &self.free, listener)? {
            let mut deadlines = lock(&self.deadlines);
            deadlines.insert(key, (Arc::downgrade(link), request_id));
            if deadlines.first_key_value().map(|(first, _)| *first) == Some(key) {
                self.is_earlier.notify_one();
            }
        }
        Ok(())
    }

    /// Ends what has waited too long. Runs for as long as the node does.
    pub async fn keep_deadlines(&self) {
        loop {
            let earlier = self.is_earlier.notified();
            let next = self.expire(Instant::now());
            tokio::select! {
                () = earlier => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Ends what was to be answered by `now`. Returns when to look again.
    fn expire(&self, now: Instant) -> Instant {
        loop {
            let (key, (link, request_id)) = {
                let mut deadlines = lock(&self.deadlines);
                let Some(first) = deadlines.first_entry() else {
                    return now + LOOK_EVERY;
                };
                if first.key().0 > now {
                    return first.key().0;
                }
                first.remove_entry()
            };
            let Some(link) = link.upgrade() else {
                continue;
            };
            let due = lock(&link.state).remove(&request_id, |w| w.key == key);
            if let Some(waiting) = due {
                let message = if waiting.command.is_some() {
                    "no result before the deadline; the command was not written to the device"
                } else {
                    "no result before the deadline; the device may have done it all the same"
                };
                let state = CommandState::TimedOut;
                let end = Progress::new(link.device_id, &request_id, state, message);
                self.end(&link, waiting, end);
            }
        }
    }

    /// Tells those who wait how it ended.
    fn end(&self, link: &Link, waiting: Waiting, end: Progress) {
        lock(&self.deadlines).remove(&waiting.key);
        self.count(end.state);
        for listener in &waiting.listeners {
            // One that does not listen any more need not be told.
            let _ = listener.try_send(end.clone());
        }
        lock(&link.state).remember(end);
    }

    /// Counts the end of a command, of one that was never taken too.
    pub fn count(&self, state: CommandState) {
        let kind = state.as_str();
        self.metrics.commands.get_or_create(&Kind { kind }).inc();
    }
}

impl Link {
    /// True when the command was taken; false when the caller joined one of the same name.
    fn take(
        &self,
        command: Command,
        key: DeadlineKey,
        free: &Arc<Semaphore>,
        listener: &mpsc::Sender<Progress>,
    ) -> Result<bool, NotSent> {
        let mut state = lock(&self.state);
        if state.is_closed {
            return Err(NotSent::Offline);
        }
        let request_id = Arc::clone(&command.request_id);
        let tell = |state, message: &str| {
            let progress = Progress::new(self.device_id, &request_id, state, message);
            let _ = listener.try_send(progress);
        };
        if let Some(end) = state.ended.iter().find(|end| end.request_id == request_id) {
            let _ = listener.try_send(end.clone());
            return Ok(false);
        }
        if let Some(waiting) = state.waiting.get_mut(&request_id) {
            waiting.listeners.retain(|listener| !listener.is_closed());
            if waiting.listeners.len() >= LISTENERS_PER_COMMAND_MAX {
                return Err(NotSent::ListenersFull);
            }
            tell(CommandState::Sent, "");
            if waiting.is_delivered {
                tell(CommandState::Delivered, "");
            }
            waiting.listeners.push(listener.clone());
            return Ok(false);
        }
        if state.waiting.len() >= COMMANDS_PER_DEVICE_MAX {
            return Err(NotSent::DeviceFull);
        }
        let permit = Arc::clone(free).try_acquire_owned();
        let permit = permit.map_err(|_| NotSent::NodeFull)?;
        tell(CommandState::Sent, "");
        let waiting = Waiting {
            command: Some(command),
            is_delivered: false,
            since: Instant::now(),
            key,
            listeners: vec![listener.clone()],
            _permit: permit,
        };
        state.unwritten.push_back(Arc::clone(&request_id));
        state.waiting.insert(request_id, waiting);
        self.has_work.notify_one();
        Ok(true)
    }

    fn next_unwritten(&self) -> Option<Command> {
        let mut state = lock(&self.state);
        let request_id = state.unwritten.pop_front()?;
        state.waiting.get_mut(&request_id)?.command.take()
    }
}

impl LinkState {
    fn remove(
        &mut self,
        request_id: &str,
        is_meant: impl FnOnce(&Waiting) -> bool,
    ) -> Option<Waiting> {
        if !self.waiting.get(request_id).is_some_and(is_meant) {
            return None;
        }
        // So that what is unwritten is bounded as what waits is.
        self.unwritten.retain(|id| **id != *request_id);
        self.waiting.remove(request_id)
    }

    fn remember(&mut self, end: Progress) {
        if self.is_closed {
            return;
        }
        if self.ended.len() >= ENDS_KEPT_MAX {
            self.ended.pop_front();
        }
        // A connection that remembers many large answers would cost more than it is worth.
        self.ended.push_back(Progress { data: None, ..end });
    }
}

/// The connection's end of its device's commands. When it is dropped, what waits ends.
pub struct CommandLink {
    commands: Arc<Commands>,
    link: Arc<Link>,
}

impl CommandLink {
    /// Waits for a command to be written. Cancel-safe.
    pub async fn next(&self) -> Command {
        loop {
            let notified = self.link.has_work.notified();
            if let Some(command) = self.try_next() {
                return command;
            }
            notified.await;
        }
    }

    /// Is there a command to be written?
    #[must_use]
    pub fn has_next(&self) -> bool {
        !lock(&self.link.state).unwritten.is_empty()
    }

    /// A command to be written, if there is one.
    #[must_use]
    pub fn try_next(&self) -> Option<Command> {
        self.link.next_unwritten()
    }

    /// The command was written to the connection whole.
    pub fn note_delivered(&self, request_id: &Arc<str>) {
        let mut state = lock(&self.link.state);
        // It may have ended meanwhile.
        if let Some(waiting) = state.waiting.get_mut(request_id) {
            waiting.is_delivered = true;
            let state = CommandState::Delivered;
            let progress = Progress::new(self.link.device_id, request_id, state, "");
            for listener in &waiting.listeners {
                let _ = listener.try_send(progress.clone());
            }
        }
    }

    /// The command came to nothing that is known of, and may be tried again.
    pub fn refuse(&self, request_id: &Arc<str>, message: &str) {
        self.end_as(CommandState::Failed, request_id, message);
    }

    /// Nothing of the command was written, and nothing of it ever will be. `message` begins with a stable code.
    pub fn reject(&self, request_id: &Arc<str>, message: &str) {
        self.end_as(CommandState::Rejected, request_id, message);
    }

    fn end_as(&self, state: CommandState, request_id: &Arc<str>, message: &str) {
        let taken = lock(&self.link.state).remove(request_id, |_| true);
        if let Some(waiting) = taken {
            let end = Progress::new(self.link.device_id, request_id, state, message);
            self.commands.end(&self.link, waiting, end);
        }
    }

    /// The device has answered. False when nobody waits for that answer.
    pub fn complete(&self, outcome: &Outcome<'_>) -> bool {
        self.end_with(outcome, |waiting| waiting.is_delivered)
    }

    /// Who speaks for the device has answered for it, without having written the command to it. As [`Self::complete`].
    pub fn answer_unwritten(&self, outcome: &Outcome<'_>) -> bool {
        self.end_with(outcome, |_| true)
    }

    fn end_with(&self, outcome: &Outcome<'_>, is_meant: impl FnOnce(&Waiting) -> bool) -> bool {
        let taken = lock(&self.link.state).remove(outcome.request_id, is_meant);
        let Some(waiting) = taken else {
            return false;
        };
        let metrics = &self.commands.metrics;
        let waited = waiting.since.elapsed().as_secs_f64();
        metrics.command_round_trip.observe(waited);
        let state = match outcome.status {
            0 => CommandState::Succeeded,
            _ => CommandState::Failed,
        };
        let request_id = Arc::from(outcome.request_id);
        let message = outcome.message.unwrap_or_default();
        let end = Progress {
            status: outcome.status,
            data: outcome.data.map(Bytes::copy_from_slice),
            ..Progress::new(self.link.device_id, &request_id, state, message)
        };
        self.commands.end(&self.link, waiting, end);
        true
    }
}

impl Drop for CommandLink {
    fn drop(&mut self) {
        let waiting = {
            let mut state = lock(&self.link.state);
            state.is_closed = true;
            state.unwritten.clear();
            std::mem::take(&mut state.waiting)
        };
        {
            let mut links = lock(&self.commands.links);
            let current = links.get(&self.link.device_id);
            if current.is_some_and(|current| Arc::ptr_eq(current, &self.link)) {
                links.remove(&self.link.device_id);
            }
        }
        for (request_id, waiting) in waiting {
            let (state, message) = if waiting.command.is_some() {
                let message = "the connection ended before anything of the command was written";
                (CommandState::Offline, message)
            } else {
                let message =
                    "the connection ended before a result came; the device may have done it";
                (CommandState::Failed, message)
            };
            let end = Progress::new(self.link.device_id, &request_id, state, message);
            self.commands.end(&self.link, waiting, end);
        }
    }
}
