//! Metric names as numbers that a session defines (docs/protocol.md#metrics).

use crate::limits::{METRIC_NAME_BYTES_MAX, METRIC_NAMES_MAX, METRICS_MAX};
use std::{collections::BTreeMap, sync::Arc};

/// The numbers that a session gave to metric names, on the sending side. Bounded: names beyond
/// [`METRIC_NAMES_MAX`] are sent as text.
#[derive(Clone, Debug, Default)]
pub struct MetricNumbers {
    numbers: BTreeMap<Arc<str>, u16>,
    /// The names in the order of their numbers.
    names: Vec<Arc<str>>,
}

impl MetricNumbers {
    /// The name's number, and whether it is new. `None` when there is no room for another. `guess` is
    /// looked at first: the metrics of a task come in the same order again and again, so the next one's
    /// number is usually the last one's and one.
    pub(crate) fn number(&mut self, name: &Arc<str>, guess: u16) -> Option<(u16, bool)> {
        if self.names.get(usize::from(guess)).is_some_and(|known| Arc::ptr_eq(known, name) || known == name) {
            return Some((guess, false));
        }
        if let Some(number) = self.numbers.get(name) {
            return Some((*number, false));
        }
        let number = u16::try_from(self.names.len()).ok().filter(|n| usize::from(*n) < METRIC_NAMES_MAX)?;
        self.numbers.insert(Arc::clone(name), number);
        self.names.push(Arc::clone(name));
        Some((number, true))
    }

    /// The first one's number, if these metrics are no more than a peer takes, each has a finite value and the very
    /// name that was given the next number. What is not found so may yet be fine: it is looked at one by one.
    pub(crate) fn run(&self, metrics: &[(Arc<str>, f64)]) -> Option<u16> {
        let (name, _) = metrics.first()?;
        let is_first = self.names.first().is_some_and(|first| Arc::ptr_eq(first, name));
        let first = if is_first { 0 } else { *self.numbers.get(name)? };
        let known = self.names.get(usize::from(first)..)?.get(..metrics.len())?;
        // A name that was given a number is neither empty nor too long. Names that begin at one address are one.
        let (apart, strange) = metrics.iter().zip(known).fold((0, 0), |(apart, strange), ((name, value), known)| {
            let distance = name.as_ptr().addr().wrapping_sub(known.as_ptr().addr());
            (apart | distance, strange | bits_unless_finite(*value))
        });
        (metrics.len() <= METRICS_MAX && apart == 0 && strange == 0).then_some(first)
    }

    /// How many names have a number: what [`MetricNumbers::roll_back`] goes back to.
    pub(crate) fn count(&self) -> usize {
        self.names.len()
    }

    /// Forgets the names that were numbered since there were `count`: the frame that defined them is
    /// not sent.
    pub(crate) fn roll_back(&mut self, count: usize) {
        for name in self.names.drain(count.min(self.names.len())..) {
            self.numbers.remove(&name);
        }
    }
}

/// Zero if the value is a finite number, and nothing else: an infinity less itself is none. Without a branch for each,
/// many are looked at several times faster.
#[inline]
#[expect(clippy::eq_op, reason = "what is not finite differs from itself")]
pub(crate) fn bits_unless_finite(value: f64) -> u64 {
    (value - value).to_bits()
}

/// The names that a session's peer gave numbers to, on the receiving side.
#[derive(Clone, Debug, Default)]
pub struct MetricNames {
    names: Vec<Arc<str>>,
    /// Of the frame that was opened last: each update's numbers are a run, so nobody has to find that out once more.
    pub(crate) all_runs: bool,
}

impl MetricNames {
    // §metric-2
    /// Takes a definition. Numbers are given in order, without gaps, and never again.
    pub fn define(&mut self, number: u16, name: &str) -> Result<(), MetricNameError> {
        if usize::from(number) != self.names.len() || self.names.len() >= METRIC_NAMES_MAX {
            return Err(MetricNameError::Number { found: number, expected: self.names.len() });
        }
        if name.is_empty() || name.len() > METRIC_NAME_BYTES_MAX {
            return Err(MetricNameError::Length { found: name.len() });
        }
        self.names.push(name.into());
        Ok(())
    }

    /// How many have a number: all below it.
    pub(crate) fn count(&self) -> usize {
        self.names.len()
    }

    /// Whether each of these numbers is its predecessor's and one, as those of a task are that sends its metrics again, and all
    /// have a name.
    #[inline]
    pub(crate) fn is_run(&self, numbers: &[[u8; 2]]) -> bool {
        let first = numbers.first().map_or(0, |number| u16::from_le_bytes(*number));
        let apart = (0..)
            .zip(numbers)
            .fold(0, |apart, (place, number)| apart | (first.wrapping_add(place) ^ u16::from_le_bytes(*number)));
        apart == 0 && usize::from(first) + numbers.len() <= self.names.len()
    }

    /// The names of these numbers, which are a run; nothing if there are none.
    #[inline]
    pub(crate) fn run(&self, numbers: &[[u8; 2]]) -> &[Arc<str>] {
        let first = numbers.first().map_or(0, |number| usize::from(u16::from_le_bytes(*number)));
        self.names.get(first..).and_then(|names| names.get(..numbers.len())).unwrap_or_default()
    }

    /// The name of that number.
    pub fn name(&self, number: u16) -> Option<&str> {
        self.names.get(usize::from(number)).map(|name| &**name)
    }
}

/// Why a metric name's definition is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricNameError {
    /// Out of order, given before, or more than there may be.
    #[error("metric name number {found}: expected {expected}, below {METRIC_NAMES_MAX}")]
    Number {
        /// What came.
        found: u16,
        /// The only number that may come next.
        expected: usize,
    },
    /// Empty or too long.
    #[error("a metric name of {found} bytes: expected 1 to {METRIC_NAME_BYTES_MAX}")]
    Length {
        /// What came.
        found: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_numbers_is_told_from_others_at_every_place() {
        let mut names = MetricNames::default();
        for number in 0..80 {
            assert_eq!(names.define(number, &format!("m{number}")), Ok(()));
        }
        let run = |numbers: &[u16]| {
            let bytes: Vec<_> = numbers.iter().map(|number| number.to_le_bytes()).collect();
            if names.is_run(&bytes) { names.run(&bytes) } else { &[] }
        };
        for (first, count) in [0, 1, 15, 16, 63].into_iter().flat_map(|first| (0..20).map(move |count| (first, count)))
        {
            let numbers: Vec<u16> = (first..first + count).collect();
            let found: Vec<&str> = run(&numbers).iter().map(|name| &**name).collect();
            let whole = first + count <= 80;
            let expected: Vec<String> = numbers.iter().filter(|_| whole).map(|number| format!("m{number}")).collect();
            assert_eq!(found, expected, "{first}, {count}");
            for place in 1..numbers.len() {
                let mut other = numbers.clone();
                if let Some(number) = other.get_mut(place) {
                    *number ^= 1;
                }
                assert_eq!(run(&other).len(), 0, "{other:?}");
            }
        }
        assert_eq!(run(&[u16::MAX, 0, 1]).len(), 0, "numbers do not begin again");
    }
}
