//! What registers hold: raw values of a type, with their bytes and words in any order, and what is written to them.

use crate::event::msgpack::{write_bool, write_f64, write_int, write_uint};
use crate::pipeline::profiles::{ModbusRegister, Order, RegisterKind, Scaling};

/// A value as it stands in its registers, before it is scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Raw {
    Bool(bool),
    Uint(u64),
    Int(i64),
    Float(f64),
}

/// Why a value cannot be written to a register. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{raw} does not fit into the register's type")]
pub struct DoesNotFit {
    raw: f64,
}

impl Raw {
    /// Puts it together; `words` are as many as the type has, in the order of their addresses.
    #[must_use]
    pub fn read(register: &ModbusRegister, words: &[u16]) -> Self {
        let bits = bits_of(register, words);
        let [.., b4, b5, b6, b7] = bits.to_be_bytes();
        let (low_half, low) = (u32::from_be_bytes([b4, b5, b6, b7]), [b6, b7]);
        match register.kind {
            RegisterKind::Bool => Self::Bool(bits != 0),
            RegisterKind::U16 | RegisterKind::U32 | RegisterKind::U64 => Self::Uint(bits),
            RegisterKind::I16 => Self::Int(i64::from(i16::from_be_bytes(low))),
            RegisterKind::I32 => Self::Int(i64::from(low_half.cast_signed())),
            RegisterKind::I64 => Self::Int(bits.cast_signed()),
            RegisterKind::F32 => Self::Float(f64::from(f32::from_bits(low_half))),
            RegisterKind::F64 => Self::Float(f64::from_bits(bits)),
        }
    }

    #[must_use]
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Bool(is_set) => f64::from(u8::from(is_set)),
            Self::Uint(number) => number as f64,
            Self::Int(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    /// In the point's unit.
    #[must_use]
    pub fn scaled(self, scaling: &Scaling) -> f64 {
        match self {
            Self::Bool(_) => self.as_f64(),
            _ => self.as_f64() * scaling.scale + scaling.offset,
        }
    }

    /// Appends it as MessagePack: integers exactly, whatever a float can hold.
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(is_set) => write_bool(out, is_set),
            Self::Uint(number) => write_uint(out, number),
            Self::Int(number) => write_int(out, number),
            Self::Float(number) => write_f64(out, number),
        }
    }
}

fn bits_of(register: &ModbusRegister, words: &[u16]) -> u64 {
    let ordered = |words: &mut dyn Iterator<Item = &u16>| {
        words.fold(0, |bits: u64, word| {
            let word = match register.byte_order {
                Order::Big => *word,
                Order::Little => word.swap_bytes(),
            };
            (bits << 16) | u64::from(word)
        })
    };
    match register.word_order {
        Order::Big => ordered(&mut words.iter()),
        Order::Little => ordered(&mut words.iter().rev()),
    }
}

