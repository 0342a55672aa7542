//! Time, and waiting for whatever comes first.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::super::record::Moment;

/// What ended a wait.
pub enum Woken {
    /// A child ended, or the kernel had another reason to interrupt.
    ChildEnded,
    /// Which pipes have something, or their end.
    Ready([bool; 4]),
}

/// Waits for any of the pipes, a child's end, or the time. SIGCHLD is blocked at all other times,
/// so none can be missed between looking and waiting.
pub fn wait(pipes: [Option<BorrowedFd<'_>>; 4], timeout_us: Option<u64>) -> Woken {
    let mut polled = pipes.map(|pipe| libc::pollfd {
        fd: pipe.map_or(-1, |pipe| pipe.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    });
    let timeout = timeout_us.map(|us| libc::timespec {
        tv_sec: i64::try_from(us / 1_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(us % 1_000_000 * 1000).unwrap_or(0),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    #[expect(unsafe_code, reason = "waiting with a signal mask is not offered by a safe interface")]
    // SAFETY: `polled` has as many entries as we say, the timeout is null or valid during the
    // call, and the mask is a valid, emptied set.
    let result = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout, &raw const none)
    };
    if result < 0 { Woken::ChildEnded } else { Woken::Ready(polled.map(|entry| entry.revents != 0)) }
}

/// The moment that is now.
pub fn now() -> Moment {
    Moment { unix_ms: clock_us(ClockId::Realtime) / 1000, boot_us: boot_us() }
}

/// The boot-time clock, µs.
pub fn boot_us() -> u64 {
    clock_us(ClockId::Boottime)
}

fn clock_us(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0) / 1000)
}

/// Lets a child's end interrupt [`wait`]. It counts for this process and its forks.
pub fn hear_of_children() -> Result<(), Errno> {
    #[expect(unsafe_code, reason = "signal handlers are not offered by a safe interface")]
    // SAFETY: a zeroed sigaction is valid: no flags, an empty mask. The handler does nothing, so
    // it is safe at any moment; it is there so that waiting is interrupted.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigchld as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_NOCLDSTOP;
        libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut())
    };
    if result < 0 { Err(Errno::INVAL) } else { Ok(()) }
}

extern "C" fn on_sigchld(_signal: libc::c_int) {}
