//! The story of an agent that is not heard: unreachable, then its attempts suspect, then rivals.
//!
//! Invariants: a lost connection ends nothing; a suspect attempt may gain one rival; at most two attempts
//! of a task have not ended; while one of them is not suspect, nothing more is started; of exclusive work
//! only one attempt has not ended, and the next waits until nothing of it can be left.

use crate::{
    agents::AgentRecord,
    attempts::{Assigned, end_of_stopped},
    core::Core,
    deadlines::Deadline,
    event::Effects,
    fact::Fact,
    limits::RETURN_WITHIN,
    live::Reported,
    tasks::Ending,
};
use fleetwire_common::{
    fb,
    ids::{AgentId, AttemptId, TaskId},
    time::Time,
};
use std::time::Duration;

impl Core {
    /// An agent is away since `heard_at`: its absence will be noted, and its leases run.
    pub fn on_agent_away(&mut self, agent: AgentId, heard_at: Time) {
        let policy = &self.config.policy;
        let now = self.now;
        let live = self.live.agent_mut(agent);
        live.session = None;
        live.heard_at = heard_at;
        // Several short absences are one fact: what they would write is bounded.
        let noted = live.noted_at + policy.unreachable_every;
        let note_at = (now + policy.unreachable_after).max(if live.noted_at > Time::ZERO { noted } else { now });
        let before = live.unreachable_at.replace(note_at);
        if let Some(before) = before {
            self.live.deadlines.disarm(before, Deadline::Unreachable(agent));
        }
        self.live.deadlines.arm(note_at, Deadline::Unreachable(agent));
        // What was noted before our own restart counts; whoever could not reach us meanwhile has some time.
        let forget_after = self.config.policy.forget_after;
        let since = self.state.agents.find(agent).and_then(AgentRecord::away_since).unwrap_or(heard_at);
        let forget_at = (since + forget_after).max(heard_at + forget_after.min(RETURN_WITHIN));
        if let Some(before) = self.live.agent_mut(agent).forget_at.replace(forget_at) {
            self.live.deadlines.disarm(before, Deadline::Forget(agent));
        }
        self.live.deadlines.arm(forget_at, Deadline::Forget(agent));
        self.live.refresh_room(agent);
        self.arm_lease(agent);
        self.time_semaphores(agent, heard_at);
    }

    /// An agent is back: nothing runs out any more.
    pub fn disarm_absence(&mut self, agent: AgentId) {
        let live = self.live.agent_mut(agent);
        let (lease, unreachable) = (live.lease_at.take(), live.unreachable_at.take());
        if let Some(at) = live.forget_at.take() {
            self.live.deadlines.disarm(at, Deadline::Forget(agent));
        }
        if let Some(at) = lease {
            self.live.deadlines.disarm(at, Deadline::Lease(agent));
        }
        if let Some(at) = unreachable {
            self.live.deadlines.disarm(at, Deadline::Unreachable(agent));
        }
    }

    /// An agent has been away long enough for a fact.
    pub fn on_unreachable(&mut self, agent: AgentId, effects: &mut Effects) {
        let now = self.now;
        let live = self.live.agent_mut(agent);
        live.unreachable_at = None;
        let away = live.session.is_none();
        if away && self.state.agents.find(agent).is_some_and(|record| record.away_since().is_none()) {
            self.live.agent_mut(agent).noted_at = now;
            self.decide(&Fact::AgentUnreachable { agent }, effects);
        }
    }

    /// Some attempt of an agent may be suspect by now.
    pub fn on_lease(&mut self, agent: AgentId, effects: &mut Effects) {
        self.live.agent_mut(agent).lease_at = None;
        let Some(live) = self.live.agent(agent).filter(|live| live.session.is_none()) else { return };
        let heard_at = live.heard_at;
        let fresh = live.held.iter().filter(|(_, held)| !held.ended && !held.suspect).map(|(attempt, _)| *attempt);
        let due: Vec<_> = fresh.filter(|attempt| heard_at + self.lost_after(attempt.task.job) <= self.now).collect();
        for attempt in due {
            self.on_suspect(agent, attempt, effects);
        }
        self.arm_lease(agent);
    }

    /// Looks at the leases again when the earliest of them runs out.
    pub fn arm_lease(&mut self, agent: AgentId) {
        let Some(live) = self.live.agent(agent) else { return };
        let fresh = live.held.iter().filter(|(_, held)| !held.ended && !held.suspect);
        let earliest = fresh.map(|(attempt, _)| live.heard_at + self.lost_after(attempt.task.job)).min();
        let before = std::mem::replace(&mut self.live.agent_mut(agent).lease_at, earliest);
        if let Some(before) = before {
            self.live.deadlines.disarm(before, Deadline::Lease(agent));
        }
        if let Some(earliest) = earliest {
            self.live.deadlines.arm(earliest, Deadline::Lease(agent));
        }
    }

