//! The story of a job: submitted once whatever the network does, and stopped: by its owner, its deadline or its failures.
//!
//! Invariants: a submit id names one job for a day; what was acknowledged is a fact.

use crate::{
    attempts::{end_of_stopped, records_of},
    bodies::FileKept,
    core::Core,
    event::{Effects, Rejected},
    fact::{Fact, array},
    limits::{FORGOTTEN_PER_STEP, SUBMIT_AHEAD_MAX},
    state::is_over,
};
use fleetwire_common::{
    envelope::keys::sha256,
    fb,
    ids::{AttemptId, JobId, SessionId, SubmitId, TaskId},
    job::{JobError, JobSpec},
    message::{Ack, Message},
    time::Time,
};
use std::{borrow::Cow, sync::Arc};

impl Core {
    /// A client submits a job; it may do so again if it did not hear the answer.
    pub fn on_submit(
        &mut self,
        session: SessionId,
        owner: &str,
        message: fb::SubmitJob<'_>,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        let invalid = |what, found: String, expected| Rejected::Invalid { what, found, expected };
        let submit_id = array(message.submit_id()).map(SubmitId);
        let submit_id =
            submit_id.ok_or_else(|| invalid("submit_id", "of another size".into(), "a UUIDv7 of 16 bytes"))?;
        let bytes = message.job().map(|job| job.bytes()).unwrap_or_default();
        let digest = sha256(bytes);
        if let Some(known) = self.state.submits.get(&submit_id) {
            if known.digest != digest {
                return Err(Rejected::Conflict { job: known.job });
            }
            self.answer_submit(session, message.request(), known.job, true, effects);
            return Ok(());
        }
        let made_at_ms = submit_id.made_at_ms();
        if is_over(submit_id, self.now) {
            return Err(Rejected::TooOld { made_at_ms });
        }
        if Time::from_ms(made_at_ms) > self.now + SUBMIT_AHEAD_MAX {
            return Err(invalid("submit_id", format!("made at {made_at_ms} ms"), "a time at most a day ahead"));
        }
        let spec = self.admit(bytes)?;
        let job = self.accept_job((submit_id, digest), owner, (bytes, spec), effects);
        self.answer_submit(session, message.request(), job, false, effects);
        Ok(())
    }

    /// Takes a job that [`Core::admit`] has read from those bytes, under a submit id that is not in use.
    pub fn accept_job(
        &mut self,
        (submit_id, digest): (SubmitId, [u8; 32]),
        owner: &str,
        (bytes, mut spec): (&[u8], JobSpec),
        effects: &mut Effects,
    ) -> JobId {
        let job = JobId(self.state.last_job.0 + 1);
        let files = self.set_files_apart(&mut spec, effects);
        let bytes = if files.is_empty() { Cow::Borrowed(bytes) } else { Cow::Owned(spec.to_wire()) };
        let (owner, spec) = (Cow::Borrowed(owner), Arc::new(spec));
        self.decide(&Fact::JobAccepted { job, submit_id, digest, owner, bytes, spec, files }, effects);
        self.enter_job(job);
        job
    }

    /// Reads a job, and refuses what is not taken now: for a submit, and for a plan of one.
    pub fn admit(&self, bytes: &[u8]) -> Result<JobSpec, Rejected> {
        // What runs needs the rest of the disk for its results.
        if self.live.disk.low {
            return Err(Rejected::DiskFull);
        }
        if self.state.chain.restored.is_some() {
            return Err(Rejected::Restored);
        }
        let spec = JobSpec::from_wire(bytes)?;
        spec.terms.check_heartbeat(self.config.heartbeat_interval).map_err(JobError::Terms)?;
        spec.terms.check_time(self.now.as_ms()).map_err(JobError::Terms)?;
        self.check_semaphores(&spec)?;
        self.check_fitting(&spec)?;
        self.check_queue(&spec)?;
        self.check_room(&spec, bytes.len() as u64)?;
        Ok(spec)
    }

