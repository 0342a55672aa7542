//! The journal as the shells drive it: facts gather while a sync runs, and then go down as one batch with
//! one sync (group commit). Once the disk has failed, nothing more is durable and the process must end.

use crate::{
    history::History,
    trace::{Violation, broken},
};
use fleetwire_common::{blob::BlobRef, facts::FactBatch, ids::Position};
use fleetwire_journal::{
    AppendError, DiskError, Journal, JournalConfig, OpenError, PreparedSegment, RetireError, SnapshotError, Summary,
    SyncError, read_blob, retire, retire_blobs, sim_disk::SimDisk, take_snapshot,
};
use std::fmt::Display;

/// The facts behind a snapshot.
pub type Behind = Vec<Vec<u8>>;

/// A journal with what waits for it.
#[derive(Debug)]
pub struct Writer {
    journal: Journal<SimDisk>,
    disk: SimDisk,
    pending: FactBatch,
    busy: bool,
    failed: bool,
    config: JournalConfig,
    /// The snapshot with which reading began; 0: none.
    snapshot: Position,
    /// How many segments are kept ready for when the disk is full.
    reserve: usize,
    /// Whether a segment was taken for a snapshot since the room was looked at.
    rolled: bool,
}

impl Writer {
    /// Opens the journal and hands every fact in it to `on_fact`; returns those behind the snapshot, too. `None`:
    /// the disk fails, as it was told to; another start may have more luck.
    ///
    /// # Errors
    /// Promise P1 is broken: what a crash leaves can always be opened and replayed.
    pub fn open(
        disk: SimDisk,
        config: &JournalConfig,
        reserve: usize,
        mut on_fact: impl FnMut(Position, &[u8]) -> Result<(), Violation>,
    ) -> Result<Option<(Writer, Behind)>, Violation> {
        let (mut behind, mut latest) = (Vec::new(), Position(0));
        let replay = |position, fact: &[u8]| {
            // A snapshot's facts all have its position: only the first of them is copied in vain.
            if position > latest {
                behind.push(fact.to_vec());
            }
            latest = position;
            on_fact(position, fact)
        };
        match Journal::open(disk.clone(), config, replay) {
            Ok((journal, recovery)) => {
                let snapshot = recovery.snapshot.map_or(Position(0), |snapshot| snapshot.position);
                let pending = FactBatch::default();
                let (config, busy, failed, rolled) = (*config, false, false, false);
                if snapshot > Position(0) {
                    behind.remove(0);
                }
                let writer = Writer { journal, disk, pending, busy, failed, config, snapshot, reserve, rolled };
                Ok(Some((writer, behind)))
            }
            Err(OpenError::Fact { cause, .. }) => Err(cause),
            Err(OpenError::Disk(_)) if disk.has_failed() => Ok(None),
            Err(error) => broken("P1", format!("the journal cannot be opened after a crash: {error}")),
        }
    }

    /// Takes facts that were decided.
    pub fn take(&mut self, facts: &mut FactBatch) {
        self.pending.append(facts);
    }

    /// Writes what waits, unless a sync is running or nothing waits. Returns whether a sync now runs.
    ///
    /// # Errors
    /// The journal failed although its disk did not.
    pub fn begin(&mut self) -> Result<bool, Violation> {
        if self.busy || self.failed || self.pending.is_empty() {
            return Ok(false);
        }
        let begun = self.pending.blobs().filter(|(blob, _)| blob.is_first()).count();
        if self.reserve > 0 && begun > 0 && !self.rolled && self.journal.prepared() < self.reserve + begun {
            return broken("P1", format!("{begun} segments of bodies begin in the reserve, which is for facts"));
        }
        match self.journal.append(&self.pending) {
            Ok(_) => {
                self.pending.clear();
                self.busy = true;
                Ok(true)
            }
            Err(AppendError::Disk(error)) => self.fail(&error).map(|()| false),
            Err(error) => broken("P1", format!("the journal takes no more: {error}")),
        }
    }

    /// Prepares segments that are missing: the reserve, one for bodies, and the next one for facts in time. Says
    /// whether the disk has no room for more than the reserve, and how many segments of bodies may have begun.
    ///
    /// # Errors
    /// The disk failed without a fault.
    pub fn prepare(&mut self) -> Result<(bool, u64), Violation> {
        let for_facts = self.reserve + usize::from(self.journal.is_half_full());
        let wanted = if self.reserve > 0 { for_facts + 1 } else { 0 };
        let mut is_full = false;
        while self.journal.prepared() < wanted && !self.failed && !is_full {
            let (serial, bytes) = self.journal.plan_segment();
            match PreparedSegment::create(&self.disk, serial, bytes) {
                Ok(segment) => self.journal.provide(segment),
                // Whatever it failed of: what there is must do.
                Err(_) if self.disk.has_failed() => is_full = true,
                Err(error) => return broken("P1", format!("a disk without faults failed: {error}")),
            }
        }
        self.rolled = false;
        let prepared = self.journal.prepared();
        let ready = u64::from(prepared > for_facts);
        Ok((is_full && prepared <= self.reserve, self.journal.blob_segments() + ready))
    }

