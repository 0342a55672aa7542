//! How well a day went: how long tasks waited, how much was in use, and how evenly who shares the cluster was served.
//!
//! Invariants: a wait is from when a task may run until its first start; what comes after other tasks is not counted, since
//! when it may run is up to the policy too. In use counts until the last job came: the rest of a day is only its end.

use fleetwire_common::{
    fb,
    ids::{AgentId, AttemptId, JobId, Name},
    job::{JobSpec, TaskSpec},
    resources::Resources,
    time::Time,
};
use fleetwire_scheduler_core::{
    attempts::is_end,
    fact::{Ended, Fact},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// What a day came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Tasks that ended.
    pub ended: u64,
    /// Tasks that had not when the day was given up.
    pub unended: u64,
    /// Attempts that made way for others.
    pub made_way: u64,
    /// Attempts that were lost with their agents.
    pub lost: u64,
    /// Jobs that were refused,
    pub refused: u64,
    /// and why the first of them.
    pub why: Option<String>,
    /// Waits: mean, median, 95 %, 99 %, the longest.
    pub waits: Waits,
    /// How many times as long as their run tasks took from when they came, in the mean; a run counts as ten seconds at least
    /// (Feitelson and Rudolph, 1998: bounded slowdown).
    pub slowdown: f64,
    /// Of cores or of memory, of what was scarcer, the part in use.
    pub in_use: f64,
    /// The mean slowdown of each priority, the most urgent first.
    pub by_priority: Vec<(i8, f64)>,
    /// The part that queues had of what was due to them: of their tasks that could run, the largest share of the cluster that all
    /// of one priority can have alike, once what is more urgent has its own (max-min fairness of dominant shares: Ghodsi and
    /// others, NSDI 2011). 1 = nobody ever had less.
    pub fairness: f64,
    /// From the first arrival to the last end.
    pub lasts: Duration,
}

/// How long tasks waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// In the mean.
    pub mean: Duration,
    /// Of half of them, no longer.
    pub p50: Duration,
    /// Of 95 %.
    pub p95: Duration,
    /// Of 99 %.
    pub p99: Duration,
    /// Of all.
    pub max: Duration,
}

/// Whose task it is, and how urgent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Party {
    /// Of what priority.
    pub priority: i8,
    /// In which queue.
    pub queue: Name,
}

/// Takes the measures of a day while its facts come, whoever decided them.
#[derive(Debug, Default)]
pub struct Meter {
    now: Time,
    last_arrival: Time,
    first_arrival: Option<Time>,
    last_end: Time,
    capacity: Sum,
    used: Sum,
    /// Of cores and of memory, over time, until the last arrival.
    offered: (f64, f64),
    taken: (f64, f64),
    /// What each agent offers, and whether it is there.
    agents: BTreeMap<AgentId, (Resources, bool)>,
    jobs: BTreeMap<JobId, JobSeen>,
    attempts: BTreeMap<AttemptId, (Resources, Time)>,
    waits: Vec<Duration>,
    parties: BTreeMap<Party, Standing>,
    /// Shares of the cluster over time: what was due, and what of that there was.
    due: f64,
    had: f64,
    sums: Verdict,
}

/// How a queue fares with its tasks of one priority.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// What its tasks take that could run, and that do.
    wanted: Sum,
    held: Sum,
    /// Slowdowns, and of how many tasks.
    slowdowns: f64,
    ended: u64,
}

#[derive(Debug)]
struct JobSeen {
    spec: Arc<JobSpec>,
    /// Since when its tasks may run.
    since: Time,
    /// Tasks that have not ended.
    left: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    cpu: u64,
    memory: u64,
}

impl Sum {
    /// The larger part of a whole.
    fn share(self, of: Sum) -> f64 {
        let part = |some: u64, all: u64| if all == 0 { 0.0 } else { some as f64 / all as f64 };
        part(self.cpu, of.cpu).max(part(self.memory, of.memory))
    }

    fn times(amount: Resources, count: u64) -> Sum {
        Sum { cpu: u64::from(amount.cpu) * count, memory: u64::from(amount.memory) * count }
    }

    fn add(&mut self, amount: Resources) {
        self.cpu += u64::from(amount.cpu);
        self.memory += u64::from(amount.memory);
    }

    fn subtract(&mut self, amount: Resources) {
        self.less(Sum::times(amount, 1));
    }

    fn less(&mut self, other: Sum) {
        self.cpu = self.cpu.saturating_sub(other.cpu);
        self.memory = self.memory.saturating_sub(other.memory);
    }
}

impl Meter {
    /// Of a day on which jobs come until then.
    pub fn until(last_arrival: Time) -> Meter {
        Meter { last_arrival, ..Meter::default() }
    }

