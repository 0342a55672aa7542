//! What goes wrong: each fault does its harm and plans its next occurrence.

use crate::{
    cluster::Cluster,
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
                    agent.suspended_until = until;
                }
            }
            Fault::Replay => self.replay(number),
            Fault::Impostor => self.impostor(number),
        }
        Ok(())
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
            };
            agent.send_dishonestly(&mut self.world, Message::Status(status));
        }
        let submit = fb::SubmitJobT { request: 1, submit_id: Some(submit_id.0.to_vec()), job };
        let cancel = fb::CancelWorkT { request: 2, job: 1, task_id: None };
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
