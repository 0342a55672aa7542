//! The scheduler of a simulated cluster: the real core, journal and envelope, driven as its shell drives
//! them. It drains what has arrived, handles each, writes the facts with one sync at a time, and releases
//! what became durable, coalesced per peer.
//!
//! Invariants: arrived events come before deadlines; an effect leaves through the outbox only; what a
//! crash takes is everything but the disk.

use crate::{
    agent::AgentNode,
    history::{Consequence, History},
    invariants::{invariant_p1_scheduler_says_only_what_is_durable, invariant_p2_commits_are_what_happened},
    network::{ConnectionId, End},
    trace::{Violation, broken},
    world::{Happening, Node, World},
    writer::Writer,
};
use fleetwire_common::{
    envelope::{
        Features, Opener, Sealer,
        handshake::{Greeted, HelloInfo, WelcomeInfo},
    },
    fb,
    ids::{Principal, SessionId},
    job::JobSpec,
    limits::STALE_AFTER_MS,
    message::Message,
    time::Time,
};
use fleetwire_journal::{Identity, JournalConfig, Outbox, sim_disk::SimDisk};
use fleetwire_scheduler_core::{Config, Effect, Effects, Event, Origin, Policy, Scheduler, State, fact::Fact};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// The scheduler's machine: what survives its process.
#[derive(Debug)]
pub struct SchedulerNode {
    /// Its disk.
    pub disk: SimDisk,
    /// Which life of its process this is.
    pub life: u64,
    /// Its process, while it runs.
    pub up: Option<Box<Running>>,
    /// Until when it stands still.
    pub paused_until: Option<Time>,
    /// How many frames were refused as they should be.
    pub refused: u64,
}

/// The scheduler's process.
pub struct Running {
    /// The core.
    pub core: Scheduler,
    /// What the journal's bytes say, applied from the bytes: must always equal the live core's state.
    pub shadow: State,
    writer: Writer,
    outbox: Outbox<Effect>,
    effects: Effects,
    links: BTreeMap<SessionId, Link>,
    inbox: VecDeque<Arrived>,
    life: u64,
    paused_at: Time,
    wake_at: Time,
    incarnation: u64,
    seen: u64,
    touched: Vec<Consequence>,
}

/// A session.
struct Link {
    connection: ConnectionId,
    sealer: Sealer,
    opener: Opener,
    bulk_streams: u32,
    /// We have closed it: nothing more of it counts.
    closed: bool,
}

/// What has arrived and was not yet handled.
enum Arrived {
    Connected(SessionId, Principal, HelloInfo),
    Frame { session: SessionId, stream: u32, bytes: Vec<u8>, arrived: Time, forged: bool },
    Gone(SessionId),
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

const SEGMENT_BYTES: u64 = 32 << 10;
/// Deadlines handled at one moment before we say that the core goes round in circles.
const DEADLINES_MAX: u32 = 10_000;
/// After so many events everything is compared with the shadow, not only what was touched.
const COMPARE_EVERY: u64 = 1_000;

impl SchedulerNode {
    /// A machine on which nothing ran yet.
    pub fn new(disk: SimDisk) -> SchedulerNode {
        SchedulerNode { disk, life: 0, up: None, paused_until: None, refused: 0 }
    }

