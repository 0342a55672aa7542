//! Snapshots: the state as a sequence of facts that make it, and how those of its own kind are taken back.
//!
//! Invariant: applying what [`State::write_snapshot`] wrote, to a state of which nothing is known, makes an
//! equal state. Every field is named here, so that a new one does not compile before it is kept as well.

use crate::{
    agents::AgentRecord,
    attempts::{EndedTask, Job, TaskRecord, is_end},
    fact::Fact,
    kept::Kept,
    schedules::ScheduleRecord,
    state::{ApplyError, PolicyRecord, State},
};
use fleetwire_common::{
    fb,
    ids::{AttemptId, JobId, TaskId, TokenId},
    time::Time,
};
use std::{borrow::Cow, sync::Arc};

impl State {
    /// Takes one fact as its bytes lie in a journal or a snapshot.
    ///
    /// # Errors
    /// As [`Fact::decode`] and [`State::apply`].
    pub fn apply_bytes(&mut self, fact: &[u8]) -> Result<(), crate::ReplayCause> {
        let (at, fact) = Fact::decode(fact)?;
        Ok(self.apply(at, &fact)?)
    }

    /// Writes everything down as facts, in the order in which they are to be applied.
    ///
    /// # Errors
    /// The first that `emit` answers.
    pub fn write_snapshot<E>(&self, emit: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let State {
            incarnation,
            incarnation_id,
            last_fact_at,
            tokens,
            last_token,
            principals,
            agents,
            jobs,
            last_job,
            submits,
            tasks,
            metric_names,
            blobs,
            chain,
            policy,
            schedules,
            // What the jobs' records add up to again.
            task_count: _,
            kept_bytes: _,
            ended_jobs: _,
            ended_task_count: _,
            ended_bytes: _,
        } = self;
        let mut builder = flatbuffers::FlatBufferBuilder::new();
        let now = *last_fact_at;
        let mut write = |at: Time, fact: &Fact<'_>| emit(fact.encode(at, &mut builder));
        write(
            now,
            &Fact::Kept(Box::new(Kept::Begun {
                incarnation: *incarnation,
                id: *incarnation_id,
                last_token: *last_token,
                last_job: *last_job,
                metric_names: metric_names.iter().cloned().collect(),
                stream: blobs.stream,
                chain: chain.clone(),
            })),
        )?;
        if *policy != PolicyRecord::default() {
            let PolicyRecord { policy, by, at } = policy;
            write(*at, &Fact::PolicySet { policy: Arc::clone(policy), by: Cow::Borrowed(by) })?;
        }
        for (name, ScheduleRecord { schedule, by, set_at, progress }) in schedules {
            write(*set_at, &Fact::ScheduleSet { schedule: Arc::clone(schedule), by: Cow::Borrowed(by) })?;
            write(now, &Fact::Kept(Box::new(Kept::Schedule(name.clone(), Cow::Borrowed(progress)))))?;
        }
        for (token, record) in tokens {
            write(now, &Fact::Kept(Box::new(Kept::Token(*token, Cow::Borrowed(record)))))?;
        }
        for (principal, key_sha256) in principals {
            let (principal, key_sha256) = (principal.clone(), *key_sha256);
            write(now, &Fact::PrincipalEnrolled { principal, key_sha256, token: TokenId(0) })?;
        }
        for (agent, record) in agents.iter() {
            // The attempts are in their tasks' records.
            let AgentRecord { name, profile, unreachable_since, left_at, forgotten, cordon, assigned: _ } = record;
            write(now, &Fact::AgentRegistered { agent, name: name.clone(), profile: Arc::clone(profile) })?;
            if let Some(since) = unreachable_since {
                write(*since, &Fact::AgentUnreachable { agent })?;
            }
            if let Some(at) = left_at {
                write(*at, &Fact::AgentDeregistered { agent })?;
            }
            if let Some(cordon) = cordon.as_deref() {
                write(now, &cordon.to_fact(agent))?;
            }
            if *forgotten {
                write(now, &Fact::AgentForgotten { agent })?;
            }
        }
        for (id, submit) in submits {
            write(now, &Fact::Kept(Box::new(Kept::Submit(*id, *submit))))?;
        }
        for (id, job) in jobs {
            write(now, &Fact::Kept(Box::new(Kept::Job(*id, Cow::Borrowed(job)))))?;
            for (ordinal, entry) in job.ordinals().zip(&job.entries) {
                for (index, end) in &entry.ended {
                    let task = TaskId { job: *id, entry: ordinal, index: *index };
                    write(now, &Fact::Kept(Box::new(Kept::Ended(task, Cow::Borrowed(end)))))?;
                }
            }
        }
        for (task, record) in tasks {
            write(now, &Fact::Kept(Box::new(Kept::Task(*task, Cow::Borrowed(record)))))?;
        }
        Ok(())
    }

