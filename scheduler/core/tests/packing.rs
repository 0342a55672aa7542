//! How well placement fills a cluster, beside an offline best-fit-decreasing on the same trace: one that knows everything
//! that waits, sorts it by size at each moment, and goes through all agents for each task.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use fixedbitset::FixedBitSet;
use fleetwire_common::{
    ids::{AgentId, JobId},
    job::TaskSpec,
    resources::Resources,
};
use fleetwire_scheduler_core::{
    Policy,
    placement::{Index, Room, plan},
    queue::{ClassId, Queue, Request},
};
use std::collections::BTreeSet;

const AGENTS: usize = 60;
const REQUESTS: usize = 50;

/// A task that comes.
#[derive(Clone, Copy)]
struct Arrival {
    at: u64,
    request: usize,
    takes: u64,
}

/// What placement is to be measured with.
struct Trace {
    capacities: Vec<Resources>,
    requests: Vec<Resources>,
    arrivals: Vec<Arrival>,
}

/// Places what has come; is told what has ended.
trait Placer {
    fn come(&mut self, task: usize, request: usize);
    fn set_room(&mut self, agent: usize, room: Room);
    /// `(task, agent)` for each.
    fn place(&mut self) -> Vec<(usize, usize)>;
}

struct Ours {
    index: Index,
    queue: Queue,
    classes: Vec<ClassId>,
}

impl Ours {
    fn new(trace: &Trace) -> Ours {
        let mut queue = Queue::default();
        let mut enter = |resources: &Resources| {
            let request = Request::of(&TaskSpec { resources: *resources, ..TaskSpec::default() });
            queue.enter(&request, |_| (0..AGENTS).collect::<FixedBitSet>())
        };
        let classes = trace.requests.iter().map(&mut enter).collect();
        Ours { index: Index::default(), queue, classes }
    }
}

impl Placer for Ours {
    fn come(&mut self, task: usize, request: usize) {
        self.queue.push(self.classes[request], JobId(task as u64), 0, 0, 1);
    }

    fn set_room(&mut self, agent: usize, room: Room) {
        self.index.set_room(AgentId(agent as u32), room);
    }

    fn place(&mut self) -> Vec<(usize, usize)> {
        let mut out = Vec::new();
        let policy = Policy { placements_per_step: usize::MAX, ..Policy::default() };
        plan(&mut self.index, &mut self.queue, &policy, &mut out);
        out.iter().map(|placed| (placed.task.job.0 as usize, placed.agent.0 as usize)).collect()
    }
}

/// The larger first, each where the least is left, by its largest share of the mean agent.
struct Offline {
    requests: Vec<Resources>,
    mean: Resources,
    rooms: Vec<Room>,
    waiting: BTreeSet<(std::cmp::Reverse<u64>, usize, usize)>,
}

impl Offline {
    fn new(trace: &Trace) -> Offline {
        let mean = |part: fn(&Resources) -> u32| trace.capacities.iter().map(part).sum::<u32>() / AGENTS as u32;
        let mean =
            Resources { cpu: mean(|all| all.cpu), memory: mean(|all| all.memory), gpu: u32::MAX, storage: u32::MAX };
        Offline {
            requests: trace.requests.clone(),
            mean,
            rooms: vec![Room::default(); AGENTS],
            waiting: BTreeSet::new(),
        }
    }
}

impl Placer for Offline {
    fn come(&mut self, task: usize, request: usize) {
        let size = self.requests[request].dominant_share_ppm(self.mean);
        self.waiting.insert((std::cmp::Reverse(size), request, task));
    }

    fn set_room(&mut self, agent: usize, room: Room) {
        self.rooms[agent] = room;
    }

    fn place(&mut self) -> Vec<(usize, usize)> {
        let mut out = Vec::new();
        let mut in_vain = BTreeSet::new();
        for (size, request, task) in self.waiting.clone() {
            let asked = self.requests[request];
            let left = |room: &Room| room.free.minus(asked).dominant_share_ppm(self.mean);
            let fitting = self.rooms.iter().enumerate().filter(|(_, room)| asked.fits(room.free));
            let best = fitting.filter(|_| !in_vain.contains(&request)).min_by_key(|(_, room)| left(room));
            let Some((agent, _)) = best else {
                in_vain.insert(request);
                continue;
            };
            self.rooms[agent].free = self.rooms[agent].free.minus(asked);
            self.waiting.remove(&(size, request, task));
            out.push((task, agent));
        }
        out
    }
}

