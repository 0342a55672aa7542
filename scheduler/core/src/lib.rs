//! The scheduler's decisions, as a deterministic state machine without IO, clock or randomness.
//!
//! [`Scheduler::handle`] is the only way in, [`Effects`] the only way out, to be executed in order.
//! Facts are what survives: the shell appends them to the journal and releases each effect once the
//! position that it bears is durable; at the next start it gives them back to [`Scheduler::replay`].
//!
//! The floors, from the ground: tables (`restored`, `breaker`, `bodies`, `agents`, `attempts`, `waits`, `caps`, `semaphores`, `tokens`, `ranges`, `gathering`, `ranked`, `shares`, `lanes`, `ageing`, `audiences`, `queue`, `reserved`, `deadlines`, `policy`, `presence`, `schedules`, `cron`, `agenda`,
//! `limits`, `kept`, `fact`), rules (`state`, `snapshot`, `live`, `outlook`, `sketch`, `waiting`, `parking`, `placement`, `ganging`, `event`, `core`), stories (`sessions`, `enrolment`, `restore`, `forget`, `health`,
//! `tasks`, `gangs`, `dependents`, `inputs`, `excluding`, `backlog`, `holding`, `preempting`, `reserving`, `gang_reserving`, `loss`, `jobs`, `recurring`, `queries`, `queues`, `earliest`, `explain`, `plans`, `logs`, `unreadable`, `fitting`), and this front, which hands each event to one
//! story. A file imports only from floors below its own.
#![forbid(unsafe_code)]

pub mod ageing;
pub mod agenda;
pub mod agents;
pub mod attempts;
pub mod audiences;
mod backlog;
pub mod bodies;
pub mod breaker;
pub mod caps;
mod cordon;
mod core;
pub mod cron;
pub mod deadlines;
mod dependents;
mod earliest;
mod enrolment;
pub mod event;
mod excluding;
mod explain;
pub mod fact;
mod fitting;
mod forget;
mod gang_reserving;
pub mod ganging;
mod gangs;
pub mod gathering;
mod health;
mod holding;
mod inputs;
mod jobs;
pub mod kept;
pub mod lanes;
pub mod limits;
pub mod live;
mod logs;
mod loss;
mod outlook;
mod parking;
pub mod placement;
mod plans;
pub mod policy;
mod preempting;
mod presence;
mod queries;
pub mod queue;
mod queues;
pub mod ranges;
pub mod ranked;
mod rare;
mod recurring;
pub mod reserved;
mod reserving;
mod restore;
pub mod restored;
pub mod schedules;
pub mod semaphores;
mod sessions;
pub mod shares;
mod sketch;
mod snapshot;
pub mod state;
mod tasks;
pub mod tokens;
mod unreadable;
mod waiting;
pub mod waits;

pub use crate::{
    event::{Config, Effect, Effects, Event, Origin},
    live::Live,
    policy::Policy,
    state::State,
};

use crate::{
    core::{About, Core},
    deadlines::Deadline,
    event::Rejected,
    fact::{Fact, FactError},
    state::ApplyError,
};
use fleetwire_common::{
    envelope::{handshake::Proof, keys::Secret},
    fb,
    ids::{AgentId, AttemptId, Position, Principal, SessionId, TokenId},
    message::{MessageRef, attempt_id},
    roles::may_send,
    time::Time,
};
use std::borrow::Cow;

/// The scheduler's core.
#[derive(Debug)]
pub struct Scheduler {
    core: Core,
}

/// Why a journal cannot be replayed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the fact at position {}: {cause}", position.0)]
pub struct ReplayError {
    /// Which fact.
    pub position: Position,
    /// What is wrong with it.
    pub cause: ReplayCause,
}

