//! What of a reading is told: values as events, what cannot be read as an event of quality, and what cannot be understood as a
//! dead letter.
//!
//! ```text
//! type = point | value, unit                                            what was read
//!              | value, unit | metadata { "quality": "implausible" }    it lies outside the point's limits
//!              | no value    | metadata { "quality": "exception", "exception": 2, "reason": "illegal data address" }
//! ```
//!
//! The values of counters have `raw` in their metadata, the number as it stands in the registers, beside the scaled one.
//!
//! A value is told when it has left its deadband, or always where it has none; an exception and what cannot be understood once,
//! until something else is read. What the journal did not take was not told.

use std::collections::HashMap;

use super::value::Raw;
use crate::event::Event;
use crate::event::msgpack::{write_map_len, write_str, write_uint};
use crate::frame::encode_event;
use crate::pipeline::profiles::{
    Counter, IMPLAUSIBLE, Mapped, ModbusFormat, ModbusRegister, QUALITY,
};

/// There is no value: the device has said why.
const EXCEPTION: &str = "exception";

/// What was read of one register, or of those that make one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    Words(Vec<u16>),
    /// The device refused to say.
    Exception(u8),
}

/// What a register's point was last told to be.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Value { value: f64, is_plausible: bool },
    Exception(u8),
    NotUnderstood(Vec<u16>),
}

/// What is to be told of one poll.
#[derive(Debug, Default)]
pub struct Telling {
    pub num_events: u32,
    /// Encoded, one behind the other.
    pub events: Vec<u8>,
    pub not_understood: Vec<NotUnderstood>,
    told: Vec<(usize, Told)>,
}

/// Registers that hold nothing that can be a value of their point.
#[derive(Debug, PartialEq, Eq)]
pub struct NotUnderstood {
    /// Where they are.
    pub place: String,
    pub words: Vec<u16>,
    pub reason: String,
}

/// What was told of one device.
#[derive(Debug, Default)]
pub struct Teller {
    told: HashMap<usize, Told>,
}

impl Teller {
    /// Says what is to be told of what was read; of the registers by their places in the profile. It counts as told with
    /// [`Self::note_told`].
    #[must_use]
    pub fn tell(
        &self,
        format: &ModbusFormat,
        readings: &[(usize, Reading)],
        time_us: i64,
    ) -> Telling {
        let mut telling = Telling::default();
        for (place, reading) in readings {
            let Some(mapped) = format.registers.get(*place) else {
                continue;
            };
            let told = telling_of(mapped, reading);
            let known = self.told.get(place);
            if known.is_some_and(|known| is_old(known, &told, mapped.place.deadband)) {
                continue;
            }
            match &told {
                Told::NotUnderstood(words) => {
                    telling.not_understood.push(not_understood(mapped, words));
                }
                Told::Value { .. } | Told::Exception(_) => {
                    let metadata = metadata_of(mapped, reading, &told);
                    write_event(&mut telling.events, mapped, &told, &metadata, time_us);
                    telling.num_events += 1;
                }
            }
            telling.told.push((*place, told));
        }
        telling
    }

    pub fn note_told(&mut self, telling: Telling) {
        self.told.extend(telling.told);
    }

    /// What was told may not have been heard: it is told again.
    pub fn forget(&mut self) {
        self.told.clear();
    }
}

fn telling_of(mapped: &Mapped<ModbusRegister>, reading: &Reading) -> Told {
    match reading {
        Reading::Exception(code) => Told::Exception(*code),
        Reading::Words(words) => {
            let value = Raw::read(&mapped.place, words).scaled(&mapped.place.scaling);
            match value.is_finite() {
                true => Told::Value {
                    value,
                    is_plausible: mapped.point.is_plausible(value),
                },
                false => Told::NotUnderstood(words.clone()),
            }
        }
    }
}

/// Is there nothing to tell?
fn is_old(known: &Told, now: &Told, deadband: f64) -> bool {
    match (known, now) {
        (
            Told::Value {
                value: was,
                is_plausible: was_plausible,
            },
            Told::Value {
                value,
                is_plausible,
            },
        ) => deadband > 0.0 && was_plausible == is_plausible && (value - was).abs() <= deadband,
        _ => known == now,
    }
}

fn write_event(
    out: &mut Vec<u8>,
    mapped: &Mapped<ModbusRegister>,
    told: &Told,
    metadata: &[u8],
    time_us: i64,
) {
    let value = match told {
        Told::Value { value, .. } => Some(*value),
        Told::Exception(_) | Told::NotUnderstood(_) => None,
    };
    let unit = mapped.place.scaling.unit.as_deref();
    let event = Event {
        time_us: Some(time_us),
        event_type: &mapped.point.key,
        value,
        unit: unit.filter(|_| value.is_some()),
        metadata: Some(metadata).filter(|metadata| !metadata.is_empty()),
        device_id: None,
    };
    encode_event(&event, out);
}