    /// Jobs that have not ended.
    pub fn has_open_jobs(&self) -> bool {
        self.jobs.values().any(|job| job.left > 0)
    }

    /// A job was refused.
    pub fn refused(&mut self, why: String) {
        self.sums.refused += 1;
        self.sums.why.get_or_insert(why);
    }

    /// One more fact.
    pub fn take(&mut self, at: Time, fact: &Fact<'_>) {
        self.pass(at);
        match fact {
            Fact::AgentRegistered { agent, profile, .. } => self.offers(*agent, Some(profile.capacity), true),
            Fact::AgentReturned { agent } => self.offers(*agent, None, true),
            Fact::AgentUnreachable { agent } | Fact::AgentDeregistered { agent } | Fact::AgentForgotten { agent } => {
                self.offers(*agent, None, false);
            }
            Fact::JobAccepted { job, spec, .. } => {
                self.first_arrival.get_or_insert(at);
                for task in spec.tasks.iter().filter(|task| may_run_at_once(spec, task)) {
                    let wanted = Sum::times(task.resources, u64::from(task.count));
                    let standing = self.party(spec, task);
                    standing.wanted.cpu += wanted.cpu;
                    standing.wanted.memory += wanted.memory;
                }
                let since =
                    (at + Duration::from_millis(spec.terms.start_after_ms)).max(Time::from_ms(spec.terms.start_at_ms));
                self.jobs.insert(*job, JobSeen { spec: Arc::clone(spec), since, left: spec.task_count() });
            }
            Fact::AttemptAssigned { attempt, .. } => self.on_assigned(*attempt),
            Fact::AttemptEnded(ended) => self.on_ended(ended),
            Fact::TasksEnded { job, entry, from, to, .. } => {
                self.on_tasks_ended(*job, *entry, u64::from(to.saturating_sub(*from)))
            }
            _ => {}
        }
    }

    /// It is later now.
    fn pass(&mut self, now: Time) {
        let span = now.min(self.last_arrival).since(self.now.min(self.last_arrival)).as_secs_f64();
        if self.first_arrival.is_some() {
            self.offered.0 += self.capacity.cpu as f64 * span;
            self.offered.1 += self.capacity.memory as f64 * span;
            self.taken.0 += self.used.cpu as f64 * span;
            self.taken.1 += self.used.memory as f64 * span;
            if span > 0.0 {
                let (due, had) = self.shares();
                (self.due, self.had) = (self.due + due * span, self.had + had * span);
            }
        }
        self.now = self.now.max(now);
    }

    fn offers(&mut self, agent: AgentId, capacity: Option<Resources>, is_there: bool) {
        let known = self.agents.entry(agent).or_default();
        if known.1 {
            self.capacity.subtract(known.0);
        }
        *known = (capacity.unwrap_or(known.0), is_there);
        if is_there {
            self.capacity.add(known.0);
        }
    }

    /// What is due to all queues now, and what of that they have.
    fn shares(&self) -> (f64, f64) {
        let (mut left, mut due, mut had) = (1.0, 0.0, 0.0);
        let mut parties = self.parties.iter().rev().peekable();
        while let Some(priority) = parties.peek().map(|(party, _)| party.priority) {
            let mut same = Vec::new();
            while let Some((_, standing)) = parties.next_if(|(party, _)| party.priority == priority) {
                let wanted = standing.wanted.share(self.capacity);
                if wanted > 0.0 {
                    same.push((wanted, standing.held.share(self.capacity)));
                }
            }
            // Whoever wants least is served first; what it leaves is the others'.
            same.sort_by(|one, other| one.0.total_cmp(&other.0));
            let count = same.len();
            for (number, (wanted, held)) in same.into_iter().enumerate() {
                let share = f64::min(wanted, left / (count - number) as f64);
                (left, due, had) = (left - share, due + share, had + share.min(held));
            }
        }
        (due, had)
    }

    fn party(&mut self, job: &JobSpec, task: &TaskSpec) -> &mut Standing {
        self.parties.entry(Party { priority: task.priority, queue: job.queue.clone() }).or_default()
    }

    fn on_assigned(&mut self, attempt: AttemptId) {
        let Some(job) = self.jobs.get(&attempt.task.job) else { return };
        let (since, spec) = (job.since, Arc::clone(&job.spec));
        let Some(task) = spec.tasks.get(usize::from(attempt.task.entry)) else { return };
        self.used.add(task.resources);
        self.party(&spec, task).held.add(task.resources);
        self.attempts.insert(attempt, (task.resources, self.now));
        if attempt.attempt == 1 && task.after.is_empty() {
            self.waits.push(self.now.since(since));
        }
    }