/// How much of cpu or of memory, of what is scarcer, was in use, in the mean over the time until the last task came.
fn utilisation(trace: &Trace, mut placer: impl Placer) -> f64 {
    let full =
        |capacity: &Resources| Room { free: *capacity, capacity: *capacity, held: 0, placeable: true, last: false };
    let mut rooms: Vec<Room> = trace.capacities.iter().map(full).collect();
    rooms.iter().enumerate().for_each(|(agent, room)| placer.set_room(agent, *room));
    let whole = trace
        .capacities
        .iter()
        .fold((0.0, 0.0), |sum, all| (sum.0 + f64::from(all.cpu), sum.1 + f64::from(all.memory)));
    let mut ends: BTreeSet<(u64, usize, usize)> = BTreeSet::new();
    let (mut used, mut area, mut before) = ((0.0, 0.0), (0.0, 0.0), 0);
    for (number, arrival) in trace.arrivals.iter().enumerate() {
        let mut now = 0;
        while now < arrival.at {
            let next = ends.first().copied().filter(|(at, ..)| *at < arrival.at);
            now = next.map_or(arrival.at, |(at, ..)| at);
            let span = (now - before) as f64;
            area = (area.0 + used.0 / whole.0 * span, area.1 + used.1 / whole.1 * span);
            before = now;
            match next {
                Some((_, task, agent)) => {
                    ends.pop_first();
                    let gone = trace.requests[trace.arrivals[task].request];
                    used = (used.0 - f64::from(gone.cpu), used.1 - f64::from(gone.memory));
                    rooms[agent].free = rooms[agent].free.plus(gone);
                    rooms[agent].held -= 1;
                    placer.set_room(agent, rooms[agent]);
                }
                None => placer.come(number, arrival.request),
            }
            for (task, agent) in placer.place() {
                let Arrival { request, takes, .. } = trace.arrivals[task];
                let asked = trace.requests[request];
                assert!(asked.fits(rooms[agent].free));
                used = (used.0 + f64::from(asked.cpu), used.1 + f64::from(asked.memory));
                rooms[agent].free = rooms[agent].free.minus(asked);
                rooms[agent].held += 1;
                ends.insert((now + takes, task, agent));
            }
        }
    }
    f64::max(area.0, area.1) / before as f64
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    /// Small ones often, large ones seldom.
    fn skewed(&mut self, least: u64, doublings: u64) -> u64 {
        let magnitude = least << self.below(doublings);
        magnitude + self.below(magnitude)
    }
}

/// Machines of 8, 16 and 32 cores, tasks of up to 6 cores, few of them with a gpu, for so much of the capacity in percent.
fn trace(seed: u64, load_percent: u64) -> Trace {
    let mut random = Random(seed);
    let capacity = |agent: usize| {
        let size = [8, 8, 16, 32][agent % 4];
        let gpu = if size == 32 { 4 } else { 0 };
        Resources { cpu: size * 1_000, memory: size * (2_000 << (agent / 4 % 3)), gpu, storage: 500 }
    };
    let capacities: Vec<Resources> = (0..AGENTS).map(capacity).collect();
    let mut request = |number: usize| Resources {
        cpu: random.skewed(100, 6) as u32,
        memory: random.skewed(if number.is_multiple_of(4) { 512 } else { 64 }, 6) as u32,
        gpu: u32::from(number % 10 == 7),
        storage: 0,
    };
    let requests: Vec<Resources> = (0..REQUESTS).map(&mut request).collect();
    let cores: u64 = capacities.iter().map(|all| u64::from(all.cpu)).sum();
    let mut at = 0;
    let mut arrival = |_| {
        let request = random.below(REQUESTS as u64) as usize;
        let takes = random.skewed(1_000_000, 6);
        // On the average, what comes is as much work as is to be.
        at +=
            1 + u64::from(requests[request].cpu) * takes * 100 / load_percent / cores * 2 * random.below(1_000) / 1_000;
        Arrival { at, request, takes }
    };
    let arrivals = (0..6_000).map(&mut arrival).collect();
    Trace { capacities, requests, arrivals }
}

#[test]
fn placement_is_as_good_as_offline_best_fit_decreasing() {
    for (seed, load_percent) in [(1, 80), (2, 95), (3, 110), (4, 150), (5, 110)] {
        let trace = trace(seed, load_percent);
        let (ours, offline) = (utilisation(&trace, Ours::new(&trace)), utilisation(&trace, Offline::new(&trace)));
        println!("load {load_percent} %: in use {:.2} %, offline {:.2} %", 100.0 * ours, 100.0 * offline);
        assert!(ours > 0.98 * offline, "seed {seed}: {ours} of {offline}");
    }
}
