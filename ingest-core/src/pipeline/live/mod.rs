//! The live feed: what has just become durable, and which devices came and went, for those who want to know at once.
//!
//! ```text
//! change  what happened: the events of one journal entry, a connection begun or ended
//! filter  which changes a reader wants
//! ring    the last changes of this run, by position; bounded in bytes
//! hub     the ring, its readers, and how they are woken
//! states  the newest event and the connection of each device
//! ```
//!
//! A position is the run's identity and a number. Every event has one, and so has every connection's begin and end; they
//! are counted from 1 in the order in which this node learnt of them, whether anybody reads them or not.
//!
//! **Invariants.**
//! - An event is offered after it is durable, never before; the events of a device in the order of its sequence numbers.
//! - Whoever offers never waits for a reader: one short lock a frame, and an addition to a counter while nobody reads.
//! - A reader never misses a change without being told how many it missed.
//! - What is offered is shared, not copied, and decoded by those who read it only.
//!
//! **Absent.** Delivery that survives the process: what must be acted on goes through the outbox.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use uuid::Uuid;

use super::clock::now_us;

pub use change::{
    Change, ChangeContent, DeviceConnection, LiveEvent, LiveItem, Outline, Peer, Protocol,
};
pub use filter::Filter;
pub use hub::{Delivery, LiveHub, Position, Positions, Subscription};
pub use states::{DeviceState, DeviceStates, NewestEvent};

mod change;
mod filter;
mod hub;
mod ring;
mod states;
#[cfg(test)]
mod tests;

/// Where the intake and the connections report what happened.
pub struct LiveFeed {
    pub hub: Arc<LiveHub>,
    /// None where nobody keeps them: then following them costs nothing.
    pub states: Option<Arc<DeviceStates>>,
    num_connected: AtomicUsize,
}

impl LiveFeed {
    /// `ring_bytes_max` bounds the memory of what readers may still ask for.
    #[must_use]
    pub fn new(ring_bytes_max: usize, states: Option<Arc<DeviceStates>>) -> Self {
        Self {
            hub: Arc::new(LiveHub::new(ring_bytes_max)),
            states,
            num_connected: AtomicUsize::new(0),
        }
    }

    /// The journal has made this entry durable. `payload` is the encoded entry, shared with the journal.
    pub fn events(&self, payload: &Bytes, outline: Outline) {
        self.hub.offer_events(payload, outline);
        if let Some(states) = &self.states {
            states.events(payload, outline);
        }
    }

    /// A device was welcomed. The connection counts until what this returns is dropped.
    #[must_use]
    pub fn connected(
        self: &Arc<Self>,
        device_id: Uuid,
        protocol: Protocol,
        remote_address: SocketAddr,
    ) -> Presence {
        let connection = Arc::new(DeviceConnection {
            device_id,
            protocol,
            remote_address,
            connected_us: now_us(),
        });
        self.num_connected.fetch_add(1, Ordering::Relaxed);
        if let Some(states) = &self.states {
            states.connected(&connection);
        }
        self.hub
            .offer_connection(ChangeContent::Connected(Arc::clone(&connection)));
        Presence {
            feed: Arc::clone(self),
            connection,
        }
    }

    /// Devices that have been welcomed and have not gone.
    #[must_use]
    pub fn num_connected(&self) -> usize {
        self.num_connected.load(Ordering::Relaxed)
    }
}

/// One welcomed device; its drop is the end of the connection.
pub struct Presence {
    feed: Arc<LiveFeed>,
    connection: Arc<DeviceConnection>,
}

impl Presence {
    /// The device said something that is no event.
    pub fn seen(&self) {
        if let Some(states) = &self.feed.states {
            states.seen(&self.connection, now_us());
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.feed.num_connected.fetch_sub(1, Ordering::Relaxed);
        if let Some(states) = &self.feed.states {
            states.disconnected(&self.connection);
        }
        self.feed.hub.offer_connection(ChangeContent::Disconnected {
            connection: Arc::clone(&self.connection),
            time_us: now_us(),
        });
    }
}
