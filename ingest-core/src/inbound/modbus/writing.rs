//! Commands: a value is written to a point's registers, and read back.
//!
//! ```text
//! write { "point": key, "value": number or boolean }
//! ```
//!
//! | status | |
//! |---|---|
//! | 0 | written, and read back as it was written |
//! | 1 to 255 | the device's exception, to the writing |
//! | 256 | written, and another value was read back |
//! | 257 | written, and it could not be read back |
//! | 258 | refused here: nothing was written |
//!
//! A write without an answer ends as failed without a status, and is sent again by the control plane, as any command of which nobody
//! knows what became of it (ADR 16). Data are `point`, and the `value` and `raw` that were read back.

use std::borrow::Cow;

use serde::Deserialize;
use tokio_modbus::Request;

use super::plan::Read;
use super::telling::exception_name;
use super::value::{Raw, words_of};
use crate::event::msgpack::{write_bool, write_f64, write_map_len, write_str};
use crate::pipeline::commands::Command;
use crate::pipeline::profiles::{Mapped, ModbusFormat, ModbusFunction, ModbusRegister, PointKind};

/// The type of the command.
const WRITE: &str = "write";
pub const STATUS_READ_BACK_OTHERWISE: u64 = 256;
pub const STATUS_NOT_READ_BACK: u64 = 257;
pub const STATUS_REFUSED: u64 = 258;
/// The exception of a device that cannot write single registers.
pub const ILLEGAL_FUNCTION: u8 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    point: String,
    value: Value,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Boolean(bool),
    Number(f64),
    /// Callers whose parameters are texts.
    Text(String),
}

impl Value {
    fn number(&self) -> Option<f64> {
        match self {
            Self::Boolean(is_set) => Some(f64::from(u8::from(*is_set))),
            Self::Number(number) => Some(*number),
            Self::Text(text) => match text.trim() {
                "true" => Some(1.0),
                "false" => Some(0.0),
                text => text.parse().ok(),
            },
        }
    }
}

/// Why a command writes nothing.
#[derive(Debug, thiserror::Error)]
pub enum NotWritten {
    #[error("a polled device knows the command \"write\" alone, with a point and a value")]
    UnknownCommand,
    #[error("the parameters are not {{\"point\", \"value\"}}: {0}")]
    BadParams(#[from] rmp_serde::decode::Error),
    #[error("the profile has no registers for the point {0:?}")]
    UnknownPoint(String),
    #[error("the point {0:?} is not writable")]
    ReadOnly(String),
    #[error("{0} is no value that the point can have")]
    BadValue(String),
}

/// A command that was understood: these words, to these registers.
#[derive(Debug)]
pub struct Write<'f> {
    pub place: usize,
    mapped: &'f Mapped<ModbusRegister>,
    words: Vec<u16>,
}

/// How a write that the device answered ended.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub status: u64,
    pub message: Cow<'static, str>,
    /// A MessagePack map.
    pub data: Vec<u8>,
}

impl Outcome {
    #[must_use]
    pub fn refused(why: &NotWritten) -> Self {
        let mut data = Vec::new();
        write_map_len(&mut data, 0);
        Self {
            status: STATUS_REFUSED,
            message: format!("{why}; nothing was written").into(),
            data,
        }
    }
}

impl<'f> Write<'f> {
    /// Reads a command.
    ///
    /// # Errors
    /// [`NotWritten`].
    pub fn of(format: &'f ModbusFormat, command: &Command) -> Result<Self, NotWritten> {
        if command.command_type != WRITE {
            return Err(NotWritten::UnknownCommand);
        }
        let params: Params = rmp_serde::from_slice(&command.params)?;
        let found = (format.registers.iter().enumerate())
            .find(|(_, mapped)| *mapped.point.key == *params.point);
        let Some((place, mapped)) = found else {
            return Err(NotWritten::UnknownPoint(params.point));
        };
        if !mapped.place.is_writable {
            return Err(NotWritten::ReadOnly(params.point));
        }
        let bad = |value: &dyn std::fmt::Display| NotWritten::BadValue(value.to_string());
        let value = params.value.number().ok_or_else(|| bad(&"the given one"))?;
        if mapped.point.kind == PointKind::Number && !mapped.point.is_plausible(value) {
            return Err(bad(&format_args!("{value}, outside the point's limits,")));
        }
        let words = words_of(&mapped.place, value).map_err(|error| bad(&error))?;
        Ok(Self {
            place,
            mapped,
            words,
        })
    }

