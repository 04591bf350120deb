//! What HSE's benches are made of: the load, the floors, and the peer. `benches/run.py` puts them together.
//!
//! - `acks`, `idle`, `first-ack`: devices, seen from their side ([`load`], [`idle`], [`first_ack`]); the first two speak
//!   [`mqtt`] if asked.
//! - `floor-fdatasync`, `floor-copy`: the least that a disk and a database ask for ([`fdatasync`], [`copy`]).
//! - `slaves`: Modbus devices that are polled ([`slaves`]).
//! - `literal`: the design of the source documents behind the same protocol ([`literal`]).
//!
//! Every command prints one JSON object a line and nothing else on stdout.
//!
//! **Invariants.** Loopback only. Everything is bounded in count and in time. Load and floors make the same rows
//! ([`workload`]), so that their rates can be divided.

use std::process::ExitCode;

use clap::Parser;
use hse_ingest_core::scheduling::be_prompt;
use serde_json::Value;

mod client;
mod copy;
mod devices;
mod error;
mod fdatasync;
mod first_ack;
mod idle;
mod latency;
mod literal;
mod load;
mod mqtt;
mod slaves;
mod target;
mod workload;

use error::BenchError;

#[derive(Parser)]
#[command(
    name = "hse-loadgen",
    about = "Load, floors and the peer of HSE's benches",
    version
)]
enum Command {
    /// Send events from many devices and measure the time until their ACK.
    Acks(load::Arguments),
    /// Open authenticated connections that say nothing, step by step: a line on stdin starts the next step.
    Idle(idle::Arguments),
    /// Try to connect until the first event is acknowledged.
    FirstAck(first_ack::Arguments),
    /// Write and fdatasync in a loop, as the journal does, without anything else.
    FloorFdatasync(fdatasync::Arguments),
    /// COPY BINARY of the same rows, encoded beforehand, by one connection.
    FloorCopy(copy::Arguments),
    /// Be Modbus devices, and measure how punctually they are asked: a line on stdin begins, the next one ends it.
    Slaves(slaves::Arguments),
    /// Serve the source documents' design (Redis list, one by one, multi-row INSERT) until stdin ends.
    Literal(literal::Arguments),
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("hse-loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<Value, BenchError> {
    // Devices have processors of their own, and hear an ACK when it comes.
    be_prompt().map_err(BenchError::io("asking to be scheduled soon"))?;
    match command {
        Command::Acks(arguments) => load::run(&arguments),
        Command::Idle(arguments) => idle::run(&arguments),
        Command::FirstAck(arguments) => first_ack::run(&arguments),
        Command::FloorFdatasync(arguments) => fdatasync::run(&arguments),
        Command::FloorCopy(arguments) => copy::run(&arguments),
        Command::Slaves(arguments) => slaves::run(&arguments),
        Command::Literal(arguments) => literal::run(&arguments),
    }
}
