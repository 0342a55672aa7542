//! The scheduler of a simulated cluster: the real core, journal and envelope, driven as its shell drives
//! them. It drains what has arrived, handles each, writes the facts with one sync at a time, and releases
//! what became durable, coalesced per peer.
//!
//! Invariants: arrived events come before deadlines; an effect that says what was decided leaves through the outbox only; what a
//! crash takes is everything but the disk.

use crate::{
    agent::AgentNode,
    coverage::Stage,
    fate::Fate,
    history::{Consequence, History},
    invariants::{invariant_p4_deadlines_are_done, invariant_p7_state_is_what_facts_say},
    network::{ConnectionId, End},
    reserving::Promise,
    shadow::{Tally, restored},
    trace::{Violation, broken},
    world::{Happening, Node, World},
    writer::Writer,
};
use fleetwire_common::{
    envelope::{Opener, Sealer, handshake::HelloInfo},
    ids::{AgentId, AttemptId, Position, Principal, SessionId, TaskId},
    limits::STALE_AFTER_MS,
    policy::Reserve,
    time::Time,
};
use fleetwire_journal::{Identity, JournalConfig, Outbox, sim_disk::SimDisk};
use fleetwire_scheduler_core::{Config, Effect, Effects, Event, Policy, Scheduler, State};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

mod running;

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
    /// Until when its disk takes seconds to sync.
    pub slow_until: Time,
    /// The operator goes on with a restored backup, at the next start.
    pub accepts_restore: bool,
    /// How many frames were refused as they should be.
    pub refused: u64,
}

/// The scheduler's process.
pub struct Running {
    /// The core.
    pub core: Scheduler,
    /// What the journal's bytes say, applied from the bytes: must always equal the live core's state.
    pub shadow: State,
    /// How long it has to live.
    pub fate: Fate,
    writer: Writer,
    /// What waits for no fact.
    prompt: Vec<Effect>,
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
    /// Agents that are reserved, by what was said after the latest event.
    promises: BTreeMap<AgentId, Promise>,
    /// Attempts that were asked to make way for what is more urgent, or because their gang starts anew, or asked back before they start.
    making_way: BTreeSet<AttemptId>,
    /// How far each attempt was when it was looked at last.
    stages: BTreeMap<AttemptId, Stage>,
    /// Tasks to look at.
    spoken_of: Vec<TaskId>,
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
/// Segments that are kept ready.
const RESERVE: usize = 2;
/// After so many events everything is compared with the shadow, not only what was touched.
const COMPARE_EVERY: u64 = 1_000;

impl SchedulerNode {
    /// A machine on which nothing ran yet.
    pub fn new(disk: SimDisk) -> SchedulerNode {
        SchedulerNode {
            disk,
            life: 0,
            up: None,
            paused_until: None,
            slow_until: Time::ZERO,
            accepts_restore: false,
            refused: 0,
        }
    }

    /// Starts the process: replays the journal, enrols whoever is given, and makes that durable before
    /// anybody can connect. If the disk fails it does not run: another start is planned.
    pub fn start(&mut self, world: &mut World, history: &mut History, enrol: &[Principal]) -> Result<(), Violation> {
        self.life += 1;
        self.paused_until = None;
        let mut core = Scheduler::new(Config { accept_restore: self.accepts_restore, ..config(world) });
        let journal = JournalConfig { segment_bytes: SEGMENT_BYTES, ..JournalConfig::new(Identity::IfNew([1; 16])) };
        let opened = Writer::open(self.disk.clone(), &journal, RESERVE, |position, bytes| {
            core.replay_at(position, bytes)
                .or_else(|error| broken("P7", format!("the scheduler cannot replay: {error}")))
        })?;
        let Some((writer, behind)) = opened else { return self.start_later(world) };
        let (snapshot, shadow) = (writer.snapshot_position(), core.state().clone());
        writer.retire_blobs(|segment| segment <= shadow.blobs.stream.segment)?;
        history.recover(snapshot, &behind)?;
        if snapshot > Position(0) {
            invariant_p7_state_is_what_facts_say("a snapshot", &history.replayed()?, &shadow)?;
            world.trace.coverage.snapshot_read(Node::Scheduler);
        }

        let mut effects = Effects::new();
        core.start(world.now, &mut effects);
        let incarnation = core.incarnation();
        let mut up = Running {
            core,
            shadow,
            fate: Fate::default(),
            writer,
            prompt: Vec::new(),
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
            promises: BTreeMap::new(),
            making_way: BTreeSet::new(),
            stages: BTreeMap::new(),
            spoken_of: Vec::new(),
        };
        for principal in enrol {
            let key_sha256 =
                std::array::from_fn(|place| principal.name.as_str().as_bytes().get(place).copied().unwrap_or(1));
            let event = Event::EnrolLocally { name: principal.name.clone(), role: principal.role, key_sha256 };
            up.core.handle(world.now, event, &mut up.effects);
        }
        up.settle(world, history, &[])?;
        if up.writer.begin()? {
            history.durable = up.writer.end()?;
        }
        if up.writer.has_failed() {
            return self.start_later(world);
        }
        self.accepts_restore = false;
        world.trace.say(world.now, || format!("scheduler starts, incarnation {incarnation}"));
        up.wake_by(world, world.now);
        self.up = Some(Box::new(up));
        world.plan_snapshot(Node::Scheduler, self.life);
        Ok(())
    }

