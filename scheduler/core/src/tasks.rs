//! The story of a task: assigned, accepted or rejected, running, ended, tried again.
//!
//! Invariants: an attempt counts only from the agent that it was assigned to, and only until it has
//! ended (promise P2); its end is one fact; whatever the agent says is gone is released, counted or not.

use crate::{
    attempts::{Job, end_of_stopped},
    core::Core,
    deadlines::Deadline,
    event::{Effect, Effects, Rejected},
    fact::{Ended, Fact},
    inputs::InputsTooLarge,
    live::Phase,
    placement::{Placement, plan},
    policy::{Standing, backoff, outcome},
    queue::ends_within,
};
use fleetwire_common::{
    fb,
    ids::{AgentId, AttemptId, JobId, JobKey, SessionId, TaskId},
    limits::{METRIC_NAME_BYTES_MAX, METRICS_MAX},
    message::{Ack, Assignment, End, Message, StatusRef, attempt_id, cut, is_final},
    time::Time,
};
use std::{borrow::Cow, sync::Arc};

/// How an attempt ends.
#[derive(Debug)]
pub struct Ending {
    /// The attempt's status.
    pub status: fb::TaskStatus,
    /// What it left behind.
    pub end: End,
    /// Its latest metrics.
    pub metrics: Vec<(Arc<str>, f64)>,
}

impl Ending {
    /// An end that the scheduler decides by itself.
    pub fn decided(status: fb::TaskStatus, reason: fb::EndReason, now: Time) -> Ending {
        Ending { status, end: End { reason, ended_at_ms: now.as_ms(), ..End::default() }, metrics: Vec::new() }
    }
}

impl Core {
    /// Gives waiting tasks to agents, as many as fit and one step may.
    pub fn place(&mut self, effects: &mut Effects) {
        if self.state.chain.restored.is_some() {
            self.live.unplanned = false;
            return;
        }
        self.heed_reservations();
        let mut placements = std::mem::take(&mut self.placements);
        loop {
            let live = &mut self.live;
            live.queue.age(self.now);
            live.unplanned = plan(&mut live.index, &mut live.queue, &self.config.policy, &mut placements);
            if !placements.is_empty() {
                live.queue.shares_mut().forget_planned();
            }
            let mut rest = &placements[..];
            while let Some(first) = rest.first() {
                let (together, others) = rest.split_at(rest.len().min(first.more as usize + 1));
                self.assign(together, effects);
                rest = others;
            }
            placements.clear();
            // Whom an agent was reserved for may have been given it: then others may have the rest.
            if !self.heed_reservations() || self.live.unplanned {
                break;
            }
        }
        self.placements = placements;
        self.refill(effects);
        self.arm_reserving();
    }

    /// The attempt that comes next of a task.
    pub fn next_attempt(&self, task: TaskId) -> AttemptId {
        AttemptId { task, attempt: self.state.tasks.get(&task).map_or(1, |record| record.attempts + 1) }
    }

    /// Assigns a task, or all of a gang that start together: of these none is sent before all are facts, so that each is told
    /// where the others are.
    fn assign(&mut self, together: &[Placement], effects: &mut Effects) {
        let Some(first) = together.first() else { return };
        if !self.live.take_places(first.task, together.len() as u32) {
            // Other entries of its job were given all places in this step: who was to have it may have another.
            self.give_up(together);
            self.live.unplanned = true;
            return;
        }
        // §job-4
        let held = |one: &&Placement| self.live.held(one.agent, self.next_attempt(one.task)).is_some();
        if let Some(Placement { task, agent, .. }) = together.iter().find(held).copied() {
            // Something else of that number is not gone there yet.
            self.exclude(agent, task);
            self.live.leave_places(task, together.len() as u32);
            self.give_up(together);
            return;
        }
        for Placement { task, agent, .. } in together.iter().copied() {
            let attempt = self.next_attempt(task);
            self.cease_waiting(task);
            self.decide(&Fact::AttemptAssigned { attempt, agent }, effects);
            let held = self.new_held(attempt);
            self.live.agent_mut(agent).breaker.give(attempt);
            self.live.hold(agent, attempt, held);
            self.live.give_back(task);
            self.hold_semaphores(agent, attempt);
        }
        for Placement { task, agent, .. } in together.iter().copied() {
            let open = self.state.tasks.get(&task).and_then(|record| record.open.latest());
            if let (Some(session), Some(open)) = (self.session_of(agent), open) {
                self.send_assignment(session, AttemptId { task, attempt: open.attempt }, effects);
            }
            self.touch(task.job, effects);
        }
    }

