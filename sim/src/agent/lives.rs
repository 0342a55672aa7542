//! The lives of a device and of its agent's process: how they begin, and all the ways in which they end.

use super::{AgentNode, Running};
use crate::{
    clock::DeviceClock,
    fate::Fate,
    invariants::invariant_p7_state_is_what_facts_say,
    network::{End, Peer},
    shadow::TallyOfAgent,
    trace::{Violation, broken},
    wire::Link,
    world::{Happening, Node, World},
    writer::Writer,
};
use fleetwire_agent_core::{Agent, Config, Effects, Event, Recovered};
use fleetwire_common::{
    fb,
    ids::{AttemptId, Position},
    time::Time,
};
use fleetwire_journal::{Identity, JournalConfig, Outbox, sim_disk::SimDisk};
use std::{collections::VecDeque, time::Duration};

const SEGMENT_BYTES: u64 = 16 << 10;

impl AgentNode {
    /// A second device with the same card, as it is read while the first runs; it is switched on at once.
    ///
    /// # Errors
    /// A promise is broken.
    pub fn copy(&mut self, number: usize, world: &mut World) -> Result<AgentNode, Violation> {
        world.trace.say(world.now, || format!("{} is copied", self.name));
        let disk = self.disk.copy();
        crate::misfortune::lose_unsynced(&disk, world);
        let mut copy = AgentNode::new(number, self.name.clone(), self.offer.clone(), disk, world);
        copy.history = self.history.clone();
        copy.device.outlive(copy.history.outlived(), world.now);
        (self.was_copied, copy.was_copied) = (true, true);
        copy.start(world)?;
        Ok(copy)
    }

    /// The device is taken away for good.
    ///
    /// # Errors
    /// A promise is broken.
    pub fn retire(&mut self, world: &mut World) -> Result<(), Violation> {
        self.reboot(world)?;
        self.is_retired = true;
        Ok(())
    }

    /// Starts the agent's process: replays its journal and tells the core what the executor's survey found.
    pub fn start(&mut self, world: &mut World) -> Result<(), Violation> {
        self.life += 1;
        let mut core = Agent::new(self.config(world));
        let journal = JournalConfig { segment_bytes: SEGMENT_BYTES, ..JournalConfig::small(Identity::IfNew([2; 16])) };
        let opened = Writer::open(self.disk.clone(), &journal, 0, |position, bytes| {
            core.replay(position, bytes).or_else(|error| broken("P7", format!("an agent cannot replay: {error}")))
        })?;
        let Some((writer, behind)) = opened else {
            world.trace.say(world.now, || format!("{}: the disk fails, it does not start", self.name));
            let after = world.between(Duration::from_millis(100), Duration::from_secs(5));
            world.plan(after, Happening::Start(Node::Agent(self.number), self.life));
            return Ok(());
        };
        let (snapshot, shadow) = (writer.snapshot_position(), core.state().clone());
        self.history.recover(snapshot, &behind)?;
        if snapshot > Position(0) {
            invariant_p7_state_is_what_facts_say("an agent's snapshot", &self.history.replayed(snapshot)?, &shadow)?;
            world.trace.coverage.snapshot_read(Node::Agent(self.number));
        }
        let mut effects = Effects::new();
        let now = self.device.clock.at(world.now);
        core.start(now, &mut effects);
        let found: Vec<(AttemptId, Recovered)> = self.survey(world.now);
        world.trace.say(world.now, || format!("{} starts, {} slots", self.name, found.len()));
        for (attempt, state) in found {
            world.trace.coverage.found(&state);
            core.handle(now, Event::Recovered { attempt, state }, &mut effects);
        }
        core.handle(now, Event::Surveyed { rebooted: self.rebooted }, &mut effects);
        self.surveyed_at = core.position();
        let mut up = Box::new(Running {
            core,
            fate: Fate::default(),
            shadow,
            heard: None,
            writer,
            outbox: Outbox::default(),
            sessions: 0,
            effects,
            link: Link::Down,
            inbox: VecDeque::new(),
            life: self.life,
            wake_at: Time::NEVER,
            offset_us: 0,
            process_start_id: world.random.bytes(),
            bulk_streams: 0,
            dials_failed: 0,
            closed: None,
        });
        up.settle(world, &mut self.history)?;
        up.wake_by(world, self.number, world.now);
        self.up = Some(up);
        world.plan(Duration::from_millis(1), Happening::Dial(Peer::Agent(self.number), self.life));
        world.plan_snapshot(Node::Agent(self.number), self.life);
        Ok(())
    }