    /// Takes the large files out of a spec.
    fn set_files_apart(&mut self, spec: &mut JobSpec, effects: &mut Effects) -> Box<[FileKept]> {
        let mut stream = self.state.blobs.stream;
        let mut kept = Vec::new();
        for (entry, task) in (0..).zip(&mut spec.tasks) {
            for (file, index) in Arc::make_mut(task).files.iter_mut().zip(0..) {
                if let Some(blob) = self.set_apart(&mut stream, &file.data, effects) {
                    file.data = Vec::new();
                    kept.push(FileKept { entry, file: index, blob });
                }
            }
        }
        kept.into()
    }

    fn check_room(&self, spec: &JobSpec, spec_bytes: u64) -> Result<(), Rejected> {
        let policy = &self.config.policy;
        let bounds = [
            ("submit ids in a day", self.submits_after(self.now) as u64 + 1, policy.submits_max as u64),
            ("jobs", self.state.jobs.len() as u64 + 1, policy.jobs_max as u64),
            ("tasks", self.state.task_count + spec.task_count(), policy.tasks_max),
            ("bytes of jobs and results", self.state.kept_bytes + spec_bytes, policy.kept_bytes_max),
        ];
        match bounds.into_iter().find(|(_, found, max)| found > max) {
            Some((what, _, max)) => Err(Rejected::Busy { what, max }),
            None => Ok(()),
        }
    }

    /// Submit ids that will be left once the next job is accepted: those that have had their time go then,
    /// and only then, so they are not what a full table is full of.
    fn submits_after(&self, now: Time) -> usize {
        let kept = self.state.submits.len();
        if kept < self.config.policy.submits_max {
            return kept;
        }
        kept - self.state.submits.keys().take_while(|id| is_over(**id, now)).count()
    }

    /// Forgets ended jobs that are kept no longer: those that ended first, a few at a time.
    pub fn forget_ended(&mut self, effects: &mut Effects) {
        for _ in 0..FORGOTTEN_PER_STEP {
            let (policy, state) = (&self.config.policy, &self.state);
            let Some((ended_at, job)) = state.ended_jobs.first().copied() else { return };
            let over = state.ended_jobs.len() > policy.ended_jobs_max
                || state.ended_task_count > policy.ended_tasks_max
                || state.ended_bytes > policy.ended_bytes_max
                || ended_at + policy.ended_kept < self.now;
            if !over {
                return;
            }
            self.decide(&Fact::JobForgotten { job }, effects);
        }
    }

    /// Room for a result, if need be at the cost of the jobs that ended first, a few at a time; `false` if
    /// there is none. An empty result takes no room.
    pub fn make_room(&mut self, bytes: u64, effects: &mut Effects) -> bool {
        let fits = |core: &Core| bytes == 0 || core.state.kept_bytes + bytes <= core.config.policy.kept_bytes_max;
        for _ in 0..FORGOTTEN_PER_STEP {
            let Some((_, job)) = self.state.ended_jobs.first().copied().filter(|_| !fits(self)) else { break };
            self.decide(&Fact::JobForgotten { job }, effects);
        }
        fits(self)
    }

    fn answer_submit(&self, session: SessionId, request: u64, job: JobId, repeated: bool, effects: &mut Effects) {
        let submitted = fb::JobSubmittedT { request, job: job.0, repeated };
        effects.send(session, Message::Rare(fb::SchedulerMessageT::JobSubmitted(Box::new(submitted))));
    }