    /// What was placed is not assigned after all: it waits again.
    fn give_up(&mut self, together: &[Placement]) {
        for Placement { task, agent, .. } in together.iter().copied() {
            self.live.give_back(task);
            self.live.enqueue(task);
            self.live.refresh_after(agent, task);
        }
    }

    /// Sends an assignment, the first time or again. Its deadline is its job's: a queue timeout is about the wait for an
    /// agent, which is over. An agent that is to stop it when we are not heard is told first that its latest heartbeat
    /// was: until now only some were answered.
    pub fn send_assignment(&mut self, session: SessionId, attempt: AttemptId, effects: &mut Effects) {
        let Some(mut spec) = self.spec(attempt.task) else { return };
        let receipt = self.receipt(self.position);
        let stop_on_disconnect_after_ms = self.terms(attempt.task.job).stop_on_disconnect_after_ms;
        let agent = self.live.sessions.get(&session).and_then(|session| session.agent);
        if let Some(agent) = agent.filter(|_| stop_on_disconnect_after_ms > 0)
            && let Some(sent_ms) = self.live.agent_mut(agent).unanswered_ms.take()
        {
            effects.send(session, Message::Ack(Ack::Heartbeat(sent_ms)));
        }
        let job_key = self.state.job_key(attempt.task.job);
        let lacks = match self.with_inputs(attempt.task, &mut spec) {
            Ok(lacks) => lacks,
            Err(InputsTooLarge(bytes)) => {
                // It ends when whoever is sending has done, which is at once.
                self.live.unsendable.push((attempt, bytes));
                self.live.unplanned = true;
                return;
            }
        };
        let due_at = self.state.jobs.get(&attempt.task.job).map_or(Time::NEVER, Job::due_at);
        let deadline_ms = if due_at == Time::NEVER { 0 } else { due_at.as_ms() };
        let assignment = Assignment { attempt, spec, receipt, deadline_ms, stop_on_disconnect_after_ms, job_key };
        let message = Message::Assignment(assignment);
        match lacks.is_nothing() {
            true => effects.send(session, message),
            false => effects.push(Effect::Complete { session, message, lacks }),
        }
    }

    /// Asks an agent to stop an attempt; what it holds stays in the ledger until it has.
    pub fn send_cancellation(&self, agent: AgentId, attempt: AttemptId, reason: fb::EndReason, effects: &mut Effects) {
        if let Some(session) = self.session_of(agent) {
            effects.send(session, Message::Cancellation(attempt, reason));
        }
    }

    /// An agent has persisted an assignment. Says whether that is news.
    pub fn on_acceptance(&mut self, agent: AgentId, message: fb::TaskAcceptance<'_>) -> Result<bool, Rejected> {
        let attempt = read_attempt(message.task_id(), message.attempt())?;
        self.check_attempt(agent, attempt)?;
        let Some(held) = self.live.held_mut(agent, attempt) else { return Ok(false) };
        let news = held.phase == Phase::Assigned;
        held.phase = held.phase.max(Phase::Accepted);
        self.forgive(agent, attempt.task);
        Ok(news)
    }

