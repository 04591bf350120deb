//! The events that every bench sends or copies: one shape for load, floors and peer.
//!
//! A reading is a type, a value and a unit, without metadata: the usual event of a sensor, and the one where the
//! work per event weighs most. It depends on the sequence number alone, so a frame can be made again for a resend.

use std::time::{SystemTime, UNIX_EPOCH};

use hse_ingest_core::event::Event;
use uuid::Uuid;

use crate::devices::Device;

const KINDS: [(&str, &str); 4] = [
    ("temperature", "C"),
    ("humidity", "%"),
    ("power", "W"),
    ("energy", "kWh"),
];

/// Fills `events` with those of one frame: the event `first_seq + i` was measured `num_events - 1 - i`
/// microseconds before `time_us`, and a gateway's children speak in turn.
pub fn fill_frame(
    events: &mut Vec<Event<'static>>,
    device: &Device,
    first_seq: u64,
    num_events: u32,
    time_us: i64,
) {
    events.clear();
    events.extend((0..num_events).map(|i| {
        let seq = first_seq.saturating_add(u64::from(i));
        let (event_type, unit) = kind(seq);
        Event {
            time_us: Some(
                time_us.saturating_sub(i64::from(num_events.saturating_sub(1).saturating_sub(i))),
            ),
            event_type,
            value: Some(value(seq)),
            unit: Some(unit),
            metadata: None,
            device_id: child(device, seq),
        }
    }));
}

/// The child that the event of this number is about; `None` when the device speaks for itself.
fn child(device: &Device, seq: u64) -> Option<Uuid> {
    let num_children = u64::try_from(device.children.len())
        .ok()
        .filter(|n| *n > 0)?;
    let index = usize::try_from(seq.saturating_sub(1) % num_children).ok()?;
    device.children.get(index).copied()
}

fn kind(seq: u64) -> (&'static str, &'static str) {
    let index = usize::try_from(seq % 4).unwrap_or(0);
    KINDS.get(index).copied().unwrap_or(("temperature", "C"))
}

fn value(seq: u64) -> f64 {
    // 20.00 to 29.99 in steps of a hundredth.
    let hundredths = u32::try_from(seq.wrapping_mul(7919) % 1000).unwrap_or(0);
    20.0 + f64::from(hundredths) / 100.0
}

/// Microseconds since 1970 by this machine's clock.
pub fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| i64::try_from(d.as_micros()).ok())
        .unwrap_or(0)
}