    /// Starts the process: replays the journal, enrols whoever is given, and makes that durable before
    /// anybody can connect.
    pub fn start(&mut self, world: &mut World, history: &mut History, enrol: &[Principal]) -> Result<(), Violation> {
        self.life += 1;
        self.paused_until = None;
        let mut core = Scheduler::new(config(world));
        let mut shadow = State::default();
        let mut facts = Vec::new();
        let journal = JournalConfig { segment_bytes: SEGMENT_BYTES, ..JournalConfig::new(Identity::IfNew([1; 16])) };
        let writer = Writer::open(self.disk.clone(), &journal, |bytes| {
            facts.push(bytes.to_vec());
            apply(&mut shadow, bytes)?;
            core.replay(bytes).or_else(|error| broken("P7", format!("the scheduler cannot replay: {error}")))
        })?;
        history.recover(facts)?;
        compare_all(core.state(), &shadow)?;

        let mut effects = Effects::new();
        core.start(world.now, &mut effects);
        let incarnation = core.incarnation();
        let mut up = Running {
            core,
            shadow,
            writer,
            outbox: Outbox::default(),
            effects,
            links: BTreeMap::new(),
            inbox: VecDeque::new(),
            life: self.life,
            paused_at: Time::ZERO,
            wake_at: Time::NEVER,
            incarnation,
            seen: 0,
            touched: Vec::new(),
        };
        for principal in enrol {
            let key_sha256 =
                std::array::from_fn(|place| principal.name.as_str().as_bytes().get(place).copied().unwrap_or(1));
            let event = Event::EnrolLocally { name: principal.name.clone(), role: principal.role, key_sha256 };
            up.core.handle(world.now, event, &mut up.effects);
        }
        up.settle(world, history, &[])?;
        up.writer.begin()?;
        history.durable = up.writer.end()?;
        world.trace.say(world.now, || format!("scheduler starts, incarnation {incarnation}"));
        up.wake_by(world, world.now);
        self.up = Some(Box::new(up));
        Ok(())
    }

    /// The process is killed, now. What the disk had not synced is gone, or some of it.
    pub fn crash(&mut self, world: &mut World, history: &History) -> Result<(), Violation> {
        let Some(up) = self.up.take() else { return Ok(()) };
        compare_all(up.core.state(), &up.shadow)?;
        world.trace.say(world.now, || {
            format!("scheduler crashes: {} facts decided, {} durable", history.position().0, history.durable.0)
        });
        self.life += 1;
        self.paused_until = None;
        for link in up.links.into_values() {
            world.vanish(link.connection, End::Scheduler);
        }
        // Killed, or without power: after a mere kill the page cache still has what was written.
        if world.random.chance(world.setting.power_permille) {
            crate::misfortune::lose_unsynced(&self.disk, world);
        }
        Ok(())
    }

    /// It stands still until then: what arrives waits.
    pub fn pause(&mut self, world: &mut World, until: Time) {
        world.trace.say(world.now, || "scheduler stands still".to_owned());
        if let Some(up) = &mut self.up {
            self.paused_until = Some(until);
            up.paused_at = world.now;
            up.wake_by(world, until);
        }
    }

    /// A frame has arrived.
    pub fn on_frame(
        &mut self,
        world: &mut World,
        connection: ConnectionId,
        stream: u32,
        bytes: Vec<u8>,
        peer: &Principal,
    ) {
        let Some(up) = &mut self.up else { return };
        let session = SessionId(connection.0);
        if !up.links.contains_key(&session) {
            return up.greet(world, connection, &bytes, peer);
        }
        up.inbox.push_back(Arrived::Frame { session, stream, bytes, arrived: world.now, forged: false });
        up.wake_soon(world);
    }

    /// A frame that must be refused: a copy, or one that was sealed by the scheduler itself.
    pub fn on_forged_frame(&mut self, world: &mut World, connection: ConnectionId, bytes: Vec<u8>) {
        let Some(up) = &mut self.up else { return };
        let session = SessionId(connection.0);
        if up.links.contains_key(&session) {
            let arrived = world.now;
            up.inbox.push_back(Arrived::Frame { session, stream: 0, bytes, arrived, forged: true });
            up.wake_soon(world);
        }
    }

    /// A connection is gone.
    pub fn on_gone(&mut self, world: &mut World, connection: ConnectionId) {
        world.network.close(connection, End::Scheduler);
        if let Some(up) = &mut self.up {
            up.inbox.push_back(Arrived::Gone(SessionId(connection.0)));
            up.wake_soon(world);
        }
    }