    /// An agent will not run an assignment: the task goes elsewhere, and the agent is not offered its
    /// class for a while.
    pub fn on_rejection(
        &mut self,
        agent: AgentId,
        (task_id, attempt): (Option<&str>, u32),
        message: &str,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        let attempt = read_attempt(task_id, attempt)?;
        self.check_attempt(agent, attempt)?;
        // Whoever accepted it may have started it: then only its end says that nothing of it is left.
        let found = match self.live.held(agent, attempt).map(|held| held.phase) {
            Some(Phase::Assigned) | None => None,
            Some(Phase::Accepted) => Some(fb::TaskStatus::Assigned),
            Some(Phase::Running) => Some(fb::TaskStatus::Running),
        };
        if let Some(found) = found {
            return Err(Rejected::WrongState { attempt, found, message: fb::SchedulerMessage::TaskRejection });
        }
        self.exclude(agent, attempt.task);
        let mut ending = Ending::decided(fb::TaskStatus::Cancelled, fb::EndReason::Rejected, self.now);
        ending.end.message = cut(message).to_owned();
        self.end_attempt(attempt, ending, effects);
        self.let_go(agent, attempt);
        Ok(())
    }

    /// An agent says how an attempt fares. Says whether that moved the attempt on.
    pub fn on_status(
        &mut self,
        (session, agent): (SessionId, AgentId),
        message: StatusRef<'_>,
        effects: &mut Effects,
    ) -> Result<bool, Rejected> {
        let update = message.update;
        let attempt = read_attempt(update.task_id(), update.attempt())?;
        let status = update.status();
        // No attempt is skipped: only tasks are that have none.
        if status.variant_name().is_none() || status == fb::TaskStatus::Skipped {
            let found = status.0.to_string();
            return Err(Rejected::Invalid { what: "status", found, expected: "a status that an attempt can have" });
        }
        let key = JobKey(update.job_key());
        // §job-3
        if self.is_foreign(attempt, key) {
            if self.check_attempt(agent, attempt).is_err() {
                self.let_go(agent, attempt);
            }
            return Err(Rejected::ForeignAttempt { attempt });
        }
        let checked = self.check_attempt(agent, attempt);
        if !is_final(status) {
            checked?;
            return Ok(self.update_attempt(agent, attempt, message, effects));
        }
        let repeated = match checked {
            Ok(()) => {
                self.commit(agent, attempt, message, effects)?;
                false
            }
            Err(rejected) => {
                // Counted or not: the agent has said that the attempt's last process is gone.
                self.let_go(agent, attempt);
                if !self.is_committed(agent, attempt, status) {
                    return Err(rejected);
                }
                true
            }
        };
        effects.send(session, Message::Ack(Ack::Final(attempt)));
        Ok(!repeated)
    }

    /// Whether an attempt is this agent's, and has not ended.
    pub fn check_attempt(&self, agent: AgentId, attempt: AttemptId) -> Result<(), Rejected> {
        let task = attempt.task;
        let latest = match self.state.tasks.get(&task) {
            Some(record) => match record.open.find(attempt.attempt) {
                Some(assigned) if assigned.agent == agent => return Ok(()),
                Some(_) => {
                    // §role-2
                    return Err(Rejected::NotYourAttempt { attempt, principal: self.agent_name(agent) });
                }
                None => record.attempts,
            },
            None => self.state.last_end(task).map_or(0, |ended| ended.latest),
        };
        if (1..=latest).contains(&attempt.attempt) {
            return Err(Rejected::AttemptEnded { attempt, latest });
        }
        Err(Rejected::UnknownAttempt { attempt })
    }

    /// Whether an attempt that bears this key is surely of another job than the one that has its number here.
    pub fn is_foreign(&self, attempt: AttemptId, key: JobKey) -> bool {
        self.state.job_key(attempt.task.job).differs(key)
    }

