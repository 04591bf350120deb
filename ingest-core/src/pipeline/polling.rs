//! Which of the polled endpoints are this node's: they fall into shares by their address, and a node polls those whose shares it
//! holds (ADR 26).

use tokio::sync::watch;

/// So many shares there are, for all nodes together; the database has a row for each.
pub const NUM_SHARES: u8 = 16;

/// A set of shares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shares(u16);

impl Shares {
    pub const NONE: Self = Self(0);

    /// Of their numbers; what is none is left out.
    #[must_use]
    pub fn of(numbers: &[i16]) -> Self {
        let bits = numbers.iter().map(|number| match u32::try_from(*number) {
            Ok(number) => 1_u16.checked_shl(number).unwrap_or(0),
            Err(_) => 0,
        });
        Self(bits.fold(0, |all, bit| all | bit))
    }

    #[must_use]
    pub fn numbers(self) -> Vec<i16> {
        let numbers = 0..i16::from(NUM_SHARES);
        numbers
            .filter(|number| self.0 & (1 << number) != 0)
            .collect()
    }

    #[must_use]
    pub fn first(self, count: usize) -> Self {
        let mut numbers = self.numbers();
        numbers.truncate(count);
        Self::of(&numbers)
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Is what answers there in one of them?
    #[must_use]
    pub fn hold(self, host: &str, port: u16) -> bool {
        let address = format!("{host}:{port}");
        let number = crc32c::crc32c(address.as_bytes()) % u32::from(NUM_SHARES);
        self.0 & (1 << number) != 0
    }
}

/// What the one who asks for shares and the one who polls tell each other.
#[derive(Default)]
pub struct PollingShares {
    held: watch::Sender<Shares>,
    /// What is polled, or may be still.
    in_use: watch::Sender<Shares>,
}

impl PollingShares {
    /// These may be polled, and no others.
    pub fn hold(&self, shares: Shares) {
        self.held.send_if_modified(|held| {
            let is_new = *held != shares;
            *held = shares;
            is_new
        });
    }

    #[must_use]
    pub fn held(&self) -> watch::Receiver<Shares> {
        self.held.subscribe()
    }

    /// Nothing else is polled, nor begun before this says so again.
    pub fn use_only(&self, shares: Shares) {
        self.in_use.send_replace(shares);
    }

    /// What must not be given away yet.
    #[must_use]
    pub fn in_use(&self) -> Shares {
        *self.in_use.borrow()
    }

    /// Waits until nothing is polled.
    pub async fn idle(&self) {
        let mut in_use = self.in_use.subscribe();
        // The sender is ours, so it is not gone.
        let _ = in_use.wait_for(|shares| *shares == Shares::NONE).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn every_endpoint_is_in_one_share() {
        let all: Vec<_> = (0..i16::from(NUM_SHARES)).collect();
        let mut num_of = [0; NUM_SHARES as usize];
        for host in 0..1000 {
            let host = format!("10.0.{}.{}", host / 250, host % 250);
            let holders: Vec<_> = (all.iter())
                .filter(|number| Shares::of(&[**number]).hold(&host, 502))
                .collect();
            let [holder] = holders[..] else {
                panic!("{host}: {holders:?}")
            };
            num_of[usize::try_from(*holder).unwrap()] += 1;
        }
        assert!(
            num_of.iter().all(|num| (30..100).contains(num)),
            "{num_of:?}"
        );
    }

    #[test]
    fn a_set_is_its_numbers() {
        let shares = Shares::of(&[0, 7, 15, 16, -1]);
        assert_eq!(shares.numbers(), [0, 7, 15]);
        assert_eq!(shares.first(2).numbers(), [0, 7]);
        assert_eq!(shares.and(Shares::of(&[3])).numbers(), [0, 3, 7, 15]);
    }

    #[tokio::test]
    async fn what_is_in_use_is_waited_for() {
        let shares = PollingShares::default();
        shares.idle().await;
        shares.use_only(Shares::of(&[1]));
        assert_eq!(shares.idle().now_or_never(), None);
        shares.use_only(Shares::NONE);
        shares.idle().await;
    }
}