/// What is wrong with a replayed fact.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReplayCause {
    /// Its bytes are no fact.
    #[error("{0}")]
    Unreadable(#[from] FactError),
    /// It contradicts the facts before it.
    #[error("{0}")]
    Contradiction(#[from] ApplyError),
}

impl Scheduler {
    /// A scheduler that knows nothing yet.
    pub fn new(config: Config) -> Scheduler {
        Scheduler { core: Core::new(config) }
    }

    /// Takes the next fact of the journal. All of them, in order, before [`Scheduler::start`].
    pub fn replay(&mut self, fact: &[u8]) -> Result<(), ReplayError> {
        self.replay_at(Position(self.core.position.0 + 1), fact)
    }

    /// The same for a fact that has that position: a snapshot's facts all have the snapshot's.
    pub fn replay_at(&mut self, position: Position, fact: &[u8]) -> Result<(), ReplayError> {
        let mut take = || -> Result<(), ReplayCause> {
            let (at, fact) = Fact::decode(fact)?;
            Ok(self.core.state.apply(at, &fact)?)
        };
        take().map_err(|cause| ReplayError { position, cause })?;
        self.core.position = position;
        Ok(())
    }

    /// Begins an incarnation: decides its fact, and builds the live side anew. Leases start afresh.
    pub fn start(&mut self, now: Time, effects: &mut Effects) {
        let core = &mut self.core;
        core.now = now.max(core.state.last_fact_at);
        core.live.queue.now = core.now;
        core.live.version = core.now.0;
        effects.set_position(core.position);
        let software = core.config.software.clone();
        core.accept_restore(effects);
        let fact = Fact::IncarnationStarted {
            incarnation: core.state.incarnation + 1,
            id: core.config.incarnation_id,
            software: Cow::Borrowed(&software),
            position: Position(core.position.0 + 1),
        };
        core.decide(&fact, effects);
        core.live.semaphores_gone_after = core.semaphores_gone_after();
        core.heed_policy();
        core.await_moments();
        let open: Vec<_> =
            core.state.jobs.iter().filter(|(_, job)| job.ended_at.is_none()).map(|(id, _)| *id).collect();
        for job in &open {
            core.enter_job(*job);
            core.tell_all_ends(*job);
        }
        let waiting = core.state.tasks.iter().filter(|(_, record)| record.open.count() == 0);
        for task in waiting.map(|(task, _)| *task).collect::<Vec<_>>() {
            core.await_agent(task);
        }
        let assigned: Vec<(AgentId, AttemptId)> = core
            .state
            .agents
            .iter()
            .flat_map(|(agent, record)| record.assigned.iter().map(move |attempt| (agent, *attempt)))
            .collect();
        for (agent, attempt) in assigned {
            let held = core.new_held(attempt);
            core.live.hold(agent, attempt, held);
            core.live.keep_place(attempt.task);
            core.hold_semaphores(agent, attempt);
            core.note_gang(attempt.task);
        }
        core.recall_semaphores();
        for agent in core.state.agents.known().map(|(agent, _)| agent).collect::<Vec<_>>() {
            core.on_agent_away(agent, core.now);
        }
        // Some may have come to their deadline meanwhile.
        for job in open {
            core.heed_terms(job, effects);
        }
        core.pass_on_ends(effects);
        core.live.heed_caps();
    }

    /// Takes an event and decides. `now` is cluster time; one that lies before the last is read as it.
    pub fn handle(&mut self, now: Time, event: Event<'_>, effects: &mut Effects) {
        let core = &mut self.core;
        core.now = core.now.max(now);
        core.live.queue.now = core.now;
        effects.set_position(core.position);
        match event {
            Event::Connected { session, principal, hello, address } => {
                core.on_connected(session, principal, (hello, address), effects);
            }
            Event::Received { session, from, message } => on_received(core, session, from, message, effects),
            Event::Disconnected { session } => core.on_disconnected(session),
            Event::Enrolling { session, token, name, role, key_sha256 } => {
                core.on_enrolling(session, token, (name, role), key_sha256, effects);
            }
            Event::EnrolLocally { name, role, key_sha256 } => {
                core.on_enrol_locally(Principal { role, name }, key_sha256, effects);
            }
            Event::IssueToken { role, uses, expires_in } => {
                if let Ok(token) = core.issue_token("local", role, uses, expires_in, effects) {
                    effects.push(Effect::Token { token });
                }
            }
            Event::Deadline => on_deadline(core, effects),
            Event::Disk { low, blob_segments_max } => {
                (core.live.disk.low, core.live.disk.blob_segments_max) = (low, blob_segments_max);
            }
            Event::Unreadable { session, message, why } => core.on_unreadable(session, &message, why, effects),
            Event::Stalled { gap } => core.on_stalled(gap),
        }
        core.pass_on_ends(effects);
        core.live.heed_caps();
        core.place(effects);
        core.heed_gangs(effects);
        core.live.heed_caps();
        core.forget_ended(effects);
    }

    /// When [`Event::Deadline`] is due next. May lie in the past: then as soon as nothing else has
    /// arrived.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.core.live.unplanned { Some(self.core.now) } else { self.core.live.deadlines.next() }
    }

    /// How many facts there are.
    pub fn position(&self) -> Position {
        self.core.position
    }

    /// This start's number.
    pub fn incarnation(&self) -> u64 {
        self.core.state.incarnation
    }

    /// When the latest fact was decided; cluster time never goes back behind it.
    pub fn last_fact_at(&self) -> Time {
        self.core.state.last_fact_at
    }

    /// Proof that this incarnation has reached a position.
    pub fn receipt(&self, position: Position) -> fb::Receipt {
        self.core.receipt(position)
    }

    /// The same, with whose proof it is.
    pub fn proof(&self, position: Position) -> Proof {
        self.core.proof(position)
    }

    /// The secret by which a device proves that it holds a token: what an `Enroll` frame is opened with.
    /// `None` if there is no such token.
    pub fn token_secret(&self, token: TokenId) -> Option<Secret> {
        self.core.token_secret(token)
    }

    /// What facts say.
    pub fn state(&self) -> &State {
        &self.core.state
    }

    /// What they do not.
    pub fn live(&self) -> &Live {
        &self.core.live
    }
}