    /// The driver's turn: everything that has arrived, then what is due, then facts and effects.
    pub fn on_wake(&mut self, world: &mut World, history: &mut History, agents: &[AgentNode]) -> Result<(), Violation> {
        let life = self.life;
        let Some(up) = &mut self.up else { return Ok(()) };
        if let Some(until) = self.paused_until.filter(|until| *until > world.now) {
            world.queue.plan(until, Happening::Wake(Node::Scheduler, life));
            return Ok(());
        }
        let gap = self.paused_until.take().map(|_| world.now.since(up.paused_at));
        if let Some(gap) = gap {
            up.core.handle(world.now, Event::Stalled { gap }, &mut up.effects);
        }
        if up.wake_at <= world.now {
            up.wake_at = Time::NEVER;
        }
        let tolerance_ms = STALE_AFTER_MS + gap.unwrap_or_default().as_millis() as u64;
        while let Some(arrived) = up.inbox.pop_front() {
            self.refused += up.on_arrived(world, arrived, tolerance_ms)?;
            up.settle(world, history, agents)?;
        }
        let mut deadlines = 0;
        while up.core.next_deadline().is_some_and(|at| at <= world.now) {
            up.core.handle(world.now, Event::Deadline, &mut up.effects);
            up.settle(world, history, agents)?;
            deadlines += 1;
            if deadlines > DEADLINES_MAX {
                return broken("P4", "the scheduler's deadlines are never done");
            }
        }
        if up.writer.begin()? {
            let sync = world.between(Duration::from_micros(30), world.setting.sync_max);
            world.plan(sync, Happening::Synced(Node::Scheduler, life));
        }
        up.release(world, history)?;
        if let Some(at) = up.core.next_deadline() {
            up.wake_by(world, at.max(world.now));
        }
        Ok(())
    }

    /// A sync has ended: what it made durable may leave, at once or a moment later.
    pub fn on_synced(&mut self, world: &mut World, history: &mut History) -> Result<(), Violation> {
        let life = self.life;
        let Some(up) = &mut self.up else { return Ok(()) };
        history.durable = up.writer.end()?;
        if world.random.chance(world.setting.lag_permille) {
            let lag = world.between(Duration::from_micros(1), Duration::from_millis(5));
            world.plan(lag, Happening::Release(Node::Scheduler, life));
        } else {
            up.release(world, history)?;
        }
        if up.writer.begin()? {
            let sync = world.between(Duration::from_micros(30), world.setting.sync_max);
            world.plan(sync, Happening::Synced(Node::Scheduler, life));
        } else if world.random.chance(100) {
            up.writer.mark();
        }
        Ok(())
    }

    /// What is durable leaves.
    pub fn on_release(&mut self, world: &mut World, history: &History) -> Result<(), Violation> {
        match &mut self.up {
            Some(up) => up.release(world, history),
            None => Ok(()),
        }
    }

    /// Everything that a live core believes must be what its journal says.
    pub fn compare_all(&self) -> Result<(), Violation> {
        self.up.as_ref().map_or(Ok(()), |up| compare_all(up.core.state(), &up.shadow))
    }
}

impl Running {
    /// Whether nothing waits inside the process.
    pub fn is_idle(&self) -> bool {
        self.inbox.is_empty() && self.writer.is_idle() && self.outbox.is_empty()
    }

    fn wake_soon(&mut self, world: &mut World) {
        let after = world.between(Duration::from_micros(5), Duration::from_micros(200));
        self.wake_by(world, world.now + after);
    }

    fn wake_by(&mut self, world: &mut World, at: Time) {
        if at < self.wake_at {
            self.wake_at = at;
            world.queue.plan(at, Happening::Wake(Node::Scheduler, self.life));
        }
    }

