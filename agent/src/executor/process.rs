//! The process executor as the agent's driver sees it.
//!
//! One owner, one thread, no locks: [`ProcessExecutor::spawn`] and [`ProcessExecutor::cancel`]
//! return at once, and everything that happens comes out of [`ProcessExecutor::next_event`], which
//! may be dropped and called again at any await (it loses nothing). The disk is the truth: a
//! supervisor's message only says that the slot has news.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use fleetwire_schemas::EndReason;
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::limits::{
    EVENT_BYTES_MAX, REQUEST_INLINE_BYTES_MAX, SPAWNER_RESTART_INTERVAL, STRAY_ROUNDS_MAX, SWEEP_INTERVAL,
};
use super::logs::{self, LogError, LogPiece, OutputStream};
use super::record::{Assignment, AttemptKey, Cancel, Moment, Notice, Report, SlotId, Verdict};
use super::request::{Place, SpawnError, SpawnRequest};
use super::slots::{Outputs, Phase, Running, Slots, Taken};
use super::spawner::{SpawnerProcess, seqpacket_pair};
use super::strays::kill_strays;
use super::supervisor::now;

/// How an executor is set up.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// The folder with the slots; made when it is missing. One executor per folder: the caller
    /// holds the lock of the data folder that it lies in.
    pub folder: PathBuf,
    /// Slots on disk. Ended attempts stay readable in them, so give twice as many as attempts may
    /// run at once, or more. (For moments there may be up to twice this number.)
    pub slots_max: u32,
    /// Most bytes kept of each of stdout and stderr of an attempt.
    pub output_bytes_max: u64,
    /// The executable that is started as the spawner; its `main` must call
    /// [`spawner_if_asked`](super::spawner_if_asked).
    pub spawner_exe: PathBuf,
}

impl ExecutorConfig {
    /// The usual: 64 slots, 1 MiB of each output, this very executable.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            slots_max: 64,
            output_bytes_max: 1 << 20,
            spawner_exe: PathBuf::from("/proc/self/exe"),
        }
    }
}

/// Why an executor did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder cannot be used.
    #[error("the executor's folder {} cannot be used", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The sockets could not be made.
    #[error("the sockets between agent and supervisors could not be made")]
    Sockets {
        /// What the operating system said.
        source: io::Error,
    },
    /// The spawner did not start.
    #[error("the spawner {} could not be started", executable.display())]
    Spawner {
        /// Which executable.
        executable: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The attempt is in no slot: it was never here, or its slot was used again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("attempt {attempt} of task {task_id} is in no slot")]
pub struct UnknownAttempt {
    /// The task.
    pub task_id: String,
    /// The attempt's number.
    pub attempt: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum ExecutorEvent {
    /// The program runs (or ran: an attempt shorter than some milliseconds is announced with its end).
    Started {
        /// Which attempt.
        key: AttemptKey,
        /// When.
        at: Moment,
        /// The main process; 0 when it ended already.
        pid: u32,
    },
    /// The task reported; only what is new.
    Report {
        /// Which attempt.
        key: AttemptKey,
        /// What is new.
        report: Report,
    },
    /// The attempt's last process is gone. Comes once for every attempt that was spawned or found
    /// supervised at start, also when it could not be started (`SpawnFailed`) or its supervisor
    /// was killed (`SupervisorLost`).
    Ended(Verdict),
    /// The spawner died and is started again; running attempts are not touched.
    SpawnerDied {
        /// Why it could not be started again at once; it is tried again every second.
        restart_failed: Option<String>,
    },
}

/// A slot that holds an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// The slot.
    pub slot: SlotId,
    /// The attempt in it.
    pub key: AttemptKey,
    /// What is known of it.
    pub condition: SlotCondition,
}

/// What is known of an attempt in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotCondition {
    /// A supervisor has it; its end will come as an event.
    Supervised {
        /// When its program was started, if its supervisor has noted it yet.
        started: Option<Moment>,
    },
    /// It ended; [`ProcessExecutor::verdict`] reads how. `reason` is `SupervisorLost` when its
    /// supervisor was gone without a word.
    Ended {
        /// Why it ended.
        reason: EndReason,
    },
}

