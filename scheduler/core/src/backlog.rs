//! The story of a backlog: agents whose tasks are short are given the next ones ahead, so that those follow
//! each other without a round trip.
//!
//! Invariants: what waits on an agent holds nothing there, but counts as held by its queue, which may have a quota, and is held to nothing but its agent's
//! word that it starts; an agent has at most [`BACKLOG_TIME`] of work ahead, by the pace of what ended
//! there; what waits although the pace has dropped, or although another agent has room for it, is recalled.

use crate::{
    core::Core,
    deadlines::Deadline,
    event::Effects,
    fact::Fact,
    limits::{BACKLOG_LOOK, BACKLOG_SPEC_BYTES_MAX, BACKLOG_TIME, BACKLOG_TURNS_MAX},
    live::Held,
    queue::ClassId,
};
use fleetwire_common::{
    ids::{AgentId, AttemptId, TaskId},
    message::Message,
    resources::Resources,
    time::Time,
};
use std::collections::VecDeque;

/// One agent's backlog, as far as its scheduler knows.
#[derive(Debug, Default)]
pub struct Backlog {
    /// How many assignments it takes that have to wait.
    pub max: u32,
    /// They, in the order in which they were sent.
    pub waiting: VecDeque<AttemptId>,
    /// What the latest attempt that ended there held: the room that the next finds.
    pub left: Resources,
    /// When it is looked at next.
    pub look_at: Option<Time>,
    pace: Pace,
}

/// How many attempts end on an agent within [`BACKLOG_TIME`], and how long they took.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    from: Time,
    ends: u32,
    before: u32,
    /// An exponential mean, an eighth of it the latest.
    wall_us: u64,
}

impl Pace {
    fn on_end(&mut self, now: Time, wall_us: u64) {
        self.turn(now);
        self.ends = self.ends.saturating_add(1);
        self.wall_us = self.wall_us - self.wall_us / 8 + wall_us / 8;
    }

    /// Begins another window when the last is over.
    fn turn(&mut self, now: Time) {
        let over = now.since(self.from);
        if over >= BACKLOG_TIME {
            self.before = if over < 2 * BACKLOG_TIME { self.ends } else { 0 };
            self.ends = 0;
            self.from = now;
        }
    }

    /// How many `running` at a time get through: by what ended lately, and by how long each takes, because what
    /// started together also ends together.
    fn depth(&mut self, now: Time, running: usize) -> usize {
        self.turn(now);
        let ends = self.before.max(self.ends) as usize;
        let fit = (BACKLOG_TIME.as_micros() as u64).checked_div(self.wall_us);
        let turns = fit.map_or(usize::MAX, |turns| usize::try_from(turns).unwrap_or(usize::MAX));
        ends.min(running.max(1).saturating_mul(turns))
    }
}

impl Core {
    /// An attempt has ended on an agent: its pace, and the room that it left.
    pub fn note_pace(&mut self, agent: AgentId, task: TaskId, wall_us: u64) {
        let Some(left) = self.state.task_spec(task).map(|spec| spec.resources) else { return };
        let backlog = &mut self.live.agent_mut(agent).backlog;
        if backlog.max > 0 {
            backlog.pace.on_end(self.now, wall_us);
            backlog.left = left;
            self.live.refill.insert(agent);
        }
    }

    /// Gives agents on which something has ended the next tasks ahead. Nothing that could start elsewhere is
    /// left by now: what fits was placed.
    pub fn refill(&mut self, effects: &mut Effects) {
        while let Some(agent) = self.live.refill.pop_first() {
            let now = self.now;
            let found = self.live.agent_mut(agent);
            let waiting = found.backlog.waiting.len();
            let running = found.held.len() - waiting;
            let depth = found.backlog.pace.depth(now, running).min(found.backlog.max as usize);
            // In lots, not one by one.
            if waiting > depth / 2 || !self.live.index.room(agent).placeable {
                continue;
            }
            for _ in waiting..depth {
                let Some(task) = self.next_ahead(agent) else { break };
                self.assign_ahead(agent, task, effects);
            }
        }
    }

