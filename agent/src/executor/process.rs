//! The process executor as the agent's driver sees it.
//!
//! One owner, one thread, no locks: [`ProcessExecutor::spawn`] and [`ProcessExecutor::cancel`]
//! return at once, and everything that happens comes out of [`ProcessExecutor::next_event`], which
//! may be dropped and called again at any await (it loses nothing). The disk is the truth: a
//! supervisor's message only says that the slot has news.

mod looks;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::event::{ExecutorConfig, ExecutorEvent, SlotState, StartError, UnknownAttempt};
use super::heard::HeardCell;
use super::limits::{EVENT_BYTES_MAX, SWEEP_INTERVAL};
use super::link::{LinkNews, SpawnerLink, watch};
use super::logs::{self, LogError, LogPiece, OutputStream};
use super::notice::{Cancel, Notice};
use super::record::{Assignment, AttemptKey, Moment, Report, SlotId, Verdict};
use super::request::{Place, SpawnError, SpawnRequest};
use super::slots::{Outputs, Phase, Running, Slots, Taken};
use super::spawner::seqpacket_pair;
use super::staging::Staging;

/// Runs attempts as processes of this device. See the module's page.
#[derive(Debug)]
pub struct ProcessExecutor {
    folder: PathBuf,
    output_bytes_max: u64,
    slots: Slots,
    heard: HeardCell,
    /// Where supervisors send to.
    events: AsyncFd<OwnedFd>,
    link: SpawnerLink,
    staging: Staging,
    /// Attempts of an earlier agent, and the latest that was told of what they report: their
    /// supervisors cannot send here, so they note it in their slots.
    adopted: BTreeMap<SlotId, Report>,
    ready: VecDeque<ExecutorEvent>,
    next_sweep: Instant,
    running: usize,
    next_mark: u64,
    buffer: Vec<u8>,
    request: Vec<u8>,
    surveyed: Vec<SlotState>,
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
        let executable = config.spawner_exe.clone();
        let staging = Staging::new().map_err(|errno| sockets(errno.into()))?;
        let staged = staging.end_for_supervisors().try_clone().map_err(sockets)?;
        let link = SpawnerLink::start(executable.clone(), folder.clone(), events_sender, staged)
            .map_err(|source| StartError::Spawner { executable, source })?;
        let mut executor = Self {
            heard: HeardCell::of(&folder, config.boot_id),
            folder,
            slots,
            events: watch(events, Interest::READABLE).map_err(sockets)?,
            link,
            staging,
            adopted: BTreeMap::new(),
            ready: VecDeque::new(),
            next_sweep: Instant::now() + SWEEP_INTERVAL,
            running: 0,
            next_mark: u64::from_le_bytes(mark),
            buffer: Vec::with_capacity(EVENT_BYTES_MAX),
            request: Vec::new(),
            surveyed: Vec::new(),
            output_bytes_max: config.output_bytes_max,
        };
        executor
            .look_at_slots()
            .map_err(|errno| StartError::Folder { folder: executor.folder.clone(), source: errno.into() })?;
        Ok(executor)
    }

    /// The attempts that were found in the slots at start, for the driver to compare with its
    /// journal; not those that nobody had begun to start. Supervised ones are adopted: they are watched, can be cancelled, and their `Ended`
    /// comes. For ended ones no event comes. Empty when called again.
    pub fn survey(&mut self) -> Vec<SlotState> {
        std::mem::take(&mut self.surveyed)
    }

    /// Starts an attempt. Its slot is on disk and locked when this returns; `Started` and `Ended`
    /// follow as events.
    pub fn spawn(&mut self, request: &SpawnRequest<'_>) -> Result<SlotId, SpawnError> {
        let slot = self.place(request, false)?;
        self.running += 1;
        Ok(slot)
    }

    /// Has an attempt started as soon as another ends, in the order of these calls. The `Ended` of that other
    /// names it; until then it can be taken back.
    pub fn stage(&mut self, request: &SpawnRequest<'_>) -> Result<SlotId, SpawnError> {
        self.place(request, true)
    }

    /// Starts the first staged attempt now, unless all have started, and says which.
    pub fn start_staged(&mut self) -> Option<AttemptKey> {
        while let Some(taken) = self.staging.take_first() {
            let slot = taken.slot;
            let (lock, bytes) = taken.into_parts();
            self.running += 1;
            let key = self.slots.slot(slot).and_then(|slot| slot.assignment.as_ref()).map(|own| own.key.clone());
            match (self.link.send(lock, bytes), key) {
                (Ok(_), Some(key)) => return Some(key),
                // Its lock is free: the next look at the slots says that it is lost.
                (Err(_), _) | (_, None) => self.sweep_soon(),
            }
        }
        None
    }

    /// Takes a staged attempt back: it has not started and never will, and its slot is free. `false`: it has
    /// started.
    pub fn unstage(&mut self, task_id: &str, attempt: u32) -> bool {
        let Some(slot) = self.slots.find(task_id, attempt) else { return false };
        let Some(taken) = self.staging.take_back(slot) else { return false };
        let (lock, _) = taken.into_parts();
        // The disk must not say that it was here.
        let _ = Slots::erase(&lock);
        self.slots.give_back(slot);
        true
    }

    fn place(&mut self, request: &SpawnRequest<'_>, staged: bool) -> Result<SlotId, SpawnError> {
        request.check()?;
        let no_free_slot = SpawnError::NoFreeSlot { slots_max: self.slots.slots_max() };
        match self.slots.find(request.task_id, request.attempt) {
            // Another job's, from another journal: what is left of it makes way, once nothing of it runs.
            Some(slot) if self.slots.is_foreign(slot, request.job_key) => {
                if self.slots.is_running(slot) {
                    return Err(no_free_slot);
                }
                self.slots.forget(slot);
            }
            Some(_) => return Err(SpawnError::AlreadyHere { key: request.key() }),
            None => {}
        }
        let taken = self.slots.take().map_err(|(slot, source)| SpawnError::Slot { slot, source })?;
        let Some(taken) = taken else {
            return Err(no_free_slot);
        };
        let slot = taken.slot;
        match self.fill(taken, request, staged) {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.slots.give_back(slot);
                Err(error)
            }
        }
    }

    /// The scheduler has answered what was sent at `heard_us` (boot-time clock). With `tell` something may run that
    /// ends when that is too long ago.
    pub fn on_heard(&mut self, heard_us: u64, tell: bool) {
        self.heard.set(heard_us, tell);
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

    /// How an attempt ended is durable elsewhere (in the agent's journal): from here on its slot may be
    /// recycled, and not before, because a slot is what says after a restart that its attempt has run.
    pub fn recycle(&mut self, task_id: &str, attempt: u32) {
        if let Some(slot) = self.slots.find(task_id, attempt) {
            self.slots.recycle_later(slot);
        }
    }

    /// The scheduler knows how it ended, so its slot may be recycled before
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

    /// What has ended in a slot is another job's than whoever bears its number here: it is not found any more, and its
    /// slot is recycled.
    pub fn forget(&mut self, slot: SlotId) {
        self.slots.release(slot);
        self.slots.forget(slot);
    }

    /// A piece of an attempt's output, while it runs and until its slot is recycled, unless it is another job's. At most
    /// 256 KiB come at once; an offset at the end gives an empty piece.
    pub fn read_log(
        &self,
        (task_id, attempt, job_key): (&str, u32, u64),
        stream: OutputStream,
        offset: u64,
        limit: usize,
    ) -> Result<LogPiece, LogError> {
        logs::read(&self.slots, (task_id, attempt, job_key), stream, offset, limit)
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
        self.link.spawner_id()
    }

    /// Waits for what happens next. Never returns without an event.
    pub async fn next_event(&mut self) -> ExecutorEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.on_told(&event);
                return event;
            }
            let sweep = self.running > 0 || !self.staging.is_empty();
            if sweep && Instant::now() >= self.next_sweep {
                self.sweep();
                continue;
            }
            let woken = tokio::select! {
                readable = self.events.readable() => {
                    // Forgotten before they are taken, so that what comes meanwhile wakes us again.
                    readable.into_iter().for_each(|mut readable| readable.clear_ready());
                    Woken::Events
                }
                news = self.link.news() => Woken::Link(news),
                () = tokio::time::sleep_until(self.next_sweep), if sweep => Woken::Sweep,
            };
            match woken {
                Woken::Events => self.drain_events(),
                Woken::Link(LinkNews::Room) => self.link.send_unsent(),
                Woken::Link(LinkNews::Gone) => {
                    let restarted = self.link.on_gone();
                    // Requests that died with it are found by their free locks.
                    self.sweep_soon();
                    self.tell_spawner_died(restarted.err());
                }
                Woken::Link(LinkNews::Restart) => {
                    if let Err(error) = self.link.restart() {
                        self.tell_spawner_died(Some(error));
                    }
                }
                Woken::Sweep => {}
            }
        }
    }

    fn fill(&mut self, taken: Taken, request: &SpawnRequest<'_>, staged: bool) -> Result<(), SpawnError> {
        let slot = taken.slot;
        let mark = self.next_mark;
        self.next_mark = self.next_mark.wrapping_add(1);
        let (folder, heard) = (&self.folder, &self.heard);
        let place = Place { slot, mark, folder, output_bytes_max: self.output_bytes_max, heard };
        let bytes = request.encode(place, std::mem::take(&mut self.request))?;
        let assignment = Assignment { mark, key: request.key(), job_key: request.job_key };
        self.slots.occupy(&taken, assignment).map_err(|errno| SpawnError::Slot { slot, source: errno.into() })?;
        let sent = if staged {
            self.staging.push((slot, mark), taken.record, &bytes).map(|()| bytes)
        } else {
            self.link.send(taken.record, bytes)
        };
        match sent {
            Ok(buffer) => self.request = buffer,
            Err((errno, record)) => {
                // The disk must not say that it was here.
                let _ = Slots::erase(&record);
                return Err(SpawnError::Spawner { source: errno.into() });
            }
        }
        Ok(())
    }

    /// The next wait begins with a look at the slots.
    pub(super) fn sweep_soon(&mut self) {
        self.next_sweep = Instant::now();
    }

    fn tell_spawner_died(&mut self, error: Option<io::Error>) {
        let restart_failed = error.map(|error| error.to_string());
        self.ready.push_back(ExecutorEvent::SpawnerDied { restart_failed });
    }

    /// Takes everything that supervisors have sent, also what tokio has not noticed yet: a look at the slots counts on
    /// it.
    fn drain_events(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            buffer.clear();
            let spare = rustix::buffer::spare_capacity(&mut buffer);
            match recv(self.events.get_ref(), spare, RecvFlags::DONTWAIT) {
                Ok((_, count)) if count > 0 => {
                    if let Ok((slot, mark, notice)) = Notice::decode(&buffer) {
                        self.on_notice(slot, mark, notice);
                    }
                }
                Err(Errno::INTR) => {}
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
            Notice::Ended { next } => {
                let next = next.and_then(|(slot, mark)| self.on_staged_taken(slot, mark));
                // None was staged when its supervisor looked; perhaps one is by now.
                let next = next.or_else(|| self.start_staged());
                if let Some(verdict) = self.read_verdict(slot) {
                    self.on_ended(slot, verdict, next);
                }
            }
        }
    }

    /// A supervisor has taken a staged attempt.
    fn on_staged_taken(&mut self, slot: SlotId, mark: u64) -> Option<AttemptKey> {
        if !self.staging.holds(slot, mark) {
            return None;
        }
        self.staging.on_taken(slot, mark);
        self.running += 1;
        Some(self.slots.slot(slot)?.assignment.as_ref()?.key.clone())
    }

    /// An attempt has ended, and a staged one has started in its room.
    fn on_ended(&mut self, slot: SlotId, verdict: Verdict, next: Option<AttemptKey>) {
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
        self.adopted.remove(&slot);
        self.slots.on_ended(slot, Outputs { stdout: verdict.stdout, stderr: verdict.stderr });
        self.ready.push_back(ExecutorEvent::Ended(verdict, next));
    }

    /// The driver knows of an end from here on.
    fn on_told(&mut self, event: &ExecutorEvent) {
        if let ExecutorEvent::Ended(..) = event {
            self.running = self.running.saturating_sub(1);
        }
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
}

impl Drop for ProcessExecutor {
    /// Nobody is left who would look when the scheduler was heard, unless something runs or may yet.
    fn drop(&mut self) {
        if self.running == 0 && self.staging.is_empty() {
            self.heard.remove();
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Woken {
    Events,
    Link(LinkNews),
    Sweep,
}