    /// The journal so far is summed up beside the running process.
    pub fn on_snapshot(&mut self, world: &mut World, history: &mut History) -> Result<(), Violation> {
        let Some(up) = &mut self.up else { return Ok(()) };
        if world.random.chance(500) {
            up.writer.roll()?;
            history.durable = up.writer.durable();
        }
        if up.writer.has_failed() {
            up.fate.end();
            return Ok(());
        }
        if up.writer.snapshot(Tally::default())? {
            world.trace.coverage.snapshot_taken(Node::Scheduler);
            world.trace.say(world.now, || "scheduler: a snapshot is made".to_owned());
        }
        world.plan_snapshot(Node::Scheduler, self.life);
        Ok(())
    }

    /// The disk failed while it started: whoever looks after it tries again in a while.
    fn start_later(&mut self, world: &mut World) -> Result<(), Violation> {
        world.trace.say(world.now, || "scheduler: the disk fails, it does not start".to_owned());
        let after = world.between(Duration::from_millis(100), Duration::from_secs(5));
        world.plan(after, Happening::Start(Node::Scheduler, self.life));
        Ok(())
    }

    /// The process is killed, now. What the disk had not synced is gone, or some of it.
    pub fn crash(&mut self, world: &mut World, history: &History) -> Result<(), Violation> {
        let Some(up) = self.up.take() else { return Ok(()) };
        invariant_p7_state_is_what_facts_say("the scheduler", up.core.state(), &up.shadow)?;
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
            up.settle(world, history, agents)?;
        }
        if up.wake_at <= world.now {
            up.wake_at = Time::NEVER;
        }
        up.look_at_disk(world, history, agents)?;
        let tolerance_ms = STALE_AFTER_MS + gap.unwrap_or_default().as_millis() as u64;
        while let Some(arrived) = up.inbox.pop_front() {
            if up.fate.strikes() {
                return Ok(());
            }
            self.refused += up.on_arrived(world, arrived, tolerance_ms)?;
            up.settle(world, history, agents)?;
        }
        let mut deadlines = 0;
        while up.core.next_deadline().is_some_and(|at| at <= world.now) {
            up.core.handle(world.now, Event::Deadline, &mut up.effects);
            up.settle(world, history, agents)?;
            deadlines += 1;
            invariant_p4_deadlines_are_done("the scheduler", deadlines)?;
        }
        self.begin(world)?;
        let Some(up) = &mut self.up else { return Ok(()) };
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
        if up.fate.strikes() {
            return Ok(());
        }
        history.durable = up.writer.end()?;
        if up.writer.has_failed() {
            world.trace.say(world.now, || "scheduler: the journal does not sync".to_owned());
            up.fate.end();
            return Ok(());
        }
        if world.random.chance(world.setting.lag_permille) {
            let lag = world.between(Duration::from_micros(1), Duration::from_millis(5));
            world.plan(lag, Happening::Release(Node::Scheduler, life));
        } else {
            up.release(world, history)?;
        }
        self.begin(world)
    }

    /// Writes what waits, and begins to sync it.
    fn begin(&mut self, world: &mut World) -> Result<(), Violation> {
        let Some(up) = &mut self.up else { return Ok(()) };
        if up.fate.strikes() {
            return Ok(());
        }
        if up.writer.begin()? {
            let sync = world.sync_takes(self.slow_until);
            world.plan(sync, Happening::Synced(Node::Scheduler, self.life));
        } else if up.writer.is_idle() && world.random.chance(100) {
            up.writer.mark()?;
        }
        if up.writer.has_failed() {
            world.trace.say(world.now, || "scheduler: the journal takes no more".to_owned());
            up.fate.end();
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
        let Some(up) = &self.up else { return Ok(()) };
        invariant_p7_state_is_what_facts_say("the scheduler", up.core.state(), &up.shadow)?;
        invariant_p7_state_is_what_facts_say("a snapshot", &up.shadow, &restored(&up.shadow)?)
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
        accept_restore: false,
        policy: Policy {
            ended_kept: world.setting.ended_kept,
            blob_segment_bytes: SEGMENT_BYTES - 512,
            // What always fails must get through within the hours of a simulation.
            breaker_cooling_max: Duration::from_secs(60),
            reserve: Reserve { after: world.setting.reserve_after, ..Reserve::default() },
            ..Policy::default()
        },
    }
}
