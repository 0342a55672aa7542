//! What the journals say, read from their bytes alone: the record that every promise is held against.
//! Nothing here uses a core's own tables, so a core that is wrong does not agree with itself.
//!
//! Invariants: `durable <= facts.len()`; facts beyond `durable` may be gone after a crash, facts up to it
//! never.

use crate::{
    recurring::Recurring,
    shadow,
    stopping::invariant_jobs_are_stopped_for_a_reason,
    trace::{Violation, broken},
};
use fleetwire_common::{
    blob::BlobRef,
    envelope::keys::sha256,
    fb,
    ids::{AttemptId, JobId, JobKey, Position, SubmitId, TaskId},
    job::{JobSpec, TaskSpec},
    message::{End, is_final},
    verified,
};
use fleetwire_scheduler_core::State;
use std::collections::BTreeMap;

mod agent;

pub use agent::AgentHistory;

/// The scheduler's journal.
#[derive(Debug, Default)]
pub struct History {
    /// What the last sync made durable.
    pub durable: Position,
    /// Every body that was ever to lie beside the journal.
    pub bodies: BTreeMap<BlobRef, Vec<u8>>,
    facts: Vec<Vec<u8>>,
    latest_at: u64,
    jobs: BTreeMap<JobId, JobHistory>,
    submits: BTreeMap<SubmitId, JobId>,
    tasks: BTreeMap<TaskId, TaskHistory>,
    agents: BTreeMap<u32, String>,
    recurring: Recurring,
    tasks_open: u64,
    /// It was proved that this is a restored backup, and nobody has accepted that.
    restored: bool,
    /// What incarnations before this prove is known.
    accepted: u64,
    /// Where the latest start of the scheduler is.
    began: Position,
}

/// One job.
#[derive(Debug)]
pub struct JobHistory {
    /// Where it was accepted.
    pub accepted: Position,
    /// What was accepted.
    pub spec: JobSpec,
    /// What tells it from a job that bears its number in another journal.
    pub key: JobKey,
    /// When, in µs.
    pub accepted_at: u64,
    /// Where the whole of it was asked to stop.
    pub cancelled: Option<Position>,
    /// When it was stopped by its own terms, in µs.
    pub stopped_at: Option<u64>,
    /// Its tasks that failed, timed out or were lost for good.
    pub failed: u64,
    /// Its tasks that have not ended.
    pub open: u64,
    /// Whether it had ended and is not kept any more.
    pub forgotten: bool,
}

/// One task that was started or has ended.
#[derive(Debug, Default)]
pub struct TaskHistory {
    /// Its attempts, by number.
    pub attempts: BTreeMap<u32, AttemptHistory>,
    /// Where and how it ended.
    pub ended: Option<(Position, fb::TaskStatus)>,
    /// The result of the attempt that ended it, if that is in its fact …
    pub left: Option<Vec<u8>>,
    /// … or beside the journal.
    pub left_beside: Option<BlobRef>,
    /// Where it was cancelled.
    pub cancelled: Option<Position>,
}

/// One attempt.
#[derive(Debug)]
pub struct AttemptHistory {
    /// To whom it was assigned.
    pub agent: u32,
    /// Where.
    pub assigned: Position,
    /// Where and how it ended.
    pub ended: Option<(Position, fb::TaskStatus)>,
}

/// What a fact did that the world outside must agree with.
#[derive(Debug)]
pub enum Consequence {
    /// Nothing of the kind.
    None,
    /// An attempt ended: as its agent's journal and device must say too, where the reason is theirs.
    Ended {
        /// Which.
        attempt: AttemptId,
        /// The name of the agent that it was assigned to.
        agent: String,
        /// How it ended.
        status: fb::TaskStatus,
        /// What it left.
        end: End,
        /// It made way for the task's other attempt.
        made_way: Option<MadeWay>,
        /// Its result, if that is beside the journal.
        blob: Option<BlobRef>,
    },
    /// This job changed.
    Job(JobId),
    /// This task changed.
    Task(TaskId),
}

/// Which of two attempts made way for the other, once both of their agents were heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeWay {
    /// The older.
    Original,
    /// The newer.
    Replacement,
}

impl AttemptHistory {
    fn has_ended_as(&self, status: fb::TaskStatus) -> bool {
        self.ended.is_some_and(|(_, ended)| ended == status)
    }
}

