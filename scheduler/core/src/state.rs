//! What facts say: everything that survives a restart.
//!
//! Invariant: [`State::apply`] is the only place where it changes, for the live core and for replay. A
//! fact that contradicts the state is an error, and the state is then not to be used further.

use crate::{
    agents::{Agents, Cordon},
    attempts::{Assigned, EndedTask, Job, TaskRecord, job_key, records_of},
    bodies::{Blobs, FileKept},
    fact::{Ended, Fact},
    limits::{METRIC_NAMES_SHARED_MAX, SUBMIT_KEPT},
    restored::Chain,
    schedules::ScheduleRecord,
};
pub use crate::{attempts::Submit, tokens::TokenRecord};
use fleetwire_common::{
    blob::BlobRef,
    fb,
    ids::{AgentId, AttemptId, JobId, JobKey, Name, Principal, SubmitId, TaskId, TokenId},
    job::TaskSpec,
    policy::ClusterPolicy,
    time::Time,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What facts say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The latest start's number.
    pub incarnation: u64,
    /// The latest start's random id.
    pub incarnation_id: [u8; 16],
    /// When the latest fact was decided.
    pub last_fact_at: Time,
    /// Join tokens.
    pub tokens: BTreeMap<TokenId, TokenRecord>,
    /// The number of the latest token.
    pub last_token: TokenId,
    /// Names that were granted, each to a key.
    pub principals: BTreeMap<Principal, [u8; 32]>,
    /// Agents.
    pub agents: Agents,
    /// Jobs.
    pub jobs: BTreeMap<JobId, Job>,
    /// The number of the latest job.
    pub last_job: JobId,
    /// Submit ids of the last day.
    pub submits: BTreeMap<SubmitId, Submit>,
    /// Tasks that were started and have not ended.
    pub tasks: BTreeMap<TaskId, TaskRecord>,
    /// Tasks of all jobs together.
    pub task_count: u64,
    /// Bytes of all jobs' specs and results together.
    pub kept_bytes: u64,
    /// Jobs that have ended and are still kept, in the order in which they ended.
    pub ended_jobs: BTreeSet<(Time, JobId)>,
    /// Their tasks.
    pub ended_task_count: u64,
    /// Their bytes.
    pub ended_bytes: u64,
    /// What lies beside the journal.
    pub blobs: Blobs,
    /// The starts, and what is known of others.
    pub chain: Chain,
    /// By which work is placed.
    pub policy: PolicyRecord,
    /// Jobs that are submitted again and again.
    pub schedules: BTreeMap<Name, ScheduleRecord>,
    pub(crate) metric_names: BTreeSet<Arc<str>>,
}

/// The policy, and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRecord {
    /// What holds.
    pub policy: Arc<ClusterPolicy>,
    /// Who set it; empty = nobody has.
    pub by: Arc<str>,
    /// When.
    pub at: Time,
}

/// How a fact contradicts the state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ApplyError {
    #[error("incarnation {found} after {latest}")]
    Incarnation { found: u64, latest: u64 },
    #[error("token {} after {}", found.0, latest.0)]
    Token { found: TokenId, latest: TokenId },
    #[error("there is no token {}", token.0)]
    UnknownToken { token: TokenId },
    #[error("the name {principal} belongs to another key, or its token is used up")]
    Name { principal: Principal },
    #[error("agent {} does not exist, or has another name", agent.0)]
    Agent { agent: AgentId },
    #[error("job {found} after {latest}")]
    JobNumber { found: JobId, latest: JobId },
    #[error("the submit id of job {job} was used before")]
    SubmitId { job: JobId },
    #[error("there is no task {task}")]
    Task { task: TaskId },
    #[error("job {job} does not exist, or has not ended")]
    Job { job: JobId },
    #[error("attempt {attempt} does not follow the task's {latest} attempts, of which {open} have not ended")]
    Assignment { attempt: AttemptId, latest: u32, open: usize },
    #[error("a blob at {} of the stream, in the segment from {} on, where none can be", blob.position, blob.segment)]
    Blob { blob: BlobRef },
    #[error("attempt {attempt} has ended before, or was never assigned")]
    NotOpen { attempt: AttemptId },
    #[error("attempt {attempt} leaves its task {task_status:?} with {open} other attempts")]
    Outcome { attempt: AttemptId, task_status: fb::TaskStatus, open: usize },
    #[error("the snapshot's {what} contradicts what came before it")]
    Kept { what: &'static str },
    #[error("there is no schedule {name}")]
    Schedule { name: Name },
    #[error("tasks {from}..{to} of entry {entry} of job {job} do not all wait")]
    NotPending { job: JobId, entry: u16, from: u32, to: u32 },
}

