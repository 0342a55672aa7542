//! The story of an attempt: assigned, accepted, started, reported, stopped, ended.
//!
//! Invariants: an attempt is taken on once, whatever number of times it is assigned; it is accepted and
//! started after its assignment is durable; what was answered as not here is not started in that session;
//! reports of one attempt are at least [`REPORT_INTERVAL`] apart.

use crate::{
    Agent, Effect, Effects, Fact, Kept, RunEvent,
    admission::{Admitted, Refused, admit},
    limits::*,
    live::Run,
    sessions::send,
};
use fleetwire_common::{
    fb,
    ids::{AttemptId, JobKey},
    limits::{METRIC_NAME_BYTES_MAX, METRICS_MAX},
    message::{End, Message, Status, attempt_id, cut, is_final},
    time::Time,
};
use std::{borrow::Cow, time::Duration};

impl Agent {
    pub(crate) fn on_assignment(
        &mut self,
        now: Time,
        assignment: fb::TaskAssignment<'_>,
        timestamp_ms: u64,
        effects: &mut Effects,
    ) {
        let attempt = match attempt_id(assignment.task_id(), assignment.attempt()) {
            Ok(attempt) => attempt,
            Err(error) => {
                let task_id = assignment.task_id().map(|text| cut(text).to_owned());
                let code = fb::ErrorCode::Validation;
                return effects.push(rejection(task_id, assignment.attempt(), code, error.to_string()));
            }
        };
        if let Some(held) = self.state.attempt(attempt) {
            // §job-3
            if held.job_key.differs(JobKey(assignment.job_key())) {
                return effects.push(refused_as(attempt, &Refused::Foreign));
            }
            return match held.result {
                Some(_) => self.offer_result(attempt, effects),
                None => effects.push(Effect::Send(Message::Acceptance(attempt))),
            };
        }
        if self.live.overtaken.contains(&attempt) {
            // The scheduler was told that nothing of it runs here, and has ended it.
            let message = String::from("it was cancelled before it arrived");
            let task_id = Some(attempt.task.to_string());
            return effects.push(rejection(task_id, attempt.attempt, fb::ErrorCode::AttemptEnded, message));
        }
        let now_ms = timestamp_ms.max(self.live.cluster_time(now).map_or(0, Time::as_ms));
        match admit(&self.config, (&self.state, &self.live.backlog), attempt, assignment, now_ms) {
            Ok(Admitted { spec, resources, custom, waits }) => {
                let Ok(mut kept) = Kept::from_wire(assignment, waits, spec.clone()) else { return }; // Its id was read above.
                // Whose receipt it is: written once for each incarnation.
                let known = self.state.receipt().map(|proof| proof.incarnation_id);
                kept.incarnation_id = self.live.incarnation_id.filter(|id| known != Some(*id));
                kept.receipt = kept.receipt.filter(|_| self.live.incarnation_id.is_some());
                self.live.receipt = None; // The assignment's is later, and durable.
                self.decide(now, &Fact::AssignmentKept(kept), effects);
                self.live.runs.insert(attempt, Run::default());
                if spec.is_some() {
                    effects.push(Effect::Send(Message::Acceptance(attempt)));
                }
                self.enter_backlog(attempt, spec, (resources, custom), assignment.deadline());
                self.start_waiting(now, effects);
            }
            Err(refused) => effects.push(refused_as(attempt, &refused)),
        }
    }

    /// `Noop` has no process: it ends in the moment in which it starts.
    pub(crate) fn end_noop(&mut self, now: Time, attempt: AttemptId, effects: &mut Effects) {
        let now_ms = self.live.cluster_time(now).map_or(0, Time::as_ms);
        let end = End { started_at_ms: now_ms, ended_at_ms: now_ms, ..End::default() };
        self.on_ended(now, attempt, fb::TaskStatus::Completed, end, effects);
    }

