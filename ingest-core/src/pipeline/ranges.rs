//! A set of sequence numbers, kept as sorted, disjoint, half-open ranges: what PostgreSQL calls an `int8multirange`.

use std::ops::Range;

/// A device that loses events makes one range for each gap. Beyond this many the oldest gaps are closed, which says
/// that their events will never come: a bound on what a faulty device can make the database carry (256 KiB).
pub const RANGES_MAX: usize = 16 << 10;

/// Sequence numbers that were stored, or are about to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequenceRanges {
    ranges: Vec<Range<u64>>,
    num_closed_gaps: usize,
}

impl SequenceRanges {
    #[must_use]
    pub fn contains(&self, seq: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.start <= seq);
        after
            .checked_sub(1)
            .and_then(|i| self.ranges.get(i))
            .is_some_and(|range| seq < range.end)
    }

    #[must_use]
    pub fn overlaps(&self, wanted: &Range<u64>) -> bool {
        let first = self
            .ranges
            .partition_point(|range| range.end <= wanted.start);
        self.ranges
            .get(first)
            .is_some_and(|range| range.start < wanted.end)
    }

    /// Adds a range, joining it with those it touches.
    pub fn insert(&mut self, added: Range<u64>) {
        if added.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|range| range.end < added.start);
        let last = self
            .ranges
            .partition_point(|range| range.start <= added.end);
        let mut joined = added;
        for range in self.ranges.drain(first..last) {
            joined = joined.start.min(range.start)..joined.end.max(range.end);
        }
        self.ranges.insert(first, joined);
        self.close_oldest_gaps();
    }

    fn close_oldest_gaps(&mut self) {
        while self.ranges.len() > RANGES_MAX {
            let oldest = self.ranges.remove(0);
            if let Some(next) = self.ranges.first_mut() {
                next.start = oldest.start;
                self.num_closed_gaps += 1;
            }
        }
    }

    pub fn extend(&mut self, other: &Self) {
        for range in &other.ranges {
            self.insert(range.clone());
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.ranges.iter()
    }

    /// How often a gap was given up since this set was made or read.
    #[must_use]
    pub fn num_closed_gaps(&self) -> usize {
        self.num_closed_gaps
    }

    /// The text form of an `int8multirange`, for example `{[1,101),[120,121)}`.
    #[must_use]
    pub fn to_multirange(&self) -> String {
        let ranges: Vec<_> = self
            .ranges
            .iter()
            .map(|range| format!("[{},{})", range.start, range.end))
            .collect();
        format!("{{{}}}", ranges.join(","))
    }
}

impl FromIterator<Range<u64>> for SequenceRanges {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn touching_ranges_become_one() {
        let set: SequenceRanges = [1..5, 8..9, 5..8].into_iter().collect();
        assert_eq!(set.to_multirange(), "{[1,9)}");
    }

    #[test]
    fn a_device_with_endless_gaps_keeps_a_bounded_set() {
        let set: SequenceRanges = (0..20_000u64).map(|i| i * 2..i * 2 + 1).collect();
        assert_eq!(set.ranges.len(), RANGES_MAX);
        assert!(set.contains(1) && set.contains(39_998) && !set.contains(39_997));
    }

    proptest! {
        #[test]
        fn a_range_set_is_a_set(ranges in prop::collection::vec((0u64..60, 0u64..9), 0..40), probe in 0u64..80, len in 1u64..9) {
            let mut model = BTreeSet::new();
            let mut set = SequenceRanges::default();
            for (start, len) in ranges {
                model.extend(start..start + len);
                set.insert(start..start + len);
            }
            prop_assert_eq!(set.contains(probe), model.contains(&probe));
            prop_assert_eq!(set.overlaps(&(probe..probe + len)), (probe..probe + len).any(|seq| model.contains(&seq)));
            let kept: Vec<u64> = set.iter().flat_map(Clone::clone).collect();
            prop_assert_eq!(kept, model.into_iter().collect::<Vec<_>>());
        }
    }
}