impl State {
    /// Takes a fact.
    pub fn apply(&mut self, at: Time, fact: &Fact<'_>) -> Result<(), ApplyError> {
        self.last_fact_at = self.last_fact_at.max(at);
        match fact {
            Fact::IncarnationStarted { incarnation, id, software: _, position } => {
                if *incarnation != self.incarnation + 1 {
                    return Err(ApplyError::Incarnation { found: *incarnation, latest: self.incarnation });
                }
                self.incarnation = *incarnation;
                self.incarnation_id = *id;
                self.chain.begin(*incarnation, *id, *position);
                Ok(())
            }
            Fact::BackupRestored(restored) => {
                self.chain.tell(restored, self.last_job);
                if self.chain.restored.is_none() {
                    self.last_job = self.last_job.max(self.chain.told_job);
                }
                Ok(())
            }
            Fact::RestoreAccepted { incarnation } => {
                self.last_job = self.last_job.max(self.chain.told_job);
                // The next start is later than any that others may have had.
                self.incarnation = self.incarnation.max(incarnation.saturating_sub(1));
                self.chain.accept(*incarnation, at);
                Ok(())
            }
            Fact::TokenIssued { token, role, uses, expires_at, issued_by: _ } => {
                self.issue(at, *token, *role, *uses, *expires_at)
            }
            Fact::PrincipalEnrolled { principal, key_sha256, token } => self.enrol(principal, *key_sha256, *token),
            Fact::AgentRegistered { agent, name, profile } => {
                let known = self.agents.register(*agent, name, profile);
                if known { Ok(()) } else { Err(ApplyError::Agent { agent: *agent }) }
            }
            Fact::AgentUnreachable { agent } => self.change_agent(*agent, |agent| agent.unreachable_since = Some(at)),
            Fact::AgentReturned { agent } => self.change_agent(*agent, |agent| agent.unreachable_since = None),
            Fact::AgentDeregistered { agent } => self.change_agent(*agent, |agent| agent.left_at = Some(at)),
            Fact::AgentChanged { agent, action, stop_at, reason, by } => {
                let cordon = Cordon {
                    drains: *action == fb::AgentAction::Drain,
                    stop_at: Some(*stop_at).filter(|at| *at != Time::ZERO),
                    reason: reason.to_string(),
                    by: by.to_string(),
                };
                let cordon = (*action != fb::AgentAction::Uncordon).then(|| Box::new(cordon));
                self.change_agent(*agent, |agent| agent.cordon = cordon)
            }
            Fact::PolicySet { policy, by } => {
                self.policy = PolicyRecord { policy: Arc::clone(policy), by: by.as_ref().into(), at };
                Ok(())
            }
            Fact::ScheduleSet { schedule, by } => {
                self.set_schedule(at, schedule, by);
                Ok(())
            }
            Fact::ScheduleChanged { name, action } => self.change_schedule(at, name, *action),
            Fact::ScheduleHeeded { name, moment, job, why } => self.heed_moment(at, name, (*moment, *job), why),
            Fact::AgentForgotten { agent } => {
                let known = self.agents.forget(*agent);
                if known { Ok(()) } else { Err(ApplyError::Agent { agent: *agent }) }
            }
            Fact::JobAccepted { job, submit_id, digest, owner, bytes, spec, files } => {
                if *job != JobId(self.last_job.0 + 1) {
                    return Err(ApplyError::JobNumber { found: *job, latest: self.last_job });
                }
                self.forget_submits(at);
                if self.submits.insert(*submit_id, Submit { digest: *digest, job: *job }).is_some() {
                    return Err(ApplyError::SubmitId { job: *job });
                }
                self.last_job = *job;
                let mut kept_bytes = bytes.len() as u64;
                for FileKept { blob, .. } in files {
                    self.blobs.append(blob).ok_or(ApplyError::Blob { blob: *blob })?;
                    kept_bytes += u64::from(blob.length);
                }
                let key = job_key(*submit_id, digest, owner);
                let accepted = Job::new(key, spec, (files, kept_bytes), owner, at);
                self.task_count += accepted.counts.total;
                self.kept_bytes += accepted.kept_bytes;
                self.jobs.insert(*job, accepted);
                Ok(())
            }
            Fact::AttemptAssigned { attempt, agent } => self.assign(*attempt, *agent),
            Fact::AttemptEnded(ended) => self.end_attempt(at, ended),
            Fact::TasksEnded { job, entry, from, to, status, reason } => {
                self.end_tasks(at, *job, *entry, (*from, *to), *status, *reason)
            }
            Fact::CancelRequested { job, task, reason } => self.request_cancel(*job, *task, *reason),
            Fact::JobForgotten { job } => self.forget_job(*job),
            Fact::Kept(kept) => self.restore(kept),
        }
    }

