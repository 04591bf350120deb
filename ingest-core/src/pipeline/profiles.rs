//! What devices of a kind measure and how what they say becomes values, and where those that are polled answer
//! (docs/device-profiles.md).
//!
//! The control plane has checked what the database holds, so nothing is decided here. What a later version has added and this
//! one does not know makes a profile's format `Unknown`: the device's connection goes on, and what needs the format says why it
//! cannot be had.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

#[cfg(test)]
mod tests;

/// The name in an event's metadata under which it says how far its value is to be trusted; without it, it is.
pub const QUALITY: &str = "quality";
/// The quality of a value that lies outside its point's limits. It is kept all the same.
pub const IMPLAUSIBLE: &str = "implausible";

/// A profile as the database has it; `points` and `format` are its jsonb.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileRecord {
    pub id: Uuid,
    pub version: i64,
    pub expected_interval_s: Option<i32>,
    pub points: Value,
    pub format: Value,
    /// Whose devices may have it. A snapshot of an older version does not say.
    #[serde(default)]
    pub organization_id: Uuid,
}

/// A profile as devices are served by it.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceProfile {
    pub id: Uuid,
    pub version: i64,
    /// After so long without a word a device is late; none: nobody waits.
    pub expected_interval_s: Option<i32>,
    points: HashMap<Box<str>, Arc<Point>>,
    pub format: Format,
    pub organization_id: Uuid,
}

/// What devices measure or can be told. Its key is the type of its events.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Point {
    pub key: Box<str>,
    pub unit: Option<Box<str>>,
    #[serde(rename = "type")]
    pub kind: PointKind,
    /// The limits of a plausible value, inclusive.
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub counter: Counter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointKind {
    Number,
    Boolean,
    Text,
}

/// How a counter goes on behind its end.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Counter {
    /// The point is no counter.
    None,
    /// Instead of `modulus`, in the point's unit, it shows 0 again.
    Modulus { modulus: f64 },
    /// It may begin at 0 at any time.
    Resets,
}

/// How what devices say becomes values of their points.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    /// Events have the type of a point's key.
    Hdp,
    /// A resolved name of RFC 8428 is a point's key.
    Senml,
    Json(JsonFormat),
    Modbus(Arc<ModbusFormat>),
    /// This version does not know it.
    Unknown {
        reason: String,
    },
}

/// Where the values of a point stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapped<Place> {
    pub point: Arc<Point>,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq)]
pub struct JsonFormat {
    /// The path of a list, each of whose items is a reading by itself; none: the payload is one reading.
    pub items: Option<String>,
    pub time: Option<JsonTime>,
    pub mappings: Vec<Mapped<JsonPlace>>,
}

