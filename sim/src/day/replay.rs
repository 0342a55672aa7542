//! Runs a [`Day`] again: the scheduler's own core, on virtual time, with agents that run what they are given for as long as
//! it ran then.
//!
//! Invariants: the same day and policy give the same verdict; nothing waits for anything but the policy, room and the terms of
//! jobs, since messages take no time here.

use super::{
    Day, DayJob, Happening, Run, TaskKey,
    device::{Device, Held, Wire, status},
    verdict::{Meter, Verdict},
};
use fleetwire_common::{
    envelope::{Features, handshake::HelloInfo, keys::RootKeys, keys::Secret},
    fb,
    ids::{AttemptId, JobId, Name, Principal, SessionId, SubmitId},
    message::{Assignment, End, Message},
    policy::ClusterPolicy,
    time::Time,
};
use fleetwire_scheduler_core::{Config, Effect, Effects, Event, Origin, Policy, Scheduler, fact::Fact};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// Why a day could not be run under a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The scheduler refuses it.
    #[error("the policy is refused: {0}")]
    Policy(String),
}

/// Runs a day under a policy; `None` = as a scheduler has it to whom nobody has said anything.
///
/// # Errors
/// [`ReplayError`], before anything is run.
pub fn replay(day: &Day, policy: Option<&ClusterPolicy>) -> Result<Verdict, ReplayError> {
    replay_telling(day, policy, &mut |_| ())
}

/// The same; each fact that the scheduler decides is told, as a journal would have it.
///
/// # Errors
/// As [`replay`].
pub fn replay_telling(
    day: &Day,
    policy: Option<&ClusterPolicy>,
    on_fact: &mut dyn FnMut(&[u8]),
) -> Result<Verdict, ReplayError> {
    let mut run = Running::new(day, on_fact);
    run.set_policy(policy)?;
    let mut next = day.happenings.iter().peekable();
    loop {
        let happens = next.peek().map(|(at, _)| *at);
        let ends = run.ends.first_key_value().map(|((at, _), _)| *at);
        // What can still happen by itself; a core has deadlines for ever.
        let waits = (happens.is_some() || ends.is_some() || run.meter.has_open_jobs())
            .then(|| run.scheduler.next_deadline())
            .flatten();
        let Some(at) = [happens, ends, waits].into_iter().flatten().min() else { break };
        if at > run.give_up_at {
            break;
        }
        run.now = run.now.max(at);
        if waits.is_some_and(|due| due <= at) && happens != Some(at) && ends != Some(at) {
            run.handle(Event::Deadline);
        } else if ends == Some(at) {
            run.on_end();
        } else if let Some((_, happening)) = next.next() {
            run.on_happening(happening);
        }
    }
    Ok(run.meter.verdict())
}

struct Running<'d> {
    day: &'d Day,
    on_fact: &'d mut dyn FnMut(&[u8]),
    now: Time,
    scheduler: Scheduler,
    effects: Effects,
    meter: Meter,
    devices: BTreeMap<usize, Device>,
    wires: BTreeMap<SessionId, Wire>,
    /// Whose session that is, if an agent's.
    agents: BTreeMap<SessionId, usize>,
    owners: BTreeMap<String, SessionId>,
    operator: SessionId,
    /// What ends when, in the order of starts.
    ends: BTreeMap<(Time, u64), (usize, AttemptId)>,
    started: u64,
    /// Which of the day's jobs that is.
    jobs: BTreeMap<JobId, usize>,
    /// The one that is being submitted.
    submitting: Option<usize>,
    /// How often tasks have run to an end of their own.
    tries: BTreeMap<TaskKey, usize>,
    /// What is on its way to the scheduler.
    to_send: VecDeque<(SessionId, Message)>,
    /// Why the scheduler refused something, just now.
    refused: Option<String>,
    /// The latest number of a session or a request.
    number: u64,
    give_up_at: Time,
}

