//! The last changes of this run, bounded in bytes.

use std::collections::VecDeque;

use super::change::{Change, ChangeContent};

/// Changes at a time that a reader takes out under the lock.
const CHANGES_PER_READ_MAX: usize = 128;
/// And so many bytes, unless one change has more: a reader holds them for as long as who it serves takes nothing.
const BYTES_PER_READ_MAX: usize = 64 << 10;
/// Of a full ring so much is let go at once, a share of its bytes: making room for each change anew would cost more.
const LET_GO_SHARE: usize = 64;
/// Beside its payload; also bounds how many changes of few bytes there are.
const BYTES_PER_CHANGE: usize = 192;
/// Room is made for so many changes at first; more are rare, and then the ring moves once.
const CHANGES_EXPECTED_MAX: usize = 64 << 10;

pub struct Ring {
    changes: VecDeque<Change>,
    /// The number of the next change.
    next_number: u64,
    num_bytes: usize,
    num_bytes_max: usize,
}

/// What a reader took out.
pub struct Read {
    /// Changes before `changes` that are not here any more.
    pub num_missed: u64,
    pub changes: Vec<Change>,
}

impl Ring {
    pub fn new(num_bytes_max: usize) -> Self {
        Self {
            changes: VecDeque::new(),
            next_number: 1,
            num_bytes: 0,
            num_bytes_max,
        }
    }

    /// Takes room for what is to come, outside of the time that counts.
    pub fn reserve(&mut self) {
        let expected = (self.num_bytes_max / BYTES_PER_CHANGE).min(CHANGES_EXPECTED_MAX);
        self.changes.reserve(expected);
    }

    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The oldest number that is still here; the next one when nothing is.
    pub fn first_number(&self) -> u64 {
        let first = self.changes.front();
        first.map_or(self.next_number, |change| change.number)
    }

    /// Counts items that are not kept.
    pub fn skip(&mut self, num_items: u64) {
        self.next_number = self.next_number.saturating_add(num_items);
    }

    /// Numbers a change and keeps it. Returns those that had to go, to be dropped when no lock is held.
    pub fn push(&mut self, mut change: Change) -> Vec<Change> {
        change.number = self.next_number;
        self.next_number = change.end();
        self.num_bytes += bytes_of(&change);
        self.changes.push_back(change);
        if self.num_bytes <= self.num_bytes_max {
            return Vec::new();
        }
        let mut let_go = Vec::new();
        let enough = self.num_bytes_max - self.num_bytes_max / LET_GO_SHARE;
        while self.num_bytes > enough
            && let Some(oldest) = self.changes.pop_front()
        {
            self.num_bytes -= bytes_of(&oldest);
            let_go.push(oldest);
        }
        let_go
    }

    /// Gives all memory back; the numbers go on.
    pub fn clear(&mut self) -> VecDeque<Change> {
        self.num_bytes = 0;
        std::mem::take(&mut self.changes)
    }

    /// What follows `next`, which is moved behind what is returned.
    pub fn read(&self, next: &mut u64) -> Read {
        let first = self.first_number();
        let num_missed = first.saturating_sub(*next);
        let start = self.changes.partition_point(|change| change.end() <= *next);
        let mut num_bytes = 0;
        let changes: Vec<_> = self
            .changes
            .range(start..)
            .take(CHANGES_PER_READ_MAX)
            .take_while(|change| {
                let is_first = num_bytes == 0;
                num_bytes += bytes_of(change);
                is_first || num_bytes <= BYTES_PER_READ_MAX
            })
            .cloned()
            .collect();
        *next = changes.last().map_or(first.max(*next), Change::end);
        Read {
            num_missed,
            changes,
        }
    }
}

fn bytes_of(change: &Change) -> usize {
    match &change.content {
        ChangeContent::Events { payload, .. } => BYTES_PER_CHANGE + payload.len(),
        ChangeContent::Connected(_) | ChangeContent::Disconnected { .. } => BYTES_PER_CHANGE,
    }
}
