//! Reconnect delays: exponential with full jitter, so that a fleet that lost its scheduler does not come
//! back in one moment.

use std::time::Duration;

/// The delays between attempts to connect. `next` before each try, `reset` once a session lasted.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// Delays from around `first` up to `max`. The jitter is seeded by the operating system.
    pub fn new(first: Duration, max: Duration) -> Backoff {
        Self::seeded(first, max, getrandom::u64().unwrap_or(0x9e37_79b9_7f4a_7c15))
    }

    /// The same with a given seed.
    pub fn seeded(first: Duration, max: Duration, seed: u64) -> Backoff {
        Backoff { first, max, failures: 0, random: seed }
    }

    /// The delay before the next try: between half and the whole of `first` × 2^failures, capped by `max`.
    pub fn delay(&mut self) -> Duration {
        let ceiling =
            self.first.saturating_mul(1u32.checked_shl(self.failures.min(31)).unwrap_or(u32::MAX)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(0.5 + 0.5 * self.fraction())
    }

    /// Begins again: a session was opened and lasted.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Tries since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The next number in [0, 1): splitmix64 (Steele, Lea, Flood 2014), whose upper 53 bits are used.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Default for Backoff {
    /// From 250 ms to 30 s: a fleet of 100,000 comes back within the minute that its handshakes need.
    fn default() -> Backoff {
        Backoff::new(Duration::from_millis(250), Duration::from_secs(30))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_with_jitter_up_to_the_cap_and_begin_again_after_a_success() {
        let mut backoff = Backoff::seeded(Duration::from_millis(100), Duration::from_secs(2), 7);
        for ceiling_ms in [100u64, 200, 400, 800, 1600, 2000, 2000] {
            let delay = backoff.delay();
            let ceiling = Duration::from_millis(ceiling_ms);
            assert!(delay >= ceiling / 2 && delay <= ceiling, "{delay:?} of {ceiling:?}");
        }
        backoff.reset();
        assert!(backoff.delay() <= Duration::from_millis(100));
    }

    #[test]
    fn two_devices_do_not_return_together() {
        let delays = |seed| {
            let mut backoff = Backoff::seeded(Duration::from_secs(1), Duration::from_secs(60), seed);
            (0..8).map(|_| backoff.delay()).collect::<Vec<_>>()
        };
        assert_ne!(delays(1), delays(2));
        assert_eq!(delays(3), delays(3));
    }

    #[test]
    fn endless_failure_neither_overflows_nor_exceeds_the_cap() {
        let mut backoff = Backoff::seeded(Duration::from_secs(1), Duration::from_secs(60), 1);
        assert!((0..10_000).all(|_| backoff.delay() <= Duration::from_secs(60)));
    }
}
