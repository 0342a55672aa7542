//! An agent of a simulated cluster: the real core, journal and envelope, driven as its shell drives them,
//! on a device whose processes outlive it.
//!
//! Invariants: the core sees only the device's own clock, which starts anew at each boot; an effect leaves
//! through the outbox only; what a crash takes is everything but the disk and the device.

use crate::{
    clock::DeviceClock,
    device::{Device, News, Plans, Unheard},
    fate::Fate,
    history::AgentHistory,
    invariants::{
        invariant_p1_agent_says_only_what_is_durable, invariant_p1_spawns_are_durable,
        invariant_p3_ends_are_told_when_all_is_gone, invariant_p3_nothing_has_to_be_refused,
        invariant_p3_nothing_is_oversubscribed, invariant_p4_deadlines_are_done,
    },
    network::{ConnectionId, End, Peer},
    trace::{Violation, broken},
    wire::{Link, words},
    workload::Offer,
    world::{Happening, Node, World},
    writer::Writer,
};
use fleetwire_agent_core::{Agent, Effect, Effects, Event, State};
use fleetwire_common::{
    envelope::{
        Features,
        handshake::{Greeting, HelloInfo},
        keys::Secret,
    },
    fb,
    ids::{AttemptId, Name, Position, Principal},
    job::TaskSpec,
    message::Message,
    time::Time,
};
use fleetwire_journal::{Outbox, sim_disk::SimDisk};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

mod lives;
mod running;
mod staging;

/// A device with its agent: what survives the agent's process.
#[derive(Debug)]
pub struct AgentNode {
    /// Its number.
    pub number: usize,
    /// Its name.
    pub name: Name,
    /// Whom its certificate names.
    pub principal: Principal,
    /// What its `Hello` is sealed with.
    enrolment: Secret,
    /// What it offers.
    pub offer: Offer,
    /// The machine.
    pub device: Device,
    /// Attempts that supervisors start when another ends.
    staged: VecDeque<Staged>,
    /// The life of the agent whose supervisor each attempt has that runs.
    started_in: BTreeMap<AttemptId, u64>,
    /// Its disk.
    pub disk: SimDisk,
    /// What its journal says.
    pub history: AgentHistory,
    /// The power was lost since the agent's journal last said what is left of everything …
    rebooted: bool,
    /// … which it does from this position on.
    surveyed_at: Position,
    /// Which life of its process this is.
    pub life: u64,
    /// Its process, while it runs.
    pub up: Option<Box<Running>>,
    /// Two devices have this name: what the scheduler hears of one it believes of both, so that one must refuse
    /// now and then what would fit on the other.
    pub was_copied: bool,
    /// It was a copy, and is no more.
    pub is_retired: bool,
    /// Until then the device is suspended.
    pub suspended_until: Time,
    /// Until then its disk takes seconds to sync.
    pub slow_until: Time,
    boot_id: [u8; 16],
}

/// An attempt that is to start when another ends.
#[derive(Clone, Debug)]
struct Staged {
    attempt: AttemptId,
    spec: Arc<TaskSpec>,
    unheard: Option<Unheard>,
    /// The agent's life that staged it.
    life: u64,
}

/// The agent's process.
pub struct Running {
    /// The core.
    pub core: Agent,
    /// How long it has to live.
    pub fate: Fate,
    shadow: State,
    /// When the scheduler was heard, as supervisors were told.
    heard: Option<Time>,
    writer: Writer,
    /// Effects with the session in which the core decided them: messages die with it.
    outbox: Outbox<(u64, Effect)>,
    /// Counts sessions, and their ends.
    sessions: u64,
    effects: Effects,
    link: Link,
    inbox: VecDeque<Arrived>,
    life: u64,
    wake_at: Time,
    /// Cluster time less the own clock, µs, as the last `Welcome` gave it.
    offset_us: i64,
    process_start_id: [u8; 16],
    bulk_streams: u32,
    dials_failed: u32,
    /// The connection that we have closed: nothing more of it counts.
    closed: Option<ConnectionId>,
}

/// What has arrived and was not yet handled.
enum Arrived {
    Frame { connection: ConnectionId, stream: u32, bytes: Vec<u8>, arrived: Time, forged: bool },
    Gone(ConnectionId),
    News(News, Option<AttemptId>),
    StagedStarted(AttemptId),
    Stopping,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("link", &self.link).finish_non_exhaustive()
    }
}