/// The words that stand for a value in the point's unit. Of a type without fractions the nearest that there is.
///
/// # Errors
/// [`DoesNotFit`].
pub fn words_of(register: &ModbusRegister, value: f64) -> Result<Vec<u16>, DoesNotFit> {
    let raw = match register.kind {
        RegisterKind::Bool => value,
        _ => (value - register.scaling.offset) / register.scaling.scale,
    };
    let bits = bits_for(register.kind, raw).ok_or(DoesNotFit { raw })?;
    let num_words = usize::from(register.kind.num_registers());
    let bytes = bits.to_be_bytes();
    let words = bytes.chunks_exact(2).skip(4 - num_words);
    let mut words: Vec<_> = words
        .filter_map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)))
        .map(|word| match register.byte_order {
            Order::Big => word,
            Order::Little => word.swap_bytes(),
        })
        .collect();
    if register.word_order == Order::Little {
        words.reverse();
    }
    Ok(words)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "each is within the bounds of its type, and its fraction was rounded away"
)]
fn bits_for(kind: RegisterKind, raw: f64) -> Option<u64> {
    // The first number beyond 64 bits is a power of two, which a float holds exactly.
    let within = |lowest: f64, beyond: f64| {
        let nearest = raw.round();
        (nearest >= lowest && nearest < beyond).then_some(nearest)
    };
    let (beyond_i32, beyond_i64) = (2_f64.powi(31), 2_f64.powi(63));
    match kind {
        RegisterKind::Bool => match raw {
            0.0 => Some(0),
            1.0 => Some(1),
            _ => None,
        },
        RegisterKind::U16 => within(0.0, 65_536.0).map(|raw| raw as u64),
        RegisterKind::U32 => within(0.0, 2_f64.powi(32)).map(|raw| raw as u64),
        RegisterKind::U64 => within(0.0, 2_f64.powi(64)).map(|raw| raw as u64),
        RegisterKind::I16 => {
            within(-32_768.0, 32_768.0).map(|raw| u64::from((raw as i16).cast_unsigned()))
        }
        RegisterKind::I32 => {
            within(-beyond_i32, beyond_i32).map(|raw| u64::from((raw as i32).cast_unsigned()))
        }
        RegisterKind::I64 => {
            within(-beyond_i64, beyond_i64).map(|raw| (raw as i64).cast_unsigned())
        }
        RegisterKind::F32 => {
            let single = raw as f32;
            single.is_finite().then(|| u64::from(single.to_bits()))
        }
        RegisterKind::F64 => raw.is_finite().then(|| raw.to_bits()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::inbound::modbus::testing::register;

    fn ordered(kind: &str, byte_order: Order, word_order: Order) -> ModbusRegister {
        ModbusRegister {
            byte_order,
            word_order,
            ..register(3, 0, kind)
        }
    }

    const ORDERS: [(Order, Order); 4] = [
        (Order::Big, Order::Big),
        (Order::Big, Order::Little),
        (Order::Little, Order::Big),
        (Order::Little, Order::Little),
    ];

    #[test]
    fn the_four_orders_are_those_of_the_letters() {
        // ABCD, CDAB, BADC, DCBA of 0x0102_0304.
        let words = [
            [0x0102, 0x0304],
            [0x0304, 0x0102],
            [0x0201, 0x0403],
            [0x0403, 0x0201],
        ];
        for ((byte_order, word_order), words) in ORDERS.into_iter().zip(words) {
            let register = ordered("u32", byte_order, word_order);
            assert_eq!(Raw::read(&register, &words), Raw::Uint(0x0102_0304));
            assert_eq!(
                words_of(&register, f64::from(0x0102_0304)),
                Ok(words.to_vec())
            );
        }
    }

    #[test]
    fn each_type_reads_what_its_registers_hold() {
        let cases: [(&str, &[u16], Raw); 9] = [
            ("bool", &[2], Raw::Bool(true)),
            ("u16", &[0xffff], Raw::Uint(65_535)),
            ("i16", &[0xffff], Raw::Int(-1)),
            ("u32", &[0xffff, 0xfffe], Raw::Uint(4_294_967_294)),
            ("i32", &[0xffff, 0xfffe], Raw::Int(-2)),
            ("f32", &[0x41ac, 0], Raw::Float(21.5)),
            ("u64", &[0xffff; 4], Raw::Uint(u64::MAX)),
            ("i64", &[0xffff; 4], Raw::Int(-1)),
            ("f64", &[0x4035, 0x8000, 0, 0], Raw::Float(21.5)),
        ];
        for (kind, words, expected) in cases {
            assert_eq!(Raw::read(&register(3, 0, kind), words), expected, "{kind}");
        }
    }

    #[test]
    fn a_value_that_its_type_cannot_hold_is_not_written() {
        for (kind, value) in [
            ("bool", 2.0),
            ("u16", -1.0),
            ("u16", 65_535.5),
            ("i16", 32_768.0),
            ("u32", 4_294_967_296.0),
            ("i32", -2_147_483_649.0),
            ("u64", 18_446_744_073_709_551_616.0),
            ("i64", 9_223_372_036_854_775_808.0),
            ("f32", 1e39),
            ("f64", f64::INFINITY),
            ("f64", f64::NAN),
        ] {
            assert!(
                words_of(&register(3, 0, kind), value).is_err(),
                "{kind} {value}"
            );
        }
        let mut flat = register(3, 0, "u16");
        flat.scaling.scale = 0.0;
        assert!(words_of(&flat, 1.0).is_err() && words_of(&flat, 0.0).is_err());
        assert_eq!(words_of(&register(3, 0, "u16"), 65_535.4), Ok(vec![0xffff]));
        assert_eq!(
            words_of(&register(3, 0, "i16"), -32_768.0),
            Ok(vec![0x8000])
        );
    }

    #[test]
    fn what_is_written_is_scaled_the_other_way() {
        let mut setpoint = register(3, 0, "i16");
        (setpoint.scaling.scale, setpoint.scaling.offset) = (0.1, -40.0);
        assert_eq!(words_of(&setpoint, 21.5), Ok(vec![615]));
        let read = Raw::read(&setpoint, &[615]).scaled(&setpoint.scaling);
        assert!((read - 21.5).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back(
            kind in prop::sample::select(vec!["u16", "i16", "u32", "i32", "f32", "f64", "u64", "i64"]),
            orders in prop::sample::select(ORDERS.to_vec()),
            value in 0_u16..0x8000,
        ) {
            let register = ordered(kind, orders.0, orders.1);
            let words = words_of(&register, f64::from(value)).unwrap();
            prop_assert_eq!(words.len(), usize::from(register.kind.num_registers()));
            prop_assert_eq!(Raw::read(&register, &words).as_f64(), f64::from(value));
        }
    }
}