/// Does what is due now, as much as one step may; what is left is due at once.
fn on_deadline(core: &mut Core, effects: &mut Effects) {
    for _ in 0..core.config.policy.deadlines_per_step {
        let Some(deadline) = core.live.deadlines.take_due(core.now) else { return };
        match deadline {
            Deadline::Settled(job) => core.on_settled(job),
            Deadline::Due(job) => core.heed_terms(job, effects),
            Deadline::Retry(task) => core.on_retry_due(task),
            Deadline::TaskQueued(task) => core.on_task_queued_too_long(task, effects),
            Deadline::EntryQueued(job, entry) => core.on_entry_queued_too_long(job, entry, effects),
            Deadline::Lease(agent) => core.on_lease(agent, effects),
            Deadline::Gone(agent, attempt) => core.on_gone(agent, attempt),
            Deadline::Unreachable(agent) => core.on_unreachable(agent, effects),
            Deadline::Forget(agent) => core.on_forget_due(agent, effects),
            Deadline::Silence(session) => core.on_silence(session, effects),
            Deadline::Backstop(attempt) => core.on_backstop(attempt, effects),
            Deadline::Readmit(class, agent) => core.on_readmit(class, agent),
            Deadline::Breaker(agent) => core.on_cooled(agent),
            Deadline::Quarantine(agent) => core.on_stayed(agent),
            Deadline::Drain(agent) => core.on_drain_due(agent, effects),
            Deadline::Backlog(agent) => core.on_backlog(agent, effects),
            Deadline::Reserve => core.on_reserve_due(effects),
            // A job and what is placed then is what one step may add to a batch: the next is due at once.
            Deadline::Agenda => return core.on_agenda(effects),
            Deadline::Watch(number) => core.on_watch_due(number, effects),
            Deadline::Log(number) => core.on_log_due(number, effects),
        }
    }
}

