//! A whole cluster on virtual time: one scheduler, some agents, some clients, and a network between them.
//! [`Cluster::step`] does the next thing that happens and then holds the promises against it.

use crate::{
    agent::AgentNode,
    client::{ClientNode, Wish},
    coverage::Death,
    faults::{Scale, Setting},
    history::History,
    invariants::invariant_p6_every_result_arrived,
    network::{End, Peer},
    random::Random,
    recurring,
    scheduler::SchedulerNode,
    sharing,
    trace::{Violation, broken},
    workload::{self, Offer, name},
    world::{Happening, Node, World},
};
use fleetwire_common::{
    fb,
    ids::{Principal, TaskId},
    policy::ClusterPolicy,
    time::Time,
};
use fleetwire_journal::sim_disk::SimDisk;
use std::{collections::BTreeSet, time::Duration};

mod happenings;
mod restoring;

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    /// What all parts share.
    pub world: World,
    /// The scheduler's machine.
    pub scheduler: SchedulerNode,
    /// The devices.
    pub agents: Vec<AgentNode>,
    /// The clients.
    pub clients: Vec<ClientNode>,
    /// What the scheduler's journal says.
    pub history: History,
    /// Faults happen until then.
    pub faults_until: Time,
    /// A copy of the scheduler's data.
    backup: Option<restoring::Backup>,
    /// Its data was put back, and it has not started since.
    put_back: bool,
    /// The operator knows that the scheduler runs on a backup, and will decide.
    restore_seen: bool,
    /// Agents that operators have taken out of service.
    drained: BTreeSet<String>,
    /// The policy that operators want in the end, if any.
    policy: Option<ClusterPolicy>,
    /// The job that is submitted by a cron, if one is.
    recurring: Option<String>,
    cuts: u64,
    seen: u64,
    arrived: Vec<(u32, Vec<u8>)>,
}

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The hash of everything that happened.
    pub hash: u64,
    /// How many things happened.
    pub events: u64,
    /// How much virtual time passed.
    pub passed: Duration,
    /// Tasks that ended.
    pub tasks: u64,
    /// Attempts that were started on devices.
    pub attempts: u64,
    /// Times that a process was started, the scheduler's and agents' together.
    pub starts: u64,
    /// Forged frames that were refused.
    pub refused: u64,
}

/// How long a cluster without faults may take until every task has ended.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// In every so many seeds, operators drain agents.
const DRAINED_EVERY: u64 = 5;

/// In every so many seeds, there are queues.
const QUEUES_EVERY: u64 = 3;

/// In every so many seeds, a job is submitted by a cron.
const RECURRING_EVERY: u64 = 4;

/// By then clients have asked again for whatever was not answered before.
const TAKEN_BACK_AFTER: Duration = Duration::from_secs(600);

impl Cluster {
    /// A cluster that has just been set up: everybody enrolled and started.
    ///
    /// # Errors
    /// A promise is broken.
    pub fn new(seed: u64, setting: Setting, offers: Vec<Offer>, readable: bool) -> Result<Cluster, Violation> {
        let mut world = World::new(seed, setting, readable);
        let faults_until = world.now + world.setting.active;
        let agents: Vec<AgentNode> = (0..)
            .zip(offers)
            .map(|(number, offer)| AgentNode::new(number, name(&agent_name(number)), offer, SimDisk::new(), &mut world))
            .collect();
        let clients: Vec<ClientNode> = (0..world.setting.clients)
            .map(|number| ClientNode::new(number, name(&format!("op-{number}")), &world.keys))
            .collect();
        let scheduler = SchedulerNode::new(SimDisk::new());
        let mut cluster = Cluster {
            world,
            scheduler,
            agents,
            clients,
            history: History::default(),
            faults_until,
            backup: None,
            put_back: false,
            restore_seen: false,
            drained: BTreeSet::new(),
            policy: None,
            recurring: None,
            cuts: 0,
            seen: 0,
            arrived: Vec::new(),
        };
        let everybody: Vec<Principal> = cluster.principals().collect();
        cluster.scheduler.start(&mut cluster.world, &mut cluster.history, &everybody)?;
        for agent in &mut cluster.agents {
            agent.start(&mut cluster.world)?;
        }
        for number in 0..cluster.clients.len() {
            cluster.world.plan(Duration::from_millis(1), Happening::Dial(Peer::Client(number), 0));
        }
        Ok(cluster)
    }

