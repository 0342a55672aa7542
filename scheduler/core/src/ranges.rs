//! Disjoint ranges of indices, each under a key: a million tasks of an array in one entry.
//!
//! Invariant: the ranges of one key are disjoint and not empty, and no two of them touch, so that what was put back can be
//! taken together with what it was taken from. They are kept by their last index, so
//! that taking the first index of a range changes a value and no key.

use std::{collections::BTreeMap, ops::Range};

/// Sets of indices, one for each key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges<K: Ord> {
    by_last: BTreeMap<(K, u32), u32>,
    count: u64,
}

impl<K: Ord> Default for Ranges<K> {
    fn default() -> Ranges<K> {
        Ranges { by_last: BTreeMap::new(), count: 0 }
    }
}

impl<K: Ord + Copy> Ranges<K> {
    /// How many indices there are under all keys.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds `from..to`, of which nothing may be there yet. An empty range changes nothing.
    pub fn insert(&mut self, key: K, from: u32, to: u32) {
        if from < to {
            debug_assert!(self.range_at(key, from).is_none(), "ranges are disjoint");
            let before = from.checked_sub(1).and_then(|last| self.by_last.remove(&(key, last)));
            let after = self.range_at(key, to).map_or(to, |after| after.end);
            self.by_last.insert((key, after - 1), before.unwrap_or(from));
            self.count += u64::from(to - from);
        }
    }

    /// Removes `from..to` if all of it is there; says whether it was.
    pub fn take(&mut self, key: K, from: u32, to: u32) -> bool {
        let Some(found) = self.range_at(key, from) else { return false };
        if from >= to || to > found.end {
            return false;
        }
        self.count -= u64::from(to - from);
        if to < found.end {
            self.by_last.insert((key, found.end - 1), to);
        } else {
            self.by_last.remove(&(key, found.end - 1));
        }
        if found.start < from {
            self.by_last.insert((key, from - 1), found.start);
        }
        true
    }

    /// Removes whatever of `from..to` is there.
    pub fn remove(&mut self, key: K, from: u32, to: u32) {
        while let Some(((found, last), first)) = self.by_last.range((key, from)..).next()
            && *found == key
            && *first < to
        {
            let (from, to) = (from.max(*first), to.min(*last + 1));
            self.take(key, from, to);
        }
    }

    /// The lowest key and index.
    pub fn first(&self) -> Option<(K, u32)> {
        self.by_last.first_key_value().map(|((key, _), first)| (*key, *first))
    }

    /// Removes and returns the lowest key and index.
    pub fn take_first(&mut self) -> Option<(K, u32)> {
        let mut entry = self.by_last.first_entry()?;
        let (key, last) = *entry.key();
        let index = *entry.get();
        if index < last {
            *entry.get_mut() = index + 1;
        } else {
            entry.remove();
        }
        self.count -= 1;
        Some((key, index))
    }

    /// The range in which `index` lies.
    pub fn range_at(&self, key: K, index: u32) -> Option<Range<u32>> {
        let ((found, last), first) = self.by_last.range((key, index)..).next()?;
        (*found == key && *first <= index).then(|| *first..*last + 1)
    }

    /// All ranges of a key, in order.
    pub fn ranges(&self, key: K) -> impl DoubleEndedIterator<Item = Range<u32>> + '_ {
        self.by_last.range((key, 0)..=(key, u32::MAX)).map(|((_, last), first)| *first..*last + 1)
    }

    /// The ranges of a key from the one on that reaches beyond `from`, in order.
    pub fn ranges_from(&self, key: K, from: u32) -> impl Iterator<Item = Range<u32>> + '_ {
        self.by_last.range((key, from)..=(key, u32::MAX)).map(|((_, last), first)| *first..*last + 1)
    }

    /// How many indices come before `index` of `key`. Grows with the number of ranges.
    pub fn count_before(&self, key: K, index: u32) -> u64 {
        let ahead = self.by_last.iter().take_while(|((other, _), first)| (*other, **first) < (key, index));
        ahead
            .map(
                |((other, last), first)| if *other == key { (*last + 1).min(index) - first } else { *last + 1 - first },
            )
            .map(u64::from)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_from_the_middle_leaves_both_ends() {
        let mut ranges = Ranges::default();
        ranges.insert(7, 0, 100);
        assert!(ranges.take(7, 40, 60));
        assert!(!ranges.take(7, 39, 41) && !ranges.take(7, 50, 51) && !ranges.take(6, 0, 1) && !ranges.take(7, 5, 5));
        assert_eq!(ranges.ranges(7).collect::<Vec<_>>(), [0..40, 60..100]);
        assert_eq!(ranges.count(), 80);
        assert_eq!(ranges.count_before(7, 70), 50);
        assert_eq!(ranges.take_first(), Some((7, 0)));
        ranges.insert(7, 50, 51);
        assert_eq!(ranges.range_at(7, 50), Some(50..51));
        let mut left = Vec::new();
        while let Some((_, index)) = ranges.take_first() {
            left.push(index);
        }
        assert_eq!(left, (1..40).chain([50]).chain(60..100).collect::<Vec<_>>());
        assert_eq!((ranges.count(), ranges.first()), (0, None));
    }

    #[test]
    fn removing_takes_what_is_there() {
        let mut ranges = Ranges::default();
        ranges.insert(7, 0, 10);
        ranges.insert(7, 20, 30);
        ranges.insert(8, 0, 40);
        ranges.remove(7, 5, 25);
        assert_eq!(ranges.ranges(7).collect::<Vec<_>>(), [0..5, 25..30]);
        ranges.remove(7, 10, 20);
        ranges.remove(7, 0, u32::MAX);
        assert_eq!((ranges.count(), ranges.first()), (40, Some((8, 0))));
    }

    #[test]
    fn what_is_put_back_is_taken_with_what_it_was_taken_from() {
        let mut ranges = Ranges::default();
        ranges.insert(7, 0, 8);
        ranges.insert(8, 0, 1);
        assert_eq!(ranges.take_first(), Some((7, 0)));
        ranges.insert(7, 0, 1);
        assert!(ranges.take(7, 3, 5));
        ranges.insert(7, 4, 5);
        assert_eq!(ranges.ranges(7).collect::<Vec<_>>(), [0..3, 4..8]);
        ranges.insert(7, 3, 4);
        assert!(ranges.take(7, 0, 8) && !ranges.take(7, 0, 1));
        assert_eq!((ranges.count(), ranges.first()), (1, Some((8, 0))));
    }
}