    /// The next task that would be this agent's: of the first class that it may be offered, if it needs just
    /// the room that the next end leaves, and may wait there.
    fn next_ahead(&mut self, agent: AgentId) -> Option<TaskId> {
        let found = self.live.agent(agent)?;
        let left = found.backlog.left;
        let is_full = found.held.len() >= self.config.policy.attempts_per_agent as usize;
        if is_full
            || !found.breaker.is_closed()
            || !found.presence.is_settled()
            || self.live.index.reserved.holds(agent)
        {
            return None;
        }
        let queue = &self.live.queue;
        let admits = |class: &ClassId| queue.admits(*class, agent, self.live.index.free(agent));
        let class = queue.turns().take(BACKLOG_TURNS_MAX).map(|turn| turn.class).find(admits)?;
        let first = queue
            .find(class)
            .filter(|_| queue.has_quota(class))
            .filter(|class| class.request.resources == left && class.request.may_wait_there())?
            .first()?;
        let bytes = self.state.jobs.get(&first.job)?.task_bytes(first.entry)? + self.input_bytes(first);
        if bytes > BACKLOG_SPEC_BYTES_MAX {
            return None;
        }
        self.live.queue.take_first(class)
    }

    fn assign_ahead(&mut self, agent: AgentId, task: TaskId, effects: &mut Effects) {
        if !self.live.take_places(task, 1) {
            self.live.enqueue(task);
            self.live.unplanned = true;
            return;
        }
        self.cease_waiting(task);
        let attempt = self.next_attempt(task);
        self.decide(&Fact::AttemptAssigned { attempt, agent }, effects);
        let held = Held { waits: true, ..self.new_held(attempt) };
        self.live.hold(agent, attempt, held);
        if let Some(session) = self.session_of(agent) {
            self.send_assignment(session, attempt, effects);
        }
        self.touch(task.job, effects);
        self.look_later(agent);
    }

    fn look_later(&mut self, agent: AgentId) {
        let at = self.now + BACKLOG_LOOK;
        let backlog = &mut self.live.agent_mut(agent).backlog;
        if backlog.look_at.is_none() && !backlog.waiting.is_empty() {
            backlog.look_at = Some(at);
            self.live.deadlines.arm(at, Deadline::Backlog(agent));
        }
    }

    /// What waits longer than it should is wanted back.
    pub fn on_backlog(&mut self, agent: AgentId, effects: &mut Effects) {
        let now = self.now;
        let found = self.live.agent_mut(agent);
        let running = found.held.len() - found.backlog.waiting.len();
        let backlog = &mut found.backlog;
        backlog.look_at = None;
        let depth = backlog.pace.depth(now, running);
        let (waiting, newest) = (backlog.waiting.len(), backlog.waiting.back().copied());
        let idle_elsewhere = newest.is_some_and(|attempt| self.has_room_elsewhere(attempt.task));
        let kept = if idle_elsewhere { depth.min(waiting / 2) } else { depth.min(waiting) };
        self.recall(agent, kept, effects);
        self.look_later(agent);
    }

    /// Wants back what waits on an agent, but the first `kept` of it.
    pub fn recall(&mut self, agent: AgentId, kept: usize, effects: &mut Effects) {
        let Some(session) = self.session_of(agent) else { return };
        let live = &mut self.live;
        let recalled: Vec<AttemptId> =
            live.agent(agent).into_iter().flat_map(|agent| agent.backlog.waiting.iter().skip(kept)).copied().collect();
        for attempt in recalled {
            let Some(held) = live.held_mut(agent, attempt).filter(|held| !held.recalled) else { continue };
            held.recalled = true;
            effects.send(session, Message::Recall(attempt));
        }
    }

    /// Whether an agent would take a task at once, and nothing else of its class waits for that.
    fn has_room_elsewhere(&mut self, task: TaskId) -> bool {
        let Some(class) = self.live.class_of(task) else { return false };
        let live = &mut self.live;
        let none_waits = live.queue.find(class).is_some_and(|class| class.pending() == 0);
        none_waits && live.index.has_room(class, &mut live.queue, &self.config.policy)
    }
}
