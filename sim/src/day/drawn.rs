//! A day drawn from published distributions: work that is as uneven as that of large clusters, for any number of agents.
//!
//! After Tirmazi and others, *Borg: the Next Generation*, EuroSys 2020 (doi 10.1145/3342195.3387517), which describes Google's
//! cluster traces of 2019: the core hours of a job follow a Pareto distribution of index 0.69, so that one job in a hundred has
//! nearly all of the work; jobs are of four tiers, *free*, *best-effort batch*, *mid* and *production*, of which 95 % have no
//! more than 21, 498, 67 and 3 tasks. Jobs come as a Poisson process. What is ours: the agents' sizes, that a user has jobs of
//! one tier, how often which tier and user has one, and the bounds which keep a day's largest jobs within a day.

use super::{Day, DayJob, Happening, Run};
use crate::random::Random;
use fleetwire_common::{
    fb,
    ids::Name,
    job::{JobSpec, TaskSpec, Terms},
    policy::{ClusterPolicy, PolicyError, QueueRule},
    resources::Resources,
    time::Time,
};
use fleetwire_scheduler_core::agents::AgentProfile;
use std::{sync::Arc, time::Duration};

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms2019 {
    /// The seed: the same one draws the same day.
    pub seed: u64,
    /// Agents, all there from the beginning to the end.
    pub agents: u32,
    /// The work that comes, in percent of what the agents' cores can do in a day.
    pub load_percent: u32,
}

/// A tier of jobs.
struct Tier {
    name: &'static str,
    priority: i8,
    /// Of a hundred jobs.
    share: u32,
    /// 95 % of its jobs have no more tasks.
    tasks_p95: f64,
}

const TIERS: [Tier; 4] = [
    Tier { name: "free", priority: 0, share: 20, tasks_p95: 21.0 },
    Tier { name: "batch", priority: 5, share: 50, tasks_p95: 498.0 },
    Tier { name: "mid", priority: 10, share: 10, tasks_p95: 67.0 },
    Tier { name: "production", priority: 20, share: 20, tasks_p95: 3.0 },
];

/// Users of each tier; who is of rank n has one nth of the first's jobs (Zipf).
const USERS: usize = 6;
/// Of a job's core hours (the paper, section 7).
const PARETO_INDEX: f64 = 0.69;
/// The fewest core seconds of a job.
const WORK_MIN_S: f64 = 30.0;
/// No job has more tasks than would run for so long each.
const RUN_MEAN_MIN_S: f64 = 30.0;
/// The most, of what the whole cluster can do in a day.
const WORK_MAX_OF_DAY: f64 = 0.02;
/// No task runs for longer.
const RUN_MAX: Duration = Duration::from_secs(8 * 3_600);
const RUN_MIN: Duration = Duration::from_secs(1);
const DAY_S: f64 = 86_400.0;
/// When drawn days begin: 2019-05-01, as the traces do.
const BEGINS: Time = Time(1_556_668_800_000_000);
const TASKS_MAX: f64 = 10_000.0;

/// The queue of one user.
fn user(tier: &Tier, number: usize) -> String {
    format!("{}-{}", tier.name, number + 1)
}

/// A policy in which every user has a queue, all of one weight.
///
/// # Errors
/// None: the queues are valid.
pub fn policy() -> Result<ClusterPolicy, PolicyError> {
    let users = TIERS.iter().flat_map(|tier| (0..USERS).map(move |number| user(tier, number)));
    let queues = users.filter_map(|user| Some((Name::new(&user).ok()?, QueueRule::default())));
    ClusterPolicy::new(queues, None)
}

/// Draws a day.
pub fn draw(terms: Terms2019) -> Day {
    let mut random = Random::new(terms.seed);
    let mut day = Day::default();
    let mut cores = 0.0;
    for agent in 0..terms.agents {
        // Half are of 8 cores, a third of 16, the rest of 32; 4 GB for each core.
        let size = random.pick(&[8, 8, 8, 16, 16, 32]).copied().unwrap_or(8);
        let capacity = Resources { cpu: 1_000 * size, memory: 4_000 * size, gpu: 0, storage: 100 };
        cores += f64::from(size);
        let Ok(name) = Name::new(&format!("agent-{agent}")) else { continue };
        day.happenings.push((BEGINS, Happening::Joins { agent: day.agents.len(), profile: profile(agent, capacity) }));
        day.agents.push(name);
    }
    let (wanted, most) = (cores * DAY_S * f64::from(terms.load_percent) / 100.0, cores * DAY_S * WORK_MAX_OF_DAY);
    let (mut sum, mut arrivals) = (0.0, Vec::new());
    while sum < wanted {
        let (job, lasts) = job(&mut random, most);
        let count: f64 = job.tasks.iter().map(|task| f64::from(task.count) * f64::from(task.resources.cpu) / 1e3).sum();
        sum += count * lasts.as_secs_f64();
        // Of a Poisson process of which one knows how many there were in a day, each time is as likely.
        let at = BEGINS + Duration::from_micros(1 + random.between(0, DAY_S as u64 * 1_000_000));
        arrivals.push((at, job, lasts));
    }
    arrivals.sort_by_key(|(at, ..)| *at);
    for (at, job, lasts) in arrivals {
        let number = day.jobs.len();
        day.happenings.push((at, Happening::Submits { job: number }));
        for index in 0..job.tasks.first().map_or(0, |task| task.count) {
            let lasts = around(&mut random, lasts);
            day.runs.insert((number, 0, index), vec![Run { lasts, status: fb::TaskStatus::Completed }]);
        }
        let owner = job.queue.to_string();
        day.jobs.push(DayJob { spec: Arc::new(job), owner });
    }
    day
}

