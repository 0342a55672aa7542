//! What happened: a hash that two runs of a seed must share (promise P7), and, when asked for, the words
//! for people.

use crate::coverage::Coverage;
use fleetwire_common::time::Time;
use std::fmt;

/// The record of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
    began: Time,
    /// What was exercised.
    pub coverage: Coverage,
}

impl Trace {
    /// A record that begins at this time; with words if `readable`.
    pub fn new(began: Time, readable: bool) -> Trace {
        Trace {
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            lines: readable.then(Vec::new),
            began,
            coverage: Coverage::default(),
        }
    }

    /// Counts an event and mixes what identifies it into the hash.
    pub fn event(&mut self, at: Time, kind: u64) {
        self.events += 1;
        self.mix(at.0);
        self.mix(kind);
    }

    /// Mixes bytes into the hash.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.mix(u64::from(*byte));
        }
    }

    /// Notes a line, if anybody will read it.
    pub fn say(&mut self, at: Time, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let since = at.since(self.began);
            lines.push(format!("{:>5}.{:06} {}", since.as_secs(), since.subsec_micros(), line()));
        }
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last lines, oldest first.
    pub fn last_lines(&self, count: usize) -> &[String] {
        let lines = self.lines.as_deref().unwrap_or_default();
        lines.get(lines.len().saturating_sub(count)..).unwrap_or(lines)
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}

/// A promise that was broken: which, and how it showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The promise, as the design numbers them, or `liveness`.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

impl std::error::Error for Violation {}

/// A violation of that promise.
pub fn broken<T>(promise: &'static str, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { promise, what: what.into() })
}
