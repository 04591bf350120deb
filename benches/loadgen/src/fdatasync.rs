//! F1: what the disk asks for, without a journal, a socket or another thread.
//!
//! The file is what a journal segment is: preallocated, filled with zeros, on the same file system; so an
//! `fdatasync` writes data blocks and no metadata. Each write goes behind the one before and wraps at the end.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::error::BenchError;
use crate::latency::Latencies;

const FILE_BYTES: u64 = 64 << 20;
const CHUNK_BYTES: usize = 1 << 20;

#[derive(Args)]
pub struct Arguments {
    /// A directory on the file system of the journal; the file is removed afterwards.
    #[arg(long)]
    directory: PathBuf,
    /// Bytes of one write; several sizes are measured one after the other.
    #[arg(long, required = true, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    bytes: Vec<u32>,
    /// How long each size is measured.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Wait this long between two writes; 0 measures the disk alone.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pause_us: u64,
}

/// # Errors
/// The file cannot be made, written or synced.
pub fn run(arguments: &Arguments) -> Result<Value, BenchError> {
    let path = arguments
        .directory
        .join(format!("floor-{}.tmp", std::process::id()));
    let measured = measure(arguments, &path);
    fs::remove_file(&path).map_err(BenchError::io("removing the file"))?;
    Ok(json!({ "mode": "floor-fdatasync", "sizes": measured? }))
}

fn measure(arguments: &Arguments, path: &PathBuf) -> Result<Vec<Value>, BenchError> {
    let file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(path)
        .map_err(BenchError::io("creating the file in the directory"))?;
    let zeros = vec![0_u8; CHUNK_BYTES];
    let mut filled = 0;
    while filled < FILE_BYTES {
        file.write_all_at(&zeros, filled)
            .map_err(BenchError::io("filling the file"))?;
        filled += CHUNK_BYTES as u64;
    }
    file.sync_all()
        .map_err(BenchError::io("syncing the file"))?;

    let pause = Duration::from_micros(arguments.pause_us);
    let mut sizes = Vec::new();
    for &num_bytes in &arguments.bytes {
        let data = vec![0xa5_u8; usize::try_from(num_bytes).unwrap_or(CHUNK_BYTES)];
        let mut latencies = Latencies::new().ok_or(BenchError::WorkerDied)?;
        let mut offset = 0;
        let start = Instant::now();
        let end = start + Duration::from_secs(arguments.seconds);
        while Instant::now() < end {
            if offset + u64::from(num_bytes) > FILE_BYTES {
                offset = 0;
            }
            let before = Instant::now();
            file.write_all_at(&data, offset)
                .map_err(BenchError::io("writing"))?;
            file.sync_data().map_err(BenchError::io("fdatasync"))?;
            latencies.record(before.elapsed());
            offset += u64::from(num_bytes);
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        }
        sizes.push(json!({
            "bytes": num_bytes,
            "seconds": start.elapsed().as_secs_f64(),
            "latency": latencies.report(),
        }));
    }
    Ok(sizes)
}
