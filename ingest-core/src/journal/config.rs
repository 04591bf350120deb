//! The journal's limits.

use thiserror::Error;

#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// Names the threads: one journal a lane.
    pub lane: u32,
    /// Bytes of one segment file, for a new journal; an existing one keeps the size it was made with.
    /// Default 64 MiB, 4 KiB to 1 GiB, a multiple of 4 KiB: large enough that changing segments is rare,
    /// small enough that one is freed every few seconds under load and fits in memory while opening.
    pub segment_bytes: u64,
    /// Undrained bytes above which appends are refused. Default 8 GiB, at least 2 segments: the time the
    /// database may be away, times the rate of events. The disk needs four segments more than this.
    pub bytes_max: u64,
    /// Once refused, appends are taken again when undrained bytes are down to this part of `bytes_max`.
    /// Default 90, 1 to 100: a gap, so that a full journal does not flicker between taking and refusing.
    pub resume_percent: u8,
    /// Largest payload. Default 2 MiB, at least 1, and never more than fits a segment: one frame (1 MiB) with room.
    pub record_bytes_max: usize,
    /// Bytes of one write. Default 4 MiB, at least 1 (a larger record travels alone): about 4 ms on a common disk,
    /// so that the last to join a group does not wait long for the first.
    pub group_bytes_max: usize,
    /// Bytes of appends that wait for the writer. Default 32 MiB, at least 1 (one record is always taken):
    /// several groups, so that a slow sync refuses nobody, and memory stays bounded.
    pub queue_bytes_max: u64,
    /// Freed segments kept for recycling; others are unlinked. Default 2, may be 0: one is in use while one is made.
    pub spare_segments_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} is {value}, but must be {allowed}")]
pub struct LimitOutOfRange {
    pub field: &'static str,
    pub value: u64,
    pub allowed: &'static str,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            lane: 0,
            segment_bytes: 64 << 20,
            bytes_max: 8 << 30,
            resume_percent: 90,
            record_bytes_max: 2 << 20,
            group_bytes_max: 4 << 20,
            queue_bytes_max: 32 << 20,
            spare_segments_max: 2,
        }
    }
}

impl JournalConfig {
    pub fn validate(&self) -> Result<(), LimitOutOfRange> {
        let segment = self.segment_bytes;
        let is_segment_allowed = is_segment_size(segment);
        let checks = [
            (
                "segment_bytes",
                segment,
                is_segment_allowed,
                "a multiple of 4096, from 4096 to 1073741824",
            ),
            (
                "bytes_max",
                self.bytes_max,
                self.bytes_max >= segment.saturating_mul(2),
                "at least two segments",
            ),
            (
                "resume_percent",
                self.resume_percent.into(),
                (1..=100).contains(&self.resume_percent),
                "from 1 to 100",
            ),
            (
                "record_bytes_max",
                self.record_bytes_max as u64,
                self.record_bytes_max > 0,
                "at least 1",
            ),
            (
                "group_bytes_max",
                self.group_bytes_max as u64,
                (1..=1 << 30).contains(&self.group_bytes_max),
                "from 1 to 1073741824",
            ),
            (
                "queue_bytes_max",
                self.queue_bytes_max,
                self.queue_bytes_max > 0,
                "at least 1",
            ),
        ];
        match checks.into_iter().find(|(_, _, is_allowed, _)| !is_allowed) {
            Some((field, value, _, allowed)) => Err(LimitOutOfRange {
                field,
                value,
                allowed,
            }),
            None => Ok(()),
        }
    }

    pub(super) fn resume_bytes(&self) -> u64 {
        self.bytes_max / 100 * u64::from(self.resume_percent)
    }
}

pub(super) fn is_segment_size(bytes: u64) -> bool {
    (4096..=1 << 30).contains(&bytes) && bytes.is_multiple_of(4096)
}
