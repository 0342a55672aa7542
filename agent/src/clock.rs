//! The device's clock and the cluster's.
//!
//! Deadlines are kept on the boot-time clock, which goes on while the device sleeps. Cluster time is that
//! clock plus an offset, which the core measures and everyone who seals or stamps reads.

use fleetwire_common::time::Time;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// The boot-time clock, µs since the device started.
pub(crate) fn boot_time() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let micros = u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000;
    Time(seconds.saturating_mul(1_000_000).saturating_add(micros))
}

/// The wall clock, Unix µs: right only if somebody set it.
pub(crate) fn wall_time() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let micros = u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000;
    Time(seconds.saturating_mul(1_000_000).saturating_add(micros))
}

/// What is added to the boot-time clock for cluster time, shared by all who need it.
#[derive(Clone, Debug)]
pub(crate) struct ClusterClock {
    offset_us: Arc<AtomicI64>,
}

impl ClusterClock {
    /// Until a scheduler says better, the wall clock.
    pub fn new() -> ClusterClock {
        let offset = wall_time().0.cast_signed().saturating_sub(boot_time().0.cast_signed());
        ClusterClock { offset_us: Arc::new(AtomicI64::new(offset)) }
    }

    /// Moves it.
    pub fn set_offset_us(&self, offset: i64) {
        self.offset_us.store(offset, Ordering::Relaxed);
    }

    /// Cluster time at a moment of the boot-time clock.
    pub fn at(&self, boot: Time) -> Time {
        Time(boot.0.saturating_add_signed(self.offset_us.load(Ordering::Relaxed)))
    }

    /// Cluster time now.
    pub fn now(&self) -> Time {
        self.at(boot_time())
    }
}
