//! From the journal to the database, one task a lane: read, sort, store, free.
//!
//! While one batch is being stored the next is read and encoded, so the database never waits for us. The database's
//! cursor is the truth about what was stored; the journal's own cursor only says from where to read after a start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::batch::{Batch, UnreadableRecord};
use super::circuit::Circuit;
use super::lane::Lane;
use super::ports::{Sink, SinkError, StoreOutcome, Stored, StoredCursor};
use crate::journal::{FreeError, JournalReader, ReadError};
use crate::metrics::{Code, Metrics};

/// Read from the journal at a time, so that a batch passes its row limit by little.
const READ_BYTES: usize = 256 << 10;

#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    pub rows_max: usize,
    pub bytes_max: usize,
    pub age_max: Duration,
}

/// Why a drain ended by itself. The process ends with it: what lies in the journal is safe, and an operator is needed.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    #[error(transparent)]
    Unreadable(#[from] UnreadableRecord),
    #[error("journal cannot be read: {0}")]
    Journal(#[from] ReadError),
    #[error("drain task ended abnormally: {0}")]
    Task(#[from] JoinError),
    #[error("journal cannot be freed: {0}")]
    Free(#[from] FreeError),
}

pub struct Drain<S: Sink> {
    pub lane: Arc<Lane>,
    pub sink: S,
    pub limits: BatchLimits,
    pub metrics: Arc<Metrics>,
    pub circuit: Circuit,
}

type Prepared<S> = (Batch, <S as Sink>::Form);

impl<S: Sink> Drain<S> {
    /// Runs until `stop`, or until everything is stored once `finish` is set.
    ///
    /// # Errors
    /// [`DrainError`] when the journal cannot be turned into rows.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), DrainError> {
        loop {
            let cursor = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                cursor = self.agree_on_cursor() => cursor,
            };
            let ended = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = self.store_from(cursor) => ended?,
            };
            warn!(
                lane = self.lane.number,
                position = ended,
                "database cursor moved under the drain; reading it again"
            );
            // Somebody else moves it; two that take turns must not do so as fast as they can.
            self.circuit.open().await;
        }
    }

    /// Asks the database how far this journal was stored, for as long as it takes.
    async fn agree_on_cursor(&mut self) -> StoredCursor {
        loop {
            match self.try_agree_on_cursor().await {
                Ok(cursor) => {
                    self.circuit.close();
                    return cursor;
                }
                Err(failure) => self.wait_out(&failure).await,
            }
        }
    }

    async fn try_agree_on_cursor(&mut self) -> Result<StoredCursor, SinkError> {
        let journal = &self.lane.journal;
        let ours = StoredCursor {
            generation: journal.generation(),
            position: journal.stats().freed_up_to,
        };
        let theirs = self.sink.cursor().await?;
        let agreed = match agree(ours, theirs, journal.unagreed_end()) {
            Agreement::Continue(theirs) => theirs,
            Agreement::Begin => {
                self.sink.set_cursor(ours).await?;
                ours
            }
            Agreement::BeginAgain {
                generation,
                is_loss,
            } => {
                self.report_parting(ours, theirs, is_loss);
                let to = StoredCursor {
                    generation,
                    position: ours.position,
                };
                // The database first: a crash between the two then looks like an old journal, which loses nothing.
                self.sink.set_cursor(to).await?;
                to
            }
        };
        self.note_agreement(agreed.generation).await?;
        Ok(agreed)
    }

    fn report_parting(&self, ours: StoredCursor, theirs: Option<StoredCursor>, is_loss: bool) {
        let lane = self.lane.number;
        if is_loss {
            error!(
                lane,
                ?ours,
                ?theirs,
                "database is older than this journal: events that were stored between are gone with the newer database"
            );
        } else {
            warn!(
                lane,
                ?ours,
                ?theirs,
                "journal is an older copy of itself: all of it is offered again; nothing is stored twice"
            );
        }
    }

    /// Writes down in the journal that it and the database know the same positions.
    async fn note_agreement(&self, generation: u64) -> Result<(), SinkError> {
        let journal = self.lane.journal.clone();
        let noted = spawn_blocking(move || {
            if journal.generation() != generation {
                journal.begin_generation(generation)?;
            }
            journal.note_agreement().map_err(std::io::Error::other)
        });
        let journal_failed = |error: String| SinkError::Misconfigured(format!("journal: {error}"));
        noted
            .await
            .map_err(|error| journal_failed(error.to_string()))?
            .map_err(|error| journal_failed(error.to_string()))
    }

    /// Stores batch after batch. Returns where it was when the database's cursor turned out to stand elsewhere.
    async fn store_from(&mut self, cursor: StoredCursor) -> Result<u64, DrainError> {
        self.free(cursor.position).await?;
        let (sender, mut prepared) = mpsc::channel::<Prepared<S>>(1);
        let reader = self.lane.journal.reader(cursor.position);
        let reading = tokio::spawn(read_batches::<S>(
            Arc::clone(&self.lane),
            reader,
            self.limits,
            self.sink.form_settings(),
            sender,
        ));
        let _ends_with_us = AbortOnDrop(reading.abort_handle());
        while let Some((batch, form)) = prepared.recv().await {
            let (start, end) = (batch.start, batch.end);
            self.lane.note_oldest(Some(batch.oldest_received_us));
            if !self.store(cursor.generation, batch, form).await {
                return Ok(start);
            }
            self.free(end).await?;
            if self.lane.journal.state().durable_end == end {
                self.lane.note_oldest(None);
            }
        }
        match reading.await? {
            Ok(()) => Ok(cursor.position),
            Err(unreadable) => Err(unreadable),
        }
    }

    /// Tries until the batch is in the database. False when the cursor stands elsewhere.
    async fn store(&mut self, generation: u64, mut batch: Batch, mut form: S::Form) -> bool {
        loop {
            let started = Instant::now();
            match self.sink.store(generation, &mut batch, form).await {
                Ok(outcome) => {
                    self.circuit.close();
                    self.metrics
                        .drain_batch
                        .observe(started.elapsed().as_secs_f64());
                    return self.count(&batch, &outcome);
                }
                Err(failure) => self.wait_out(&failure).await,
            }
            if batch.is_filtered() {
                // What it left out was stored in a database that may not be the one that answers next.
                return false;
            }
            form = S::form(&self.sink.form_settings(), &batch);
        }
    }

    fn count(&self, batch: &Batch, outcome: &StoreOutcome) -> bool {
        let Stored {
            num_rows,
            num_already_stored,
            dead_letters,
        } = match outcome {
            StoreOutcome::Moved => return false,
            StoreOutcome::WasStored => {
                info!(
                    lane = self.lane.number,
                    position = batch.end,
                    "batch had been committed before its answer was lost"
                );
                &Stored {
                    num_rows: batch.num_rows(),
                    ..Stored::default()
                }
            }
            StoreOutcome::Stored(stored) => stored,
        };
        self.metrics.events_stored.inc_by(*num_rows as u64);
        self.metrics
            .events_already_stored
            .inc_by(*num_already_stored as u64);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a batch has far fewer than 2^52 rows"
        )]
        self.metrics.drain_batch_rows.observe(*num_rows as f64);
        for (code, count) in dead_letters {
            self.metrics
                .dead_letters
                .get_or_create(&Code { code })
                .inc_by(*count as u64);
        }
        true
    }

    async fn wait_out(&mut self, failure: &SinkError) {
        match failure {
            SinkError::Misconfigured(_) => {
                error!(lane = self.lane.number, error = %failure, "drain waits for the database")
            }
            SinkError::Away(_) | SinkError::Deadline(_) => {
                warn!(lane = self.lane.number, error = %failure, "drain waits for the database")
            }
        }
        self.circuit.open().await;
    }

    /// Gives the journal's space back, up to what the database has.
    async fn free(&self, position: u64) -> Result<(), DrainError> {
        let lane = Arc::clone(&self.lane);
        match spawn_blocking(move || lane.journal.free_up_to(position)).await? {
            // It will be freed with a later batch; the database knows where we are.
            Err(FreeError::OutOfSpace { .. }) => Ok(()),
            freed => Ok(freed?),
        }
    }
}

