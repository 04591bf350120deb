//! F3: `COPY BINARY` of the rows that the load would make, encoded beforehand, by one connection.
//!
//! The rows come in the order in which frames arrive (one frame of each connection in turn), or sorted by device
//! and time in runs of `--sort-rows`, which is what a drain can do with a batch. One block is encoded and sent again
//! and again; between two passes its times are moved on, so that an index sees new keys: the floor does
//! not pay for encoding, only for eight bytes a row.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::devices;
use crate::error::BenchError;
use crate::latency::f64_of;
use crate::target::only_local_database;
use crate::workload::now_us;
use rows::Block;

mod rows;

const CHUNK_BYTES: usize = 1 << 20;
const COPY: &str = "copy device_events (time, device_id, event_type, value, unit, metadata, source) from stdin (format binary)";

#[derive(Args)]
pub struct Arguments {
    /// PostgreSQL on this machine, migrated; the rows stay in its device_events.
    #[arg(long)]
    database_url: String,
    #[arg(long)]
    devices: PathBuf,
    /// Connections of the load whose rows are copied: the first so many devices of the list.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    events_per_frame: u32,
    /// Sort runs of this many rows by (device, time); 0 leaves the order of arrival.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=2_000_000))]
    sort_rows: u32,
    /// Rows of one COPY, which is one transaction; 0 = all in one.
    #[arg(long, default_value_t = 0)]
    copy_rows: u32,
    /// Rows of the block that is encoded beforehand.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1_000..=2_000_000))]
    block_rows: u32,
    /// Stop after this many seconds or rows, whichever comes first.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    #[arg(long, default_value_t = 1_000_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rows_max: u64,
    /// TimescaleDB: straight to the columnstore. A fall back to rows is an error here.
    #[arg(long)]
    direct_compress: bool,
}

/// # Errors
/// The database is not there, refuses the rows, or falls back from the columnstore.
pub fn run(arguments: &Arguments) -> Result<Value, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::io("starting the runtime"))?;
    runtime.block_on(copy(arguments))
}

async fn copy(arguments: &Arguments) -> Result<Value, BenchError> {
    let num_connections = usize::try_from(arguments.connections).unwrap_or(usize::MAX);
    let devices = devices::read(&arguments.devices, num_connections)?;
    let sort_rows = usize::try_from(arguments.sort_rows).unwrap_or(0);
    let mut block = Block::encode(
        &devices,
        arguments.events_per_frame,
        arguments.block_rows,
        sort_rows,
        now_us(),
    );

    let warnings = Arc::new(Mutex::new(None));
    let client = connect(&arguments.database_url, Arc::clone(&warnings)).await?;
    prepare(&client, arguments.direct_compress).await?;
    let wal_before = wal_position(&client).await?;

    let start = Instant::now();
    let deadline = start + Duration::from_secs(arguments.seconds);
    let mut num_rows = 0_u64;
    let mut num_copies = 0_u64;
    while num_rows < arguments.rows_max && Instant::now() < deadline {
        let rows_left = arguments.rows_max - num_rows;
        let rows_wanted = match u64::from(arguments.copy_rows) {
            0 => rows_left,
            rows => rows.min(rows_left),
        };
        num_rows += copy_once(&client, &mut block, rows_wanted, deadline).await?;
        num_copies += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    if let Some(message) = warnings
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
    {
        return Err(BenchError::PostgresWarned { message });
    }
    Ok(json!({
        "mode": "floor-copy",
        "sort_rows": arguments.sort_rows,
        "copy_rows": arguments.copy_rows,
        "direct_compress": arguments.direct_compress,
        "rows": num_rows,
        "copies": num_copies,
        "seconds": seconds,
        "rows_per_s": f64_of(num_rows) / seconds,
        "wal_bytes": wal_position(&client).await? - wal_before,
    }))
}

/// Runs one COPY of `rows_wanted` rows, fewer when the time is over; returns how many the server took.
async fn copy_once(
    client: &Client,
    block: &mut Block,
    rows_wanted: u64,
    deadline: Instant,
) -> Result<u64, BenchError> {
    let sink = client.copy_in::<_, Bytes>(COPY).await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from_static(rows::HEADER)).await?;
    let mut rows_left = rows_wanted;
    while rows_left > 0 && Instant::now() < deadline {
        let (chunk, num_rows) = block.take(rows_left, CHUNK_BYTES);
        rows_left -= num_rows;
        sink.send(chunk).await?;
    }
    sink.send(Bytes::from_static(rows::TRAILER)).await?;
    Ok(sink.as_mut().finish().await?)
}

async fn connect(url: &str, warnings: Arc<Mutex<Option<String>>>) -> Result<Client, BenchError> {
    let (client, mut connection) = only_local_database(url)?.connect(NoTls).await?;
    tokio::spawn(async move {
        while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            match message {
                Ok(AsyncMessage::Notice(notice)) if notice.severity() == "WARNING" => {
                    let mut kept = warnings.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.get_or_insert_with(|| notice.message().to_owned());
                }
                Ok(_) => {}
                // The client's call says the same.
                Err(_) => break,
            }
        }
    });
    Ok(client)
}

/// Makes the partitions that the rows will need, and starts from a checkpoint, so that no bench pays for another.
async fn prepare(client: &Client, is_direct_compress: bool) -> Result<(), BenchError> {
    client
        .batch_execute(
            "select ensure_event_partitions(now() - interval '1 hour', now() + interval '3 hours')",
        )
        .await?;
    if is_direct_compress {
        client
            .batch_execute("set timescaledb.enable_direct_compress_copy = on")
            .await?;
    }
    client.batch_execute("checkpoint").await?;
    Ok(())
}

async fn wal_position(client: &Client) -> Result<i64, BenchError> {
    let row = client
        .query_one(
            "select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8",
            &[],
        )
        .await?;
    Ok(row.try_get(0)?)
}
