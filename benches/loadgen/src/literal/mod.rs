//! The peer: the design of the source documents (plan §8.1), behind the same protocol, so that one load drives both.
//!
//! A frame's events go to a Redis list as JSON, the frame is acknowledged, and a consumer takes them out one by one
//! with BRPOP and inserts 1000 rows at a time, or what there is every 5 seconds. It is in Rust and kinder than the
//! original where the original is silent: one LPUSH a frame, pipelined over a shared connection, JSON without
//! time strings, a prepared statement; no state cache and no notification are paid for.
//!
//! **Durability of its ACK**: that of the Redis behind it. With Redis' default settings, D0: the memory of one
//! process. It has no sequence window: a resend is a second row.

use std::io::{Read, stdin};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::devices;
use crate::error::BenchError;
use crate::target::{only_local_database, only_loopback};

mod consumer;
mod server;

pub const QUEUE: &str = "events:queue";
/// Longer than a stall under full load, so that a stall is not an error.
const REDIS_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Arguments {
    /// PostgreSQL on this machine, migrated.
    #[arg(long)]
    database_url: String,
    /// Redis or Valkey on loopback, without a password.
    #[arg(long)]
    redis: SocketAddr,
    /// The devices that may connect.
    #[arg(long)]
    devices: PathBuf,
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
}

/// One element of the list.
#[derive(Serialize, Deserialize)]
pub struct QueuedEvent {
    pub time_us: i64,
    pub device_id: Uuid,
    pub event_type: String,
    pub value: Option<f64>,
    pub unit: Option<String>,
    pub metadata: Option<Value>,
    pub source: String,
}

#[derive(Default)]
pub struct Counters {
    pub accepted: AtomicU64,
    pub stored: AtomicU64,
    pub inserts: AtomicU64,
}

/// # Errors
/// A server is not there, or ends while it is used.
pub fn run(arguments: &Arguments) -> Result<Value, BenchError> {
    let threads = usize::try_from(arguments.threads).unwrap_or(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(BenchError::io("starting the runtime"))?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> Result<Value, BenchError> {
    let devices = devices::read_all(&arguments.devices)?;
    let database = only_local_database(&arguments.database_url)?;
    let redis = redis::Client::open(format!("redis://{}/", only_loopback(arguments.redis)?))?;
    let counters = Arc::new(Counters::default());

    let listener = bind().await?;
    let metrics = bind().await?;
    let ports = json!({ "mode": "literal", "hdp": port(&listener)?, "metrics": port(&metrics)? });

    let pushes = connect(&redis).await?;
    let accepting = tokio::spawn(server::accept(
        listener,
        Arc::new(server::Devices::new(devices)),
        pushes,
        Arc::clone(&counters),
    ));
    let metering = tokio::spawn(server::serve_metrics(metrics, Arc::clone(&counters)));
    let (stop, stopped) = oneshot::channel();
    let consuming = tokio::spawn(consumer::consume(
        connect(&redis).await?,
        database,
        Arc::clone(&counters),
        stopped,
    ));
    println!("{ports}");

    wait_for_end_of_stdin().await?;
    accepting.abort();
    metering.abort();
    // The consumer may have ended before, with an error that is reported here.
    let _ = stop.send(());
    consuming.await.map_err(|_| BenchError::WorkerDied)??;
    Ok(json!({
        "mode": "literal",
        "over": true,
        "events_accepted": counters.accepted.load(Ordering::Relaxed),
        "events_stored": counters.stored.load(Ordering::Relaxed),
        "inserts": counters.inserts.load(Ordering::Relaxed),
    }))
}

async fn bind() -> Result<TcpListener, BenchError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(BenchError::io("listening"))
}

fn port(listener: &TcpListener) -> Result<u16, BenchError> {
    Ok(listener
        .local_addr()
        .map_err(BenchError::io("listening"))?
        .port())
}

async fn connect(redis: &redis::Client) -> Result<MultiplexedConnection, BenchError> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(REDIS_TIMEOUT));
    Ok(redis
        .get_multiplexed_async_connection_with_config(&config)
        .await?)
}

async fn wait_for_end_of_stdin() -> Result<(), BenchError> {
    let (ended, end) = oneshot::channel();
    thread::spawn(move || {
        let mut sink = [0; 256];
        while stdin().lock().read(&mut sink).is_ok_and(|n| n > 0) {}
        ended.send(())
    });
    end.await.map_err(|_| BenchError::WorkerDied)
}