    /// `is_multiple` asks for the function that writes several registers, where another does it, too.
    #[must_use]
    pub fn request(&self, is_multiple: bool) -> Request<'static> {
        let address = self.mapped.place.address;
        match (self.mapped.place.function, self.words.as_slice()) {
            (ModbusFunction::Coils, words) => {
                Request::WriteSingleCoil(address, words.iter().any(|word| *word != 0))
            }
            (_, [word]) if !is_multiple => Request::WriteSingleRegister(address, *word),
            (_, words) => Request::WriteMultipleRegisters(address, words.to_vec().into()),
        }
    }

    /// Is there another function that writes the same?
    #[must_use]
    pub fn has_alternative(&self) -> bool {
        self.mapped.place.function == ModbusFunction::HoldingRegisters && self.words.len() == 1
    }

    /// Reads what was written.
    #[must_use]
    pub fn read_back(&self) -> Read {
        let register = &self.mapped.place;
        Read {
            function: register.function,
            address: register.address,
            count: register.kind.num_registers(),
            registers: vec![self.place],
        }
    }

    /// What a device's exception says.
    #[must_use]
    pub fn refused(&self, code: u8) -> Outcome {
        Outcome {
            status: u64::from(code),
            message: format!("exception {code}: {}", exception_name(code)).into(),
            data: self.data(None),
        }
    }

    /// What is known when the words `found` were read back; none when nothing was.
    #[must_use]
    pub fn done(&self, found: Option<&[u16]>) -> Outcome {
        let (status, message) = match found {
            Some(found) if self.is_written(found) => (0, ""),
            Some(_) => (
                STATUS_READ_BACK_OTHERWISE,
                "written, and another value was read back",
            ),
            None => (
                STATUS_NOT_READ_BACK,
                "written, and it could not be read back",
            ),
        };
        Outcome {
            status,
            message: message.into(),
            data: self.data(found),
        }
    }

    /// A register that holds a truth holds it as any number but 0.
    fn is_written(&self, found: &[u16]) -> bool {
        let raw = |words| Raw::read(&self.mapped.place, words);
        raw(found) == raw(&self.words)
    }

    fn data(&self, found: Option<&[u16]>) -> Vec<u8> {
        let register = &self.mapped.place;
        let raw = found.map(|words| Raw::read(register, words));
        let raw = raw.filter(|raw| raw.scaled(&register.scaling).is_finite());
        let mut out = Vec::new();
        write_map_len(&mut out, if raw.is_some() { 3 } else { 1 });
        write_str(&mut out, "point");
        write_str(&mut out, &self.mapped.point.key);
        if let Some(raw) = raw {
            write_str(&mut out, "value");
            match raw {
                Raw::Bool(is_set) => write_bool(&mut out, is_set),
                _ => write_f64(&mut out, raw.scaled(&register.scaling)),
            }
            write_str(&mut out, "raw");
            raw.write(&mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use tokio::time::Instant;
    use uuid::Uuid;

    use super::*;
    use crate::event::metadata_to_json;
    use crate::inbound::modbus::testing::of;

    fn format() -> ModbusFormat {
        let point = |key: &str, kind: &str, max: Option<f64>| json!({"key": key, "name": key, "unit": null, "type": kind, "min": null, "max": max, "counter": {"kind": "none"}});
        let register = |point: &str, function: u8, kind: &str, scale: f64, writable: bool| {
            json!({"point": point, "function": function, "address": 9, "type": kind, "byte_order": "big",
                "word_order": "little", "scale": scale, "offset": 0, "unit": null, "deadband": 0, "writable": writable})
        };
        of(
            json!([
                point("relay", "boolean", None),
                point("setpoint", "number", Some(30.0)),
                point("limit", "number", None),
                point("power", "number", None),
            ]),
            json!([
                register("relay", 1, "bool", 1.0, true),
                register("setpoint", 3, "i16", 0.1, true),
                register("limit", 3, "u32", 1.0, true),
                register("power", 3, "u16", 1.0, false),
            ]),
        )
    }

    fn command(command_type: &str, params: &serde_json::Value) -> Command {
        Command {
            device_id: Uuid::nil(),
            request_id: Arc::from("r"),
            command_type: command_type.to_owned(),
            params: rmp_serde::to_vec(params).unwrap(),
            deadline_us: 0,
            deadline: Instant::now(),
        }
    }

    #[tokio::test]
    async fn each_kind_of_point_is_written_with_its_function() {
        let format = format();
        let request = |point: &str, value: serde_json::Value, is_multiple| {
            let command = command("write", &json!({"point": point, "value": value}));
            Write::of(&format, &command).unwrap().request(is_multiple)
        };
        let cases = [
            (
                request("relay", json!(true), false),
                Request::WriteSingleCoil(9, true),
            ),
            (
                request("relay", json!("false"), false),
                Request::WriteSingleCoil(9, false),
            ),
            (
                request("setpoint", json!(21.5), false),
                Request::WriteSingleRegister(9, 215),
            ),
            (
                request("setpoint", json!("-3"), false),
                Request::WriteSingleRegister(9, 0xffe2),
            ),
            (
                request("setpoint", json!(21), true),
                Request::WriteMultipleRegisters(9, vec![210].into()),
            ),
            (
                request("limit", json!(65_537), false),
                Request::WriteMultipleRegisters(9, vec![1, 1].into()),
            ),
        ];
        for (request, expected) in cases {
            assert_eq!(request, expected);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_refused_with_its_reason() {
        let format = format();
        let cases = [
            (
                "reboot",
                json!({"point": "relay", "value": true}),
                "\"write\" alone",
            ),
            ("write", json!({"point": "relay"}), "missing field"),
            (
                "write",
                json!({"point": "relay", "value": true, "unit": "W"}),
                "unknown field",
            ),
            (
                "write",
                json!({"point": "heat", "value": 1}),
                "no registers",
            ),
            (
                "write",
                json!({"point": "power", "value": 1}),
                "not writable",
            ),
            (
                "write",
                json!({"point": "setpoint", "value": "warm"}),
                "no value",
            ),
            (
                "write",
                json!({"point": "setpoint", "value": 30.1}),
                "limits",
            ),
            (
                "write",
                json!({"point": "setpoint", "value": -4000}),
                "does not fit",
            ),
            (
                "write",
                json!({"point": "relay", "value": 2}),
                "does not fit",
            ),
        ];
        for (command_type, params, why) in cases {
            let refused = Write::of(&format, &command(command_type, &params));
            let said = refused.unwrap_err().to_string();
            assert!(said.contains(why), "{params}: {said}");
        }
    }

    #[tokio::test]
    async fn an_end_says_what_is_known_and_no_more() {
        let format = format();
        let command = command("write", &json!({"point": "setpoint", "value": 21.5}));
        let write = Write::of(&format, &command).unwrap();
        let told = |outcome: Outcome| {
            let mut json = Vec::new();
            metadata_to_json(&outcome.data, &mut json).unwrap();
            let data: serde_json::Value = serde_json::from_slice(&json).unwrap();
            (outcome.status, data)
        };
        let at = |value: f64, raw: i64| json!({"point": "setpoint", "value": value, "raw": raw});
        assert_eq!(told(write.done(Some(&[215]))), (0, at(21.5, 215)));
        assert_eq!(told(write.done(Some(&[200]))), (256, at(20.0, 200)));
        assert_eq!(told(write.done(None)), (257, json!({"point": "setpoint"})));
        assert_eq!(told(write.refused(4)), (4, json!({"point": "setpoint"})));
    }
}