/// Where a reading's time stands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct JsonTime {
    pub path: String,
    pub form: TimeForm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeForm {
    S,
    Ms,
    Us,
    Ns,
    Rfc3339,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct JsonPlace {
    /// `"$" *( "." name / "['" *( char / "\'" / "\\" ) "']" / "[" index "]" )`
    pub path: String,
    #[serde(flatten)]
    pub scaling: Scaling,
}

/// value = raw × scale + offset, in the unit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Scaling {
    pub scale: f64,
    pub offset: f64,
    pub unit: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ModbusFormat {
    pub poll_interval_ms: u32,
    /// Registers that one request reads at most, a coil counting for a sixteenth of one.
    pub request_registers_max: u16,
    /// Registers of no point that a request may read between two that are.
    pub request_gap_max: u16,
    pub registers: Vec<Mapped<ModbusRegister>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ModbusRegister {
    pub function: ModbusFunction,
    /// As on the wire.
    pub address: u16,
    #[serde(rename = "type")]
    pub kind: RegisterKind,
    pub byte_order: Order,
    pub word_order: Order,
    #[serde(flatten)]
    pub scaling: Scaling,
    /// A change of no more than this is not told; 0: everything that is read is told.
    pub deadband: f64,
    #[serde(rename = "writable")]
    pub is_writable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "u8")]
pub enum ModbusFunction {
    Coils,
    DiscreteInputs,
    HoldingRegisters,
    InputRegisters,
}

impl ModbusFunction {
    /// As it is on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Coils => 1,
            Self::DiscreteInputs => 2,
            Self::HoldingRegisters => 3,
            Self::InputRegisters => 4,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("there is no reading function {0}")]
pub struct UnknownFunction(u8);

impl TryFrom<u8> for ModbusFunction {
    type Error = UnknownFunction;

    fn try_from(number: u8) -> Result<Self, UnknownFunction> {
        match number {
            1 => Ok(Self::Coils),
            2 => Ok(Self::DiscreteInputs),
            3 => Ok(Self::HoldingRegisters),
            4 => Ok(Self::InputRegisters),
            other => Err(UnknownFunction(other)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegisterKind {
    Bool,
    U16,
    I16,
    U32,
    I32,
    F32,
    U64,
    I64,
    F64,
}

impl RegisterKind {
    /// How many addresses it takes.
    #[must_use]
    pub fn num_registers(self) -> u16 {
        match self {
            Self::Bool | Self::U16 | Self::I16 => 1,
            Self::U32 | Self::I32 | Self::F32 => 2,
            Self::U64 | Self::I64 | Self::F64 => 4,
        }
    }
}

/// Which part comes first: the high one (`Big`) or the low one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    Big,
    Little,
}

/// Where a device answers that is polled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModbusAddress {
    pub host: String,
    pub port: u16,
    /// The slave's number behind that port.
    pub unit_id: u8,
    pub framing: Framing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    Tcp,
    RtuOverTcp,
}

impl Point {
    /// Does the value lie within the limits?
    #[must_use]
    pub fn is_plausible(&self, value: f64) -> bool {
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }
}

impl DeviceProfile {
    #[must_use]
    pub fn of(record: &ProfileRecord) -> Self {
        let read = Read::of(record);
        let (points, format) = read.map_or_else(
            |error| {
                let reason = format!("profile {} is not understood here: {error}", record.id);
                (HashMap::new(), Format::Unknown { reason })
            },
            |read| (read.points, read.format),
        );
        Self {
            id: record.id,
            version: record.version,
            expected_interval_s: record.expected_interval_s,
            points,
            format,
            organization_id: record.organization_id,
        }
    }

    #[must_use]
    pub fn point(&self, key: &str) -> Option<&Arc<Point>> {
        self.points.get(key)
    }
}

/// A mapping that names its point.
#[derive(Deserialize)]
struct Named<Place> {
    point: Box<str>,
    #[serde(flatten)]
    place: Place,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum NamedFormat {
    Hdp,
    Senml,
    Json {
        items: Option<String>,
        time: Option<JsonTime>,
        mappings: Vec<Named<JsonPlace>>,
    },
    Modbus {
        poll_interval_ms: u32,
        #[serde(default = "default_request_registers_max")]
        request_registers_max: u16,
        #[serde(default = "default_request_gap_max")]
        request_gap_max: u16,
        registers: Vec<Named<ModbusRegister>>,
    },
}

/// What a reply can hold.
fn default_request_registers_max() -> u16 {
    125
}

fn default_request_gap_max() -> u16 {
    16
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("there is no point {0:?}")]
    NoPoint(Box<str>),
}

struct Read {
    points: HashMap<Box<str>, Arc<Point>>,
    format: Format,
}

impl Read {
    fn of(record: &ProfileRecord) -> Result<Self, ReadError> {
        let points = Vec::<Point>::deserialize(&record.points)?;
        let points = points
            .into_iter()
            .map(|point| (point.key.clone(), Arc::new(point)))
            .collect();
        let format = match NamedFormat::deserialize(&record.format)? {
            NamedFormat::Hdp => Format::Hdp,
            NamedFormat::Senml => Format::Senml,
            NamedFormat::Json {
                items,
                time,
                mappings,
            } => Format::Json(JsonFormat {
                items,
                time,
                mappings: mapped(&points, mappings)?,
            }),
            NamedFormat::Modbus {
                poll_interval_ms,
                request_registers_max,
                request_gap_max,
                registers,
            } => Format::Modbus(Arc::new(ModbusFormat {
                poll_interval_ms,
                request_registers_max,
                request_gap_max,
                registers: mapped(&points, registers)?,
            })),
        };
        Ok(Self { points, format })
    }
}

fn mapped<Place>(
    points: &HashMap<Box<str>, Arc<Point>>,
    named: Vec<Named<Place>>,
) -> Result<Vec<Mapped<Place>>, ReadError> {
    let with_point = |named: Named<Place>| match points.get(&named.point) {
        Some(point) => Ok(Mapped {
            point: Arc::clone(point),
            place: named.place,
        }),
        None => Err(ReadError::NoPoint(named.point)),
    };
    named.into_iter().map(with_point).collect()
}
