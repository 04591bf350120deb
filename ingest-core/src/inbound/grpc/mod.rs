//! The control plane's door: the service of `proto/devices.proto`, with health and reflection beside it.
//!
//! ```text
//! door      accepts, counts, sets up TLS; lets go of who does not show in time that it is known
//! gate      who may call: the service token or a client certificate, and how many at a time
//! server    what is served, with which limits, until the node stops
//! service   the methods, a file for each group of them:
//!           notify, commands, reads, changes
//! values    MessagePack and JSON <-> the values of the wire
//! ```
//!
//! **Invariants.**
//! - A stranger costs a connection of a bounded number for a bounded time; no call of a stranger is decoded.
//! - What a caller can make the node hold is bounded: by message, by call, and by node (the constants here).
//! - A call ends when the node stops: with its answer, or with UNAVAILABLE.
//!
//! **Absent.** Who may do what: whoever has the token speaks for the control plane, which has decided that.

use std::time::Duration;

mod changes;
mod commands;
mod door;
mod gate;
mod notify;
mod reads;
mod server;
mod service;
mod values;

pub use door::{GrpcTls, GrpcTlsError, grpc_tls};
pub use server::GrpcServer;

/// The messages and the service, made from `proto/devices.proto`.
#[expect(
    clippy::too_many_lines,
    reason = "generated: one function hands out the calls of all methods"
)]
pub mod wire {
    tonic::include_proto!("devices");
    /// For reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/devices.bin"));
}

/// Connections of the control plane, in all and from one address. Each process of it needs one.
const CONNECTIONS_MAX: usize = 256;
const CONNECTIONS_PER_ADDRESS_MAX: usize = 128;
/// A connection that has not shown by then that it is known, by a certificate or a call with the token, is let go.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls under way at a time, on one connection and on the node.
const CALLS_PER_CONNECTION_MAX: u32 = 256;
const CALLS_MAX: usize = 512;
/// Of a request and of an answer; what gRPC libraries take unless told otherwise.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
const HEADER_BYTES_MAX: u32 = 8 << 10;
/// A peer that is silent for the one is asked, and is gone when it does not answer within the other.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Subscribers of a node. A process of the control plane is one, however many screens it serves.
const SUBSCRIBERS_MAX: usize = 64;
/// An answer about events waits no longer for the disk; whether they are durable is then not known.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(30);
