//! The running journal: what the pipeline appends to, reads from and frees.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::watch;
use uuid::Uuid;

use super::cursor::CursorFile;
use super::directory::{Directory, layout_of};
use super::meta::Meta;
use super::pool::SegmentPool;
use super::queue::{AppendError, AppendQueue, AppendTicket, locked};
use super::reader::JournalReader;
use super::record::HEADER_BYTES;
use super::recovery::OpenedJournal;
use super::segment::{Layout, in_memory};
use super::storage::{Storage, StorageLock, is_out_of_space};
use super::writer::Writer;

/// Told about every group, on the writer's thread: must be quick and must not panic.
pub trait JournalObserver: Send + Sync {
    /// `elapsed` is one write and one sync.
    fn group_committed(&self, num_records: usize, bytes: usize, elapsed: Duration);
}

/// Nobody looks.
impl JournalObserver for () {
    fn group_committed(&self, _num_records: usize, _bytes: usize, _elapsed: Duration) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Running,
    /// All that was acknowledged is on disk; nothing more is taken.
    Closed,
    /// A write or sync failed. What is durable can still be read and freed; the process should exit non-zero.
    Poisoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalState {
    pub durable_end: u64,
    pub condition: Condition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalStats {
    pub durable_end: u64,
    /// Where the cursor stands: the end of the last record that was given up, whatever follows it.
    pub freed_up_to: u64,
    /// Durable and not freed, unless it is no more than a seal.
    pub undrained_bytes: u64,
    /// Appended, and not durable yet.
    pub waiting_bytes: u64,
    pub num_segments: u64,
    pub num_spare_segments: u64,
}

#[derive(Debug, Error)]
pub enum FreeError {
    #[error("position {position} is beyond {durable_end}, where the journal ends")]
    BeyondEnd { position: u64, durable_end: u64 },
    #[error("there is no room for the cursor of {directory}")]
    OutOfSpace {
        directory: String,
        #[source]
        source: io::Error,
    },
    #[error("the journal is closed")]
    Closed,
    /// The journal is poisoned by this.
    #[error("the cursor or a freed segment of {directory} cannot be written")]
    Io {
        directory: String,
        #[source]
        source: io::Error,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// False when the disk was full or failed: the journal is whole, but damage to its last write will not be noticed.
    pub is_sealed: bool,
    pub condition: Condition,
}

pub(super) struct Shared {
    pub layout: Layout,
    pub queue: AppendQueue,
    pub pool: SegmentPool,
    state: watch::Sender<JournalState>,
}

impl Shared {
    pub fn is_durable(&self, bytes: u64, durable_end: u64) {
        self.queue.group_is_durable(bytes, durable_end);
        self.state
            .send_modify(|state| state.durable_end = durable_end);
    }

    pub fn is_poisoned(&self) -> bool {
        self.state.borrow().condition == Condition::Poisoned
    }

    pub fn poison(&self, error: &io::Error) {
        tracing::error!(%error, "the journal's disk failed; nothing more is acknowledged");
        self.state
            .send_modify(|state| state.condition = Condition::Poisoned);
        self.queue.poison();
        self.pool.stop();
    }
}

/// Poisons the journal when its thread ends by a panic, so that nobody waits for an answer that never comes.
struct PoisonOnPanic(Arc<Shared>);

impl Drop for PoisonOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0
                .poison(&io::Error::other("a journal thread panicked"));
        }
    }
}

struct Running {
    writer: JoinHandle<bool>,
    preparer: JoinHandle<()>,
    /// Held until the threads are gone.
    _lock: StorageLock,
}

struct Inner {
    shared: Arc<Shared>,
    storage: Arc<dyn Storage>,
    journal_id: Uuid,
    generation: AtomicU64,
    freed_up_to: AtomicU64,
    unagreed_end: AtomicU64,
    /// None when closed: the file may be another process's by then.
    cursor: Mutex<Option<CursorFile>>,
    running: Mutex<Option<Running>>,
}

/// Clones are the same journal. When the last is dropped the journal is closed, which waits for the disk.
#[derive(Clone)]
pub struct JournalHandle(Arc<Inner>);

