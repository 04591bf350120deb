//! Devices that send events and wait for their ACK, or publish them and wait for their PUBACK.
//!
//! **Open loop** (`--rate`): every connection has a Poisson schedule of intended sends, and a latency counts from
//! the intended send, whether or not the frame could leave then; a slow core cannot slow the schedule down, so no
//! wait is omitted. **Closed loop** (`--max`): as many frames in flight as allowed, to find the maximum; with
//! `--backlog-max` it holds back while more events than that are acknowledged and not yet stored, so that the
//! rate it finds is one at which nothing lags.
//!
//! Each thread owns its connections and one epoll instance, whose time-outs are exact to microseconds: the timers
//! of an async runtime tick in milliseconds, which is more than the latency that is measured here.
//!
//! What was lost with a connection is sent again after WELCOME, what was answered with BUSY after its delay.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::devices::{self, Device};
use crate::error::BenchError;
use crate::latency::{cpu_seconds, f64_of};
use crate::target::only_loopback;
use gate::Gate;
use tally::Tally;
use worker::Worker;

mod gate;
mod schedule;
mod session;
mod tally;
mod worker;

#[derive(Args)]
pub struct Arguments {
    /// HDP port of the core, on loopback.
    #[arg(long)]
    address: SocketAddr,
    /// JSON list of devices; one connection each.
    #[arg(long)]
    devices: PathBuf,
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    events_per_frame: u32,
    /// Unacknowledged frames of a connection; the core's own limit holds too.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    inflight: u32,
    /// Events a second over all connections, open loop.
    #[arg(long, conflicts_with = "max", required_unless_present = "max", value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
    rate: Option<u64>,
    /// Closed loop: as fast as ACKs come.
    #[arg(long)]
    max: bool,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=7200))]
    seconds: u64,
    /// Seconds of the same load before that.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=600))]
    warm_up: u64,
    /// Seconds to wait for the last ACKs.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=600))]
    grace: u64,
    /// Epoch of every device; sequence numbers go on where WELCOME says.
    #[arg(long, default_value_t = 1)]
    epoch: u64,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Speak MQTT with QoS 1, to the core or to a broker, whose ports these are then.
    #[arg(long)]
    mqtt: bool,
    /// HTTP port of the core on loopback, asked for `/metrics` ten times a second.
    #[arg(long)]
    metrics: Option<SocketAddr>,
    /// With `--max`: events that may be acknowledged and not yet stored.
    #[arg(long, requires = "max", requires = "metrics")]
    backlog_max: Option<u64>,
}

/// How frames are paced.
#[derive(Clone, Copy)]
pub enum Pace {
    /// Mean time between two frames of one connection.
    Open {
        mean_gap: Duration,
    },
    Closed,
}

/// What is spoken with the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Hdp,
    Mqtt,
}

/// What every worker is told.
#[derive(Clone)]
pub struct Plan {
    pub address: SocketAddr,
    pub dialect: Dialect,
    pub events_per_frame: u32,
    pub inflight_max: usize,
    pub pace: Pace,
    pub warm_up: Duration,
    pub measured: Duration,
    pub grace: Duration,
    pub epoch: u64,
    pub gate: Option<Arc<Gate>>,
}

/// # Errors
/// The core is not there, refuses a device, or speaks another protocol.
pub fn run(arguments: &Arguments) -> Result<Value, BenchError> {
    let address = only_loopback(arguments.address)?;
    let num_connections = usize::try_from(arguments.connections).unwrap_or(usize::MAX);
    let devices = devices::read(&arguments.devices, num_connections)?;
    let gate = arguments
        .metrics
        .map(|metrics| Gate::open(metrics, arguments.backlog_max))
        .transpose()?;
    let plan = Plan {
        address,
        dialect: if arguments.mqtt {
            Dialect::Mqtt
        } else {
            Dialect::Hdp
        },
        events_per_frame: arguments.events_per_frame,
        inflight_max: usize::try_from(arguments.inflight).unwrap_or(1),
        pace: pace(arguments),
        warm_up: Duration::from_secs(arguments.warm_up),
        measured: Duration::from_secs(arguments.seconds),
        grace: Duration::from_secs(arguments.grace),
        epoch: arguments.epoch,
        gate: gate.clone(),
    };
    let tally = run_workers(&plan, devices, arguments.threads)?;
    let lag = gate.map(|gate| gate.close()).transpose()?;
    Ok(report(arguments, &tally, lag))
}

fn pace(arguments: &Arguments) -> Pace {
    let Some(rate) = arguments.rate else {
        return Pace::Closed;
    };
    let events_per_round = u64::from(arguments.connections) * u64::from(arguments.events_per_frame);
    Pace::Open {
        mean_gap: Duration::from_nanos(
            events_per_round.saturating_mul(1_000_000_000) / rate.max(1),
        ),
    }
}

/// Deals the devices out to threads, lets all of them start together, and adds up what they saw.
fn run_workers(plan: &Plan, devices: Vec<Device>, num_threads: u32) -> Result<Tally, BenchError> {
    let num_threads = usize::try_from(num_threads)
        .unwrap_or(1)
        .min(devices.len())
        .max(1);
    let mut shares: Vec<Vec<(usize, Device)>> = (0..num_threads).map(|_| Vec::new()).collect();
    for (index, device) in devices.into_iter().enumerate() {
        if let Some(share) = shares.get_mut(index % num_threads) {
            share.push((index, device));
        }
    }
    let start = Arc::new(Barrier::new(num_threads));
    let workers: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let (plan, start) = (plan.clone(), Arc::clone(&start));
            thread::spawn(move || {
                let connected = Worker::connect(plan, share);
                // All wait here, the failed too: else the others would wait for them for ever.
                start.wait();
                connected.and_then(Worker::run)
            })
        })
        .collect();
    let mut total = Tally::new()?;
    for worker in workers {
        total.add(&worker.join().map_err(|_| BenchError::WorkerDied)??)?;
    }
    Ok(total)
}

fn report(arguments: &Arguments, tally: &Tally, lag: Option<gate::Lag>) -> Value {
    let seconds = Duration::from_secs(arguments.seconds).as_secs_f64();
    json!({
        "mode": "acks",
        "loop": if arguments.max { "closed" } else { "open" },
        "connections": arguments.connections,
        "events_per_frame": arguments.events_per_frame,
        "inflight": arguments.inflight,
        "threads": arguments.threads,
        "offered_events_per_s": arguments.rate,
        "seconds": arguments.seconds,
        "events_sent": tally.events_sent,
        "events_acked": tally.events_acked,
        "events_acked_in_window": tally.events_acked_in_window,
        "events_rejected": tally.events_rejected,
        "events_unanswered": tally.events_unanswered,
        "frames_busy": tally.frames_busy,
        "frames_held_back": tally.frames_held_back,
        "reconnects": tally.reconnects,
        "errors": tally.errors,
        "acked_events_per_s": f64_of(tally.events_acked_in_window) / seconds,
        "latency": tally.latencies.report(),
        "cpu_s": cpu_seconds(),
        "drain_lag_max_s": lag.as_ref().map(|lag| lag.drain_lag_max_s),
        "backlog_events_max": lag.as_ref().map(|lag| lag.backlog_events_max),
        "stored_events_per_s": lag.as_ref().zip(tally.window.as_ref()).and_then(|(lag, w)| lag.stored_events_per_s(w)),
        "events_stored_in_run": lag.as_ref().map(|lag| lag.events_stored),
    })
}
