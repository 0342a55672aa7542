//! What happens to whom: each happening is handed to the part of the cluster that it concerns.

use super::Cluster;
use crate::{
    agent::AgentNode,
    device::Step,
    holding::invariant_semaphores_are_kept,
    invariants::invariant_p2_exclusive_work_runs_once,
    network::{ConnectionId, End, Peer},
    trace::Violation,
    world::{Happening, Node},
};
use fleetwire_common::{
    ids::{AttemptId, TaskId},
    time::Time,
};
use std::time::Duration;

/// How long supervisors take at most, once a device has woken up, to see that they slept for too long.
const WAKES_IN: Duration = Duration::from_millis(20);

impl Cluster {
    pub(super) fn happen(&mut self, what: Happening) -> Result<(), Violation> {
        if let Some(until) = self.sleeps_until(&what) {
            self.world.queue.plan(until, what);
            return Ok(());
        }
        match what {
            Happening::Look(connection, end) => self.on_look(connection, end),
            Happening::Gone(connection, end) => {
                self.on_gone(connection, end);
                Ok(())
            }
            Happening::Dial(peer, life) => {
                self.on_dial(peer, life);
                Ok(())
            }
            Happening::Wake(node, life) => {
                self.on_wake(node, life)?;
                self.see_restored();
                self.bury(node)
            }
            Happening::AcceptRestore => self.on_accept_restore(),
            Happening::Synced(node, life) => self.on_synced(node, life).and_then(|()| self.bury(node)),
            Happening::Release(node, life) => self.on_release(node, life).and_then(|()| self.bury(node)),
            Happening::Start(Node::Scheduler, life) if life == self.scheduler.life => self.start_scheduler(),
            Happening::Start(Node::Agent(number), life) if self.lives(number, life) => self.start_agent(number),
            Happening::Start(..) => Ok(()),
            Happening::Stop(number, life, pause) if self.lives(number, life) => {
                self.world.plan(pause, Happening::Start(Node::Agent(number), life + 1));
                self.agents.get_mut(number).map_or(Ok(()), |agent| agent.crash(&mut self.world))
            }
            Happening::Stop(..) => Ok(()),
            Happening::Process(number, attempt, serial, step) => {
                let Some(agent) = self.agents.get_mut(number) else { return Ok(()) };
                if step == Step::Orphaned && agent.up.is_none() {
                    // The next start's survey finds it.
                    return Ok(());
                }
                let (now, random) = (self.world.now, &mut self.world.random);
                let (news, plans) = agent.device.step(attempt, serial, step, now, random);
                for (at, attempt, serial, step) in plans {
                    self.world.queue.plan(at, Happening::Process(number, attempt, serial, step));
                }
                if let Some(news) = news {
                    agent.on_news(&mut self.world, news)?;
                }
                self.check_exclusive(attempt.task)?;
                self.check_semaphores(attempt.task)
            }
            Happening::Client(number) => {
                if let Some(client) = self.clients.get_mut(number) {
                    client.on_tick(&mut self.world);
                }
                Ok(())
            }
            Happening::Fault(fault) => self.on_fault(fault),
            Happening::Snapshot(node, life) => self.on_snapshot(node, life).and_then(|()| self.bury(node)),
            Happening::Mend(node) => {
                self.mend(node);
                Ok(())
            }
            Happening::Heal(peer) => {
                self.heal(peer);
                Ok(())
            }
            Happening::Idle(connection, end, cut) => {
                self.on_idle(connection, end, cut);
                Ok(())
            }
        }
    }

    /// What is exclusive runs nowhere else. A device that sleeps, or has just woken up, runs nothing; a copied
    /// card, which two devices have, runs what the other does.
    fn check_exclusive(&self, task: TaskId) -> Result<(), Violation> {
        if !self.history.job(task.job).is_some_and(|job| job.spec.terms.exclusive) {
            return Ok(());
        }
        invariant_p2_exclusive_work_runs_once(task, self.running_awake())
    }

    /// Whoever holds a semaphore that a task of the same job has does so with no more others than there is room for.
    fn check_semaphores(&self, task: TaskId) -> Result<(), Violation> {
        let Some(spec) = self.history.job(task.job).and_then(|job| job.spec.tasks.get(usize::from(task.entry))) else {
            return Ok(());
        };
        spec.semaphores
            .iter()
            .try_for_each(|one| invariant_semaphores_are_kept(&self.history, one, self.running_awake()))
    }

