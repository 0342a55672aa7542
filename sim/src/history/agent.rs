//! What an agent's journal says, read from its bytes alone, and what was on disks that its device no longer has.

use super::invariant_p1_durable_survives;
use crate::{
    shadow,
    trace::{Violation, broken},
};
use fleetwire_common::{
    fb,
    ids::{AttemptId, JobKey, Position},
    message::attempt_id,
    verified,
};
use std::collections::{BTreeMap, BTreeSet};

/// An agent's journal.
#[derive(Clone, Debug, Default)]
pub struct AgentHistory {
    /// What the last sync made durable.
    pub durable: Position,
    facts: Vec<Vec<u8>>,
    kept: BTreeMap<AttemptId, Position>,
    /// Whose each is, as its assignment said last.
    keys: BTreeMap<AttemptId, JobKey>,
    /// Attempts that may have processes.
    started: BTreeMap<AttemptId, Position>,
    results: BTreeMap<AttemptId, (Position, fb::TaskStatus)>,
    /// The same by whose they are: of two jobs that bear one number, each has its own.
    of_jobs: BTreeMap<(AttemptId, JobKey), (Position, fb::TaskStatus)>,
    /// What was durable on disks that the device no longer has.
    before: BTreeMap<(AttemptId, JobKey), fb::TaskStatus>,
    /// What was kept before the scheduler went on with a backup: it may be assigned again, by the same number.
    outlived: BTreeSet<AttemptId>,
}

impl AgentHistory {
    /// Takes one fact, as it goes to the journal.
    ///
    /// # Errors
    /// Promise P2 is broken by it.
    pub fn apply(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.facts.push(bytes.to_vec());
        self.follow(self.position(), bytes)
    }

    fn follow(&mut self, position: Position, bytes: &[u8]) -> Result<(), Violation> {
        let Ok(record) = verified::fact_record(bytes) else {
            return broken("P7", format!("fact {} of an agent cannot be read", position.0));
        };
        if let Some(assignment) = record.fact_as_assignment_kept().and_then(|fact| fact.assignment()) {
            let Ok(id) = attempt_id(assignment.task_id(), assignment.attempt()) else {
                return broken("P7", "an agent kept an attempt whose id cannot be read");
            };
            if self.kept.insert(id, position).is_some() && !self.outlived.contains(&id) {
                return broken("P2", format!("an agent took {id} on twice"));
            }
            self.keys.insert(id, JobKey(assignment.job_key()));
            if record.fact_as_assignment_kept().is_some_and(|fact| !fact.waits()) {
                self.started.insert(id, position);
            }
        } else if let Some(started) = record.fact_as_attempt_started() {
            let Ok(id) = attempt_id(started.task_id(), started.attempt()) else {
                return broken("P7", "an agent started an attempt whose id cannot be read");
            };
            self.started.insert(id, position);
        } else if let Some(update) = record.fact_as_result_kept().and_then(|fact| fact.update()) {
            let Ok(id) = attempt_id(update.task_id(), update.attempt()) else {
                return broken("P7", "an agent kept a result whose id cannot be read");
            };
            if self.results.insert(id, (position, update.status())).is_some() && !self.outlived.contains(&id) {
                return broken("P2", format!("an agent kept two results of {id}"));
            }
            let key = self.keys.get(&id).copied().unwrap_or_default();
            self.of_jobs.insert((id, key), (position, update.status()));
        }
        Ok(())
    }

    /// As [`History::recover`].
    ///
    /// # Errors
    /// Promise P1 is broken: something durable is gone or was changed.
    pub fn recover(&mut self, snapshot: Position, behind: &[Vec<u8>]) -> Result<(), Violation> {
        let durable = invariant_p1_durable_survives(self.durable, &self.facts, snapshot, behind)?;
        if durable < self.position() {
            let mut facts = std::mem::take(&mut self.facts);
            facts.truncate(durable.0 as usize);
            let (before, outlived) = (std::mem::take(&mut self.before), std::mem::take(&mut self.outlived));
            *self = AgentHistory { before, outlived, ..AgentHistory::default() };
            for (position, fact) in (1..).zip(&facts) {
                self.follow(Position(position), fact)?;
            }
            self.facts = facts;
        }
        self.durable = durable;
        Ok(())
    }

