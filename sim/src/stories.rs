//! The words in which scenarios are told: `t.agent("a").crash(); t.run_for(…); …`. Every sentence runs the
//! cluster and holds the promises against every event; a broken one panics with the trace's last lines.

use crate::{
    behaviour::Behaviour,
    cluster::Cluster,
    faults::{Fault, Setting},
    network::{End, Peer},
    trace::Violation,
    workload::{Offer, name},
    world::{Happening, Node},
};
use fleetwire_common::{
    custom::Custom,
    fb,
    ids::{JobId, SubmitId, TaskId},
    job::{JobSpec, TaskSpec},
    policy::ClusterPolicy,
    resources::Resources,
    terms::Terms,
    time::Time,
};
use std::time::Duration;

/// A cluster with a story.
#[derive(Debug)]
pub struct Story {
    /// The cluster itself, for what has no words here.
    pub cluster: Cluster,
}

/// One agent of a story.
#[derive(Debug)]
pub struct AgentOf<'s> {
    story: &'s mut Story,
    number: usize,
}

/// The scheduler of a story.
#[derive(Debug)]
pub struct SchedulerOf<'s> {
    story: &'s mut Story,
}

/// The longest that anything is waited for, virtual time.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// What every agent of a story offers: room for four tasks of [`task`].
pub const CAPACITY: Resources = Resources { cpu: 4_000, memory: 4_000, gpu: 0, storage: 100 };

/// A task of a story: a quarter of an agent.
pub fn task(behaviour: &Behaviour) -> TaskSpec {
    TaskSpec {
        name: name("work"),
        command: "sim".to_owned(),
        arguments: behaviour.arguments(),
        resources: Resources { cpu: 1_000, memory: 100, gpu: 0, storage: 0 },
        ..TaskSpec::default()
    }
}

/// A task that runs for so long and ends well.
pub fn runs_for(duration: Duration) -> TaskSpec {
    task(&Behaviour { runs_for: duration, ..Behaviour::default() })
}

impl Story {
    /// A calm cluster of that many agents, `a`, `b`, `c`, …, and one client, where everybody is ready.
    pub fn of(agents: usize) -> Story {
        Story::of_seed(agents, 1)
    }

    /// The same with another seed.
    pub fn of_seed(agents: usize, seed: u64) -> Story {
        Story::with(Setting { agents, ..Setting::calm() }, seed)
    }

    /// A cluster of that setting.
    pub fn with(setting: Setting, seed: u64) -> Story {
        let offer = Offer {
            capacity: CAPACITY,
            custom: Custom::default(),
            labels: Vec::new(),
            agent_types: vec![fb::AgentType::Trainer],
        };
        let agents = setting.agents;
        let cluster = Cluster::new(seed, setting, vec![offer; agents], true);
        let cluster = cluster.unwrap_or_else(|violation| panic!("a cluster cannot be set up: {violation}"));
        let mut story = Story { cluster };
        story.run_until(|cluster| cluster.agents.iter().all(|agent| agent.is_ready()));
        story
    }

