//! What goes wrong: each fault does its harm and plans its next occurrence.

use crate::{
    cluster::Cluster,
    coverage::Death,
    fate::Fate,
    faults::Fault,
    network::{End, Peer},
    trace::Violation,
    world::{Happening, Node, World},
};
use fleetwire_common::{
    fb,
    ids::AttemptId,
    message::{Message, Status},
};
use fleetwire_journal::sim_disk::SimDisk;
use std::{sync::Arc, time::Duration};

impl Cluster {
    /// Plans the first occurrence of every fault that is on.
    pub fn plan_faults(&mut self) {
        for (fault, every) in self.world.setting.faults.clone() {
            let first = self.world.between(Duration::from_millis(100), every * 2);
            self.world.plan(first, Happening::Fault(fault));
        }
    }

    pub(crate) fn on_fault(&mut self, fault: Fault) -> Result<(), Violation> {
        if self.world.now >= self.faults_until {
            return Ok(());
        }
        self.strike(fault)?;
        let every = self.world.setting.faults.iter().find(|(on, _)| *on == fault).map(|(_, every)| *every);
        if let Some(every) = every {
            let next = self.world.between(Duration::from_millis(50), every * 2);
            self.world.plan(next, Happening::Fault(fault));
        }
        Ok(())
    }

    /// Does the harm, once, to somebody drawn at random.
    ///
    /// # Errors
    /// A promise is broken.
    pub fn strike(&mut self, fault: Fault) -> Result<(), Violation> {
        let number = self.world.random.below(self.agents.len());
        let outage = Duration::from_millis(self.world.random.skewed(1, 60_000));
        self.world.trace.coverage.fault(fault);
        match fault {
            Fault::AgentCrash | Fault::Reboot | Fault::Wipe => {
                let Some(agent) = self.agents.get_mut(number).filter(|agent| agent.up.is_some()) else { return Ok(()) };
                match fault {
                    Fault::Reboot => agent.reboot(&mut self.world)?,
                    Fault::Wipe => agent.wipe(&mut self.world)?,
                    _ => agent.crash(&mut self.world)?,
                }
                let life = agent.life;
                self.world.plan(outage, Happening::Start(Node::Agent(number), life));
            }
            Fault::SchedulerCrash => {
                if self.scheduler.up.is_some() {
                    self.crash_scheduler()?;
                    self.world.plan(outage, Happening::Start(Node::Scheduler, self.scheduler.life));
                }
            }
            Fault::Goodbye => {
                if let Some(agent) = self.agents.get_mut(number).filter(|agent| agent.up.is_some()) {
                    let life = agent.say_goodbye(&mut self.world);
                    self.world.plan(Duration::from_secs(2), Happening::Stop(number, life, outage));
                }
            }
            Fault::AgentConnection => self.break_connection(Peer::Agent(number)),
            Fault::ClientConnection => {
                let number = self.world.random.below(self.clients.len());
                self.break_connection(Peer::Client(number));
            }
            Fault::Partition => {
                self.cut_off(Peer::Agent(number), &[End::Scheduler, End::Peer]);
                self.world.plan(outage * 4, Happening::Heal(Peer::Agent(number)));
            }
            Fault::OneWay => {
                let end = if self.world.random.chance(500) { End::Scheduler } else { End::Peer };
                self.cut_off(Peer::Agent(number), &[end]);
                self.world.plan(outage * 2, Happening::Heal(Peer::Agent(number)));
            }
            Fault::RadioGap => self.radio_gap(number),
            Fault::SchedulerPause => {
                if self.scheduler.up.is_some() && self.scheduler.paused_until.is_none() {
                    let until = self.world.now + outage;
                    self.scheduler.pause(&mut self.world, until);
                }
            }
            Fault::Suspend => {
                let until = self.world.now + outage * 2;
                if let Some(agent) = self.agents.get_mut(number).filter(|agent| agent.up.is_some()) {
                    self.world.trace.say(self.world.now, || format!("{} is suspended", agent.name));
                    agent.suspended_until = agent.suspended_until.max(until);
                }
            }
            Fault::Replay => self.replay(number),
            Fault::Impostor => self.impostor(number),
            Fault::Clone => {
                // One at a time: with two, nothing new can happen.
                let count = self.agents.len();
                if count == self.world.setting.agents
                    && let Some(original) = self.agents.get_mut(number)
                {
                    let copy = original.copy(count, &mut self.world)?;
                    self.agents.push(copy);
                }
            }
            Fault::RestoredBackup => self.back_up_or_restore(outage)?,
            Fault::KilledAtWork => self.doom(number),
            Fault::FailedSync | Fault::FullDisk | Fault::ReadOnlyDisk | Fault::SlowDisk => {
                let node = self.victim(number);
                self.harm_disk(fault, node, outage);
            }
            Fault::SupervisorKilled | Fault::LateSpawner | Fault::ClockDrift | Fault::ClockJump => {
                self.harm_device(fault, number, outage);
            }
        }
        Ok(())
    }

