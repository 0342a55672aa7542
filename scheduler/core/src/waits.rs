//! What tasks wait for before they may be assigned at all: the entries that they come after (docs/jobs.md#dependencies).
//!
//! Invariants: nothing here is more than the facts of the job's tasks imply; a verdict other than [`Verdict::Waits`] never
//! changes any more, because what has ended stays as it is. Counters, not scans: an entry that waits for a whole other
//! one costs the same whatever their counts.

use crate::attempts::{Entry, Job};
use fleetwire_common::{
    fb,
    graph::{Graph, Need},
    time::Time,
};
use std::ops::Range;

/// How things stand for a task that comes after others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All came to what they must: it may be assigned.
    Met,
    /// Something has not ended.
    Waits,
    /// Something came to something else: it never will.
    Never,
}

/// The dependencies of a job, and how far they are met.
#[derive(Clone, Debug)]
pub struct Waits {
    /// Who comes after whom.
    pub graph: Graph,
    /// By entry: how many other entries it waits for as a whole.
    unmet: Vec<u32>,
    /// By entry: whether those that come after it know that all of it has ended.
    told: Vec<bool>,
}

impl Waits {
    /// Nothing of what has ended was told yet.
    pub fn new(graph: Graph) -> Waits {
        let unmet = graph.needs.iter().map(|needs| needs.iter().filter(|need| !need.each).count() as u32).collect();
        let told = vec![false; graph.needs.len()];
        Waits { graph, unmet, told }
    }

    /// Whether the end of a whole entry is news for those that come after it; from now on it is not.
    pub fn tell_end(&mut self, job: &Job, entry: u16) -> bool {
        let ended = job.entry(entry).is_some_and(Entry::has_ended);
        self.told.get_mut(usize::from(entry)).is_some_and(|told| ended && !std::mem::replace(told, true))
    }

    /// A need for a whole entry is met; says whether it was the last.
    pub fn meet(&mut self, entry: u16) -> bool {
        let Some(unmet) = self.unmet.get_mut(usize::from(entry)) else { return false };
        *unmet = unmet.saturating_sub(1);
        *unmet == 0
    }

    /// How it stands for one task.
    pub fn verdict(&self, job: &Job, entry: u16, index: u32) -> Verdict {
        let waits = self.unmet.get(usize::from(entry)).is_some_and(|unmet| *unmet > 0);
        let whole = if waits { Verdict::Waits } else { Verdict::Met };
        let each = self.graph.needs_of(entry).iter().filter(|need| need.each);
        each.map(|need| stands(job, need, index)).fold(whole, Verdict::max)
    }

    /// The tasks of an entry that were never started and may be. Looks at each of them only if it waits for one of its
    /// own index.
    pub fn ready(&self, job: &Job, entry: u16) -> Vec<Range<u32>> {
        let Some(found) = job.entry(entry) else { return Vec::new() };
        if self.unmet.get(usize::from(entry)).is_some_and(|unmet| *unmet > 0) {
            return Vec::new();
        }
        let each: Vec<&Need> = self.graph.needs_of(entry).iter().filter(|need| need.each).collect();
        if each.iter().any(|need| job.entry(need.entry).is_none_or(|other| other.fares.ended() == 0)) {
            return Vec::new();
        }
        if each.is_empty() {
            return found.unstarted.ranges(()).collect();
        }
        let indices = found.unstarted.ranges(()).flatten();
        joined(indices.filter(|index| self.verdict(job, entry, *index) == Verdict::Met))
    }

    /// Since when the tasks of an entry wait for nothing but agents; `None` if what they come after has not all ended.
    pub fn waits_since(&self, job: &Job, entry: u16) -> Option<Time> {
        let needs = self.graph.needs_of(entry).iter();
        needs.map(|need| job.entry(need.entry)?.ended_at).try_fold(job.starts_at(), |since, at| Some(since.max(at?)))
    }
}

/// What a need has come to, for the task of that index.
pub fn stands(job: &Job, need: &Need, index: u32) -> Verdict {
    let Some(entry) = job.entry(need.entry) else { return Verdict::Never };
    let met = |met: bool| if met { Verdict::Met } else { Verdict::Never };
    let (ended, succeeded, failed) = if need.each {
        let outcome = entry.outcome(index);
        let completed = outcome == Some(fb::TaskStatus::Completed);
        let neither = matches!(outcome, Some(fb::TaskStatus::Cancelled | fb::TaskStatus::Skipped));
        (outcome.is_some(), completed, outcome.is_some() && !completed && !neither)
    } else {
        let fares = entry.fares;
        (entry.has_ended(), fares.completed == entry.spec.count, fares.failed > 0)
    };
    match need.on {
        // One that did not succeed decides for all.
        fb::DependencyOn::Success if !need.each && entry.fares.ended() > entry.fares.completed => Verdict::Never,
        _ if !ended => Verdict::Waits,
        fb::DependencyOn::Success => met(succeeded),
        fb::DependencyOn::Failure => met(failed),
        _ => Verdict::Met,
    }
}

/// Indices that rise, as ranges.
pub fn joined(indices: impl Iterator<Item = u32>) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for index in indices {
        match ranges.last_mut() {
            Some(last) if last.end == index => last.end += 1,
            _ => ranges.push(index..index + 1),
        }
    }
    ranges
}
