//! Looks at the slots themselves: at a start, and now and then at those that run. Whoever finds a lock free decides what
//! became of the attempt, by what the slot says.
//!
//! Invariants: a verdict is written under the lock, before it is told; only an attempt that certainly never began is
//! given back.

use std::os::fd::OwnedFd;

use fleetwire_schemas::EndReason;
use rustix::io::Errno;
use tokio::time::Instant;

use super::super::event::{ExecutorEvent, SlotCondition, SlotState};
use super::super::limits::{STRAY_ROUNDS_MAX, SWEEP_INTERVAL};
use super::super::record::{ATTEMPT_FILE, Report, SlotId, Verdict};
use super::super::slots::{Outputs, Phase, Running, Slot, Slots};
use super::super::strays::kill_strays;
use super::super::supervisor::now;
use super::ProcessExecutor;

impl ProcessExecutor {
    /// Looks at every running slot: a lock that is free means that its supervisor is gone.
    pub(super) fn sweep(&mut self) {
        self.next_sweep = Instant::now() + SWEEP_INTERVAL;
        for slot in self.slots.ids() {
            if !self.slots.is_running(slot) {
                continue;
            }
            self.deliver_cancel(slot);
            match self.slots.try_lock(slot) {
                Ok(Some(record)) => {
                    // Whoever held the lock may have said first what came next.
                    self.drain_events();
                    if !self.slots.is_running(slot) {
                        continue;
                    }
                    if self.was_never_taken(slot, &record) {
                        self.on_never_taken(slot, &record);
                    } else if let Some(verdict) = self.judge(slot, &record) {
                        self.on_lock_free(slot, verdict);
                    }
                }
                // A supervisor has it, or its request waits here for the spawner.
                Ok(None) => self.look_for_report(slot),
                Err(_) => {}
            }
        }
    }

    /// Whether a request, asked of the spawner by this agent, died before any supervisor began with it. That is certain:
    /// the lock came with the request, and is ours, so nobody can begin any more; and who begins says so in the slot
    /// before there are processes.
    fn was_never_taken(&self, slot: SlotId, record: &OwnedFd) -> bool {
        let Some(assignment) = self.slots.slot(slot).and_then(|slot| slot.assignment.as_ref()) else {
            return false;
        };
        let asked_here = !self.adopted.contains_key(&slot) && !self.staging.holds(slot, assignment.mark);
        asked_here && Slots::never_started(record, assignment)
    }

    fn on_never_taken(&mut self, slot: SlotId, record: &OwnedFd) {
        let Some(Slot { assignment: Some(assignment), phase: Phase::Running(running) }) = self.slots.slot(slot) else {
            return;
        };
        let (key, cancelled) = (assignment.key.clone(), running.cancel_grace.is_some());
        if Slots::erase(record).is_err() {
            return;
        }
        self.slots.give_back(slot);
        self.running = self.running.saturating_sub(1);
        self.ready.push_back(ExecutorEvent::NotTaken { key, cancelled });
    }

    /// An attempt has ended without a word of its supervisor.
    fn on_lock_free(&mut self, slot: SlotId, verdict: Verdict) {
        let mark = self.slots.slot(slot).and_then(|slot| slot.assignment.as_ref()).map(|own| own.mark);
        let was_staged = mark.is_some_and(|mark| self.on_staged_taken(slot, mark).is_some());
        // A staged one was taken by a supervisor that died, or could not say so: it had no room of its own, and
        // the one that it was to follow is found in the same way.
        let next = if was_staged { None } else { self.start_staged() };
        self.on_ended(slot, verdict, next);
    }

    /// Whether an adopted attempt has noted something new.
    fn look_for_report(&mut self, slot: SlotId) {
        let Some(told) = self.adopted.get_mut(&slot) else {
            return;
        };
        let Some(assignment) = self.slots.slot(slot).and_then(|slot| slot.assignment.as_ref()) else {
            return;
        };
        let Ok(record) = self.slots.open_file(slot, ATTEMPT_FILE) else {
            return;
        };
        if let Some(report) = Slots::read_report(record, assignment)
            && report != *told
        {
            told.clone_from(&report);
            self.ready.push_back(ExecutorEvent::Report { key: assignment.key.clone(), report });
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

    pub(super) fn look_at_slots(&mut self) -> Result<(), Errno> {
        let mut ended = Vec::new();
        for slot in self.slots.ids() {
            let opened = self.slots.open_record(slot);
            let Some((record, assignment)) = opened.ok().and_then(|record| {
                let assignment = Slots::read_assignment(&record)?;
                Some((record, assignment))
            }) else {
                // Never used, or torn by a power cut: nothing in it can be told or wanted.
                self.slots.set_free(slot);
                continue;
            };
            let lock = self.slots.try_lock(slot)?;
            let (key, job_key) = (assignment.key.clone(), assignment.job_key);
            let mark = assignment.mark;
            if let Some(lock) = lock.as_ref().filter(|lock| Slots::never_started(lock, &assignment)) {
                // Whoever was to start it is gone, and nobody can any more: the lock came with the request.
                Slots::erase(lock)?;
                self.slots.set_free(slot);
                continue;
            }
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
                    self.adopted.insert(slot, Report::default());
                    let live = Slots::read_live(&record).filter(|live| live.mark == mark);
                    SlotCondition::Supervised { started: live.map(|live| live.started) }
                }
            };
            self.surveyed.push(SlotState { slot, key, job_key, condition });
        }
        ended.sort_unstable_by_key(|(at, slot, _)| (*at, *slot));
        for (_, slot, outputs) in ended {
            self.slots.on_ended(slot, outputs);
            self.slots.recycle_later(slot);
        }
        Ok(())
    }
}