impl AgentNode {
    /// A device on which nothing ran yet.
    pub fn new(number: usize, name: Name, offer: Offer, disk: SimDisk, world: &mut World) -> AgentNode {
        let principal = Principal { role: fb::Role::Agent, name: name.clone() };
        AgentNode {
            number,
            enrolment: world.keys.enrolment_key(&principal),
            principal,
            device: Device::new(
                name.as_str(),
                (offer.capacity, offer.custom.clone()),
                DeviceClock::set(world.now, Time(world.random.skewed(1_000_000, 10_000_000_000))),
            ),
            staged: VecDeque::new(),
            started_in: BTreeMap::new(),
            name,
            offer,
            disk,
            history: AgentHistory::default(),
            rebooted: false,
            surveyed_at: Position(0),
            life: 0,
            was_copied: false,
            is_retired: false,
            suspended_until: Time::ZERO,
            up: None,
            slow_until: Time::ZERO,
            boot_id: world.random.bytes(),
        }
    }

    /// The agent is asked to exit, and tells the scheduler. Returns the life that ends with it.
    pub fn say_goodbye(&mut self, world: &mut World) -> u64 {
        let number = self.number;
        if let Some(up) = &mut self.up {
            up.inbox.push_back(Arrived::Stopping);
            up.wake_soon(world, number);
        }
        self.life
    }

    /// The scheduler goes on with a backup.
    pub fn outlive(&mut self, now: Time) {
        self.history.outlive();
        if let Some(up) = &mut self.up {
            // What arrived before was the other's.
            up.inbox.retain(|arrived| !matches!(arrived, Arrived::Frame { .. }));
        }
        self.device.outlive(self.history.outlived(), now);
    }

    /// Tries to connect.
    pub fn on_dial(&mut self, world: &mut World, reachable: bool) {
        let (number, now) = (self.number, self.device.clock.at(world.now));
        let Some(up) = &mut self.up else { return };
        if up.link.connection().is_some() {
            return;
        }
        if !reachable {
            return up.dial_again(world, number);
        }
        let connection = world.connect(Peer::Agent(number));
        let info = HelloInfo {
            features: Features::ALL,
            boot_id: self.boot_id,
            process_start_id: up.process_start_id,
            receipt: up.core.receipt(),
            software: "sim".to_owned(),
        };
        let mut frame = Vec::new();
        let greeting = Greeting::hello(&self.enrolment, world.random.bytes(), &info, now.as_ms(), &mut frame);
        up.link = Link::Greeting(connection, greeting, now.0);
        up.bulk_streams = 0;
        world.send_frames(connection, End::Scheduler, 0, &frame);
        world.plan(Duration::from_secs(20), Happening::Idle(connection, End::Peer, u64::MAX));
    }

    /// A handshake that got no answer is given up.
    pub fn on_greeting_late(&mut self, world: &mut World, connection: ConnectionId) {
        let number = self.number;
        let Some(up) = &mut self.up else { return };
        if matches!(&up.link, Link::Greeting(greeting, ..) if *greeting == connection) {
            world.close(connection, End::Peer);
            up.link = Link::Down;
            up.dial_again(world, number);
        }
    }

    /// A frame has arrived.
    pub fn on_frame(&mut self, world: &mut World, connection: ConnectionId, stream: u32, bytes: Vec<u8>, forged: bool) {
        let (number, arrived) = (self.number, self.device.clock.at(world.now));
        if let Some(up) = &mut self.up {
            up.inbox.push_back(Arrived::Frame { connection, stream, bytes, arrived, forged });
            up.wake_soon(world, number);
        }
    }

    /// The connection is gone.
    pub fn on_gone(&mut self, world: &mut World, connection: ConnectionId) {
        let number = self.number;
        world.network.close(connection, End::Peer);
        if let Some(up) = &mut self.up {
            up.inbox.push_back(Arrived::Gone(connection));
            up.wake_soon(world, number);
        }
    }

    /// News of a process. Where one has ended, a staged one takes its room.
    pub fn on_news(&mut self, world: &mut World, news: News) -> Result<(), Violation> {
        let next = self.next_in_room(world, &news)?;
        self.hear(world, Arrived::News(news, next));
        Ok(())
    }

