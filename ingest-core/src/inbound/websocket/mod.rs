//! Devices that speak HDP/1 through WebSocket (RFC 6455), path `/v1/device`, or MQTT, path `/mqtt`.
//!
//! ```text
//! upgrade   the HTTP request that begins it: who may, and what others are answered
//! messages  bytes of the socket <-> bytes of the protocol, no I/O
//! stream    both as one stream, which `connection::serve` and `mqtt::serve` take for a socket
//! ```
//!
//! The bytes within binary messages are the frames of a TCP connection, and each text message is one or more lines of the
//! JSON form; of MQTT all messages are binary, and cut anywhere. So there is one set of rules, limits and deadlines for all transports, and messages are not assembled: what
//! arrives is unmasked into the connection's buffer, which knows how long a frame may be before and after HELLO.
//! `tungstenite`, which assembles, takes its limits once for the whole connection, and reserves what a header declares.
//!
//! **Invariants.**
//! - A binary message of HDP/1 ends where a frame ends; text and binary do not mix on a connection.
//! - An idle connection holds no buffer.
//! - What is written to the socket is whole WebSocket frames in order, a PONG among them never within another.
//!
//! **Absent.** Extensions (compression): offers are ignored, as are subprotocols other than `mqtt`. WebSocket PINGs are answered and are no sign
//! of life, as TCP's keepalive is none: a device that has nothing to say sends PING frames of the protocol.

pub mod messages;
mod stream;
#[cfg(test)]
mod tests;
mod upgrade;

pub use upgrade::serve_upgrade;