    /// A cluster as a seed draws it, with its jobs and its misfortunes planned.
    ///
    /// # Errors
    /// A promise is broken.
    pub fn of_seed(seed: u64, scale: Scale, readable: bool) -> Result<Cluster, Violation> {
        let mut random = Random::new(seed);
        let setting = Setting::swarm(scale, &mut random);
        let offers: Vec<Offer> = (0..setting.agents).map(|_| Offer::random(&mut random)).collect();
        let mut cluster = Cluster::new(random.next(), setting, offers.clone(), readable)?;
        if seed % QUEUES_EVERY == 1 {
            cluster.plan_policies(&offers, random.clone().fork(0x9e5));
        }
        cluster.plan_jobs(&offers, &mut random);
        if seed % RECURRING_EVERY == 2 {
            cluster.plan_recurring(&offers, random.clone().fork(0xc40));
        }
        if seed.is_multiple_of(DRAINED_EVERY) {
            cluster.plan_drains(&mut random);
        }
        cluster.plan_faults();
        Ok(cluster)
    }

    /// Runs until the faults stop, then until every task has ended and nothing is under way.
    ///
    /// # Errors
    /// A promise is broken.
    pub fn run(&mut self) -> Result<Outcome, Violation> {
        self.run_until(self.faults_until)?;
        self.stop_faults()?;
        let patience = self.world.now + PATIENCE;
        while !self.is_idle() {
            if self.world.now > patience || !self.step(patience)? {
                return self.invariant_liveness();
            }
        }
        self.invariant_at_the_end()?;
        Ok(self.outcome())
    }

    /// Runs until that time.
    ///
    /// # Errors
    /// A promise is broken.
    pub fn run_until(&mut self, until: Time) -> Result<(), Violation> {
        while self.step(until)? {}
        self.world.now = self.world.now.max(until);
        Ok(())
    }

    /// Does the next thing that happens, if it happens by `until`; says whether there was one.
    ///
    /// # Errors
    /// A promise is broken.
    pub fn step(&mut self, until: Time) -> Result<bool, Violation> {
        let Some((at, what)) = self.world.queue.next(until) else { return Ok(false) };
        self.world.now = self.world.now.max(at);
        self.seen += 1;
        self.world.trace.event(at, happenings::kind(&what));
        self.happen(what)?;
        Ok(true)
    }

    /// What became of it.
    pub fn outcome(&self) -> Outcome {
        Outcome {
            hash: self.world.trace.hash(),
            events: self.world.trace.events(),
            passed: self.world.now.since(crate::world::BEGAN),
            tasks: self.history.tasks().filter(|(_, task)| task.ended.is_some()).count() as u64,
            attempts: self.agents.iter().map(|agent| agent.device.started() as u64).sum(),
            starts: self.scheduler.life + self.agents.iter().map(|agent| agent.life).sum::<u64>(),
            refused: self.scheduler.refused,
        }
    }

    /// Whether every job has ended and nothing is under way anywhere.
    pub fn is_idle(&self) -> bool {
        self.history.tasks_open() == 0
            && self.scheduler.up.as_ref().is_some_and(|up| up.is_idle())
            && self.agents.iter().all(AgentNode::is_idle)
            && self.clients.iter().all(ClientNode::is_idle)
    }

