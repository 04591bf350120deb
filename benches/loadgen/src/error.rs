//! What can end a bench. Nothing here is retried: a bench that went wrong has no result.

use std::net::SocketAddr;

use hse_ingest_core::frame::FrameError;

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: std::io::Error,
    },
    #[error("{address} is not a loopback address")]
    NotLoopback { address: SocketAddr },
    #[error("the database must be on this machine (127.0.0.0/8, ::1, localhost or a socket)")]
    NotLocalDatabase,
    #[error("devices: {0}")]
    Devices(#[from] serde_json::Error),
    #[error("{wanted} connections were asked for and the file holds {found} devices")]
    TooFewDevices { wanted: usize, found: usize },
    #[error("the core sent what is no frame: {0}")]
    Frame(#[from] FrameError),
    #[error("the core refused device {device}: {code} ({message})")]
    Refused {
        device: String,
        code: String,
        message: String,
    },
    #[error("not ready after {seconds} s: {what}")]
    TooLate { what: &'static str, seconds: u64 },
    #[error("the answer is not what the protocol says: {what}")]
    Protocol { what: &'static str },
    #[error("a worker thread died")]
    WorkerDied,
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] tokio_postgres::Error),
    #[error("PostgreSQL warned, so this is not the path that was asked for: {message}")]
    PostgresWarned { message: String },
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
}

impl BenchError {
    /// For `map_err`: names what was being done.
    pub fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
