//! Cluster time as this process knows it: the device's boot-time clock, which goes on in suspend, and
//! an offset that the session measures (agents, clients) or the scheduler sets.

use fleetwire_common::time::Time;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// A clock that all parts of a process share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClusterClock {
    offset_us: Arc<AtomicI64>,
}

impl ClusterClock {
    /// A clock that shows `now`: the scheduler's, whose cluster time continues where its journal ended.
    pub fn starting_at(now: Time) -> ClusterClock {
        let offset = now.0.cast_signed().wrapping_sub(Self::local().0.cast_signed());
        ClusterClock { offset_us: Arc::new(AtomicI64::new(offset)) }
    }

    /// A clock that shows the wall's time until a session corrects it.
    pub fn from_wall() -> ClusterClock {
        Self::starting_at(wall())
    }

    /// The device's boot-time clock, µs since some moment before the process started. Never goes back.
    pub fn local() -> Time {
        local()
    }

    /// Cluster time.
    pub fn now(&self) -> Time {
        Time(local().0.wrapping_add_signed(self.offset_us()))
    }

    /// What is added to the local clock, µs.
    pub fn offset_us(&self) -> i64 {
        self.offset_us.load(Ordering::Relaxed)
    }

    /// Sets what is added to the local clock, µs.
    pub fn set_offset_us(&self, offset_us: i64) {
        self.offset_us.store(offset_us, Ordering::Relaxed);
    }
}

/// The wall clock's time. On a device without a battery it may be 1970.
pub(crate) fn wall() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(target_os = "linux")]
fn local() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Time(now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000)
}

#[cfg(not(target_os = "linux"))]
fn local() -> Time {
    use std::{sync::OnceLock, time::Instant};
    static BASE: OnceLock<Instant> = OnceLock::new();
    let since = BASE.get_or_init(Instant::now).elapsed();
    Time(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_offset() {
        let clock = ClusterClock::starting_at(Time(1_000_000));
        let other = clock.clone();
        assert!(other.now() >= Time(1_000_000) && other.now() < Time(60_000_000));
        clock.set_offset_us(clock.offset_us() + 3_600_000_000);
        assert!(other.now() >= Time(3_601_000_000));
    }
}
