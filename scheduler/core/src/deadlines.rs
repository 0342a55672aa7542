//! What is due when: one ordered table for the whole core.
//!
//! Invariant: whoever arms a deadline remembers its time and disarms it when it no longer matters, so
//! that the table holds no more than what is waited for.

use fleetwire_common::{
    ids::{AgentId, AttemptId, JobId, SessionId, TaskId},
    time::Time,
};
use std::collections::BTreeSet;

use crate::queue::ClassId;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// A job's tasks may be assigned: it was to start later, or nothing can be left of what the journal that a backup
    /// stands for had assigned of an exclusive one.
    Settled(JobId),
    /// A job's own deadline.
    Due(JobId),
    /// A task's wait for its next attempt is over.
    Retry(TaskId),
    /// A task that was started before has waited too long for an agent.
    TaskQueued(TaskId),
    /// The tasks of an entry that were never started have waited too long for an agent.
    EntryQueued(JobId, u16),
    /// An agent may have been silent for as long as a job allows.
    Lease(AgentId),
    /// Nothing can be left of an attempt whose agent is not heard.
    Gone(AgentId, AttemptId),
    /// An agent has been away long enough for a fact.
    Unreachable(AgentId),
    /// An agent has been away for so long that it is not expected back.
    Forget(AgentId),
    /// A session may have been silent for too long.
    Silence(SessionId),
    /// An attempt should have been ended by its agent's run timeout.
    Backstop(AttemptId),
    /// An agent that rejected a class may be offered it again.
    Readmit(ClassId, AgentId),
    /// An agent that failed everything may be given a task to try with.
    Breaker(AgentId),
    /// An agent that came and went has stayed for as long as it must.
    Quarantine(AgentId),
    /// A drain's time is over.
    Drain(AgentId),
    /// What waits on an agent may have waited for too long.
    Backlog(AgentId),
    /// Some class may have waited for so long that an agent is to be reserved for it, or others are to make way.
    Reserve,
    /// Some schedule's moment has come.
    Agenda,
    /// A held query.
    Watch(u64),
    /// A log request that an agent has not answered.
    Log(u64),
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Deadlines {
    due: BTreeSet<(Time, Deadline)>,
}

impl Deadlines {
    /// Arms a deadline. [`Time::NEVER`] is not kept.
    pub fn arm(&mut self, at: Time, deadline: Deadline) {
        if at < Time::NEVER {
            self.due.insert((at, deadline));
        }
    }

    /// Disarms a deadline that was armed for `at`.
    pub fn disarm(&mut self, at: Time, deadline: Deadline) {
        self.due.remove(&(at, deadline));
    }

    /// When the next is due.
    pub fn next(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the next that is due at `now`.
    pub fn take_due(&mut self, now: Time) -> Option<Deadline> {
        if self.next()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, deadline)| deadline)
    }

    /// How many are armed.
    pub fn count(&self) -> usize {
        self.due.len()
    }
}