impl<'d> Running<'d> {
    fn new(day: &'d Day, on_fact: &'d mut dyn FnMut(&[u8])) -> Running<'d> {
        let arrivals = day.happenings.iter().filter(|(_, what)| matches!(what, Happening::Submits { .. }));
        let last = arrivals.map(|(at, _)| *at).next_back().unwrap_or(Time::ZERO);
        let began = day.happenings.first().map_or(Time::ZERO, |(at, _)| *at);
        let mut run = Running {
            day,
            on_fact,
            now: began,
            scheduler: Scheduler::new(config()),
            effects: Effects::new(),
            meter: Meter::until(last),
            devices: BTreeMap::new(),
            wires: BTreeMap::new(),
            agents: BTreeMap::new(),
            owners: BTreeMap::new(),
            operator: SessionId(0),
            ends: BTreeMap::new(),
            started: 0,
            jobs: BTreeMap::new(),
            submitting: None,
            tries: BTreeMap::new(),
            to_send: VecDeque::new(),
            refused: None,
            number: 0,
            give_up_at: last + GIVE_UP_AFTER,
        };
        run.scheduler.start(began, &mut run.effects);
        run.handle(Event::Disk { low: false, blob_segments_max: 0 });
        run.operator = run.connect(fb::Role::Operator, OPERATOR);
        run
    }

    fn set_policy(&mut self, policy: Option<&ClusterPolicy>) -> Result<(), ReplayError> {
        let Some(policy) = policy else { return Ok(()) };
        let message = fb::SetPolicyT { request: self.next_number(), policy: Some(Box::new(policy.to_wire())) };
        self.send(self.operator, Message::Rare(fb::SchedulerMessageT::SetPolicy(Box::new(message))));
        self.refused.take().map_or(Ok(()), |why| Err(ReplayError::Policy(why)))
    }

    fn device(&mut self, agent: usize) -> &mut Device {
        self.devices.entry(agent).or_default()
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn on_happening(&mut self, happening: &Happening) {
        match happening {
            Happening::Joins { agent, profile } => {
                self.device(*agent).profile = Some(Arc::clone(profile));
                self.join(*agent);
            }
            Happening::Leaves { agent, dies } => {
                if *dies {
                    self.device(*agent).die();
                }
                if let Some(session) = self.device(*agent).session.take() {
                    self.wires.remove(&session);
                    self.agents.remove(&session);
                    self.handle(Event::Disconnected { session });
                }
            }
            Happening::Changes { agent, action, within } => {
                let message = fb::ChangeAgentT {
                    request: self.next_number(),
                    agent: self.day.agents.get(*agent).map(Name::to_string),
                    action: *action,
                    within_ms: within.as_millis() as u64,
                    ..fb::ChangeAgentT::default()
                };
                self.send(self.operator, Message::Rare(fb::SchedulerMessageT::ChangeAgent(Box::new(message))));
            }
            Happening::Submits { job } => self.submit(*job),
            Happening::Cancels { job } => {
                self.number += 1;
                let Some((id, _)) = self.jobs.iter().find(|(_, known)| *known == job) else { return };
                let message = fb::CancelWorkT { request: self.number, job: id.0, ..fb::CancelWorkT::default() };
                self.send(self.operator, Message::Rare(fb::SchedulerMessageT::CancelWork(Box::new(message))));
            }
        }
    }

    fn join(&mut self, agent: usize) {
        let Some(name) = self.day.agents.get(agent) else { return };
        let session = match self.device(agent).session {
            Some(session) => session,
            None => self.connect(fb::Role::Agent, name.as_str()),
        };
        self.device(agent).session = Some(session);
        self.agents.insert(session, agent);
        if let Some(message) = self.device(agent).register() {
            self.send(session, message);
        }
        for (attempt, key, how, end) in std::mem::take(&mut self.device(agent).untold) {
            self.send(session, status(attempt, key, how, Some(end)));
        }
    }

    fn submit(&mut self, job: usize) {
        let Some(DayJob { spec, owner }) = self.day.jobs.get(job) else { return };
        // As a journal has it: `operator/alice`.
        let owner = owner.rsplit('/').next().unwrap_or(owner);
        let session = match self.owners.get(owner) {
            Some(session) => *session,
            None => {
                let session = self.connect(fb::Role::Operator, owner);
                self.owners.insert(owner.to_owned(), session);
                session
            }
        };
        let request = self.next_number();
        let mut random = [0; 10];
        random[2..].copy_from_slice(&request.to_be_bytes());
        let submit_id = SubmitId::new(self.now.as_ms(), random);
        let message = fb::SubmitJobT { request, submit_id: Some(submit_id.0.to_vec()), job: Some(spec.to_wire()) };
        self.submitting = Some(job);
        self.send(session, Message::Rare(fb::SchedulerMessageT::SubmitJob(Box::new(message))));
        if self.submitting.take().is_some() {
            let why = self.refused.take().unwrap_or_default();
            self.meter.refused(why);
        }
    }

    fn connect(&mut self, role: fb::Role, name: &str) -> SessionId {
        let session = SessionId(self.next_number());
        self.wires.insert(session, Wire::new());
        let Ok(name) = Name::new(name) else { return session };
        let hello = HelloInfo {
            features: Features::ALL,
            boot_id: [0; 16],
            process_start_id: [0; 16],
            receipt: None,
            software: String::new(),
        };
        self.handle(Event::Connected { session, principal: Principal { role, name }, hello, address: "" });
        session
    }

    fn handle(&mut self, event: Event<'_>) {
        self.scheduler.handle(self.now, event, &mut self.effects);
        self.take_effects();
        self.deliver();
    }

    fn send(&mut self, session: SessionId, message: Message) {
        self.to_send.push_back((session, message));
        self.deliver();
    }

    /// Carries everything to the scheduler, also what is said to what it answers.
    fn deliver(&mut self) {
        while let Some((session, message)) = self.to_send.pop_front() {
            let now_ms = self.now.as_ms();
            let Some(wire) = self.wires.get_mut(&session) else { continue };
            let from = Origin { stream: 0, sequence: wire.sequence, item: 0, timestamp_ms: now_ms };
            let Some(opened) = wire.carry(now_ms, message) else { continue };
            if let Some(message) = opened.message() {
                self.scheduler.handle(self.now, Event::Received { session, from, message }, &mut self.effects);
            }
            self.take_effects();
        }
    }

    fn take_effects(&mut self) {
        let facts = std::mem::take(&mut self.effects.facts);
        for bytes in facts.iter() {
            (self.on_fact)(bytes);
            let Ok((at, fact)) = Fact::decode(bytes) else { continue };
            if let Fact::JobAccepted { job, .. } = &fact
                && let Some(of_day) = self.submitting.take()
            {
                self.jobs.insert(*job, of_day);
            }
            self.meter.take(at.max(self.now), &fact);
        }
        let prompt: Vec<Effect> = self.effects.drain_prompt().collect();
        let queued: Vec<Effect> = self.effects.drain().map(|(_, effect)| effect).collect();
        prompt.into_iter().chain(queued).for_each(|effect| self.take(effect));
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            // Nothing here needs what lies beside a journal.
            Effect::Send { session, message } | Effect::Complete { session, message, .. } => {
                self.on_message(session, message);
            }
            Effect::Close { session, .. } => {
                self.wires.remove(&session);
                if let Some(agent) = self.agents.remove(&session) {
                    self.device(agent).session = None;
                }
            }
            Effect::Certify { .. } | Effect::RefuseEnrolment { .. } | Effect::Token { .. } => {}
        }
    }

    fn on_message(&mut self, session: SessionId, message: Message) {
        let agent = self.agents.get(&session).copied();
        match (message, agent) {
            (Message::Assignment(assignment), Some(agent)) => self.on_assigned(session, agent, &assignment),
            (Message::Cancellation(attempt, reason), Some(agent)) => {
                self.end(agent, attempt, fb::TaskStatus::Cancelled, End { reason, ..End::default() });
            }
            (Message::Rare(fb::SchedulerMessageT::Nack(nack)), None) => self.refused = nack.message,
            // Nothing waits for room on an agent here; the rest needs no answer.
            _ => {}
        }
    }

    fn on_assigned(&mut self, session: SessionId, agent: usize, assignment: &Assignment) {
        let attempt = assignment.attempt;
        let Some(task) = self.key_of(attempt) else { return };
        if self.device(agent).held.contains_key(&attempt) {
            return;
        }
        let tries = self.tries.get(&task).copied().unwrap_or_default();
        let mut run = self.day.run_of(task, tries).unwrap_or(UNKNOWN_RUN);
        let limit = Duration::from_secs(assignment.spec.timeout_s);
        if !limit.is_zero() && run.lasts > limit {
            run = Run { lasts: limit, status: fb::TaskStatus::TimedOut };
        }
        self.device(agent)
            .held
            .insert(attempt, Held { resources: assignment.spec.resources, key: assignment.job_key, run });
        self.started += 1;
        self.ends.insert((self.now + run.lasts, self.started), (agent, attempt));
        self.to_send.push_back((session, status(attempt, assignment.job_key, fb::TaskStatus::Running, None)));
    }

    fn key_of(&self, attempt: AttemptId) -> Option<TaskKey> {
        Some((*self.jobs.get(&attempt.task.job)?, attempt.task.entry, attempt.task.index))
    }

    /// What has run for its time ends.
    fn on_end(&mut self) {
        let Some((_, (agent, attempt))) = self.ends.pop_first() else { return };
        let Some(run) = self.device(agent).held.get(&attempt).map(|held| held.run) else { return };
        if let Some(task) = self.key_of(attempt) {
            *self.tries.entry(task).or_default() += 1;
        }
        let reason = match run.status {
            fb::TaskStatus::TimedOut => fb::EndReason::RunTimeout,
            _ => fb::EndReason::Exited,
        };
        let exit_code = i32::from(run.status == fb::TaskStatus::Failed);
        let wall_us = run.lasts.as_micros() as u64;
        self.end(agent, attempt, run.status, End { reason, exit_code, wall_us, ..End::default() });
        self.deliver();
    }

    /// An attempt is over; its agent says so when it is there.
    fn end(&mut self, agent: usize, attempt: AttemptId, how: fb::TaskStatus, end: End) {
        let Some(held) = self.device(agent).held.remove(&attempt) else { return };
        match self.device(agent).session {
            Some(session) => self.to_send.push_back((session, status(attempt, held.key, how, Some(end)))),
            None => self.device(agent).untold.push((attempt, held.key, how, end)),
        }
    }
}

/// As little as can be of what a scheduler is started with; nobody is silent here, since nobody has to say anything.
fn config() -> Config {
    Config {
        cluster: String::from("replay"),
        keys: RootKeys::new(Secret::new([1; 32])),
        authority_sha256: [0; 32],
        addresses: Vec::new(),
        incarnation_id: [1; 16],
        seed: 1,
        heartbeat_interval: Duration::from_secs(30),
        software: String::from("replay"),
        accept_restore: false,
        policy: Policy {
            silent_intervals: u32::MAX,
            messages_burst: u32::MAX,
            ended_jobs_max: usize::MAX,
            ended_tasks_max: u64::MAX,
            jobs_max: usize::MAX,
            tasks_max: u64::MAX,
            ..Policy::default()
        },
    }
}

/// Whoever sets policies and cancels.
const OPERATOR: &str = "replay";
/// Of what nobody knows how long it runs.
pub(super) const UNKNOWN_RUN: Run = Run { lasts: Duration::from_secs(60), status: fb::TaskStatus::Completed };
/// After the last job came: what has not ended then will not.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30 * 86_400);
