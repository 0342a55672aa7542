//! The story of a session: connected, registered with everything that is held, alive by heartbeats.
//!
//! Invariants: nothing is reported before the scheduler has answered the `Register`; a message in the
//! wrong state gets a typed `Nack`, and a `Nack` is never answered.

use crate::{Agent, Effect, Effects, Session, limits::*};
use fleetwire_common::{
    envelope::handshake::WelcomeInfo,
    fb,
    ids::{AttemptId, JobKey},
    job::key_values,
    limits::LOG_CHUNK_BYTES_MAX,
    message::{Heartbeat, Message, MessageRef, attempt_id},
    time::Time,
};
use std::time::Duration;

impl Agent {
    pub(crate) fn on_connected(&mut self, now: Time, welcome: &WelcomeInfo, effects: &mut Effects) {
        self.live.offset_us = Some(welcome.cluster_time.0.cast_signed().wrapping_sub(now.0.cast_signed()));
        self.live.offered = welcome.receipt;
        self.live.incarnation_id = welcome.receipt.map(|proof| proof.incarnation_id);
        self.live.session = Session::Registering { registered_at: now, until: now + REGISTER_WITHIN };
        self.live.outgoing = Default::default();
        self.live.overtaken.clear();
        let report = |(id, attempt): (&AttemptId, &crate::Attempt)| fb::AttemptReportT {
            task_id: Some(id.task.to_string()),
            attempt: id.attempt,
            status: match &attempt.result {
                Some(result) => result.status,
                None if self.live.runs.get(id).is_some_and(|run| run.started) => fb::TaskStatus::Running,
                None => fb::TaskStatus::Assigned,
            },
            resources: Some(Box::new(attempt.resources.to_wire_with(&attempt.custom))),
            waits: self.live.backlog.holds(*id),
            progress: self.live.runs.get(id).map_or(0.0, |run| run.progress),
            // §job-2
            job_key: attempt.job_key.0,
        };
        let register = fb::RegisterT {
            capacity: Some(Box::new(self.config.capacity.to_wire_with(&self.config.custom))),
            labels: Some(key_values(&self.config.labels)),
            agent_types: Some(self.config.agent_types.clone()),
            executors: Some(self.config.executors.clone()),
            data_id: Some(self.data_id().to_vec()),
            attempts: Some(self.state.attempts().iter().map(report).collect()),
            software: Some(self.config.software.clone()),
            host: Some(self.config.host.clone()),
            backlog: BACKLOG_MAX as u32,
            address: (!self.config.address.is_empty()).then(|| self.config.address.clone()),
        };
        effects.push(send(fb::SchedulerMessageT::Register(Box::new(register))));
    }

    pub(crate) fn on_disconnected(&mut self) {
        self.live.session = Session::Offline;
        self.live.offered = None;
        self.live.outgoing = Default::default();
        self.live.overtaken.clear();
    }

    pub(crate) fn on_stopping(&mut self, reason: &str, effects: &mut Effects) {
        if self.live.session == Session::Offline {
            return;
        }
        let deregister = fb::DeregisterT { reason: Some(reason.to_owned()) };
        effects.push(send(fb::SchedulerMessageT::Deregister(Box::new(deregister))));
        effects.push(Effect::Close { reason: reason.to_owned() });
    }