    /// The scheduler, or that agent.
    fn victim(&mut self, number: usize) -> Node {
        if self.world.random.chance(400) { Node::Scheduler } else { Node::Agent(number) }
    }

    fn disk(&self, node: Node) -> Option<SimDisk> {
        match node {
            Node::Scheduler => Some(self.scheduler.disk.clone()),
            Node::Agent(number) => self.agents.get(number).map(|agent| agent.disk.clone()),
        }
    }

    /// Somebody is killed soon, wherever it is by then: between two things that it does, or in the middle of
    /// changing its disk, maybe not before its next start.
    fn doom(&mut self, number: usize) {
        let node = self.victim(number);
        let steps = self.world.random.skewed(1, 64) - 1;
        if self.world.random.chance(500) {
            if let Some(disk) = self.disk(node) {
                disk.fail_after(steps);
            }
            return;
        }
        if let Some(fate) = self.fate(node) {
            fate.doom(steps);
        }
    }

    /// What was in store for somebody does not come.
    pub(crate) fn spare(&mut self, node: Node) {
        if let Some(fate) = self.fate(node) {
            *fate = Fate::default();
        }
        if let Some(disk) = self.disk(node) {
            disk.mend();
        }
    }

    fn fate(&mut self, node: Node) -> Option<&mut Fate> {
        match node {
            Node::Scheduler => self.scheduler.up.as_mut().map(|up| &mut up.fate),
            Node::Agent(number) => self.agents.get_mut(number)?.up.as_mut().map(|up| &mut up.fate),
        }
    }

    /// If a process has come to its end at work it is gone now, and started again in a while.
    pub(crate) fn bury(&mut self, node: Node) -> Result<(), Violation> {
        if !self.fate(node).is_some_and(|fate| fate.is_over()) {
            return Ok(());
        }
        let failed = self.disk(node).is_some_and(|disk| disk.has_failed());
        self.world.trace.coverage.died(node, if failed { Death::ByItsDisk } else { Death::AtWork });
        let life = match node {
            Node::Scheduler => {
                self.crash_scheduler()?;
                self.scheduler.life
            }
            Node::Agent(number) => {
                let Some(agent) = self.agents.get_mut(number) else { return Ok(()) };
                agent.crash(&mut self.world)?;
                agent.life
            }
        };
        if let Some(disk) = self.disk(node) {
            disk.mend();
        }
        let outage = Duration::from_millis(self.world.random.skewed(1, 30_000));
        self.world.plan(outage, Happening::Start(node, life));
        Ok(())
    }

    fn harm_disk(&mut self, fault: Fault, node: Node, outage: Duration) {
        let (Some(disk), until) = (self.disk(node), self.world.now + outage) else { return };
        self.world.trace.say(self.world.now, || format!("{node:?}: {fault:?}"));
        match (fault, node) {
            (Fault::FullDisk, _) => {
                let left = self.world.random.skewed(1, 128 << 10);
                disk.set_capacity(Some(disk.used_bytes() + left));
            }
            (Fault::ReadOnlyDisk, _) => disk.set_read_only(true),
            (Fault::SlowDisk, Node::Scheduler) => self.scheduler.slow_until = until,
            (Fault::SlowDisk, Node::Agent(number)) => {
                if let Some(agent) = self.agents.get_mut(number) {
                    agent.slow_until = until;
                }
            }
            (_, _) => disk.fail_syncs(1),
        }
        self.world.plan(outage, Happening::Mend(node));
    }

    /// A node's disk works again, whatever was wrong with it.
    pub(crate) fn mend(&mut self, node: Node) {
        if let Some(disk) = self.disk(node) {
            disk.set_capacity(None);
            disk.set_read_only(false);
        }
    }

