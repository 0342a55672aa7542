//! Cluster time: microseconds since the Unix epoch as the scheduler counts them, monotonic, never
//! going back, across restarts too. Pure code gets it as an argument.

use std::time::Duration;

/// A moment in cluster time, in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Before anything.
    pub const ZERO: Time = Time(0);
    /// After everything: a deadline that never comes.
    pub const NEVER: Time = Time(u64::MAX);

    /// The moment `ms` milliseconds after the Unix epoch.
    pub fn from_ms(ms: u64) -> Time {
        Time(ms.saturating_mul(1_000))
    }

    /// Milliseconds since the Unix epoch, as envelopes carry them.
    pub fn as_ms(self) -> u64 {
        self.0 / 1_000
    }

    /// The time since `earlier`, zero if that lies ahead.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Time;

    fn add(self, after: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX)))
    }
}