impl JournalHandle {
    pub(super) fn spawn(
        opened: OpenedJournal,
        cursor: CursorFile,
        observer: Arc<dyn JournalObserver>,
    ) -> io::Result<Self> {
        let layout = layout_of(&opened.meta);
        let position = opened.scan.end;
        let pool = make_pool(&opened, layout, cursor.position())?;
        let file = opened.segment(pool.current())?;
        // A seal alone is nothing to drain.
        let drained_up_to = match opened.scan.num_data_records {
            0 => position,
            _ => cursor.position(),
        };
        let record_bytes_max = opened
            .config
            .record_bytes_max
            .min(in_memory(layout.segment_bytes) - HEADER_BYTES);
        let queue = AppendQueue::new(&opened.config, record_bytes_max, position, drained_up_to);
        let state = watch::Sender::new(JournalState {
            durable_end: position,
            condition: Condition::Running,
        });
        let shared = Arc::new(Shared {
            layout,
            queue,
            pool,
            state,
        });
        let writer = Writer::new(Arc::clone(&shared), observer, file, position);
        let running = spawn_threads(&shared, writer, opened.config.lane, opened.lock)?;
        Ok(Self(Arc::new(Inner {
            shared,
            storage: opened.storage,
            journal_id: opened.meta.journal_id,
            generation: AtomicU64::new(opened.meta.generation),
            freed_up_to: AtomicU64::new(cursor.position()),
            unagreed_end: AtomicU64::new(cursor.unagreed_end()),
            cursor: Mutex::new(Some(cursor)),
            running: Mutex::new(Some(running)),
        })))
    }

    pub fn journal_id(&self) -> Uuid {
        self.0.journal_id
    }

    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// From now on positions count anew for whoever compares them: an old copy of the directory, or of the database, was
    /// put back, and positions will be used a second time. Blocks for the disk.
    pub fn begin_generation(&self, generation: u64) -> io::Result<()> {
        let _cursor = locked(&self.0.cursor);
        let Inner {
            journal_id,
            shared,
            storage,
            ..
        } = &*self.0;
        let meta = Meta {
            journal_id: *journal_id,
            generation,
            segment_bytes: shared.layout.segment_bytes,
        };
        meta.write(&**storage)?;
        self.0.generation.store(generation, Ordering::Release);
        Ok(())
    }

    /// Where the journal ended when it was opened, until [`Self::note_agreement`]; then `u64::MAX`.
    pub fn unagreed_end(&self) -> u64 {
        self.0.unagreed_end.load(Ordering::Acquire)
    }

    /// Whoever stores the records knows no position that this journal does not know. Blocks for the disk.
    pub fn note_agreement(&self) -> Result<(), FreeError> {
        let mut cursor = locked(&self.0.cursor);
        let cursor = cursor.as_mut().ok_or(FreeError::Closed)?;
        self.or_poison(cursor.note_agreement(self.generation()))?;
        self.0
            .unagreed_end
            .store(cursor.unagreed_end(), Ordering::Release);
        Ok(())
    }

    /// How often records were given back that had been taken into the queue.
    pub fn num_refusals(&self) -> u64 {
        self.0.shared.queue.num_refusals()
    }

    /// Never blocks for the disk. The ticket answers when the record is durable; order of calls is order of records.
    pub fn append(&self, payload: impl Into<Bytes>) -> Result<AppendTicket, AppendError> {
        self.append_after(payload, self.num_refusals())
    }

    /// Appends a record that belongs behind the caller's earlier ones, so that nothing is durable behind a hole.
    /// `refusals_seen` is [`Self::num_refusals`] from before the oldest of them that is still in flight: once a record
    /// was given back since, this one is answered `Full`.
    pub fn append_after(
        &self,
        payload: impl Into<Bytes>,
        refusals_seen: u64,
    ) -> Result<AppendTicket, AppendError> {
        self.0.shared.queue.push(payload.into(), refusals_seen)
    }

    /// False while appends are refused: above the high watermark, or without room for the next segment; and for ever
    /// once closed or poisoned.
    pub fn is_taking(&self) -> bool {
        self.state().condition == Condition::Running && !self.0.shared.queue.is_refusing()
    }

    pub fn state(&self) -> JournalState {
        *self.0.shared.state.borrow()
    }

    /// Waits until there is something durable past `position`, or there will be nothing more.
    pub async fn wait_for_durable(&self, past: u64) -> JournalState {
        self.wait_until(|state| state.durable_end > past || state.condition != Condition::Running)
            .await
    }

    /// Resolves when the journal is poisoned; never, if it never is.
    pub async fn poisoned(&self) {
        self.wait_until(|state| state.condition == Condition::Poisoned)
            .await;
    }

    async fn wait_until(&self, is_reached: impl FnMut(&JournalState) -> bool) -> JournalState {
        let mut states = self.0.shared.state.subscribe();
        // The sender lives as long as `self`, so this ends only by the condition.
        match states.wait_for(is_reached).await {
            Ok(state) => *state,
            Err(_) => self.state(),
        }
    }

    pub fn reader(&self, from: u64) -> JournalReader {
        let states = self.0.shared.state.subscribe();
        JournalReader::new(
            Arc::clone(&self.0.storage),
            self.0.shared.layout,
            from,
            states,
        )
    }

