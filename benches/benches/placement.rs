//! Placement: the scheduler's index and queue, driven as its core drives them, beside a naive first fit that goes
//! through the waiting requests and all agents each time.
//!
//! - `backlog`: all 50 requests wait, always; whatever ends is replaced at once. One placement for each release.
//! - `arrivals`: single tasks of the 50 requests come, 90 % of the cluster is in use; one arrival and one release, and so
//!   two plannings, for each placement.
//! - `freed`: 100,000 tasks of 1,000 requests wait; the time from one release to what is placed for it.
//!
//! `cargo bench -p fleetwire-benches --bench placement` prints a table, pair by pair with the naive one, and how it
//! grows from 1,000 to 100,000 agents; then criterion's figures. How good the placements are is a test of the core's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput};
use fixedbitset::FixedBitSet;
use fleetwire_common::{
    ids::{AgentId, JobId},
    job::TaskSpec,
    resources::Resources,
};
use fleetwire_scheduler_core::{
    Policy,
    placement::{Index, Placement, Room, plan},
    queue::{ClassId, Queue, Request},
};
use rustix::time::{ClockId, clock_gettime};
use std::{cell::LazyCell, hint::black_box, time::Duration};

/// Tasks of each request that wait in `backlog` and `freed`, at least.
const WAITING: u32 = 100;
/// Of the cluster's cores, in use in `arrivals`.
const IN_USE_PERCENT: u64 = 90;
/// Tasks that may wait in `arrivals`: those for which no agent has room.
const WAITING_MAX: u64 = 1_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` passes `--bench`; with a filter, only criterion answers.
    if arguments.iter().any(|argument| argument == "--bench") && arguments.iter().all(|a| a.starts_with("--")) {
        print_table();
    }
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut group = criterion.benchmark_group("placement");
    group.throughput(Throughput::Elements(1));
    for agents in [1_000, 10_000, 100_000] {
        for regime in [Regime::Backlog, Regime::Arrivals] {
            let settled = || Load::new(Ours::new(agents), agents, 50, regime).settled();
            let mut load = LazyCell::new(settled);
            group.bench_function(BenchmarkId::new(regime.name(), agents), |b| b.iter_custom(|n| load.measure(n)));
        }
    }
    let mut load = LazyCell::new(|| Load::new(Ours::new(10_000), 10_000, 1_000, Regime::Backlog).settled());
    group.bench_function("freed/1000 requests", |b| b.iter_custom(|n| load.measure(n)));
    let mut load = LazyCell::new(|| Load::new(Naive::new(10_000), 10_000, 50, Regime::Arrivals).settled());
    group.bench_function("naive/arrivals/10000", |b| b.iter_custom(|n| load.measure(n)));
    group.finish();
    criterion.final_summary();
}

fn print_table() {
    println!("ns for each placement with its release, and the naive one's, in turn; medians of 5");
    for regime in [Regime::Backlog, Regime::Arrivals] {
        let mut grown = Vec::new();
        for agents in [1_000, 10_000, 100_000] {
            let mut ours = Load::new(Ours::new(agents), agents, 50, regime).settled();
            let mut naive = Load::new(Naive::new(agents), agents, 50, regime).settled();
            let rounds = (0..5).map(|_| (ours.placement_ns(200_000), naive.placement_ns(20)));
            let (mut our_ns, mut naive_ns): (Vec<_>, Vec<_>) = rounds.unzip();
            let (our_ns, naive_ns) = (median(&mut our_ns), median(&mut naive_ns));
            println!(
                "  {:8} {agents:7} agents {our_ns:7.0}: {:.2} M/s; naive {naive_ns:9.0}, {:.0} times as long",
                regime.name(),
                1e3 / our_ns,
                naive_ns / our_ns,
            );
            grown.push(our_ns);
        }
        println!("  {:8} from 1,000 to 100,000 agents: {:.1} times as long", regime.name(), grown[2] / grown[0]);
    }
    println!("10,000 agents are full, and one attempt ends: ns until that is known and its room is taken again");
    for requests in [50, 1_000, 100_000] {
        let mut load = Load::new(Ours::new(10_000), 10_000, requests, Regime::Backlog).settled();
        let waiting = load.waiting_in_all;
        let mut times: Vec<_> = (0..50_000).map(|_| load.run(1).0.as_nanos()).collect();
        times.sort();
        let at = |ppm: usize| times[(times.len() - 1) * ppm / 1_000_000];
        println!(
            "  {waiting} tasks of {requests} requests wait: median {}, 99 % {}, 99.9 % {}",
            at(500_000),
            at(990_000),
            at(999_000),
        );
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Regime {
    Backlog,
    Arrivals,
}

impl Regime {
    fn name(self) -> &'static str {
        match self {
            Regime::Backlog => "backlog",
            Regime::Arrivals => "arrivals",
        }
    }
}

/// What places: tasks of a request come, an attempt is gone, what fits is placed.
trait Placer {
    fn enter(&mut self, request: Resources);
    fn push(&mut self, request: usize, tasks: u32);
    fn set_room(&mut self, agent: u32, room: Room);
    /// `(request, agent)` for each placement.
    fn plan(&mut self, out: &mut Vec<(usize, u32)>);
}

/// The scheduler's own.
struct Ours {
    index: Index,
    queue: Queue,
    policy: Policy,
    agents: usize,
    classes: Vec<ClassId>,
    jobs: u64,
    placements: Vec<Placement>,
}

impl Ours {
    fn new(agents: u32) -> Ours {
        Ours {
            index: Index::default(),
            queue: Queue::default(),
            policy: Policy::default(),
            agents: agents as usize,
            classes: Vec::new(),
            jobs: 0,
            placements: Vec::new(),
        }
    }
}

impl Placer for Ours {
    fn enter(&mut self, resources: Resources) {
        let request = Request::of(&TaskSpec { resources, ..TaskSpec::default() });
        let agents = self.agents;
        self.classes.push(self.queue.enter(&request, |_| {
            let mut all = FixedBitSet::with_capacity(agents);
            all.insert_range(..);
            all
        }));
    }

    fn push(&mut self, request: usize, tasks: u32) {
        self.jobs += 1;
        // By its number one knows what a job asks for.
        let job = JobId(self.jobs * self.classes.len() as u64 + request as u64);
        self.queue.push(self.classes[request], job, 0, 0, tasks);
    }

    fn set_room(&mut self, agent: u32, room: Room) {
        self.index.set_room(AgentId(agent), room);
    }

    fn plan(&mut self, out: &mut Vec<(usize, u32)>) {
        let classes = self.classes.len() as u64;
        loop {
            let goes_on = plan(&mut self.index, &mut self.queue, &self.policy, &mut self.placements);
            out.extend(
                self.placements.drain(..).map(|placed| ((placed.task.job.0 % classes) as usize, placed.agent.0)),
            );
            if !goes_on {
                return;
            }
        }
    }
}

/// First fit: each waiting request in turn, on the first agent that has room.
struct Naive {
    requests: Vec<(Resources, u32)>,
    rooms: Vec<Room>,
}

impl Naive {
    fn new(agents: u32) -> Naive {
        Naive { requests: Vec::new(), rooms: vec![Room::default(); agents as usize] }
    }
}

impl Placer for Naive {
    fn enter(&mut self, request: Resources) {
        self.requests.push((request, 0));
    }

    fn push(&mut self, request: usize, tasks: u32) {
        self.requests[request].1 += tasks;
    }

    fn set_room(&mut self, agent: u32, room: Room) {
        self.rooms[agent as usize] = room;
    }

    fn plan(&mut self, out: &mut Vec<(usize, u32)>) {
        for (number, (request, waiting)) in self.requests.iter_mut().enumerate() {
            while *waiting > 0 {
                let fits = |room: &Room| room.placeable && request.fits(room.free);
                let Some(agent) = self.rooms.iter().position(fits) else { break };
                let room = &mut self.rooms[agent];
                room.free = room.free.minus(*request);
                room.held += 1;
                *waiting -= 1;
                out.push((number, agent as u32));
            }
        }
    }
}

/// A cluster in its steady state, and whoever sends it work: what the core's ledger and its jobs are.
struct Load<P> {
    placer: P,
    regime: Regime,
    requests: Vec<Resources>,
    waiting: Vec<u32>,
    waiting_in_all: u64,
    rooms: Vec<Room>,
    running: Vec<(usize, u32)>,
    cpu: u64,
    cpu_in_use: u64,
    random: Random,
    placed: Vec<(usize, u32)>,
}

impl<P: Placer> Load<P> {
    fn new(placer: P, agents: u32, requests: usize, regime: Regime) -> Load<P> {
        let mut random = Random(1);
        let mut load = Load {
            placer,
            regime,
            requests: (0..requests).map(|number| request(number, &mut random)).collect(),
            waiting: vec![0; requests],
            waiting_in_all: 0,
            rooms: Vec::new(),
            running: Vec::new(),
            cpu: 0,
            cpu_in_use: 0,
            random,
            placed: Vec::new(),
        };
        for number in 0..requests {
            load.placer.enter(load.requests[number]);
        }
        for agent in 0..agents {
            let capacity = capacity(agent);
            let room = Room { free: capacity, capacity, held: 0, placeable: true, last: false };
            load.cpu += u64::from(capacity.cpu);
            load.rooms.push(room);
        }
        load.fill();
        if regime == Regime::Backlog {
            for number in 0..requests {
                load.push(number, load.lot());
            }
            load.plan();
        }
        load
    }

    /// Gives each agent something of this and that, until nearly as much is in use as is to be.
    fn fill(&mut self) {
        for agent in 0..self.rooms.len() as u32 {
            for _ in 0..50 {
                let number = self.random.below(self.requests.len());
                let whole = u64::from(self.rooms[agent as usize].capacity.cpu);
                let left = u64::from(self.rooms[agent as usize].free.cpu);
                if (whole - left) * 100 >= whole * IN_USE_PERCENT {
                    break;
                }
                if self.requests[number].fits(self.rooms[agent as usize].free) {
                    self.waiting[number] += 1;
                    self.waiting_in_all += 1;
                    self.take((number, agent));
                }
            }
            self.placer.set_room(agent, self.rooms[agent as usize]);
        }
    }

    /// How many tasks come at a time where what is placed is replaced.
    fn lot(&self) -> u32 {
        if self.requests.len() > 1_000 { 1 } else { WAITING }
    }

    fn push(&mut self, number: usize, tasks: u32) {
        self.waiting[number] += tasks;
        self.waiting_in_all += u64::from(tasks);
        self.placer.push(number, tasks);
    }

    fn plan(&mut self) -> u64 {
        let mut placed = std::mem::take(&mut self.placed);
        self.placer.plan(&mut placed);
        let count = placed.len() as u64;
        for (number, agent) in placed.drain(..) {
            self.take((number, agent));
            if self.regime == Regime::Backlog && self.waiting[number] == 0 {
                self.push(number, self.lot());
            }
        }
        self.placed = placed;
        count
    }

    fn take(&mut self, (number, agent): (usize, u32)) {
        let request = self.requests[number];
        let room = &mut self.rooms[agent as usize];
        assert!(room.placeable && request.fits(room.free), "placed where it does not fit");
        room.free = room.free.minus(request);
        room.held += 1;
        self.cpu_in_use += u64::from(request.cpu);
        self.running.push((number, agent));
        self.waiting[number] -= 1;
        self.waiting_in_all -= 1;
    }

    fn release(&mut self) {
        let victim = self.random.below(self.running.len());
        let (number, agent) = self.running.swap_remove(victim);
        let request = self.requests[number];
        let room = &mut self.rooms[agent as usize];
        room.free = room.free.plus(request);
        room.held -= 1;
        self.cpu_in_use -= u64::from(request.cpu);
        let room = *room;
        self.placer.set_room(agent, room);
    }

    /// The time of so many releases, and how much was placed meanwhile.
    fn run(&mut self, releases: u64) -> (Duration, u64) {
        let started = cpu_time();
        let mut placed = 0;
        for _ in 0..releases {
            self.release();
            placed += self.plan();
            if self.regime == Regime::Arrivals {
                while self.cpu_in_use * 100 < self.cpu * IN_USE_PERCENT && self.waiting_in_all < WAITING_MAX {
                    let number = self.random.below(self.requests.len());
                    self.push(number, 1);
                    placed += self.plan();
                }
            }
        }
        (cpu_time() - started, black_box(placed))
    }

    /// Replaces everything some times over; no longer than two seconds, which favours what is slow: it is not yet as
    /// fragmented as it will be.
    fn settled(mut self) -> Load<P> {
        let (mut left, mut spent) = (5 * self.running.len() as u64, Duration::ZERO);
        while left > 0 && spent < Duration::from_secs(2) {
            let releases = left.min(100);
            spent += self.run(releases).0;
            left -= releases;
        }
        self
    }

    fn placement_ns(&mut self, releases: u64) -> f64 {
        let (spent, placed) = self.run(releases);
        spent.as_nanos() as f64 / placed as f64
    }

    /// For criterion: the time of so many placements.
    fn measure(&mut self, placements: u64) -> Duration {
        let (mut spent, mut placed) = (Duration::ZERO, 0);
        while placed < placements {
            let (longer, more) = self.run(placements - placed);
            spent += longer;
            placed += more;
        }
        spent.mul_f64(placements as f64 / placed as f64)
    }
}

/// Small, middle and large machines; every eighth of the large has gpus.
fn capacity(agent: u32) -> Resources {
    let size = [8, 8, 16, 16, 16, 32, 32, 64][agent as usize % 8];
    let gpu = if size == 64 { 8 } else { 0 };
    Resources { cpu: size * 1_000, memory: size * (2_000 << (agent / 8 % 3)), gpu, storage: 500 }
}

/// From a tenth of a core to eight, with 128 MB to 32 GB; few want a gpu or storage.
fn request(number: usize, random: &mut Random) -> Resources {
    let cpu = 100 << random.below(6);
    let cpu = cpu + random.below(cpu as usize) as u32;
    let memory = 128 << random.below(7);
    let memory = memory + random.below(memory as usize) as u32;
    let gpu = if number % 25 == 7 { 1 } else { 0 };
    let storage = if number % 10 == 3 { 1 + random.below(20) as u32 } else { 0 };
    Resources { cpu, memory, gpu, storage }
}

/// Of this thread: what is asked for is a rate per core, and others may use it meanwhile.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}