    /// What all facts add up to, applied one by one, with a snapshot in between that stands for those up to its
    /// position.
    ///
    /// # Errors
    /// Promise P7 is broken: a fact cannot be read back.
    pub fn replayed(&self, snapshot: Position) -> Result<fleetwire_agent_core::State, Violation> {
        let (stood_for, behind) = self.facts.split_at_checked(snapshot.0 as usize).unwrap_or((&self.facts, &[]));
        let mut state = fleetwire_agent_core::State::default();
        stood_for.iter().try_for_each(|fact| shadow::apply_of_agent(&mut state, fact))?;
        let mut state = shadow::restored_of_agent(&state)?;
        behind.iter().try_for_each(|fact| shadow::apply_of_agent(&mut state, fact))?;
        Ok(state)
    }

    /// The device gets another disk. What was durable on the old one may still be under way.
    pub fn begin_anew(&mut self) {
        let mut before = std::mem::take(&mut self.before);
        let durable = self.of_jobs.iter().filter(|(_, (position, _))| *position <= self.durable);
        before.extend(durable.map(|(attempt, (_, status))| (*attempt, *status)));
        *self = AgentHistory { before, outlived: std::mem::take(&mut self.outlived), ..AgentHistory::default() };
    }

    /// The scheduler goes on with a backup. What was kept here is maybe not in it, or its end is not.
    pub fn outlive(&mut self) {
        self.outlived.extend(self.kept.keys());
    }

    /// What was kept here before the scheduler last went on with a backup.
    pub fn outlived(&self) -> impl Iterator<Item = AttemptId> + '_ {
        self.outlived.iter().copied()
    }

    /// Whether the scheduler went on with a backup since it was kept here.
    pub fn has_outlived(&self, attempt: AttemptId) -> bool {
        self.outlived.contains(&attempt)
    }

    /// What the attempt of that job ended as, on this disk or on an earlier one.
    pub fn ever(&self, attempt: AttemptId, key: JobKey) -> Option<fb::TaskStatus> {
        let here = self.of_jobs.get(&(attempt, key)).filter(|(position, _)| *position <= self.durable);
        here.map(|(_, status)| *status).or_else(|| self.before.get(&(attempt, key)).copied())
    }

    /// Whether the assignment is durable.
    pub fn has_kept(&self, attempt: AttemptId) -> bool {
        self.kept.get(&attempt).is_some_and(|position| *position <= self.durable)
    }

    /// Whether it is durable that the attempt may have processes.
    pub fn has_started(&self, attempt: AttemptId) -> bool {
        self.started.get(&attempt).is_some_and(|position| *position <= self.durable)
    }

    /// Whether the assignment was ever kept, durable or not.
    pub fn knows(&self, attempt: AttemptId) -> bool {
        self.kept.contains_key(&attempt)
    }

    /// The attempt's result, if it is durable.
    pub fn result(&self, attempt: AttemptId) -> Option<fb::TaskStatus> {
        self.results.get(&attempt).filter(|(position, _)| *position <= self.durable).map(|(_, status)| *status)
    }

    /// Whether the attempt has a result here, durable or not.
    pub fn has_result(&self, attempt: AttemptId) -> bool {
        self.results.contains_key(&attempt)
    }

    /// All attempts that have a result here.
    pub fn results(&self) -> impl Iterator<Item = AttemptId> + '_ {
        self.results.keys().copied()
    }

    /// How many facts there are.
    pub fn position(&self) -> Position {
        Position(self.facts.len() as u64)
    }
}
