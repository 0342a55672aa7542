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
        let (apart, carried) = metrics.iter().zip(known).fold((0, 0), |(apart, carried), ((name, value), known)| {
            let distance = name.as_ptr().addr().wrapping_sub(known.as_ptr().addr());
            (apart | distance, carried | carry_if_not_finite(value.to_bits()))
        });
        (metrics.len() <= METRICS_MAX && apart == 0 && carried & SIGN == 0).then_some(first)
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

/// The sign's bit of an `f64`.
pub(crate) const SIGN: u64 = 1 << 63;

/// A number whose highest bit is set if these bits are those of an infinity or of none: one more in the exponent then
/// carries to the sign's place. Without a branch for each, many are looked at several times faster.
#[inline]
pub(crate) fn carry_if_not_finite(bits: u64) -> u64 {
    (bits & !SIGN) + (1 << (f64::MANTISSA_DIGITS - 1))
}

/// The names that a session's peer gave numbers to, on the receiving side.
#[derive(Clone, Debug, Default)]
pub struct MetricNames {
    names: Vec<Arc<str>>,
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
