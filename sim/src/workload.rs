//! The jobs that simulated clients submit: small, of every kind, and always possible somewhere, so that
//! every task must reach an end once the faults stop.

use crate::{
    behaviour::{Behaviour, Ending},
    random::Random,
    sharing::QUEUES,
    world::BEGAN,
};
use fleetwire_common::{
    custom::Custom,
    fb,
    ids::Name,
    job::{Constraint, Dependency, FileSpec, JobSpec, Preference, Semaphore, TaskSpec},
    resources::Resources,
    sweep::{Axis, Sweep, Value},
    terms::Terms,
};
use std::time::Duration;

/// Three of the heartbeat intervals of a simulated cluster.
const STOPS_AFTER_MIN_MS: u64 = 30_000;

/// What is drawn: the default is what all older tests have.
const KEEPS: [fb::Keep; 5] =
    [fb::Keep::Original, fb::Keep::Replacement, fb::Keep::Replacement, fb::Keep::BestProgress, fb::Keep::BestProgress];

/// What an agent offers; a job asks for what at least one of them has.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Resources in all.
    pub capacity: Resources,
    /// What else, by name.
    pub custom: Custom,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Kinds of work.
    pub agent_types: Vec<fb::AgentType>,
}

impl Offer {
    /// What a random device offers. Large in one dimension or the other, so that best fit has a choice.
    pub fn random(random: &mut Random) -> Offer {
        let capacity = Resources {
            cpu: random.between(1, 16) as u32 * 500,
            memory: random.skewed(256, 16_384) as u32,
            gpu: if random.chance(300) { random.between(1, 4) as u32 } else { 0 },
            storage: random.skewed(4, 500) as u32,
        };
        let zone = ["north", "south"].get(random.below(2)).copied().unwrap_or_default();
        let all = [
            fb::AgentType::Trainer,
            fb::AgentType::Inferencer,
            fb::AgentType::Crawler,
            fb::AgentType::Labeller,
            fb::AgentType::Rater,
        ];
        let agent_types = all.into_iter().filter(|_| random.chance(700)).collect();
        // A generator of its own: what else is drawn stays as it was.
        let mut own = random.clone().fork(0xd71);
        let driver = format!("5{}.{}", own.between(2, 4), own.between(0, 12));
        let custom = [("fpga", own.between(0, 2)), ("license/sim", own.between(0, 3))];
        let custom = Custom::new(custom).unwrap_or_default();
        Offer {
            capacity,
            custom,
            labels: vec![("zone".to_owned(), zone.to_owned()), ("driver".to_owned(), driver)],
            agent_types,
        }
    }
}

/// A name that is known to be one.
pub fn name(text: &str) -> Name {
    Name::new(text).unwrap_or_else(|error| unreachable!("the simulation makes only names that are: {error}"))
}

/// A random job of at most `tasks_max` tasks that these agents can do.
pub fn job(number: usize, offers: &[Offer], tasks_max: u32, random: &mut Random) -> JobSpec {
    let mut left = random.between(1, u64::from(tasks_max)) as u32;
    let mut tasks = Vec::new();
    while left > 0 && tasks.len() < 4 {
        let count = random.between(1, u64::from(left)) as u32;
        left -= count;
        if let Some(offer) = random.pick(offers).cloned() {
            tasks.push(task(tasks.len(), count, &offer, random));
        }
    }
    let terms = in_time(terms(&tasks, random), random.clone());
    let terms = capped(&mut tasks, terms, random.clone());
    holding(&mut tasks, terms, random.clone());
    let terms = ganged(&mut tasks, offers, terms, random.clone());
    // The agents that can do it may be yet to come.
    let terms = Terms { await_agents: random.clone().fork(0xa3a).chance(500), ..terms };
    swept(&mut tasks, random.clone());
    let together = in_order(&tasks, random.clone());
    if let Ok(job) = JobSpec::new(name(&format!("job-{number}")), together, terms) {
        return job;
    }
    JobSpec::new(name(&format!("job-{number}")), tasks, terms)
        .unwrap_or_else(|error| unreachable!("the simulation makes only jobs that are valid: {error}"))
}

/// The same job in one of the queues.
pub fn queued(job: JobSpec, mut random: Random) -> JobSpec {
    // A generator of its own: what else is drawn stays as it was.
    let mut random = random.fork(0x40e);
    match random.pick(&QUEUES).filter(|_| random.clone().chance(700)) {
        Some(queue) => job.in_queue(name(queue)),
        None => job,
    }
}

