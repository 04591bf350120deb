//! The recipe of an event: frame -> checked -> durable -> acknowledged -> stored.
//!
//! ```text
//! sessions one connection a device, which holds its sequence window
//! intake   an EVENTS frame becomes an `Entry` in the journal's queue      (window: what may come next; registry: who, and by which profile)
//! journal  one write and one fdatasync for all that wait; then the ACK
//! live     what has become durable, offered to those who watch
//! commands what waits for a device's results; results: what is kept of them
//! drain    entries become a `Batch`, sorted; the sink stores it with the cursor, in one transaction
//! ```
//!
//! Invariants:
//! - nothing is acknowledged before the journal said that it is durable;
//! - an event is in the database once: the drain stores what no (device, epoch) range holds, and adds its own ranges
//!   in the same transaction;
//! - journal bytes are freed after the transaction that stored them was confirmed, or was found in the cursor.
//!
//! Absent on purpose: sockets (`inbound`), SQL (`outbound`).

pub mod attributes;
pub mod batch;
pub mod child_names;
pub mod circuit;
pub mod clock;
pub mod commands;
pub mod drain;
pub mod entry;
pub mod intake;
pub mod lane;
pub mod live;
pub mod polling;
pub mod ports;
pub mod profiles;
pub mod ranges;
pub mod registry;
pub mod results;
pub mod sessions;
pub mod tokens;
pub mod unreadable;
pub mod unsequenced;
pub mod window;
