//! What others may read of this node in Redis: the state of each device, and where the node is.
//!
//! ```text
//! form   keys and values
//! keeper the task that writes: states that changed, once a second; the node's entry
//! absent what is said of devices whose node has gone
//! ```
//!
//! It is a cache. Everything in it can be lost at any moment: what this node knows is written again as soon as it is seen to
//! be missing, the rest is in the database. Redis that is away costs nothing but the cache: states wait in memory, the
//! newest only, and no path of an event comes by here.
//!
//! **Invariants.**
//! - The newest event of a device wins, and its newest connection, in whatever order and from whichever node they are written.
//! - One task, one connection, one batch at a time; what grows while Redis is away is bounded by the number of devices.
//!
//! **Absent.** redis-rs' connection manager: it hides reconnections, and after one of them everything must be written again.

mod absent;
mod form;
mod keeper;

pub use form::{NodeEntry, milliseconds};
pub use keeper::{RedisUrlError, StateKeeper};
