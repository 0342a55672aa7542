//! The slots: folders that attempts run in, one after another.
//!
//! Creating files costs more than starting a process, so a slot is used again: first new ones are
//! made up to the bound, then the one that ended longest ago is recycled, so that outputs stay
//! readable as long as possible. A slot belongs to whoever holds the lock on its `attempt` file.
//! Taking one means getting that lock, which is then handed to the supervisor with the open file;
//! there is no moment in which a slot in use is not locked.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fleetwire_common::ids::JobKey;
use rustix::fs::{
    AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags, fallocate, flock, mkdirat, mknodat, openat, statat,
};
use rustix::io::Errno;

use super::limits::{EVENT_BYTES_MAX, SLOTS_LIMIT, VERDICT_BYTES_MAX};
use super::record::{ATTEMPT_FILE, Assignment, Live, OutputCount, Report, SlotId, VERDICT_OFFSET, Verdict};
use super::wire::SEAL_BYTES;

/// What the agent knows of a slot.
#[derive(Debug)]
pub(super) struct Slot {
    /// `None`: never used, or what it holds cannot be read.
    pub assignment: Option<Assignment>,
    pub phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Free,
    /// Locked by a supervisor, or on its way to one.
    Running(Running),
    Ended(Outputs),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Running {
    /// The agent's driver was told that it started.
    pub announced: bool,
    /// A cancel with this grace could not be delivered yet.
    pub cancel_grace: Option<std::time::Duration>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Outputs {
    pub stdout: OutputCount,
    pub stderr: OutputCount,
}

/// A slot that was taken: its file, locked.
#[derive(Debug)]
pub(super) struct Taken {
    pub slot: SlotId,
    pub record: OwnedFd,
}

#[derive(Debug)]
pub(super) struct Slots {
    folder: OwnedFd,
    slots: Vec<Slot>,
    slots_max: u32,
    free: Vec<SlotId>,
    /// Ended attempts whose end is kept elsewhere, longest ago first.
    released: VecDeque<SlotId>,
    /// Ended attempts that are kept elsewhere, longest ago first.
    ended: VecDeque<SlotId>,
    /// Ended attempts of whose end only the slot is sure to know.
    unkept: VecDeque<SlotId>,
}

impl Slots {
    /// Finds the slots that are there. Their locks are looked at by [`Slots::survey_one`].
    pub fn open(folder: OwnedFd, slots_max: u32) -> io::Result<Self> {
        let slots_max = slots_max.clamp(1, SLOTS_LIMIT);
        let mut slots = Self {
            folder,
            slots: Vec::new(),
            slots_max,
            free: Vec::new(),
            released: VecDeque::new(),
            ended: VecDeque::new(),
            unkept: VecDeque::new(),
        };
        // Slots are numbered from 0 without gaps, because they are never removed.
        while slots.count() < SLOTS_LIMIT {
            let slot = SlotId(slots.count());
            match statat(&slots.folder, slot.0.to_string(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => slots.slots.push(Slot { assignment: None, phase: Phase::Free }),
                Err(Errno::NOENT) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(slots)
    }

    pub fn count(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub fn slots_max(&self) -> u32 {
        self.slots_max
    }

    pub fn ids(&self) -> impl Iterator<Item = SlotId> + use<> {
        (0..self.count()).map(SlotId)
    }

    pub fn slot(&self, slot: SlotId) -> Option<&Slot> {
        self.slots.get(slot.0 as usize)
    }

    pub fn slot_mut(&mut self, slot: SlotId) -> Option<&mut Slot> {
        self.slots.get_mut(slot.0 as usize)
    }

    /// The slot that holds this attempt.
    pub fn find(&self, task_id: &str, attempt: u32) -> Option<SlotId> {
        let holds = |slot: &Slot| {
            let key = slot.assignment.as_ref().map(|assignment| &assignment.key);
            key.is_some_and(|key| key.attempt == attempt && key.task_id == task_id)
        };
        self.slots.iter().position(holds).and_then(|index| u32::try_from(index).ok()).map(SlotId)
    }

    /// Whether the attempt in this slot is surely another job's.
    pub fn is_foreign(&self, slot: SlotId, job_key: u64) -> bool {
        let assignment = self.slot(slot).and_then(|slot| slot.assignment.as_ref());
        assignment.is_some_and(|own| JobKey(own.job_key).differs(JobKey(job_key)))
    }

    /// Nobody wants what has ended in this slot any more: from here on nothing is found there.
    pub fn forget(&mut self, slot: SlotId) {
        if let Some(entry) = self.slot_mut(slot).filter(|slot| matches!(slot.phase, Phase::Ended(_))) {
            entry.assignment = None;
        }
    }

    pub fn is_running(&self, slot: SlotId) -> bool {
        matches!(self.slot(slot), Some(Slot { phase: Phase::Running(_), .. }))
    }

    /// Takes a slot that nobody holds. `Ok(None)`: all are in use.
    pub fn take(&mut self) -> Result<Option<Taken>, (SlotId, io::Error)> {
        while let Some(slot) = self.free.pop() {
            if let Some(taken) = self.try_take(slot)? {
                return Ok(Some(taken));
            }
        }
        if self.count() < self.slots_max {
            return self.create().map(Some);
        }
        for _ in 0..self.released.len() {
            if let Some(slot) = self.released.pop_front() {
                if let Some(taken) = self.try_take(slot)? {
                    return Ok(Some(taken));
                }
                self.released.push_back(slot);
            }
        }
        for _ in 0..self.ended.len() {
            if let Some(slot) = self.ended.pop_front() {
                if let Some(taken) = self.try_take(slot)? {
                    return Ok(Some(taken));
                }
                self.ended.push_back(slot);
            }
        }
        // A supervisor that has written its verdict holds its lock until the working directory is
        // empty, and the journal is a moment behind. Rather than wait for either, there may be a few more
        // slots than asked for.
        let leaving = !self.released.is_empty() || !self.ended.is_empty() || !self.unkept.is_empty();
        if leaving && self.count() < self.slots_max.saturating_mul(2) {
            return self.create().map(Some);
        }
        Ok(None)
    }

    /// Puts an attempt into a slot that was taken: from now on the disk says so.
    pub fn occupy(&mut self, taken: &Taken, assignment: Assignment) -> Result<(), Errno> {
        write_all(&taken.record, &assignment.seal(), 0)?;
        if let Some(slot) = self.slot_mut(taken.slot) {
            slot.assignment = Some(assignment);
            slot.phase = Phase::Running(Running::default());
        }
        Ok(())
    }

    /// Gives back a slot that was taken and could not be used.
    pub fn give_back(&mut self, slot: SlotId) {
        if let Some(entry) = self.slot_mut(slot) {
            entry.assignment = None;
            entry.phase = Phase::Free;
        }
        self.free.push(slot);
    }

    /// The attempt in this slot has ended.
    pub fn on_ended(&mut self, slot: SlotId, outputs: Outputs) {
        if let Some(entry) = self.slot_mut(slot) {
            entry.phase = Phase::Ended(outputs);
            self.unkept.push_back(slot);
        }
    }

    /// The end of the attempt in this slot is kept elsewhere, so it may be recycled when its turn comes.
    pub fn recycle_later(&mut self, slot: SlotId) {
        if let Some(place) = self.unkept.iter().position(|other| *other == slot) {
            self.unkept.remove(place);
            self.ended.push_back(slot);
        }
    }

    /// What ended in this slot is known to all who want to, so it is recycled before others.
    pub fn release(&mut self, slot: SlotId) {
        if let Some(place) = self.ended.iter().position(|other| *other == slot) {
            self.ended.remove(place);
            self.released.push_back(slot);
        }
    }

    pub fn set_free(&mut self, slot: SlotId) {
        self.free.push(slot);
    }

    /// The lock of a slot, if nobody holds it.
    pub fn try_lock(&self, slot: SlotId) -> Result<Option<OwnedFd>, Errno> {
        let record = self.open_record(slot)?;
        match flock(&record, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(record)),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads what the slot's file says.
    pub fn read_assignment(record: impl AsFd) -> Option<Assignment> {
        Assignment::open(&read_at(record, 0, ASSIGNMENT_BYTES)).ok()
    }

    pub fn read_live(record: impl AsFd) -> Option<Live> {
        Live::decode(&read_at(record, super::record::LIVE_OFFSET, LIVE_BYTES)).ok()
    }

    /// The verdict on this attempt, if it was written whole.
    pub fn read_verdict(record: impl AsFd, assignment: &Assignment) -> Option<Verdict> {
        let record = record.as_fd();
        let small = read_at(record, VERDICT_OFFSET, VERDICT_FIRST_BYTES);
        match Verdict::open(&small, assignment) {
            Ok(verdict) => Some(verdict),
            Err(_) if small.len() < VERDICT_FIRST_BYTES => None,
            Err(_) => {
                let all = read_at(record, VERDICT_OFFSET, VERDICT_BYTES_MAX + SEAL_BYTES);
                Verdict::open(&all, assignment).ok()
            }
        }
    }

    /// Whether no supervisor had begun with it, as far as this file says. The caller holds the lock.
    pub fn never_started(record: &OwnedFd, assignment: &Assignment) -> bool {
        let begun = Self::read_live(record).is_some_and(|live| live.mark == assignment.mark);
        !begun && Self::read_verdict(record, assignment).is_none()
    }

    /// What a supervisor whose agent is gone noted of its task's reports.
    pub fn read_report(record: impl AsFd, assignment: &Assignment) -> Option<Report> {
        let bytes = read_at(record, VERDICT_OFFSET, EVENT_BYTES_MAX);
        Report::open(&bytes, assignment.mark).ok()
    }

    /// Makes the disk say that nothing is in this slot; the caller holds the lock.
    pub fn erase(record: &OwnedFd) -> Result<(), Errno> {
        write_all(record, &[0; SEAL_BYTES], 0)
    }

    /// Writes a verdict; the caller holds the lock.
    pub fn write_verdict(record: &OwnedFd, verdict: &Verdict, mark: u64) -> Result<(), Errno> {
        write_all(record, &verdict.seal(mark), VERDICT_OFFSET)
    }

    /// Opens a file of a slot for reading.
    pub fn open_file(&self, slot: SlotId, name: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.folder, path(slot, name), flags, Mode::empty())
    }

    /// Opens the FIFO through which the slot's supervisor hears; an error when it does not listen.
    pub fn open_control(&self, slot: SlotId) -> Result<OwnedFd, Errno> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.folder, path(slot, "control"), flags, Mode::empty())
    }

    pub fn open_record(&self, slot: SlotId) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.folder, path(slot, ATTEMPT_FILE), flags, Mode::empty())
    }

    fn try_take(&mut self, slot: SlotId) -> Result<Option<Taken>, (SlotId, io::Error)> {
        match self.try_lock(slot) {
            Ok(record) => Ok(record.map(|record| Taken { slot, record })),
            Err(Errno::NOENT) => {
                // Somebody removed it; it is made again.
                make_folder(self.folder.as_fd(), slot).map(Some).map_err(|error| (slot, error.into()))
            }
            Err(error) => Err((slot, error.into())),
        }
    }

    fn create(&mut self) -> Result<Taken, (SlotId, io::Error)> {
        let slot = SlotId(self.count());
        let taken = make_folder(self.folder.as_fd(), slot).map_err(|error| (slot, error.into()))?;
        self.slots.push(Slot { assignment: None, phase: Phase::Free });
        Ok(taken)
    }
}

/// Makes a slot, with room for a verdict set aside; its other files are made when they are needed.
fn make_folder(folder: BorrowedFd<'_>, slot: SlotId) -> Result<Taken, Errno> {
    let private = Mode::RWXU;
    let exists = |error| if error == Errno::EXIST { Ok(()) } else { Err(error) };
    mkdirat(folder, slot.0.to_string(), private).or_else(exists)?;
    mkdirat(folder, path(slot, "work"), private).or_else(exists)?;
    mknodat(folder, path(slot, "control"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).or_else(exists)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let record = openat(folder, path(slot, ATTEMPT_FILE), flags, Mode::RUSR | Mode::WUSR)?;
    match fallocate(&record, FallocateFlags::empty(), 0, RECORD_BYTES) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(error) => return Err(error),
    }
    flock(&record, FlockOperation::NonBlockingLockExclusive)?;
    Ok(Taken { slot, record })
}

fn path(slot: SlotId, name: &str) -> String {
    format!("{}/{name}", slot.0)
}

fn read_at(file: impl AsFd, offset: u64, bytes_max: usize) -> Vec<u8> {
    let file = file.as_fd();
    let mut bytes = Vec::with_capacity(bytes_max);
    while bytes.len() < bytes_max {
        let at = offset + bytes.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    bytes.truncate(bytes_max);
    bytes
}

/// Writes all of it there, however often the kernel takes a part.
pub(super) fn write_all(file: &OwnedFd, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pwrite(file, rest, offset + done as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Most verdicts are smaller than this, and read in one go.
const VERDICT_FIRST_BYTES: usize = 2048;
const ASSIGNMENT_BYTES: usize = 1024;
const LIVE_BYTES: usize = 128;
/// Room for everything in `attempt` but a large result.
const RECORD_BYTES: u64 = 16 << 10;
