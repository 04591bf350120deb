//! Which requests read a device: registers that lie near each other are asked for together.

use crate::pipeline::profiles::{Mapped, ModbusFormat, ModbusFunction, ModbusRegister};

/// Bits that take the room of one register in a reply.
const BITS_PER_REGISTER: u32 = 16;

/// One request: `count` addresses from `address` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub function: ModbusFunction,
    pub address: u16,
    pub count: u16,
    /// Places in the profile's list of registers, by address.
    pub registers: Vec<usize>,
}

impl Read {
    fn of(place: usize, register: &ModbusRegister) -> Self {
        Self {
            function: register.function,
            address: register.address,
            count: register.kind.num_registers(),
            registers: vec![place],
        }
    }

    fn end(&self) -> u32 {
        u32::from(self.address) + u32::from(self.count)
    }

    /// Takes another in, if the request stays within the limits.
    fn take(&mut self, other: &Self, limits: &Limits) -> bool {
        let (registers_max, gap_max) = limits.of(self.function);
        let end = self.end().max(other.end());
        let count = end - u32::from(self.address);
        let is_near = u32::from(other.address) <= self.end() + gap_max;
        let Ok(num_addresses) = u16::try_from(count) else {
            return false;
        };
        if other.function != self.function || !is_near || count > registers_max {
            return false;
        }
        self.count = num_addresses;
        self.registers.extend_from_slice(&other.registers);
        true
    }

    /// One request for each of its registers.
    #[must_use]
    pub fn split(&self, format: &ModbusFormat) -> Vec<Self> {
        let registers = (self.registers.iter())
            .filter_map(|place| Some((*place, &format.registers.get(*place)?.place)));
        registers
            .map(|(place, register)| Self::of(place, register))
            .collect()
    }
}

struct Limits {
    registers_max: u32,
    gap_max: u32,
}

impl Limits {
    /// In addresses of that function.
    fn of(&self, function: ModbusFunction) -> (u32, u32) {
        match function {
            ModbusFunction::Coils | ModbusFunction::DiscreteInputs => (
                self.registers_max * BITS_PER_REGISTER,
                self.gap_max * BITS_PER_REGISTER,
            ),
            ModbusFunction::HoldingRegisters | ModbusFunction::InputRegisters => {
                (self.registers_max, self.gap_max)
            }
        }
    }
}

/// The requests that read all registers of a profile, as few as its limits allow. A value is never read in two parts.
#[must_use]
pub fn plan(format: &ModbusFormat) -> Vec<Read> {
    let limits = Limits {
        registers_max: u32::from(format.request_registers_max),
        gap_max: u32::from(format.request_gap_max),
    };
    let mut single: Vec<_> = (format.registers.iter().enumerate())
        .map(
            |(
                place,
                Mapped {
                    place: register, ..
                },
            )| Read::of(place, register),
        )
        .collect();
    single.sort_by_key(|read| (read.function, read.address, read.count));
    let mut reads: Vec<Read> = Vec::new();
    for read in single {
        let is_taken = (reads.last_mut()).is_some_and(|last| last.take(&read, &limits));
        if !is_taken {
            reads.push(read);
        }
    }
    reads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::modbus::testing::format;

    /// Function, address and type of each register; function, address, count and places of each request.
    fn planned(
        limits: (u16, u16),
        registers: &[(u8, u16, &str)],
    ) -> Vec<(u8, u16, u16, Vec<usize>)> {
        let mut format = format(registers);
        (format.request_registers_max, format.request_gap_max) = limits;
        let told = |read: Read| {
            let function = read.function.number();
            (function, read.address, read.count, read.registers)
        };
        plan(&format).into_iter().map(told).collect()
    }

    #[test]
    fn registers_that_lie_near_each_other_are_one_request() {
        let registers = [(3, 10, "u32"), (3, 0, "u16"), (4, 1, "u16"), (3, 3, "f64")];
        let expected = [(3, 0, 12, vec![1, 3, 0]), (4, 1, 1, vec![2])];
        assert_eq!(planned((125, 3), &registers), expected);
        let without_gaps = [
            (3, 0, 1, vec![1]),
            (3, 3, 4, vec![3]),
            (3, 10, 2, vec![0]),
            (4, 1, 1, vec![2]),
        ];
        assert_eq!(planned((125, 0), &registers), without_gaps);
    }

    #[test]
    fn no_request_is_larger_than_it_may_be_and_no_value_is_cut() {
        let registers: Vec<_> = (0..100).map(|n| (3, n * 2, "u32")).collect();
        let counts = |registers_max| {
            let reads = planned((registers_max, 0), &registers);
            reads.into_iter().map(|read| read.2).collect::<Vec<_>>()
        };
        assert_eq!(counts(125), [124, 76]);
        assert_eq!(counts(3), vec![2; 100]);
        let last = [(3, 65_532, "u64"), (3, 65_535, "u16")];
        assert_eq!(planned((125, 8), &last), [(3, 65_532, 4, vec![0, 1])]);
    }

    #[test]
    fn a_map_that_no_device_has_breaks_nothing() {
        let beyond = [(3, 65_535, "f64"), (3, 65_533, "u32"), (1, 65_535, "bool")];
        let single = [
            (1, 65_535, 1, vec![2]),
            (3, 65_533, 2, vec![1]),
            (3, 65_535, 4, vec![0]),
        ];
        assert_eq!(planned((0, u16::MAX), &beyond), single);
        let ends = [(1, 0, "bool"), (1, 65_535, "bool")];
        assert_eq!(planned((u16::MAX, u16::MAX), &ends).len(), 2);
        let many: Vec<_> = (0..10_000).map(|n| (4, n / 3, "u64")).collect();
        let reads = planned((125, 16), &many);
        let places: usize = reads.iter().map(|read| read.3.len()).sum();
        assert_eq!(places, many.len());
        assert!(reads.iter().all(|read| read.2 <= 125));
    }

    #[test]
    fn bits_are_counted_as_the_room_they_take() {
        let registers = [(1, 0, "bool"), (1, 1999, "bool"), (2, 5, "bool")];
        let expected = [(1, 0, 2000, vec![0, 1]), (2, 5, 1, vec![2])];
        assert_eq!(planned((125, 125), &registers), expected);
        assert_eq!(planned((124, 125), &registers).len(), 3);
    }

    #[test]
    fn several_points_may_read_the_same_register() {
        let registers = [(3, 7, "u32"), (3, 7, "u16"), (3, 8, "u16")];
        assert_eq!(planned((125, 0), &registers), [(3, 7, 2, vec![1, 0, 2])]);
    }

    #[test]
    fn what_was_asked_for_together_can_be_asked_for_one_by_one() {
        let format = format(&[(3, 7, "u32"), (3, 9, "u16")]);
        let reads = plan(&format);
        let split: Vec<_> = (reads.iter().flat_map(|read| read.split(&format)))
            .map(|read| (read.address, read.count, read.registers))
            .collect();
        assert_eq!(reads.len(), 1);
        assert_eq!(split, [(7, 2, vec![0]), (9, 1, vec![1])]);
    }
}