    fn hear(&mut self, world: &mut World, arrived: Arrived) {
        let number = self.number;
        if let Some(up) = &mut self.up {
            up.inbox.push_back(arrived);
            up.wake_soon(world, number);
        }
    }

    /// The driver's turn: everything that has arrived, then what is due, then facts and effects.
    pub fn on_wake(&mut self, world: &mut World) -> Result<(), Violation> {
        let number = self.number;
        let now = self.device.clock.at(world.now);
        let Some(up) = &mut self.up else { return Ok(()) };
        if up.wake_at <= world.now {
            up.wake_at = Time::NEVER;
        }
        up.settle(world, &mut self.history)?;
        while let Some(arrived) = up.inbox.pop_front() {
            if up.fate.strikes() {
                return Ok(());
            }
            up.on_arrived(world, (number, now), arrived)?;
            up.settle(world, &mut self.history)?;
        }
        if up.core.next_heartbeat().is_some_and(|at| at <= now) {
            up.core.handle(now, Event::Usage(self.device.in_use()), &mut up.effects);
        }
        let mut deadlines = 0;
        while up.core.next_deadline().is_some_and(|at| at <= now) {
            up.core.handle(now, Event::Deadline, &mut up.effects);
            up.settle(world, &mut self.history)?;
            deadlines += 1;
            invariant_p4_deadlines_are_done("an agent", deadlines)?;
        }
        self.begin(world)?;
        self.release(world)?;
        let Some(up) = &mut self.up else { return Ok(()) };
        if let Some(at) = up.core.next_deadline() {
            up.wake_by(world, number, self.device.clock.reaches(at).max(world.now));
        }
        Ok(())
    }

    /// A sync has ended: what it made durable may happen, at once or a moment later.
    pub fn on_synced(&mut self, world: &mut World) -> Result<(), Violation> {
        let (number, life) = (self.number, self.life);
        let Some(up) = &mut self.up else { return Ok(()) };
        if up.fate.strikes() {
            return Ok(());
        }
        self.history.durable = up.writer.end()?;
        self.rebooted &= self.history.durable < self.surveyed_at;
        if up.writer.has_failed() {
            world.trace.say(world.now, || format!("{}: the journal does not sync", self.name));
            up.fate.end();
            return Ok(());
        }
        if world.random.chance(world.setting.lag_permille) {
            let lag = world.between(Duration::from_micros(1), Duration::from_millis(5));
            world.plan(lag, Happening::Release(Node::Agent(number), life));
        } else {
            self.release(world)?;
        }
        self.begin(world)
    }

    /// What is durable happens.
    pub fn on_release(&mut self, world: &mut World) -> Result<(), Violation> {
        self.release(world)
    }

    /// Sends a message that no honest agent would send.
    pub fn send_dishonestly(&mut self, world: &mut World, message: Message) {
        let now = self.device.clock.at(world.now);
        if let Some(up) = &mut self.up {
            up.send(world, now, &[message]);
        }
    }

    /// Whether the agent runs and nothing waits inside it, and nothing runs or is kept on the device.
    pub fn is_idle(&self) -> bool {
        let quiet = |up: &Running| up.inbox.is_empty() && up.writer.is_idle() && up.outbox.is_empty();
        let empty = |up: &Running| up.core.state().attempts().is_empty();
        self.is_retired || self.device.running() == 0 && self.up.as_ref().is_some_and(|up| quiet(up) && empty(up))
    }

    /// Whether it has a session that is registered.
    pub fn is_ready(&self) -> bool {
        self.up.as_ref().is_some_and(|up| up.core.live().is_ready())
    }