    fn harm_device(&mut self, fault: Fault, number: usize, outage: Duration) {
        let Some(agent) = self.agents.get_mut(number) else { return };
        let World { now, random, queue, trace, .. } = &mut self.world;
        trace.say(*now, || format!("{}: {fault:?}", agent.name));
        match fault {
            Fault::SupervisorKilled => {
                for (at, attempt, serial, step) in agent.device.kill_supervisor(*now, random) {
                    queue.plan(at, Happening::Process(number, attempt, serial, step));
                }
            }
            Fault::LateSpawner => agent.device.delay_spawns(*now + outage),
            Fault::ClockJump => agent.device.clock.jump(*now, Duration::from_millis(random.skewed(1, 4_000_000))),
            _ => {
                let ppm = random.skewed(10, 50_000) as i64;
                agent.device.clock.drift(*now, if random.chance(500) { ppm } else { -ppm.min(SLOW_PPM_MAX) });
            }
        }
        // What was planned by its clock comes at another time now.
        for (at, attempt, serial, step) in agent.device.look_up(*now) {
            queue.plan(at, Happening::Process(number, attempt, serial, step));
        }
        self.world.plan(Duration::ZERO, Happening::Wake(Node::Agent(number), agent.life));
    }

    /// Everything under way to and from an agent arrives late; some of it too late.
    fn radio_gap(&mut self, number: usize) {
        let Some(connection) = self.agents.get(number).and_then(|agent| agent.connection()) else { return };
        let until = self.world.now + Duration::from_millis(self.world.random.between(500, 12_000));
        for (at, connection, end) in self.world.network.stall(connection, until) {
            self.world.queue.plan(at, Happening::Look(connection, end));
        }
    }

    /// A copy of an old frame of a session arrives again at the scheduler, and one of the scheduler's own
    /// comes back to it.
    fn replay(&mut self, number: usize) {
        let Some(connection) = self.agents.get(number).and_then(|agent| agent.connection()) else { return };
        for end in [End::Scheduler, End::Peer] {
            if let Some(frame) = self.world.network.latest_frame(connection, end) {
                self.scheduler.on_forged_frame(&mut self.world, connection, frame);
            }
        }
    }

    /// An agent says that another's attempt has completed, asks for a job of its own, and wants one cancelled.
    fn impostor(&mut self, number: usize) {
        let Some(name) = self.agents.get(number).map(|agent| agent.name.to_string()) else { return };
        let others = self.history.tasks().filter(|(_, task)| task.ended.is_none()).find_map(|(id, task)| {
            let open = task
                .attempts
                .iter()
                .find(|(_, attempt)| attempt.ended.is_none() && self.history.agent_name(attempt.agent) != name);
            open.map(|(attempt, _)| AttemptId { task: id, attempt: *attempt })
        });
        let job = self.history.jobs().next().map(|(_, job)| job.spec.to_wire());
        let submit_id = fleetwire_common::ids::SubmitId::new(self.world.now.as_ms(), self.world.random.bytes());
        let Some(agent) = self.agents.get_mut(number) else { return };
        if let Some(attempt) = others {
            let status = Status {
                attempt,
                status: fb::TaskStatus::Completed,
                progress: 1.0,
                note: String::new(),
                metrics: vec![(Arc::from("forged"), 1.0)],
                end: Some(Box::default()),
                job_key: Default::default(),
            };
            agent.send_dishonestly(&mut self.world, Message::Status(status));
        }
        let submit = fb::SubmitJobT { request: 1, submit_id: Some(submit_id.0.to_vec()), job };
        let cancel = fb::CancelWorkT { request: 2, job: 1, task_id: None, agent: None };
        for message in
            [fb::SchedulerMessageT::SubmitJob(Box::new(submit)), fb::SchedulerMessageT::CancelWork(Box::new(cancel))]
        {
            agent.send_dishonestly(&mut self.world, Message::Rare(message));
        }
    }
}

/// The power goes: the disk keeps what was synced, and of the rest what it likes.
pub(crate) fn lose_unsynced(disk: &SimDisk, world: &mut World) {
    disk.crash(world.random.next());
}

/// What clocks may be slow by: what must be stopped before it may start elsewhere counts on it
/// (`fleetwire_common::terms`).
const SLOW_PPM_MAX: i64 = 10_000;