    /// The handshake, which the link does before the core hears of a session.
    fn greet(&mut self, world: &mut World, connection: ConnectionId, frame: &[u8], peer: &Principal) {
        let enrolment = world.keys.enrolment_key(peer);
        let Ok(greeted) = Greeted::on_hello(&enrolment, frame) else {
            return world.close(connection, End::Scheduler);
        };
        let info = WelcomeInfo {
            features: Features::ALL,
            cluster_time: world.now,
            incarnation: self.incarnation,
            receipt: Some(self.core.receipt(self.writer.durable())),
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

    /// Returns how many forged frames were refused.
    fn on_arrived(&mut self, world: &mut World, arrived: Arrived, tolerance_ms: u64) -> Result<u64, Violation> {
        match arrived {
            Arrived::Connected(session, principal, hello) => {
                world.trace.say(world.now, || format!("scheduler: {principal} connects as session {}", session.0));
                let event = Event::Connected { session, principal, hello };
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

    fn on_frame(
        &mut self,
        world: &mut World,
        session: SessionId,
        stream: u32,
        (bytes, arrived, forged): (&[u8], Time, bool),
        tolerance_ms: u64,
    ) -> Result<u64, Violation> {
        let Some(link) = self.links.get_mut(&session).filter(|link| !link.closed) else { return Ok(0) };
        let opened = match link.opener.open(bytes, stream, arrived.as_ms(), tolerance_ms) {
            Ok(_) if forged => return broken("P5", "a frame that was replayed or reflected was opened"),
            Ok(opened) => opened,
            Err(_) if forged => return Ok(1),
            Err(error) => {
                world.trace.say(world.now, || format!("scheduler: session {} refused: {error}", session.0));
                let (code, fatal) = (error.code(), error.is_fatal());
                if code != fb::ErrorCode::Stale {
                    return broken("P5", format!("an honest peer's frame was refused: {error}"));
                }
                let nack = fb::NackT { code, message: Some(error.to_string()), ..fb::NackT::default() };
                self.send(world, session, &[Message::Rare(fb::SchedulerMessageT::Nack(Box::new(nack)))]);
                if fatal {
                    self.end(world, session);
                }
                return Ok(0);
            }
        };
        let (timestamp_ms, sequence) = (opened.timestamp_ms, opened.sequence);
        for (item, message) in opened.messages() {
            world.trace.say(world.now, || format!("scheduler ← {} {:?}", session.0, message.kind()));
            let from = Origin { stream, sequence, item, timestamp_ms };
            self.core.handle(world.now, Event::Received { session, from, message }, &mut self.effects);
        }
        Ok(0)
    }

    /// Facts that were decided go to the record, the shadow and the journal; effects to the outbox.
    fn settle(&mut self, world: &mut World, history: &mut History, agents: &[AgentNode]) -> Result<(), Violation> {
        self.seen += 1;
        let mut touched = std::mem::take(&mut self.touched);
        for fact in self.effects.facts.iter() {
            world.trace.coverage.fact(fact);
            let consequence = history.apply(fact)?;
            apply(&mut self.shadow, fact)?;
            if let Consequence::Ended { attempt, agent, status, end } = &consequence {
                let spec = history.job(attempt.task.job).map(|job| &job.spec);
                let processes = spec.is_some_and(|spec| runs_processes(spec, attempt.task.entry));
                if let Some(node) = agents.iter().find(|node| node.name.as_str() == agent) {
                    let commit = (*attempt, *status, end);
                    invariant_p2_commits_are_what_happened(&node.device, &node.history, processes, commit)?;
                }
            }
            touched.push(consequence);
        }
        for consequence in touched.drain(..) {
            compare_touched(self.core.state(), &self.shadow, &consequence)?;
        }
        self.touched = touched;
        if self.seen.is_multiple_of(COMPARE_EVERY) {
            compare_all(self.core.state(), &self.shadow)?;
        }
        self.writer.take(&mut self.effects.facts);
        for (position, effect) in self.effects.drain() {
            self.outbox.push(position, effect);
        }
        if self.core.position() != history.position() {
            return broken(
                "P7",
                format!("the core counts {:?}, the record {:?}", self.core.position(), history.position()),
            );
        }
        Ok(())
    }

    /// Sends what is durable, one write per peer.
    fn release(&mut self, world: &mut World, history: &History) -> Result<(), Violation> {
        let effects: Vec<Effect> = self.outbox.release(self.writer.durable()).collect();
        let mut writes: Vec<(SessionId, Vec<Message>)> = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send { session, message } => {
                    invariant_p1_scheduler_says_only_what_is_durable(history, &message)?;
                    world.trace.coverage.to_peer(&message);
                    world.trace.say(world.now, || format!("scheduler → {} {}", session.0, words(&message)));
                    match writes.iter_mut().find(|(to, _)| *to == session) {
                        Some((_, messages)) => messages.push(message),
                        None => writes.push((session, vec![message])),
                    }
                }
                Effect::Close { session, code, reason } => {
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
            self.send(world, session, &messages);
        }
        Ok(())
    }

    fn send(&mut self, world: &mut World, session: SessionId, messages: &[Message]) {
        let Some(link) = self.links.get_mut(&session).filter(|link| !link.closed) else { return };
        send(world, link.connection, End::Peer, &mut link.sealer, &mut link.bulk_streams, world.now, messages);
    }

    /// The shell ends a session: the core hears of it as of any other end.
    fn end(&mut self, world: &mut World, session: SessionId) {
        if let Some(link) = self.links.get_mut(&session).filter(|link| !link.closed) {
            link.closed = true;
            world.close(link.connection, End::Scheduler);
            self.inbox.push_back(Arrived::Gone(session));
            self.wake_soon(world);
        }
    }
}

/// Seals messages and sends them: many as one batch, what is too large for a frame on a bulk stream.
pub fn send(
    world: &mut World,
    connection: ConnectionId,
    to: End,
    sealer: &mut Sealer,
    bulk_streams: &mut u32,
    now: Time,
    messages: &[Message],
) {
    let mut rest = messages;
    while let Some(first) = rest.first() {
        let mut out = Vec::new();
        let taken = sealer.seal(now.as_ms(), rest, &mut out);
        if taken > 0 {
            world.send_frames(connection, to, 0, &out);
            rest = rest.get(taken..).unwrap_or_default();
            continue;
        }
        *bulk_streams += 1;
        if sealer.seal_bulk(now.as_ms(), *bulk_streams, first, &mut out).is_ok() {
            world.send_frames(connection, to, *bulk_streams, &out);
        }
        rest = rest.get(1..).unwrap_or_default();
    }
}

/// A message in a few words.
pub fn words(message: &Message) -> String {
    match message {
        Message::Assignment(assignment) => format!("Assignment {}", assignment.attempt),
        Message::Status(status) => format!("Status {} {:?}", status.attempt, status.status),
        Message::Acceptance(id) => format!("Acceptance {id}"),
        Message::Cancellation(id, reason) => format!("Cancellation {id} {reason:?}"),
        Message::Ack(ack) => format!("{ack:?}"),
        Message::Rare(fb::SchedulerMessageT::Nack(nack)) => {
            let (code, text, task) = (nack.code, nack.message.as_deref(), nack.task_id.as_deref());
            format!("Nack {code:?} {} {}", task.unwrap_or_default(), text.unwrap_or_default())
        }
        other => format!("{:?}", other.kind()),
    }
}

fn config(world: &mut World) -> Config {
    Config {
        cluster: "sim".to_owned(),
        keys: world.keys.clone(),
        authority_sha256: [0; 32],
        addresses: Vec::new(),
        incarnation_id: world.random.bytes(),
        seed: world.random.next(),
        heartbeat_interval: Duration::from_secs(10),
        software: "sim".to_owned(),
        policy: Policy::default(),
    }
}

fn runs_processes(spec: &JobSpec, entry: u16) -> bool {
    spec.tasks.get(usize::from(entry)).is_some_and(|task| task.executor == fb::Executor::Process)
}

/// Applies a fact to the shadow, from its bytes.
fn apply(shadow: &mut State, bytes: &[u8]) -> Result<(), Violation> {
    match Fact::decode(bytes) {
        Ok((at, fact)) => {
            shadow.apply(at, &fact).or_else(|error| broken("P7", format!("a fact does not apply: {error}")))
        }
        Err(error) => broken("P7", format!("a fact cannot be read back: {error}")),
    }
}

/// Promise P7, cheaply: what a fact touched is the same in the live core and in the shadow.
fn compare_touched(live: &State, shadow: &State, consequence: &Consequence) -> Result<(), Violation> {
    let (what, agrees) = match consequence {
        Consequence::Task(task) => (task.to_string(), live.agrees_on_task(shadow, *task)),
        Consequence::Ended { attempt, .. } => (attempt.to_string(), live.agrees_on_task(shadow, attempt.task)),
        Consequence::Job(job) => (format!("job {job}"), live.agrees_on_job(shadow, *job)),
        Consequence::None => return Ok(()),
    };
    if agrees { Ok(()) } else { broken("P7", format!("the live state of {what} is not what its facts say")) }
}

/// Promise P7: the live state is what the journal's bytes say, in every part.
pub fn compare_all(live: &State, shadow: &State) -> Result<(), Violation> {
    if live == shadow {
        return Ok(());
    }
    broken("P7", "the live state is not what its facts say")
}
