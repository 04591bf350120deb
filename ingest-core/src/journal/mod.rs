//! The journal: where an event is from its acknowledgement until the database has it.
//!
//! It knows neither frames nor events: callers append bytes and are answered when these are durable. One directory is one
//! journal, one process has it open, one thread writes it. That thread takes all that waits, writes once, syncs once and
//! answers all; nobody waits for a timer.
//!
//! # Format (version 1, little-endian)
//!
//! A position is a byte offset over the journal's whole life; `position / segment_bytes` is the segment it lies in.
//!
//! | file | content |
//! |---|---|
//! | `LOCK` | empty; held with `flock` by the process that has the journal open |
//! | `META` | who the journal is: see `meta.rs` |
//! | `CURSOR` | up to where it was drained, in two slots: see `cursor.rs` |
//! | `{index:020}.seg` | a segment of exactly `segment_bytes`, zero-filled and synced before it gets this name |
//! | `{index:020}.spare` | a freed segment, to be recycled under a new name; its old records stay in it |
//! | `*.tmp` | being made; removed at the next start |
//!
//! A segment is a row of records, each aligned to 8 bytes, each within its segment:
//! `len u32 | crc32c u32 | position u64 | group_delta u32 | kind u8 | 0 u8 x 3 | payload | zeros to 8 bytes`.
//! The checksum starts from the CRC32C of the journal id's 16 bytes and runs over the header without itself, then the payload.
//! `group_delta` is the distance to the start of the write that the record was part of. Kinds: 1 data; 2 pad, `len` bytes that
//! mean nothing and are not in the checksum; 3 seal, the end of a clean close. A rest of a segment shorter than a header is
//! skipped without a pad.
//!
//! # Invariants
//!
//! - A write begins only after the one before it is synced, and lies within one segment. So a crash tears at most one write, the
//!   last: what cannot be read and is followed by a record of a *later* write was durable once, and is damage. Damage is refused,
//!   with file, offset and the command that repairs it; a torn tail is cut. After a seal there is no torn tail.
//! - Nothing of a torn write is ever read later: opening makes durable what it read of it (by writing it again, because after a
//!   failed sync the page cache may show what the disk does not have) and zeroes the rest before anything is written in its place.
//!   A write that a full disk broke off is zeroed in the same way.
//! - Records that a recycled segment still carries have positions that are not expected there.
//! - A failed write or sync, other than for want of space, poisons the journal: every waiter and every later caller is told,
//!   nothing is tried again, and the process should exit. What is durable stays readable.
//! - The cursor is durable before a segment is freed, and its space is reserved at creation: draining works on a full disk.
//! - A segment has its name durably before it holds a record.
//! - What a refused append wrote may survive a crash that follows at once; what an acknowledged one wrote always does.
//!
//! # Deliberately absent
//!
//! Timers and batching delays, compression, an index (reading is forward only), memory maps (an I/O error must be an error, not a
//! signal), direct I/O and io_uring (one write and one sync a group leave nothing for them to win), replication (operators who
//! need it choose the other journal), repair without being asked, and conversion from older formats (there are none).
//! A bit that flips in the last write of a journal that was not closed cannot be told from a torn write, and is cut.

mod config;
mod cursor;
mod directory;
mod handle;
mod inspect;
mod meta;
mod pool;
mod queue;
mod reader;
mod record;
mod recovery;
mod repair;
mod scan;
mod segment;
mod storage;
mod writer;

pub use config::{JournalConfig, LimitOutOfRange};
pub use handle::{
    Closing, Condition, FreeError, JournalHandle, JournalObserver, JournalState, JournalStats,
};
pub use inspect::{InspectedCursor, InspectedSegment, InspectedTail, Inspection, inspect};
pub use queue::{AppendError, AppendTicket, Appended, FullCause};
pub use reader::{JournalReader, ReadError, Record};
pub use recovery::{OpenError, OpenedJournal, RecoveredRecords, StartError};
pub use repair::{LostStretch, RepairError, RepairReport, repair};
pub use segment::{SegmentContents, read_segment};
pub use storage::{DirectoryStorage, Storage};

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
