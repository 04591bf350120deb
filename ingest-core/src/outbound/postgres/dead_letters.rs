//! Tries dead letters again: an unknown child may have been registered, a time may have come, a constraint may be gone.
//!
//! Requirement D6: at most five attempts, each after twice the wait of the one before; then the letter is permanent,
//! which is reported as an error and put before the control plane through the outbox. A letter that is stored is
//! deleted in the transaction that stores it, so an event is a row or a dead letter, never both. Several nodes may run
//! this: each skips what another has locked.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::{Client, Error, Row as SqlRow, Transaction};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use super::connection::{
    Database, Progress, classify, log_notice, refuses_content, within_deadline,
};
use super::copy::{CopyEncoder, EVENT_COLUMNS, NUM_EVENT_COLUMNS, write_event};
use super::encoded::is_relevant;
use super::sink::copy;
use crate::config::DEAD_LETTER_ATTEMPTS_MAX;
use crate::event::{RejectCode, check_event};
use crate::frame::EventIter;
use crate::metrics::Metrics;
use crate::pipeline::batch::Row;
use crate::pipeline::clock::now_us;
use crate::pipeline::entry::Source;
use crate::pipeline::ports::SinkError;
use crate::pipeline::registry::DeviceRegistry;
use crate::pipeline::unreadable::reason_of;

const LOOK_EVERY: Duration = Duration::from_secs(1);
const LETTERS_PER_TRANSACTION_MAX: i64 = 100;
/// The wait before the first attempt; each later one is twice as long.
const FIRST_WAIT_US: i64 = 2_000_000;

/// The first attempt is set by the node's clock, which may have been far ahead then. None waits longer than some minutes.
const HURRY: &str = "
    update dead_letters set next_attempt_at = now()
     where id in (select id from dead_letters
                   where status = 'pending' and next_attempt_at > now() + interval '1 hour'
                   limit $1 for update skip locked)";

const TAKE_DUE: &str = "
    select id, device_id, epoch, seq, (extract(epoch from received_at) * 1000000)::int8, code, event, attempts, source
      from dead_letters
     where status = 'pending' and next_attempt_at <= now()
     order by next_attempt_at
     limit $1
       for update skip locked";

const POSTPONE: &str = "
    update dead_letters set attempts = $2, reason = $3, next_attempt_at = now() + $4::int8 * interval '1 microsecond'
     where id = $1";

const GIVE_UP: &str = "update dead_letters set attempts = $2, reason = $3, status = 'permanent', next_attempt_at = null where id = $1";

const ENSURE_PARTITION: &str = "
    select ensure_event_partitions(t, t) from (select to_timestamp($1::int8 / 1000000.0) as t) event";

const MARK_DIRTY: &str = "
    insert into rollup_dirty (device_id, bucket)
    values ($1, date_trunc('hour', to_timestamp($2::int8 / 1000000.0), 'UTC'))";

const MARK_LATE: &str = "
    insert into late_hours (device_id, bucket)
    select $1::uuid, hour from date_trunc('hour', to_timestamp($2::int8 / 1000000.0), 'UTC') as hour
     where hour < date_trunc('hour', now(), 'UTC')";

const ALARM: &str = "
    insert into event_outbox (time, device_id, event_type, metadata, source)
    values (now(), $1, 'dead_letter_permanent', jsonb_build_object('dead_letter_id', $2::int8, 'code', $3::text), 'hse')";

/// When a letter written now is tried first.
#[must_use]
pub fn first_attempt_us(now_us: i64) -> i64 {
    now_us.saturating_add(FIRST_WAIT_US)
}

fn wait_us(attempts: i32) -> i64 {
    FIRST_WAIT_US << attempts.clamp(0, 20)
}

pub struct DeadLetterRetry {
    pub database: Database,
    pub registry: Arc<DeviceRegistry>,
    pub metrics: Arc<Metrics>,
    pub retention_us: i64,
    /// Event types that go to the outbox too, as the drain does it.
    pub relevant_event_types: Arc<HashSet<String>>,
}

struct Letter {
    id: i64,
    device_id: Uuid,
    epoch: i64,
    seq: i64,
    received_us: i64,
    code: String,
    event: Vec<u8>,
    attempts: i32,
    source: Source,
}