    /// The connection of its session or handshake.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.up.as_ref().and_then(|up| up.link.connection())
    }

    fn begin(&mut self, world: &mut World) -> Result<(), Violation> {
        let (number, life) = (self.number, self.life);
        let Some(up) = &mut self.up else { return Ok(()) };
        if up.fate.strikes() {
            return Ok(());
        }
        if up.writer.begin()? {
            let sync = world.sync_takes(self.slow_until);
            world.plan(sync, Happening::Synced(Node::Agent(number), life));
        } else if up.writer.is_idle() && world.random.chance(20) {
            up.writer.mark()?;
        }
        if up.writer.has_failed() {
            world.trace.say(world.now, || format!("{}: the journal takes no more", self.name));
            up.fate.end();
        }
        Ok(())
    }

    /// Does what is durable, in order.
    fn release(&mut self, world: &mut World) -> Result<(), Violation> {
        let (number, now) = (self.number, self.device.clock.at(world.now));
        let Some(up) = &mut self.up else { return Ok(()) };
        if let Some(heard) = up.core.live().heard().filter(|heard| Some(*heard) != up.heard) {
            up.heard = Some(heard);
            if up.core.stops_unheard() {
                self.device.on_heard(heard);
            }
        }
        let effects: Vec<(u64, Effect)> = up.outbox.release(up.writer.durable()).collect();
        let mut messages = Vec::new();
        let mut plans = Plans::new();
        let mut staging = Vec::new();
        for (session, effect) in effects {
            // What was to be sent goes out at the end: killed before, it has done things and not told.
            if up.fate.strikes() {
                messages.clear();
                break;
            }
            world.trace.coverage.does(&effect);
            match effect {
                Effect::Stage { .. } | Effect::StartStaged | Effect::Unstage { .. } => staging.push(effect),
                Effect::Cancel { attempt, .. } if self.staged.iter().any(|staged| staged.attempt == attempt) => {
                    staging.push(effect);
                }
                Effect::Send(_) | Effect::Close { .. } if session != up.sessions => {}
                Effect::Send(message) => {
                    invariant_p1_agent_says_only_what_is_durable(&self.history, &message)?;
                    if !self.was_copied {
                        invariant_p3_nothing_has_to_be_refused(self.name.as_str(), &message)?;
                    }
                    invariant_p3_ends_are_told_when_all_is_gone(&self.device, &message)?;
                    world.trace.coverage.from_agent(&message);
                    world.trace.say(world.now, || format!("{} → {}", self.name, words(&message)));
                    messages.push(message);
                }
                Effect::Spawn { attempt, assignment, .. } => {
                    invariant_p1_spawns_are_durable(&self.history, attempt)?;
                    world.trace.say(world.now, || format!("{} starts {attempt}", self.name));
                    self.started_in.insert(attempt, self.life);
                    let unheard = up.unheard(attempt);
                    match self.device.spawn(attempt, (&assignment, unheard), world.now, &mut world.random) {
                        Ok(planned) => plans.extend(planned),
                        Err(error) => return broken("P2", error.to_string()),
                    }
                    invariant_p3_nothing_is_oversubscribed(&self.device)?;
                }
                Effect::Cancel { attempt, grace } => {
                    world.trace.say(world.now, || format!("{} stops {attempt}", self.name));
                    plans.extend(self.device.cancel(attempt, grace, world.now, &mut world.random));
                }
                Effect::ReadLog { request, attempt, stream, offset, limit, job_key: _ } => {
                    messages.push(log_chunk(request, attempt, stream, (offset, limit), &self.device));
                }
                Effect::Settled { attempt } => self.device.recycle(attempt),
                Effect::Close { reason } => {
                    world.trace.say(world.now, || format!("{} closes: {reason}", self.name));
                    up.send(world, now, &messages);
                    messages.clear();
                    up.end(world, number);
                }
            }
        }
        up.send(world, now, &messages);
        for (at, attempt, serial, step) in plans {
            world.queue.plan(at, Happening::Process(number, attempt, serial, step));
        }
        for effect in staging {
            self.on_staging(world, effect)?;
        }
        Ok(())
    }
}

fn log_chunk(
    request: u64,
    attempt: AttemptId,
    stream: fb::LogStream,
    (offset, limit): (u64, u32),
    device: &Device,
) -> Message {
    let Some(ended) = device.truth(attempt) else {
        let code = fb::ErrorCode::LogsGone;
        let nack = fb::NackT { code, request, ..fb::NackT::default() };
        return Message::Rare(fb::SchedulerMessageT::Nack(Box::new(nack)));
    };
    let text = format!("{attempt} says hello on {}\n", device.name).into_bytes();
    let rest = text.get(offset as usize..).unwrap_or_default();
    let data = rest.get(..rest.len().min(limit as usize)).unwrap_or_default().to_vec();
    let chunk = fb::LogChunkT {
        request,
        task_id: Some(attempt.task.to_string()),
        attempt: attempt.attempt,
        stream,
        offset,
        data: Some(data),
        ended: ended.is_some(),
        dropped: 0,
        size: text.len() as u64,
    };
    Message::Rare(fb::SchedulerMessageT::LogChunk(Box::new(chunk)))
}