    /// Whether this very end was committed before: its acknowledgement was lost.
    fn is_committed(&self, agent: AgentId, attempt: AttemptId, status: fb::TaskStatus) -> bool {
        self.state
            .last_end(attempt.task)
            .is_some_and(|ended| ended.attempt == attempt.attempt && ended.agent == agent && ended.status == status)
    }

    /// Commits an attempt's end with everything that it left behind, or refuses it for now: what is
    /// acknowledged is kept.
    fn commit(
        &mut self,
        agent: AgentId,
        attempt: AttemptId,
        message: StatusRef<'_>,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        let status = message.update.status();
        let end = message.update.end().map(End::from_wire);
        let mut end = end.unwrap_or_else(|| End { reason: likely_reason(status), ..End::default() });
        if end.reason.variant_name().is_none() {
            end.reason = likely_reason(status);
        }
        let bytes = end.result.as_ref().map_or(0, Vec::len) as u64;
        if !self.make_room(bytes, effects) {
            // Whoever had the task cancelled does without its result; that way a full scheduler gets free.
            if !self.state.is_stopped(attempt.task) {
                let max = self.config.policy.kept_bytes_max;
                return Err(Rejected::Busy { what: "bytes of jobs and results", max });
            }
            end.result = None;
            end.message = format!("its result of {bytes} bytes was not kept: the scheduler holds as much as it may");
        }
        let mut metrics = self.read_metrics(message);
        if metrics.is_empty()
            && let Some(report) = self.live.held_mut(agent, attempt).and_then(|held| held.report.take())
        {
            metrics = report.metrics;
        }
        if end.reason == fb::EndReason::Preempted && end.message.is_empty() {
            end.message = self.made_way_in_words(agent).unwrap_or_default();
        }
        let wall_us = end.wall_us;
        let outcome = self.judge_end(agent, attempt, status, end.reason);
        self.end_attempt(attempt, Ending { status, end, metrics }, effects);
        self.note_end(agent, &outcome);
        self.let_go(agent, attempt);
        // What was stopped or given back says nothing about how long its kind takes.
        if status != fb::TaskStatus::Cancelled {
            self.note_pace(agent, attempt.task, wall_us);
        }
        self.forgive(agent, attempt.task);
        Ok(())
    }

    fn read_metrics(&self, message: StatusRef<'_>) -> Vec<(Arc<str>, f64)> {
        let kept = message.metrics().take(METRICS_MAX).filter(|(name, _)| name.len() <= METRIC_NAME_BYTES_MAX);
        kept.map(|(name, value)| (self.state.metric_name(name), value)).collect()
    }

    /// A status that is not final: volatile, and implies that the attempt was accepted.
    fn update_attempt(
        &mut self,
        agent: AgentId,
        attempt: AttemptId,
        message: StatusRef<'_>,
        effects: &mut Effects,
    ) -> bool {
        let update = message.update;
        let metrics = self.read_metrics(message);
        let Some(held) = self.live.held_mut(agent, attempt) else { return false };
        let was = held.phase;
        held.phase = was.max(Phase::Accepted);
        let note = cut(update.note().unwrap_or_default());
        if !note.is_empty() || !metrics.is_empty() {
            let report = held.report.get_or_insert_default();
            if !note.is_empty() {
                note.clone_into(&mut report.note);
            }
            if !metrics.is_empty() {
                report.metrics = metrics;
            }
        }
        if update.status() == fb::TaskStatus::Running {
            self.live.set_running(agent, attempt, ppm(update.progress()));
            if was != Phase::Running {
                self.arm_backstop(agent, attempt);
            }
        }
        self.forgive(agent, attempt.task);
        self.touch(attempt.task.job, effects);
        was != Phase::Running && update.status() == fb::TaskStatus::Running
    }

