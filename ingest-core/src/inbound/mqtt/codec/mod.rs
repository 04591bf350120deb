//! MQTT control packets: bytes in, values out, no I/O. MQTT 3.1.1 and 5.0 (OASIS), the packets that a device endpoint needs.
//!
//! ```text
//! reader      integers, strings and binary data from the front of borrowed bytes
//! properties  the properties of version 5: which may stand where, each once
//! packet      what a client says
//! decode      bytes -> packet
//! encode      what the server says -> bytes
//! reason      reason codes, and what version 3.1.1 has in their place
//! ```
//!
//! **The way of the bytes.** [`split`] cuts a packet off a buffer, [`decode_connect`] makes the first one a [`Connect`], and
//! [`decode`] each later one a [`Packet`] of the version that CONNECT named.
//!
//! **Invariants.**
//! - A packet's length is refused from its fixed header: nothing is read or reserved for it.
//! - Decoding allocates nothing and never panics; a packet borrows from the bytes it came in.
//! - What is decoded is well-formed to its last byte: properties nobody asks for are checked too.
//! - A topic name has no wildcard and no string a NUL character.
//!
//! **Absent.** QoS 2: PUBREC, PUBREL and PUBCOMP are a protocol error. AUTH: enhanced authentication is refused in CONNECT.

mod decode;
mod encode;
mod packet;
mod properties;
mod reader;
mod reason;
#[cfg(test)]
mod tests;

pub use decode::{CodecError, RawPacket, decode, decode_connect, split};
pub use encode::{
    Connack, Publication, Words, write_connack, write_disconnect, write_pingresp, write_puback,
    write_publish, write_suback, write_unsuback,
};
pub use packet::{
    Connect, Packet, Publish, Qos, Subscribe, Subscription, Unsubscribe, Version, Will,
};
pub use reason::ReasonCode;
