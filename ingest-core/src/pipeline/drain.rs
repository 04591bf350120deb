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
    /// Where the journal ended when it was opened; a database cursor beyond it knows a journal that we are a copy of.
    pub recovered_end: u64,
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
        let ours = StoredCursor {
            generation: self.lane.journal.generation(),
            position: self.lane.journal.stats().freed_up_to,
        };
        let theirs = self.sink.cursor(ours).await?;
        // From now on the database's cursor may pass what was recovered, because we move it.
        match agree(
            ours,
            theirs,
            std::mem::replace(&mut self.recovered_end, u64::MAX),
        ) {
            Agreement::Continue => Ok(theirs),
            Agreement::BeginAgain {
                generation,
                is_loss,
            } => {
                if is_loss {
                    error!(
                        lane = self.lane.number,
                        ?ours,
                        ?theirs,
                        "database is older than this journal: events that were stored between are gone with the newer database"
                    );
                } else {
                    warn!(
                        lane = self.lane.number,
                        ?ours,
                        ?theirs,
                        "journal is an older copy of itself: beginning a new generation; nothing is stored twice"
                    );
                }
                let to = StoredCursor {
                    generation,
                    position: ours.position,
                };
                // The database first: a crash between the two then looks like an old journal, which loses nothing.
                self.sink.reset_cursor(to).await?;
                self.lane
                    .journal
                    .begin_generation(generation)
                    .map_err(|e| SinkError::Misconfigured(e.to_string()))?;
                Ok(to)
            }
        }
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
        lane.note_read(prepared.0.num_events() as u64);
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
    Continue,
    /// One of the two was restored from an older copy. All that the journal holds is offered again under a new
    /// generation; the ranges of stored sequence numbers keep it from being stored twice.
    BeginAgain { generation: u64, is_loss: bool },
}

fn agree(ours: StoredCursor, theirs: StoredCursor, recovered_end: u64) -> Agreement {
    let generation = ours.generation.max(theirs.generation) + 1;
    if theirs.generation != ours.generation || theirs.position > recovered_end {
        let is_loss = theirs.generation < ours.generation;
        Agreement::BeginAgain {
            generation,
            is_loss,
        }
    } else if theirs.position < ours.position {
        Agreement::BeginAgain {
            generation,
            is_loss: true,
        }
    } else {
        Agreement::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(generation: u64, position: u64) -> StoredCursor {
        StoredCursor {
            generation,
            position,
        }
    }

    #[test]
    fn a_cursor_within_the_journal_is_followed() {
        assert_eq!(agree(at(1, 100), at(1, 100), 200), Agreement::Continue);
        assert_eq!(agree(at(1, 100), at(1, 200), 200), Agreement::Continue);
    }

    #[test]
    fn a_cursor_beyond_the_journal_means_that_the_journal_is_an_old_copy() {
        assert_eq!(
            agree(at(1, 100), at(1, 201), 200),
            Agreement::BeginAgain {
                generation: 2,
                is_loss: false
            }
        );
        assert_eq!(
            agree(at(1, 100), at(3, 150), 200),
            Agreement::BeginAgain {
                generation: 4,
                is_loss: false
            }
        );
    }

    #[test]
    fn a_cursor_before_the_journal_means_that_the_database_is_an_old_copy() {
        assert_eq!(
            agree(at(1, 100), at(1, 99), 200),
            Agreement::BeginAgain {
                generation: 2,
                is_loss: true
            }
        );
        assert_eq!(
            agree(at(2, 100), at(1, 150), 200),
            Agreement::BeginAgain {
                generation: 3,
                is_loss: true
            }
        );
    }
}