    fn running_awake(&self) -> impl Iterator<Item = (String, AttemptId)> {
        let now = self.world.now;
        let counts = move |agent: &&AgentNode| !agent.was_copied && agent.suspended_until + WAKES_IN <= now;
        let awake = self.agents.iter().filter(counts);
        awake.flat_map(|agent| agent.device.supervised().map(|attempt| (agent.name.to_string(), attempt)))
    }

    /// What happens on a suspended device happens when it wakes up.
    fn sleeps_until(&self, what: &Happening) -> Option<Time> {
        let peer = |connection: &ConnectionId| match self.world.network.connection(*connection)?.peer {
            Peer::Agent(number) => Some(number),
            Peer::Client(_) => None,
        };
        let number = match what {
            Happening::Look(connection, End::Peer)
            | Happening::Gone(connection, End::Peer)
            | Happening::Idle(connection, End::Peer, _) => peer(connection)?,
            Happening::Dial(Peer::Agent(number), _)
            | Happening::Wake(Node::Agent(number), _)
            | Happening::Synced(Node::Agent(number), _)
            | Happening::Release(Node::Agent(number), _)
            | Happening::Snapshot(Node::Agent(number), _)
            | Happening::Start(Node::Agent(number), _)
            | Happening::Process(number, ..)
            | Happening::Stop(number, ..) => *number,
            _ => return None,
        };
        self.agents.get(number).map(|agent| agent.suspended_until).filter(|until| *until > self.world.now)
    }

    pub(super) fn on_look(&mut self, connection: ConnectionId, end: End) -> Result<(), Violation> {
        let Some(peer) = self.world.network.connection(connection).map(|open| open.peer) else { return Ok(()) };
        let mut arrived = std::mem::take(&mut self.arrived);
        self.world.network.arrived(connection, end, self.world.now, &mut arrived);
        let result =
            arrived.drain(..).try_for_each(|(stream, bytes)| self.deliver(connection, (peer, end), stream, bytes));
        self.arrived = arrived;
        result
    }

    pub(super) fn deliver(
        &mut self,
        connection: ConnectionId,
        (peer, end): (Peer, End),
        stream: u32,
        bytes: Vec<u8>,
    ) -> Result<(), Violation> {
        match (end, peer) {
            (End::Scheduler, _) => {
                if let Some(principal) = self.principal(peer) {
                    self.scheduler.on_frame(&mut self.world, connection, stream, bytes, &principal);
                }
                Ok(())
            }
            (End::Peer, Peer::Agent(number)) => {
                if let Some(agent) = self.agents.get_mut(number) {
                    agent.on_frame(&mut self.world, connection, stream, bytes, false);
                }
                Ok(())
            }
            (End::Peer, Peer::Client(number)) => match self.clients.get_mut(number) {
                Some(client) if client.connection() == Some(connection) => {
                    client.on_frame(&mut self.world, &self.history, stream, &bytes)
                }
                Some(_) | None => Ok(()),
            },
        }
    }

    pub(super) fn on_gone(&mut self, connection: ConnectionId, end: End) {
        let Some(peer) = self.world.network.connection(connection).map(|open| open.peer) else { return };
        match (end, peer) {
            (End::Scheduler, _) => self.scheduler.on_gone(&mut self.world, connection),
            (End::Peer, Peer::Agent(number)) => {
                if let Some(agent) = self.agents.get_mut(number) {
                    agent.on_gone(&mut self.world, connection);
                }
            }
            (End::Peer, Peer::Client(number)) => {
                if let Some(client) = self.clients.get_mut(number) {
                    client.on_gone(&mut self.world, connection);
                }
            }
        }
    }

    pub(super) fn on_dial(&mut self, peer: Peer, life: u64) {
        let reachable = self.scheduler.up.is_some()
            && self.scheduler.paused_until.is_none()
            && self.world.network.reaches(peer, End::Scheduler)
            && self.world.network.reaches(peer, End::Peer);
        match peer {
            Peer::Agent(number) if self.lives(number, life) => {
                if let Some(agent) = self.agents.get_mut(number) {
                    agent.on_dial(&mut self.world, reachable);
                }
            }
            Peer::Agent(_) => {}
            Peer::Client(number) => {
                if let Some(client) = self.clients.get_mut(number) {
                    client.on_dial(&mut self.world, reachable);
                }
            }
        }
    }