/// A MessagePack map; empty where there is nothing to add to the value.
fn metadata_of(mapped: &Mapped<ModbusRegister>, reading: &Reading, told: &Told) -> Vec<u8> {
    let mut out = Vec::new();
    match (told, reading) {
        (Told::Exception(code), _) => {
            write_map_len(&mut out, 3);
            write_str(&mut out, QUALITY);
            write_str(&mut out, EXCEPTION);
            write_str(&mut out, "exception");
            write_uint(&mut out, u64::from(*code));
            write_str(&mut out, "reason");
            write_str(&mut out, exception_name(*code));
        }
        (Told::Value { is_plausible, .. }, Reading::Words(words)) => {
            let is_counter = mapped.point.counter != Counter::None;
            let num_pairs = usize::from(!is_plausible) + usize::from(is_counter);
            if num_pairs > 0 {
                write_map_len(&mut out, num_pairs);
            }
            if !is_plausible {
                write_str(&mut out, QUALITY);
                write_str(&mut out, IMPLAUSIBLE);
            }
            if is_counter {
                write_str(&mut out, "raw");
                Raw::read(&mapped.place, words).write(&mut out);
            }
        }
        (Told::Value { .. } | Told::NotUnderstood(_), _) => {}
    }
    out
}

fn not_understood(mapped: &Mapped<ModbusRegister>, words: &[u16]) -> NotUnderstood {
    let (register, key) = (&mapped.place, &mapped.point.key);
    let number = Raw::read(register, words).as_f64();
    let reason = match number.is_finite() {
        true => format!("point {key:?}: {number} is beyond what a value can be once it is scaled"),
        false => format!("point {key:?}: the registers hold {number}, which is no value"),
    };
    NotUnderstood {
        place: format!("modbus/{}/{}", register.function.number(), register.address),
        words: words.to_vec(),
        reason,
    }
}