/// Runs attempts as processes of this device. See the module's page.
#[derive(Debug)]
pub struct ProcessExecutor {
    config: ExecutorConfig,
    folder: PathBuf,
    slots: Slots,
    /// Where supervisors send; kept so that every spawner can be given it.
    events_sender: OwnedFd,
    events: AsyncFd<OwnedFd>,
    spawner: Option<Spawner>,
    spawner_started: Instant,
    /// Requests that the spawner's socket had no room for, oldest first.
    unsent: VecDeque<Unsent>,
    ready: VecDeque<ExecutorEvent>,
    next_sweep: Instant,
    running: usize,
    next_mark: u64,
    buffer: Vec<u8>,
    request: Vec<u8>,
    surveyed: Vec<SlotState>,
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

impl ProcessExecutor {
    /// Opens the slots, looks at every one, and starts the spawner. Must be called within a tokio
    /// runtime, with time and IO enabled.
    pub fn start(config: ExecutorConfig) -> Result<Self, StartError> {
        let in_folder = |source: io::Error| StartError::Folder { folder: config.folder.clone(), source };
        std::fs::create_dir_all(&config.folder).map_err(in_folder)?;
        let folder = config.folder.canonicalize().map_err(in_folder)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&folder, flags, Mode::empty()).map_err(|errno| in_folder(errno.into()))?;
        let slots = Slots::open(opened, config.slots_max).map_err(in_folder)?;
        let sockets = |source: io::Error| StartError::Sockets { source };
        let (events, events_sender) = seqpacket_pair().map_err(|errno| sockets(errno.into()))?;
        let mut mark = [0; 8];
        getrandom::fill(&mut mark).map_err(|error| sockets(io::Error::other(error)))?;
        let now = Instant::now();
        let mut executor = Self {
            folder,
            slots,
            events_sender,
            events: watch(events, Interest::READABLE).map_err(sockets)?,
            spawner: None,
            spawner_started: now,
            unsent: VecDeque::new(),
            ready: VecDeque::new(),
            next_sweep: now + SWEEP_INTERVAL,
            running: 0,
            next_mark: u64::from_le_bytes(mark),
            buffer: Vec::with_capacity(EVENT_BYTES_MAX),
            request: Vec::new(),
            surveyed: Vec::new(),
            config,
        };
        executor
            .start_spawner()
            .map_err(|source| StartError::Spawner { executable: executor.config.spawner_exe.clone(), source })?;
        executor
            .look_at_slots()
            .map_err(|errno| StartError::Folder { folder: executor.config.folder.clone(), source: errno.into() })?;
        Ok(executor)
    }

    /// The attempts that were found in the slots at start, for the driver to compare with its
    /// journal. Supervised ones are adopted: they are watched, can be cancelled, and their `Ended`
    /// comes. For ended ones no event comes. Empty when called again.
    pub fn survey(&mut self) -> Vec<SlotState> {
        std::mem::take(&mut self.surveyed)
    }

    /// Starts an attempt. Its slot is on disk and locked when this returns; `Started` and `Ended`
    /// follow as events.
    pub fn spawn(&mut self, request: &SpawnRequest<'_>) -> Result<SlotId, SpawnError> {
        request.check()?;
        if self.slots.find(request.task_id, request.attempt).is_some() {
            return Err(SpawnError::AlreadyHere { key: request.key() });
        }
        let taken = self.slots.take().map_err(|(slot, source)| SpawnError::Slot { slot, source })?;
        let Some(taken) = taken else {
            return Err(SpawnError::NoFreeSlot { slots_max: self.slots.slots_max() });
        };
        let slot = taken.slot;
        match self.fill(taken, request) {
            Ok(()) => {
                self.running += 1;
                Ok(slot)
            }
            Err(error) => {
                self.slots.give_back(slot);
                Err(error)
            }
        }
    }