    /// The sync has ended. Returns what is durable.
    ///
    /// # Errors
    /// The journal failed although its disk did not.
    pub fn end(&mut self) -> Result<Position, Violation> {
        self.busy = false;
        match self.journal.sync() {
            Ok(durable) => return Ok(durable),
            Err(SyncError::Disk(error)) => self.fail(&error)?,
            Err(SyncError::Poisoned { .. }) if self.failed => {}
            Err(error) => return broken("P1", format!("the journal does not sync: {error}")),
        }
        Ok(self.journal.durable())
    }

    /// An idle journal writes down what is durable.
    ///
    /// # Errors
    /// The journal failed although its disk did not.
    pub fn mark(&mut self) -> Result<(), Violation> {
        match self.journal.mark() {
            Ok(_) => Ok(()),
            Err(AppendError::Disk(error)) => self.fail(&error),
            Err(AppendError::Poisoned { .. }) if self.failed => Ok(()),
            Err(error) => broken("P1", format!("the journal cannot be marked: {error}")),
        }
    }

    /// Ends the segment that is being written, so that a snapshot can stand there.
    ///
    /// # Errors
    /// The journal failed although its disk did not.
    pub fn roll(&mut self) -> Result<(), Violation> {
        self.rolled = true;
        match self.journal.roll() {
            Ok(_) => Ok(()),
            Err(AppendError::Disk(error)) => self.fail(&error),
            Err(AppendError::Poisoned { .. }) if self.failed => Ok(()),
            Err(error) => broken("P1", format!("the journal cannot begin another segment: {error}")),
        }
    }

    /// Makes a snapshot beside the running journal, and removes what two of them stand for. Says whether there
    /// is a new one.
    ///
    /// # Errors
    /// The journal's own bytes cannot be read, or its disk failed without a fault.
    pub fn snapshot<S: Summary<Error: Display>>(&mut self, mut summary: S) -> Result<bool, Violation> {
        let taken = match take_snapshot(&self.disk, &self.config, &mut summary, |_| Ok(())) {
            Ok(taken) => taken.is_some(),
            Err(SnapshotError::Disk(_) | SnapshotError::Open(OpenError::Disk(_))) if self.disk.has_failed() => false,
            Err(error) => return broken("P1", format!("no snapshot can be made: {error}")),
        };
        match retire(&self.disk, &self.config, 1, |_| Ok(()), |_| Ok(())) {
            Ok(retired) => retired.reusable.into_iter().for_each(|segment| self.journal.provide(segment)),
            Err(RetireError::Disk(_) | RetireError::Open(OpenError::Disk(_))) if self.disk.has_failed() => {}
            Err(error) => return broken("P1", format!("what a snapshot stands for cannot go: {error}")),
        }
        if taken {
            self.retire_blobs(|segment| summary.needs_blobs(segment))?;
        }
        Ok(taken)
    }

    /// Removes segments of blobs that are not needed.
    ///
    /// # Errors
    /// The disk failed without a fault.
    pub fn retire_blobs(&self, is_needed: impl Fn(u64) -> bool) -> Result<(), Violation> {
        match retire_blobs(&self.disk, is_needed, |_| Ok(())) {
            Ok(_) => Ok(()),
            Err(RetireError::Disk(_)) if self.disk.has_failed() => Ok(()),
            Err(error) => broken("P1", format!("blobs that nobody names cannot go: {error}")),
        }
    }

    /// Reads a blob that a durable fact names.
    ///
    /// # Errors
    /// Promise P1 is broken: it is not what it was when it was decided.
    pub fn read(&self, blob: &BlobRef, history: &History) -> Result<Vec<u8>, Violation> {
        match read_blob(&self.disk, blob) {
            Ok(bytes) if history.bodies.get(blob).is_some_and(|decided| *decided == bytes) => Ok(bytes),
            Ok(_) => broken("P1", format!("{blob:?} came back otherwise than it was decided")),
            Err(error) => broken("P1", format!("what is acknowledged cannot be read: {error}")),
        }
    }

    /// The position of the snapshot with which reading began; 0: there was none.
    pub fn snapshot_position(&self) -> Position {
        self.snapshot
    }

    /// Whether the disk has failed: the process must end.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether nothing waits and no sync runs.
    pub fn is_idle(&self) -> bool {
        !self.busy && self.pending.is_empty()
    }

    /// What is durable.
    pub fn durable(&self) -> Position {
        self.journal.durable()
    }

    fn fail(&mut self, error: &DiskError) -> Result<(), Violation> {
        self.failed = true;
        if self.disk.has_failed() { Ok(()) } else { broken("P1", format!("a disk without faults failed: {error}")) }
    }
}