/// As the specification calls it.
#[must_use]
pub fn exception_name(code: u8) -> &'static str {
    match code {
        1 => "illegal function",
        2 => "illegal data address",
        3 => "illegal data value",
        4 => "server device failure",
        5 => "acknowledge",
        6 => "server device busy",
        8 => "memory parity error",
        10 => "gateway path unavailable",
        11 => "gateway target device failed to respond",
        _ => "unknown exception",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::metadata_to_json;
    use crate::frame::EventIter;
    use crate::inbound::modbus::testing::of;

    /// A counter in tenths, a level with a deadband and limits, and a measurement as a float.
    fn format() -> ModbusFormat {
        let point = |key: &str, counter: &str, max: Option<u32>| {
            json!({"key": key, "name": key, "unit": "kWh", "type": "number", "min": 0, "max": max,
                "counter": {"kind": counter}})
        };
        let register = |point: &str, kind: &str, scale: f64, deadband: u32| {
            json!({"point": point, "function": 4, "address": 7, "type": kind, "byte_order": "big", "word_order": "big",
                "scale": scale, "offset": 0, "unit": "kWh", "deadband": deadband, "writable": false})
        };
        of(
            json!([
                point("energy", "resets", None),
                point("level", "none", Some(100)),
                point("power", "none", None)
            ]),
            json!([
                register("energy", "u16", 0.1, 0),
                register("level", "i16", 1.0, 5),
                register("power", "f32", 1.0, 0)
            ]),
        )
    }

    fn words(words: &[u16]) -> Reading {
        Reading::Words(words.to_vec())
    }

    /// Type, value and metadata of what is told.
    fn told(telling: &Telling) -> Vec<(String, Option<f64>, serde_json::Value)> {
        let events = EventIter::new(&telling.events, telling.num_events);
        let told = events.map(|event| {
            let event = event.unwrap().event;
            assert_eq!(event.time_us, Some(5));
            let metadata = event.metadata.map_or(serde_json::Value::Null, |metadata| {
                let mut json = Vec::new();
                metadata_to_json(metadata, &mut json).unwrap();
                serde_json::from_slice(&json).unwrap()
            });
            (event.event_type.to_owned(), event.value, metadata)
        });
        told.collect()
    }

    struct Asked {
        teller: Teller,
        format: ModbusFormat,
    }

    impl Asked {
        fn new() -> Self {
            let teller = Teller::default();
            Self {
                teller,
                format: format(),
            }
        }

        fn tell(
            &mut self,
            place: usize,
            reading: Reading,
        ) -> Vec<(String, Option<f64>, serde_json::Value)> {
            let telling = self.teller.tell(&self.format, &[(place, reading)], 5);
            let told = told(&telling);
            self.teller.note_told(telling);
            told
        }
    }

    #[test]
    fn a_counter_keeps_what_it_shows_beside_its_value() {
        let expected = [("energy".to_owned(), Some(12.3), json!({"raw": 123}))];
        let mut asked = Asked::new();
        for _ in 0..2 {
            let mut told = asked.tell(0, words(&[123]));
            told[0].1 = told[0].1.map(|value| (value * 10.0).round() / 10.0);
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn a_counter_keeps_what_no_float_can_hold() {
        let point = json!({"key": "n", "name": "", "unit": null, "type": "number", "min": null, "max": null, "counter": {"kind": "resets"}});
        let told_of = |kind: &str, read: [u16; 4]| {
            let register = json!({"point": "n", "function": 4, "address": 7, "type": kind, "byte_order": "big",
                "word_order": "big", "scale": 0.5, "offset": 0, "unit": null, "deadband": 0, "writable": false});
            let format = of(json!([point]), json!([register]));
            told(&Teller::default().tell(&format, &[(0, words(&read))], 5)).remove(0)
        };
        let cases = [
            ("u64", [0xffff; 4], 2_f64.powi(63), json!(u64::MAX)),
            (
                "i64",
                [0x8000, 0, 0, 1],
                -(2_f64.powi(62)),
                json!(i64::MIN + 1),
            ),
            (
                "u64",
                [0x20, 0, 0, 1],
                2_f64.powi(52),
                json!((1_u64 << 53) + 1),
            ),
        ];
        for (kind, read, value, raw) in cases {
            let expected = ("n".to_owned(), Some(value), json!({"raw": raw}));
            assert_eq!(told_of(kind, read), expected);
        }
    }

    #[test]
    fn a_value_is_told_once_it_has_left_its_deadband() {
        let mut asked = Asked::new();
        let told: Vec<_> = [10, 15, 6, 4, 9, 10]
            .map(|value| asked.tell(1, words(&[value])))
            .concat();
        let values: Vec<_> = told.into_iter().map(|(_, value, _)| value).collect();
        assert_eq!(values, [Some(10.0), Some(4.0), Some(10.0)]);
    }

    #[test]
    fn an_implausible_value_is_told_and_marked_also_within_the_deadband() {
        let mut asked = Asked::new();
        assert_eq!(
            asked.tell(1, words(&[99])),
            [("level".to_owned(), Some(99.0), json!(null))]
        );
        let marked = json!({"quality": "implausible"});
        assert_eq!(
            asked.tell(1, words(&[101])),
            [("level".to_owned(), Some(101.0), marked)]
        );
        assert_eq!(asked.tell(1, words(&[0xffff])).len(), 1);
    }

    #[test]
    fn an_exception_is_told_once_and_so_is_what_comes_after_it() {
        let mut asked = Asked::new();
        assert_eq!(asked.tell(1, words(&[50])).len(), 1);
        let metadata =
            json!({"quality": "exception", "exception": 2, "reason": "illegal data address"});
        let expected = [("level".to_owned(), None, metadata)];
        assert_eq!(asked.tell(1, Reading::Exception(2)), expected);
        assert!(asked.tell(1, Reading::Exception(2)).is_empty());
        assert_eq!(asked.tell(1, Reading::Exception(4)).len(), 1);
        assert_eq!(asked.tell(1, words(&[50])).len(), 1);
    }

    #[test]
    fn what_is_no_value_is_not_told_as_one_and_reported_once() {
        let mut asked = Asked::new();
        let not_a_number = [0x7fc0, 0];
        let telling = asked
            .teller
            .tell(&asked.format, &[(2, words(&not_a_number))], 5);
        assert_eq!(telling.num_events, 0);
        let expected = NotUnderstood {
            place: "modbus/4/7".to_owned(),
            words: not_a_number.to_vec(),
            reason: r#"point "power": the registers hold NaN, which is no value"#.to_owned(),
        };
        assert_eq!(telling.not_understood, [expected]);
        asked.teller.note_told(telling);
        let again = asked
            .teller
            .tell(&asked.format, &[(2, words(&not_a_number))], 5);
        assert!(again.not_understood.is_empty());
        assert_eq!(asked.tell(2, words(&[0x41ac, 0])).len(), 1);
    }

    #[test]
    fn what_is_no_value_once_it_is_scaled_is_not_told_as_one() {
        let mut format = format();
        format.registers[1].place.scaling.scale = 1e308;
        let telling = Teller::default().tell(&format, &[(1, words(&[99]))], 5);
        assert_eq!(telling.num_events, 0);
        let [not_understood] = &telling.not_understood[..] else {
            panic!("{telling:?}")
        };
        assert!(
            not_understood
                .reason
                .contains("99 is beyond what a value can be")
        );
    }

    #[test]
    fn what_was_not_noted_or_is_forgotten_is_told_again() {
        let mut asked = Asked::new();
        let reading = [(1, words(&[50]))];
        for _ in 0..2 {
            assert_eq!(asked.teller.tell(&asked.format, &reading, 5).num_events, 1);
        }
        assert_eq!(asked.tell(1, words(&[50])).len(), 1);
        assert!(asked.tell(1, words(&[50])).is_empty());
        asked.teller.forget();
        assert_eq!(asked.tell(1, words(&[50])).len(), 1);
    }
}
