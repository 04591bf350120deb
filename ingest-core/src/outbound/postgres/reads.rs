//! What was stored, for those who ask a node for it: few questions at a time, each with a deadline, on connections that are not
//! the drain's.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_postgres::{Client, Error, Row};

use super::connection::{Database, classify, log_notice};
use crate::pipeline::ports::{EventQuery, SinkError, StoredEvent};

/// Questions at a time; others wait.
const READS_MAX: usize = 4;
/// For waiting, connecting and reading together.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// The server gives up too, so that what nobody waits for does not go on.
const SET_TIMEOUT: &str = "set statement_timeout = 5000; set default_transaction_read_only = on";

const EVENTS: &str = "
    select (extract(epoch from time) * 1000000)::int8, event_type, value, unit, metadata
      from device_events
     where device_id = $1
       and time >= coalesce('epoch'::timestamptz + $2::int8 * interval '1 microsecond', '-infinity')
       and time < coalesce('epoch'::timestamptz + $3::int8 * interval '1 microsecond', 'infinity')
       and (cardinality($4::text[]) = 0 or event_type = any($4))
       and (not $5::boolean or source is distinct from 'core')
     order by time desc
     limit $6";

/// Beyond this PostgreSQL's calendar would end; further than any event.
const TIME_US_MAX: i64 = 9_000_000_000_000_000;

/// Answers from the database.
pub struct EventReads {
    database: Database,
    free: Semaphore,
    idle: Mutex<Vec<Client>>,
}

impl EventReads {
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self {
            database,
            free: Semaphore::new(READS_MAX),
            idle: Mutex::default(),
        }
    }

    /// Events of one device, the newest first.
    ///
    /// # Errors
    /// [`SinkError`] when the database is away, busy, or does not let the core read.
    pub async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, SinkError> {
        let late = |_| SinkError::Deadline(READ_TIMEOUT);
        timeout(READ_TIMEOUT, self.read(query))
            .await
            .map_err(late)?
    }

    async fn read(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, SinkError> {
        let _permit = self.free.acquire().await;
        let client = match self.take_idle() {
            Some(client) => client,
            None => {
                let client = self.database.connect(log_notice).await?;
                client.batch_execute(SET_TIMEOUT).await.map_err(classify)?;
                client
            }
        };
        let (from_us, to_us) = (query.from_us.map(in_calendar), query.to_us.map(in_calendar));
        let limit = i64::from(query.limit);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] = [
            &query.device_id,
            &from_us,
            &to_us,
            &query.event_types,
            &query.is_reported_only,
            &limit,
        ];
        // A connection that failed, or whose answer nobody waited for, is not used again.
        let rows = client.query(EVENTS, &params).await.map_err(classify)?;
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(client);
        rows.iter()
            .map(stored)
            .collect::<Result<_, _>>()
            .map_err(classify)
    }

    fn take_idle(&self) -> Option<Client> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }
}

fn in_calendar(time_us: i64) -> i64 {
    time_us.clamp(-TIME_US_MAX, TIME_US_MAX)
}

fn stored(row: &Row) -> Result<StoredEvent, Error> {
    Ok(StoredEvent {
        time_us: row.try_get(0)?,
        event_type: row.try_get(1)?,
        value: row.try_get(2)?,
        unit: row.try_get(3)?,
        metadata: row.try_get(4)?,
    })
}