    pub(crate) fn on_cancellation(
        &mut self,
        now: Time,
        attempt: AttemptId,
        reason: fb::EndReason,
        effects: &mut Effects,
    ) {
        match self.state.attempt(attempt) {
            Some(held) if held.result.is_some() => self.offer_result(attempt, effects),
            Some(_) => self.stop(now, attempt, reason, effects),
            None => {
                // Nothing of it runs here, which is what whoever cancels it wants to know; nor may it be
                // started later, should its assignment be on its way.
                self.live.note_overtaken(attempt);
                let ended_at_ms = self.live.cluster_time(now).map_or(0, Time::as_ms);
                let message = "this agent does not hold the attempt".to_owned();
                let end = End { reason, message, ended_at_ms, ..End::default() };
                let status = Status {
                    attempt,
                    status: fb::TaskStatus::Cancelled,
                    progress: 0.0,
                    note: String::new(),
                    metrics: Vec::new(),
                    end: Some(Box::new(end)),
                    job_key: JobKey::default(),
                };
                effects.push(Effect::Send(Message::Status(status)));
            }
        }
    }

    /// Stops what has no result; once, however often it is asked for. What waits for room ends at once.
    pub(crate) fn stop(&mut self, now: Time, attempt: AttemptId, reason: fb::EndReason, effects: &mut Effects) {
        if self.end_waiting(now, attempt, reason, effects) {
            return;
        }
        let (Some(run), Some(held)) = (self.live.runs.get_mut(&attempt), self.state.attempt(attempt)) else { return };
        if run.stop.is_some() {
            return;
        }
        run.stop = Some(reason);
        let grace = Duration::from_millis(u64::from(held.kill_grace_ms)).min(KILL_GRACE_MAX);
        effects.push(Effect::Cancel { attempt, grace });
    }

    pub(crate) fn on_run(&mut self, now: Time, event: RunEvent<'_>, effects: &mut Effects) {
        match event {
            RunEvent::Started { attempt, at_ms } => self.on_started(now, attempt, at_ms, effects),
            RunEvent::Report { attempt, progress, note, metrics } => {
                let Some(run) = self.live.runs.get_mut(&attempt) else { return };
                run.started = true;
                take_report(run, progress, note, metrics);
                self.report(now, attempt, effects);
            }
            RunEvent::StagedStarted { attempt } => {
                self.on_staged_started(now, attempt, effects);
                self.start_waiting(now, effects);
            }
            RunEvent::Ended { attempt, status, end, next } => {
                if let Some(next) = next {
                    self.on_staged_started(now, next, effects);
                }
                let ran = self.live.runs.contains_key(&attempt) && !self.live.backlog.holds(attempt);
                if ran && next.is_none() {
                    self.start_staged(effects);
                }
                self.on_ended(now, attempt, status, end, effects);
            }
        }
    }

    pub(crate) fn on_started(&mut self, now: Time, attempt: AttemptId, at_ms: u64, effects: &mut Effects) {
        let Some(run) = self.live.runs.get_mut(&attempt) else { return };
        run.started_at_ms = at_ms;
        if !std::mem::replace(&mut run.started, true) {
            // A change of status is reported at once, whatever was reported before.
            self.send_report(now, attempt, effects);
        }
    }

    /// Reports now if the last report is long enough ago, else when it is; the latest values count.
    fn report(&mut self, now: Time, attempt: AttemptId, effects: &mut Effects) {
        let Some(run) = self.live.runs.get_mut(&attempt) else { return };
        if run.due_at.is_some() {
            return;
        }
        let at = run.reported_at + REPORT_INTERVAL;
        if at <= now || run.reported_at == Time::ZERO {
            return self.send_report(now, attempt, effects);
        }
        run.due_at = Some(at);
        self.live.due.insert((at, attempt));
    }

    fn send_report(&mut self, now: Time, attempt: AttemptId, effects: &mut Effects) {
        let ready = self.live.is_ready();
        let Some(run) = self.live.runs.get_mut(&attempt) else { return };
        if !ready {
            return; // Registering sends all that run.
        }
        run.reported_at = now;
        let status = Status {
            attempt,
            status: fb::TaskStatus::Running,
            progress: run.progress,
            note: run.note.clone(),
            metrics: run.metrics.clone(),
            end: None,
            job_key: JobKey::default(),
        };
        effects.push(Effect::Send(Message::Status(status)));
    }

