//! The segment after the one being written, made ahead by a thread of its own, and the freed ones kept for it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::queue::locked;
use super::segment::{self, Layout};
use super::storage::{Access, Storage, StorageFile, is_out_of_space};

/// A full disk is looked at again this often: freeing segments wakes the thread, other people's files do not.
const SPACE_RETRY: Duration = Duration::from_millis(200);

struct PoolState {
    /// Index of the oldest segment that is still there.
    first: u64,
    /// Index of the segment that is being written.
    current: u64,
    next: Option<Arc<dyn StorageFile>>,
    is_out_of_space: bool,
    is_stopped: bool,
    spares: Vec<String>,
}

pub struct SegmentPool {
    storage: Arc<dyn Storage>,
    layout: Layout,
    spares_max: usize,
    state: Mutex<PoolState>,
    changed: Condvar,
}

pub enum NextSegment {
    Ready(Arc<dyn StorageFile>),
    OutOfSpace,
    Stopped,
}

impl SegmentPool {
    pub fn new(
        storage: Arc<dyn Storage>,
        layout: Layout,
        spares_max: usize,
        spares: Vec<String>,
        (first, current): (u64, u64),
        next: Option<Arc<dyn StorageFile>>,
    ) -> Self {
        let state = PoolState {
            first,
            current,
            next,
            is_out_of_space: false,
            is_stopped: false,
            spares,
        };
        Self {
            storage,
            layout,
            spares_max,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub fn current(&self) -> u64 {
        locked(&self.state).current
    }

    /// Those that hold records and the next, without spares.
    pub fn num_segments(&self) -> u64 {
        let state = locked(&self.state);
        state.current + 1 + u64::from(state.next.is_some()) - state.first
    }

    pub fn num_spares(&self) -> usize {
        locked(&self.state).spares.len()
    }

    /// Waits while the next segment is being made, but not for somebody to make room on the disk.
    pub fn wait_for_next(&self) -> NextSegment {
        let mut state = locked(&self.state);
        loop {
            if let Some(file) = &state.next {
                return NextSegment::Ready(Arc::clone(file));
            }
            if state.is_stopped {
                return NextSegment::Stopped;
            }
            if state.is_out_of_space {
                return NextSegment::OutOfSpace;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The writer has moved into the next segment: one more is wanted.
    pub fn advance(&self) {
        let mut state = locked(&self.state);
        state.current += 1;
        state.next = None;
        drop(state);
        self.changed.notify_all();
    }

    pub fn stop(&self) {
        locked(&self.state).is_stopped = true;
        self.changed.notify_all();
    }

    /// Makes next segments until stopped; returns the error that is not a full disk.
    pub fn run(&self) -> io::Result<()> {
        while let Some(index) = self.wait_for_work() {
            match self.make(index) {
                Ok(file) => {
                    let mut state = locked(&self.state);
                    state.next = Some(file);
                    state.is_out_of_space = false;
                }
                Err(error) if is_out_of_space(&error) => self.wait_for_space(&error),
                Err(error) => return Err(error),
            }
            self.changed.notify_all();
        }
        Ok(())
    }

    fn wait_for_work(&self) -> Option<u64> {
        let mut state = locked(&self.state);
        loop {
            if state.is_stopped {
                return None;
            }
            if state.next.is_none() {
                return Some(state.current + 1);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait_for_space(&self, error: &io::Error) {
        let mut state = locked(&self.state);
        if !state.is_out_of_space {
            tracing::warn!(%error, directory = %self.storage.location().display(), "no room for the next journal segment");
        }
        state.is_out_of_space = true;
        self.changed.notify_all();
        if !state.is_stopped {
            drop(self.changed.wait_timeout(state, SPACE_RETRY));
        }
    }

    fn make(&self, index: u64) -> io::Result<Arc<dyn StorageFile>> {
        let spare = locked(&self.state).spares.pop();
        let Some(spare) = spare else {
            return segment::create(&*self.storage, self.layout, index, &[]);
        };
        // Its old records stay: their positions are not the ones expected here.
        let name = segment::file_name(index);
        if let Err(error) = self.storage.rename(&spare, &name) {
            locked(&self.state).spares.push(spare);
            return Err(error);
        }
        self.storage.sync_dir()?;
        self.storage.open(&name, Access::ReadWrite)
    }

    /// Frees the segments that end at or before `position`, but never the one being written. One caller at a time.
    /// A cursor at or past `position` is durable already.
    pub fn free_before(&self, position: u64) -> io::Result<()> {
        let state = locked(&self.state);
        let (first, kept) = (
            state.first,
            self.layout.index_of(position).min(state.current),
        );
        drop(state);
        if first < kept {
            self.retire(first..kept)?;
            locked(&self.state).first = kept;
        }
        Ok(())
    }

    /// Takes the segments of these indexes out of the journal. The directory is not synced: a segment that is back after
    /// a power cut lies before the cursor and is retired again, and recycling syncs before the new name is used.
    pub fn retire(&self, indexes: impl Iterator<Item = u64>) -> io::Result<()> {
        let mut new_spares = Vec::new();
        let num_spares = self.num_spares();
        for index in indexes {
            let name = segment::file_name(index);
            if num_spares + new_spares.len() < self.spares_max {
                let spare = segment::spare_name(index);
                self.storage.rename(&name, &spare)?;
                new_spares.push(spare);
            } else {
                self.storage.unlink(&name)?;
            }
        }
        locked(&self.state).spares.append(&mut new_spares);
        self.changed.notify_all();
        Ok(())
    }
}
