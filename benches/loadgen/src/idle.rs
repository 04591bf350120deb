//! Authenticated connections that only keep themselves alive, so that the core's memory can be read at each step.

use std::io::{BufRead, stdin};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use clap::Args;
use hse_ingest_core::frame::device;
use serde_json::{Value, json};

use crate::client::{Client, MqttClient};
use crate::devices;
use crate::error::BenchError;
use crate::mqtt;
use crate::target::only_loopback;

/// Well within 2.5 x the keepalive of 60 s.
const PING_EVERY: Duration = Duration::from_secs(45);

#[derive(Args)]
pub struct Arguments {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    devices: PathBuf,
    /// Totals of connections, ascending. After each a line is printed, and a line on stdin is waited for.
    #[arg(long, required = true, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=60_000))]
    steps: Vec<u32>,
    #[arg(long, default_value_t = 1)]
    epoch: u64,
    /// Speak MQTT, to the core or to a broker.
    #[arg(long)]
    mqtt: bool,
}

/// A connection that keeps itself alive.
enum Idle {
    Hdp(Client),
    Mqtt(MqttClient),
}

/// # Errors
/// A connection is refused or lost.
pub fn run(arguments: &Arguments) -> Result<Value, BenchError> {
    let address = only_loopback(arguments.address)?;
    let totals: Vec<usize> = arguments
        .steps
        .iter()
        .map(|&n| usize::try_from(n).unwrap_or(usize::MAX))
        .collect();
    let devices = devices::read(
        &arguments.devices,
        totals.iter().copied().max().unwrap_or(0),
    )?;
    let (go_on, steps) = mpsc::sync_channel(1);
    // Ends with stdin or with the process.
    thread::spawn(move || {
        for line in stdin().lock().lines() {
            if line.is_err() || go_on.send(()).is_err() {
                break;
            }
        }
    });
    let mut clients: Vec<Idle> = Vec::with_capacity(devices.len());
    for total in totals {
        for (index, device) in devices.iter().enumerate().take(total).skip(clients.len()) {
            clients.push(if arguments.mqtt {
                Idle::Mqtt(MqttClient::greet(address, index, device)?)
            } else {
                Idle::Hdp(Client::greet(address, index, device, arguments.epoch)?.0)
            });
        }
        println!("{}", json!({ "mode": "idle", "connected": clients.len() }));
        while let Err(RecvTimeoutError::Timeout) = steps.recv_timeout(PING_EVERY) {
            ping(&mut clients)?;
        }
    }
    Ok(json!({ "mode": "idle", "connected": clients.len(), "over": true }))
}

fn ping(clients: &mut [Idle]) -> Result<(), BenchError> {
    let mut frame = Vec::new();
    device::encode_ping(&mut frame, 1);
    for client in clients.iter_mut() {
        match client {
            Idle::Hdp(client) => client.send(&frame)?,
            Idle::Mqtt(client) => client.send(mqtt::PINGREQ)?,
        }
    }
    for client in clients {
        match client {
            Idle::Hdp(client) => {
                client.receive()?;
            }
            Idle::Mqtt(client) => {
                client.receive()?;
            }
        }
    }
    Ok(())
}