    /// All misfortune ends: everything runs, and everybody can reach everybody.
    ///
    /// # Errors
    /// A promise is broken.
    pub fn stop_faults(&mut self) -> Result<(), Violation> {
        self.faults_until = self.world.now;
        self.take_back();
        for peer in self.peers() {
            self.heal(peer);
        }
        self.scheduler.paused_until = None;
        self.scheduler.slow_until = Time::ZERO;
        for node in self.nodes() {
            self.mend(node);
            self.spare(node);
        }
        if self.scheduler.up.is_none() {
            self.start_scheduler()?;
        }
        let life = self.scheduler.life;
        self.world.plan(Duration::ZERO, Happening::Wake(Node::Scheduler, life));
        for copy in self.agents.iter_mut().skip(self.world.setting.agents) {
            copy.retire(&mut self.world)?;
        }
        for number in 0..self.agents.len() {
            if let Some(agent) = self.agents.get_mut(number) {
                agent.slow_until = Time::ZERO;
            }
            // What slept goes on when it would have: its events are planned for then.
            self.start_agent(number)?;
        }
        Ok(())
    }

    /// Starts the scheduler's process, unless it runs.
    ///
    /// # Errors
    /// A promise is broken.
    pub fn start_scheduler(&mut self) -> Result<(), Violation> {
        if self.scheduler.up.is_some() {
            return Ok(());
        }
        self.scheduler.start(&mut self.world, &mut self.history, &[])?;
        if self.scheduler.up.is_some() {
            self.outlive();
            return self.invariant_p1_after_a_crash();
        }
        // It was killed, or met a failing disk, while it read its journal.
        self.world.trace.coverage.died(Node::Scheduler, Death::AtItsStart);
        if self.world.random.chance(self.world.setting.power_permille) {
            crate::misfortune::lose_unsynced(&self.scheduler.disk, &mut self.world);
        }
        self.scheduler.disk.mend();
        Ok(())
    }

