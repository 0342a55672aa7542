//! The thread that makes snapshots of a journal, beside the one that writes it.
//!
//! Invariants: it reads and writes files only, never the live state; it has the lowest priority, and writes no
//! faster than it is told, so that the journal's own syncs do not wait for it; it ends soon after it is
//! dropped. Whatever fails here costs the journal nothing but disk space.

use fleetwire_journal::{
    Disk, JournalConfig, PreparedSegment, RetireError, SnapshotError, Stopped, Summary, Taken, copy_file, retire,
    retire_blobs, take_snapshot,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{Builder, JoinHandle, sleep},
    time::Duration,
};
use thiserror::Error;

/// When snapshots are made, and how.
#[derive(Clone, Debug)]
pub struct SnapshotConfig<D> {
    /// After so many facts …
    pub facts: u64,
    /// … or so many bytes of them, whatever comes first; but not before as many as the last snapshot has, so that
    /// no more is written for snapshots than for facts.
    pub bytes: u64,
    /// Bytes written in a second, at most. More is done sooner, and delays the journal's own syncs more.
    pub bytes_per_s: u64,
    /// Where segments go that are not needed any more; `None` = they are used again or removed.
    pub archive: Option<D>,
}

impl<D> Default for SnapshotConfig<D> {
    fn default() -> SnapshotConfig<D> {
        SnapshotConfig { facts: 1_000_000, bytes: 512 << 20, bytes_per_s: 64 << 20, archive: None }
    }
}

/// Why there is no new snapshot, or why what it replaces is still there. The journal goes on.
#[derive(Debug, Error)]
pub enum SnapshotFailed<E> {
    /// It was not made.
    #[error("no snapshot of the journal was made: {0}")]
    Take(#[from] SnapshotError<E>),
    /// It was made, but what it replaces could not be archived or removed.
    #[error("a snapshot of the journal was made, but what it replaces is still there: {0}")]
    Retire(#[from] RetireError),
}

/// A running snapshot thread.
#[derive(Debug)]
pub struct Snapshotter<F> {
    pub(crate) facts: u64,
    pub(crate) bytes: u64,
    requests: Option<SyncSender<()>>,
    outcomes: Receiver<Outcome<F>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What became of one request.
#[derive(Debug)]
pub(crate) struct Outcome<F> {
    pub made: bool,
    /// The new snapshot's bytes, if there is one.
    pub bytes: Option<u64>,
    pub reusable: Vec<PreparedSegment<F>>,
}

impl<F> Snapshotter<F> {
    /// Starts the thread. `summary` makes an empty one for each snapshot; `on_snapshot` is told, on that thread, of
    /// every snapshot and every failure.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start<D, S>(
        disk: D,
        journal: JournalConfig,
        config: SnapshotConfig<D>,
        summary: impl Fn() -> S + Send + 'static,
        on_snapshot: impl FnMut(Result<Taken, SnapshotFailed<S::Error>>) + Send + 'static,
    ) -> io::Result<Snapshotter<F>>
    where
        D: Disk<File = F> + Send + 'static,
        F: Send + 'static,
        S: Summary,
    {
        let (facts, bytes) = (config.facts, config.bytes);
        let (requests, asked) = sync_channel(1);
        let (tell, outcomes) = sync_channel(1);
        let stopping = Arc::new(AtomicBool::new(false));
        let pace = Pace { stopping: Arc::clone(&stopping), bytes_per_s: config.bytes_per_s.max(1) };
        let mut making = Making { disk, journal, archive: config.archive, pace, summary, on_snapshot };
        let run = move || {
            lower_priority();
            while asked.recv().is_ok() {
                if tell.send(making.make()).is_err() {
                    return;
                }
            }
        };
        let thread = Builder::new().name("snapshots".to_owned()).spawn(run)?;
        Ok(Snapshotter { facts, bytes, requests: Some(requests), outcomes, stopping, thread: Some(thread) })
    }

    /// Asks for a snapshot of everything in segments that have a successor.
    pub(crate) fn request(&self) {
        if let Some(requests) = &self.requests {
            // Full or gone: it is asked again later.
            let _ = requests.try_send(());
        }
    }

    /// What became of the request, once it is done.
    pub(crate) fn outcome(&self) -> Option<Outcome<F>> {
        self.outcomes.try_recv().ok()
    }
}

impl<F> Drop for Snapshotter<F> {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // An outcome that nobody took must not hold the thread up.
            let _ = self.outcomes.try_recv();
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Making<D, N, C> {
    disk: D,
    journal: JournalConfig,
    archive: Option<D>,
    pace: Pace,
    summary: N,
    on_snapshot: C,
}

impl<D, S, N, C> Making<D, N, C>
where
    D: Disk,
    S: Summary,
    N: Fn() -> S,
    C: FnMut(Result<Taken, SnapshotFailed<S::Error>>),
{
    fn make(&mut self) -> Outcome<D::File> {
        let pace = |bytes| self.pace.wait(bytes);
        let mut bytes = None;
        let mut summary = (self.summary)();
        match take_snapshot(&self.disk, &self.journal, &mut summary, pace) {
            Ok(Some(taken)) => {
                bytes = Some(taken.bytes);
                (self.on_snapshot)(Ok(taken));
            }
            Ok(None) => {}
            Err(SnapshotError::Stopped) => return Outcome { made: false, bytes, reusable: Vec::new() },
            Err(error) => {
                (self.on_snapshot)(Err(SnapshotFailed::Take(error)));
                return Outcome { made: false, bytes, reusable: Vec::new() };
            }
        }
        let archive = |name: &str| match &self.archive {
            Some(archive) => copy_file(&self.disk, archive, name, |bytes| self.pace.wait(bytes)),
            None => Ok(()),
        };
        let paced = |bytes| self.pace.wait(bytes);
        let retired = retire(&self.disk, &self.journal, REUSED_MAX, archive, paced);
        // What no fact up to the snapshot names any more, none after it does: those facts were durable before it.
        let blobs = |retired| match bytes.is_some() {
            true => retire_blobs(&self.disk, |segment| summary.needs_blobs(segment), archive).map(|_| retired),
            false => Ok(retired),
        };
        let reusable = match retired.and_then(blobs) {
            Ok(retired) => retired.reusable,
            Err(RetireError::Stopped) => Vec::new(),
            Err(error) => {
                (self.on_snapshot)(Err(SnapshotFailed::Retire(error)));
                Vec::new()
            }
        };
        Outcome { made: true, bytes, reusable }
    }
}

/// How fast the thread may write, and whether it should at all.
struct Pace {
    stopping: Arc<AtomicBool>,
    bytes_per_s: u64,
}

impl Pace {
    fn wait(&self, bytes: u64) -> Result<(), Stopped> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        if bytes > 0 {
            sleep(Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64).min(PAUSE_MAX));
        }
        Ok(())
    }
}

/// The journal's and the driver's threads go first. Where the system does not allow it, it is only slower.
fn lower_priority() {
    // On Linux a priority is a thread's own.
    let _ = rustix::process::setpriority_process(None, 19);
}

/// Segments that are kept to be written again, at a time.
const REUSED_MAX: usize = 8;
/// The longest pause for one piece.
const PAUSE_MAX: Duration = Duration::from_millis(100);