    fn on_ended(&mut self, ended: &Ended<'_>) {
        let id = ended.attempt.task;
        let of_task = AttemptId { task: id, attempt: 0 }..=AttemptId { task: id, attempt: u32::MAX };
        let gone: Vec<AttemptId> = match ended.ends_rival {
            true => self.attempts.range(of_task).map(|(attempt, _)| *attempt).collect(),
            false => vec![ended.attempt],
        };
        let gone: Vec<_> = gone.iter().filter_map(|attempt| self.attempts.remove(attempt)).collect();
        gone.iter().for_each(|(resources, _)| self.used.subtract(*resources));
        self.last_end = self.now;
        self.sums.made_way += u64::from(ended.end.reason == fb::EndReason::Preempted);
        self.sums.lost += u64::from(ended.loss);
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        let (since, spec, is_end) = (job.since, Arc::clone(&job.spec), is_end(ended.task_status));
        job.left = job.left.saturating_sub(u64::from(is_end));
        let Some(task) = spec.tasks.get(usize::from(id.entry)) else { return };
        let began = gone.last().map_or(self.now, |(_, at)| *at);
        let ran = match ended.end.wall_us {
            0 => self.now.since(began),
            wall_us => Duration::from_micros(wall_us),
        };
        let slowdown = self.now.since(since).as_secs_f64() / ran.as_secs_f64().max(SHORTEST_RUN_S);
        let standing = self.party(&spec, task);
        gone.iter().for_each(|(resources, _)| standing.held.subtract(*resources));
        if is_end && may_run_at_once(&spec, task) {
            standing.wanted.subtract(task.resources);
            standing.slowdowns += slowdown.max(1.0);
            standing.ended += 1;
        }
        self.sums.ended += u64::from(is_end);
    }

    /// They ended without having run.
    fn on_tasks_ended(&mut self, job: JobId, entry: u16, tasks: u64) {
        self.sums.ended += tasks;
        let Some(job) = self.jobs.get_mut(&job) else { return };
        job.left = job.left.saturating_sub(tasks);
        let spec = Arc::clone(&job.spec);
        if let Some(task) = spec.tasks.get(usize::from(entry)).filter(|task| may_run_at_once(&spec, task)) {
            self.party(&spec, task).wanted.less(Sum::times(task.resources, tasks));
        }
    }

    /// The day is over.
    pub fn verdict(mut self) -> Verdict {
        self.waits.sort_unstable();
        let last = self.waits.len().saturating_sub(1);
        let at = |permille: usize| self.waits.get(last * permille / 1_000).copied().unwrap_or_default();
        let in_all: Duration = self.waits.iter().sum();
        let mean = in_all.checked_div(u32::try_from(self.waits.len()).unwrap_or(u32::MAX)).unwrap_or_default();
        let mut by_priority: BTreeMap<i8, (f64, u64)> = BTreeMap::new();
        for (party, standing) in &self.parties {
            let (sum, count) = by_priority.entry(party.priority).or_default();
            (*sum, *count) = (*sum + standing.slowdowns, *count + standing.ended);
        }
        let (sum, count) = by_priority.values().fold((0.0, 0), |(sum, all), (part, count)| (sum + part, all + count));
        let share = |taken: f64, offered: f64| if offered > 0.0 { taken / offered } else { 0.0 };
        Verdict {
            unended: self.jobs.values().map(|job| job.left).sum(),
            waits: Waits { mean, p50: at(500), p95: at(950), p99: at(990), max: at(1_000) },
            slowdown: share(sum, count as f64),
            by_priority: by_priority.iter().rev().map(|(of, (sum, count))| (*of, share(*sum, *count as f64))).collect(),
            in_use: share(self.taken.0, self.offered.0).max(share(self.taken.1, self.offered.1)),
            fairness: if self.due > 0.0 { self.had / self.due } else { 1.0 },
            lasts: self.first_arrival.map_or(Duration::ZERO, |first| self.last_end.since(first)),
            ..self.sums
        }
    }
}

/// Whether its tasks may run as soon as their job has come.
fn may_run_at_once(job: &JobSpec, task: &TaskSpec) -> bool {
    task.after.is_empty() && job.terms.start_after_ms == 0 && job.terms.start_at_ms == 0
}

