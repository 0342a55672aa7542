//! The scheduler's process at work: what arrives is opened and handed to the core; what the core decided
//! goes to the record, the shadow, the journal and the outbox; what is durable leaves.

use super::{Arrived, COMPARE_EVERY, Link, Running};
use crate::{
    agent::AgentNode,
    coverage::Stage,
    depending::{
        invariant_inputs_are_what_was_left, invariant_what_comes_after_waits, invariant_what_waits_in_vain_is_skipped,
    },
    ganging::invariant_gangs_start_together,
    history::{Consequence, History},
    invariants::{
        invariant_p1_scheduler_says_only_what_is_durable, invariant_p2_commits_are_what_happened,
        invariant_p3_what_is_placed_fits, invariant_p5_only_honest_frames_are_opened,
        invariant_p7_state_is_what_facts_say, invariant_p7_touched_is_what_facts_say,
    },
    network::{ConnectionId, End},
    preempting::invariant_way_is_made_for_someone,
    reserving::{Promise, invariant_the_reserved_start_is_not_delayed, promises, still_stands},
    shadow::apply,
    sharing::invariant_quotas_are_kept,
    stopping::{invariant_caps_are_kept, invariant_jobs_run_in_their_time, invariant_what_is_stopped_does_not_wait},
    suiting::invariant_nothing_is_beside,
    trace::{Violation, broken},
    wire::{send, words},
    world::{Happening, Node, World},
};
use fleetwire_common::{
    envelope::{
        Features,
        handshake::{Greeted, WelcomeInfo},
    },
    fb,
    ids::{AgentId, AttemptId, JobKey, Principal, SessionId, TaskId},
    job::JobSpec,
    message::{Message, MessageRef},
    resources::Resources,
    time::Time,
};
use fleetwire_scheduler_core::{
    Effect, Event, Origin,
    bodies::complete,
    live::{AgentLive, Phase},
};
use std::{collections::BTreeMap, time::Duration};

impl Running {
    /// Whether nothing waits inside the process.
    pub fn is_idle(&self) -> bool {
        self.inbox.is_empty()
            && self.prompt.is_empty()
            && self.writer.is_idle()
            && self.outbox.is_empty()
            && self.ledger().next().is_none()
    }

