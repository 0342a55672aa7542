//! How many attempts of a job, or of one of its entries, are assigned or run at once (docs/jobs.md#how-much-runs-at-once).
//! What is above that is held back: it is not in the queue, so nothing has to look at it before it may be assigned.
//!
//! Invariants: a task that may be assigned but for the caps is either in the queue or held back; once a job was looked at,
//! each of its entries has as much in the queue as there is room for, and no more. Counters, not scans.

use crate::{attempts::Job, gathering::whole_gangs, ranges::Ranges};
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
    /// So many tasks are assigned together, or not at all; of an entry only.
    pub gang: u32,
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
        let entries: Vec<Cap> =
            job.entries.iter().map(|entry| Cap { gang: entry.spec.gang, ..cap(entry.spec.max_running) }).collect();
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
        let range = self.whole_of(entry, next, more)?;
        self.held_back.take(entry, range.start, range.end);
        self.note_queued(entry, |before| before + (range.end - range.start));
        Some(range)
    }

    /// Of tasks that are held back, the first so many for which there is room; of gangs whole ones only, of which the rest
    /// comes next, where some have ended between.
    fn whole_of(&self, entry: u16, next: Range<u32>, more: u32) -> Option<Range<u32>> {
        let end = next.start.saturating_add(more);
        let gang = self.entry(entry).gang;
        let Some(rank) = next.start.checked_rem(gang) else { return Some(next.start..next.end.min(end)) };
        let first_ends = (next.start - rank).saturating_add(gang);
        let pieces = self.held_back.ranges_from(entry, next.start).take_while(|piece| piece.start < first_ends);
        let first: u32 = pieces.map(|piece| piece.end.min(first_ends) - piece.start).sum();
        if first > more {
            return None;
        }
        // Only what is all there is known to be whole.
        let whole = if next.end >= first_ends { whole_gangs(gang, &(first_ends..next.end.min(end))).end } else { 0 };
        Some(next.start..next.end.min(first_ends.max(whole)))
    }

    /// How many tasks of an entry wait in the queue without room.
    pub fn excess(&self, entry: u16) -> u32 {
        self.entry(entry).queued.saturating_sub(self.room(entry))
    }

    /// So many tasks were taken out of the queue to be assigned together: whether they may be, which is counted then.
    pub fn take_places(&mut self, entry: u16, tasks: u32) -> bool {
        let has_room = self.room(entry) >= tasks;
        self.note_queued(entry, |before| before.saturating_sub(tasks));
        if has_room {
            self.open(entry, tasks);
        }
        has_room
    }

    /// So many more attempts of an entry have not ended.
    pub fn open(&mut self, entry: u16, attempts: u32) {
        self.change_open(entry, |open| open + attempts);
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