    /// Starts an agent's process, unless it runs.
    ///
    /// # Errors
    /// A promise is broken.
    pub fn start_agent(&mut self, number: usize) -> Result<(), Violation> {
        match self.agents.get_mut(number) {
            Some(agent) if agent.up.is_none() && !agent.is_retired => {
                agent.start(&mut self.world)?;
                if agent.up.is_none() {
                    agent.disk.mend();
                    self.world.trace.coverage.died(Node::Agent(number), Death::AtItsStart);
                }
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Kills the scheduler's process.
    ///
    /// # Errors
    /// A promise is broken.
    pub fn crash_scheduler(&mut self) -> Result<(), Violation> {
        self.scheduler.crash(&mut self.world, &self.history)
    }

    /// Cuts a peer off at the given ends; idle timeouts end its connections if that lasts.
    pub fn cut_off(&mut self, peer: Peer, ends: &[End]) {
        self.cuts += 1;
        let now = self.world.now;
        self.world.trace.say(now, || format!("{peer:?} is cut off at {ends:?}"));
        for end in ends {
            self.world.network.cut_off(peer, *end);
        }
        for connection in self.world.network.of_peer(peer) {
            for end in [End::Scheduler, End::Peer] {
                let idle = self.world.between(Duration::from_secs(25), Duration::from_secs(35));
                self.world.plan(idle, Happening::Idle(connection, end, self.cuts));
            }
        }
    }

    /// Lets a peer through again.
    pub fn heal(&mut self, peer: Peer) {
        self.cuts += 1;
        let now = self.world.now;
        self.world.trace.say(now, || format!("{peer:?} is reachable again"));
        for (at, connection, end) in self.world.network.heal(peer, now) {
            self.world.queue.plan(at, Happening::Look(connection, end));
        }
    }

    /// Breaks a peer's connection; both ends learn of it in time.
    pub fn break_connection(&mut self, peer: Peer) {
        for connection in self.world.network.of_peer(peer) {
            self.world.network.break_off(connection);
            for end in [End::Scheduler, End::Peer] {
                let learns = self.world.between(Duration::from_millis(1), Duration::from_secs(35));
                self.world.plan(learns, Happening::Gone(connection, end));
            }
        }
    }

    /// Everybody who has a journal.
    pub fn nodes(&self) -> Vec<Node> {
        [Node::Scheduler].into_iter().chain((0..self.agents.len()).map(Node::Agent)).collect()
    }

    /// Everybody who connects to the scheduler.
    pub fn peers(&self) -> Vec<Peer> {
        let agents = (0..self.agents.len()).map(Peer::Agent);
        agents.chain((0..self.clients.len()).map(Peer::Client)).collect()
    }

    fn lives(&self, number: usize, life: u64) -> bool {
        self.agents.get(number).is_some_and(|agent| agent.life == life)
    }

    fn principal(&self, peer: Peer) -> Option<Principal> {
        match peer {
            Peer::Agent(number) => self.agents.get(number).map(|agent| agent.principal.clone()),
            Peer::Client(number) => self.clients.get(number).map(|client| client.principal.clone()),
        }
    }

    fn principals(&self) -> impl Iterator<Item = Principal> + '_ {
        self.peers().into_iter().filter_map(|peer| self.principal(peer))
    }

    fn plan_jobs(&mut self, offers: &[Offer], random: &mut Random) {
        let setting = self.world.setting.clone();
        let world = &mut self.world;
        let active = setting.active.as_micros() as u64;
        let mut tasks = 0;
        for number in 0.. {
            if number >= setting.jobs && tasks >= setting.tasks_min {
                break;
            }
            let job = workload::job(number, offers, setting.tasks_max, random);
            let job = if self.policy.is_some() { workload::queued(job, random.clone()) } else { job };
            tasks += job.task_count();
            let Some(client) = self.clients.get_mut(random.below(setting.clients)) else { continue };
            let later = |random: &mut Random| Duration::from_micros(random.between(0, active * 3 / 4));
            let at = world.now + later(random);
            let submit = client.submit(world, at, &job);
            if random.chance(400) {
                let one = random.chance(500).then_some((0, 0));
                let at = at + later(random);
                client.wish(world, at, Wish::Cancel(submit, one));
            }
            for _ in 0..random.between(0, 6) {
                const KINDS: [fb::QueryKind; 9] = [
                    fb::QueryKind::Jobs,
                    fb::QueryKind::Job,
                    fb::QueryKind::Tasks,
                    fb::QueryKind::Tasks,
                    fb::QueryKind::Task,
                    fb::QueryKind::Agents,
                    fb::QueryKind::Explain,
                    fb::QueryKind::Result,
                    fb::QueryKind::Cluster,
                ];
                let kind = random.pick(&KINDS).copied().unwrap_or(fb::QueryKind::Jobs);
                let at = at + later(random);
                client.wish(world, at, Wish::Ask(submit, kind));
            }
            if random.chance(200) {
                let at = at + later(random);
                client.wish(world, at, Wish::Log(submit));
            }
        }
    }

    /// Operators set one policy after another, the first before anything else.
    fn plan_policies(&mut self, offers: &[Offer], mut random: Random) {
        let active = self.world.setting.active.as_micros() as u64;
        for number in 0..random.between(1, 4) {
            let policy = sharing::policy(offers, &mut random);
            let after = if number == 0 { 0 } else { random.between(0, active) };
            let at = self.world.now + Duration::from_micros(after);
            if let Some(client) = self.clients.first_mut() {
                client.wish(&mut self.world, at, Wish::Policy(Box::new(policy.to_wire())));
            }
            self.policy = Some(policy);
        }
    }

    /// A client has a job submitted by a cron, and lets it rest for a while; once all faults have stopped, it is no more.
    fn plan_recurring(&mut self, offers: &[Offer], mut random: Random) {
        let active = self.world.setting.active.as_micros() as u64;
        let schedule = recurring::schedule(offers, &mut random);
        let name = schedule.name.clone().unwrap_or_default();
        let mut times: Vec<u64> = (0..3).map(|_| random.between(0, active)).collect();
        times.sort_unstable();
        let change = |action| Wish::ChangeRecurring(name.clone(), action);
        let again = Wish::Recur(Box::new(schedule.clone()));
        let pause = if random.chance(500) { again } else { change(fb::ScheduleAction::Pause) };
        let wishes = [Wish::Recur(Box::new(schedule)), pause, change(fb::ScheduleAction::Resume)];
        let Some(client) = self.clients.first_mut() else { return };
        for (after, wish) in times.into_iter().zip(wishes) {
            let at = self.world.now + Duration::from_micros(after);
            client.wish(&mut self.world, at, wish);
        }
        self.recurring = Some(name);
    }

    /// Operators take agents out of service, and back; once all faults have stopped, all of them come back.
    fn plan_drains(&mut self, random: &mut Random) {
        let active = self.world.setting.active.as_micros() as u64;
        for _ in 0..random.between(1, 6) {
            let agent = agent_name(random.below(self.world.setting.agents));
            let action = random.pick(&[fb::AgentAction::Cordon, fb::AgentAction::Drain]).copied().unwrap_or_default();
            let drains = action == fb::AgentAction::Drain;
            let within = Duration::from_secs(if drains { random.between(0, 60) } else { 0 });
            let at = self.world.now + Duration::from_micros(random.between(0, active));
            let back = at + Duration::from_secs(random.skewed(1, 600));
            let Some(client) = self.clients.get_mut(random.below(self.world.setting.clients)) else { continue };
            client.wish(&mut self.world, at, Wish::Change(agent.clone(), action, within));
            client.wish(&mut self.world, back, Wish::Change(agent.clone(), fb::AgentAction::Uncordon, Duration::ZERO));
            self.drained.insert(agent);
        }
    }

    /// After whatever was asked before and not answered yet.
    fn take_back(&mut self) {
        let at = self.world.now + TAKEN_BACK_AFTER;
        let Some(client) = self.clients.first_mut() else { return };
        if let Some(policy) = &self.policy {
            client.wish(&mut self.world, at, Wish::Policy(Box::new(policy.to_wire())));
        }
        if let Some(name) = self.recurring.take() {
            let remove = Wish::ChangeRecurring(name, fb::ScheduleAction::Remove);
            client.wish(&mut self.world, at, remove);
        }
        for agent in std::mem::take(&mut self.drained) {
            client.wish(&mut self.world, at, Wish::Change(agent, fb::AgentAction::Uncordon, Duration::ZERO));
        }
    }

    /// Promise P1 after a crash, for everything that anybody was told.
    fn invariant_p1_after_a_crash(&self) -> Result<(), Violation> {
        self.clients.iter().try_for_each(|client| client.invariant_p1_acknowledged_is_durable(&self.history))
    }

    /// Once faults have stopped, every task reaches an end.
    fn invariant_liveness(&self) -> Result<Outcome, Violation> {
        let mut waits = Vec::new();
        for (job, record) in self.history.jobs().filter(|(_, record)| record.open > 0) {
            for (entry, spec) in (0..).zip(&record.spec.tasks) {
                let ids = (0..spec.count).map(|index| TaskId { job, entry, index });
                let open = |id: &TaskId| self.history.task(*id).is_none_or(|task| task.ended.is_none());
                waits.extend(ids.filter(open).take(3).map(|id| format!("{id} {:?}", self.history.task(id))));
            }
        }
        for agent in self.agents.iter().filter(|agent| !agent.is_idle()) {
            let held = agent.up.as_ref().map(|up| up.core.state().attempts().len());
            waits.push(format!("{} holds {held:?}, {} run", agent.name, agent.device.running()));
        }
        for client in self.clients.iter().filter(|client| !client.is_idle()) {
            waits.push(format!("client {client:?}"));
        }
        if let Some(up) = self.scheduler.up.as_ref().filter(|up| !up.is_idle()) {
            waits.push(format!("scheduler {up:?}, its ledger: {:?}", up.ledger().collect::<Vec<_>>()));
        }
        broken("liveness", format!("without faults it is not done after {PATIENCE:?}: {}", waits.join("; ")))
    }

    /// When all is done: everything acknowledged is there, and the shadow agrees.
    fn invariant_at_the_end(&self) -> Result<(), Violation> {
        self.scheduler.compare_all()?;
        for agent in self.agents.iter().filter(|agent| !agent.is_retired) {
            invariant_p6_every_result_arrived(agent.name.as_str(), &agent.history, &self.history)?;
        }
        self.invariant_p1_after_a_crash()
    }
}

/// The name of the agent of that number: `a` to `z`.
pub fn agent_name(number: usize) -> String {
    u8::try_from(number).ok().and_then(|n| b'a'.checked_add(n)).map_or_else(String::new, |c| char::from(c).to_string())
}