    /// What the scheduler still counts as in use: empty once everything has ended, or resources leak.
    pub fn ledger(&self) -> impl Iterator<Item = String> + '_ {
        let held = |(agent, live): (AgentId, &AgentLive)| {
            let attempts: Vec<String> = live.held.keys().map(AttemptId::to_string).collect();
            let nothing = attempts.is_empty() && live.in_use() == Resources::ZERO && !live.holds_custom();
            (!nothing).then(|| format!("agent {}: {attempts:?}, {:?}", agent.0, live.in_use()))
        };
        self.core.live().agents().filter_map(held)
    }

    pub(super) fn wake_soon(&mut self, world: &mut World) {
        let after = world.between(Duration::from_micros(5), Duration::from_micros(200));
        self.wake_by(world, world.now + after);
    }

    pub(super) fn wake_by(&mut self, world: &mut World, at: Time) {
        if at < self.wake_at {
            self.wake_at = at;
            world.queue.plan(at, Happening::Wake(Node::Scheduler, self.life));
        }
    }

    /// The handshake, which the link does before the core hears of a session.
    pub(super) fn greet(&mut self, world: &mut World, connection: ConnectionId, frame: &[u8], peer: &Principal) {
        let enrolment = world.keys.enrolment_key(peer);
        let Ok(greeted) = Greeted::on_hello(&enrolment, frame) else {
            return world.close(connection, End::Scheduler);
        };
        let info = WelcomeInfo {
            features: Features::ALL,
            cluster_time: world.now,
            incarnation: self.incarnation,
            receipt: Some(self.core.proof(self.writer.durable())),
            cluster: "sim".to_owned(),
            software: "sim".to_owned(),
        };
        let hello = greeted.hello.clone();
        let mut frame = Vec::new();
        let session = greeted.welcome(peer, &world.epoch, world.random.bytes(), &info, &mut frame);
        world.send_frames(connection, End::Peer, 0, &frame);
        let id = SessionId(connection.0);
        let link = Link { connection, sealer: session.sealer, opener: session.opener, bulk_streams: 0, closed: false };
        self.links.insert(id, link);
        self.inbox.push_back(Arrived::Connected(id, peer.clone(), hello));
        self.wake_soon(world);
    }

    /// Tells the core what room the disk has.
    pub(super) fn look_at_disk(
        &mut self,
        world: &mut World,
        history: &mut History,
        agents: &[AgentNode],
    ) -> Result<(), Violation> {
        let (low, blob_segments_max) = self.writer.prepare()?;
        let known = self.core.live().disk;
        if low != known.low {
            world.trace.say(world.now, || format!("scheduler: the disk is {}", if low { "low" } else { "roomy" }));
        }
        if (low, blob_segments_max) != (known.low, known.blob_segments_max) {
            self.core.handle(world.now, Event::Disk { low, blob_segments_max }, &mut self.effects);
            self.settle(world, history, agents)?;
        }
        if low {
            // Looked at again, as an idle writer does.
            self.wake_by(world, world.now + Duration::from_secs(1));
        }
        Ok(())
    }

    /// Returns how many forged frames were refused.
    pub(super) fn on_arrived(
        &mut self,
        world: &mut World,
        arrived: Arrived,
        tolerance_ms: u64,
    ) -> Result<u64, Violation> {
        match arrived {
            Arrived::Connected(session, principal, hello) => {
                world.trace.say(world.now, || format!("scheduler: {principal} connects as session {}", session.0));
                let address = principal.name.to_string();
                let event = Event::Connected { session, principal, hello, address: &address };
                self.core.handle(world.now, event, &mut self.effects);
            }
            Arrived::Gone(session) => {
                if self.links.remove(&session).is_some() {
                    world.trace.say(world.now, || format!("scheduler: session {} is gone", session.0));
                    self.core.handle(world.now, Event::Disconnected { session }, &mut self.effects);
                }
            }
            Arrived::Frame { session, stream, bytes, arrived, forged } => {
                return self.on_frame(world, session, stream, (&bytes, arrived, forged), tolerance_ms);
            }
        }
        Ok(0)
    }

    pub(super) fn on_frame(
        &mut self,
        world: &mut World,
        session: SessionId,
        stream: u32,
        (bytes, arrived, forged): (&[u8], Time, bool),
        tolerance_ms: u64,
    ) -> Result<u64, Violation> {
        let Some(link) = self.links.get_mut(&session).filter(|link| !link.closed) else { return Ok(0) };
        let opened = link.opener.open(bytes, stream, arrived.as_ms(), tolerance_ms);
        invariant_p5_only_honest_frames_are_opened(forged, opened.as_ref().map(|_| ()))?;
        let opened = match opened {
            Ok(opened) => opened,
            Err(_) if forged => return Ok(1),
            Err(error) => {
                world.trace.say(world.now, || format!("scheduler: session {} refused: {error}", session.0));
                let (code, fatal) = (error.code(), error.is_fatal());
                let nack = fb::NackT { code, message: Some(error.to_string()), ..fb::NackT::default() };
                self.send(world, session, &[Message::Rare(fb::SchedulerMessageT::Nack(Box::new(nack)))]);
                if fatal {
                    self.end(world, session);
                }
                return Ok(0);
            }
        };
        if let Some((_, error)) = opened.refused().first() {
            return broken("P5", format!("an honest peer's message was refused: {error}"));
        }
        let (timestamp_ms, sequence) = (opened.timestamp_ms, opened.sequence);
        for (item, message) in opened.messages() {
            self.spoken_of.extend(speaks_of(&message));
            world.trace.say(world.now, || format!("scheduler ← {} {:?}", session.0, message.kind()));
            let from = Origin { stream, sequence, item, timestamp_ms };
            self.core.handle(world.now, Event::Received { session, from, message }, &mut self.effects);
        }
        Ok(0)
    }

    /// Facts that were decided go to the record, the shadow and the journal; effects to the outbox.
    pub(super) fn settle(
        &mut self,
        world: &mut World,
        history: &mut History,
        agents: &[AgentNode],
    ) -> Result<(), Violation> {
        self.seen += 1;
        let before = std::mem::replace(&mut self.promises, promises(self.core.live(), self.core.state()));
        let new = self.promises.keys().filter(|agent| !before.contains_key(agent));
        new.for_each(|_| world.trace.coverage.reserved(None));
        let mut touched = std::mem::take(&mut self.touched);
        history.bodies.extend(self.effects.facts.blobs().map(|(blob, bytes)| (blob, bytes.to_vec())));
        for fact in self.effects.facts.iter() {
            world.trace.coverage.fact(fact);
            let mut consequence = history.apply(fact)?;
            if let Consequence::Ended { end, blob: Some(blob), .. } = &mut consequence {
                end.result = history.bodies.get(blob).cloned();
            }
            apply(&mut self.shadow, fact)?;
            if let Consequence::Ended { attempt, agent, status, end, made_way, blob: _ } = &consequence {
                let spec = history.job(attempt.task.job).map(|job| &job.spec);
                let ended = history.task(attempt.task).and_then(|task| task.ended).map(|(_, status)| status);
                if let Some(terms) = spec.map(|spec| &spec.terms) {
                    world.trace.coverage.terms(terms, *made_way, ended);
                }
                let processes = spec.is_some_and(|spec| runs_processes(spec, attempt.task.entry));
                // A device and its copy have one name: one of them ran what was committed, and one of their
                // journals has it, maybe copied before it was durable in the first.
                let nodes = || agents.iter().filter(|node| node.name.as_str() == agent);
                let key = history.job(attempt.task.job).map_or(JobKey(0), |job| job.key);
                let commit = (*attempt, key, *status, end);
                let checked = nodes().flat_map(|ran| nodes().map(move |kept| (ran, kept))).map(|(ran, kept)| {
                    invariant_p2_commits_are_what_happened(&ran.device, &kept.history, processes, commit)
                });
                checked.reduce(Result::or).unwrap_or(Ok(()))?;
            }
            match &consequence {
                Consequence::Task(task) => {
                    invariant_what_comes_after_waits(history, *task)?;
                    invariant_jobs_run_in_their_time(history, *task, history.latest_at())?;
                    invariant_caps_are_kept(history, *task)?;
                    invariant_quotas_are_kept(&self.shadow, history, agents, *task)?;
                    let spec = history.job(task.job).and_then(|job| job.spec.tasks.get(usize::from(task.entry)));
                    spec.into_iter().for_each(|spec| world.trace.coverage.holds(&spec.semaphores));
                    spec.into_iter().for_each(|spec| world.trace.coverage.is_of_gang(spec));
                    spec.into_iter().flat_map(|spec| &spec.after).for_each(|on| world.trace.coverage.after(on));
                    self.check_room(history, agents, *task)?;
                    self.spoken_of.push(*task);
                }
                Consequence::Ended { attempt, .. } => self.spoken_of.push(attempt.task),
                Consequence::Job(_) | Consequence::None => {}
            }
            touched.push(consequence);
        }
        let given = |consequence: &Consequence| match consequence {
            Consequence::Task(task) => Some(*task),
            Consequence::Ended { .. } | Consequence::Job(_) | Consequence::None => None,
        };
        invariant_gangs_start_together(history, &touched.iter().filter_map(given).collect::<Vec<_>>())?;
        for consequence in &touched {
            invariant_p7_touched_is_what_facts_say(self.core.state(), &self.shadow, consequence)?;
            let job = match consequence {
                Consequence::Ended { attempt, .. } => attempt.task.job,
                Consequence::Job(job) => *job,
                Consequence::Task(_) | Consequence::None => continue,
            };
            invariant_what_waits_in_vain_is_skipped(history, job)?;
            invariant_what_is_stopped_does_not_wait(history, job)?;
        }
        for task in std::mem::take(&mut self.spoken_of) {
            self.look_at(world, history, task);
        }
        if self.seen.is_multiple_of(COMPARE_EVERY) {
            invariant_p7_state_is_what_facts_say("the scheduler", self.core.state(), &self.shadow)?;
        }
        self.writer.take(&mut self.effects.facts);
        self.prompt.extend(self.effects.drain_prompt());
        for (position, effect) in self.effects.drain() {
            if let Effect::Send { message: Message::Cancellation(attempt, reason), .. } = &effect {
                if *reason == fb::EndReason::Preempted {
                    invariant_way_is_made_for_someone(history, &self.shadow, self.core.live(), *attempt)?;
                }
                // Whoever was asked to go for one of these is soon gone, and reservations count on that.
                if matches!(*reason, fb::EndReason::Preempted | fb::EndReason::GangLost) {
                    self.making_way.insert(*attempt);
                }
            }
            if let Effect::Send { message: Message::Recall(attempt), .. } = &effect {
                self.making_way.insert(*attempt);
            }
            self.outbox.push(position, effect);
        }
        self.check_reserved(world, history, &before, &touched)?;
        touched.clear();
        self.touched = touched;
        if self.core.position() != history.position() {
            return broken(
                "P7",
                format!("the core counts {:?}, the record {:?}", self.core.position(), history.position()),
            );
        }
        Ok(())
    }

    /// Tasks were given to agents: where an agent is reserved for another, before and after, they take nothing from that.
    /// Of several on one agent, one may come before the others, and change what is left to them.
    fn check_reserved(
        &self,
        world: &mut World,
        history: &History,
        before: &BTreeMap<AgentId, Promise>,
        touched: &[Consequence],
    ) -> Result<(), Violation> {
        if before.is_empty() {
            return Ok(());
        }
        let mut assigned: BTreeMap<AgentId, Vec<AttemptId>> = BTreeMap::new();
        for consequence in touched {
            let Consequence::Task(task) = *consequence else { continue };
            let latest = history.task(task).and_then(|task| task.attempts.last_key_value());
            if let Some((number, attempt)) = latest.filter(|(_, attempt)| attempt.ended.is_none()) {
                assigned.entry(AgentId(attempt.agent)).or_default().push(AttemptId { task, attempt: *number });
            }
        }
        for (agent, attempts) in assigned {
            let (Some(promise), Some(now)) = (before.get(&agent), self.promises.get(&agent)) else { continue };
            if let [only] = *attempts.as_slice()
                && still_stands(promise, now)
            {
                let assigned = (only, agent, Time(history.latest_at()));
                let coverage = &mut world.trace.coverage;
                let making_way = &self.making_way;
                let promises = (promise, now);
                invariant_the_reserved_start_is_not_delayed(&self.shadow, making_way, promises, assigned, coverage)?;
            }
        }
        Ok(())
    }

    /// A task was given to an agent: there must be room, unless it is to wait there, or what waits there may have
    /// started without our knowledge. Of two devices with one name nobody knows what they have.
    fn check_room(&self, history: &History, agents: &[AgentNode], task: TaskId) -> Result<(), Violation> {
        let latest = history.task(task).and_then(|task| task.attempts.last_key_value());
        let Some((number, attempt)) = latest.filter(|(_, attempt)| attempt.ended.is_none()) else { return Ok(()) };
        let (name, agent) = (history.agent_name(attempt.agent), AgentId(attempt.agent));
        let Some(node) = agents.iter().find(|node| node.name.as_str() == name && !node.was_copied) else {
            return Ok(());
        };
        if self.core.live().agent(agent).is_none_or(|live| !live.backlog.waiting.is_empty()) {
            return Ok(());
        }
        let assigned = self.shadow.agents.find(agent).into_iter().flat_map(|record| &record.assigned);
        let open = assigned.filter_map(|id| Some((*id, self.shadow.task_spec(id.task)?.resources)));
        let runs = node.device.slots().map(|(id, _)| id);
        let runs = runs.filter(|id| node.device.runs(*id) && !node.history.has_outlived(*id));
        invariant_nothing_is_beside(&self.shadow, AttemptId { task, attempt: *number }, runs)?;
        invariant_p3_what_is_placed_fits(&node.device, &node.history, open)
    }

    /// Counts how far the attempts of a task have come since they were looked at last.
    fn look_at(&mut self, world: &mut World, history: &History, task: TaskId) {
        for (number, attempt) in history.task(task).iter().flat_map(|task| &task.attempts) {
            let id = AttemptId { task, attempt: *number };
            let held = self.core.live().held(AgentId(attempt.agent), id);
            let stage = match (held, attempt.ended.is_some()) {
                (None, _) => Stage::Gone,
                (Some(_), true) => Stage::Ended,
                (Some(held), false) if held.suspect => Stage::Suspect,
                (Some(held), false) => match held.phase {
                    Phase::Assigned => Stage::Assigned,
                    Phase::Accepted => Stage::Accepted,
                    Phase::Running => Stage::Running,
                },
            };
            let before = self.stages.insert(id, stage);
            if before != Some(stage) {
                world.trace.coverage.stage(before, stage);
            }
        }
    }

    /// Sends what is durable, one write per peer.
    pub(super) fn release(&mut self, world: &mut World, history: &History) -> Result<(), Violation> {
        let effects: Vec<Effect> = self.prompt.drain(..).chain(self.outbox.release(self.writer.durable())).collect();
        let mut writes: Vec<(SessionId, Vec<Message>)> = Vec::new();
        for mut effect in effects {
            if self.fate.strikes() {
                break;
            }
            if let Effect::Complete { message, lacks, .. } = &mut effect {
                complete(message, lacks, |blob| self.writer.read(blob, history))?;
            }
            match effect {
                Effect::Send { session, message } | Effect::Complete { session, message, .. } => {
                    invariant_p1_scheduler_says_only_what_is_durable(history, &message)?;
                    if let Message::Assignment(assignment) = &message {
                        invariant_inputs_are_what_was_left(history, assignment)?;
                    }
                    world.trace.coverage.to_peer(&message);
                    world.trace.say(world.now, || format!("scheduler → {} {}", session.0, words(&message)));
                    match writes.iter_mut().find(|(to, _)| *to == session) {
                        Some((_, messages)) => messages.push(message),
                        None => writes.push((session, vec![message])),
                    }
                }
                Effect::Close { session, code, reason } => {
                    world.trace.coverage.closed(code);
                    world.trace.say(world.now, || format!("scheduler closes {}: {code:?} {reason}", session.0));
                    if let Some(place) = writes.iter().position(|(to, _)| *to == session) {
                        let (_, messages) = writes.remove(place);
                        self.send(world, session, &messages);
                    }
                    self.end(world, session);
                }
                Effect::Certify { .. } | Effect::RefuseEnrolment { .. } | Effect::Token { .. } => {}
            }
        }
        for (session, messages) in writes {
            if self.fate.strikes() {
                break;
            }
            self.send(world, session, &messages);
        }
        Ok(())
    }

    pub(super) fn send(&mut self, world: &mut World, session: SessionId, messages: &[Message]) {
        let Some(link) = self.links.get_mut(&session).filter(|link| !link.closed) else { return };
        send(world, link.connection, End::Peer, &mut link.sealer, &mut link.bulk_streams, world.now, messages);
    }

    /// The shell ends a session: the core hears of it as of any other end.
    pub(super) fn end(&mut self, world: &mut World, session: SessionId) {
        if let Some(link) = self.links.get_mut(&session).filter(|link| !link.closed) {
            link.closed = true;
            world.close(link.connection, End::Scheduler);
            self.inbox.push_back(Arrived::Gone(session));
            self.wake_soon(world);
        }
    }
}

/// The task that a message of an agent speaks of.
fn speaks_of(message: &MessageRef<'_>) -> Option<TaskId> {
    let task_id = match message {
        MessageRef::StatusUpdate(status) => status.update.task_id(),
        MessageRef::TaskAcceptance(acceptance) => acceptance.task_id(),
        MessageRef::TaskRejection(rejection) => rejection.task_id(),
        _ => None,
    };
    task_id?.parse().ok()
}

fn runs_processes(spec: &JobSpec, entry: u16) -> bool {
    spec.tasks.get(usize::from(entry)).is_some_and(|task| task.executor == fb::Executor::Process)
}