    /// The journal so far is summed up beside the running process, as its shell does after so many bytes.
    pub fn on_snapshot(&mut self, world: &mut World) -> Result<(), Violation> {
        let Some(up) = &mut self.up else { return Ok(()) };
        if world.random.chance(700) {
            up.writer.roll()?;
            self.history.durable = up.writer.durable();
            self.rebooted &= self.history.durable < self.surveyed_at;
        }
        if up.writer.has_failed() {
            up.fate.end();
            return Ok(());
        }
        if up.writer.snapshot(TallyOfAgent::default())? {
            world.trace.coverage.snapshot_taken(Node::Agent(self.number));
            world.trace.say(world.now, || format!("{}: a snapshot is made", self.name));
        }
        world.plan_snapshot(Node::Agent(self.number), self.life);
        Ok(())
    }

    /// The agent's process is killed, now; its supervisors and their tasks go on.
    pub fn crash(&mut self, world: &mut World) -> Result<(), Violation> {
        let Some(up) = self.up.take() else { return Ok(()) };
        invariant_p7_state_is_what_facts_say("an agent", up.core.state(), &up.shadow)?;
        world.trace.say(world.now, || format!("{} crashes", self.name));
        self.life += 1;
        if let Some(connection) = up.link.connection() {
            world.vanish(connection, End::Peer);
        }
        Ok(())
    }

    /// The device loses its power.
    pub fn reboot(&mut self, world: &mut World) -> Result<(), Violation> {
        self.crash(world)?;
        world.trace.say(world.now, || format!("{} loses its power", self.name));
        self.device.reboot(DeviceClock::set(world.now, Time(1_000_000)));
        self.rebooted = true;
        if world.random.chance(500) {
            // What the slots said was not synced. What is not durable anywhere else either may run again.
            self.device.forget(|attempt| self.history.has_started(attempt));
        }
        self.staged.clear();
        self.started_in.clear();
        crate::misfortune::lose_unsynced(&self.disk, world);
        self.boot_id = world.random.bytes();
        Ok(())
    }

    /// The device comes back with another disk: nothing of what it knew is left, nor anything that ran.
    pub fn wipe(&mut self, world: &mut World) -> Result<(), Violation> {
        self.reboot(world)?;
        world.trace.say(world.now, || format!("{} gets another disk", self.name));
        self.device.wipe();
        self.disk = SimDisk::new();
        self.history.begin_anew();
        Ok(())
    }

    /// What the executor finds after a restart: every slot, and what is staged.
    fn survey(&mut self, now: Time) -> Vec<(AttemptId, Recovered)> {
        let slots = self.device.survey(now).into_iter().map(|(attempt, verdict)| match verdict {
            Some((status, end)) => (attempt, Recovered::Ended { status, end }),
            None => (attempt, Recovered::Running),
        });
        let mut found: Vec<(AttemptId, Recovered)> = slots.collect();
        let runs =
            |attempt: &AttemptId| found.iter().any(|(id, state)| id == attempt && matches!(state, Recovered::Running));
        self.started_in.retain(|attempt, _| runs(attempt));
        // The socket on which they lie went with the last supervisor that had it.
        let lives = &self.started_in;
        self.staged.retain(|staged| lives.values().any(|life| *life == staged.life));
        found.extend(self.staged.iter().map(|staged| (staged.attempt, Recovered::Running)));
        found
    }

    fn config(&self, world: &mut World) -> Config {
        Config {
            name: self.name.clone(),
            capacity: self.offer.capacity,
            custom: self.offer.custom.clone(),
            labels: self.offer.labels.clone(),
            agent_types: self.offer.agent_types.clone(),
            executors: vec![fb::Executor::Process, fb::Executor::Noop],
            data_id: world.random.bytes(),
            address: String::new(),
            software: "sim".to_owned(),
            host: self.name.to_string(),
            heartbeat_interval: Duration::from_secs(10),
        }
    }
}
