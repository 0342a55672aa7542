//! The story of a gang: its members start together, each on an agent of its own, know where the others are, and share what
//! becomes of one that is lost (docs/jobs.md#gangs).
//!
//! Invariants: what is asked of a gang follows from facts alone, so that a start finds it as it was. While one that starts
//! anew has a live attempt, none of its members waits in the queue; one member that ended otherwise than well, for good, ends
//! all of them. A gang is looked at in the event in which something of it has changed.

use crate::{attempts::Entry, core::Core, event::Effects, fact::Fact, gathering::gang_of};
use fleetwire_common::{
    fb,
    ids::{AgentId, AttemptId, TaskId},
    job::TaskSpec,
};

/// How the members of a gang fare.
#[derive(Clone, Debug, Default)]
struct Members {
    /// Their attempts that have not ended.
    open: Vec<(AgentId, AttemptId)>,
    /// Those that have none and have not ended.
    pending: Vec<TaskId>,
    /// How the gang ends, if one of them has ended otherwise than well.
    ends_as: Option<fb::TaskStatus>,
}

impl Core {
    /// Something of a task has changed: its gang is looked at, if it is of one.
    pub fn note_gang(&mut self, task: TaskId) {
        let size = self.state.task_spec(task).map_or(0, |spec| spec.gang);
        if size > 0 {
            self.live.gangs.insert(gang_of(task, size));
        }
    }

    /// Looks at the gangs of which something has changed; whether there were any.
    pub fn heed_gangs(&mut self, effects: &mut Effects) -> bool {
        let any = !self.live.gangs.is_empty();
        while let Some(gang) = self.live.gangs.pop_first() {
            self.heed_gang(gang, effects);
        }
        any
    }

    fn heed_gang(&mut self, gang: TaskId, effects: &mut Effects) {
        let Some(spec) = self.spec(gang) else { return };
        let Members { open, pending, ends_as } = self.members(gang, &spec);
        if let Some(status) = ends_as {
            self.end_members(pending, status, effects);
            self.stop_members(open, effects);
            self.close_if_ended(gang.job);
        } else if spec.gang_lost != fb::OnLost::Replace && !open.is_empty() && !pending.is_empty() {
            self.stop_members(open, effects);
        } else if !open.is_empty() || pending.iter().all(|task| self.live.waits(*task)) {
            self.admit_members(gang, &spec);
        }
    }

    /// How the members of a task's gang fare, that task included.
    fn members(&self, task: TaskId, spec: &TaskSpec) -> Members {
        let mut members = Members::default();
        let Some(entry) = self.state.jobs.get(&task.job).and_then(|job| job.entry(task.entry)) else { return members };
        for index in spec.gang_of(task.index) {
            let task = TaskId { index, ..task };
            let open = self.state.tasks.get(&task).and_then(|record| record.open.latest());
            match open {
                Some(open) => members.open.push((open.agent, AttemptId { task, attempt: open.attempt })),
                None if entry.outcome(index).is_none() => members.pending.push(task),
                None => {}
            }
        }
        members.ends_as = gang_end(entry, spec, task.index);
        members
    }

    /// How a task ends that has an attempt, because its gang has ended.
    pub fn ends_with_gang(&self, task: TaskId) -> Option<fb::TaskStatus> {
        let entry = self.state.jobs.get(&task.job)?.entry(task.entry).filter(|entry| entry.spec.gang > 0)?;
        gang_end(entry, &entry.spec, task.index)
    }

    /// Whether a task's gang starts anew, because another of its members has no attempt any more.
    pub fn starts_anew(&self, task: TaskId) -> bool {
        let Some(spec) = self.state.task_spec(task).filter(|spec| spec.gang > 0) else { return false };
        let others = |spec: &TaskSpec| self.members(task, spec).pending.iter().any(|other| *other != task);
        spec.gang_lost != fb::OnLost::Replace && others(spec)
    }

    /// Members that have no attempt end with their gang.
    fn end_members(&mut self, pending: Vec<TaskId>, status: fb::TaskStatus, effects: &mut Effects) {
        for task in pending {
            let TaskId { job, entry, index: from } = task;
            let (to, reason) = (from.saturating_add(1), fb::EndReason::GangLost);
            self.cease_waiting(task);
            self.live.withdraw(job, entry, from..to);
            self.decide(&Fact::TasksEnded { job, entry, from, to, status, reason }, effects);
            self.touch(job, effects);
        }
    }

