//! What a supervisor writes into its slot, and its last word to the agent.

use std::os::fd::{BorrowedFd, OwnedFd};

use fleetwire_schemas::EndReason;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::super::notice::Notice;
use super::super::record::{LIVE_OFFSET, Live, Moment, OutputCount, SlotId, StartFailure, VERDICT_OFFSET, Verdict};
use super::super::request::Order;
use super::super::slots::write_all;
use super::{now, raw};

/// Tells the agent that the verdict is in the slot, and which staged attempt comes next. `false`: it does not
/// listen, though it lives.
pub(in crate::executor) fn tell_ended(order: &Order<'_>, next: Option<(SlotId, u64)>, events: BorrowedFd<'_>) -> bool {
    send_last(events, &Notice::Ended { next }.encode(order.slot, order.mark))
}

/// Writes a verdict in place of a supervisor that could not be forked.
pub(in crate::executor) fn write_spawn_failure(
    order: &Order<'_>,
    record: &OwnedFd,
    events: BorrowedFd<'_>,
    errno: Errno,
) {
    let error = std::io::Error::from(errno);
    let message = format!("no supervisor could be started: {error}");
    let mut verdict = Verdict::bare(order.key(), EndReason::SpawnFailed, message);
    verdict.failure = Some(StartFailure::Resources);
    verdict.ended = now();
    if write_verdict(record, &mut verdict, order.mark).is_ok() {
        tell_ended(order, None, events);
    }
}

/// Gives an attempt back that was taken from the staged ones and must not start: the agent could not be told.
pub(in crate::executor) fn write_released(order: &Order<'_>, record: &OwnedFd) {
    let mut verdict = Verdict::bare(order.key(), EndReason::Released, String::new());
    verdict.ended = now();
    let _ = write_verdict(record, &mut verdict, order.mark);
}

/// Says in the slot that from here on there may be processes: without this word it never ran.
pub(super) fn begin(record: &OwnedFd, mark: u64, started: Moment) -> Result<(), Errno> {
    let supervisor = raw(rustix::process::getpid());
    let live =
        Live { mark, supervisor, main: 0, started, stdout: OutputCount::default(), stderr: OutputCount::default() };
    write_all(record, &live.encode(), LIVE_OFFSET)
}

pub(super) fn write_verdict(record: &OwnedFd, verdict: &mut Verdict, mark: u64) -> Result<(), Errno> {
    if write_all(record, &verdict.seal(mark), VERDICT_OFFSET).is_ok() {
        return Ok(());
    }
    // The disk is full: the room for a verdict without its result was set aside with the slot.
    if verdict.result.take().is_some() {
        verdict.message = format!("{} (the result was lost: the disk is full)", verdict.message);
    }
    write_all(record, &verdict.seal(mark), VERDICT_OFFSET)
}

/// The last word to the agent; worth a moment of waiting, no more, because it will look by itself. `false`: it
/// lives and was not told.
fn send_last(events: BorrowedFd<'_>, bytes: &[u8]) -> bool {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let mut sent = send(events, bytes, flags);
    if sent == Err(Errno::AGAIN) {
        let patience = Timespec { tv_sec: 0, tv_nsec: LAST_WORD_NS };
        let _ = poll(&mut [PollFd::new(&events, PollFlags::OUT)], Some(&patience));
        sent = send(events, bytes, flags);
    }
    !matches!(sent, Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR))
}

const LAST_WORD_NS: i64 = 200_000_000;