    /// What was put off for this attempt: a report, or a result to offer again.
    pub(crate) fn on_attempt_due(&mut self, now: Time, attempt: AttemptId, effects: &mut Effects) {
        match self.live.runs.get_mut(&attempt) {
            Some(run) => {
                run.due_at = None;
                self.send_report(now, attempt, effects);
            }
            None => self.offer_result(attempt, effects),
        }
    }

    /// After registering: everything that runs is reported, a few at a time.
    pub(crate) fn refresh_runs(&mut self, now: Time) {
        self.live.due.clear();
        let mut at = now;
        for (place, (attempt, run)) in self.live.runs.iter_mut().enumerate() {
            if place % REFRESH_GROUP == REFRESH_GROUP - 1 {
                at = at + REFRESH_INTERVAL;
            }
            run.due_at = run.started.then_some(at);
            if run.started {
                self.live.due.insert((at, *attempt));
            }
        }
    }

    // §status-3
    pub(crate) fn on_ended(
        &mut self,
        now: Time,
        attempt: AttemptId,
        status: fb::TaskStatus,
        mut end: End,
        effects: &mut Effects,
    ) {
        let Some(run) = self.live.runs.remove(&attempt) else { return };
        if let Some(at) = run.due_at {
            self.live.due.remove(&(at, attempt));
        }
        end.bound();
        if end.started_at_ms == 0 {
            end.started_at_ms = run.started_at_ms;
        }
        if end.ended_at_ms == 0 {
            end.ended_at_ms = self.live.cluster_time(now).map_or(0, Time::as_ms);
        }
        if let (fb::EndReason::Cancelled, Some(reason)) = (end.reason, run.stop) {
            end.reason = reason;
        }
        // An executor that ends an attempt with a status that is not final has failed it.
        let status = if is_final(status) { status } else { fb::TaskStatus::Failed };
        let progress = if status == fb::TaskStatus::Completed { 1.0 } else { run.progress };
        let held = self.state.attempt(attempt);
        let (resources, custom) = held.map(|held| (held.resources, held.custom.clone())).unwrap_or_default();
        let (note, metrics, end) = (run.note, run.metrics, Some(Box::new(end)));
        // Whose it is, its assignment knows.
        let update = Status { attempt, status, progress, note, metrics, end, job_key: JobKey::default() };
        self.decide(now, &Fact::ResultKept(Cow::Owned(update)), effects);
        self.offer_result(attempt, effects);
        self.leave_backlog(attempt, resources, &custom);
        self.start_waiting(now, effects);
    }
}

/// Takes what a task said into its run. What cannot be is left out, and the note says so.
fn take_report(run: &mut Run, progress: Option<f32>, note: &str, metrics: &[(String, f64)]) {
    let mut refused = None;
    match progress {
        Some(progress) if (0.0..=1.0).contains(&progress) => run.progress = progress,
        Some(progress) => refused = Some(format!("progress {progress} was refused: expected 0.0 to 1.0")),
        None => {}
    }
    for (name, value) in metrics {
        if !value.is_finite() {
            refused = Some(format!("metric {}: {value} was refused: expected a finite number", cut(name)));
        } else if name.is_empty() || name.len() > METRIC_NAME_BYTES_MAX {
            refused = Some(format!("a metric name of {} bytes was refused", name.len()));
        } else if let Some((_, known)) = run.metrics.iter_mut().find(|(known, _)| **known == **name) {
            *known = *value;
        } else if run.metrics.len() < METRICS_MAX {
            run.metrics.push((name.as_str().into(), *value));
        } else {
            refused = Some(format!("metric {name} was refused: {METRICS_MAX} are kept"));
        }
    }
    match refused {
        Some(refused) => run.note = cut(&refused).to_owned(),
        None if !note.is_empty() => run.note = cut(note).to_owned(),
        None => {}
    }
}

fn refused_as(attempt: AttemptId, refused: &Refused) -> Effect {
    let message = cut(&refused.to_string()).to_owned();
    rejection(Some(attempt.task.to_string()), attempt.attempt, refused.code(), message)
}

fn rejection(task_id: Option<String>, attempt: u32, code: fb::ErrorCode, message: String) -> Effect {
    let rejection = fb::TaskRejectionT { task_id, attempt, code, message: Some(message) };
    send(fb::SchedulerMessageT::TaskRejection(Box::new(rejection)))
}
