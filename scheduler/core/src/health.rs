//! The story of how an agent does: what speaks against it, and what it gets meanwhile.
//!
//! Invariants: as in [`crate::breaker`] and [`crate::presence`].

use crate::{breaker::Outcome, core::Core, deadlines::Deadline};
use fleetwire_common::{
    fb,
    ids::{AgentId, AttemptId},
};

impl Core {
    /// What an agent is about to say of an attempt that has not ended; looked at before its task moves on.
    pub fn judge_end(
        &self,
        agent: AgentId,
        attempt: AttemptId,
        status: fb::TaskStatus,
        reason: fb::EndReason,
    ) -> Outcome {
        let last = self.state.tasks.get(&attempt.task).and_then(|record| record.last.as_deref());
        let failed =
            |status| matches!(status, fb::TaskStatus::Failed | fb::TaskStatus::TimedOut | fb::TaskStatus::Lost);
        Outcome {
            attempt,
            status,
            reason,
            others_complete: self.state.jobs.get(&attempt.task.job).is_some_and(|job| job.counts.completed > 0),
            failed_elsewhere: last.is_some_and(|last| last.agent != agent && failed(last.status)),
        }
    }

    /// An agent ended an attempt.
    pub fn note_end(&mut self, agent: AgentId, outcome: &Outcome) {
        let now = self.now;
        let opens = self.live.agent_mut(agent).breaker.note(&self.config.policy, now, outcome);
        if let Some(until) = opens {
            self.live.deadlines.arm(until, Deadline::Breaker(agent));
        }
    }

    /// An agent that failed everything has had its time to cool.
    pub fn on_cooled(&mut self, agent: AgentId) {
        let now = self.now;
        self.live.agent_mut(agent).breaker.cool(now);
        self.live.refresh_room(agent);
    }

    /// An agent's connection was lost.
    pub fn note_loss(&mut self, agent: AgentId) {
        let now = self.now;
        let live = self.live.agent_mut(agent);
        if !live.leaving
            && let Some(until) = live.presence.lose(&self.config.policy, now)
        {
            self.live.deadlines.disarm(until, Deadline::Quarantine(agent));
        }
    }

    /// It is there again.
    pub fn note_return(&mut self, agent: AgentId) {
        let now = self.now;
        if let Some(until) = self.live.agent_mut(agent).presence.arrive(&self.config.policy, now) {
            self.live.deadlines.arm(until, Deadline::Quarantine(agent));
        }
    }

    /// It has stayed.
    pub fn on_stayed(&mut self, agent: AgentId) {
        let now = self.now;
        self.live.agent_mut(agent).presence.settle(now);
        self.live.refresh_room(agent);
    }

    /// Why an agent gets no work, or only some, in words; `None` if it does.
    pub fn agent_note(&self, agent: AgentId) -> Option<String> {
        self.notice()
            .or_else(|| self.cordon_in_words(agent))
            .or_else(|| self.live.agent(agent)?.presence.in_words(self.now))
            .or_else(|| self.live.agent(agent)?.breaker.in_words(self.now))
            .or_else(|| self.reservation_in_words(agent))
    }
}