    pub(crate) fn on_message(&mut self, now: Time, message: MessageRef<'_>, timestamp_ms: u64, effects: &mut Effects) {
        if self.live.session == Session::Offline {
            return; // It came in a session that ended.
        }
        match message {
            MessageRef::TaskAssignment(assignment) => self.on_assignment(now, assignment, timestamp_ms, effects),
            MessageRef::TaskCancellation(cancellation) => {
                match attempt_id(cancellation.task_id(), cancellation.attempt()) {
                    Ok(attempt) if cancellation.if_waiting() => self.on_recall(now, attempt, effects),
                    Ok(attempt) => self.on_cancellation(now, attempt, cancellation.reason(), effects),
                    Err(error) => effects.push(nack(fb::ErrorCode::Validation, error.to_string())),
                }
            }
            MessageRef::Registered(registered) => self.on_registered(now, registered, effects),
            MessageRef::Ack(ack) => self.on_ack(now, ack, timestamp_ms, effects),
            MessageRef::Nack(refusal) => self.on_nack(now, refusal, effects),
            MessageRef::LogRequest(request) => self.on_log_request(request, effects),
            // Joined by the envelope before they come here.
            MessageRef::Chunk(_)
            // The shell opens sessions and enrols before there is an agent to tell.
            | MessageRef::Hello(_) | MessageRef::Welcome(_) | MessageRef::Enroll(_) | MessageRef::Enrolled(_)
            // What agents and clients send, and what schedulers answer clients.
            | MessageRef::StatusUpdate(_) | MessageRef::Heartbeat(_) | MessageRef::Register(_)
            | MessageRef::Deregister(_) | MessageRef::TaskAcceptance(_) | MessageRef::TaskRejection(_)
            | MessageRef::LogChunk(_) | MessageRef::SubmitJob(_) | MessageRef::JobSubmitted(_)
            | MessageRef::CancelWork(_) | MessageRef::CreateToken(_) | MessageRef::TokenCreated(_)
            | MessageRef::Query(_) | MessageRef::Page(_) | MessageRef::ChangeAgent(_) | MessageRef::SetPolicy(_)
            | MessageRef::PlanJob(_) | MessageRef::SetSchedule(_) | MessageRef::ChangeSchedule(_) => {
                let kind = message.kind().variant_name().unwrap_or_default();
                effects.push(nack(fb::ErrorCode::WrongState, format!("an agent does not take {kind}")));
            }
            MessageRef::Unknown(kind) => {
                let message = format!("message type {kind} is newer than this agent");
                effects.push(nack(fb::ErrorCode::UnknownMessage, message));
            }
        }
    }

    fn on_registered(&mut self, now: Time, registered: fb::Registered<'_>, effects: &mut Effects) {
        let Session::Registering { registered_at, .. } = self.live.session else {
            effects.push(nack(fb::ErrorCode::WrongState, "Registered answers a Register, and came twice".to_owned()));
            return;
        };
        self.live.heard = self.live.heard.max(Some(registered_at));
        // Not before: a scheduler that turns us away because of what we can prove must not take the proof.
        self.live.receipt = self.live.offered.or(self.live.receipt);
        let asked = Duration::from_millis(u64::from(registered.heartbeat_interval_ms()));
        if !asked.is_zero() {
            self.live.heartbeat_interval = asked.clamp(HEARTBEAT_INTERVAL_MIN, HEARTBEAT_INTERVAL_MAX);
        }
        self.live.session = Session::Ready {
            next_beat: now + self.live.heartbeat_interval,
            beats: 0,
            answer_every: registered.answer_every().max(1),
            unanswered: 0,
        };
        // Before anything ends by what was answered, so that each result is offered once.
        self.offer_all_results();
        for answer in registered.answers().into_iter().flatten() {
            let Ok(attempt) = attempt_id(answer.task_id(), answer.attempt()) else { continue };
            let reason = match answer.verdict() {
                fb::AttemptVerdict::Stop => fb::EndReason::Cancelled,
                fb::AttemptVerdict::Unknown => fb::EndReason::AgentForgotten,
                // Also the verdicts of later versions: keeping loses nothing.
                _ => continue,
            };
            self.stop(now, attempt, reason, effects);
        }
        self.refresh_runs(now);
        self.send_results(effects);
    }

    fn on_ack(&mut self, now: Time, ack: fb::Ack<'_>, timestamp_ms: u64, effects: &mut Effects) {
        if ack.task_id().is_some() {
            match attempt_id(ack.task_id(), ack.attempt()) {
                Ok(attempt) => self.settle(now, attempt, effects),
                Err(error) => effects.push(nack(fb::ErrorCode::Validation, error.to_string())),
            }
        } else if ack.echo() != 0 {
            self.on_heartbeat_answered(now, ack.echo(), timestamp_ms);
        }
    }

    /// Measures the clock again (Cristian, 1989): the scheduler's time lies between that of its answer and
    /// that plus the round trip. The own estimate is moved into that interval, and no further.
    fn on_heartbeat_answered(&mut self, now: Time, echo_ms: u64, timestamp_ms: u64) {
        if let Session::Ready { unanswered, .. } = &mut self.live.session {
            *unanswered = 0;
        }
        let (Some(estimate), Some(offset)) = (self.live.cluster_time(now), self.live.offset_us) else { return };
        // By the estimate with which it was sealed: what is learned below comes after. However late the answer is.
        let sent = Time(echo_ms.saturating_mul(1_000).saturating_add_signed(offset.saturating_neg()));
        self.live.heard = self.live.heard.max(Some(sent.min(now)));
        let Some(round_trip_ms) = estimate.as_ms().checked_sub(echo_ms).filter(|ms| *ms < ROUND_TRIP_MS_MAX) else {
            return;
        };
        let earliest = Time::from_ms(timestamp_ms);
        let latest = Time::from_ms(timestamp_ms.saturating_add(round_trip_ms + 1));
        let right = estimate.clamp(earliest, latest.max(earliest));
        let correction = right.0.cast_signed().wrapping_sub(estimate.0.cast_signed());
        self.live.offset_us = Some(offset.saturating_add(correction));
    }

