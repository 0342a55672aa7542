//! Whole clusters: the real scheduler and real agents as processes of their own, over loopback QUIC,
//! with the journals on.
//!
//! - `cluster/noop`: tasks per second through everything but fork and exec.
//! - `cluster/process`: `/bin/true`, two at a time, output and result kept; beside it
//!   `floor/posix_spawn`, the machine's own rate of the same program, in the same run.
//! - `cluster/start`: from submit to the start of the task's process, one at a time.
//!
//! A job's time is the scheduler's own: from its acceptance to its last task's end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use fleetwire_client::Client;
use fleetwire_common::{
    fb,
    ids::Name,
    job::{JobSpec, TaskSpec},
    resources::Resources,
};
use fleetwire_link::Identity;
use fleetwire_tests::Cluster;
use std::{
    hint::black_box,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::runtime::Runtime;

const NOOP_TASKS: u32 = 50_000;
const PROCESS_TASKS: u32 = 1_000;

struct Bench {
    cluster: Cluster,
    runtime: Runtime,
    client: Client,
}

impl Bench {
    /// A cluster with agents of two cores each.
    fn new(agents: usize) -> Bench {
        let mut cluster = Cluster::start();
        for number in 0..agents {
            cluster.join_agent(&format!("a{number}"), &["--cpu", "2"]);
        }
        cluster.wait_for_agents(agents);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let data = cluster.path("scheduler");
        let mut identity = Identity::load(&data.join("operator.identity")).unwrap();
        let address = std::fs::read_to_string(data.join("address")).unwrap();
        identity.addresses = vec![address.trim().to_owned()];
        let client = runtime.block_on(Client::connect(identity)).unwrap();
        Bench { cluster, runtime, client }
    }

    /// Runs a job to its end; returns the scheduler's time for it.
    fn run(&self, task: TaskSpec) -> Duration {
        let tasks = task.count;
        let job = JobSpec::new(Name::new("bench").unwrap(), vec![task], 300).unwrap();
        self.runtime.block_on(async {
            let submitted = self.client.submit(&job).await.unwrap();
            let ended = self.client.watch(submitted.job, |_| {}).await.unwrap();
            assert_eq!(ended.counts.completed, tasks, "{ended:?}");
            Duration::from_millis(ended.ended_at_ms.unwrap() - ended.submitted_at_ms)
        })
    }

    /// From just before the submit to the start of the process, as the supervisor saw it.
    fn start_once(&self) -> Duration {
        let job = JobSpec::new(Name::new("start").unwrap(), vec![process(1)], 300).unwrap();
        self.runtime.block_on(async {
            let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let submitted = self.client.submit(&job).await.unwrap();
            self.client.watch(submitted.job, |_| {}).await.unwrap();
            let tasks = self.client.tasks_up_to(submitted.job, 1).await.unwrap();
            let started = Duration::from_millis(tasks[0].end.as_ref().unwrap().started_at_ms + 1);
            started.saturating_sub(before)
        })
    }
}

fn noop(count: u32) -> TaskSpec {
    TaskSpec { count, array: true, executor: fb::Executor::Noop, ..TaskSpec::default() }
}

fn process(count: u32) -> TaskSpec {
    let resources = Resources { cpu: 1_000, ..Resources::ZERO };
    TaskSpec { count, array: true, command: "/bin/true".into(), resources, ..TaskSpec::default() }
}

/// The same program by posix_spawn from two threads of a small process.
fn spawn_floor(count: u32) -> Duration {
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..count / 2 {
                    let mut command = Command::new("/bin/true");
                    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                    black_box(command.status().unwrap());
                }
            });
        }
    });
    started.elapsed()
}

fn cluster(criterion: &mut Criterion) {
    let bench = Bench::new(2);
    let mut group = criterion.benchmark_group("cluster");
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(20));
    group.throughput(Throughput::Elements(u64::from(NOOP_TASKS)));
    group.bench_function("noop", |b| b.iter_custom(|rounds| (0..rounds).map(|_| bench.run(noop(NOOP_TASKS))).sum()));
    group.finish();
    drop(bench);

    let bench = Bench::new(1);
    let mut group = criterion.benchmark_group("cluster");
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Elements(u64::from(PROCESS_TASKS)));
    // One of each in turn, so that both see the same machine.
    let mut pairs = Vec::new();
    group.bench_function("process", |b| {
        b.iter_custom(|rounds| {
            let mut ours = Duration::ZERO;
            for _ in 0..rounds {
                let floor = spawn_floor(PROCESS_TASKS);
                let round = bench.run(process(PROCESS_TASKS));
                pairs.push(floor.as_secs_f64() / round.as_secs_f64());
                ours += round;
            }
            ours
        });
    });
    group.bench_function("floor/posix_spawn", |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| spawn_floor(PROCESS_TASKS)).sum());
    });
    group.finish();
    if !pairs.is_empty() {
        pairs.sort_by(f64::total_cmp);
        println!(
            "cluster/process: {:.0} % of posix_spawn, the median of pairs in turn",
            100.0 * pairs[pairs.len() / 2]
        );
    }

    let mut group = criterion.benchmark_group("cluster");
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(5));
    let mut starts = Vec::new();
    group.bench_function("start", |b| {
        b.iter_custom(|rounds| {
            let times: Vec<Duration> = (0..rounds).map(|_| bench.start_once()).collect();
            starts.extend(times.iter().copied());
            times.into_iter().sum()
        });
    });
    group.finish();
    if !starts.is_empty() {
        starts.sort();
        println!("cluster/start: median {:?} of {}", starts[starts.len() / 2], starts.len());
    }
    drop(bench.cluster);
}

criterion_group!(benches, cluster);
criterion_main!(benches);