/// The same tasks, some of which may come after others, in vain or not; or what is no valid job.
fn in_order(tasks: &[TaskSpec], mut random: Random) -> Vec<TaskSpec> {
    const ONS: [fb::DependencyOn; 5] = [
        fb::DependencyOn::Success,
        fb::DependencyOn::Success,
        fb::DependencyOn::End,
        fb::DependencyOn::End,
        fb::DependencyOn::Failure,
    ];
    // A generator of its own: what else is drawn stays as it was.
    let mut random = random.fork(0xdac);
    let mut tasks = tasks.to_vec();
    if !random.chance(400) {
        return tasks;
    }
    for place in 1..tasks.len() {
        let (before, rest) = tasks.split_at_mut(place);
        let Some(task) = rest.first_mut() else { continue };
        for other in before.iter() {
            if !random.chance(500) {
                continue;
            }
            if random.chance(500) && task.after.is_empty() {
                (task.count, task.array, task.sweep) = (other.count, other.array, None);
            }
            let each = task.count == other.count && random.chance(600);
            let on = random.pick(&ONS).copied().unwrap_or_default();
            let wanted = on == fb::DependencyOn::Success && random.chance(500);
            let input = if wanted { format!("in/{}", other.name) } else { String::new() };
            task.after.push(Dependency { task: other.name.clone(), on, each, input });
        }
    }
    tasks
}

/// The same terms, with which a job may start later, or be stopped before all of it has ended.
fn in_time(terms: Terms, mut random: Random) -> Terms {
    // A generator of its own: what else is drawn stays as it was.
    let mut random = random.fork(0x71e);
    let mut start_after_ms = if random.chance(100) { random.skewed(1, 60_000) } else { 0 };
    let deadline_ms = if random.chance(120) { start_after_ms + random.skewed(1_000, 300_000) } else { 0 };
    let stop_after_failures = if random.chance(200) { random.skewed(1, 10) as u32 } else { 0 };
    // Or at a moment, which may have passed.
    let mut start_at_ms = 0;
    if start_after_ms > 0 && deadline_ms == 0 && random.chance(500) {
        (start_at_ms, start_after_ms) = (BEGAN.as_ms() + 10 * start_after_ms, 0);
    }
    Terms { start_at_ms, start_after_ms, deadline_ms, stop_after_failures, ..terms }
}

/// Of what may hold semaphores, some do: of one name everybody takes the only unit, of another one or two of three.
fn holding(tasks: &mut [TaskSpec], terms: Terms, mut random: Random) {
    // A generator of its own: what else is drawn stays as it was.
    let mut random = random.fork(0x5e3a);
    for task in tasks.iter_mut().filter(|_| terms.exclusive) {
        let drawn = [("only", 1, 1), ("few", 3, random.between(1, 2) as u32)];
        let drawn = drawn.into_iter().filter(|_| random.chance(350)).collect::<Vec<_>>();
        task.semaphores = drawn.into_iter().map(|(of, max, units)| Semaphore { name: name(of), max, units }).collect();
    }
}

/// Of what may be a gang, some are: of two or three members that together need no more than one of them did alone.
fn ganged(tasks: &mut [TaskSpec], offers: &[Offer], terms: Terms, mut random: Random) -> Terms {
    // A generator of its own: what else is drawn stays as it was.
    let mut random = random.fork(0x9a9);
    let mut terms = terms;
    for task in tasks.iter_mut().filter(|_| terms.exclusive) {
        let size = random.between(2, 3) as u32;
        let part = |amount: u32| amount / size;
        let Resources { cpu, memory, gpu, storage } = task.resources;
        let resources = Resources { cpu: part(cpu), memory: part(memory), gpu: part(gpu), storage: part(storage) };
        let there = offers.iter().filter(|offer| is_possible(&TaskSpec { resources, ..task.clone() }, offer));
        if task.count < size || there.count() < size as usize || !random.chance(500) {
            continue;
        }
        let drawn = [fb::OnLost::Restart, fb::OnLost::Restart, fb::OnLost::Replace, fb::OnLost::Fail];
        task.gang_lost = random.pick(&drawn).copied().unwrap_or_default();
        (task.gang, task.resources, task.count) = (size, resources, task.count - task.count % size);
        task.semaphores.retain(|held| held.units * size <= held.max);
        let whole = |cap: u32| if cap == 0 { 0 } else { cap.max(size) };
        (task.max_running, terms.max_running) = (whole(task.max_running), whole(terms.max_running));
    }
    terms
}

