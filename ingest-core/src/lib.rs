//! The data plane of HSE: from a device's socket to a durable, stored event.
//!
//! The way of an event, and the modules in reading order:
//!
//! ```text
//! socket -> inbound::wire -> frame -> inbound::connection -> pipeline::intake -> journal (write + fdatasync) -> ACK
//!                                                                                   |
//!           database <- outbound::postgres (one transaction) <- pipeline::drain <---+
//! ```
//!
//! - [`event`]: what a device says, and what may be said;
//! - [`frame`]: HDP/1, bytes in and values out;
//! - [`journal`]: bytes in, durable bytes out; knows neither frames nor events;
//! - [`pipeline`]: the recipe frame -> durable -> acknowledged -> stored, with its ports;
//! - [`inbound`], [`outbound`]: sockets; the database;
//! - [`node`], [`startup`], [`shutdown`]: what one process is made of, how it starts, and in which order it stops;
//! - [`config`], [`metrics`]: every limit; every metric's name;
//! - [`scheduling`]: how soon a thread gets a busy processor;
//! - [`tls`]: certificates from files, and TLS towards servers;
//! - `python`: the only file that knows Python.
//!
//! Promise: what was acknowledged is stored exactly once, whatever is killed or cut in between. Each module states the
//! invariants it keeps for that.

pub mod config;
pub mod event;
pub mod frame;
pub mod inbound;
pub mod journal;
pub mod metrics;
pub mod node;
pub mod outbound;
pub mod pipeline;
#[cfg(feature = "python")]
mod python;
pub mod scheduling;
pub mod shutdown;
pub mod startup;
pub mod tls;
