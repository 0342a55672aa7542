//! The story of tasks that come after others: they are put into the queue once those came to what they must, and end
//! without an attempt once they cannot any more.
//!
//! Invariants: whatever ends is passed on before the event is over, and again after a start, so that no task waits for
//! what has ended; what is skipped is a fact, passed on like any other end.

use crate::{
    core::Core,
    deadlines::Deadline,
    event::Effects,
    fact::Fact,
    waits::{Verdict, Waits, joined, stands},
};
use fleetwire_common::{
    fb,
    graph::Need,
    ids::{JobId, TaskId},
};
use std::{ops::Range, time::Duration};

/// What becomes of tasks that come after others.
#[derive(Debug, Default)]
struct Decided {
    ready: Vec<(u16, Range<u32>)>,
    skipped: Vec<(u16, Range<u32>)>,
    /// Entries that wait for nothing but agents from now on.
    waiting: Vec<u16>,
}

impl Core {
    /// After a start nobody was told of anything: all that has ended is passed on, as it would have been.
    pub fn tell_all_ends(&mut self, id: JobId) {
        let Some(job) = self.state.jobs.get(&id) else { return };
        let Some(waits) = self.live.jobs.get(&id).and_then(|job| job.waits.as_ref()) else { return };
        for (ordinal, entry) in job.ordinals().zip(&job.entries) {
            if entry.fares.ended() > 0 && !waits.graph.feeds_of(ordinal).is_empty() {
                self.live.ended.push_back((id, ordinal, 0..entry.spec.count));
            }
        }
    }

    /// Passes on what has ended to whoever comes after it, and what ends by that; jobs of which too much has failed are
    /// stopped before.
    pub fn pass_on_ends(&mut self, effects: &mut Effects) {
        self.pass_on(effects);
        // What becomes of a gang may end more.
        while self.heed_gangs(effects) {
            self.pass_on(effects);
        }
    }

    fn pass_on(&mut self, effects: &mut Effects) {
        while let Some((attempt, bytes)) = self.live.unsendable.pop() {
            self.on_inputs_too_large(attempt, bytes, effects);
        }
        while let Some(job) = self.live.spending.pop() {
            self.heed_terms(job, effects);
        }
        while let Some((job, entry, range)) = self.live.ended.pop_front() {
            let Some(mut waits) = self.live.jobs.get_mut(&job).and_then(|job| job.waits.take()) else { continue };
            let decided = self.look_at_dependents(&mut waits, job, entry, range);
            self.arm_queue_timeouts(&waits, job, &decided.waiting);
            if let Some(live) = self.live.jobs.get_mut(&job) {
                live.waits = Some(waits);
            }
            let changed = !decided.ready.is_empty() || !decided.skipped.is_empty();
            for (entry, range) in decided.ready {
                self.release_tasks(job, entry, range);
            }
            for (entry, Range { start: from, end: to }) in decided.skipped {
                let (status, reason) = (fb::TaskStatus::Skipped, fb::EndReason::DependencyUnmet);
                self.decide(&Fact::TasksEnded { job, entry, from, to, status, reason }, effects);
            }
            if changed {
                self.touch(job, effects);
                self.close_if_ended(job);
            }
        }
    }

    fn look_at_dependents(&self, waits: &mut Waits, id: JobId, entry: u16, range: Range<u32>) -> Decided {
        let mut decided = Decided::default();
        let Some(job) = self.state.jobs.get(&id) else { return decided };
        let all_ended = waits.tell_end(job, entry);
        let mut place = 0;
        while let Some(feed) = waits.graph.feeds_of(entry).get(place).copied() {
            place += 1;
            let Some(after) = job.entry(feed.entry).filter(|after| after.unstarted.count() > 0) else { continue };
            if feed.each {
                let indices = range.clone().filter(|index| after.unstarted.range_at((), *index).is_some());
                let verdicts: Vec<_> = indices.map(|index| (index, waits.verdict(job, feed.entry, index))).collect();
                let of = |wanted| verdicts.iter().filter(move |(_, found)| *found == wanted).map(|(index, _)| *index);
                let waiting = |index: &u32| self.live.waits(TaskId { job: id, entry: feed.entry, index: *index });
                let ready = joined(of(Verdict::Met).filter(|index| !waiting(index)));
                decided.ready.extend(ready.into_iter().map(|range| (feed.entry, range)));
                decided.skipped.extend(joined(of(Verdict::Never)).into_iter().map(|range| (feed.entry, range)));
            } else {
                match stands(job, &Need { entry, ..feed }, 0) {
                    Verdict::Never => {
                        decided.skipped.extend(after.unstarted.ranges(()).map(|range| (feed.entry, range)));
                    }
                    Verdict::Met if all_ended && waits.meet(feed.entry) => {
                        let ready = waits.ready(job, feed.entry);
                        decided.ready.extend(ready.into_iter().map(|range| (feed.entry, range)));
                    }
                    Verdict::Met | Verdict::Waits => {}
                }
            }
            if all_ended && waits.waits_since(job, feed.entry).is_some() {
                decided.waiting.push(feed.entry);
            }
        }
        decided
    }

    /// Tasks whose needs are met are put into the queue, unless their job may not begin yet.
    fn release_tasks(&mut self, id: JobId, entry: u16, range: Range<u32>) {
        if self.live.jobs.get(&id).is_some_and(|job| job.settled) {
            self.live.enqueue_all(id, entry, range);
        }
    }

    /// From now on these wait for agents.
    fn arm_queue_timeouts(&mut self, waits: &Waits, id: JobId, entries: &[u16]) {
        let Some(job) = self.state.jobs.get(&id) else { return };
        for ordinal in entries {
            let timeout_s = job.entry(*ordinal).map_or(0, |entry| entry.spec.queue_timeout_s);
            if let Some(since) = waits.waits_since(job, *ordinal).filter(|_| timeout_s > 0) {
                let due = since + Duration::from_secs(timeout_s);
                self.live.deadlines.arm(due, Deadline::EntryQueued(id, *ordinal));
            }
        }
    }
}