fn profile(agent: u32, capacity: Resources) -> Arc<AgentProfile> {
    let mut data_id = [0; 16];
    data_id[..4].copy_from_slice(&agent.to_be_bytes());
    Arc::new(AgentProfile {
        capacity,
        custom: Default::default(),
        labels: Default::default(),
        agent_types: Vec::new(),
        executors: vec![fb::Executor::Process],
        data_id,
        software: String::from("drawn"),
        host: String::from("drawn"),
        address: String::new(),
    })
}

/// A job, and how long its tasks run in the mean.
fn job(random: &mut Random, work_max_s: f64) -> (JobSpec, Duration) {
    let tier = tier(random);
    let work_s = (WORK_MIN_S * unit(random).powf(-1.0 / PARETO_INDEX)).min(work_max_s);
    // Pareto with the tier's 95 %: most jobs have one task.
    let index = 20_f64.ln() / tier.tasks_p95.ln();
    // From a tenth of a core to four, as often small as large.
    let cpu = 100 * random.skewed(1, 40);
    let count_max = (work_s / (cpu as f64 / 1e3) / RUN_MEAN_MIN_S).clamp(1.0, TASKS_MAX);
    let count = unit(random).powf(-1.0 / index).min(count_max).floor();
    let memory = cpu * random.skewed(1, 16) / 2;
    let lasts = work_s / count / (cpu as f64 / 1e3);
    let lasts = Duration::from_secs_f64(lasts.clamp(RUN_MIN.as_secs_f64(), RUN_MAX.as_secs_f64()));
    let name = |text: &str| Name::new(text).unwrap_or_else(|_| Name::default_queue());
    let task = TaskSpec {
        name: name("task"),
        count: count as u32,
        array: count > 1.0,
        command: String::from("drawn"),
        resources: Resources { cpu: cpu as u32, memory: memory.max(1) as u32, gpu: 0, storage: 0 },
        priority: tier.priority,
        ..TaskSpec::default()
    };
    // A user of rank n has one nth as many as the first.
    let harmonic: f64 = (1..=USERS).map(|rank| 1.0 / rank as f64).sum();
    let mut left = unit(random) * harmonic;
    let number = (0..USERS).find(|number| {
        left -= 1.0 / (number + 1) as f64;
        left <= 0.0
    });
    let queue = name(&user(tier, number.unwrap_or_default()));
    let job = JobSpec::new(name("drawn"), vec![task], Terms::default())
        .unwrap_or_else(|error| unreachable!("what is drawn is valid: {error}"));
    (job.in_queue(queue), lasts)
}

fn tier(random: &mut Random) -> &'static Tier {
    let mut left = random.between(1, 100) as u32;
    TIERS
        .iter()
        .find(|tier| {
            let is_it = left <= tier.share;
            left = left.saturating_sub(tier.share);
            is_it
        })
        .unwrap_or(&TIERS[0])
}

/// Above 0 and up to 1.
fn unit(random: &mut Random) -> f64 {
    ((random.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
}

/// Half as long to one and a half times as long, in whole milliseconds.
fn around(random: &mut Random, lasts: Duration) -> Duration {
    let lasts = lasts.mul_f64(0.5 + unit(random)).max(RUN_MIN);
    Duration::from_millis(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_day_is_as_uneven_as_what_it_is_drawn_after() {
        let terms = Terms2019 { seed: 1, agents: 60, load_percent: 80 };
        let day = draw(terms);
        let work = |job: usize| -> f64 {
            let spec = &day.jobs[job].spec.tasks[0];
            let runs = day.runs.range((job, 0, 0)..=(job, 0, u32::MAX));
            runs.map(|(_, runs)| runs[0].lasts.as_secs_f64() * f64::from(spec.resources.cpu) / 1e3).sum()
        };
        let mut works: Vec<f64> = (0..day.jobs.len()).map(work).collect();
        works.sort_by(f64::total_cmp);
        let (all, top): (f64, f64) = (works.iter().sum(), works.iter().rev().take(works.len() / 20).sum());
        assert!(top > 0.6 * all, "one in twenty has {top} of {all}");
        let offered: f64 = day
            .happenings
            .iter()
            .map(|(_, what)| match what {
                Happening::Joins { profile, .. } => f64::from(profile.capacity.cpu) / 1e3 * DAY_S,
                _ => 0.0,
            })
            .sum();
        assert!((0.7..0.9).contains(&(all / offered)), "{all} of {offered}");
        assert_eq!(draw(terms).happenings, day.happenings, "the same seed draws the same day");
        assert!(day.happenings.is_sorted_by_key(|(at, _)| *at));
    }
}