    fn on_nack(&mut self, now: Time, nack: fb::Nack<'_>, effects: &mut Effects) {
        if nack.task_id().is_some() {
            let Ok(attempt) = attempt_id(nack.task_id(), nack.attempt()) else { return };
            return match nack.code() {
                fb::ErrorCode::AttemptEnded
                | fb::ErrorCode::NotYourAttempt
                | fb::ErrorCode::UnknownAttempt
                | fb::ErrorCode::ForeignAttempt => self.on_unwanted(now, attempt, effects),
                _ => self.on_result_refused(now, attempt),
            };
        }
        if let Session::Registering { .. } = self.live.session {
            let code = nack.code().variant_name().unwrap_or("unknown");
            let said = fleetwire_common::message::cut(nack.message().unwrap_or_default());
            effects.push(Effect::Close {
                reason: format!("the scheduler refused to register this agent: {said} ({code})"),
            });
        }
    }

    fn on_log_request(&mut self, request: fb::LogRequest<'_>, effects: &mut Effects) {
        let refuse = |code, message: String| {
            let nack = fb::NackT { code, message: Some(message), request: request.request(), ..Default::default() };
            send(fb::SchedulerMessageT::Nack(Box::new(nack)))
        };
        let attempt = match attempt_id(request.task_id(), request.attempt()) {
            Ok(attempt) => attempt,
            Err(error) => return effects.push(refuse(fb::ErrorCode::Validation, error.to_string())),
        };
        let attempt = match (attempt.attempt, self.state.latest(attempt.task)) {
            (0, Some(latest)) => latest,
            (0, None) => {
                let message = format!("no attempt of {} is here", attempt.task);
                return effects.push(refuse(fb::ErrorCode::UnknownAttempt, message));
            }
            (_, _) => attempt,
        };
        effects.push(Effect::ReadLog {
            request: request.request(),
            attempt,
            stream: request.stream(),
            offset: request.offset(),
            limit: request.limit().min(LOG_CHUNK_BYTES_MAX),
            job_key: JobKey(request.job_key()),
        });
    }

    pub(crate) fn on_deadline(&mut self, now: Time, effects: &mut Effects) {
        match self.live.session {
            Session::Offline => return,
            Session::Registering { registered_at, until } => {
                if until <= now {
                    // Once is enough: the shell ends the session.
                    self.live.session = Session::Registering { registered_at, until: Time::NEVER };
                    effects.push(Effect::Close { reason: "the scheduler did not answer Register in time".to_owned() });
                }
                return;
            }
            Session::Ready { .. } => {}
        }
        self.beat(now, effects);
        while let Some((at, attempt)) = self.live.due.first().copied().filter(|(at, _)| *at <= now) {
            self.live.due.remove(&(at, attempt));
            self.on_attempt_due(now, attempt, effects);
        }
        self.send_results(effects);
    }

    fn beat(&mut self, now: Time, effects: &mut Effects) {
        let interval = self.live.heartbeat_interval;
        let Session::Ready { next_beat, beats, answer_every, unanswered } = &mut self.live.session else { return };
        if *next_beat > now {
            return;
        }
        *next_beat = now + interval;
        if *unanswered >= UNANSWERED_MAX {
            *unanswered = 0;
            effects.push(Effect::Close { reason: format!("{UNANSWERED_MAX} heartbeats were not answered") });
            return;
        }
        let answer = *beats % u32::from(*answer_every) == 0;
        *beats = beats.wrapping_add(1);
        *unanswered += u32::from(answer);
        let heartbeat = Heartbeat { usage: self.live.usage, running: self.live.running(), answer };
        effects.push(Effect::Send(Message::Heartbeat(heartbeat)));
    }
}

/// Longer round trips say nothing about the clock.
const ROUND_TRIP_MS_MAX: u64 = 10_000;

pub(crate) fn send(message: fb::SchedulerMessageT) -> Effect {
    Effect::Send(Message::Rare(message))
}

fn nack(code: fb::ErrorCode, message: String) -> Effect {
    send(fb::SchedulerMessageT::Nack(Box::new(fb::NackT { code, message: Some(message), ..Default::default() })))
}
