//! The circuit breaker of one agent: whoever fails everything that it gets is given nothing for a while, then
//! one task, and all again once that has completed.
//!
//! Invariants: only failures of different tasks count that are not the tasks' own; while it is open nothing is
//! placed there; while it is half open, one attempt at most. Volatile: a start closes all breakers.

use crate::policy::Policy;
use fleetwire_common::{
    fb,
    ids::{AttemptId, JobId},
    time::Time,
};
use std::{collections::BTreeSet, time::Duration};

/// How an agent does.
#[derive(Debug, Default)]
pub struct Breaker {
    state: State,
    /// Failures in a row that count.
    failures: u32,
    /// The entries of jobs in which they were.
    entries: BTreeSet<(JobId, u16)>,
    /// How often it has opened in a row.
    opened: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Work comes.
    #[default]
    Closed,
    /// None comes.
    Open { until: Time },
    /// One attempt may come.
    HalfOpen,
    /// It has come.
    Probing { attempt: AttemptId },
}

/// What an agent said of an attempt's end.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Which.
    pub attempt: AttemptId,
    /// How it ended.
    pub status: fb::TaskStatus,
    /// Why.
    pub reason: fb::EndReason,
    /// Whether others do better: some task of its job has completed.
    pub others_complete: bool,
    /// Whether the task has failed on another agent before.
    pub failed_elsewhere: bool,
}

impl Breaker {
    /// Takes an end; says until when nothing is placed there, if it opens by that.
    pub fn note(&mut self, policy: &Policy, now: Time, outcome: &Outcome) -> Option<Time> {
        let Outcome { attempt, status, reason, others_complete, failed_elsewhere } = *outcome;
        if status == fb::TaskStatus::Completed {
            *self = Breaker::default();
            return None;
        }
        let probed = self.state == State::Probing { attempt };
        if !is_failure(status, reason) || failed_elsewhere || (!probed && self.state != State::Closed) {
            return None;
        }
        let entry = (attempt.task.job, attempt.task.entry);
        // A job of which everything fails says nothing of the agent; that several do, does.
        if !probed && self.entries.contains(&entry) && !others_complete {
            return None;
        }
        self.failures += 1;
        if self.entries.len() < policy.breaker_failures as usize {
            self.entries.insert(entry);
        }
        if !probed && self.failures < policy.breaker_failures {
            return None;
        }
        let cooling = policy.breaker_cooling.saturating_mul(1 << self.opened.min(16)).min(policy.breaker_cooling_max);
        let until = now + cooling;
        self.opened += 1;
        self.state = State::Open { until };
        Some(until)
    }

    /// Its cooling time is over.
    pub fn cool(&mut self, now: Time) {
        if matches!(self.state, State::Open { until } if until <= now) {
            self.state = State::HalfOpen;
        }
    }

    /// An attempt was given to the agent.
    pub fn give(&mut self, attempt: AttemptId) {
        if self.state == State::HalfOpen {
            self.state = State::Probing { attempt };
        }
    }

    /// An attempt is gone. If it was the one to try with and said nothing, another may come.
    pub fn release(&mut self, attempt: AttemptId) {
        if self.state == (State::Probing { attempt }) {
            self.state = State::HalfOpen;
        }
    }

    /// Whether anything may be placed there.
    pub fn is_passable(&self) -> bool {
        match self.state {
            State::Closed | State::HalfOpen => true,
            State::Open { .. } | State::Probing { .. } => false,
        }
    }

    /// Whether it does well, as far as anyone knows.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Why it gets no work, in words; `None` if it does.
    pub fn in_words(&self, now: Time) -> Option<String> {
        let failed = format!("the last {} tasks that it was given failed", self.failures);
        match self.state {
            State::Closed => None,
            State::Open { until } => {
                let left: Duration = until.since(now);
                Some(format!(
                    "{failed}: it gets nothing for {:.0} s more, then one task to try with",
                    left.as_secs_f64()
                ))
            }
            State::HalfOpen => Some(format!("{failed}: it gets one task to try with")),
            State::Probing { attempt } => Some(format!("{failed}: it tries with {attempt}")),
        }
    }
}

/// Whether an end speaks against the agent: what the task or a person may have brought about does not.
fn is_failure(status: fb::TaskStatus, reason: fb::EndReason) -> bool {
    let failed = matches!(status, fb::TaskStatus::Failed | fb::TaskStatus::Lost);
    failed
        && matches!(
            reason,
            fb::EndReason::Exited
                | fb::EndReason::Signalled
                | fb::EndReason::SpawnFailed
                | fb::EndReason::SupervisorLost
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetwire_common::ids::TaskId;

    fn failure(job: u64) -> Outcome {
        let task = TaskId { job: JobId(job), entry: 0, index: 0 };
        Outcome {
            attempt: AttemptId { task, attempt: 1 },
            status: fb::TaskStatus::Failed,
            reason: fb::EndReason::Exited,
            others_complete: false,
            failed_elsewhere: false,
        }
    }

    fn opens(outcomes: impl Iterator<Item = Outcome>) -> bool {
        let (policy, mut breaker) = (Policy::default(), Breaker::default());
        outcomes.fold(false, |opened, outcome| opened | breaker.note(&policy, Time(1), &outcome).is_some())
    }

    #[test]
    fn only_what_speaks_against_the_agent_counts() {
        assert!(opens((0..8).map(failure)));
        assert!(!opens((0..7).map(failure)));
        assert!(!opens((0..100).map(|_| failure(1))), "one job of which everything fails");
        assert!(opens((0..100).map(|_| Outcome { others_complete: true, ..failure(1) })));
        assert!(!opens((0..100).map(|job| Outcome { failed_elsewhere: true, ..failure(job) })));
        let cancelled =
            |job| Outcome { reason: fb::EndReason::Cancelled, status: fb::TaskStatus::Cancelled, ..failure(job) };
        assert!(!opens((0..100).map(cancelled)));
        let slow =
            |job| Outcome { reason: fb::EndReason::RunTimeout, status: fb::TaskStatus::TimedOut, ..failure(job) };
        assert!(!opens((0..100).map(slow)));
        let now_and_then = |job| match job % 8 {
            7 => Outcome { status: fb::TaskStatus::Completed, ..failure(job) },
            _ => failure(job),
        };
        assert!(!opens((0..100).map(now_and_then)));
    }
}
