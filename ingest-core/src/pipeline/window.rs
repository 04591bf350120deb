//! What a device may send next: its epoch, and how far its events were taken and became durable.
//!
//! Invariants: `durable <= taken`, and nothing is durable behind a hole that we made: once the journal gave a frame
//! back (disk full), it takes nothing more of what was in flight behind it.

/// Where a device's sequence stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watermark {
    pub epoch: u64,
    pub seq: u64,
}

impl Watermark {
    /// The later of two: a higher epoch wins, in the same epoch the higher sequence number.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        if (other.epoch, other.seq) > (self.epoch, self.seq) {
            other
        } else {
            self
        }
    }
}

/// The device said an epoch below the one it has used before.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("epoch {said} is below {known}, which this device has used: send a higher one")]
pub struct StaleEpoch {
    pub said: u64,
    pub known: u64,
}

/// What to do with the events of one frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// All, up to `last_seq`, were taken before.
    Duplicate { last_seq: u64 },
    /// Journal them, leaving out the first `num_known`; `is_jump` when numbers are missing before the first.
    Take { num_known: u64, is_jump: bool },
    /// An earlier frame of this connection was refused, so these would leave a hole.
    AfterRefusal,
}

/// One device's window, owned by its one connection.
#[derive(Debug, Default)]
pub struct SequenceWindow {
    epoch: u64,
    taken: u64,
    durable: u64,
    /// Where the device must go on after a refusal: no frame behind it is taken before.
    resumes_at: Option<u64>,
    refusals_seen: u64,
}

impl SequenceWindow {
    /// A new connection begins. Returns `last_seq` for its WELCOME.
    ///
    /// `known` is what the registry read from the database; what this node itself saw may be later.
    ///
    /// # Errors
    /// [`StaleEpoch`] when a higher epoch was seen.
    pub fn resume(&mut self, epoch: u64, known: Watermark) -> Result<u64, StaleEpoch> {
        let latest = Watermark {
            epoch: self.epoch,
            seq: self.durable,
        }
        .later(known);
        if epoch < latest.epoch {
            return Err(StaleEpoch {
                said: epoch,
                known: latest.epoch,
            });
        }
        let seq = if epoch == latest.epoch { latest.seq } else { 0 };
        *self = Self {
            epoch,
            taken: seq,
            durable: seq,
            ..Self::default()
        };
        Ok(seq)
    }

    /// Notes what the journal held when it was opened.
    pub fn recover(&mut self, found: Watermark) {
        let latest = Watermark {
            epoch: self.epoch,
            seq: self.durable,
        }
        .later(found);
        *self = Self {
            epoch: latest.epoch,
            taken: latest.seq,
            durable: latest.seq,
            ..Self::default()
        };
    }

    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    #[must_use]
    pub fn admit(&self, first_seq: u64, num_events: u64) -> Admission {
        let last_seq = first_seq.saturating_add(num_events).saturating_sub(1);
        if last_seq <= self.taken {
            Admission::Duplicate { last_seq }
        } else if first_seq <= self.taken {
            Admission::Take {
                num_known: self.taken - first_seq + 1,
                is_jump: false,
            }
        } else if self.resumes_at.is_some_and(|seq| first_seq > seq) {
            Admission::AfterRefusal
        } else {
            Admission::Take {
                num_known: 0,
                is_jump: first_seq > self.taken + 1,
            }
        }
    }

    /// The journal has the events up to `seq` in its queue.
    pub fn take(&mut self, seq: u64) {
        self.taken = self.taken.max(seq);
        self.resumes_at = self.resumes_at.filter(|first| *first > seq);
    }

    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// For [`crate::journal::JournalHandle::append_after`]; `num_refusals` is the journal's count of now.
    pub fn refusals_seen(&mut self, num_refusals: u64) -> u64 {
        if self.taken == self.durable {
            // Nothing is in flight that a new frame could be behind.
            self.refusals_seen = num_refusals;
        }
        self.refusals_seen
    }

    /// The journal says that the events up to `seq` are on disk.
    pub fn make_durable(&mut self, seq: u64) {
        self.durable = self.durable.max(seq);
        self.taken = self.taken.max(self.durable);
    }

    /// Events from `first_seq` on were not taken. Until the device goes back to them, frames behind them are
    /// refused too: they were on their way when we said BUSY, and taking them would acknowledge the hole before them.
    /// A device that really lost those events says so by connecting again.
    pub fn refuse(&mut self, first_seq: u64) {
        let earlier = self.resumes_at.unwrap_or(first_seq);
        self.resumes_at = Some(first_seq.min(earlier));
    }

    /// The journal gave back a frame that it had in its queue.
    pub fn fall_back(&mut self) {
        self.taken = self.durable;
        self.refuse(self.taken.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(epoch: u64, seq: u64) -> SequenceWindow {
        let mut window = SequenceWindow::default();
        window.resume(epoch, Watermark { epoch, seq }).unwrap();
        window
    }

    /// Every event of the frame is taken.
    fn whole(is_jump: bool) -> Admission {
        Admission::Take {
            num_known: 0,
            is_jump,
        }
    }

    #[test]
    fn the_same_epoch_resumes_and_a_higher_one_begins_again() {
        assert_eq!(window(3, 10).resume(3, Watermark::default()), Ok(10));
        assert_eq!(window(3, 10).resume(4, Watermark::default()), Ok(0));
    }

    #[test]
    fn a_lower_epoch_is_stale() {
        assert_eq!(
            window(3, 10).resume(2, Watermark::default()),
            Err(StaleEpoch { said: 2, known: 3 })
        );
    }

    #[test]
    fn what_another_node_stored_counts() {
        assert_eq!(
            window(3, 10).resume(3, Watermark { epoch: 3, seq: 25 }),
            Ok(25)
        );
    }

    #[test]
    fn a_resent_frame_is_a_duplicate_and_a_partly_new_one_loses_its_known_part() {
        let window = window(1, 10);
        assert_eq!(window.admit(1, 10), Admission::Duplicate { last_seq: 10 });
        assert_eq!(
            window.admit(8, 5),
            Admission::Take {
                num_known: 3,
                is_jump: false
            }
        );
    }

    #[test]
    fn a_gap_is_accepted_and_named() {
        assert_eq!(window(1, 10).admit(20, 1), whole(true));
    }

    #[test]
    fn frames_behind_a_refused_one_are_refused_until_the_device_goes_back() {
        let mut window = window(1, 10);
        window.refuse(11);
        assert_eq!(window.admit(16, 5), Admission::AfterRefusal);
        assert_eq!(window.admit(11, 5), whole(false));
        window.take(15);
        assert_eq!(window.admit(16, 5), whole(false));
    }

    #[test]
    fn a_frame_that_the_journal_gives_back_may_be_sent_again() {
        let mut window = window(1, 10);
        window.take(20);
        window.fall_back();
        assert_eq!((window.taken(), window.durable()), (10, 10));
        assert_eq!(window.admit(21, 5), Admission::AfterRefusal);
        assert_eq!(window.admit(11, 10), whole(false));
    }

    #[test]
    fn a_refused_frame_behind_a_gap_of_the_device_may_be_sent_again() {
        let mut window = window(1, 10);
        window.refuse(20);
        window.refuse(25);
        assert_eq!(window.admit(25, 5), Admission::AfterRefusal);
        assert_eq!(window.admit(20, 5), whole(true));
    }
}