    fn on_suspect(&mut self, agent: AgentId, attempt: AttemptId, effects: &mut Effects) {
        if let Some(held) = self.live.held_mut(agent, attempt) {
            held.suspect = true;
        }
        self.touch(attempt.task.job, effects);
        self.consider_rival(attempt.task, effects);
        self.on_suspect_ended(agent, attempt);
    }

    /// A task all of whose attempts may be suspect: gives it a rival, or ends the older attempt.
    pub fn consider_rival(&mut self, task: TaskId, effects: &mut Effects) {
        while let Some(record) = self.state.tasks.get(&task) {
            let open = record.open;
            let is_suspect = |assigned: &Assigned| {
                let attempt = AttemptId { task, attempt: assigned.attempt };
                self.live.held(assigned.agent, attempt).is_some_and(|held| held.suspect)
            };
            let Some(older) = open.iter().next().filter(|_| open.iter().all(|assigned| is_suspect(&assigned))) else {
                return;
            };
            let Some(max_losses) = self.state.task_spec(task).map(|spec| spec.max_losses) else { return };
            let terms = self.terms(task.job);
            let stopped = self.state.stopped(task);
            // What is suspect now would count as lost: the task would have ended its agents too often.
            let spent = !terms.retry_lost || record.losses.saturating_add(open.count() as u32) >= max_losses;
            // Exclusive work has no rivals: what is suspect is gone by now, so it ends, and is tried again.
            let may_have_rival = !terms.exclusive;
            if stopped.is_none() && !spent && open.count() == 1 && may_have_rival {
                self.live.enqueue(task);
                return;
            }
            let lost = (fb::TaskStatus::Lost, fb::EndReason::AgentLost);
            let (status, reason) = stopped.map_or(lost, |reason| (end_of_stopped(reason), reason));
            let ending = Ending::decided(status, reason, self.now);
            self.end_attempt(AttemptId { task, attempt: older.attempt }, ending, effects);
        }
    }

    /// An agent lists an attempt again. Of two whose agents are both heard one goes on, as the job's terms say;
    /// a result that is there already decides by itself.
    pub fn keep_one(&mut self, agent: AgentId, attempt: AttemptId, report: &Reported, effects: &mut Effects) {
        let task = attempt.task;
        if self.check_attempt(agent, attempt).is_err() {
            return;
        }
        if let Some(held) = self.live.held_mut(agent, attempt) {
            held.suspect = false;
        }
        let Some(open) = self.state.tasks.get(&task).map(|record| record.open) else { return };
        let mut both = open.iter();
        let (Some(older), Some(newer)) = (both.next(), both.next()) else { return };
        let held = |of: Assigned| self.live.held(of.agent, AttemptId { task, attempt: of.attempt });
        // Whom nobody has heard since this start may be far ahead, or gone.
        let is_heard = |of: Assigned| of.attempt == attempt.attempt || self.session_of(of.agent).is_some();
        if report.status == fb::TaskStatus::Completed || !is_heard(older) || !is_heard(newer) {
            return;
        }
        let progress = |of: Assigned| {
            let listed = if of.attempt == attempt.attempt { report.progress_ppm } else { 0 };
            held(of).map_or(0, |held| held.progress_ppm.max(listed))
        };
        let ends = match self.terms(task.job).keep {
            fb::Keep::Replacement => older,
            fb::Keep::BestProgress if progress(newer) > progress(older) => older,
            _ => newer,
        };
        let ended = AttemptId { task, attempt: ends.attempt };
        let ending = Ending::decided(fb::TaskStatus::Cancelled, fb::EndReason::Rival, self.now);
        self.end_attempt(ended, ending, effects);
        if ended != attempt {
            self.send_cancellation(ends.agent, ended, fb::EndReason::Rival, effects);
        }
    }

    /// The driver itself stood still: nobody could be heard in that time.
    pub fn on_stalled(&mut self, gap: Duration) {
        let now = self.now;
        let away: Vec<_> =
            self.live.agents().filter(|(_, agent)| agent.session.is_none()).map(|(agent, _)| agent).collect();
        for agent in away {
            let live = self.live.agent_mut(agent);
            live.heard_at = (live.heard_at + gap).min(now);
            self.arm_lease(agent);
        }
        for session in self.live.sessions.values_mut() {
            session.heard_at = (session.heard_at + gap).min(now);
        }
    }
}