    /// The spec of a task; `None` if there is no such task.
    pub fn task_spec(&self, task: TaskId) -> Option<&Arc<TaskSpec>> {
        self.jobs.get(&task.job)?.task_spec(task.entry, task.index)
    }

    /// How a task stands: the nearest that facts say. Whether an assigned one runs is not a fact.
    pub fn task_status(&self, task: TaskId) -> Option<fb::TaskStatus> {
        let entry = self.jobs.get(&task.job)?.entry(task.entry).filter(|entry| task.index < entry.spec.count)?;
        let open = self.tasks.get(&task).is_some_and(|record| record.open.count() > 0);
        let status = if open { fb::TaskStatus::Assigned } else { fb::TaskStatus::Pending };
        Some(entry.outcome(task.index).unwrap_or(status))
    }

    /// The key of a job; 0 if there is none, or it is not known.
    pub fn job_key(&self, job: JobId) -> JobKey {
        self.jobs.get(&job).map_or(JobKey::default(), |job| job.key)
    }

    /// Whether a task, or its whole job, was asked to stop.
    pub fn is_stopped(&self, task: TaskId) -> bool {
        self.stopped(task).is_some()
    }

    /// Why a task, or its whole job, was asked to stop, if it was.
    pub fn stopped(&self, task: TaskId) -> Option<fb::EndReason> {
        let cancelled = self.tasks.get(&task).is_some_and(|record| record.cancelled);
        if cancelled { Some(fb::EndReason::Cancelled) } else { self.jobs.get(&task.job)?.stopped }
    }

    /// How an ended task ended, if it had an attempt; of one that has not ended, its latest ended attempt.
    pub fn last_end(&self, task: TaskId) -> Option<&EndedTask> {
        let ended = self.jobs.get(&task.job)?.entry(task.entry)?.ended.get(&task.index);
        ended.or_else(|| self.tasks.get(&task)?.last.as_deref())
    }