    /// Asks an attempt to end: SIGTERM to its group now, SIGKILL to all of it after `grace`. Its
    /// `Ended` follows; an attempt that has ended already is left alone.
    pub fn cancel(&mut self, task_id: &str, attempt: u32, grace: Duration) -> Result<(), UnknownAttempt> {
        let unknown = || UnknownAttempt { task_id: task_id.to_owned(), attempt };
        let slot = self.slots.find(task_id, attempt).ok_or_else(unknown)?;
        if let Some(Phase::Running(running)) = self.slots.slot_mut(slot).map(|slot| &mut slot.phase) {
            let shorter = running.cancel_grace.map_or(grace, |other| other.min(grace));
            running.cancel_grace = Some(shorter);
            self.deliver_cancel(slot);
        }
        Ok(())
    }

    /// What ended is kept elsewhere (in the agent's journal), so its slot may be recycled before
    /// those that were not released. Its output stays readable until then.
    pub fn release(&mut self, task_id: &str, attempt: u32) {
        if let Some(slot) = self.slots.find(task_id, attempt) {
            self.slots.release(slot);
        }
    }

    /// How an attempt that is still in a slot ended; `None` while it runs.
    pub fn verdict(&self, task_id: &str, attempt: u32) -> Result<Option<Verdict>, UnknownAttempt> {
        let unknown = || UnknownAttempt { task_id: task_id.to_owned(), attempt };
        let slot = self.slots.find(task_id, attempt).ok_or_else(unknown)?;
        if self.slots.is_running(slot) {
            return Ok(None);
        }
        self.read_verdict(slot).map(Some).ok_or_else(unknown)
    }

    /// A piece of an attempt's output, while it runs and until its slot is recycled. At most
    /// 256 KiB come at once; an offset at the end gives an empty piece.
    pub fn read_log(
        &self,
        task_id: &str,
        attempt: u32,
        stream: OutputStream,
        offset: u64,
        limit: usize,
    ) -> Result<LogPiece, LogError> {
        logs::read(&self.slots, task_id, attempt, stream, offset, limit)
    }

    /// The highest attempt of a task that is in a slot.
    pub fn latest_attempt(&self, task_id: &str) -> Option<u32> {
        let assignments = self.slots.ids().filter_map(|slot| self.slots.slot(slot)?.assignment.as_ref());
        assignments.filter(|assignment| assignment.key.task_id == task_id).map(|own| own.key.attempt).max()
    }

    /// Attempts that have not ended.
    pub fn running(&self) -> usize {
        self.running
    }

    /// The spawner's process id, while there is one.
    pub fn spawner_id(&self) -> Option<u32> {
        self.spawner.as_ref().map(|spawner| spawner.process.id())
    }

