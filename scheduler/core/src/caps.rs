//! How many attempts of a job, or of one of its entries, are assigned or run at once (docs/jobs.md#how-much-runs-at-once).
//! What is above that is held back: it is not in the queue, so nothing has to look at it before it may be assigned.
//!
//! Invariants: a task that may be assigned but for the caps is either in the queue or held back; once a job was looked at,
//! each of its entries has as much in the queue as there is room for, and no more. Counters, not scans.

use crate::{attempts::Job, ranges::Ranges};
use std::ops::Range;

/// The caps of a job that has some.
#[derive(Clone, Debug)]
pub struct Caps {
    job: Cap,
    entries: Vec<Cap>,
    held_back: Ranges<u16>,
    /// To be looked at.
    pub changed: bool,
}

/// One cap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cap {
    /// How many attempts may be assigned or running; 0 = any number.
    pub max: u32,
    /// How many are.
    pub open: u32,
    /// How many tasks wait in the queue; of an entry only.
    pub queued: u32,
}

impl Cap {
    fn room(self) -> u32 {
        if self.max == 0 { u32::MAX } else { self.max.saturating_sub(self.open) }
    }
}

impl Caps {
    /// Of a job of which nothing is assigned yet; `None` if it has no cap.
    pub fn of(job: &Job) -> Option<Box<Caps>> {
        let cap = |max| Cap { max, ..Cap::default() };
        let entries: Vec<Cap> = job.entries.iter().map(|entry| cap(entry.spec.max_running)).collect();
        let whole = cap(job.spec.terms.max_running);
        let has_any = whole.max > 0 || entries.iter().any(|entry| entry.max > 0);
        has_any.then(|| Box::new(Caps { job: whole, entries, held_back: Ranges::default(), changed: false }))
    }

    /// The entry's cap.
    pub fn entry(&self, entry: u16) -> Cap {
        self.entries.get(usize::from(entry)).copied().unwrap_or_default()
    }

    /// The whole job's.
    pub fn job(&self) -> Cap {
        self.job
    }

    /// How many more attempts of an entry may be assigned now.
    pub fn room(&self, entry: u16) -> u32 {
        self.job.room().min(self.entry(entry).room())
    }

    /// Whether that task is held back.
    pub fn holds_back(&self, entry: u16, index: u32) -> bool {
        self.held_back.range_at(entry, index).is_some()
    }

    /// Holds tasks back, of which none waits in the queue.
    pub fn hold_back(&mut self, entry: u16, range: Range<u32>) {
        self.held_back.insert(entry, range.start, range.end);
        self.changed = true;
    }

    /// Tasks that do not wait any more; so many of them were in the queue.
    pub fn withdraw(&mut self, entry: u16, range: Range<u32>, queued: u32) {
        self.held_back.remove(entry, range.start, range.end);
        self.note_queued(entry, |before| before.saturating_sub(queued));
    }

    /// The next tasks of an entry for which there is room in the queue.
    pub fn next(&mut self, entry: u16) -> Option<Range<u32>> {
        let more = self.room(entry).saturating_sub(self.entry(entry).queued);
        let next = self.held_back.ranges(entry).next().filter(|_| more > 0)?;
        let range = next.start..next.end.min(next.start.saturating_add(more));
        self.held_back.take(entry, range.start, range.end);
        self.note_queued(entry, |before| before + (range.end - range.start));
        Some(range)
    }

    /// How many tasks of an entry wait in the queue without room.
    pub fn excess(&self, entry: u16) -> u32 {
        self.entry(entry).queued.saturating_sub(self.room(entry))
    }

    /// A task was taken out of the queue to be assigned: whether it may be, which is counted then.
    pub fn take_place(&mut self, entry: u16) -> bool {
        let has_room = self.room(entry) > 0;
        self.note_queued(entry, |before| before.saturating_sub(1));
        if has_room {
            self.open(entry);
        }
        has_room
    }

    /// One more attempt of an entry has not ended.
    pub fn open(&mut self, entry: u16) {
        self.change_open(entry, |open| open + 1);
    }

    /// So many of its attempts have.
    pub fn close(&mut self, entry: u16, attempts: u32) {
        self.change_open(entry, |open| open.saturating_sub(attempts));
    }

    fn change_open(&mut self, entry: u16, change: impl Fn(u32) -> u32) {
        self.job.open = change(self.job.open);
        if let Some(cap) = self.entries.get_mut(usize::from(entry)) {
            cap.open = change(cap.open);
        }
        self.changed = true;
    }

    fn note_queued(&mut self, entry: u16, change: impl Fn(u32) -> u32) {
        if let Some(cap) = self.entries.get_mut(usize::from(entry)) {
            cap.queued = change(cap.queued);
        }
        self.changed = true;
    }
}