    /// A client cancels a job or a task: what waits ends at once, what runs is asked to stop. What has
    /// ended already stays as it is.
    pub fn on_cancel(
        &mut self,
        session: SessionId,
        message: fb::CancelWork<'_>,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        let job = match message.task_id() {
            Some(text) => {
                let task = read_task(text)?;
                self.state.task_status(task).ok_or(Rejected::UnknownTask { task })?;
                self.cancel_task(task, effects);
                task.job
            }
            None => {
                let job = JobId(message.job());
                if !self.state.jobs.contains_key(&job) {
                    return Err(Rejected::UnknownJob { job });
                }
                self.stop_job(job, fb::EndReason::Cancelled, effects);
                job
            }
        };
        effects.send(session, Message::Ack(Ack::Request(message.request())));
        self.touch(job, effects);
        self.close_if_ended(job);
        Ok(())
    }

    fn cancel_task(&mut self, task: TaskId, effects: &mut Effects) {
        let TaskId { job, entry, index } = task;
        let open = self.state.tasks.get(&task).map_or(0, |record| record.open.count());
        if open > 0 {
            if !self.state.is_stopped(task) {
                let (task, reason) = (Some((entry, index)), fb::EndReason::Cancelled);
                self.decide(&Fact::CancelRequested { job, task, reason }, effects);
            }
            self.stop_attempts(task, fb::EndReason::Cancelled, effects);
        } else if self.state.task_status(task) == Some(fb::TaskStatus::Pending) {
            self.stop_waiting(job, entry, (index, index + 1), fb::EndReason::Cancelled, effects);
        }
    }

    /// Stops a job by its own terms, if it is time for that: its budget of failures is spent, or its deadline has come.
    pub fn heed_terms(&mut self, job: JobId, effects: &mut Effects) {
        let reason = self.state.jobs.get(&job).and_then(|job| job.stops_for(self.now));
        if let Some(reason) = reason {
            self.stop_job(job, reason, effects);
            self.touch(job, effects);
            self.close_if_ended(job);
        }
    }

    /// What waits ends at once, what runs is asked to stop. That it was stopped by its own terms is a fact in any case.
    pub fn stop_job(&mut self, job: JobId, reason: fb::EndReason, effects: &mut Effects) {
        let Some(found) = self.state.jobs.get(&job) else { return };
        let mut waiting: Vec<(u16, (u32, u32))> = Vec::new();
        for (ordinal, entry) in found.ordinals().zip(&found.entries) {
            waiting.extend(entry.unstarted.ranges(()).map(|range| (ordinal, (range.start, range.end))));
        }
        let mut running = Vec::new();
        for (task, record) in records_of(&self.state.tasks, job) {
            if record.open.count() > 0 {
                running.push(task);
            } else {
                waiting.push((task.entry, (task.index, task.index + 1)));
            }
        }
        if found.stopped.is_none() && (!running.is_empty() || reason != fb::EndReason::Cancelled) {
            self.decide(&Fact::CancelRequested { job, task: None, reason }, effects);
        }
        for (entry, range) in waiting {
            self.stop_waiting(job, entry, range, reason, effects);
        }
        for task in running {
            self.stop_attempts(task, reason, effects);
        }
    }

    fn stop_waiting(
        &mut self,
        job: JobId,
        entry: u16,
        (from, to): (u32, u32),
        reason: fb::EndReason,
        effects: &mut Effects,
    ) {
        self.cease_waiting(TaskId { job, entry, index: from });
        self.live.withdraw(job, entry, from..to);
        let status = end_of_stopped(reason);
        self.decide(&Fact::TasksEnded { job, entry, from, to, status, reason }, effects);
    }

    /// Asks the agents of a task's attempts to stop them; those that are suspect end at once.
    fn stop_attempts(&mut self, task: TaskId, reason: fb::EndReason, effects: &mut Effects) {
        self.live.dequeue(task);
        let open = self.state.tasks.get(&task).map(|record| record.open);
        for assigned in open.into_iter().flat_map(|open| open.iter()) {
            let attempt = AttemptId { task, attempt: assigned.attempt };
            self.send_cancellation(assigned.agent, attempt, reason, effects);
        }
        self.consider_rival(task, effects);
    }
}

/// Reads a task's id.
pub fn read_task(text: &str) -> Result<TaskId, Rejected> {
    let expected = "JOB.ENTRY.INDEX, as in 7.0.42";
    text.parse().map_err(|error: fleetwire_common::ids::TaskIdError| Rejected::Invalid {
        what: "task_id",
        found: error.found,
        expected,
    })
}
