//! Profiles for the tests of this folder.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::pipeline::profiles::{
    DeviceProfile, Format, ModbusFormat, ModbusRegister, ProfileRecord,
};

/// A register map with a point `p0`, `p1`, ... for each function, address and type.
pub fn format(registers: &[(u8, u16, &str)]) -> ModbusFormat {
    let points: Vec<Value> = (registers.iter().enumerate())
        .map(|(place, (_, _, kind))| {
            let kind = if *kind == "bool" { "boolean" } else { "number" };
            json!({"key": format!("p{place}"), "name": "", "unit": null, "type": kind, "min": null, "max": null,
                "counter": {"kind": "none"}})
        })
        .collect();
    let registers: Vec<Value> = (registers.iter().enumerate())
        .map(|(place, (function, address, kind))| {
            json!({"point": format!("p{place}"), "function": function, "address": address, "type": kind,
                "byte_order": "big", "word_order": "big", "scale": 1, "offset": 0, "unit": null, "deadband": 0,
                "writable": false})
        })
        .collect();
    of(json!(points), json!(registers))
}

/// A register map of these points and registers.
pub fn of(points: Value, registers: Value) -> ModbusFormat {
    let record = ProfileRecord {
        id: Uuid::nil(),
        version: 1,
        expected_interval_s: None,
        points,
        format: json!({"kind": "modbus", "poll_interval_ms": 1000, "registers": registers}),
        organization_id: Uuid::nil(),
    };
    match DeviceProfile::of(&record).format {
        Format::Modbus(format) => (*format).clone(),
        other => panic!("{other:?}"),
    }
}

pub fn register(function: u8, address: u16, kind: &str) -> ModbusRegister {
    format(&[(function, address, kind)]).registers[0]
        .place
        .clone()
}
