//! Members of gangs: those of a job that may be assigned, but for the others of their gang, and the agents on which some are.
//!
//! Invariant: what gathers is in no queue; it leaves with all of its gang that is to start, never alone.

use crate::ranges::Ranges;
use fleetwire_common::{
    ids::{AgentId, JobId, TaskId},
    job::JobSpec,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

/// The members of a job's gangs that wait for the others.
#[derive(Clone, Debug, Default)]
pub struct Gathering {
    /// Of each entry; 0 = none.
    sizes: Box<[u32]>,
    waiting: Ranges<u16>,
}

impl Gathering {
    /// Of a job that has gangs.
    pub fn of(job: &JobSpec) -> Option<Box<Gathering>> {
        let sizes: Box<[u32]> = job.tasks.iter().map(|task| task.gang).collect();
        let has_any = sizes.iter().any(|size| *size > 0);
        has_any.then(|| Box::new(Gathering { sizes, waiting: Ranges::default() }))
    }

    /// Whether that task waits for the others of its gang.
    pub fn holds(&self, entry: u16, index: u32) -> bool {
        self.waiting.range_at(entry, index).is_some()
    }

    /// These may be assigned: those of whole gangs come back, for they are all there; the others wait, and the first members
    /// of their gangs are named.
    pub fn gather(&mut self, entry: u16, range: Range<u32>) -> (Range<u32>, [Option<u32>; 2]) {
        let size = self.sizes.get(usize::from(entry)).copied().unwrap_or_default();
        let whole = whole_gangs(size, &range);
        if whole == range {
            return (whole, [None, None]);
        }
        let ends = if whole.is_empty() { [range, 0..0] } else { [range.start..whole.start, whole.end..range.end] };
        let first_of = |part: Range<u32>| {
            self.waiting.insert(entry, part.start, part.end);
            (!part.is_empty()).then(|| part.start - part.start % size.max(1))
        };
        (whole, ends.map(first_of))
    }

    /// Takes out whatever of these waits.
    pub fn take(&mut self, entry: u16, range: Range<u32>) -> Vec<Range<u32>> {
        let clip = |found: Range<u32>| found.start.max(range.start)..found.end.min(range.end);
        let found = self.waiting.ranges_from(entry, range.start).take_while(|found| found.start < range.end);
        let taken: Vec<Range<u32>> = found.map(clip).collect();
        self.waiting.remove(entry, range.start, range.end);
        taken
    }
}

/// Of consecutive indices those of gangs that are all there; all of them, where there are no gangs.
pub fn whole_gangs(size: u32, range: &Range<u32>) -> Range<u32> {
    if size == 0 {
        return range.clone();
    }
    let start = range.start.div_ceil(size).saturating_mul(size).min(range.end);
    start..(range.end - range.end % size).max(start)
}

/// The gang that a task is of, if it is of one of that size, by its first member.
pub fn gang_of(task: TaskId, size: u32) -> TaskId {
    TaskId { index: task.index - task.index.checked_rem(size).unwrap_or_default(), ..task }
}

/// Where members of gangs are: each gang under its first member.
#[derive(Clone, Debug, Default)]
pub struct Seats {
    by_gang: BTreeMap<TaskId, BTreeSet<AgentId>>,
}

impl Seats {
    /// Whether an agent has something of a gang.
    pub fn has(&self, gang: TaskId, agent: AgentId) -> bool {
        self.by_gang.get(&gang).is_some_and(|agents| agents.contains(&agent))
    }

    /// An agent has something of a gang from now on, or nothing any more.
    pub fn set(&mut self, gang: TaskId, agent: AgentId, there: bool) {
        let agents = self.by_gang.entry(gang).or_default();
        match there {
            true => agents.insert(agent),
            false => agents.remove(&agent),
        };
        if agents.is_empty() {
            self.by_gang.remove(&gang);
        }
    }

    /// A job has ended.
    pub fn forget(&mut self, job: JobId) {
        let of = |entry, index| TaskId { job, entry, index };
        while let Some((gang, _)) = self.by_gang.range(of(0, 0)..=of(u16::MAX, u32::MAX)).next() {
            let gang = *gang;
            self.by_gang.remove(&gang);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_gangs_go_on_and_the_rest_waits_for_the_others() {
        let mut gathering = Gathering { sizes: [0, 4].into(), ..Gathering::default() };
        assert_eq!(gathering.gather(0, 3..9), (3..9, [None, None]));
        assert_eq!(gathering.gather(1, 4..12), (4..12, [None, None]));
        assert_eq!(gathering.gather(1, 13..22), (16..20, [Some(12), Some(20)]));
        assert_eq!(gathering.gather(1, 1..3), (3..3, [Some(0), None]));
        assert!(gathering.holds(1, 13) && gathering.holds(1, 2) && !gathering.holds(1, 16) && !gathering.holds(0, 4));
        assert_eq!(gathering.take(1, 0..14), [1..3, 13..14]);
        assert_eq!(gathering.take(1, 0..100), [14..16, 20..22]);
    }
}