/// Whether a device with that offer could run it.
fn is_possible(task: &TaskSpec, offer: &Offer) -> bool {
    let value = |label: &Name| offer.labels.iter().find(|(name, _)| name == label.as_str()).map(|(_, it)| it.as_str());
    task.resources.fits(offer.capacity)
        && task.custom.fits(&offer.custom)
        && task.agent_type.is_none_or(|kind| offer.agent_types.contains(&kind))
        && task.constraints.iter().all(|one| one.holds(value(&one.label)))
}

/// Now and then the tasks of an array differ in one parameter, or in two.
fn swept(tasks: &mut [TaskSpec], mut random: Random) {
    // A generator of its own: what else is drawn stays as it was.
    let mut random = random.fork(0x533);
    for task in tasks {
        if !random.chance(150) {
            continue;
        }
        let axis = |name: &str, length: u32| Axis {
            name: name.to_owned(),
            values: (0..length).map(|number| Value { text: format!("{name}{number}"), quoted: true }).collect(),
        };
        let inner = if task.count % 2 == 0 { task.count / 2 } else { task.count };
        let outer = (inner < task.count).then(|| axis("outer", 2));
        let axes = outer.into_iter().chain([axis("inner", inner)]).collect();
        (task.array, task.sweep) = (true, Some(Box::new(Sweep { axes, zip: false })));
    }
}

/// Now and then only so many of them at once, or of one entry.
fn capped(tasks: &mut [TaskSpec], terms: Terms, mut random: Random) -> Terms {
    // A generator of its own: what else is drawn stays as it was.
    let mut random = random.fork(0xca3);
    for task in tasks {
        task.max_running = if random.chance(100) { random.skewed(1, 6) as u32 } else { 0 };
    }
    Terms { max_running: if random.chance(100) { random.skewed(1, 8) as u32 } else { 0 }, ..terms }
}

/// Random terms that a scheduler takes for these tasks.
fn terms(tasks: &[TaskSpec], random: &mut Random) -> Terms {
    let exclusive = random.chance(200);
    let stops = exclusive || random.chance(200);
    let mut terms = Terms {
        lost_after_s: random.skewed(5, 300),
        stop_on_disconnect_after_ms: if stops { random.skewed(STOPS_AFTER_MIN_MS, 120_000) } else { 0 },
        retry_lost: random.chance(850),
        keep: random.pick(&KEEPS).copied().unwrap_or_default(),
        exclusive,
        ..Terms::default()
    };
    let grace_ms = tasks.iter().map(|task| task.kill_grace_ms).max().unwrap_or_default();
    if let Some(gone) = terms.gone_after(grace_ms).filter(|_| exclusive) {
        // As soon as it may be, or later.
        terms.lost_after_s = terms.lost_after_s.max(gone.as_secs() + 1);
    }
    terms
}

fn task(number: usize, count: u32, offer: &Offer, random: &mut Random) -> TaskSpec {
    let part =
        |whole: u32, random: &mut Random| random.between(0, u64::from(whole)) as u32 / random.between(1, 4) as u32;
    let resources = Resources {
        cpu: part(offer.capacity.cpu, random),
        memory: part(offer.capacity.memory, random),
        gpu: if random.chance(200) { part(offer.capacity.gpu, random) } else { 0 },
        storage: if random.chance(300) { part(offer.capacity.storage, random) } else { 0 },
    };
    let noop = random.chance(150);
    let behaviour = behaviour(random);
    let mut constraints = Vec::new();
    if let Some((label, value)) = offer.labels.first().filter(|_| random.chance(200)) {
        constraints.push(Constraint::new(name(label), fb::ConstraintOp::Equal, value));
    }
    constraints.extend(more_constraints(offer, random.clone().fork(0xc0)));
    // Now and then so much that the assignment needs a bulk stream, or at least is no small frame.
    let mut files = Vec::new();
    if random.chance(80) {
        let most = if random.chance(150) { 260 << 10 } else { 12 << 10 };
        let bytes = random.skewed(10, most) as usize;
        let filler = random.next();
        let data = (0..bytes).map(|place| (filler.rotate_left(place as u32 % 63) >> (place % 7)) as u8).collect();
        files.push(FileSpec { path: "input".to_owned(), data, executable: false });
    }
    let agent_type = random.pick(&offer.agent_types).copied().filter(|_| random.chance(300));
    TaskSpec {
        custom: part_of(&offer.custom, random.clone().fork(0xc1)),
        prefer: preferences(random.clone().fork(0xb1)),
        whole_agent: random.clone().fork(0xa1).chance(20),
        distinct_agents: random.clone().fork(0xd1).chance(60),
        name: name(&format!("t{number}")),
        count,
        array: count > 1,
        agent_type,
        resources,
        executor: if noop { fb::Executor::Noop } else { fb::Executor::Process },
        command: if noop { String::new() } else { "sim".to_owned() },
        arguments: if noop { Vec::new() } else { behaviour.arguments() },
        files,
        priority: random.between(0, 4) as i8 - 2 + if random.clone().fork(0x9e).chance(120) { 20 } else { 0 },
        constraints,
        timeout_s: if random.chance(150) { random.skewed(1, 60) } else { ample_time(random.clone().fork(0x71)) },
        queue_timeout_s: if random.chance(100) { random.skewed(5, 300) } else { 0 },
        max_attempts: random.skewed(1, 5) as u32,
        max_losses: random.skewed(1, 5) as u32,
        backoff_ms: random.skewed(10, 5_000) as u32,
        kill_grace_ms: random.skewed(10, 10_000) as u32,
        ..TaskSpec::default()
    }
}