/// A run counts as that long at least.
const SHORTEST_RUN_S: f64 = 10.0;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use fleetwire_common::{
        ids::{SubmitId, TaskId},
        job::Terms,
        message::End,
    };
    use fleetwire_scheduler_core::agents::AgentProfile;
    use std::borrow::Cow;

    fn job(number: u64, queue: &str, priority: i8, count: u32, cpu: u32) -> Fact<'static> {
        let resources = Resources { cpu, memory: 1, ..Resources::ZERO };
        let task = TaskSpec { command: "x".into(), count, array: true, priority, resources, ..TaskSpec::default() };
        let spec = JobSpec::new(Name::new("j").unwrap(), vec![task], Terms::default()).unwrap();
        Fact::JobAccepted {
            job: JobId(number),
            submit_id: SubmitId([0; 16]),
            digest: [0; 32],
            owner: Cow::Borrowed("o"),
            bytes: Cow::Borrowed(&[]),
            spec: Arc::new(spec.in_queue(Name::new(queue).unwrap())),
            files: Box::default(),
        }
    }

    fn attempt(job: u64, index: u32) -> AttemptId {
        AttemptId { task: TaskId { job: JobId(job), entry: 0, index }, attempt: 1 }
    }

    fn assigned(job: u64, index: u32) -> Fact<'static> {
        Fact::AttemptAssigned { attempt: attempt(job, index), agent: AgentId(0) }
    }

    fn ended(job: u64, index: u32) -> Fact<'static> {
        Fact::AttemptEnded(Ended {
            attempt: attempt(job, index),
            status: fb::TaskStatus::Completed,
            task_status: fb::TaskStatus::Completed,
            retry_at: Time::ZERO,
            failure: false,
            loss: false,
            end: Cow::Owned(End::default()),
            result: None,
            metrics: Cow::Borrowed(&[]),
            ends_rival: false,
        })
    }

    /// An agent of four cores, and that many seconds into the day.
    fn meter(until_s: u64) -> (Meter, impl Fn(u64) -> Time) {
        let at = |s: u64| Time::from_ms(1_000 * s);
        let mut meter = Meter::until(at(until_s));
        let capacity = Resources { cpu: 4, memory: 1_000, ..Resources::ZERO };
        let profile = AgentProfile { capacity, ..drawn_profile() };
        let name = Name::new("a").unwrap();
        meter.take(at(0), &Fact::AgentRegistered { agent: AgentId(0), name, profile: Arc::new(profile) });
        (meter, at)
    }

    fn drawn_profile() -> AgentProfile {
        AgentProfile {
            capacity: Resources::ZERO,
            custom: Default::default(),
            labels: Default::default(),
            agent_types: Vec::new(),
            executors: Vec::new(),
            data_id: [0; 16],
            software: String::new(),
            host: String::new(),
            address: String::new(),
        }
    }

    #[test]
    fn a_day_is_measured_until_the_last_job_came() {
        let (mut meter, at) = meter(100);
        meter.take(at(0), &job(1, "a", 0, 2, 2));
        meter.take(at(0), &assigned(1, 0));
        meter.take(at(50), &assigned(1, 1));
        meter.take(at(200), &ended(1, 0));
        meter.take(at(300), &ended(1, 1));
        assert!(!meter.has_open_jobs());
        let verdict = meter.verdict();
        assert_eq!(verdict.in_use, 0.75, "half of it, then all");
        assert_eq!((verdict.waits.p50, verdict.waits.max), (Duration::ZERO, Duration::from_secs(50)));
        assert_eq!(verdict.slowdown, (1.0 + 300.0 / 250.0) / 2.0);
        assert_eq!((verdict.lasts, verdict.ended, verdict.unended), (Duration::from_secs(300), 2, 0));
    }

    #[test]
    fn what_is_due_to_queues_of_one_priority_is_as_much_as_all_can_have_alike() {
        // Both want all of it: two cores each are due.
        for (of_a, of_b, fairness) in [(2, 2, 1.0), (4, 0, 0.5), (3, 1, 0.75)] {
            let (mut meter, at) = meter(100);
            meter.take(at(0), &job(1, "a", 0, 4, 1));
            meter.take(at(0), &job(2, "b", 0, 4, 1));
            (0..of_a).for_each(|index| meter.take(at(0), &assigned(1, index)));
            (0..of_b).for_each(|index| meter.take(at(0), &assigned(2, index)));
            meter.take(at(100), &ended(1, 0));
            assert_eq!(meter.verdict().fairness, fairness);
        }
        // What is more urgent comes first, and wants three; who wants little has what it wants.
        let (mut meter, at) = meter(100);
        meter.take(at(0), &job(1, "a", 0, 4, 1));
        meter.take(at(0), &job(2, "b", 9, 3, 1));
        (0..3).for_each(|index| meter.take(at(0), &assigned(2, index)));
        meter.take(at(0), &assigned(1, 0));
        meter.take(at(100), &ended(1, 0));
        assert_eq!(meter.verdict().fairness, 1.0);
    }
}