/// A message: first whether the sender may send that at all, then what it says.
fn on_received(core: &mut Core, id: SessionId, origin: Origin, message: MessageRef<'_>, effects: &mut Effects) {
    let (per_s, burst) = (core.config.policy.messages_per_s, core.config.policy.messages_burst);
    let (now, cost) = (core.now, cost(core, &message));
    // A session that was closed may still have sent something; it is not answered.
    let Some(session) = core.live.sessions.get_mut(&id) else { return };
    session.heard_at = now;
    if !session.allowance.take(now, cost, (per_s, burst)) {
        let reason = format!("more than {per_s} messages a second");
        core.close(id, fb::ErrorCode::RateLimited, reason, effects);
        return;
    }
    let (principal, agent) = (session.principal.clone(), session.agent);
    match dispatch(core, (id, &principal, agent), origin, message, effects) {
        Ok(false) => {}
        Ok(true) => {
            if let Some(session) = core.live.sessions.get_mut(&id) {
                session.allowance.give();
            }
        }
        Err(rejected) => core.refuse(id, origin, about(&message), &rejected, effects),
    }
}

/// What a message counts as: one, or more if it asks for more work or for a larger answer than most.
fn cost(core: &Core, message: &MessageRef<'_>) -> u32 {
    match message {
        MessageRef::Register(_) => limits::REGISTER_COST,
        MessageRef::Query(query) => core.query_cost(*query),
        MessageRef::PlanJob(_) => limits::PLAN_COST,
        MessageRef::SetSchedule(_) => limits::SCHEDULE_COST,
        _ => 1,
    }
}

/// Says whether the message moved an attempt on: such messages are not counted as a flood.
fn dispatch(
    core: &mut Core,
    (id, principal, agent): (SessionId, &Principal, Option<AgentId>),
    origin: Origin,
    message: MessageRef<'_>,
    effects: &mut Effects,
) -> Result<bool, Rejected> {
    // §open-15
    if let MessageRef::Unknown(found) = message {
        return Err(Rejected::UnknownMessage { found });
    }
    // A Nack is never answered by a Nack, whoever sent it.
    // §session-8
    if let MessageRef::Nack(nack) = message {
        on_nack(core, agent, nack, effects);
        return Ok(false);
    }
    let kind = message.kind();
    // §open-12 §role-1
    if !may_send(principal.role, kind) {
        return Err(Rejected::NotAllowed { role: principal.role, message: kind });
    }
    let registered = agent.ok_or(Rejected::NotRegistered { message: kind });
    let moved_on = match message {
        MessageRef::StatusUpdate(update) => core.on_status((id, registered?), update, effects)?,
        MessageRef::TaskAcceptance(message) => core.on_acceptance(registered?, message)?,
        MessageRef::TaskRejection(message) => {
            let attempt = (message.task_id(), message.attempt());
            core.on_rejection(registered?, attempt, message.message().unwrap_or_default(), effects)?;
            true
        }
        MessageRef::Heartbeat(beat) => {
            core.on_heartbeat(id, agent, origin, beat, effects);
            false
        }
        MessageRef::Register(message) => core.on_register(id, message, effects).map(|()| false)?,
        MessageRef::Deregister(_) => {
            core.on_deregister(registered?, effects);
            false
        }
        MessageRef::LogChunk(message) => core.on_log_chunk(registered?, message, effects)?,
        MessageRef::LogRequest(message) => core.on_log_request(id, message, effects).map(|()| false)?,
        MessageRef::SubmitJob(message) => {
            core.on_submit(id, &principal.to_string(), message, effects).map(|()| false)?
        }
        MessageRef::CancelWork(message) if message.agent().is_some() => {
            core.on_forget(id, principal.role, message, effects).map(|()| false)?
        }
        MessageRef::ChangeAgent(message) => {
            core.on_change_agent(id, &principal.to_string(), message, effects).map(|()| false)?
        }
        MessageRef::SetPolicy(message) => {
            core.on_set_policy(id, &principal.to_string(), message, effects).map(|()| false)?
        }
        MessageRef::SetSchedule(message) => {
            core.on_set_schedule(id, &principal.to_string(), message, effects).map(|()| false)?
        }
        MessageRef::ChangeSchedule(message) => core.on_change_schedule(id, message, effects).map(|()| false)?,
        MessageRef::PlanJob(message) => {
            core.on_plan(id, message, effects);
            false
        }
        MessageRef::CancelWork(message) => core.on_cancel(id, message, effects).map(|()| false)?,
        MessageRef::CreateToken(message) => {
            core.on_create_token(id, &principal.to_string(), message, effects).map(|()| false)?
        }
        MessageRef::Query(message) => core.on_query(id, message, effects).map(|()| false)?,
        // Nothing waits for an agent's or a client's Ack yet; chunks were put together before they came here.
        MessageRef::Ack(_) | MessageRef::Chunk(_) | MessageRef::Nack(_) | MessageRef::Unknown(_) => false,
        MessageRef::TaskAssignment(_)
        | MessageRef::Hello(_)
        | MessageRef::Welcome(_)
        | MessageRef::Registered(_)
        | MessageRef::TaskCancellation(_)
        | MessageRef::Enroll(_)
        | MessageRef::Enrolled(_)
        | MessageRef::JobSubmitted(_)
        | MessageRef::TokenCreated(_)
        | MessageRef::Page(_) => return Err(Rejected::NotAllowed { role: principal.role, message: kind }),
    };
    Ok(moved_on)
}

