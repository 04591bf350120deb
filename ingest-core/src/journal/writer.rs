//! The one thread that writes records. Its way: take all that waits, write once, sync once, answer all.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::handle::{JournalObserver, Shared};
use super::pool::NextSegment;
use super::queue::{AppendError, Appended, FullCause, Waiting};
use super::record::{self, HEADER_BYTES, Header, RecordKind};
use super::segment;
use super::storage::{StorageFile, is_out_of_space};

/// While records keep coming, the next group gathers for up to three times as long as this one took to write, so that
/// syncing keeps at most a quarter of a processor busy. Without it a quick disk is synced as often as one processor
/// can, for a few records at a time, and the connections that would fill the groups wait for that processor.
const GATHER_FACTOR: u32 = 3;
/// A group of so many is gathered for that long, a smaller one shorter: where few come, few wait, and for no more of them.
const GATHERED_RECORDS: u32 = 48;
/// A slow disk gathers enough while it writes.
const GATHER_MAX: Duration = Duration::from_millis(1);

pub struct Writer {
    shared: Arc<Shared>,
    observer: Arc<dyn JournalObserver>,
    file: Arc<dyn StorageFile>,
    /// Where the next record goes; all before it is durable.
    position: u64,
    buffer: Vec<u8>,
    /// Bytes of a write that a full disk broke off. Records among them could be read after a later, shorter write
    /// in their place, so nothing is written before they are zero again.
    broken_off: Option<Range<u64>>,
}

