//! How tasks that may be assigned come into the queue and leave it; those above a cap of their job are held back.
//!
//! Invariant: a waiting task is in one place, so whoever takes it from there takes it from everywhere.

use crate::{
    caps::Caps,
    live::Live,
    queue::{ClassId, Queue},
};
use fleetwire_common::ids::{JobId, TaskId};
use std::ops::Range;

impl Live {
    /// The class of a task of a job that has not ended.
    pub fn class_of(&self, task: TaskId) -> Option<ClassId> {
        self.jobs.get(&task.job)?.classes.get(usize::from(task.entry)).copied()
    }

    /// Whether a task waits for an agent, or for a place under its job's caps.
    pub fn waits(&self, task: TaskId) -> bool {
        let Some(job) = self.jobs.get(&task.job) else { return false };
        let held_back = job.caps.as_ref().is_some_and(|caps| caps.holds_back(task.entry, task.index));
        let gathers = job.gathering.as_ref().is_some_and(|gathering| gathering.holds(task.entry, task.index));
        let class = job.classes.get(usize::from(task.entry)).and_then(|class| self.queue.find(*class));
        held_back || gathers || class.is_some_and(|class| class.holds(task))
    }

    /// Tasks may be assigned, none of which waits already; of a gang once all of it may that is to start.
    pub fn enqueue_all(&mut self, id: JobId, entry: u16, range: Range<u32>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(gathering) = &mut job.gathering else { return self.admit(id, entry, range) };
        let (whole, gangs) = gathering.gather(entry, range);
        self.gangs.extend(gangs.into_iter().flatten().map(|index| TaskId { job: id, entry, index }));
        if !whole.is_empty() {
            self.admit(id, entry, whole);
        }
    }

    /// These wait for nothing any more but agents, and their job's caps.
    pub fn admit(&mut self, id: JobId, entry: u16, range: Range<u32>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        match (&mut job.caps, job.classes.get(usize::from(entry))) {
            (Some(caps), _) => {
                if !caps.changed {
                    self.capped.push(id);
                }
                caps.hold_back(entry, range);
            }
            (None, Some(class)) => self.queue.push(*class, id, entry, range.start, range.end),
            (None, None) => {}
        }
    }

    /// A task may be assigned, unless it waits already.
    pub fn enqueue(&mut self, task: TaskId) {
        if !self.waits(task) {
            self.enqueue_all(task.job, task.entry, task.index..task.index + 1);
        }
    }

    /// Whatever of these tasks waits does so no more.
    pub fn withdraw(&mut self, id: JobId, entry: u16, range: Range<u32>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(class) = job.classes.get(usize::from(entry)).copied() else { return };
        if let Some(gathering) = &mut job.gathering {
            gathering.take(entry, range.clone());
        }
        let pending = |queue: &Queue| queue.find(class).map_or(0, |class| class.pending());
        let before = job.caps.as_ref().map_or(0, |_| pending(&self.queue));
        self.queue.withdraw(class, id, entry, range.start, range.end);
        if let Some(caps) = &mut job.caps {
            if !caps.changed {
                self.capped.push(id);
            }
            caps.withdraw(entry, range, (before - pending(&self.queue)) as u32);
        }
    }

    /// A task waits no more.
    pub fn dequeue(&mut self, task: TaskId) {
        self.withdraw(task.job, task.entry, task.index..task.index.saturating_add(1));
    }

    /// A task was taken out of the queue to be assigned, with others of its gang, so many in all: whether its job's caps allow
    /// that.
    pub fn take_places(&mut self, task: TaskId, tasks: u32) -> bool {
        self.change_caps(task.job, |caps| caps.take_places(task.entry, tasks)).unwrap_or(true)
    }

    /// A task was taken out of the queue and is not assigned yet, or not after all: what it was to hold is not its own.
    pub fn give_back(&mut self, task: TaskId) {
        let queue = &mut self.queue;
        let Some(class) = self.jobs.get(&task.job).and_then(|job| job.classes.get(usize::from(task.entry)).copied())
        else {
            return;
        };
        let needs = queue.find(class).map(|class| class.request.semaphores.clone()).unwrap_or_default();
        queue.semaphores.give_back(&needs);
    }

    /// So many attempts of a task have ended.
    pub fn leave_places(&mut self, task: TaskId, attempts: u32) {
        self.change_caps(task.job, |caps| caps.close(task.entry, attempts));
    }

    /// An attempt of a task has not ended: one that an earlier start assigned.
    pub fn keep_place(&mut self, task: TaskId) {
        self.change_caps(task.job, |caps| caps.open(task.entry, 1));
    }

    fn change_caps<T>(&mut self, id: JobId, change: impl FnOnce(&mut Caps) -> T) -> Option<T> {
        let caps = self.jobs.get_mut(&id)?.caps.as_mut()?;
        if !caps.changed {
            self.capped.push(id);
        }
        Some(change(caps))
    }

    /// Puts what there is room for into the queue, and takes out what there is none for any more: another entry of the
    /// job has it.
    pub fn heed_caps(&mut self) {
        while let Some(id) = self.capped.pop() {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            let Some(caps) = &mut job.caps else { continue };
            for (entry, class) in (0..).zip(&job.classes) {
                while caps.excess(entry) > 0 {
                    let pending = self.queue.find(*class).and_then(|class| class.last_of(id, entry));
                    let Some(last) = pending else { break };
                    let from = last.start.max(last.end.saturating_sub(caps.excess(entry)));
                    // Of a gang none stays alone.
                    let from = from - from.checked_rem(caps.entry(entry).gang).unwrap_or_default();
                    let excess =
                        self.queue.find(*class).map(|class| class.waiting_from(id, entry, from)).unwrap_or_default();
                    for Range { start, end } in excess {
                        self.queue.withdraw(*class, id, entry, start, end);
                        caps.withdraw(entry, start..end, end - start);
                        caps.hold_back(entry, start..end);
                    }
                }
                while let Some(range) = caps.next(entry) {
                    self.queue.push(*class, id, entry, range.start, range.end);
                }
            }
            caps.changed = false;
        }
    }
}