    /// A handshake is late, or a connection that is cut off has heard nothing for too long.
    pub(super) fn on_idle(&mut self, connection: ConnectionId, end: End, cut: u64) {
        let Some(peer) = self.world.network.connection(connection).map(|open| open.peer) else { return };
        if cut == u64::MAX {
            match peer {
                Peer::Agent(number) => {
                    if let Some(agent) = self.agents.get_mut(number) {
                        agent.on_greeting_late(&mut self.world, connection);
                    }
                }
                Peer::Client(number) => {
                    if let Some(client) = self.clients.get_mut(number) {
                        client.on_greeting_late(&mut self.world, connection);
                    }
                }
            }
        } else if [End::Scheduler, End::Peer].into_iter().any(|end| !self.world.network.reaches(peer, end)) {
            self.world.network.break_off(connection);
            self.on_gone(connection, end);
        }
    }

    pub(super) fn on_wake(&mut self, node: Node, life: u64) -> Result<(), Violation> {
        match node {
            Node::Scheduler if life == self.scheduler.life => {
                self.scheduler.on_wake(&mut self.world, &mut self.history, &self.agents)
            }
            Node::Agent(number) if self.lives(number, life) => {
                self.agents.get_mut(number).map_or(Ok(()), |agent| agent.on_wake(&mut self.world))
            }
            Node::Scheduler | Node::Agent(_) => Ok(()),
        }
    }

    pub(super) fn on_synced(&mut self, node: Node, life: u64) -> Result<(), Violation> {
        match node {
            Node::Scheduler if life == self.scheduler.life => {
                self.scheduler.on_synced(&mut self.world, &mut self.history)
            }
            Node::Agent(number) if self.lives(number, life) => {
                self.agents.get_mut(number).map_or(Ok(()), |agent| agent.on_synced(&mut self.world))
            }
            Node::Scheduler | Node::Agent(_) => Ok(()),
        }
    }

    pub(super) fn on_snapshot(&mut self, node: Node, life: u64) -> Result<(), Violation> {
        match node {
            Node::Scheduler if life == self.scheduler.life => {
                self.scheduler.on_snapshot(&mut self.world, &mut self.history)
            }
            Node::Agent(number) if self.lives(number, life) => {
                self.agents.get_mut(number).map_or(Ok(()), |agent| agent.on_snapshot(&mut self.world))
            }
            Node::Scheduler | Node::Agent(_) => Ok(()),
        }
    }

    pub(super) fn on_release(&mut self, node: Node, life: u64) -> Result<(), Violation> {
        match node {
            Node::Scheduler if life == self.scheduler.life => self.scheduler.on_release(&mut self.world, &self.history),
            Node::Agent(number) if self.lives(number, life) => {
                self.agents.get_mut(number).map_or(Ok(()), |agent| agent.on_release(&mut self.world))
            }
            Node::Scheduler | Node::Agent(_) => Ok(()),
        }
    }
}

/// A number that tells one happening from another in the trace's hash.
pub(super) fn kind(what: &Happening) -> u64 {
    match what {
        Happening::Look(connection, _) => connection.0 << 8,
        Happening::Gone(connection, _) => connection.0 << 8 | 1,
        Happening::Dial(..) => 2,
        Happening::Wake(_, life) => life << 8 | 3,
        Happening::Synced(_, life) => life << 8 | 4,
        Happening::Release(_, life) => life << 8 | 5,
        Happening::Start(_, life) => life << 8 | 6,
        Happening::Process(_, _, serial, _) => serial << 8 | 7,
        Happening::Client(_) => 8,
        Happening::Fault(fault) => (*fault as u64) << 8 | 9,
        Happening::Heal(_) => 10,
        Happening::Idle(connection, ..) => connection.0 << 8 | 11,
        Happening::Mend(_) => 13,
        Happening::AcceptRestore => 15,
        Happening::Snapshot(_, life) => life << 8 | 14,
        Happening::Stop(number, ..) => (*number as u64) << 8 | 12,
    }
}