    /// The agent of that name.
    ///
    /// # Panics
    /// If there is none.
    pub fn agent(&mut self, name: &str) -> AgentOf<'_> {
        let number = self.cluster.agents.iter().position(|agent| agent.name.as_str() == name);
        let number = number.unwrap_or_else(|| panic!("there is no agent {name}"));
        AgentOf { story: self, number }
    }

    /// The scheduler.
    pub fn scheduler(&mut self) -> SchedulerOf<'_> {
        SchedulerOf { story: self }
    }

    /// The client submits a job of these tasks; `lost_after` counts from then on.
    pub fn submit(&mut self, tasks: Vec<TaskSpec>, lost_after: Duration) -> SubmitId {
        self.submit_on(tasks, Terms::lost_after(lost_after.as_secs()))
    }

    /// The operator sets a policy, and it holds.
    pub fn policy(&mut self, policy: &ClusterPolicy) {
        self.wish(crate::client::Wish::Policy(Box::new(policy.to_wire())));
        let holds = |cluster: &Cluster| {
            cluster.scheduler.up.as_ref().is_some_and(|up| *up.core.state().policy.policy == *policy)
        };
        self.run_until(holds);
    }

    /// The client submits a job to a queue.
    pub fn submit_to(&mut self, queue: &str, tasks: Vec<TaskSpec>) -> SubmitId {
        let job = JobSpec::new(name("story"), tasks, Terms::default());
        let job = job.unwrap_or_else(|error| panic!("a story's job must be valid: {error}")).in_queue(name(queue));
        let now = self.now();
        let Cluster { world, clients, .. } = &mut self.cluster;
        let client = clients.first_mut().unwrap_or_else(|| panic!("a story has a client"));
        client.submit(world, now, &job)
    }

    /// Has a job submitted on terms of its own, and does not wait for the answer.
    pub fn submit_on(&mut self, tasks: Vec<TaskSpec>, terms: Terms) -> SubmitId {
        let job = JobSpec::new(name("story"), tasks, terms);
        let job = job.unwrap_or_else(|error| panic!("a story's job must be valid: {error}"));
        let now = self.now();
        let Cluster { world, clients, .. } = &mut self.cluster;
        let client = clients.first_mut().unwrap_or_else(|| panic!("a story has a client"));
        client.submit(world, now, &job)
    }

    /// The client wants something more.
    pub fn wish(&mut self, wish: crate::client::Wish) {
        let now = self.now();
        let Cluster { world, clients, .. } = &mut self.cluster;
        if let Some(client) = clients.first_mut() {
            client.wish(world, now, wish);
        }
    }

    /// The same, and runs until it is acknowledged.
    pub fn submitted(&mut self, tasks: Vec<TaskSpec>, lost_after: Duration) -> JobId {
        self.submitted_on(tasks, Terms::lost_after(lost_after.as_secs()))
    }

    /// The same on terms of its own.
    pub fn submitted_on(&mut self, tasks: Vec<TaskSpec>, terms: Terms) -> JobId {
        let id = self.submit_on(tasks, terms);
        self.run_until(|cluster| cluster.clients.iter().any(|client| client.jobs.contains_key(&id)));
        self.job_of(id)
    }

    /// The number of a job that was acknowledged.
    ///
    /// # Panics
    /// If it was not.
    pub fn job_of(&self, id: SubmitId) -> JobId {
        let job = self.cluster.clients.iter().find_map(|client| client.jobs.get(&id));
        job.copied().unwrap_or_else(|| panic!("the job was not acknowledged"))
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.cluster.world.now
    }

    /// Runs for a while.
    pub fn run_for(&mut self, duration: Duration) {
        let until = self.now() + duration;
        let ran = self.cluster.run_until(until);
        self.expect(ran);
    }

    /// Runs until every task has ended and nothing is under way anywhere.
    pub fn run_until_idle(&mut self) {
        self.run_until(Cluster::is_idle);
    }

    /// Runs until something holds.
    ///
    /// # Panics
    /// If it never does.
    pub fn run_until(&mut self, holds: impl Fn(&Cluster) -> bool) {
        let until = self.now() + PATIENCE;
        while !holds(&self.cluster) {
            let stepped = self.cluster.step(until);
            if !self.expect(stepped) {
                self.fail("what the story waits for never happens");
            }
        }
    }

    /// Something goes wrong, once, for somebody.
    pub fn strike(&mut self, fault: Fault) {
        let struck = self.cluster.strike(fault);
        self.expect(struck);
    }

    /// Cuts an agent off in both directions, until [`Story::heal`].
    pub fn partition(&mut self, agent: &str) {
        let number = self.agent(agent).number;
        self.cluster.cut_off(Peer::Agent(number), &[End::Scheduler, End::Peer]);
    }

    /// Lets an agent through again.
    pub fn heal(&mut self, agent: &str) {
        let number = self.agent(agent).number;
        self.cluster.heal(Peer::Agent(number));
    }

    /// How every task of a job ended; `None` for those that have not.
    pub fn ends(&self, job: JobId) -> Vec<Option<fb::TaskStatus>> {
        let Some(record) = self.cluster.history.job(job) else { return Vec::new() };
        let mut ends = Vec::new();
        for (entry, spec) in (0..).zip(&record.spec.tasks) {
            for index in 0..spec.count {
                let task = self.cluster.history.task(TaskId { job, entry, index });
                ends.push(task.and_then(|task| task.ended).map(|(_, status)| status));
            }
        }
        ends
    }

    /// Whether every task of a job has completed.
    pub fn all_completed(&self, job: JobId) -> bool {
        let ends = self.ends(job);
        !ends.is_empty() && ends.iter().all(|end| *end == Some(fb::TaskStatus::Completed))
    }

    /// How many attempts a task has had.
    pub fn attempts(&self, job: JobId, index: u32) -> usize {
        let task = self.cluster.history.task(TaskId { job, entry: 0, index });
        task.map_or(0, |task| task.attempts.len())
    }

    /// The attempt by which a task completed.
    pub fn committed(&self, job: JobId, index: u32) -> Option<u32> {
        let task = self.cluster.history.task(TaskId { job, entry: 0, index })?;
        let completed = |status| status == fb::TaskStatus::Completed;
        task.attempts.iter().find(|(_, attempt)| attempt.ended.is_some_and(|(_, s)| completed(s))).map(|(n, _)| *n)
    }

    /// How many tasks of a job have ended.
    pub fn ended(&self, job: JobId) -> usize {
        self.ends(job).iter().flatten().count()
    }

    /// Unwraps what the cluster said.
    pub fn expect<T>(&self, result: Result<T, Violation>) -> T {
        result.unwrap_or_else(|violation| self.fail(&violation.to_string()))
    }

    fn fail(&self, what: &str) -> ! {
        let lines = self.cluster.world.trace.last_lines(60).join("\n");
        panic!("{what}\nthe last of the trace:\n{lines}")
    }
}

