//! Devices that are asked: Modbus over TCP, and the RTU form over TCP as serial gateways speak it. The core is the client; which
//! registers hold what is said by the device's profile (docs/modbus.md).
//!
//! ```text
//! poller    which lines there are
//! line      one endpoint: its slaves in turn, commands between them, and what they say into the journal
//! turn      who is asked next, and how long the line waits for him
//! slave     one device: how it is asked, its being connected
//! plan      registers that are asked for together
//! value     registers <-> values
//! telling   what of a reading becomes events, and what a dead letter
//! writing   commands
//! link      a connection, made anew
//! endpoint  where it leads, and the codec
//! networks  where it may lead
//! ```
//!
//! **Invariants.**
//! - A device is asked by one node, by one line; a line waits for nobody but its own slaves.
//! - A slave that does not answer delays no other one (see `turn` for what is meant by that).
//! - After any failure a connection is made anew: no reply is taken for that of another request.
//! - What is read goes the way of any event. A value that cannot be one is a dead letter; nothing is guessed.
//! - A command ends as what the device was seen to do, or says that nobody knows.
//!
//! **Absent.** A parser of our own; serial lines of this machine; requests that are not those of registers and coils.

mod endpoint;
mod line;
mod link;
mod networks;
mod plan;
mod poller;
mod slave;
mod telling;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod turn;
mod value;
mod writing;

pub use poller::poll;
