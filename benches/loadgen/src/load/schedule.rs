//! When which connection means to send: independent Poisson processes, earliest first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// Intended sends of one worker's connections, by index.
pub struct Schedule {
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    mean_gap: Duration,
    random: Random,
}

impl Schedule {
    pub fn new(num_sessions: usize, mean_gap: Duration, start: Instant, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let due = (0..num_sessions)
            .map(|i| Reverse((start + random.exponential(mean_gap), i)))
            .collect();
        Self {
            due,
            mean_gap,
            random,
        }
    }

    pub fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes the earliest send that is due, and plans the next one of the same connection.
    pub fn take_due(&mut self, now: Instant) -> Option<(Instant, usize)> {
        let mut earliest = self.due.peek_mut()?;
        let Reverse((due, index)) = *earliest;
        if due > now {
            return None;
        }
        *earliest = Reverse((due + self.random.exponential(self.mean_gap), index));
        Some((due, index))
    }
}

/// xorshift64*: good enough for arrival times, the same for the same seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn exponential(&mut self, mean: Duration) -> Duration {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = u32::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32).unwrap_or(0);
        // In (0, 1], so the logarithm is finite.
        let uniform = (f64::from(bits) + 1.0) / (f64::from(u32::MAX) + 1.0);
        mean.mul_f64(-uniform.ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_one_asked_for() {
        let start = Instant::now();
        let mut schedule = Schedule::new(64, Duration::from_millis(64), start, 7);
        let mut num_sends = 0;
        while schedule.take_due(start + Duration::from_secs(20)).is_some() {
            num_sends += 1;
        }
        // 20 000 expected, standard deviation 141.
        assert!((19_000..21_000).contains(&num_sends), "{num_sends}");
    }

    #[test]
    fn sends_come_in_order_and_none_before_its_time() {
        let start = Instant::now();
        let mut schedule = Schedule::new(8, Duration::from_millis(1), start, 1);
        let end = start + Duration::from_millis(200);
        let mut last = start;
        while let Some((due, _)) = schedule.take_due(end) {
            assert!(due >= last && due <= end);
            last = due;
        }
        assert!(schedule.next_due().is_some_and(|due| due > end));
    }
}
