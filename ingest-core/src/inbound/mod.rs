//! The doors of the data plane.
//!
//! ```text
//! listener    accepts, counts, sets up TLS
//! buffered    bytes in and out of a socket
//! wire        bytes <-> frames, for both forms of HDP/1
//! connection  one device: HELLO, then events in and acknowledgements out, and commands with their results
//! greeting    how a connection begins
//! awaited     the journal's answers that a connection waits for
//! end         how a connection ends, and its last words
//! websocket   the same bytes within messages
//! mqtt        devices that speak MQTT
//! modbus      devices that are asked
//! device_http devices that speak HTTP
//! broker      the other way round: a client of a broker that a site keeps
//! formats     what devices say in forms that are not ours, as events
//! numbered    commands under numbers, for firmware that knows them so
//! unnumbered  those events, or a dead letter, on their way into the journal
//! grpc        the control plane's door
//! http        health and metrics
//! ```
//!
//! Invariants: what a peer can make us hold is bounded before and after it said who it is; a slow or hostile peer
//! costs its own task and buffers and nobody else's time.

mod awaited;
pub mod broker;
mod buffered;
pub mod connection;
pub mod device_http;
pub mod end;
pub mod formats;
mod greeting;
pub mod grpc;
pub mod http;
pub mod listener;
pub mod modbus;
pub mod mqtt;
mod numbered;
mod unnumbered;
pub mod websocket;
pub mod wire;