#[derive(Debug, Error)]
enum WriteError {
    #[error("no room")]
    OutOfSpace,
    /// The thread that makes segments has failed, and poisoned the journal.
    #[error("poisoned")]
    Poisoned,
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        observer: Arc<dyn JournalObserver>,
        file: Arc<dyn StorageFile>,
        position: u64,
    ) -> Self {
        Self {
            shared,
            observer,
            file,
            position,
            buffer: Vec::new(),
            broken_off: None,
        }
    }

    /// Until closed or poisoned. True when the journal ends sealed.
    pub fn run(mut self) -> bool {
        let mut group = VecDeque::new();
        let mut free_since = Instant::now();
        while self.shared.queue.take_group(&mut group) {
            let (started, num_records) = (Instant::now(), group.len());
            self.commit(&mut group);
            let busy = started.elapsed();
            // One device that waits for each ACK leaves us idle between its records, and is not made to wait longer.
            if started - free_since < busy {
                thread::sleep(gather_time(num_records, busy));
            }
            free_since = Instant::now();
        }
        !self.shared.is_poisoned() && self.seal()
    }

    /// A group that crosses into the next segment is several writes.
    fn commit(&mut self, group: &mut VecDeque<Waiting>) {
        while !group.is_empty() {
            let answer = match self.write_some(group) {
                Ok(()) => continue,
                Err(WriteError::OutOfSpace) => FullCause::Disk.error(),
                Err(WriteError::Poisoned) => AppendError::Poisoned,
                Err(WriteError::Failed(error)) => {
                    self.shared.poison(&error);
                    AppendError::Poisoned
                }
            };
            // All that is left, not only what did not fit: what follows a refused record may depend on it.
            self.shared.queue.group_is_refused(group);
            for waiting in group.drain(..) {
                waiting.answer(Err(answer));
            }
        }
    }

    /// Writes, syncs and answers what of `group` fits into the segment; changes the segment when nothing does.
    fn write_some(&mut self, group: &mut VecDeque<Waiting>) -> Result<(), WriteError> {
        self.wipe_broken_off()?;
        if self.is_segment_full() {
            return self.change_segment();
        }
        let layout = self.shared.layout;
        let rest = layout.rest_of(self.position);
        self.buffer.clear();
        let mut num_records = 0;
        for waiting in group.iter() {
            if self.buffer.len() as u64 + waiting.bytes_on_disk() > rest {
                break;
            }
            record::append_data(
                &mut self.buffer,
                &waiting.payload,
                self.position,
                layout.seed,
            )
            .map_err(io::Error::other)?;
            num_records += 1;
        }
        if num_records == 0 {
            return self.change_segment();
        }
        let mut position = self.position;
        let started = Instant::now();
        self.write_buffer()?;
        self.observer
            .group_committed(num_records, self.buffer.len(), started.elapsed());
        for waiting in group.drain(..num_records) {
            let end = position + waiting.bytes_on_disk();
            waiting.answer(Ok(Appended { position, end }));
            position = end;
        }
        Ok(())
    }

    fn write_buffer(&mut self) -> Result<(), WriteError> {
        let offset = self.offset();
        if let Err(error) = self.file.write_all_at(&self.buffer, offset) {
            if !is_out_of_space(&error) {
                return Err(error.into());
            }
            self.broken_off = Some(offset..offset + self.buffer.len() as u64);
            return Err(WriteError::OutOfSpace);
        }
        // Never tried again: after a failed sync the cache calls clean what the disk does not have.
        self.file.sync_data()?;
        let bytes = self.buffer.len() as u64;
        self.position = self.shared.layout.place_after(self.position + bytes);
        self.shared.is_durable(bytes, self.position);
        Ok(())
    }

    fn wipe_broken_off(&mut self) -> Result<(), WriteError> {
        let Some(Range { start, end }) = self.broken_off.clone() else {
            return Ok(());
        };
        match segment::write_zeros(&*self.file, start, end) {
            Err(error) if is_out_of_space(&error) => return Err(WriteError::OutOfSpace),
            result => result?,
        }
        self.file.sync_data()?;
        self.broken_off = None;
        Ok(())
    }

    /// The pad is durable before anything in the next segment is: else a crash would look like damage.
    fn change_segment(&mut self) -> Result<(), WriteError> {
        let next = match self.shared.pool.wait_for_next() {
            NextSegment::Ready(file) => file,
            NextSegment::OutOfSpace => return Err(WriteError::OutOfSpace),
            NextSegment::Stopped => return Err(WriteError::Poisoned),
        };
        if !self.is_segment_full() {
            let layout = self.shared.layout;
            let rest = layout.rest_of(self.position);
            let len = u32::try_from(rest - HEADER_BYTES as u64).map_err(io::Error::other)?;
            self.write_control(RecordKind::Pad, len)?;
            self.position += rest;
        }
        self.file = next;
        self.shared.pool.advance();
        Ok(())
    }

    /// True at the place between two segments, where the file in hand is the earlier one.
    fn is_segment_full(&self) -> bool {
        self.shared.layout.index_of(self.position) > self.shared.pool.current()
    }

    fn write_control(&mut self, kind: RecordKind, len: u32) -> Result<(), WriteError> {
        let header = Header {
            kind,
            position: self.position,
            group_delta: 0,
            len,
        };
        let offset = self.offset();
        match self
            .file
            .write_all_at(&header.encode(&[], self.shared.layout.seed), offset)
        {
            Err(error) if is_out_of_space(&error) => {
                self.broken_off = Some(offset..offset + HEADER_BYTES as u64);
                return Err(WriteError::OutOfSpace);
            }
            result => result?,
        }
        Ok(self.file.sync_data()?)
    }

    /// Without a seal the journal is whole too; only then damage in its last write passes for a torn one.
    fn seal(&mut self) -> bool {
        match self.write_seal() {
            Ok(()) => true,
            Err(WriteError::Failed(error)) => {
                self.shared.poison(&error);
                false
            }
            Err(WriteError::Poisoned) => false,
            Err(WriteError::OutOfSpace) => {
                tracing::warn!("the journal is closed without a seal: no room");
                false
            }
        }
    }

    fn write_seal(&mut self) -> Result<(), WriteError> {
        self.wipe_broken_off()?;
        if self.is_segment_full() {
            self.change_segment()?;
        }
        self.write_control(RecordKind::Seal, 0)?;
        self.position = self
            .shared
            .layout
            .place_after(self.position + HEADER_BYTES as u64);
        self.shared.is_durable(0, self.position);
        Ok(())
    }

    fn offset(&self) -> u64 {
        self.shared.layout.offset_of(self.position)
    }
}

/// How long the next group gathers after one of so many records that took so long.
fn gather_time(num_records: usize, busy: Duration) -> Duration {
    let num_records = u32::try_from(num_records).unwrap_or(u32::MAX);
    let part = num_records.min(GATHERED_RECORDS);
    (busy * GATHER_FACTOR * part / GATHERED_RECORDS).min(GATHER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_come_at_a_time_the_longer_they_gather() {
        let micros =
            |num_records, busy| gather_time(num_records, Duration::from_micros(busy)).as_micros();
        assert_eq!(
            [1, 16, 48, 5000].map(|many| micros(many, 160)),
            [10, 160, 480, 480]
        );
        assert_eq!(micros(5000, 900), GATHER_MAX.as_micros());
    }
}