    /// Asks the agents of members to stop them, once. Those that are asked to stop for another reason end by that.
    fn stop_members(&mut self, open: Vec<(AgentId, AttemptId)>, effects: &mut Effects) {
        const WHY: fb::EndReason = fb::EndReason::GangLost;
        for (agent, attempt) in open {
            let held = self.live.held_mut(agent, attempt);
            let asked = held.is_some_and(|held| held.makes_way.replace(WHY) == Some(WHY));
            if !asked && !self.state.is_stopped(attempt.task) {
                self.send_cancellation(agent, attempt, WHY, effects);
                self.touch(attempt.task.job, effects);
            }
        }
    }

    /// Those of a gang that gathered may be placed.
    fn admit_members(&mut self, gang: TaskId, spec: &TaskSpec) {
        let TaskId { job, entry, index } = gang;
        let gathering = self.live.jobs.get_mut(&job).and_then(|job| job.gathering.as_mut());
        let ready = gathering.map(|gathering| gathering.take(entry, spec.gang_of(index))).unwrap_or_default();
        for range in ready {
            self.live.admit(job, entry, range);
        }
    }

    /// Puts into the spec of a gang's member how large the gang is, which of them it is, and where all of them are.
    pub fn with_gang(&self, task: TaskId, spec: &mut TaskSpec) {
        let members = spec.gang_of(task.index);
        let rank = task.index - members.start;
        let address = |index| {
            let open = self.state.tasks.get(&TaskId { index, ..task })?.open.latest()?;
            Some(self.state.agents.find(open.agent)?.profile.address.as_str())
        };
        let peers: Vec<&str> = members.map(|index| address(index).unwrap_or_default()).collect();
        let own = [("SIZE", spec.gang.to_string()), ("RANK", rank.to_string()), ("PEERS", peers.join(","))];
        spec.environment.retain(|(name, _)| !name.starts_with(GANG_VARIABLES));
        spec.environment.extend(own.map(|(name, value)| (format!("{GANG_VARIABLES}{name}"), value)));
    }

    /// What a member waits for, if that is others of its gang.
    pub fn gang_in_words(&self, task: TaskId) -> Option<String> {
        let gathering = self.live.jobs.get(&task.job)?.gathering.as_ref()?;
        if !gathering.holds(task.entry, task.index) {
            return None;
        }
        let spec = self.state.task_spec(task)?;
        let Members { open, pending, .. } = self.members(task, spec);
        let early = pending.iter().filter(|other| !self.live.waits(**other)).count();
        let mut words = Vec::new();
        if !open.is_empty() {
            words.push(format!("{} of them are being stopped", open.len()));
        }
        if early > 0 {
            words.push(format!("{early} may not start yet"));
        }
        Some(format!("waits for the other members of its gang of {}: {}", spec.gang, words.join(", and ")))
    }

    /// Why an agent may not be given a member: it has another one.
    pub fn seat_in_words(&self, agent: AgentId, task: TaskId) -> Option<String> {
        let spec = self.state.task_spec(task).filter(|spec| spec.gang > 0)?;
        let there = self.live.queue.seats.has(gang_of(task, spec.gang), agent);
        there.then(|| String::from("it has another member of the gang, each of which has an agent of its own"))
    }

    /// Why nobody knows when a gang could start: not on one agent, for which that might be said.
    pub fn no_start_of_gang_in_words(&self, task: TaskId) -> Option<String> {
        let class = self.live.queue.find(self.live.class_of(task)?).filter(|class| class.is_of_gangs())?;
        let unit = class.unit();
        Some(format!("its gang starts on {unit} agents at once, and nobody knows when the last of them has room"))
    }

    /// How many agents could be given a member of a waiting task's gang now, and what that means.
    pub fn room_for_gang_in_words(&self, task: TaskId, fitting: u32) -> Option<String> {
        let class = self.live.queue.find(self.live.class_of(task)?).filter(|class| class.is_of_gangs())?;
        let needs = self.members(task, self.state.task_spec(task)?).pending.len() as u32;
        let size = class.request.gang;
        Some(match fitting.min(needs) {
            placed if placed < needs => format!(
                "its gang of {size} starts on {needs} agents at once: {placed} of its members could be placed now, and {} agents are missing",
                needs - placed
            ),
            _ => format!("its gang of {size} starts on {needs} agents at once, and there are enough"),
        })
    }
}

/// How the gang of an entry's task ends, if one of its members has ended otherwise than well.
fn gang_end(entry: &Entry, spec: &TaskSpec, index: u32) -> Option<fb::TaskStatus> {
    let has = |bits: &fixedbitset::FixedBitSet| spec.gang_of(index).any(|index| bits.contains(index as usize));
    if has(&entry.failed) {
        return Some(fb::TaskStatus::Failed);
    }
    (has(&entry.cancelled) || has(&entry.skipped)).then_some(fb::TaskStatus::Cancelled)
}

/// What the variables of gangs begin with.
const GANG_VARIABLES: &str = "FLEETWIRE_GANG_";
