//! Stores batches.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::{Client, Error, Statement, Transaction};
use tracing::warn;
use uuid::Uuid;

use super::connection::{Database, Progress, classify, describe, log_notice, refuses_content};
use super::copy::{
    CopyEncoder, DEAD_LETTER_COLUMNS, EVENT_COLUMNS, NUM_EVENT_COLUMNS, write_event,
};
use super::encoded::{Encoded, REFUSED_BY_DATABASE, RefusedRows, encode, encode_dead_letters};
use super::sequences::{self, Sequences};
use crate::pipeline::batch::Batch;
use crate::pipeline::clock::now_us;
use crate::pipeline::ports::{Sink, SinkError, StoreOutcome, Stored, StoredCursor};

/// Partitions seen; more than this are asked for anew.
const KNOWN_DAYS_MAX: usize = 4096;

#[derive(Clone)]
pub struct SinkSettings {
    pub journal_id: Uuid,
    pub lane: u16,
    pub node_name: String,
    pub relevant_event_types: Arc<HashSet<String>>,
    pub direct_columnstore: bool,
}

pub struct PostgresSink {
    database: Database,
    settings: SinkSettings,
    connected: Option<Connected>,
}

struct Connected {
    client: Client,
    /// Of the conversation under way.
    progress: Progress,
    has_partitions: bool,
    known_days: HashSet<i64>,
    copy_events: Statement,
    copy_outbox: Statement,
    copy_dead_letters: Statement,
    copy_rollup_dirty: Option<Statement>,
    copy_late_hours: Statement,
}

impl PostgresSink {
    #[must_use]
    pub fn new(database: Database, settings: SinkSettings) -> Self {
        Self {
            database,
            settings,
            connected: None,
        }
    }

    async fn connect(&self) -> Result<Connected, SinkError> {
        let client = self.database.connect(log_notice).await?;
        let connected = Connected::prepare(client).await.map_err(classify)?;
        if self.settings.direct_columnstore && !connected.has_partitions {
            let set = "set timescaledb.enable_direct_compress_copy = on";
            connected
                .client
                .batch_execute(set)
                .await
                .map_err(classify)?;
        }
        Ok(connected)
    }

    /// Runs `work` on the connection, making one if need be. A connection that failed is not used again.
    async fn with_connection<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Connected, &SinkSettings) -> Result<T, Error>,
    ) -> Result<T, SinkError> {
        let connected = self.connected.take();
        let progress = Progress::default();
        let (connected, result) = progress
            .watch(async {
                let mut connected = match connected {
                    Some(connected) => connected,
                    None => self.connect().await?,
                };
                connected.progress = progress.clone();
                let result = work(&mut connected, &self.settings).await;
                Ok((connected, result))
            })
            .await?;
        if result.is_ok() {
            self.connected = Some(connected);
        }
        result.map_err(classify)
    }
}

impl Sink for PostgresSink {
    type Form = Encoded;
    type FormSettings = Arc<HashSet<String>>;

    fn form_settings(&self) -> Self::FormSettings {
        Arc::clone(&self.settings.relevant_event_types)
    }

    fn form(relevant: &Self::FormSettings, batch: &Batch) -> Encoded {
        encode(batch, relevant, &RefusedRows::new())
    }

    async fn cursor(&mut self) -> Result<Option<StoredCursor>, SinkError> {
        self.with_connection(async |connected, settings| {
            let transaction = connected.client.transaction().await?;
            let cursor = lock_cursor(&transaction, settings.journal_id).await?;
            transaction.commit().await?;
            Ok(cursor)
        })
        .await
    }

    async fn set_cursor(&mut self, to: StoredCursor) -> Result<(), SinkError> {
        self.with_connection(async |connected, settings| {
            let transaction = connected.client.transaction().await?;
            make_cursor(&transaction, settings, to).await?;
            move_cursor(&transaction, settings, to).await?;
            transaction.commit().await
        })
        .await
    }

    async fn store(
        &mut self,
        generation: u64,
        batch: &mut Batch,
        form: Encoded,
    ) -> Result<StoreOutcome, SinkError> {
        self.with_connection(async |connected, settings| {
            connected.store(settings, generation, batch, form).await
        })
        .await
    }
}

impl Connected {
    async fn prepare(client: Client) -> Result<Self, Error> {
        let has_partitions = client
            .query_one("select event_storage() = 'partitions'", &[])
            .await?
            .try_get(0)?;
        let copy = |table: &str, columns: &str| {
            format!("copy {table} ({columns}) from stdin (format binary)")
        };
        let copy_rollup_dirty = match has_partitions {
            true => Some(
                client
                    .prepare(&copy("rollup_dirty", "device_id, bucket"))
                    .await?,
            ),
            false => None,
        };
        Ok(Self {
            progress: Progress::default(),
            has_partitions,
            known_days: HashSet::new(),
            copy_events: client
                .prepare(&copy("device_events", EVENT_COLUMNS))
                .await?,
            copy_outbox: client.prepare(&copy("event_outbox", EVENT_COLUMNS)).await?,
            copy_dead_letters: client
                .prepare(&copy("dead_letters", DEAD_LETTER_COLUMNS))
                .await?,
            copy_rollup_dirty,
            // By the database's clock: readers take an hour for over by it.
            copy_late_hours: client
                .prepare(&format!(
                    "{} where bucket < date_trunc('hour', now(), 'UTC')",
                    copy("late_hours", "device_id, bucket")
                ))
                .await?,
            client,
        })
    }