    pub fn stats(&self) -> JournalStats {
        let shared = &self.0.shared;
        let durable_end = self.state().durable_end;
        let depth = shared.queue.depth();
        JournalStats {
            durable_end,
            freed_up_to: self.0.freed_up_to.load(Ordering::Acquire),
            undrained_bytes: depth.undrained_bytes,
            waiting_bytes: depth.waiting_bytes,
            num_segments: shared.pool.num_segments(),
            num_spare_segments: shared.pool.num_spares() as u64,
        }
    }

    /// Gives up what lies before `position`, the end of a record whose effect is durable elsewhere. Blocks for the disk,
    /// but not the writer. The cursor is durable before a segment goes: a crash between leaves a segment too many, never
    /// a cursor that points at one that is gone.
    pub fn free_up_to(&self, position: u64) -> Result<(), FreeError> {
        let shared = &self.0.shared;
        let durable_end = self.state().durable_end;
        if position > durable_end {
            return Err(FreeError::BeyondEnd {
                position,
                durable_end,
            });
        }
        let mut cursor = locked(&self.0.cursor);
        let cursor = cursor.as_mut().ok_or(FreeError::Closed)?;
        if position <= cursor.position() {
            return Ok(());
        }
        self.or_poison(cursor.move_to(position, self.generation()))?;
        self.0.freed_up_to.store(position, Ordering::Release);
        shared.queue.is_drained_up_to(position);
        self.or_poison(shared.pool.free_before(position))
    }

    fn or_poison(&self, result: io::Result<()>) -> Result<(), FreeError> {
        let directory = || self.0.storage.location().display().to_string();
        result.map_err(|source| match is_out_of_space(&source) {
            true => FreeError::OutOfSpace {
                directory: directory(),
                source,
            },
            false => {
                self.0.shared.poison(&source);
                FreeError::Io {
                    directory: directory(),
                    source,
                }
            }
        })
    }

    /// Writes what waits, seals the journal, and releases it. Blocks. Later calls find it closed, `free_up_to` too:
    /// the drain stops first.
    pub fn close(&self) -> Closing {
        let is_sealed = self.0.stop();
        Closing {
            is_sealed,
            condition: self.state().condition,
        }
    }
}

impl Inner {
    fn stop(&self) -> bool {
        let Some(running) = locked(&self.running).take() else {
            return false;
        };
        self.shared.queue.close();
        // A panic has poisoned the journal already.
        let is_sealed = running.writer.join().unwrap_or(false);
        self.shared.pool.stop();
        let _ = running.preparer.join();
        locked(&self.cursor).take();
        self.shared.state.send_modify(|state| {
            if state.condition == Condition::Running {
                state.condition = Condition::Closed;
            }
        });
        is_sealed
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sorts the files that are there into those in use, the next, spares, and those to be rid of.
fn make_pool(opened: &OpenedJournal, layout: Layout, cursor: u64) -> io::Result<SegmentPool> {
    let storage = &opened.storage;
    let spares_max = opened.config.spare_segments_max;
    let at_end = layout.index_of(opened.scan.end);
    // Between two segments, the later may not have been made yet.
    let current = match opened.indexes.contains(&at_end) {
        true => at_end,
        false => at_end.saturating_sub(1),
    };
    let first = layout.index_of(cursor).min(current);
    let has_next = opened.indexes.contains(&(current + 1));
    let next = has_next.then(|| opened.segment(current + 1)).transpose()?;
    let found = Directory::read(&**storage, Some(layout.segment_bytes))?;
    for name in found
        .leftovers
        .iter()
        .chain(found.spares.iter().skip(spares_max))
    {
        storage.unlink(name)?;
    }
    let spares = found.spares.into_iter().take(spares_max).collect();
    let pool = SegmentPool::new(
        Arc::clone(storage),
        layout,
        spares_max,
        spares,
        (first, current),
        next,
    );
    // Left by a crash between moving the cursor and freeing.
    pool.retire(
        opened
            .indexes
            .iter()
            .copied()
            .filter(|&index| index < first || index > current + 1),
    )?;
    Ok(pool)
}

fn spawn_threads(
    shared: &Arc<Shared>,
    writer: Writer,
    lane: u32,
    lock: StorageLock,
) -> io::Result<Running> {
    let guarded = PoisonOnPanic(Arc::clone(shared));
    let preparer = thread::Builder::new()
        .name(format!("journal-next-{lane}"))
        .spawn(move || {
            if let Err(error) = guarded.0.pool.run() {
                guarded.0.poison(&error);
            }
        })?;
    let guarded = PoisonOnPanic(Arc::clone(shared));
    let writer = thread::Builder::new()
        .name(format!("journal-lane-{lane}"))
        .spawn(move || {
            let _guarded = guarded;
            writer.run()
        });
    match writer {
        Ok(writer) => Ok(Running {
            writer,
            preparer,
            _lock: lock,
        }),
        Err(error) => {
            shared.pool.stop();
            Err(error)
        }
    }
}
