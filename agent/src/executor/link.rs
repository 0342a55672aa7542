//! The agent's connection to its spawner: requests go out, and a spawner that died is replaced.
//!
//! A request carries its slot's lock. One that cannot be sent now waits here, with the lock, so
//! that no slot in use is ever unlocked.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::handover::send_request;
use super::limits::SPAWNER_RESTART_INTERVAL;
use super::spawner::SpawnerProcess;

#[derive(Debug)]
pub(super) struct SpawnerLink {
    executable: PathBuf,
    folder: PathBuf,
    /// Where supervisors send; kept so that every spawner can be given it.
    events: OwnedFd,
    /// Where supervisors take staged requests from; every spawner is given it too.
    staged: OwnedFd,
    spawner: Option<Spawner>,
    started: Instant,
    /// Requests that the socket had no room for, oldest first.
    unsent: VecDeque<Unsent>,
}

#[derive(Debug)]
struct Spawner {
    process: SpawnerProcess,
    /// A second descriptor of the request socket, to wait for room in it.
    socket: AsyncFd<OwnedFd>,
    /// A second descriptor of the process, to see it end.
    gone: AsyncFd<OwnedFd>,
}

#[derive(Debug)]
struct Unsent {
    record: OwnedFd,
    request: Vec<u8>,
}

/// What there is to do for the link.
#[derive(Debug, Clone, Copy)]
pub(super) enum LinkNews {
    /// [`SpawnerLink::send_unsent`].
    Room,
    /// [`SpawnerLink::on_gone`].
    Gone,
    /// [`SpawnerLink::restart`].
    Restart,
}

impl SpawnerLink {
    /// Starts the first spawner.
    pub fn start(executable: PathBuf, folder: PathBuf, events: OwnedFd, staged: OwnedFd) -> io::Result<Self> {
        let (started, unsent) = (Instant::now(), VecDeque::new());
        let mut link = Self { executable, folder, events, staged, spawner: None, started, unsent };
        link.restart()?;
        Ok(link)
    }

    /// The spawner's process id, while there is one.
    pub fn spawner_id(&self) -> Option<u32> {
        self.spawner.as_ref().map(|spawner| spawner.process.id())
    }

    /// Sends a request with its slot's lock, now or when that is possible. Gives the buffer back
    /// when it is free again, and the lock when it cannot be sent at all.
    pub fn send(&mut self, record: OwnedFd, request: Vec<u8>) -> Result<Vec<u8>, (Errno, OwnedFd)> {
        let sent = match &self.spawner {
            Some(spawner) if self.unsent.is_empty() => {
                send_request(spawner.process.requests.as_fd(), &record, &request)
            }
            _ => Err(Errno::AGAIN),
        };
        match sent {
            Ok(()) => Ok(request),
            // No room, or the spawner is being replaced.
            Err(Errno::AGAIN | Errno::PIPE | Errno::CONNRESET | Errno::NOBUFS | Errno::INTR) => {
                self.unsent.push_back(Unsent { record, request });
                Ok(Vec::new())
            }
            Err(errno) => Err((errno, record)),
        }
    }

    /// Sends what waits, as far as there is room.
    pub fn send_unsent(&mut self) {
        while let (Some(spawner), Some(unsent)) = (&self.spawner, self.unsent.front()) {
            match send_request(spawner.process.requests.as_fd(), &unsent.record, &unsent.request) {
                Ok(()) => {
                    self.unsent.pop_front();
                }
                Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => {
                    // Forget the readiness that tokio remembers, so that it asks the kernel again.
                    let blocked = |_: &OwnedFd| -> io::Result<()> { Err(io::ErrorKind::WouldBlock.into()) };
                    let _ = spawner.socket.try_io(Interest::WRITABLE, blocked);
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Waits until there is something to do; perhaps for ever. May be dropped at any time.
    pub async fn news(&self) -> LinkNews {
        let Some(spawner) = &self.spawner else {
            tokio::time::sleep_until(self.started + SPAWNER_RESTART_INTERVAL).await;
            return LinkNews::Restart;
        };
        tokio::select! {
            _ = spawner.gone.readable() => LinkNews::Gone,
            _ = spawner.socket.writable(), if !self.unsent.is_empty() => LinkNews::Room,
        }
    }

    /// The spawner died: it is replaced, at once unless it was only just started.
    pub fn on_gone(&mut self) -> io::Result<()> {
        self.end();
        if self.started.elapsed() >= SPAWNER_RESTART_INTERVAL { self.restart() } else { Ok(()) }
    }

    /// Starts a spawner and sends it what waits.
    pub fn restart(&mut self) -> io::Result<()> {
        self.started = Instant::now();
        let process = SpawnerProcess::start(&self.executable, &self.folder, (&self.events, &self.staged))?;
        let socket = watch(process.requests.try_clone()?, Interest::WRITABLE)?;
        let gone = watch(process.gone.try_clone()?, Interest::READABLE)?;
        self.spawner = Some(Spawner { process, socket, gone });
        self.send_unsent();
        Ok(())
    }

    fn end(&mut self) {
        if let Some(spawner) = self.spawner.take() {
            drop(spawner.socket);
            spawner.process.end();
        }
    }
}

impl Drop for SpawnerLink {
    /// What was requested is still started; running attempts go on under their supervisors.
    fn drop(&mut self) {
        self.send_unsent();
        self.end();
    }
}

/// Has tokio watch a descriptor.
pub(super) fn watch(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "tokio asks that a watched descriptor stays open")]
    // SAFETY: an `OwnedFd` that the `AsyncFd` owns is open until it is dropped with it, and nobody
    // replaces it meanwhile.
    let watched = unsafe { AsyncFd::register_with_interest(socket, interest) };
    Ok(watched?)
}