    async fn store(
        &mut self,
        settings: &SinkSettings,
        generation: u64,
        batch: &mut Batch,
        form: Encoded,
    ) -> Result<StoreOutcome, Error> {
        self.ensure_partitions(batch).await?;
        let transaction = self.client.transaction().await?;
        let cursor = lock_cursor(&transaction, settings.journal_id).await?;
        let at = |position| {
            Some(StoredCursor {
                generation,
                position,
            })
        };
        if cursor == at(batch.end) {
            return Ok(StoreOutcome::WasStored);
        }
        if cursor != at(batch.start) {
            return Ok(StoreOutcome::Moved);
        }
        let stored = sequences::lock(&transaction, &batch.sequences).await?;
        let (num_already_stored, form) =
            leave_out_stored(batch, &stored, form, &settings.relevant_event_types);
        let statements = Statements {
            progress: &self.progress,
            events: &self.copy_events,
            outbox: &self.copy_outbox,
            dead_letters: &self.copy_dead_letters,
            rollup_dirty: self.copy_rollup_dirty.as_ref(),
            late_hours: &self.copy_late_hours,
        };
        let (transaction, refused) = statements
            .copy_all(transaction, batch, form, &settings.relevant_event_types)
            .await?;
        sequences::extend(&transaction, stored, &batch.sequences).await?;
        move_cursor(
            &transaction,
            settings,
            StoredCursor {
                generation,
                position: batch.end,
            },
        )
        .await?;
        transaction.commit().await?;
        Ok(StoreOutcome::Stored(Stored {
            num_rows: batch.num_rows() - refused.len(),
            num_already_stored,
            dead_letters: count_dead_letters(batch, refused.len()),
        }))
    }

    /// Makes the partitions of days that were not met before, in a transaction of their own.
    async fn ensure_partitions(&mut self, batch: &Batch) -> Result<(), Error> {
        if !self.has_partitions {
            return Ok(());
        }
        if self.known_days.len() > KNOWN_DAYS_MAX {
            self.known_days.clear();
        }
        for day_us in batch.days_us() {
            if !self.known_days.contains(&day_us) {
                let ensure = "select ensure_event_partitions(d, d) from (select to_timestamp($1::int8 / 1000000) as d) day";
                self.client.query_one(ensure, &[&day_us]).await?;
                self.progress.note();
                self.known_days.insert(day_us);
            }
        }
        Ok(())
    }
}

/// Where the pieces of a batch go.
struct Statements<'a> {
    progress: &'a Progress,
    events: &'a Statement,
    outbox: &'a Statement,
    dead_letters: &'a Statement,
    rollup_dirty: Option<&'a Statement>,
    late_hours: &'a Statement,
}

impl Statements<'_> {
    async fn copy_all<'t>(
        &self,
        transaction: Transaction<'t>,
        batch: &Batch,
        mut form: Encoded,
        relevant: &HashSet<String>,
    ) -> Result<(Transaction<'t>, RefusedRows), Error> {
        let mut refused = RefusedRows::new();
        let events = std::mem::take(&mut form.events);
        if let Err(refusal) = self.try_copy_events(&transaction, events).await? {
            warn!(
                refusal = describe(&refusal),
                rows = batch.num_rows(),
                "database refuses a row; looking for it"
            );
            refused = self.copy_passing(&transaction, batch).await?;
            form = encode(batch, relevant, &refused);
        }
        let has_ended_hours = form.has_ended_hours(now_us());
        self.copy(&transaction, self.outbox, form.outbox).await?;
        self.copy(
            &transaction,
            self.dead_letters,
            encode_dead_letters(batch, &refused),
        )
        .await?;
        if has_ended_hours {
            self.copy(&transaction, self.late_hours, form.hours.clone())
                .await?;
        }
        if let Some(rollup_dirty) = self.rollup_dirty {
            self.copy(&transaction, rollup_dirty, form.hours).await?;
        }
        Ok((transaction, refused))
    }

    /// The inner error is the database's refusal of a row; then nothing was copied and the transaction goes on.
    async fn try_copy_events(
        &self,
        transaction: &Transaction<'_>,
        pieces: Vec<Bytes>,
    ) -> Result<Result<(), Error>, Error> {
        transaction.batch_execute("savepoint events").await?;
        let copied = self.copy(transaction, self.events, pieces).await;
        let end = match &copied {
            Ok(()) => "release savepoint events",
            Err(error) if refuses_content(error) => {
                "rollback to savepoint events; release savepoint events"
            }
            Err(_) => return copied.map(Ok),
        };
        transaction.batch_execute(end).await?;
        Ok(copied)
    }

    /// Copies the rows that the database takes, halving what it refuses until single rows are left.
    async fn copy_passing(
        &self,
        transaction: &Transaction<'_>,
        batch: &Batch,
    ) -> Result<RefusedRows, Error> {
        let mut refused = RefusedRows::new();
        let mut left: Vec<Range<usize>> = Vec::from_iter(std::iter::once(0..batch.num_rows()));
        while let Some(range) = left.pop() {
            let mut rows = CopyEncoder::new(NUM_EVENT_COLUMNS);
            let in_range = batch.rows_in(range.clone());
            in_range.for_each(|row| write_event(&mut rows, &row));
            match self.try_copy_events(transaction, rows.finish()).await? {
                Ok(()) => {}
                Err(refusal) if range.len() == 1 => {
                    let reason = refusal
                        .as_db_error()
                        .map_or_else(String::new, ToString::to_string);
                    refused.insert(range.start, reason);
                }
                Err(_) => {
                    let middle = range.start + range.len() / 2;
                    left.extend([range.start..middle, middle..range.end]);
                }
            }
        }
        Ok(refused)
    }

    async fn copy(
        &self,
        transaction: &Transaction<'_>,
        statement: &Statement,
        pieces: Vec<Bytes>,
    ) -> Result<(), Error> {
        copy(transaction, statement, pieces, self.progress).await
    }
}