/// Reading ahead ends when its drain does.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads and encodes batch after batch, one ahead of the storing.
async fn read_batches<S: Sink>(
    lane: Arc<Lane>,
    mut reader: JournalReader,
    limits: BatchLimits,
    settings: S::FormSettings,
    sender: mpsc::Sender<Prepared<S>>,
) -> Result<(), DrainError> {
    loop {
        lane.batch_due(reader.position(), limits.age_max).await;
        let settings = settings.clone();
        let (returned, batch) = spawn_blocking(move || {
            let batch = read_batch(&mut reader, limits).map(|batch| {
                let form = S::form(&settings, &batch);
                (batch, form)
            });
            (reader, batch)
        })
        .await?;
        reader = returned;
        let prepared = batch?;
        if prepared.0.is_empty() {
            continue;
        }
        let is_all = lane.journal.state().durable_end == reader.position();
        lane.note_read(prepared.0.num_events() as u64, is_all);
        if sender.send(prepared).await.is_err() {
            return Ok(());
        }
    }
}

fn read_batch(reader: &mut JournalReader, limits: BatchLimits) -> Result<Batch, DrainError> {
    let mut batch = Batch::new(reader.position());
    let mut num_bytes = 0;
    while batch.num_events() < limits.rows_max && num_bytes < limits.bytes_max {
        let records = reader.next_batch(READ_BYTES)?;
        if records.is_empty() {
            break;
        }
        for record in records {
            num_bytes += record.payload.len();
            batch.push(record.position, record.end, record.payload)?;
        }
    }
    batch.end = reader.position();
    batch.sort();
    Ok(batch)
}

/// How the journal's and the database's idea of what was stored fit together.
#[derive(Debug, PartialEq, Eq)]
enum Agreement {
    /// The database's cursor lies within the journal.
    Continue(StoredCursor),
    /// The database meets this journal for the first time.
    Begin,
    /// One of the two was restored from an older copy. All that the journal holds is offered again under a new
    /// generation; the ranges of stored sequence numbers keep it from being stored twice.
    BeginAgain { generation: u64, is_loss: bool },
}

/// `unagreed_end`: until the two have agreed once since the journal was opened, a database cursor beyond it knows
/// a journal that ours is an older copy of; afterwards the cursor moves because we move it.
fn agree(ours: StoredCursor, theirs: Option<StoredCursor>, unagreed_end: u64) -> Agreement {
    let begin_again = |known: u64, is_loss| Agreement::BeginAgain {
        generation: ours.generation.max(known) + 1,
        is_loss,
    };
    match theirs {
        None if ours.position == 0 => Agreement::Begin,
        None => begin_again(0, true),
        Some(theirs) if theirs.generation != ours.generation => {
            begin_again(theirs.generation, theirs.generation < ours.generation)
        }
        Some(theirs) if theirs.position > unagreed_end => begin_again(theirs.generation, false),
        Some(theirs) if theirs.position < ours.position => begin_again(theirs.generation, true),
        Some(theirs) => Agreement::Continue(theirs),
    }
}

#[cfg(test)]
mod tests;
