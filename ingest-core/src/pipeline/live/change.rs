//! What happened: the events of one journal entry, or a connection's begin or end.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::filter::Filter;
use crate::event::Event;
use crate::frame::EventIter;
use crate::pipeline::entry::{Entry, Rejected, Source};

/// By which door a device came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Hdp,
    HdpTls,
    WebSocket,
    WebSocketTls,
    Mqtt,
    MqttTls,
    MqttWebSocket,
    MqttWebSocketTls,
    /// The core connects to it.
    ModbusTcp,
    ModbusRtuOverTcp,
    Http,
    HttpTls,
}

impl Protocol {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hdp => "hdp",
            Self::HdpTls => "hdp-tls",
            Self::WebSocket => "websocket",
            Self::WebSocketTls => "websocket-tls",
            Self::Mqtt => "mqtt",
            Self::MqttTls => "mqtt-tls",
            Self::MqttWebSocket => "mqtt-websocket",
            Self::MqttWebSocketTls => "mqtt-websocket-tls",
            Self::ModbusTcp => "modbus-tcp",
            Self::ModbusRtuOverTcp => "modbus-rtu-over-tcp",
            Self::Http => "http",
            Self::HttpTls => "http-tls",
        }
    }
}

/// Where a connection comes from, and by which door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    pub protocol: Protocol,
}

/// One welcomed device's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConnection {
    pub device_id: Uuid,
    pub protocol: Protocol,
    pub remote_address: SocketAddr,
    /// Microseconds since 1970, by the core's clock.
    pub connected_us: i64,
}

/// What was noticed of an entry's events while they were checked, so that nobody need decode them to skip them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outline {
    /// All are the connected device's own. `newest_offset` is where in the entry the newest one begins that was not
    /// rejected: the latest by its time, of several the last.
    Own { newest_offset: Option<usize> },
    /// Other devices' events may be among them.
    Mixed,
}

#[derive(Debug, Clone)]
pub enum ChangeContent {
    /// An encoded [`Entry`].
    Events {
        payload: Bytes,
        outline: Outline,
    },
    Connected(Arc<DeviceConnection>),
    Disconnected {
        connection: Arc<DeviceConnection>,
        time_us: i64,
    },
}

/// One change in the ring; cheap to clone.
#[derive(Debug, Clone)]
pub struct Change {
    /// The number of its first item.
    pub number: u64,
    /// How many numbers it takes: one for each event, the rejected ones too.
    pub num_items: u64,
    /// The connected device.
    pub device_id: Uuid,
    pub content: ChangeContent,
}

/// An event as a reader gets it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LiveEvent<'a> {
    /// Whose event it is.
    pub device_id: Uuid,
    /// The device's time, or that of the receipt where it said none.
    pub time_us: i64,
    pub received_us: i64,
    pub source: Source,
    pub event: Event<'a>,
}

/// What a change consists of.
#[derive(Debug, Clone, Copy)]
pub enum LiveItem<'a> {
    Event(LiveEvent<'a>),
    Connected(&'a DeviceConnection),
    Disconnected {
        connection: &'a DeviceConnection,
        time_us: i64,
    },
}

impl Change {
    /// The number behind its last item.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.number.saturating_add(self.num_items)
    }

    /// What of it `filter` takes, from the number `from` on, each with its number.
    pub fn items<'a>(
        &'a self,
        filter: &'a Filter,
        from: u64,
    ) -> impl Iterator<Item = (u64, LiveItem<'a>)> {
        let (events, connection) = match &self.content {
            ChangeContent::Events { payload, .. } => (Some(Events::of(payload)), None),
            ChangeContent::Connected(connection) => (None, Some(LiveItem::Connected(connection))),
            ChangeContent::Disconnected {
                connection,
                time_us,
            } => {
                let time_us = *time_us;
                let item = LiveItem::Disconnected {
                    connection,
                    time_us,
                };
                (None, Some(item))
            }
        };
        let events = events
            .into_iter()
            .flatten()
            .map(|(index, event)| (self.number + u64::from(index), LiveItem::Event(event)));
        let connection = connection.map(|connection| (self.number, connection));
        events
            .chain(connection)
            .filter(move |(number, item)| *number >= from && filter.takes(item))
    }
}

/// The events of an encoded entry that are not rejected, each with its index.
pub fn live_events(payload: &[u8]) -> impl Iterator<Item = (u32, LiveEvent<'_>)> {
    Events::of(payload)
}

struct Events<'a> {
    // None for an entry that cannot be decoded, which the journal would not have been given.
    entry: Option<Entry<'a>>,
    events: EventIter<'a>,
    next_index: u32,
    num_rejected_seen: usize,
}

impl<'a> Events<'a> {
    fn of(payload: &'a [u8]) -> Self {
        let entry = Entry::decode(payload).ok();
        let (events, num_events) = entry
            .as_ref()
            .map_or((&[][..], 0), |entry| (entry.events, entry.num_events));
        Self {
            events: EventIter::new(events, num_events),
            entry,
            next_index: 0,
            num_rejected_seen: 0,
        }
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = (u32, LiveEvent<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entry.as_ref()?;
        loop {
            let event = self.events.next()?.ok()?.event;
            let index = self.next_index;
            self.next_index += 1;
            let verdict = entry.rejected.get(self.num_rejected_seen);
            if verdict.is_some_and(
                |Rejected {
                     index: rejected, ..
                 }| *rejected == index,
            ) {
                self.num_rejected_seen += 1;
                continue;
            }
            let event = LiveEvent {
                device_id: event.device_id.unwrap_or(entry.device_id),
                time_us: event.time_us.unwrap_or(entry.received_us),
                received_us: entry.received_us,
                source: entry.source,
                event,
            };
            return Some((index, event));
        }
    }
}
