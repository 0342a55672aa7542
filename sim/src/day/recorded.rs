//! A day out of a journal's facts: what came, who was there, how long tasks ran; and how well it went then.
//!
//! Invariants: whatever the scheduler decided is left out of the day; what a task ran is what its agent said, or else the time
//! between its assignment and its end.

use super::{
    Day, DayJob, Happening, Run, TaskKey,
    verdict::{Meter, Verdict},
};
use fleetwire_common::{
    fb,
    ids::{AgentId, AttemptId, JobId},
    policy::ClusterPolicy,
    time::Time,
};
use fleetwire_scheduler_core::{
    agents::AgentProfile,
    fact::{Ended, Fact, FactError},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// What a journal says of its time.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// The day.
    pub day: Day,
    /// How it went.
    pub verdict: Verdict,
    /// The policy that held at its end; `None` = nobody had set one.
    pub policy: Option<ClusterPolicy>,
    /// Tasks of which not even another of their entry has run, and so how long they run is not known: a minute is assumed.
    pub unknown: u64,
}

/// Why facts are no day.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// It is none of a scheduler's.
    #[error("a fact cannot be read: {0}")]
    Fact(#[from] FactError),
    /// They sum up what is not there any more.
    #[error(
        "the facts begin with a snapshot, so when jobs came and how long they ran is not known: put the segments that \
         `--archive` kept since the first start beside those of the journal"
    )]
    Snapshot,
    /// There are none of jobs.
    #[error("no job ever came")]
    NoJob,
}

/// Reads facts, in their order.
#[derive(Debug, Default)]
pub struct Recorder {
    day: Day,
    facts: Vec<(Time, Vec<u8>)>,
    agents: BTreeMap<AgentId, (usize, Option<Arc<AgentProfile>>)>,
    /// Where in the happenings an agent left last.
    left: BTreeMap<AgentId, usize>,
    jobs: BTreeMap<JobId, usize>,
    assigned: BTreeMap<AttemptId, (AgentId, Time)>,
    policy: Option<ClusterPolicy>,
    last_arrival: Time,
}

impl Recorder {
    /// One more fact.
    ///
    /// # Errors
    /// [`RecordError`], if it is none that a day can be made of.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        let (at, fact) = Fact::decode(bytes)?;
        self.note(at, &fact)?;
        // Where the last job is among them, and with it until when is measured, is known at the end.
        self.facts.push((at, bytes.to_vec()));
        Ok(())
    }

    fn note(&mut self, at: Time, fact: &Fact<'_>) -> Result<(), RecordError> {
        match fact {
            Fact::Kept(_) => return Err(RecordError::Snapshot),
            Fact::AgentRegistered { agent, name, profile } => {
                let number = self.day.agents.len();
                let known = self.agents.entry(*agent).or_insert_with(|| (number, None));
                known.1 = Some(Arc::clone(profile));
                let agent = known.0;
                if agent == number {
                    self.day.agents.push(name.clone());
                }
                self.happens(at, Happening::Joins { agent, profile: Arc::clone(profile) });
            }
            Fact::AgentReturned { agent } => {
                if let Some((number, Some(profile))) = self.agents.get(agent) {
                    let happening = Happening::Joins { agent: *number, profile: Arc::clone(profile) };
                    self.happens(at, happening);
                }
            }
            Fact::AgentUnreachable { agent } | Fact::AgentDeregistered { agent } | Fact::AgentForgotten { agent } => {
                if let Some((number, _)) = self.agents.get(agent) {
                    self.left.insert(*agent, self.day.happenings.len());
                    self.happens(at, Happening::Leaves { agent: *number, dies: false });
                }
            }
            Fact::AgentChanged { agent, action, stop_at, .. } => {
                if let Some(agent) = self.agents.get(agent).map(|(number, _)| *number) {
                    let within = if *stop_at == Time::ZERO { Duration::ZERO } else { stop_at.since(at) };
                    self.happens(at, Happening::Changes { agent, action: *action, within });
                }
            }
            Fact::PolicySet { policy, .. } => self.policy = Some((**policy).clone()),
            Fact::JobAccepted { job, spec, owner, .. } => {
                let number = self.day.jobs.len();
                self.jobs.insert(*job, number);
                self.day.jobs.push(DayJob { spec: Arc::clone(spec), owner: owner.to_string() });
                self.last_arrival = at;
                self.happens(at, Happening::Submits { job: number });
            }
            Fact::CancelRequested { job, task: None, reason: fb::EndReason::Cancelled } => {
                if let Some(job) = self.jobs.get(job).copied() {
                    self.happens(at, Happening::Cancels { job });
                }
            }
            Fact::AttemptAssigned { attempt, agent } => {
                self.assigned.insert(*attempt, (*agent, at));
            }
            Fact::AttemptEnded(ended) => self.on_ended(at, ended),
            // What the scheduler decided, or nothing that placement depends on.
            Fact::IncarnationStarted { .. }
            | Fact::TokenIssued { .. }
            | Fact::PrincipalEnrolled { .. }
            | Fact::TasksEnded { .. }
            | Fact::CancelRequested { .. }
            | Fact::JobForgotten { .. }
            // What schedules submitted has arrived like any other job.
            | Fact::ScheduleSet { .. }
            | Fact::ScheduleChanged { .. }
            | Fact::ScheduleHeeded { .. }
            | Fact::BackupRestored(_)
            | Fact::RestoreAccepted { .. } => {}
        }
        Ok(())
    }

    fn happens(&mut self, at: Time, happening: Happening) {
        self.day.happenings.push((at, happening));
    }

    fn on_ended(&mut self, at: Time, ended: &Ended<'_>) {
        let Some((agent, assigned_at)) = self.assigned.remove(&ended.attempt) else { return };
        let task = ended.attempt.task;
        match ended.status {
            fb::TaskStatus::Completed | fb::TaskStatus::Failed | fb::TaskStatus::TimedOut => {
                let lasts = match ended.end.wall_us {
                    0 => at.since(assigned_at),
                    wall_us => Duration::from_micros(wall_us),
                };
                if let Some(job) = self.jobs.get(&task.job) {
                    let key: TaskKey = (*job, task.entry, task.index);
                    self.day.runs.entry(key).or_default().push(Run { lasts, status: ended.status });
                }
            }
            // What its agent did not come back with is gone.
            fb::TaskStatus::Lost => {
                let left = self.left.get(&agent).and_then(|at| self.day.happenings.get_mut(*at));
                if let Some((left_at, Happening::Leaves { dies, .. })) = left
                    && *left_at >= assigned_at
                {
                    *dies = true;
                }
            }
            // It was stopped, or never began: how long it would have run nobody knows.
            _ => {}
        }
    }

    /// That was all.
    ///
    /// # Errors
    /// [`RecordError::NoJob`].
    pub fn finish(self) -> Result<Recorded, RecordError> {
        if self.day.jobs.is_empty() {
            return Err(RecordError::NoJob);
        }
        let mut meter = Meter::until(self.last_arrival);
        for (_, bytes) in &self.facts {
            let (at, fact) = Fact::decode(bytes)?;
            meter.take(at, &fact);
        }
        let entries = self.day.jobs.iter().enumerate().flat_map(|(job, of)| {
            of.spec.tasks.iter().zip(0..).map(move |(spec, entry)| ((job, entry, 0), u64::from(spec.count)))
        });
        let unknown = entries.filter(|(key, _)| self.day.run_of(*key, 0).is_none()).map(|(_, count)| count).sum();
        Ok(Recorded { verdict: meter.verdict(), day: self.day, policy: self.policy, unknown })
    }
}