impl DeadLetterRetry {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut client = None;
        while stop
            .run_until_cancelled(tokio::time::sleep(LOOK_EVERY))
            .await
            .is_some()
        {
            let attempt = stop
                .run_until_cancelled(within_deadline(self.retry_due(client.take())))
                .await;
            match attempt {
                None => return,
                Some(Ok(usable)) => client = Some(usable),
                // The drain reports an absent database; here it only means later.
                Some(Err(SinkError::Away(_) | SinkError::Deadline(_))) => {}
                Some(Err(failure)) => warn!(error = %failure, "dead letters are not being retried"),
            }
        }
    }

    async fn retry_due(&self, client: Option<Client>) -> Result<Client, SinkError> {
        if !self.registry.is_loaded() {
            // Every child would be unknown, and use up its attempts.
            return Err(SinkError::Away(
                "device registry is not loaded yet".to_owned(),
            ));
        }
        let mut client = match client {
            Some(client) => client,
            None => self.database.connect(log_notice).await?,
        };
        self.retry_some(&mut client).await.map_err(classify)?;
        Ok(client)
    }

    async fn retry_some(&self, client: &mut Client) -> Result<(), Error> {
        let mut transaction = client.transaction().await?;
        transaction
            .execute(HURRY, &[&LETTERS_PER_TRANSACTION_MAX])
            .await?;
        let rows = transaction
            .query(TAKE_DUE, &[&LETTERS_PER_TRANSACTION_MAX])
            .await?;
        let mut num_stored = 0;
        for row in &rows {
            let letter = Letter::read(row)?;
            match self.try_to_store(&mut transaction, &letter).await? {
                Ok(()) => {
                    transaction
                        .execute("delete from dead_letters where id = $1", &[&letter.id])
                        .await?;
                    num_stored += 1;
                }
                Err(reason) => self.postpone(&transaction, &letter, &reason).await?,
            }
        }
        transaction.commit().await?;
        self.metrics.events_stored.inc_by(num_stored);
        Ok(())
    }

    /// The outer error is the connection's, the inner one says why the event still cannot be stored.
    async fn try_to_store(
        &self,
        transaction: &mut Transaction<'_>,
        letter: &Letter,
    ) -> Result<Result<(), String>, Error> {
        let row = match self.check(letter) {
            Ok(row) => row,
            Err(reason) => return Ok(Err(reason)),
        };
        let savepoint = transaction.transaction().await?;
        let stored = self.store(&savepoint, &row).await;
        match stored {
            Ok(()) => savepoint.commit().await.map(Ok),
            Err(error) if refuses_content(&error) => {
                savepoint.rollback().await?;
                Ok(Err(error
                    .as_db_error()
                    .map_or_else(String::new, ToString::to_string)))
            }
            Err(error) => Err(error),
        }
    }

    async fn store(&self, savepoint: &Transaction<'_>, row: &Row<'_>) -> Result<(), Error> {
        let storage = savepoint.query_one("select event_storage()", &[]).await?;
        if storage.try_get::<_, &str>(0)? == "partitions" {
            savepoint
                .query_one(ENSURE_PARTITION, &[&row.time_us])
                .await?;
            savepoint
                .execute(MARK_DIRTY, &[&row.device_id, &row.time_us])
                .await?;
        }
        savepoint
            .execute(MARK_LATE, &[&row.device_id, &row.time_us])
            .await?;
        copy_row(savepoint, "device_events", row).await?;
        if is_relevant(row, &self.relevant_event_types) {
            copy_row(savepoint, "event_outbox", row).await?;
        }
        Ok(())
    }

    fn check<'a>(&self, letter: &'a Letter) -> Result<Row<'a>, String> {
        let decoded = EventIter::new(&letter.event, 1).next();
        let Some(Ok(event)) = decoded else {
            return Err("event cannot be decoded".to_owned());
        };
        if letter.code == RejectCode::BadPayload.as_str() {
            return Err(reason_of(&event.event).unwrap_or_else(|| letter.code.clone()));
        }
        let now = now_us();
        check_event(&event.event, now, now.saturating_sub(self.retention_us))
            .map_err(|code| code.to_string())?;
        let device_id = event.event.device_id.unwrap_or(letter.device_id);
        self.registry
            .may_speak_for(letter.device_id, device_id)
            .map_err(|code| code.to_string())?;
        let (epoch, seq) = (letter.epoch.cast_unsigned(), letter.seq.cast_unsigned());
        Ok(Row {
            time_us: event.event.time_us.unwrap_or(letter.received_us),
            device_id,
            event: event.event,
            encoded: &letter.event,
            source: letter.source,
            connected: letter.device_id,
            epoch,
            seq,
            received_us: letter.received_us,
        })
    }

    async fn postpone(
        &self,
        transaction: &Transaction<'_>,
        letter: &Letter,
        reason: &str,
    ) -> Result<(), Error> {
        let attempts = letter.attempts + 1;
        if attempts < DEAD_LETTER_ATTEMPTS_MAX {
            let wait = wait_us(attempts);
            transaction
                .execute(POSTPONE, &[&letter.id, &attempts, &reason, &wait])
                .await?;
            return Ok(());
        }
        transaction
            .execute(GIVE_UP, &[&letter.id, &attempts, &reason])
            .await?;
        transaction
            .execute(ALARM, &[&letter.device_id, &letter.id, &letter.code])
            .await?;
        self.metrics.dead_letters_permanent.inc();
        error!(dead_letter = letter.id, device_id = %letter.device_id, code = letter.code, reason, "dead letter is permanent: mend the cause, then `hse dead-letters requeue`");
        Ok(())
    }
}

async fn copy_row(savepoint: &Transaction<'_>, table: &str, row: &Row<'_>) -> Result<(), Error> {
    let statement = format!("copy {table} ({EVENT_COLUMNS}) from stdin (format binary)");
    let mut rows = CopyEncoder::new(NUM_EVENT_COLUMNS);
    write_event(&mut rows, row);
    let statement = savepoint.prepare(&statement).await?;
    copy(savepoint, &statement, rows.finish(), &Progress::default()).await
}

impl Letter {
    fn read(row: &SqlRow) -> Result<Self, Error> {
        let (epoch, seq): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        let source = row.try_get::<_, Option<&str>>(8)?.and_then(Source::named);
        Ok(Self {
            id: row.try_get(0)?,
            device_id: row.try_get(1)?,
            epoch,
            seq,
            // An older release did not keep it.
            source: source
                .unwrap_or_else(|| Source::of(epoch.cast_unsigned(), seq.cast_unsigned())),
            received_us: row.try_get(4)?,
            code: row.try_get(5)?,
            event: row.try_get(6)?,
            attempts: row.try_get(7)?,
        })
    }
}