impl History {
    /// The record of these facts.
    ///
    /// # Errors
    /// A promise is broken by them.
    pub fn of(facts: Vec<Vec<u8>>, durable: Position) -> Result<History, Violation> {
        let mut history = History { durable, ..History::default() };
        for (position, fact) in (1..).zip(&facts) {
            history.follow(Position(position), fact)?;
        }
        history.facts = facts;
        Ok(history)
    }

    /// All facts.
    pub fn facts(&self) -> &[Vec<u8>] {
        &self.facts
    }

    /// The time of the latest fact, in µs.
    pub fn latest_at(&self) -> u64 {
        self.latest_at
    }

    /// Whether it was proved that this is a restored backup, and nobody has accepted that.
    pub fn is_restored(&self) -> bool {
        self.restored
    }

    /// Takes one fact, as it goes to the journal.
    ///
    /// # Errors
    /// Promise P2, P5 or P7 is broken by it.
    pub fn apply(&mut self, bytes: &[u8]) -> Result<Consequence, Violation> {
        self.facts.push(bytes.to_vec());
        self.follow(self.position(), bytes)
    }

    fn follow(&mut self, position: Position, bytes: &[u8]) -> Result<Consequence, Violation> {
        let Ok(record) = verified::fact_record(bytes) else {
            return broken("P7", format!("fact {} cannot be read", position.0));
        };
        if record.at() < self.latest_at {
            return broken("P7", format!("fact {} bears an earlier time than the one before it", position.0));
        }
        self.latest_at = record.at();
        if let Some(fact) = record.fact_as_job_accepted() {
            return self.on_job_accepted(position, fact);
        }
        if let Some(fact) = record.fact_as_attempt_assigned() {
            return self.on_assigned(position, fact);
        }
        if let Some(fact) = record.fact_as_attempt_ended() {
            return self.on_ended(position, fact);
        }
        if let Some(fact) = record.fact_as_tasks_ended() {
            return self.on_tasks_ended(position, fact);
        }
        if let Some(fact) = record.fact_as_cancel_requested() {
            return self.on_cancel_requested(position, fact);
        }
        if let Some(fact) = record.fact_as_job_forgotten() {
            return self.on_forgotten(JobId(fact.job()));
        }
        if let Some(fact) = record.fact_as_schedule_set() {
            self.recurring.on_set(record.at(), fact);
        }
        if let Some(fact) = record.fact_as_schedule_changed() {
            self.recurring.on_changed(record.at(), fact)?;
        }
        if let Some(fact) = record.fact_as_schedule_heeded() {
            self.recurring.on_heeded((record.at(), position), fact, &self.jobs)?;
        }
        if record.fact_as_incarnation_started().is_some() {
            self.began = position;
        }
        if let Some(fact) = record.fact_as_backup_restored() {
            self.restored |= fact.incarnation() >= self.accepted;
        }
        if let Some(fact) = record.fact_as_restore_accepted() {
            (self.restored, self.accepted) = (false, self.accepted.max(fact.incarnation()));
        }
        if let Some(fact) = record.fact_as_agent_registered() {
            self.agents.insert(fact.agent(), fact.name().unwrap_or_default().to_owned());
        }
        Ok(Consequence::None)
    }

    /// What a start read back from the journal takes the place of everything: a snapshot of what lies before
    /// `snapshot`, and the facts behind it.
    ///
    /// # Errors
    /// Promise P1 is broken: something durable is gone or was changed.
    pub fn recover(&mut self, snapshot: Position, behind: &[Vec<u8>]) -> Result<(), Violation> {
        let durable = invariant_p1_durable_survives(self.durable, &self.facts, snapshot, behind)?;
        if durable < self.position() {
            let mut facts = std::mem::take(&mut self.facts);
            facts.truncate(durable.0 as usize);
            let bodies = std::mem::take(&mut self.bodies);
            *self = History { bodies, ..History::of(facts, durable)? };
        }
        self.durable = durable;
        Ok(())
    }

    /// What all facts add up to, applied one by one.
    ///
    /// # Errors
    /// Promise P7 is broken: a fact cannot be read back.
    pub fn replayed(&self) -> Result<State, Violation> {
        let mut state = State::default();
        self.facts.iter().try_for_each(|fact| shadow::apply(&mut state, fact))?;
        Ok(state)
    }

