//! The doors of the data plane.
//!
//! ```text
//! listener    accepts, counts, sets up TLS
//! wire        bytes <-> frames, for both forms of HDP/1
//! connection  one device: HELLO, then events in and acknowledgements out
//! end         how a connection ends, and its last words
//! websocket   the same bytes within messages
//! http        health and metrics
//! ```
//!
//! Invariants: what a peer can make us hold is bounded before and after it said who it is; a slow or hostile peer
//! costs its own task and buffers and nobody else's time.

pub mod connection;
pub mod end;
pub mod http;
pub mod listener;
pub mod websocket;
pub mod wire;
