//! How long a core that starts takes until an event is durable again, seen from a device.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use hse_ingest_core::event::Event;
use hse_ingest_core::frame::device;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::devices::{self, Device};
use crate::error::BenchError;
use crate::target::only_loopback;
use crate::workload::{fill_frame, now_us};

const RETRY_AFTER: Duration = Duration::from_millis(2);

#[derive(Args)]
pub struct Arguments {
    #[arg(long)]
    address: SocketAddr,
    /// The first device of the list is used.
    #[arg(long)]
    devices: PathBuf,
    /// When the core was started: microseconds since 1970; now, unless given.
    #[arg(long)]
    since_us: Option<i64>,
    /// Give up after this many seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    #[arg(long, default_value_t = 1)]
    epoch: u64,
}

/// # Errors
/// Nothing was acknowledged in time, or the device is refused.
pub fn run(arguments: &Arguments) -> Result<Value, BenchError> {
    let address = only_loopback(arguments.address)?;
    let devices = devices::read(&arguments.devices, 1)?;
    let device = devices.first().ok_or(BenchError::TooFewDevices {
        wanted: 1,
        found: 0,
    })?;
    let since_us = arguments.since_us.unwrap_or_else(now_us);
    let too_late = Instant::now() + Duration::from_secs(arguments.timeout);
    let mut num_attempts = 0_u64;
    loop {
        num_attempts += 1;
        match send_one(address, device, arguments.epoch) {
            Ok(welcome_us) => {
                return Ok(json!({
                    "mode": "first-ack",
                    "welcome_ms": millis(welcome_us - since_us),
                    "first_ack_ms": millis(now_us() - since_us),
                    "attempts": num_attempts,
                    "events_acked": 1,
                }));
            }
            // Not there yet: refused, or reset while it starts.
            Err(BenchError::Io { .. }) if Instant::now() < too_late => thread::sleep(RETRY_AFTER),
            Err(BenchError::Io { .. }) => {
                return Err(BenchError::TooLate {
                    what: "the first ACK",
                    seconds: arguments.timeout,
                });
            }
            Err(error) => return Err(error),
        }
    }
}

/// Sends one event until it is acknowledged; returns when WELCOME came.
fn send_one(address: SocketAddr, speaker: &Device, epoch: u64) -> Result<i64, BenchError> {
    let (mut client, welcome) = Client::greet(address, 0, speaker, epoch)?;
    let welcome_us = now_us();
    let seq = welcome.last_seq + 1;
    let mut events: Vec<Event<'static>> = Vec::new();
    fill_frame(&mut events, speaker, seq, 1, now_us());
    let mut frame = Vec::new();
    device::encode_events(&mut frame, seq, &events);
    client.send(&frame)?;
    loop {
        match client.receive()? {
            Answer::Ack { seq: acked } if acked >= seq => return Ok(welcome_us),
            Answer::Busy { retry_after } => {
                thread::sleep(retry_after);
                client.send(&frame)?;
            }
            Answer::Ack { .. } | Answer::Welcome(_) | Answer::Other => {}
        }
    }
}

fn millis(us: i64) -> f64 {
    let us = u64::try_from(us).unwrap_or(0);
    Duration::from_micros(us).as_secs_f64() * 1e3
}