impl AgentOf<'_> {
    /// Kills its process; its tasks go on under their supervisors.
    pub fn crash(self) {
        let Cluster { world, agents, .. } = &mut self.story.cluster;
        let crashed = agents.get_mut(self.number).map_or(Ok(()), |agent| agent.crash(world));
        self.story.expect(crashed);
    }

    /// Takes its power; its tasks are gone.
    pub fn reboot(self) {
        let Cluster { world, agents, .. } = &mut self.story.cluster;
        let gone = agents.get_mut(self.number).map_or(Ok(()), |agent| agent.reboot(world));
        self.story.expect(gone);
    }

    /// Starts its process again.
    pub fn start(self) {
        let started = self.story.cluster.start_agent(self.number);
        self.story.expect(started);
    }

    /// Breaks its connection.
    pub fn break_connection(self) {
        self.story.cluster.break_connection(Peer::Agent(self.number));
    }

    /// How many attempts have processes on it.
    pub fn running(self) -> usize {
        self.story.cluster.agents.get(self.number).map_or(0, |agent| agent.device.running())
    }

    /// How many attempts ever ran on it.
    pub fn started(self) -> usize {
        self.story.cluster.agents.get(self.number).map_or(0, |agent| agent.device.started())
    }
}

impl SchedulerOf<'_> {
    /// Kills its process and takes what its disk had not synced.
    pub fn crash(self) {
        let crashed = self.story.cluster.crash_scheduler();
        self.story.expect(crashed);
    }

    /// Starts its process again.
    pub fn start(self) {
        let started = self.story.cluster.start_scheduler();
        self.story.expect(started);
    }

    /// It stands still for a while: what arrives waits.
    pub fn pause(self, pause: Duration) {
        let Cluster { world, scheduler, .. } = &mut self.story.cluster;
        let until = world.now + pause;
        scheduler.pause(world, until);
    }

    /// Kills it and starts it again after a while.
    pub fn restart_after(self, pause: Duration) {
        let story = self.story;
        SchedulerOf { story }.crash();
        let life = story.cluster.scheduler.life;
        story.cluster.world.plan(pause, Happening::Start(Node::Scheduler, life));
    }
}