    /// All blobs that are named.
    pub fn named_blobs(&self) -> impl Iterator<Item = BlobRef> + '_ {
        let last = |record: &TaskRecord| record.last.as_ref().and_then(|last| last.result_blob());
        self.jobs.values().flat_map(Job::blobs).chain(self.tasks.values().filter_map(last))
    }

    /// Whether two states say the same about one job and all its tasks: what a simulation compares
    /// after an event that touched it.
    pub fn agrees_on_job(&self, other: &State, job: JobId) -> bool {
        self.jobs.get(&job) == other.jobs.get(&job) && records_of(&self.tasks, job).eq(records_of(&other.tasks, job))
    }

    /// Whether two states say the same about one task; cheaper than about its whole job.
    pub fn agrees_on_task(&self, other: &State, task: TaskId) -> bool {
        self.tasks.get(&task) == other.tasks.get(&task)
            && self.task_status(task) == other.task_status(task)
            && self.last_end(task) == other.last_end(task)
    }

    /// The shared form of a metric's name, if it has one.
    pub fn metric_name(&self, name: &str) -> Arc<str> {
        self.metric_names.get(name).cloned().unwrap_or_else(|| Arc::from(name))
    }

    pub(crate) fn share(&mut self, (name, value): &(Arc<str>, f64)) -> (Arc<str>, f64) {
        if let Some(shared) = self.metric_names.get(name) {
            return (Arc::clone(shared), *value);
        }
        if self.metric_names.len() < METRIC_NAMES_SHARED_MAX {
            self.metric_names.insert(Arc::clone(name));
        }
        (Arc::clone(name), *value)
    }

    fn issue(
        &mut self,
        at: Time,
        token: TokenId,
        role: fb::Role,
        uses: u32,
        expires_at: Time,
    ) -> Result<(), ApplyError> {
        if token.0 != self.last_token.0 + 1 {
            return Err(ApplyError::Token { found: token, latest: self.last_token });
        }
        self.tokens.retain(|_, token| !token.is_over(at));
        self.last_token = token;
        let record = TokenRecord { role, uses, issued_at: at, expires_at, redeemed: BTreeMap::new() };
        self.tokens.insert(token, record);
        Ok(())
    }

    fn enrol(&mut self, principal: &Principal, key: [u8; 32], token: TokenId) -> Result<(), ApplyError> {
        // Token 0: whoever sits at the scheduler's own machine may give a name a new key.
        if token != TokenId(0) {
            if self.principals.get(principal).is_some_and(|known| *known != key) {
                return Err(ApplyError::Name { principal: principal.clone() });
            }
            let record = self.tokens.get_mut(&token).ok_or(ApplyError::UnknownToken { token })?;
            record.redeemed.insert(key, principal.clone());
            if record.redeemed.len() > record.uses as usize {
                return Err(ApplyError::Name { principal: principal.clone() });
            }
        }
        self.principals.insert(principal.clone(), key);
        Ok(())
    }

    fn change_agent(
        &mut self,
        agent: AgentId,
        change: impl FnOnce(&mut crate::agents::AgentRecord),
    ) -> Result<(), ApplyError> {
        self.agents.find_mut(agent).map(change).ok_or(ApplyError::Agent { agent })
    }

    /// Ids lie in the order of their time, so the oldest are first.
    fn forget_submits(&mut self, at: Time) {
        while let Some(first) = self.submits.first_entry()
            && is_over(*first.key(), at)
        {
            first.remove();
        }
    }

    fn assign(&mut self, attempt: AttemptId, agent: AgentId) -> Result<(), ApplyError> {
        let task = attempt.task;
        let job = self.jobs.get_mut(&task.job).ok_or(ApplyError::Task { task })?;
        let entry = job.entries.get_mut(usize::from(task.entry)).ok_or(ApplyError::Task { task })?;
        if entry.unstarted.take((), task.index, task.index.saturating_add(1)) {
            self.tasks.insert(task, TaskRecord::default());
        }
        let record = self.tasks.get_mut(&task).ok_or(ApplyError::Task { task })?;
        let open = record.open.count();
        let follows = record.attempts.checked_add(1) == Some(attempt.attempt);
        if !follows || !record.open.push(Assigned { attempt: attempt.attempt, agent }) {
            return Err(ApplyError::Assignment { attempt, latest: record.attempts, open });
        }
        record.attempts = attempt.attempt;
        if open == 0 {
            job.counts.active += 1;
        }
        let known = self.agents.find_mut(agent).ok_or(ApplyError::Agent { agent })?;
        known.assigned.insert(attempt);
        Ok(())
    }

    fn end_attempt(&mut self, at: Time, ended: &Ended<'_>) -> Result<(), ApplyError> {
        let metrics = ended.metrics.iter().map(|metric| self.share(metric)).collect();
        if let Some(blob) = ended.result {
            self.blobs.append(&blob).ok_or(ApplyError::Blob { blob })?;
        }
        let (task, attempt) = (ended.attempt.task, ended.attempt.attempt);
        let record = self.tasks.get_mut(&task).ok_or(ApplyError::Task { task })?;
        let assigned = record.open.remove(attempt).ok_or(ApplyError::NotOpen { attempt: ended.attempt })?;
        release(&mut self.agents, task, assigned)?;
        if ended.ends_rival
            && let Some(rival) = record.open.latest()
        {
            record.open.remove(rival.attempt);
            release(&mut self.agents, task, rival)?;
        }
        record.failures += u32::from(ended.failure);
        record.losses += u32::from(ended.loss);
        let made_way = ended.end.reason == fb::EndReason::Preempted && !ended.failure && !ended.loss;
        record.preemptions = record.preemptions.saturating_add(u16::from(made_way));
        if let Some(before) = record.last.as_ref().and_then(|last| last.result_blob()) {
            self.blobs.release(&before);
        }
        let mut last = EndedTask::new((attempt, assigned.agent), ended.status, (&ended.end, ended.result), metrics);
        (last.latest, last.failures, last.losses) = (record.attempts, record.failures, record.losses);
        let open = record.open.count();
        let job = self.jobs.get_mut(&task.job).ok_or(ApplyError::Task { task })?;
        match (ended.task_status, open) {
            (fb::TaskStatus::Pending, 0) => {
                record.pending_since = ended.retry_at.max(at);
                record.last = Some(Box::new(last));
                job.counts.active -= 1;
                Ok(())
            }
            (fb::TaskStatus::Assigned | fb::TaskStatus::Running, 1) => {
                record.last = Some(Box::new(last));
                Ok(())
            }
            (fb::TaskStatus::Pending | fb::TaskStatus::Assigned | fb::TaskStatus::Running, _) | (_, 1..) => {
                Err(ApplyError::Outcome { attempt: ended.attempt, task_status: ended.task_status, open })
            }
            (task_status, 0) => {
                last.task_status = task_status;
                self.tasks.remove(&task);
                job.counts.active -= 1;
                let entry = job.entries.get_mut(usize::from(task.entry)).ok_or(ApplyError::Task { task })?;
                let bytes = last.extra_bytes();
                job.kept_bytes += bytes;
                self.kept_bytes += bytes;
                entry.ended.insert(task.index, last);
                entry.mark_ended(at, (task.index, task.index + 1), task_status);
                self.count_ended(at, task.job, 1, task_status);
                Ok(())
            }
        }
    }

    fn end_tasks(
        &mut self,
        at: Time,
        id: JobId,
        ordinal: u16,
        (from, to): (u32, u32),
        status: fb::TaskStatus,
        reason: fb::EndReason,
    ) -> Result<(), ApplyError> {
        let not_pending = ApplyError::NotPending { job: id, entry: ordinal, from, to };
        let job = self.jobs.get_mut(&id).ok_or_else(|| not_pending.clone())?;
        let entry = job.entries.get_mut(usize::from(ordinal)).ok_or_else(|| not_pending.clone())?;
        if !crate::attempts::is_end(status) {
            return Err(not_pending);
        }
        if !entry.unstarted.take((), from, to) {
            // Tasks that had an attempt come one by one.
            let task = TaskId { job: id, entry: ordinal, index: from };
            let waits = self.tasks.get(&task).is_some_and(|record| record.open.count() == 0);
            let Some(record) = (waits && from.checked_add(1) == Some(to)).then(|| self.tasks.remove(&task)).flatten()
            else {
                return Err(not_pending);
            };
            if let Some(mut last) = record.last {
                (last.task_status, last.reason) = (status, reason);
                let bytes = last.extra_bytes();
                job.kept_bytes += bytes;
                self.kept_bytes += bytes;
                entry.ended.insert(from, *last);
            }
        }
        entry.mark_ended(at, (from, to), status);
        self.count_ended(at, id, u64::from(to - from), status);
        Ok(())
    }

    fn count_ended(&mut self, at: Time, id: JobId, count: u64, status: fb::TaskStatus) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        match status {
            fb::TaskStatus::Completed => job.counts.completed += count,
            fb::TaskStatus::Cancelled => job.counts.cancelled += count,
            fb::TaskStatus::Skipped => job.counts.skipped += count,
            _ => job.counts.failed += count,
        }
        if job.counts.ended() == job.counts.total {
            job.ended_at = Some(at);
            self.ended_jobs.insert((at, id));
            self.ended_task_count += job.counts.total;
            self.ended_bytes += job.kept_bytes;
        }
    }

    fn forget_job(&mut self, id: JobId) -> Result<(), ApplyError> {
        let ended_at = self.jobs.get(&id).and_then(|job| job.ended_at);
        if !ended_at.is_some_and(|ended_at| self.ended_jobs.remove(&(ended_at, id))) {
            return Err(ApplyError::Job { job: id });
        }
        let job = self.jobs.remove(&id).ok_or(ApplyError::Job { job: id })?;
        job.blobs().for_each(|blob| self.blobs.release(&blob));
        self.task_count -= job.counts.total;
        self.ended_task_count -= job.counts.total;
        self.kept_bytes -= job.kept_bytes;
        self.ended_bytes -= job.kept_bytes;
        Ok(())
    }

    fn request_cancel(&mut self, id: JobId, task: Option<(u16, u32)>, reason: fb::EndReason) -> Result<(), ApplyError> {
        match task {
            None => {
                let job = self.jobs.get_mut(&id).ok_or(ApplyError::Job { job: id })?;
                job.stopped.get_or_insert(reason);
                Ok(())
            }
            Some((entry, index)) => {
                let task = TaskId { job: id, entry, index };
                self.tasks.get_mut(&task).map(|record| record.cancelled = true).ok_or(ApplyError::Task { task })
            }
        }
    }
}

/// Whether a submit id has been kept for as long as is promised.
pub fn is_over(submit: SubmitId, at: Time) -> bool {
    Time::from_ms(submit.made_at_ms()) + SUBMIT_KEPT < at
}

fn release(agents: &mut Agents, task: TaskId, assigned: Assigned) -> Result<(), ApplyError> {
    let agent = agents.find_mut(assigned.agent).ok_or(ApplyError::Agent { agent: assigned.agent })?;
    agent.assigned.remove(&AttemptId { task, attempt: assigned.attempt });
    Ok(())
}