/// Often a limit that is met by nothing that runs as long as it is to: so that it is known when it ends at the latest.
fn ample_time(mut random: Random) -> u64 {
    if random.chance(400) { random.skewed(20, 600) } else { 0 }
}

/// Sometimes it would rather be in one zone than in another, or not where the driver is old.
fn preferences(mut random: Random) -> Vec<Preference> {
    let drawn = [("zone", fb::ConstraintOp::Equal, "north"), ("driver", fb::ConstraintOp::Less, "53")];
    let drawn = drawn.into_iter().filter(|_| random.chance(100)).collect::<Vec<_>>();
    let weighed = |(label, op, value)| Preference {
        constraint: Constraint::new(name(label), op, value),
        weight: if op == fb::ConstraintOp::Less { -20 } else { 50 },
    };
    drawn.into_iter().map(weighed).collect()
}

/// Some of what an offer has by name; mostly nothing.
fn part_of(offer: &Custom, mut random: Random) -> Custom {
    let mut part = |whole: u32| if random.chance(200) { random.between(0, u64::from(whole)) } else { 0 };
    Custom::new(offer.iter().map(|(name, whole)| (name, part(whole)))).unwrap_or_default()
}

/// Sets, patterns and versions that the offer satisfies.
fn more_constraints(offer: &Offer, mut random: Random) -> Vec<Constraint> {
    use fb::ConstraintOp as Op;
    let mut drawn = Vec::new();
    for (label, value) in &offer.labels {
        if !random.chance(250) {
            continue;
        }
        let label = name(label);
        let constraint = match random.below(if label.as_str() == "driver" { 6 } else { 2 }) {
            0 => Constraint::one_of(label, vec!["north".to_owned(), value.clone()]),
            1 => Constraint::new(label, Op::Matches, &format!("?{}*", value.get(1..2).unwrap_or_default())),
            2 => Constraint::new(label, Op::AtLeast, value),
            3 => Constraint::new(label, Op::AtMost, value),
            4 => Constraint::new(label, Op::More, "53.3"),
            _ => Constraint::new(label, Op::Less, "53.9.1"),
        };
        if constraint.holds(Some(value)) {
            drawn.push(constraint);
        }
    }
    drawn
}

fn behaviour(random: &mut Random) -> Behaviour {
    let ends = match random.between(0, 9) {
        0 => Ending::Exit(random.between(1, 255) as i32),
        1 => Ending::Signal(9),
        2 | 3 => Ending::Flaky(random.between(100, 900) as u32),
        4 if random.chance(300) => Ending::NoSpawn,
        _ => Ending::Exit(0),
    };
    let result_bytes = match random.between(0, 9) {
        0 => 0,
        1 => random.skewed(100, 64 << 10) as usize,
        _ => 24,
    };
    Behaviour {
        runs_for: Duration::from_millis(random.skewed(1, 120_000)),
        reports_every: if random.chance(400) {
            Duration::from_millis(random.skewed(200, 10_000))
        } else {
            Duration::ZERO
        },
        ends,
        stubborn: random.chance(100),
        result_bytes,
        nan_permille: if random.chance(100) { 300 } else { 0 },
    }
}