/// Sends a COPY stream; none is sent for no rows.
pub(super) async fn copy(
    transaction: &Transaction<'_>,
    statement: &Statement,
    pieces: Vec<Bytes>,
    progress: &Progress,
) -> Result<(), Error> {
    if pieces.is_empty() {
        return Ok(());
    }
    let mut sink = pin!(transaction.copy_in(statement).await?);
    for piece in pieces {
        // A refusal in mid-stream shows here as a closed stream; `finish` then tells why.
        if sink.send(piece).await.is_err() {
            break;
        }
        progress.note();
    }
    let finished = sink.finish().await.map(drop);
    progress.note();
    finished
}

/// Drops what the database has. Rare: a device moved between nodes, or a journal was offered again.
fn leave_out_stored(
    batch: &mut Batch,
    stored: &Sequences,
    form: Encoded,
    relevant: &HashSet<String>,
) -> (usize, Encoded) {
    let is_known = |key: &(Uuid, u64), added: &Range<u64>| {
        stored.get(key).is_some_and(|stored| stored.overlaps(added))
    };
    if !batch
        .sequences
        .iter()
        .any(|(key, added)| added.iter().any(|range| is_known(key, range)))
    {
        return (0, form);
    }
    let has = |device, epoch, seq| {
        stored
            .get(&(device, epoch))
            .is_some_and(|stored| stored.contains(seq))
    };
    let num_already_stored = batch.drop_stored(has);
    (
        num_already_stored,
        encode(batch, relevant, &RefusedRows::new()),
    )
}

fn count_dead_letters(batch: &Batch, num_refused: usize) -> Vec<(&'static str, usize)> {
    let mut counts = BTreeMap::new();
    for (_, code) in batch.rejected() {
        *counts.entry(code.as_str()).or_default() += 1;
    }
    if num_refused > 0 {
        counts.insert(REFUSED_BY_DATABASE, num_refused);
    }
    counts.into_iter().collect()
}

async fn make_cursor(
    transaction: &Transaction<'_>,
    settings: &SinkSettings,
    initial: StoredCursor,
) -> Result<(), Error> {
    let insert = "insert into ingest_cursor (journal_id, lane, generation, position, node) values ($1, $2, $3, $4, $5)
                  on conflict do nothing";
    let (generation, position) = (
        initial.generation.cast_signed(),
        initial.position.cast_signed(),
    );
    let lane = i32::from(settings.lane);
    transaction
        .execute(
            insert,
            &[
                &settings.journal_id,
                &lane,
                &generation,
                &position,
                &settings.node_name,
            ],
        )
        .await?;
    Ok(())
}

/// None when the database does not know this journal.
async fn lock_cursor(
    transaction: &Transaction<'_>,
    journal_id: Uuid,
) -> Result<Option<StoredCursor>, Error> {
    let select = "select generation, position from ingest_cursor where journal_id = $1 for update";
    let Some(row) = transaction.query_opt(select, &[&journal_id]).await? else {
        return Ok(None);
    };
    let (generation, position): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Some(StoredCursor {
        generation: generation.cast_unsigned(),
        position: position.cast_unsigned(),
    }))
}

async fn move_cursor(
    transaction: &Transaction<'_>,
    settings: &SinkSettings,
    to: StoredCursor,
) -> Result<(), Error> {
    let update = "update ingest_cursor set generation = $2, position = $3, node = $4, updated_at = now() where journal_id = $1";
    let (generation, position) = (to.generation.cast_signed(), to.position.cast_signed());
    transaction
        .execute(
            update,
            &[
                &settings.journal_id,
                &generation,
                &position,
                &settings.node_name,
            ],
        )
        .await?;
    Ok(())
}
