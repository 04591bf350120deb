//! What was stored, for those who ask a node for it: few questions at a time, each with a deadline, on connections that are not
//! the drain's.

use std::time::Duration;

use tokio_postgres::{Client, Error, Row};

use super::connection::Database;
use super::few::FewConnections;
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
    connections: FewConnections,
}

impl EventReads {
    #[must_use]
    pub fn new(database: Database) -> Self {
        let connections = FewConnections::new(database, READS_MAX, SET_TIMEOUT, READ_TIMEOUT);
        Self { connections }
    }

    /// Events of one device, the newest first.
    ///
    /// # Errors
    /// [`SinkError`] when the database is away, busy, or does not let the core read.
    pub async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, SinkError> {
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
        let read = async |client: &Client| {
            let rows = client.query(EVENTS, &params).await?;
            rows.iter().map(stored).collect()
        };
        self.connections.ask(read).await
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
