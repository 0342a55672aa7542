//! The story of what an attempt holds of semaphores: from its assignment until its agent has said that its last process
//! is gone, or nothing can be left of it.
//!
//! Invariants: what has not ended is a holder, for it may be sent again; what has ended is one until its agent's word, or until
//! its agent was not heard for so long that it has stopped it; so it is after a restart.

use crate::{
    core::Core,
    deadlines::Deadline,
    event::Rejected,
    live::{Held, Reported},
    semaphores::Need,
};
use fleetwire_common::{
    fb,
    ids::{AgentId, AttemptId, JobId, TaskId},
    job::JobSpec,
    limits::SEMAPHORES_MAX,
    time::Time,
};
use std::{collections::BTreeMap, time::Duration};

impl Core {
    /// Refuses a job that says another limit for a semaphore than one that has not ended.
    pub fn check_semaphores(&self, spec: &JobSpec) -> Result<(), Rejected> {
        for one in spec.tasks.iter().flat_map(|task| &task.semaphores) {
            let Some(open) = self.live.queue.semaphores.limit(&one.name).filter(|open| *open != one.max) else {
                continue;
            };
            let says = |job: &&JobId| {
                let spec = self.state.jobs.get(job).map(|job| &job.spec);
                spec.is_some_and(|spec| {
                    spec.tasks.iter().any(|task| task.semaphores.iter().any(|it| it.name == one.name))
                })
            };
            let job = self.live.jobs.keys().find(says).copied().unwrap_or_default();
            return Err(Rejected::Semaphore { name: one.name.to_string(), found: one.max, open, job });
        }
        Ok(())
    }

    /// An attempt may run from now on.
    pub fn hold_semaphores(&mut self, agent: AgentId, attempt: AttemptId) {
        let Some(spec) = self.state.task_spec(attempt.task).filter(|spec| !spec.semaphores.is_empty()) else { return };
        let needs: Vec<Need> = spec.semaphores.iter().map(|one| (one.name.clone(), one.units)).collect();
        let gone_after = self.terms(attempt.task.job).gone_after(spec.kill_grace_ms).unwrap_or(Duration::MAX);
        self.live.queue.semaphores.hold(agent, attempt, needs, gone_after);
    }

    /// The agent has said that the attempt's last process is gone.
    pub fn let_go(&mut self, agent: AgentId, attempt: AttemptId) -> Option<Held> {
        self.release_semaphores(agent, attempt);
        self.live.release(agent, attempt)
    }

    fn release_semaphores(&mut self, agent: AgentId, attempt: AttemptId) {
        if let Some(at) = self.live.queue.semaphores.release(agent, attempt) {
            self.live.deadlines.disarm(at, Deadline::Gone(agent, attempt));
        }
    }

    fn set_gone_at(&mut self, agent: AgentId, attempt: AttemptId, gone_at: Option<Time>) {
        let before = self.live.queue.semaphores.set_gone_at(agent, attempt, gone_at);
        if let Some(before) = before {
            self.live.deadlines.disarm(before, Deadline::Gone(agent, attempt));
        }
        if let Some(at) = gone_at {
            self.live.deadlines.arm(at, Deadline::Gone(agent, attempt));
        }
    }

    /// An agent is not heard since then: in time it has stopped what it has.
    pub fn time_semaphores(&mut self, agent: AgentId, heard_at: Time) {
        for attempt in self.live.queue.semaphores.held_on(agent) {
            if let Some((gone_after, None)) = self.live.queue.semaphores.gone(agent, attempt) {
                self.set_gone_at(agent, attempt, Some(heard_at + gone_after));
            }
        }
    }

    /// Nothing can be left of an attempt. What has not ended by now may be sent again, should its agent return.
    pub fn on_gone(&mut self, agent: AgentId, attempt: AttemptId) {
        self.live.queue.semaphores.set_gone_at(agent, attempt, None);
        if self.check_attempt(agent, attempt).is_err() {
            self.release_semaphores(agent, attempt);
        }
    }

    /// An attempt was suspect. If it has ended, nothing is left of it.
    pub fn on_suspect_ended(&mut self, agent: AgentId, attempt: AttemptId) {
        if self.check_attempt(agent, attempt).is_err() {
            self.release_semaphores(agent, attempt);
        }
    }

    /// An agent is back and lists what it has. What is not there any more is gone, if its data are those that it had;
    /// else some of it may still run, until it is not heard.
    pub fn reconcile_semaphores(&mut self, agent: AgentId, same_data: bool, listed: &BTreeMap<AttemptId, Reported>) {
        for attempt in self.live.queue.semaphores.held_on(agent) {
            let gone = self.live.queue.semaphores.gone(agent, attempt);
            if listed.contains_key(&attempt) || self.live.held(agent, attempt).is_some() {
                self.set_gone_at(agent, attempt, None);
            } else if same_data {
                self.release_semaphores(agent, attempt);
            } else if let Some((gone_after, None)) = gone {
                self.set_gone_at(agent, attempt, Some(self.now + gone_after));
            }
        }
    }

    /// At a start: what ended lately, and maybe without its agent's word, is a holder as it was before.
    pub fn recall_semaphores(&mut self) {
        let mut recent = Vec::new();
        for (id, job) in &self.state.jobs {
            for (ordinal, entry) in job.ordinals().zip(&job.entries).filter(|(_, one)| !one.spec.semaphores.is_empty())
            {
                let Some(gone_after) = job.spec.terms.gone_after(entry.spec.kill_grace_ms) else { continue };
                let of = |index| TaskId { job: *id, entry: ordinal, index };
                let again = self.state.tasks.range(of(0)..=of(u32::MAX));
                let again = again.filter_map(|(task, record)| Some((*task, record.last.as_deref()?)));
                for (task, ended) in entry.ended.iter().map(|(index, ended)| (of(*index), ended)).chain(again) {
                    let gone_at = (ended.ended_at() + gone_after).min(self.now + gone_after);
                    if ended.status != fb::TaskStatus::Completed && gone_at > self.now {
                        recent.push((ended.agent, AttemptId { task, attempt: ended.attempt }, gone_at));
                    }
                }
            }
        }
        for (agent, attempt, gone_at) in recent {
            self.hold_semaphores(agent, attempt);
            self.set_gone_at(agent, attempt, Some(gone_at));
        }
    }

    /// Which semaphore a task waits for, and who holds it.
    pub fn semaphore_in_words(&self, task: TaskId) -> Option<String> {
        let class =
            self.live.queue.find(self.live.class_of(task)?).filter(|class| class.is_parked() && class.holds(task))?;
        let semaphores = &self.live.queue.semaphores;
        let needs = class.needs();
        let needs = || needs.iter();
        let lacks = needs().find(|need| !semaphores.have_room(std::slice::from_ref(need), &BTreeMap::new()));
        let Some((name, units)) = lacks else {
            let names = needs().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(" and ");
            return Some(format!("waits for its turn: what is before it waits for more of semaphore {names}"));
        };
        let (max, taken) = semaphores.find(name)?;
        let holders = semaphores.holders_of(name);
        let one =
            |(agent, attempt): &(AgentId, AttemptId)| format!("{} on `{}`", attempt.task, self.agent_name(*agent));
        let count = holders.len();
        let mut words: Vec<String> = holders.take(SEMAPHORES_MAX).map(one).collect();
        let more = count - words.len();
        if more > 0 {
            words.push(format!("{more} more"));
        }
        let words = words.join(", ");
        Some(format!("waits for semaphore `{name}`: {taken} of its {max} are taken, it needs {units}; held by {words}"))
    }
}
