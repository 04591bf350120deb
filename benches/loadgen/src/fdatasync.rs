//! F1: what the disk asks for, without a journal, a socket or another thread.
//!
//! The file is what a journal segment is: preallocated, filled with zeros, on the same file system; so an
//! `fdatasync` writes data blocks and no metadata. Each write goes behind the one before and wraps at the end.
//!
//! Two views of the same writes. `latency` counts each write once. `arrivals` is what events would wait that come at even
//! times, if each write took all that came during the one before: a stall of 100 ms is one write in thousands, and yet
//! a tenth of a second's events. No group commit can be better than `arrivals`.

use std::fs::{self, File, OpenOptions};
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

/// How finely `arrivals` samples a write.
const ARRIVAL_EVERY: Duration = Duration::from_micros(50);

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

    let mut sizes = Vec::new();
    for &num_bytes in &arguments.bytes {
        sizes.push(measure_size(arguments, &file, num_bytes)?);
    }
    Ok(sizes)
}

fn measure_size(arguments: &Arguments, file: &File, num_bytes: u32) -> Result<Value, BenchError> {
    let pause = Duration::from_micros(arguments.pause_us);
    let data = vec![0xa5_u8; usize::try_from(num_bytes).unwrap_or(CHUNK_BYTES)];
    let mut latencies = Latencies::new().ok_or(BenchError::WorkerDied)?;
    let mut arrivals = Latencies::new().ok_or(BenchError::WorkerDied)?;
    let mut offset = 0;
    let mut previous = Duration::ZERO;
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
        let latency = before.elapsed();
        latencies.record(latency);
        record_arrivals(&mut arrivals, previous, latency);
        previous = latency;
        offset += u64::from(num_bytes);
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
    Ok(json!({
        "bytes": num_bytes,
        "seconds": start.elapsed().as_secs_f64(),
        "latency": latencies.report(),
        "arrivals": arrivals.report(),
    }))
}

/// What came during the write before waits for the rest of it and for this write.
fn record_arrivals(arrivals: &mut Latencies, previous: Duration, latency: Duration) {
    let mut rest = previous;
    while !rest.is_zero() {
        arrivals.record(rest + latency);
        rest = rest.saturating_sub(ARRIVAL_EVERY);
    }
}