    /// Ends an attempt that has not ended, and decides what becomes of its task.
    pub fn end_attempt(&mut self, attempt: AttemptId, mut ending: Ending, effects: &mut Effects) {
        let task = attempt.task;
        let Some(spec) = self.spec(task) else { return };
        let Some(record) = self.state.tasks.get(&task) else { return };
        let open = record.open;
        let (failures, losses, preemptions) = (record.failures, record.losses, u32::from(record.preemptions));
        let stands = Standing {
            failures,
            losses,
            rival: open.count() > 1,
            stopped: self.state.stopped(task).map(end_of_stopped).or_else(|| self.ends_with_gang(task)),
            makes_way: open
                .find(attempt.attempt)
                .and_then(|assigned| self.live.held(assigned.agent, attempt))
                .is_some_and(|held| held.makes_way.is_some()),
            may_make_way: preemptions < self.preempt_rule().per_task,
            retry_lost: self.terms(task.job).retry_lost,
            starts_anew: self.starts_anew(task),
        };
        let result = outcome(&spec, stands, ending.status, ending.end.reason);
        let mut retry_at = self.now;
        if result.failure {
            retry_at = self.now + backoff(&self.config.policy, self.config.seed, &spec, failures + 1, attempt);
        } else if matches!(ending.end.reason, fb::EndReason::AgentLost | fb::EndReason::AgentForgotten) {
            // Nobody has said that it is gone.
            let agent = open.find(attempt.attempt).map(|assigned| assigned.agent);
            retry_at = agent.map_or(self.now, |agent| self.gone_at(agent, task)).max(self.now);
        }
        let retries = result.task_status == fb::TaskStatus::Pending;
        let (mut stream, bytes) = (self.state.blobs.stream, ending.end.result.as_deref().unwrap_or_default());
        let blob = self.set_apart(&mut stream, bytes, effects);
        ending.end.result.take_if(|_| blob.is_some());
        let ended = Ended {
            attempt,
            status: ending.status,
            task_status: result.task_status,
            retry_at: if retries { retry_at } else { Time::ZERO },
            failure: result.failure,
            loss: result.loss,
            end: Cow::Borrowed(&ending.end),
            result: blob,
            metrics: Cow::Borrowed(&ending.metrics),
            ends_rival: result.ends_rival,
        };
        // A rival that still waits for an agent is in the queue; it goes, or comes again below.
        self.live.dequeue(task);
        self.decide(&Fact::AttemptEnded(ended), effects);
        for assigned in open.iter().filter(|open| open.attempt == attempt.attempt || result.ends_rival) {
            let id = AttemptId { task, attempt: assigned.attempt };
            self.live.set_ended(assigned.agent, id);
            if id != attempt {
                self.send_cancellation(assigned.agent, id, fb::EndReason::Rival, effects);
            }
        }
        if retries {
            self.await_agent(task);
        } else if result.task_status == fb::TaskStatus::Assigned {
            self.consider_rival(task, effects);
        }
        self.touch(task.job, effects);
        self.close_if_ended(task.job);
    }

    /// A job whose last task has ended leaves the live side.
    pub fn close_if_ended(&mut self, job: JobId) {
        if self.state.jobs.get(&job).is_some_and(|job| job.ended_at.is_some()) {
            self.leave_job(job);
        }
    }

    /// A retry's wait is over.
    pub fn on_retry_due(&mut self, task: TaskId) {
        if self.state.tasks.get(&task).is_some_and(|record| record.open.count() == 0) {
            self.live.enqueue(task);
        }
    }

    /// A task that was started before has waited too long for its next agent.
    pub fn on_task_queued_too_long(&mut self, task: TaskId, effects: &mut Effects) {
        if self.state.tasks.get(&task).is_some_and(|record| record.open.count() == 0) {
            self.cease_waiting(task);
            self.end_waiting(task.job, task.entry, (task.index, task.index + 1), effects);
        }
    }