    pub(crate) fn restore(&mut self, kept: &Kept<'_>) -> Result<(), ApplyError> {
        match kept {
            Kept::Begun { incarnation, id, last_token, last_job, metric_names, stream, chain } => {
                let new = State { last_fact_at: self.last_fact_at, ..State::default() };
                if *self != new {
                    return Err(ApplyError::Kept { what: "beginning" });
                }
                (self.incarnation, self.incarnation_id) = (*incarnation, *id);
                (self.last_token, self.last_job) = (*last_token, *last_job);
                self.metric_names = metric_names.iter().cloned().collect();
                self.blobs.stream = *stream;
                self.chain = chain.clone();
                Ok(())
            }
            Kept::Token(token, record) => {
                let fits = *token <= self.last_token && record.redeemed.len() <= record.uses as usize;
                let new = fits && self.tokens.insert(*token, record.clone().into_owned()).is_none();
                if new { Ok(()) } else { Err(ApplyError::Kept { what: "token" }) }
            }
            Kept::Submit(id, submit) => {
                let new = submit.job <= self.last_job && self.submits.insert(*id, *submit).is_none();
                if new { Ok(()) } else { Err(ApplyError::Kept { what: "submit id" }) }
            }
            Kept::Job(id, job) => self.restore_job(*id, job).ok_or(ApplyError::Kept { what: "job" }),
            Kept::Schedule(name, progress) => {
                *self.progress(name)? = progress.clone().into_owned();
                Ok(())
            }
            Kept::Task(task, record) => self.restore_task(*task, record).ok_or(ApplyError::Kept { what: "task" }),
            Kept::Ended(task, end) => self.restore_end(*task, end).ok_or(ApplyError::Kept { what: "ended task" }),
        }
    }

    fn restore_job(&mut self, id: JobId, job: &Job) -> Option<()> {
        if id > self.last_job || self.jobs.contains_key(&id) {
            return None;
        }
        self.task_count = self.task_count.checked_add(job.counts.total)?;
        self.kept_bytes = self.kept_bytes.checked_add(job.kept_bytes)?;
        if let Some(ended_at) = job.ended_at {
            self.ended_jobs.insert((ended_at, id));
            self.ended_task_count += job.counts.total;
            self.ended_bytes += job.kept_bytes;
        }
        job.files.iter().try_for_each(|kept| self.blobs.keep(&kept.blob))?;
        self.jobs.insert(id, job.clone());
        Some(())
    }

    fn restore_task(&mut self, task: TaskId, record: &TaskRecord) -> Option<()> {
        let job = self.jobs.get_mut(&task.job)?;
        let entry = job.entry(task.entry).filter(|entry| task.index < entry.spec.count)?;
        let taken = entry.unstarted.range_at((), task.index).is_some() || entry.outcome(task.index).is_some();
        if taken || self.tasks.contains_key(&task) {
            return None;
        }
        for assigned in record.open.iter() {
            let agent = self.agents.find_mut(assigned.agent)?;
            agent.assigned.insert(AttemptId { task, attempt: assigned.attempt });
        }
        job.counts.active += u64::from(record.open.count() > 0);
        let mut record = record.clone();
        if let Some(last) = &mut record.last {
            last.result_blob().map_or(Some(()), |blob| self.blobs.keep(&blob))?;
            last.share_metrics(|metric| self.share(metric));
        }
        self.tasks.insert(task, record);
        Some(())
    }

    fn restore_end(&mut self, task: TaskId, end: &EndedTask) -> Option<()> {
        let mut end = end.clone();
        end.result_blob().map_or(Some(()), |blob| self.blobs.keep(&blob))?;
        end.share_metrics(|metric| self.share(metric));
        let entry = self.jobs.get_mut(&task.job)?.entries.get_mut(usize::from(task.entry))?;
        let same = |status| match status {
            fb::TaskStatus::Completed | fb::TaskStatus::Cancelled | fb::TaskStatus::Skipped => status,
            _ => fb::TaskStatus::Failed,
        };
        let outcome = entry.outcome(task.index).filter(|outcome| is_end(*outcome))?;
        let fits = same(outcome) == same(end.task_status) && entry.ended.insert(task.index, end).is_none();
        fits.then_some(())
    }
}
