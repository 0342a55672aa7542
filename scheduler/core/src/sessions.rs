//! The story of a session: it opens, an agent registers and is reconciled, it beats, it ends.
//!
//! Invariants: an agent has at most one session, the newest; it gets no new work before its `Register`
//! was answered; every attempt that it listed is answered and in its ledger, and every attempt that the
//! state gave it and that it did not list is sent again or has ended.

use crate::{
    agents::AgentProfile,
    attempts::end_of_stopped,
    core::Core,
    deadlines::Deadline,
    event::{Effect, Effects, Origin, Rejected},
    fact::{Fact, array},
    live::{Allowance, Held, Phase, Reported, Session},
    placement::is_of,
    tasks::{Ending, ppm, read_attempt},
};
use fleetwire_common::{
    custom::Custom,
    envelope::handshake::HelloInfo,
    fb,
    gang::is_address,
    ids::{AgentId, AttemptId, JobKey, Name, Principal, SessionId},
    job::pairs,
    limits::{AGENT_ATTEMPTS_MAX, LABELS_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX},
    message::{Ack, Message, cut, is_final},
    resources::Resources,
    time::Time,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

impl Core {
    /// A session was agreed. Of an agent's sessions the newest counts.
    pub fn on_connected(
        &mut self,
        id: SessionId,
        principal: Principal,
        (hello, address): (HelloInfo, &str),
        effects: &mut Effects,
    ) {
        if principal.role == fb::Role::Agent && self.is_from_beyond(&principal.name, hello.receipt, effects) {
            let reason = String::from(
                "your receipt is from beyond this scheduler's journal, which is a restored backup: keep what you have \
                 until the operator decides",
            );
            effects.push(Effect::Close { session: id, code: fb::ErrorCode::WrongState, reason });
            return;
        }
        let policy = &self.config.policy;
        if self.live.sessions.len() >= policy.sessions_max || self.live.sessions.contains_key(&id) {
            let reason = format!("too many sessions: at most {}", policy.sessions_max);
            effects.push(Effect::Close { session: id, code: fb::ErrorCode::Busy, reason });
            return;
        }
        let is_agent = principal.role == fb::Role::Agent;
        let silence_at = if is_agent { self.now + policy.register_within } else { Time::NEVER };
        let allowance = Allowance::new(policy.messages_burst, self.now);
        if is_agent && let Some(older) = self.live.agent_sessions.insert(principal.name.clone(), id) {
            self.end_session(older, self.now);
            let reason = String::from("the same identity connected again");
            effects.push(Effect::Close { session: older, code: fb::ErrorCode::AlreadyConnected, reason });
        }
        self.live.deadlines.arm(silence_at, Deadline::Silence(id));
        let heard_at = self.now;
        let address = if is_agent { cut(address).into() } else { Box::default() };
        let session = Session { principal, address, agent: None, heard_at, silence_at, allowance, watches: 0, logs: 0 };
        self.live.sessions.insert(id, session);
    }

    /// A session is gone.
    pub fn on_disconnected(&mut self, id: SessionId) {
        self.end_session(id, self.now);
    }

    /// Ends a session that misbehaved or fell silent.
    pub fn close(&mut self, id: SessionId, code: fb::ErrorCode, reason: String, effects: &mut Effects) {
        let heard_at = self.live.sessions.get(&id).map_or(self.now, |session| session.heard_at);
        self.end_session(id, heard_at);
        effects.push(Effect::Close { session: id, code, reason });
    }

    fn end_session(&mut self, id: SessionId, heard_at: Time) {
        let Some(session) = self.live.sessions.remove(&id) else { return };
        self.live.deadlines.disarm(session.silence_at, Deadline::Silence(id));
        self.forget_watches(id, session.watches);
        self.forget_logs(id, session.logs);
        let name = &session.principal.name;
        if self.live.agent_sessions.get(name) == Some(&id) && session.principal.role == fb::Role::Agent {
            self.live.agent_sessions.remove(name);
        }
        if let Some(agent) = session.agent
            && self.session_of(agent) == Some(id)
        {
            self.note_loss(agent);
            self.on_agent_away(agent, heard_at);
        }
    }

    /// How long a registered agent may be silent.
    fn silence_allowed(&self) -> Duration {
        self.config.heartbeat_interval.saturating_mul(self.config.policy.silent_intervals)
    }

    /// A session of an agent may have been silent for too long.
    pub fn on_silence(&mut self, id: SessionId, effects: &mut Effects) {
        let silent_for = self.silence_allowed();
        let Some(session) = self.live.sessions.get_mut(&id) else { return };
        let allowed = match session.agent {
            Some(_) => silent_for,
            None => self.config.policy.register_within,
        };
        let due = session.heard_at + allowed.max(Duration::from_millis(1));
        // A session that only beats and never registers is not kept alive by that.
        if due > self.now && session.agent.is_some() {
            session.silence_at = due;
            self.live.deadlines.arm(due, Deadline::Silence(id));
            return;
        }
        let reason = format!("no Register, or no message, within {} s", allowed.as_secs());
        self.close(id, fb::ErrorCode::MessageTimeout, reason, effects);
    }

    /// An agent beats: what is in use there, and that it is alive. O(1). Where work ends that is not heard, every
    /// beat is answered, without waiting for the disk; but not before the agent registered, because what it
    /// holds may be suspect until then.
    pub fn on_heartbeat(
        &mut self,
        session: SessionId,
        agent: Option<AgentId>,
        origin: Origin,
        beat: fb::Heartbeat<'_>,
        effects: &mut Effects,
    ) {
        let mut must_be_answered = false;
        if let Some(agent) = agent {
            let live = self.live.agent_mut(agent);
            live.usage = Resources { cpu: beat.cpu(), memory: beat.memory(), gpu: beat.gpu(), storage: beat.storage() };
            live.running = beat.running();
            must_be_answered = live.must_be_answered();
            live.unanswered_ms = Some(origin.timestamp_ms);
        }
        if let Some(agent) = agent.filter(|_| must_be_answered || beat.answer()) {
            self.live.agent_mut(agent).unanswered_ms = None;
            effects.send_at_once(session, Message::Ack(Ack::Heartbeat(origin.timestamp_ms)));
        }
    }

    /// An agent goes: no more work for it. What it holds runs out as if it were away.
    pub fn on_deregister(&mut self, agent: AgentId, effects: &mut Effects) {
        self.live.agent_mut(agent).leaving = true;
        self.live.refresh_room(agent);
        if self.state.agents.find(agent).is_some_and(|record| record.left_at.is_none()) {
            self.decide(&Fact::AgentDeregistered { agent }, effects);
        }
    }

    /// An agent says what it offers and lists every attempt that it holds.
    pub fn on_register(
        &mut self,
        id: SessionId,
        message: fb::Register<'_>,
        effects: &mut Effects,
    ) -> Result<(), Rejected> {
        let Some(session) = self.live.sessions.get(&id) else { return Ok(()) };
        let name = session.principal.name.clone();
        let profile = read_profile(&message, &session.address)?;
        let listed = read_attempts(&message)?;
        let (agent, same_data) = self.note_profile(&name, profile, effects)?;
        let live = self.live.agent_mut(agent);
        (live.backlog.max, live.unanswered_ms) = (message.backlog(), None);
        let (now, allowed) = (self.now, self.silence_allowed());
        if let Some(session) = self.live.sessions.get_mut(&id) {
            session.agent = Some(agent);
            // Until now it had the time to register; from now on it must be heard.
            let before = std::mem::replace(&mut session.silence_at, now + allowed);
            self.live.deadlines.disarm(before, Deadline::Silence(id));
            self.live.deadlines.arm(now + allowed, Deadline::Silence(id));
        }
        if self.state.agents.find(agent).is_some_and(|record| record.unreachable_since.is_some()) {
            self.decide(&Fact::AgentReturned { agent }, effects);
        }
        self.disarm_absence(agent);
        self.note_return(agent);
        for (attempt, report) in &listed {
            if self.is_foreign(*attempt, report.job_key) {
                self.displace(agent, *attempt, effects);
            } else {
                self.keep_one(agent, *attempt, report, effects);
            }
        }
        // §session-6
        let answers = listed.iter().map(|(attempt, report)| self.reconcile_listed(agent, *attempt, report)).collect();
        let registered = fb::RegisteredT {
            answers: Some(answers),
            heartbeat_interval_ms: u32::try_from(self.config.heartbeat_interval.as_millis()).unwrap_or(u32::MAX),
            answer_every: self.config.policy.answer_every,
        };
        effects.send(id, Message::Rare(fb::SchedulerMessageT::Registered(Box::new(registered))));
        self.reconcile_rest(id, agent, same_data, &listed, effects);
        let live = self.live.agent_mut(agent);
        live.session = Some(id);
        live.leaving = false;
        self.keep_cordon(agent, effects);
        let held = self.live.agent(agent).map(|live| live.held.keys().map(|attempt| attempt.task).collect::<Vec<_>>());
        held.unwrap_or_default().into_iter().for_each(|task| self.note_gang(task));
        Ok(())
    }

    /// Takes what an agent says of itself, as a fact if it is new; says whether its data folder is the
    /// one that it had.
    fn note_profile(
        &mut self,
        name: &Name,
        profile: AgentProfile,
        effects: &mut Effects,
    ) -> Result<(AgentId, bool), Rejected> {
        let known = self.state.agents.named(name);
        let agent = known.unwrap_or(self.state.agents.next());
        // One that was forgotten begins anew.
        let before = self.state.agents.find(agent).filter(|record| !record.forgotten);
        let max = self.config.policy.agents_max;
        if before.is_none() && self.state.agents.known_count() >= max {
            return Err(Rejected::Busy { what: "agents", max: max as u64 });
        }
        let same_data = before.is_some_and(|record| record.profile.data_id == profile.data_id);
        let unchanged = before.is_some_and(|record| *record.profile == profile && record.left_at.is_none());
        let (capacity, custom) = (profile.capacity, profile.custom.clone());
        if !unchanged {
            let profile = Arc::new(profile);
            let fact = Fact::AgentRegistered { agent, name: name.clone(), profile: Arc::clone(&profile) };
            self.decide(&fact, effects);
            self.requalify(agent, &profile);
        }
        self.live.set_capacity(agent, capacity, custom);
        Ok((agent, same_data))
    }

    /// What an agent is has changed: other classes may suit it, and what it rejected is forgotten.
    fn requalify(&mut self, agent: AgentId, profile: &AgentProfile) {
        self.live.queue.requalify(agent, |request| is_of(request, profile));
        self.live.index.offer_again(agent);
    }

    /// Answers one listed attempt, and counts it, whatever it is.
    fn reconcile_listed(&mut self, agent: AgentId, attempt: AttemptId, report: &Reported) -> fb::AttemptAnswerT {
        let foreign = self.is_foreign(attempt, report.job_key);
        let known = match foreign {
            true => Err(Rejected::ForeignAttempt { attempt }),
            false => self.check_attempt(agent, attempt),
        };
        let verdict = match &known {
            Ok(()) if self.state.is_stopped(attempt.task) => fb::AttemptVerdict::Stop,
            Ok(()) => fb::AttemptVerdict::Keep,
            Err(Rejected::AttemptEnded { .. } | Rejected::NotYourAttempt { .. }) => fb::AttemptVerdict::Stop,
            Err(_) => fb::AttemptVerdict::Unknown,
        };
        // What is known of it stays: its progress, and that it runs.
        match self.live.held_mut(agent, attempt) {
            Some(held) if !foreign => {
                held.recalled = false;
                // It may not have heard of it; who needs its room asks again.
                held.makes_way.take_if(|why| matches!(*why, fb::EndReason::Preempted | fb::EndReason::GangLost));
                self.live.set_waits(agent, attempt, report.waits);
            }
            _ => {
                let waits = report.waits;
                let mut held = if foreign { Held::default() } else { self.new_held(attempt) };
                (held.ended, held.waits) = (known.is_err(), waits);
                if known.is_err() {
                    // Maybe of a job that had this number in a journal of which ours is a backup.
                    held.resources = held.resources.or_more(report.resources);
                    held.custom = held.custom.or_more(&report.custom);
                }
                self.live.hold(agent, attempt, held);
            }
        }
        if !foreign {
            self.hold_semaphores(agent, attempt);
        }
        if known.is_ok() {
            // It is heard again: no rival is needed, if none was found yet.
            self.live.dequeue(attempt.task);
            let known_ppm = self.live.held(agent, attempt).map_or(0, |held| held.progress_ppm);
            let progress_ppm = report.progress_ppm.max(known_ppm);
            match report.status {
                fb::TaskStatus::Running => {
                    self.live.set_running(agent, attempt, progress_ppm);
                    self.ensure_backstop(agent, attempt);
                }
                _ => {
                    if let Some(held) = self.live.held_mut(agent, attempt) {
                        held.phase = held.phase.max(Phase::Accepted);
                    }
                }
            }
        }
        fb::AttemptAnswerT { task_id: Some(attempt.task.to_string()), attempt: attempt.attempt, verdict }
    }

    /// Everything that the ledger or the state give this agent and that it did not list: what has ended is
    /// gone, the rest is sent again if the agent still has its data, else it is lost.
    fn reconcile_rest(
        &mut self,
        session: SessionId,
        agent: AgentId,
        same_data: bool,
        listed: &BTreeMap<AttemptId, Reported>,
        effects: &mut Effects,
    ) {
        let ledger = self.live.agent(agent).into_iter().flat_map(|live| live.held.keys());
        let assigned = self.state.agents.find(agent).into_iter().flat_map(|record| &record.assigned);
        let missing: BTreeSet<_> =
            ledger.chain(assigned).filter(|attempt| !listed.contains_key(attempt)).copied().collect();
        for attempt in missing {
            let open = self.check_attempt(agent, attempt).is_ok();
            if !open {
                self.live.release(agent, attempt);
            } else if self.state.is_stopped(attempt.task) {
                self.lose(agent, attempt, "", effects);
            } else if same_data && self.state.chain.restored.is_some() {
                // Nothing is assigned now; it is sent again after the restart that accepts the backup.
                self.live.dequeue(attempt.task);
            } else if same_data {
                self.live.dequeue(attempt.task);
                self.hold_again(agent, attempt);
                self.send_assignment(session, attempt, effects);
            } else {
                self.lose(agent, attempt, "the agent came back without its data", effects);
            }
        }
        self.reconcile_semaphores(agent, same_data, listed);
    }

    // §job-4
    /// An agent lists an attempt that another journal's scheduler gave it. One of ours that has this number cannot be
    /// there beside it.
    fn displace(&mut self, agent: AgentId, attempt: AttemptId, effects: &mut Effects) {
        if self.check_attempt(agent, attempt).is_ok() {
            self.lose(
                agent,
                attempt,
                "the agent has another job's attempt of this number, from another journal",
                effects,
            );
        }
    }

    /// Ends an attempt of which nothing is on its agent any more.
    fn lose(&mut self, agent: AgentId, attempt: AttemptId, why: &str, effects: &mut Effects) {
        let lost = (fb::TaskStatus::Lost, fb::EndReason::AgentLost);
        let stopped = self.state.stopped(attempt.task);
        let (status, reason) = stopped.map_or(lost, |reason| (end_of_stopped(reason), reason));
        let mut ending = Ending::decided(status, reason, self.now);
        ending.end.message = why.to_owned();
        self.end_attempt(attempt, ending, effects);
        self.live.release(agent, attempt);
    }

    /// An attempt that is sent again starts anew, as far as anyone knows.
    fn hold_again(&mut self, agent: AgentId, attempt: AttemptId) {
        let waits = self.live.held(agent, attempt).is_some_and(|held| held.waits);
        self.live.set_ended(agent, attempt);
        let held = Held { waits, ..self.new_held(attempt) };
        self.live.hold(agent, attempt, held);
    }
}

fn invalid(what: &'static str, found: impl std::fmt::Display, expected: &'static str) -> Rejected {
    Rejected::Invalid { what, found: cut(&found.to_string()).to_owned(), expected }
}

fn read_profile(message: &fb::Register<'_>, from: &str) -> Result<AgentProfile, Rejected> {
    let mut labels = BTreeMap::new();
    for (key, value) in pairs(message.labels()) {
        if Name::new(&key).is_err() {
            return Err(invalid("label", key, "a name of 1 to 64 letters, digits, `.`, `_` and `-`"));
        }
        if value.len() > VALUE_BYTES_MAX || labels.len() >= LABELS_MAX {
            return Err(invalid("label", key, "at most 64 labels, with values of at most 32 KiB"));
        }
        labels.insert(key, value);
    }
    let mut agent_types: Vec<_> = message.agent_types().into_iter().flatten().collect();
    let mut executors: Vec<_> = message.executors().into_iter().flatten().collect();
    if let Some(unknown) = agent_types.iter().find(|kind| kind.variant_name().is_none()) {
        return Err(invalid("agent_types", unknown.0, "agent types that this version knows"));
    }
    // A newer agent's executors are nothing that this scheduler would ask for.
    executors.retain(|executor| executor.variant_name().is_some());
    agent_types.sort();
    agent_types.dedup();
    executors.sort();
    executors.dedup();
    if executors.is_empty() {
        executors.push(fb::Executor::Process);
    }
    let text = |value: Option<&str>| {
        let value = value.unwrap_or_default();
        value.get(..value.floor_char_boundary(4 * NAME_BYTES_MAX)).unwrap_or_default().to_owned()
    };
    let address = message.address().filter(|address| !address.is_empty());
    if let Some(found) = address.filter(|address| !is_address(address)) {
        return Err(invalid(
            "address",
            found,
            "a name or an IP address of at most 127 letters, digits, `.`, `:`, `-`, `_`, `[`, `]` and `%`",
        ));
    }
    let custom = Custom::from_wire(message.capacity())
        .map_err(|error| invalid("capacity", error, "custom resources with valid names, each once"))?;
    Ok(AgentProfile {
        capacity: Resources::from_wire(message.capacity()),
        custom,
        labels,
        agent_types,
        executors,
        data_id: array(message.data_id()).ok_or_else(|| invalid("data_id", "of another size", "16 bytes"))?,
        software: text(message.software()),
        host: text(message.host()),
        address: address.unwrap_or(from).to_owned(),
    })
}

fn read_attempts(message: &fb::Register<'_>) -> Result<BTreeMap<AttemptId, Reported>, Rejected> {
    let reports = message.attempts();
    let count = reports.map_or(0, |reports| reports.len());
    if count > AGENT_ATTEMPTS_MAX {
        return Err(invalid("attempts", count, "at most 16,384"));
    }
    let read = |report: fb::AttemptReport<'_>| {
        let status = if is_final(report.status()) { fb::TaskStatus::Completed } else { report.status() };
        let resources = Resources::from_wire(report.resources());
        // What this version cannot count was not placed by it.
        let custom = Custom::from_wire(report.resources()).unwrap_or_default();
        let progress_ppm = ppm(report.progress());
        let (waits, job_key) = (report.waits(), JobKey(report.job_key()));
        let reported = Reported { status, resources, custom, progress_ppm, waits, job_key };
        Ok((read_attempt(report.task_id(), report.attempt())?, reported))
    };
    reports.into_iter().flatten().map(read).collect()
}