    /// The tasks of an entry that were never started have waited too long for an agent.
    pub fn on_entry_queued_too_long(&mut self, job: JobId, entry: u16, effects: &mut Effects) {
        let found = self.state.jobs.get(&job).and_then(|job| job.entry(entry));
        let ranges: Vec<_> = found.map(|entry| entry.unstarted.ranges(()).collect()).unwrap_or_default();
        for range in ranges {
            self.live.withdraw(job, entry, range.clone());
            self.end_waiting(job, entry, (range.start, range.end), effects);
        }
    }

    fn end_waiting(&mut self, job: JobId, entry: u16, (from, to): (u32, u32), effects: &mut Effects) {
        let (status, reason) = (fb::TaskStatus::TimedOut, fb::EndReason::QueueTimeout);
        self.decide(&Fact::TasksEnded { job, entry, from, to, status, reason }, effects);
        self.touch(job, effects);
        self.close_if_ended(job);
    }

    /// An attempt whose agent should have ended it by its run timeout. Only while the agent is there to
    /// be asked: one that is away keeps working, and its loss is another story.
    pub fn on_backstop(&mut self, attempt: AttemptId, effects: &mut Effects) {
        let open = self.state.tasks.get(&attempt.task).and_then(|record| record.open.find(attempt.attempt));
        let Some(agent) = open.map(|assigned| assigned.agent) else { return };
        let exclusive = self.terms(attempt.task.job).exclusive;
        if self.session_of(agent).is_none() || exclusive {
            // It may run still: of exclusive work only the agent can say that it does not.
            if exclusive {
                self.send_cancellation(agent, attempt, fb::EndReason::RunTimeout, effects);
            }
            let again = self.now + self.config.policy.backstop_after;
            self.live.deadlines.arm(again, Deadline::Backstop(attempt));
            if let Some(held) = self.live.held_mut(agent, attempt) {
                held.backstop_at = Some(again);
            }
            return;
        }
        let ending = Ending::decided(fb::TaskStatus::TimedOut, fb::EndReason::RunTimeout, self.now);
        self.end_attempt(attempt, ending, effects);
        self.send_cancellation(agent, attempt, fb::EndReason::RunTimeout, effects);
    }

    /// An attempt runs, and it was another incarnation that saw it start: its time begins anew.
    pub fn ensure_backstop(&mut self, agent: AgentId, attempt: AttemptId) {
        if self.live.held(agent, attempt).is_some_and(|held| held.backstop_at.is_none()) {
            self.arm_backstop(agent, attempt);
        }
    }

    fn arm_backstop(&mut self, agent: AgentId, attempt: AttemptId) {
        let Some(allowed) = self.state.task_spec(attempt.task).and_then(|spec| ends_within(spec)) else { return };
        let at = self.now + allowed + self.config.policy.backstop_after;
        let Some(held) = self.live.held_mut(agent, attempt) else { return };
        let before = held.backstop_at.replace(at);
        if let Some(before) = before {
            self.live.deadlines.disarm(before, Deadline::Backstop(attempt));
        }
        self.live.deadlines.arm(at, Deadline::Backstop(attempt));
    }
}

/// Reads an attempt's id; what is no id names no attempt.
pub fn read_attempt(task_id: Option<&str>, attempt: u32) -> Result<AttemptId, Rejected> {
    attempt_id(task_id, attempt).map_err(|error| Rejected::Invalid {
        what: "task_id",
        found: error.found,
        expected: "JOB.ENTRY.INDEX, as in 7.0.42",
    })
}

/// A fraction of one as parts per million; what is none counts as nothing.
pub fn ppm(fraction: f32) -> u32 {
    let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
    (f64::from(fraction) * 1e6) as u32
}

fn likely_reason(status: fb::TaskStatus) -> fb::EndReason {
    match status {
        fb::TaskStatus::Cancelled => fb::EndReason::Cancelled,
        fb::TaskStatus::TimedOut => fb::EndReason::RunTimeout,
        fb::TaskStatus::Lost => fb::EndReason::SupervisorLost,
        _ => fb::EndReason::Exited,
    }
}