    /// Waits for what happens next. Never returns without an event.
    pub async fn next_event(&mut self) -> ExecutorEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.on_told(&event);
                return event;
            }
            if self.running > 0 && Instant::now() >= self.next_sweep {
                self.sweep();
                continue;
            }
            let waiting = Waiting { sweep: self.running > 0, unsent: !self.unsent.is_empty() };
            match self.wait(waiting).await {
                Woken::Events => self.drain_events(),
                Woken::Room => self.send_unsent(),
                Woken::SpawnerGone => self.on_spawner_gone(),
                Woken::RestartSpawner => self.restart_spawner(),
                Woken::Sweep => {}
            }
        }
    }

    async fn wait(&self, waiting: Waiting) -> Woken {
        let restart_at = self.spawner_started + SPAWNER_RESTART_INTERVAL;
        let gone = async {
            match &self.spawner {
                Some(spawner) => spawner.gone.readable().await.map_or(Woken::SpawnerGone, |_| Woken::SpawnerGone),
                None => {
                    tokio::time::sleep_until(restart_at).await;
                    Woken::RestartSpawner
                }
            }
        };
        let room = async {
            match &self.spawner {
                Some(spawner) if waiting.unsent => spawner.socket.writable().await.map_or(Woken::Room, |_| Woken::Room),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.events.readable() => Woken::Events,
            woken = gone => woken,
            woken = room => woken,
            () = tokio::time::sleep_until(self.next_sweep), if waiting.sweep => Woken::Sweep,
        }
    }

    fn fill(&mut self, taken: Taken, request: &SpawnRequest<'_>) -> Result<(), SpawnError> {
        let slot = taken.slot;
        let mark = self.next_mark;
        self.next_mark = self.next_mark.wrapping_add(1);
        let place = Place { slot, mark, folder: &self.folder, output_bytes_max: self.config.output_bytes_max };
        let bytes = request.encode(place, std::mem::take(&mut self.request))?;
        let assignment = Assignment { mark, key: request.key() };
        self.slots.occupy(&taken, assignment).map_err(|errno| SpawnError::Slot { slot, source: errno.into() })?;
        let sent = match &self.spawner {
            Some(spawner) if self.unsent.is_empty() => {
                send_request(spawner.process.requests.as_fd(), &taken.record, &bytes)
            }
            _ => Err(Errno::AGAIN),
        };
        match sent {
            Ok(()) => self.request = bytes,
            // No room, or the spawner is being started again: it waits here, with its lock.
            Err(Errno::AGAIN | Errno::PIPE | Errno::CONNRESET | Errno::NOBUFS) => {
                self.unsent.push_back(Unsent { record: taken.record, request: bytes });
            }
            Err(errno) => return Err(SpawnError::Spawner { source: errno.into() }),
        }
        Ok(())
    }

    fn send_unsent(&mut self) {
        while let (Some(spawner), Some(unsent)) = (&self.spawner, self.unsent.front()) {
            match send_request(spawner.process.requests.as_fd(), &unsent.record, &unsent.request) {
                Ok(()) => {
                    self.unsent.pop_front();
                }
                Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => {
                    // Forget the readiness that tokio remembers, so that it asks the kernel again.
                    let _ = spawner
                        .socket
                        .try_io(Interest::WRITABLE, |_| -> io::Result<()> { Err(io::ErrorKind::WouldBlock.into()) });
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn drain_events(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            buffer.clear();
            let received = self.events.try_io(Interest::READABLE, |events| {
                let spare = rustix::buffer::spare_capacity(&mut buffer);
                Ok(recv(events, spare, RecvFlags::DONTWAIT)?)
            });
            match received {
                Ok((_, count)) if count > 0 => {
                    if let Ok((slot, mark, notice)) = Notice::decode(&buffer) {
                        self.on_notice(slot, mark, notice);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        self.buffer = buffer;
    }

    fn on_notice(&mut self, slot: SlotId, mark: u64, notice: Notice) {
        let Some(entry) = self.slots.slot_mut(slot) else {
            return;
        };
        let Some(assignment) = entry.assignment.as_ref().filter(|assignment| assignment.mark == mark) else {
            return;
        };
        let Phase::Running(running) = &mut entry.phase else {
            return;
        };
        let key = assignment.key.clone();
        match notice {
            Notice::Started { main, started, .. } => {
                if !std::mem::replace(&mut running.announced, true) {
                    self.ready.push_back(ExecutorEvent::Started { key, at: started, pid: main });
                }
                self.deliver_cancel(slot);
            }
            Notice::Report(report) => self.ready.push_back(ExecutorEvent::Report { key, report }),
            Notice::Ended => {
                if let Some(verdict) = self.read_verdict(slot) {
                    self.on_ended(slot, verdict);
                }
            }
        }
    }

    fn on_ended(&mut self, slot: SlotId, verdict: Verdict) {
        let Some(entry) = self.slots.slot(slot) else {
            return;
        };
        let Phase::Running(Running { announced, .. }) = entry.phase else {
            return;
        };
        let ran = verdict.started != Moment::default();
        if !announced && ran {
            let (key, at) = (verdict.key.clone(), verdict.started);
            self.ready.push_back(ExecutorEvent::Started { key, at, pid: 0 });
        }
        self.slots.on_ended(slot, Outputs { stdout: verdict.stdout, stderr: verdict.stderr });
        self.ready.push_back(ExecutorEvent::Ended(verdict));
    }

    /// The driver knows of an end from here on, and only from here on may the slot be recycled.
    fn on_told(&mut self, event: &ExecutorEvent) {
        let ExecutorEvent::Ended(verdict) = event else {
            return;
        };
        self.running = self.running.saturating_sub(1);
        if let Some(slot) = self.slots.find(&verdict.key.task_id, verdict.key.attempt) {
            self.slots.recycle_later(slot);
        }
    }

    /// Looks at every running slot: a lock that is free means that its supervisor is gone.
    fn sweep(&mut self) {
        self.next_sweep = Instant::now() + SWEEP_INTERVAL;
        for slot in self.slots.ids() {
            if !self.slots.is_running(slot) {
                continue;
            }
            self.deliver_cancel(slot);
            // A request that waits here for the spawner holds the lock itself.
            if let Ok(Some(record)) = self.slots.try_lock(slot)
                && let Some(verdict) = self.judge(slot, &record)
            {
                self.on_ended(slot, verdict);
            }
        }
    }

    /// The verdict on the attempt in a slot whose lock we hold: what its supervisor wrote, or that
    /// it is lost, which is written before it is told. `None`: not yet, strays are still dying.
    fn judge(&self, slot: SlotId, record: &OwnedFd) -> Option<Verdict> {
        let assignment = self.slots.slot(slot)?.assignment.as_ref()?;
        if let Some(verdict) = Slots::read_verdict(record, assignment) {
            return Some(verdict);
        }
        if !kill_strays(assignment.mark, STRAY_ROUNDS_MAX) {
            return None;
        }
        let message = "its supervisor was killed before the attempt had ended".to_owned();
        let mut verdict = Verdict::bare(assignment.key.clone(), EndReason::SupervisorLost, message);
        if let Some(live) = Slots::read_live(record).filter(|live| live.mark == assignment.mark) {
            (verdict.started, verdict.stdout, verdict.stderr) = (live.started, live.stdout, live.stderr);
        }
        verdict.ended = now();
        Slots::write_verdict(record, &verdict, assignment.mark).ok()?;
        Some(verdict)
    }

    fn read_verdict(&self, slot: SlotId) -> Option<Verdict> {
        let assignment = self.slots.slot(slot)?.assignment.as_ref()?;
        let record = self.slots.open_file(slot, super::record::ATTEMPT_FILE).ok()?;
        Slots::read_verdict(record, assignment)
    }

    /// Tells the slot's supervisor of a cancel that waits. It is kept until it was written.
    fn deliver_cancel(&mut self, slot: SlotId) {
        let Some(entry) = self.slots.slot(slot) else {
            return;
        };
        let (Phase::Running(running), Some(assignment)) = (entry.phase, &entry.assignment) else {
            return;
        };
        let Some(grace) = running.cancel_grace else {
            return;
        };
        let cancel = Cancel { mark: assignment.mark, grace }.encode();
        let written = self.slots.open_control(slot).and_then(|fifo| rustix::io::write(fifo, &cancel));
        if written == Ok(cancel.len())
            && let Some(Phase::Running(running)) = self.slots.slot_mut(slot).map(|slot| &mut slot.phase)
        {
            running.cancel_grace = None;
        }
    }

    fn look_at_slots(&mut self) -> Result<(), Errno> {
        let mut ended = Vec::new();
        for slot in self.slots.ids() {
            let lock = self.slots.try_lock(slot)?;
            let record = self.slots.open_record(slot)?;
            let Some(assignment) = Slots::read_assignment(&record) else {
                // Never used, or torn by a power cut: nothing in it can be told or wanted.
                self.slots.set_free(slot);
                continue;
            };
            let key = assignment.key.clone();
            let mark = assignment.mark;
            if let Some(entry) = self.slots.slot_mut(slot) {
                entry.assignment = Some(assignment);
                entry.phase = Phase::Running(Running { announced: true, cancel_grace: None });
            }
            let verdict = lock.as_ref().and_then(|lock| self.judge(slot, lock));
            let condition = match verdict {
                Some(verdict) => {
                    let outputs = Outputs { stdout: verdict.stdout, stderr: verdict.stderr };
                    ended.push((verdict.ended.unix_ms, slot, outputs));
                    SlotCondition::Ended { reason: verdict.reason }
                }
                None => {
                    self.running += 1;
                    let live = Slots::read_live(&record).filter(|live| live.mark == mark);
                    SlotCondition::Supervised { started: live.map(|live| live.started) }
                }
            };
            self.surveyed.push(SlotState { slot, key, condition });
        }
        ended.sort_unstable_by_key(|(at, slot, _)| (*at, *slot));
        for (_, slot, outputs) in ended {
            self.slots.on_ended(slot, outputs);
            self.slots.recycle_later(slot);
        }
        Ok(())
    }

    fn start_spawner(&mut self) -> io::Result<()> {
        self.spawner_started = Instant::now();
        let process = SpawnerProcess::start(&self.config.spawner_exe, &self.folder, &self.events_sender)?;
        let socket = watch(process.requests.try_clone()?, Interest::WRITABLE)?;
        let gone = watch(process.gone.try_clone()?, Interest::READABLE)?;
        self.spawner = Some(Spawner { process, socket, gone });
        Ok(())
    }

    fn on_spawner_gone(&mut self) {
        if let Some(spawner) = self.spawner.take() {
            drop(spawner.socket);
            spawner.process.end();
        }
        // Requests that died with it are found by their free locks.
        self.next_sweep = Instant::now();
        let at_once = self.spawner_started.elapsed() >= SPAWNER_RESTART_INTERVAL;
        let restart_failed = if at_once { self.start_spawner().err().map(|error| error.to_string()) } else { None };
        self.ready.push_back(ExecutorEvent::SpawnerDied { restart_failed });
        self.send_unsent();
    }

    fn restart_spawner(&mut self) {
        if let Err(error) = self.start_spawner() {
            let restart_failed = Some(error.to_string());
            self.ready.push_back(ExecutorEvent::SpawnerDied { restart_failed });
        }
        self.send_unsent();
    }
}

impl Drop for ProcessExecutor {
    /// Running attempts go on under their supervisors, and what was requested is still started.
    fn drop(&mut self) {
        self.send_unsent();
        if let Some(spawner) = self.spawner.take() {
            drop(spawner.socket);
            spawner.process.end();
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    sweep: bool,
    unsent: bool,
}

#[derive(Debug, Clone, Copy)]
enum Woken {
    Events,
    Room,
    SpawnerGone,
    RestartSpawner,
    Sweep,
}

fn watch(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "tokio asks that a watched descriptor stays open")]
    // SAFETY: an `OwnedFd` that the `AsyncFd` owns is open until it is dropped with it, and nobody
    // replaces it meanwhile.
    let watched = unsafe { AsyncFd::register_with_interest(socket, interest) };
    Ok(watched?)
}

/// Sends a request with its slot's lock; a large one in a memory file.
fn send_request(requests: impl AsFd, record: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if bytes.len() <= REQUEST_INLINE_BYTES_MAX {
        let files = [record.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&files));
        sendmsg(requests, &[IoSlice::new(bytes)], &mut control, flags)?;
        return Ok(());
    }
    let memory = memfd_create("fleetwire-request", MemfdFlags::CLOEXEC)?;
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        // Written at a position, so that the reader's own position is still the start.
        done += rustix::io::pwrite(&memory, rest, done as u64)?;
    }
    let files = [record.as_fd(), memory.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(requests, &[IoSlice::new(b"m")], &mut control, flags)?;
    Ok(())
}