    /// The number of facts so far.
    pub fn position(&self) -> Position {
        Position(self.facts.len() as u64)
    }

    /// A job.
    pub fn job(&self, job: JobId) -> Option<&JobHistory> {
        self.jobs.get(&job)
    }

    /// All jobs.
    pub fn jobs(&self) -> impl Iterator<Item = (JobId, &JobHistory)> {
        self.jobs.iter().map(|(id, job)| (*id, job))
    }

    /// The job of a submit id.
    pub fn job_of(&self, submit: SubmitId) -> Option<JobId> {
        self.submits.get(&submit).copied()
    }

    /// A task, if it was started or has ended.
    pub fn task(&self, task: TaskId) -> Option<&TaskHistory> {
        self.tasks.get(&task)
    }

    /// All tasks that were started or have ended.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, &TaskHistory)> {
        self.tasks.iter().map(|(id, task)| (*id, task))
    }

    /// All tasks of a job that were started or have ended.
    pub fn tasks_of(&self, job: JobId) -> impl Iterator<Item = (TaskId, &TaskHistory)> {
        let of = |entry, index| TaskId { job, entry, index };
        self.tasks.range(of(0, 0)..=of(u16::MAX, u32::MAX)).map(|(id, task)| (*id, task))
    }

    /// How many tasks have not ended.
    pub fn tasks_open(&self) -> u64 {
        self.tasks_open
    }

    /// The name of an agent.
    pub fn agent_name(&self, agent: u32) -> &str {
        self.agents.get(&agent).map_or("", String::as_str)
    }

    /// An attempt.
    pub fn attempt(&self, id: AttemptId) -> Option<&AttemptHistory> {
        self.tasks.get(&id.task)?.attempts.get(&id.attempt)
    }

    /// Whether an attempt has not ended, or ended since the scheduler's latest start.
    pub fn is_of_this_start(&self, attempt: &AttemptHistory) -> bool {
        attempt.ended.is_none_or(|(position, _)| position > self.began)
    }

    /// What a task is.
    pub fn spec_of(&self, task: TaskId) -> Option<&TaskSpec> {
        self.jobs.get(&task.job)?.spec.tasks.get(usize::from(task.entry)).map(|spec| &**spec)
    }

    fn on_job_accepted(&mut self, position: Position, fact: fb::JobAccepted<'_>) -> Result<Consequence, Violation> {
        let job = JobId(fact.job());
        if self.restored {
            return broken("P2", format!("job {job} was accepted although the restored backup was not"));
        }
        let spec = JobSpec::from_wire(fact.spec().map(|spec| spec.bytes()).unwrap_or_default());
        let Ok(spec) = spec else { return broken("P4", format!("job {job} was accepted and cannot be read")) };
        let owner = fact.owner().unwrap_or_default();
        if !owner.starts_with("operator/") {
            return broken("P5", format!("job {job} was accepted from {owner}, who may not submit"));
        }
        let submit = fact.submit_id().and_then(|id| id.bytes().try_into().ok()).map(SubmitId).unwrap_or_default();
        if let Some(first) = self.submits.insert(submit, job) {
            return broken("P2", format!("one submit became two jobs: {first} and {job}"));
        }
        // §job-1
        let digest = fact.digest().map(|digest| digest.bytes()).unwrap_or_default();
        let named = sha256(&[&submit.0, digest, owner.as_bytes()].concat());
        let key = JobKey(u64::from_le_bytes(named.first_chunk().copied().unwrap_or_default()).max(1));
        let open = spec.task_count();
        self.tasks_open += open;
        let record = JobHistory {
            accepted: position,
            spec,
            key,
            accepted_at: self.latest_at,
            cancelled: None,
            stopped_at: None,
            failed: 0,
            open,
            forgotten: false,
        };
        if self.jobs.insert(job, record).is_some() {
            return broken("P2", format!("the number {job} was given to two jobs"));
        }
        Ok(Consequence::Job(job))
    }

    fn on_assigned(&mut self, position: Position, fact: fb::AttemptAssigned<'_>) -> Result<Consequence, Violation> {
        let id = task_id(fact.job(), fact.entry(), fact.index());
        if self.restored {
            return broken("P2", format!("{id} was assigned although the restored backup was not accepted"));
        }
        let task = self.tasks.entry(id).or_default();
        if let Some((_, status)) = task.ended {
            return broken("P2", format!("{id} has ended ({status:?}) and was assigned again"));
        }
        if task.attempts.last_key_value().is_some_and(|(last, _)| *last >= fact.attempt()) {
            return broken("P2", format!("attempt {} of {id} does not rise", fact.attempt()));
        }
        let open = task.attempts.values().filter(|attempt| attempt.ended.is_none());
        let there: Vec<u32> = open.map(|attempt| attempt.agent).collect();
        if there.len() >= 2 {
            return broken("P2", format!("{id} got a third attempt that runs at the same time"));
        }
        let lost = task.attempts.values().filter(|attempt| attempt.has_ended_as(fb::TaskStatus::Lost)).count();
        let spec =
            self.jobs.get(&id.job).and_then(|job| Some((job.spec.terms, job.spec.tasks.get(usize::from(id.entry))?)));
        if let Some((terms, spec)) = spec {
            // A rival is for one that counts as lost.
            let losses = lost + there.len();
            if terms.exclusive && !there.is_empty() {
                return broken("P2", format!("{id} is exclusive and got a rival"));
            }
            if losses > 0 && !terms.retry_lost {
                return broken("P2", format!("{id} was lost, is not to be retried, and was assigned again"));
            }
            // What is lost of a gang that starts anew for another's sake does not count.
            if spec.gang == 0 && losses > 0 && losses >= spec.max_losses as usize {
                return broken("P2", format!("{id} was assigned again after {losses} losses of {}", spec.max_losses));
            }
        }
        if there.contains(&fact.agent()) {
            return broken("P2", format!("{id} got a rival on the agent that has it already"));
        }
        task.attempts.insert(fact.attempt(), AttemptHistory { agent: fact.agent(), assigned: position, ended: None });
        Ok(Consequence::Task(id))
    }

    /// Promise P2: an attempt ends once, a task ends once, and only by an attempt that had not ended.
    fn on_ended(&mut self, position: Position, fact: fb::AttemptEnded<'_>) -> Result<Consequence, Violation> {
        let id = task_id(fact.job(), fact.entry(), fact.index());
        let attempt_id = AttemptId { task: id, attempt: fact.attempt() };
        let Some(task) = self.tasks.get_mut(&id) else {
            return broken("P2", format!("{attempt_id} ended and was never assigned"));
        };
        let Some(attempt) = task.attempts.get_mut(&fact.attempt()) else {
            return broken("P2", format!("{attempt_id} ended and was never assigned"));
        };
        if attempt.ended.is_some() {
            return broken("P2", format!("{attempt_id} ended twice"));
        }
        let agent = attempt.agent;
        attempt.ended = Some((position, fact.status()));
        let mut others = task.attempts.iter().filter(|(_, other)| other.ended.is_none());
        let end = fact.end().map(End::from_wire).unwrap_or_default();
        let made_way = others
            .next()
            .filter(|_| end.reason == fb::EndReason::Rival)
            .map(|(other, _)| if *other > fact.attempt() { MadeWay::Original } else { MadeWay::Replacement });
        let terms = self.jobs.get(&id.job).map(|job| job.spec.terms);
        match (terms.map(|terms| terms.keep), made_way) {
            (Some(fb::Keep::Original), Some(MadeWay::Original))
            | (Some(fb::Keep::Replacement), Some(MadeWay::Replacement)) => {
                return broken("P2", format!("{attempt_id} made way, which its job wants to keep"));
            }
            _ => {}
        }
        if let Some((_, status)) = task.ended {
            return broken("P2", format!("{attempt_id} committed to a task that has ended ({status:?})"));
        }
        if fact.ends_rival() {
            for rival in task.attempts.values_mut().filter(|rival| rival.ended.is_none()) {
                rival.ended = Some((position, fb::TaskStatus::Cancelled));
            }
        }
        if is_final(fact.task_status()) {
            task.ended = Some((position, fact.task_status()));
            (task.left, task.left_beside) = (end.result.clone(), fact.result().map(BlobRef::from_wire));
            if task.attempts.values().any(|attempt| attempt.ended.is_none()) {
                return broken("P2", format!("{id} ended while another attempt of it goes on"));
            }
            self.close_tasks(id.job, 1, fact.task_status())?;
        }
        let agent = self.agent_name(agent).to_owned();
        let blob = fact.result().map(BlobRef::from_wire);
        Ok(Consequence::Ended { attempt: attempt_id, agent, status: fact.status(), end, made_way, blob })
    }

    fn on_tasks_ended(&mut self, position: Position, fact: fb::TasksEnded<'_>) -> Result<Consequence, Violation> {
        for index in fact.from()..fact.to() {
            let id = task_id(fact.job(), fact.entry(), index);
            let task = self.tasks.entry(id).or_default();
            if task.ended.is_some() || task.attempts.values().any(|attempt| attempt.ended.is_none()) {
                return broken("P2", format!("{id} ended without its attempt, or a second time"));
            }
            task.ended = Some((position, fact.status()));
        }
        let job = JobId(fact.job());
        self.close_tasks(job, u64::from(fact.to().saturating_sub(fact.from())), fact.status())?;
        Ok(Consequence::Job(job))
    }

    fn on_cancel_requested(
        &mut self,
        position: Position,
        fact: fb::CancelRequested<'_>,
    ) -> Result<Consequence, Violation> {
        let id = JobId(fact.job());
        if fact.all() {
            let Some(job) = self.jobs.get_mut(&id) else { return broken("P2", format!("{id} was never accepted")) };
            invariant_jobs_are_stopped_for_a_reason(job, fact.reason(), self.latest_at)?;
            job.cancelled.get_or_insert(position);
            if fact.reason() != fb::EndReason::Cancelled {
                job.stopped_at.get_or_insert(self.latest_at);
            }
        } else {
            let task = self.tasks.entry(task_id(fact.job(), fact.entry(), fact.index())).or_default();
            task.cancelled.get_or_insert(position);
        }
        Ok(Consequence::Job(id))
    }

    /// Promise P1: only what has ended is forgotten, once.
    fn on_forgotten(&mut self, id: JobId) -> Result<Consequence, Violation> {
        match self.jobs.get_mut(&id) {
            Some(job) if job.open == 0 && !job.forgotten => {
                job.forgotten = true;
                Ok(Consequence::Job(id))
            }
            found => broken("P1", format!("job {id} was forgotten: {:?}", found.map(|job| (job.open, job.forgotten)))),
        }
    }

    fn close_tasks(&mut self, job: JobId, count: u64, status: fb::TaskStatus) -> Result<(), Violation> {
        let Some(job) = self.jobs.get_mut(&job) else { return broken("P2", "tasks of no job ended") };
        if matches!(status, fb::TaskStatus::Failed | fb::TaskStatus::TimedOut | fb::TaskStatus::Lost) {
            job.failed += count;
        }
        match (job.open.checked_sub(count), self.tasks_open.checked_sub(count)) {
            (Some(open), Some(all)) => {
                (job.open, self.tasks_open) = (open, all);
                Ok(())
            }
            (_, _) => broken("P2", "more tasks ended than there were"),
        }
    }
}

/// Promise P1 at a crash: what a sync had promised is there, byte for byte, and what is there beyond it
/// is what had been decided, in order. Returns where the journal goes on; the facts for which a
/// snapshot stands are as they were decided.
pub fn invariant_p1_durable_survives(
    durable: Position,
    before: &[Vec<u8>],
    snapshot: Position,
    behind: &[Vec<u8>],
) -> Result<Position, Violation> {
    let came_back = snapshot.0 + behind.len() as u64;
    if came_back < durable.0 {
        let what = format!("{} facts were durable, {came_back} came back after the crash", durable.0);
        return broken("P1", what);
    }
    let Some((_, decided)) = before.split_at_checked(snapshot.0 as usize) else {
        return broken("P1", "a snapshot came back that stands for more than was ever decided");
    };
    if !decided.starts_with(behind) {
        return broken("P1", "facts came back after the crash that were never decided, or were changed");
    }
    Ok(Position(came_back))
}

fn task_id(job: u64, entry: u16, index: u32) -> TaskId {
    TaskId { job: JobId(job), entry, index }
}
