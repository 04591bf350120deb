//! List to rows: BRPOP one by one, INSERT of 1000 rows or of what there is after 5 seconds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use redis::aio::MultiplexedConnection;
use tokio::sync::oneshot;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Statement};

use super::{Counters, QUEUE, QueuedEvent};
use crate::error::BenchError;

const BATCH_ROWS: usize = 1000;
const FLUSH_EVERY: Duration = Duration::from_secs(5);
const POP_TIMEOUT_S: f64 = 0.1;

/// Runs until told to stop, then inserts what it holds.
pub async fn consume(
    mut redis: MultiplexedConnection,
    database: Config,
    counters: Arc<Counters>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<(), BenchError> {
    let (client, connection) = database.connect(NoTls).await?;
    tokio::spawn(connection);
    client
        .batch_execute(
            "select ensure_event_partitions(now() - interval '1 hour', now() + interval '3 hours')",
        )
        .await?;
    let full = client.prepare(&insert_statement(BATCH_ROWS)).await?;
    let mut batch: Vec<QueuedEvent> = Vec::with_capacity(BATCH_ROWS);
    let mut flushed = Instant::now();
    while stopped.try_recv().is_err() {
        if batch.len() >= BATCH_ROWS || (flushed.elapsed() >= FLUSH_EVERY && !batch.is_empty()) {
            flush(&client, &full, &mut batch, &counters).await?;
            flushed = Instant::now();
        }
        let popped: Option<(String, Vec<u8>)> = redis::cmd("BRPOP")
            .arg(QUEUE)
            .arg(POP_TIMEOUT_S)
            .query_async(&mut redis)
            .await?;
        if let Some((_, event)) = popped {
            batch.push(serde_json::from_slice(&event)?);
        }
    }
    if batch.is_empty() {
        Ok(())
    } else {
        flush(&client, &full, &mut batch, &counters).await
    }
}

async fn flush(
    client: &Client,
    full: &Statement,
    batch: &mut Vec<QueuedEvent>,
    counters: &Counters,
) -> Result<(), BenchError> {
    let times: Vec<SystemTime> = batch.iter().map(|event| time_of(event.time_us)).collect();
    let mut parameters: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(batch.len() * 7);
    for (event, time) in batch.iter().zip(&times) {
        parameters.extend([
            time as &(dyn ToSql + Sync),
            &event.device_id,
            &event.event_type,
            &event.value,
            &event.unit,
            &event.metadata,
            &event.source,
        ]);
    }
    let num_rows = if batch.len() == BATCH_ROWS {
        client.execute(full, &parameters).await?
    } else {
        client
            .execute(&insert_statement(batch.len()), &parameters)
            .await?
    };
    counters.stored.fetch_add(num_rows, Ordering::Relaxed);
    counters.inserts.fetch_add(1, Ordering::Relaxed);
    batch.clear();
    Ok(())
}

fn time_of(time_us: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(time_us).unwrap_or(0))
}

fn insert_statement(num_rows: usize) -> String {
    let rows: Vec<String> = (0..num_rows)
        .map(|row| {
            let fields: Vec<String> = (1..=7)
                .map(|field| format!("${}", row * 7 + field))
                .collect();
            format!("({})", fields.join(","))
        })
        .collect();
    format!(
        "insert into device_events (time, device_id, event_type, value, unit, metadata, source) values {}",
        rows.join(",")
    )
}
