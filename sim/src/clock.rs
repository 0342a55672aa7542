//! A device's boot-time clock: it starts anew at each boot, goes on in suspend, drifts, and now and then jumps
//! ahead, as a virtual machine's does. It never goes back.

use fleetwire_common::time::Time;
use std::time::Duration;

/// The clock.
#[derive(Clone, Copy, Debug)]
pub struct DeviceClock {
    /// When it was set last, virtual time.
    since: Time,
    /// What it showed then.
    shown: Time,
    /// By how many millionths it is fast.
    ppm: i64,
}

impl DeviceClock {
    /// A clock that shows this now, and is right from then on.
    pub fn set(now: Time, shown: Time) -> DeviceClock {
        DeviceClock { since: now, shown, ppm: 0 }
    }

    /// A clock that shows virtual time.
    pub const fn right() -> DeviceClock {
        DeviceClock { since: Time::ZERO, shown: Time::ZERO, ppm: 0 }
    }

    /// From now on it is fast by so many millionths; negative: slow.
    pub fn drift(&mut self, now: Time, ppm: i64) {
        *self = DeviceClock { since: now, shown: self.at(now), ppm: ppm.clamp(-PPM_MAX, PPM_MAX) };
    }

    /// It jumps ahead.
    pub fn jump(&mut self, now: Time, by: Duration) {
        *self = DeviceClock { since: now, shown: self.at(now) + by, ppm: self.ppm };
    }

    /// What it shows at that virtual time.
    pub fn at(&self, now: Time) -> Time {
        let passed = i128::from(now.0.saturating_sub(self.since.0));
        let shown = i128::from(self.shown.0) + passed + passed * i128::from(self.ppm) / MILLION;
        Time(u64::try_from(shown).unwrap_or(u64::MAX))
    }

    /// The first virtual time at which it shows that; [`Time::NEVER`] if that is too far ahead.
    pub fn reaches(&self, shown: Time) -> Time {
        let ahead = i128::from(shown.0.saturating_sub(self.shown.0));
        let passed = (ahead * MILLION).div_euclid(MILLION + i128::from(self.ppm));
        let first = i128::from(self.since.0) + passed;
        let mut first = Time(u64::try_from(first).unwrap_or(u64::MAX));
        while first < Time::NEVER && self.at(first) < shown {
            first.0 += 1;
        }
        first
    }
}

const MILLION: i128 = 1_000_000;
/// Worse clocks than one that is off by a tenth are broken.
const PPM_MAX: i64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_drifts_jumps_and_never_goes_back() {
        let mut clock = DeviceClock::set(Time(1_000), Time(5));
        assert_eq!(clock.at(Time(1_010)), Time(15));
        clock.drift(Time(2_000), 50_000);
        assert_eq!(clock.at(Time(3_000)), Time(2_055));
        clock.drift(Time(3_000), -50_000);
        assert_eq!(clock.at(Time(4_000)), Time(3_005));
        clock.jump(Time(4_000), Duration::from_micros(100));
        assert_eq!(clock.at(Time(4_000)), Time(3_105));
        for shown in [3_105, 3_106, 4_444, 1_000_000_007] {
            let first = clock.reaches(Time(shown));
            assert!(clock.at(first) >= Time(shown) && (first.0 == 4_000 || clock.at(Time(first.0 - 1)) < Time(shown)));
        }
        assert_eq!(clock.reaches(Time::NEVER), Time::NEVER);
    }
}
