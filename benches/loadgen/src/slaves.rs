//! Modbus slaves that are asked, some of them dead, and how punctual whoever asks them is.
//!
//! Each gateway is a listening socket of its own, with slaves 1 to `slaves_per_gateway` behind it; every reply is as many words of
//! zero as were asked for. A slave's polls should come at even times: its earliest one, by that grid, is taken for punctual, and what
//! the others come later is their lateness. A time of the grid at which nothing came is missed.

use std::collections::HashMap;
use std::io::{BufRead, stdin};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::error::BenchError;
use crate::latency::{Latencies, cpu_seconds};

/// Transaction, protocol, length, unit, function, address, count.
const REQUEST_BYTES: usize = 12;
const REGISTERS_MAX: u16 = 125;

#[derive(Args)]
pub struct Arguments {
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    gateways: u32,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100))]
    slaves_per_gateway: u8,
    /// Every n-th slave takes requests and answers none; 0: all answer.
    #[arg(long, default_value_t = 0)]
    dead_every: u32,
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    interval_ms: u64,
}

/// When a slave was asked, since the measurement began.
#[derive(Default)]
struct Asked {
    by_slave: HashMap<u32, Vec<Duration>>,
    since: Option<Instant>,
}

type Shared = Arc<Mutex<Asked>>;

/// Prints the gateways' ports once they listen. A line on stdin begins the measurement, the next one or the end of stdin ends it.
///
/// # Errors
/// A port cannot be had.
pub fn run(arguments: &Arguments) -> Result<Value, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::io("starting"))?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> Result<Value, BenchError> {
    let asked = Shared::default();
    let mut ports = Vec::new();
    for gateway in 0..arguments.gateways {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.map_err(BenchError::io("listening"))?;
        let address = listener.local_addr().map_err(BenchError::io("listening"))?;
        ports.push(address.port());
        let gateway = Gateway {
            first_slave: gateway * u32::from(arguments.slaves_per_gateway),
            dead_every: arguments.dead_every,
            asked: Arc::clone(&asked),
        };
        tokio::spawn(gateway.accept(listener));
    }
    println!("{}", json!({ "mode": "slaves", "ports": ports }));
    let mut lines = lines();
    lines.recv().await;
    let begun = Instant::now();
    lock(&asked).since = Some(begun);
    let cpu_before = cpu_seconds();
    lines.recv().await;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu_before;
    let asked = std::mem::take(&mut lock(&asked).by_slave);
    Ok(report(arguments, asked, seconds, cpu))
}

/// What comes on stdin, line by line. Ends with stdin or with the process.
fn lines() -> mpsc::Receiver<()> {
    let (line, lines) = mpsc::channel(2);
    thread::spawn(move || {
        for read in stdin().lock().lines() {
            if read.is_err() || line.blocking_send(()).is_err() {
                break;
            }
        }
    });
    lines
}

fn lock(asked: &Shared) -> std::sync::MutexGuard<'_, Asked> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct Gateway {
    first_slave: u32,
    dead_every: u32,
    asked: Shared,
}

impl Gateway {
    async fn accept(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            // The peer closes it when it has waited in vain.
            tokio::spawn(self.clone().answer(stream));
        }
    }

    fn note(&self, slave: u32) {
        let mut asked = lock(&self.asked);
        if let Some(since) = asked.since {
            let time = since.elapsed();
            asked.by_slave.entry(slave).or_default().push(time);
        }
    }

    async fn answer(self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut request = [0; REQUEST_BYTES];
        loop {
            stream.read_exact(&mut request).await?;
            let [
                transaction_high,
                transaction_low,
                ..,
                unit,
                function,
                _,
                _,
                count_high,
                count_low,
            ] = request;
            let slave = self.first_slave + u32::from(unit.saturating_sub(1));
            if self.dead_every > 0 && slave.is_multiple_of(self.dead_every) {
                continue;
            }
            self.note(slave);
            let count = u16::from_be_bytes([count_high, count_low]).min(REGISTERS_MAX);
            let num_bytes = u8::try_from(count * 2).unwrap_or(u8::MAX);
            let mut reply = vec![
                transaction_high,
                transaction_low,
                0,
                0,
                0,
                num_bytes + 3,
                unit,
                function,
                num_bytes,
            ];
            reply.resize(reply.len() + usize::from(num_bytes), 0);
            stream.write_all(&reply).await?;
        }
    }
}

fn report(
    arguments: &Arguments,
    asked: HashMap<u32, Vec<Duration>>,
    seconds: f64,
    cpu_seconds: f64,
) -> Value {
    let interval = Duration::from_millis(arguments.interval_ms);
    let (mut lateness, mut num_polls, mut num_missed) = (Latencies::new(), 0, 0_u128);
    let num_slaves = asked.len();
    for times in asked.into_values() {
        num_polls += times.len();
        num_missed += missed(&times, interval);
        if let Some(lateness) = &mut lateness {
            late(&times, interval).for_each(|late| lateness.record(late));
        }
    }
    json!({
        "mode": "slaves",
        "slaves_asked": num_slaves,
        "polls": num_polls,
        "missed": u64::try_from(num_missed).unwrap_or(u64::MAX),
        "lateness": lateness.map(|lateness| lateness.report()),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
    })
}

/// Places on the grid by rounding, so that lateness of up to half an interval is told from a missed time.
fn places(times: &[Duration], interval: Duration) -> impl Iterator<Item = u128> + '_ {
    let first = times.first().copied().unwrap_or_default();
    times.iter().map(move |time| {
        let since = (*time - first).as_micros() + interval.as_micros() / 2;
        since / interval.as_micros()
    })
}

fn missed(times: &[Duration], interval: Duration) -> u128 {
    let last = places(times, interval).last().unwrap_or(0);
    (last + 1).saturating_sub(times.len() as u128)
}

fn late(times: &[Duration], interval: Duration) -> impl Iterator<Item = Duration> {
    let micros = |duration: Duration| i128::try_from(duration.as_micros()).unwrap_or(i128::MAX);
    let grid = micros(interval);
    let offsets: Vec<_> = (times.iter().zip(places(times, interval)))
        .map(|(time, place)| micros(*time) - i128::try_from(place).unwrap_or(0) * grid)
        .collect();
    let punctual = offsets.iter().copied().min().unwrap_or(0);
    offsets.into_iter().map(move |offset| {
        let late = u64::try_from(offset - punctual).unwrap_or(u64::MAX);
        Duration::from_micros(late)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_counted_from_the_most_punctual_poll() {
        let interval = Duration::from_millis(100);
        let times = [5, 100, 203, 420].map(Duration::from_millis);
        let late: Vec<_> = late(&times, interval)
            .map(|late| late.as_millis())
            .collect();
        assert_eq!(late, [5, 0, 3, 20]);
        assert_eq!(missed(&times, interval), 1);
    }
}