/// A peer refused something of ours: a log request, or an assignment that it cannot read.
fn on_nack(core: &mut Core, agent: Option<AgentId>, nack: fb::Nack<'_>, effects: &mut Effects) {
    let Some(agent) = agent else { return };
    if nack.request() != 0 && core.on_log_refused(agent, nack, effects) {
        return;
    }
    let refuses_assignment = matches!(
        nack.code(),
        fb::ErrorCode::MessageFormat
            | fb::ErrorCode::Validation
            | fb::ErrorCode::UnknownMessage
            | fb::ErrorCode::TooLarge
            | fb::ErrorCode::Busy
            | fb::ErrorCode::DoesNotFit
    );
    if refuses_assignment && nack.task_id().is_some() {
        // What it names wrongly changes nothing, and is not answered.
        let _ = core.on_rejection(agent, (nack.task_id(), nack.attempt()), nack.message().unwrap_or_default(), effects);
    }
}

/// What a refused message was about, as far as it says.
fn about(message: &MessageRef<'_>) -> About {
    let of = |task_id, attempt| attempt_id(task_id, attempt).ok();
    let (request, attempt) = match message {
        MessageRef::StatusUpdate(status) => (0, of(status.update.task_id(), status.update.attempt())),
        MessageRef::TaskAcceptance(message) => (0, of(message.task_id(), message.attempt())),
        MessageRef::TaskRejection(message) => (0, of(message.task_id(), message.attempt())),
        MessageRef::SubmitJob(message) => (message.request(), None),
        MessageRef::PlanJob(message) => (message.request(), None),
        MessageRef::CancelWork(message) => (message.request(), None),
        MessageRef::CreateToken(message) => (message.request(), None),
        MessageRef::ChangeAgent(message) => (message.request(), None),
        MessageRef::SetPolicy(message) => (message.request(), None),
        MessageRef::SetSchedule(message) => (message.request(), None),
        MessageRef::ChangeSchedule(message) => (message.request(), None),
        MessageRef::Query(message) => (message.request(), None),
        MessageRef::LogRequest(message) => (message.request(), None),
        _ => (0, None),
    };
    About { request, attempt }
}
