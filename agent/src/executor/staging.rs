//! Staged requests: they lie on a socket of their own, from which a supervisor whose attempt has ended takes
//! the next, without waiting for anybody. Both ends are the agent's too: what was not taken, it can take
//! back.
//!
//! Invariant: a message of the socket is received once, by a supervisor or by the agent, so that an attempt is
//! started once or taken back, never both.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::handover::{Received, receive, send_files, send_request};
use super::limits::REQUEST_INLINE_BYTES_MAX;
use super::record::SlotId;
use super::request::header;
use super::spawner::seqpacket_pair;

/// The socket, and what is known to lie on it.
#[derive(Debug)]
pub(super) struct Staging {
    ours: OwnedFd,
    theirs: OwnedFd,
    /// Slot and mark of each that nobody is known to have taken, oldest first.
    staged: VecDeque<(SlotId, u64)>,
    /// Those that the socket had no room for, the tail of `staged`.
    unsent: VecDeque<Taken>,
    buffer: Vec<u8>,
}

/// A request that was taken back.
#[derive(Debug)]
pub(super) struct Taken {
    pub slot: SlotId,
    pub lock: OwnedFd,
    bytes: Vec<u8>,
    memory: Option<OwnedFd>,
}

impl Staging {
    pub fn new() -> Result<Self, Errno> {
        let (ours, theirs) = seqpacket_pair()?;
        let buffer = vec![0; REQUEST_INLINE_BYTES_MAX];
        Ok(Self { ours, theirs, staged: VecDeque::new(), unsent: VecDeque::new(), buffer })
    }

    /// The end that supervisors take from.
    pub fn end_for_supervisors(&self) -> &OwnedFd {
        &self.theirs
    }

    pub fn is_empty(&self) -> bool {
        self.staged.is_empty()
    }

    pub fn holds(&self, slot: SlotId, mark: u64) -> bool {
        self.staged.contains(&(slot, mark))
    }

    /// Puts a request at the end.
    pub fn push(&mut self, (slot, mark): (SlotId, u64), lock: OwnedFd, request: &[u8]) -> Result<(), (Errno, OwnedFd)> {
        if self.unsent.is_empty() {
            match send_request(&self.ours, &lock, request) {
                Ok(()) => {
                    self.staged.push_back((slot, mark));
                    return Ok(());
                }
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR | Errno::TOOMANYREFS) => {}
                Err(errno) => return Err((errno, lock)),
            }
        }
        self.staged.push_back((slot, mark));
        self.unsent.push_back(Taken { slot, lock, bytes: request.to_vec(), memory: None });
        Ok(())
    }

    /// A supervisor said that it has taken this one.
    pub fn on_taken(&mut self, slot: SlotId, mark: u64) {
        self.staged.retain(|staged| *staged != (slot, mark));
        self.send_unsent();
    }

    /// Takes the oldest back that nobody has taken, to be started otherwise.
    pub fn take_first(&mut self) -> Option<Taken> {
        let taken = self.receive().or_else(|| self.unsent.pop_front())?;
        self.staged.retain(|(slot, _)| *slot != taken.slot);
        Some(taken)
    }

    /// Takes one back; `None` if a supervisor has taken it.
    pub fn take_back(&mut self, wanted: SlotId) -> Option<Taken> {
        let mut all: VecDeque<Taken> = std::iter::from_fn(|| self.receive()).collect();
        all.append(&mut self.unsent);
        let place = all.iter().position(|taken| taken.slot == wanted);
        let found = place.and_then(|place| all.remove(place));
        self.unsent = all;
        self.send_unsent();
        if found.is_some() {
            self.staged.retain(|(slot, _)| *slot != wanted);
        }
        found
    }

    fn receive(&mut self) -> Option<Taken> {
        let received = receive(&self.theirs, &mut self.buffer, RecvFlags::DONTWAIT).ok().flatten()?;
        let Received { bytes, lock, memory } = received;
        let bytes = self.buffer.get(..bytes)?.to_vec();
        let (slot, _) = header(&bytes).ok()?;
        Some(Taken { slot, lock: lock?, bytes, memory })
    }

    fn send_unsent(&mut self) {
        while let Some(first) = self.unsent.front() {
            if first.send(&self.ours).is_err() {
                return;
            }
            self.unsent.pop_front();
        }
    }
}

impl Taken {
    /// Sends it as it was.
    pub fn send(&self, socket: &OwnedFd) -> Result<(), Errno> {
        match &self.memory {
            Some(memory) => send_files(socket, &self.bytes, &[&self.lock, memory]),
            None => send_request(socket, &self.lock, &self.bytes),
        }
    }

    /// The whole request with its lock.
    pub fn into_parts(self) -> (OwnedFd, Vec<u8>) {
        let whole = self.memory.and_then(|memory| {
            let mut whole = vec![0; super::limits::REQUEST_BYTES_MAX];
            let count = rustix::io::pread(&memory, &mut whole, 0).ok()?;
            whole.truncate(count);
            Some(whole)
        });
        (self.lock, whole.unwrap_or(self.bytes))
    }
}
