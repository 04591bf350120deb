//! PostgreSQL as the sink of the drain and the source of the registry.
//!
//! The transaction of a batch:
//!
//! ```text
//! lock the cursor | lock the sequence rows | COPY device_events | COPY event_outbox | COPY dead_letters
//! | COPY late_hours (what ends before now) | COPY rollup_dirty (plain PostgreSQL) | extend the sequence rows | move the cursor | COMMIT
//! ```
//!
//! Invariants: any failure drops the connection, and the next attempt begins by reading the cursor, so a COMMIT whose
//! answer was lost is found out and not repeated. A row that the database refuses for its content becomes a dead
//! letter; nothing becomes one because the database was away.

mod connection;
mod copy;
mod dead_letters;
mod desired;
mod desk;
mod encoded;
mod few;
mod polling;
mod reads;
mod registry;
mod sequences;
mod sink;

pub use connection::{Database, DatabaseUrlError};
pub use dead_letters::DeadLetterRetry;
pub use desired::DesiredFollower;
pub use desk::{DeviceDesk, Provisioned};
pub use polling::PollingLease;
pub use reads::EventReads;
pub use registry::RegistryFollower;
pub use sink::{PostgresSink, SinkSettings};
