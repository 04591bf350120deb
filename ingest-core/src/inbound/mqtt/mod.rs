//! Devices that speak MQTT 3.1.1 or 5, over TCP, TLS or WebSocket. An endpoint for devices, not a broker: a client is a device, publishes
//! what it has to say, and hears what is said to it.
//!
//! ```text
//! codec         bytes <-> control packets, no I/O
//! topics        which topics there are, which filters a device may subscribe to, topic aliases
//! greeting      how a connection begins: CONNECT, the device taken over from an older connection, CONNACK
//! connection    one device: packets in, acknowledgements and commands out, until one side ends it
//! publications  what becomes of a PUBLISH: events, a result, or a dead letter
//! others        what devices publish in forms that are not ours
//! in_flight     publications that wait for the journal, and their PUBACKs in order
//! deliveries    commands on their way to the device; firmware: in the words of Tasmota, Shelly and Zigbee2MQTT
//! dialogue      what it asks and is told beside them
//! thingsboard   the topics of ThingsBoard's device API; device_api: what becomes of what is published to them
//! newcomer      a device that has no token yet and is let in with a key
//! end           how a connection ends, and its last words
//! ```
//!
//! **Topics.** `hse/v1/events` takes an event, a list of events, or `{"epoch", "first_seq", "events"}`, in the JSON form of HDP/1.
//! `hse/v1/commands/{request_id}` brings a command to who subscribed to `hse/v1/commands/+`; its result goes to
//! `hse/v1/results/{request_id}`. ThingsBoard's device API is spoken beside them.
//!
//! **Invariants.**
//! - PUBACK says durable, and PUBACKs leave in the order in which publications came. Numbered events are stored exactly once;
//!   others once for each time they were published, a DUP of what is under way counting for nothing.
//! - What cannot be understood is kept as a dead letter before it is acknowledged. Nothing is dropped.
//! - What the journal has no room for is not acknowledged: it is held, and the socket is not read meanwhile.
//! - A stranger makes us hold a CONNECT of `CONNECT_BYTES_MAX`, a device one packet of `frame_bytes_max` and
//!   `inflight_frames_max` publications on their way to the disk.
//!
//! **Absent** (ADR 23). QoS 2, sessions that outlive their connection, retained messages, other clients' topics.

pub mod codec;
mod connection;
mod deliveries;
mod device_api;
mod dialogue;
mod end;
mod firmware;
mod greeting;
mod in_flight;
mod newcomer;
mod others;
mod publications;
mod thingsboard;
mod topics;

pub use connection::serve;
pub use newcomer::provision;
pub use others::read_any;
pub use topics::Topic;
