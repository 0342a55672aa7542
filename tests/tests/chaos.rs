//! Real processes under load while everything that can die does: scheduler, agents, spawners and supervisors
//! are killed at random moments, stopped and continued, and devices are cut off, in one direction or in both.
//!
//! Afterwards the client's record of what was acknowledged is compared with what the cluster says, and that
//! with a ledger that the tasks themselves wrote: nothing acknowledged is lost, nothing commits twice, and no
//! process is left behind. `CHAOS_SECONDS=600 CHAOS_SEED=7 cargo test -p fleetwire-tests --test chaos --
//! --nocapture` runs for longer, on another course.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_tests::{Cluster, Operator, name_of, network::Network, processes_in, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

const AGENTS: usize = 3;
const TASKS: u64 = 20;

/// SplitMix64: the course of a run depends on its seed and on how fast the machine is.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Does something at that moment, whatever the test itself waits for then.
fn later(at: Instant, what: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        what();
    });
}

/// What happens to a cluster.
struct Chaos {
    cluster: Cluster,
    random: Random,
    /// When what was killed is started again.
    heal: Vec<(Instant, Undo)>,
    did: BTreeMap<&'static str, u32>,
}

enum Undo {
    StartScheduler,
    StartAgent(usize),
}

impl Chaos {
    fn new(network: Option<Arc<Network>>, seed: u64) -> Chaos {
        let mut cluster = Cluster::start_on(network);
        for agent in 0..AGENTS {
            cluster.join_agent(&format!("a{agent}"), &["--cpu", "2"]);
        }
        cluster.wait_for_agents(AGENTS);
        Chaos { cluster, random: Random(seed), heal: Vec::new(), did: BTreeMap::new() }
    }

    fn strike(&mut self) {
        let agent = self.random.below(AGENTS as u64) as usize;
        let after = Instant::now() + Duration::from_millis(200 + self.random.below(3_000));
        let name = format!("a{agent}");
        let agent_id = self.cluster.agents.iter().find(|(other, _)| *other == name).map(|(_, process)| process.id());
        let what = match (self.random.below(10), agent_id) {
            (0 | 1, _) if self.cluster.scheduler.is_some() => {
                self.cluster.kill_scheduler();
                self.heal.push((after, Undo::StartScheduler));
                "scheduler killed"
            }
            (2 | 3, Some(_)) => {
                self.cluster.kill_agent(&name);
                self.heal.push((after, Undo::StartAgent(agent)));
                "agent killed"
            }
            (4, Some(id)) => match children(id).into_iter().find(|pid| name_of(*pid) == "fw-spawner") {
                Some(spawner) => signal(spawner, Signal::KILL, "spawner killed"),
                None => return,
            },
            (5 | 6, _) => {
                let folder = self.cluster.path(&name);
                let supervisors = processes_in(&folder, "fw-supervisor");
                match supervisors.get(self.random.below(supervisors.len().max(1) as u64) as usize) {
                    Some(supervisor) => signal(*supervisor, Signal::KILL, "supervisor killed"),
                    None => return,
                }
            }
            (7, _) => {
                let scheduler = self.cluster.scheduler.as_ref().map(|process| process.id());
                let (id, what) = match (scheduler, agent_id) {
                    (Some(id), _) if self.random.below(2) == 0 => (id, "scheduler stopped"),
                    (_, Some(id)) => (id, "agent stopped"),
                    _ => return,
                };
                later(after, move || {
                    // Whoever was killed while it was stopped is gone, or its number is another's, who goes on.
                    signal(id, Signal::CONT, "");
                });
                signal(id, Signal::STOP, what)
            }
            (way, _) => {
                let Some(network) = self.cluster.network.clone() else { return };
                later(after, {
                    let network = Arc::clone(&network);
                    move || network.heal(agent)
                });
                match (way, self.random.below(2)) {
                    (8, _) => {
                        network.cut(agent);
                        "device cut off"
                    }
                    (_, 0) => {
                        network.deafen(agent);
                        "device hears nothing"
                    }
                    _ => {
                        network.mute(agent);
                        "device is not heard"
                    }
                }
            }
        };
        *self.did.entry(what).or_default() += 1;
    }

    /// Undoes what is due, or everything.
    fn mend(&mut self, all: bool) {
        let now = Instant::now();
        let (due, rest) = std::mem::take(&mut self.heal).into_iter().partition(|(at, _)| all || *at <= now);
        self.heal = rest;
        let due: Vec<(Instant, Undo)> = due;
        for (_, undo) in due {
            match undo {
                Undo::StartScheduler if self.cluster.scheduler.is_none() => self.cluster.start_scheduler(),
                Undo::StartScheduler => {}
                Undo::StartAgent(agent) => {
                    let name = format!("a{agent}");
                    if !self.cluster.agents.iter().any(|(other, _)| *other == name) {
                        self.cluster.start_agent(&name, &["--cpu", "2"]);
                    }
                }
            }
        }
    }

    /// Every job that the cluster knows has ended.
    fn wait_until_all_ended(&self) -> Vec<Value> {
        wait_for("every job to end", || {
            let output = self.cluster.cli(&["jobs", "-n", "100000", "--json"]);
            let jobs: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
            let ended = |job: &Value| ["pending", "assigned", "running"].iter().all(|part| job["counts"][*part] == 0);
            jobs.iter().all(ended).then_some(jobs)
        })
    }
}

/// A job whose tasks take from nothing to half a second and write down that they began and ended.
fn job(cluster: &Cluster) -> String {
    let ledger = cluster.path("ledger").display().to_string();
    let text = format!(
        r#"
name = "chaos"
lost_after = "2s"
[[task]]
name = "step"
count = {TASKS}
cpu = 1
max_attempts = 100
max_losses = 100
backoff = "100ms"
script = '''
me="$FLEETWIRE_TASK_ID $FLEETWIRE_ATTEMPT"
echo "begin $me" >>"{ledger}"
sleep 0.$(( ($FLEETWIRE_INDEX * 7 + $FLEETWIRE_ATTEMPT) % 6 ))
echo "end $me" >>"{ledger}"
printf '"%s"' "$me" >"$FLEETWIRE_RESULT"
'''
"#
    );
    cluster.job_file("chaos.toml", &text)
}

/// Submits jobs, and now and then cancels an older one. Returns the jobs whose submit was acknowledged, and
/// whether their cancel was.
fn work(operator: &Operator, job: &str, until: Instant) -> BTreeMap<u64, bool> {
    let mut random = Random(0);
    let mut acknowledged = BTreeMap::new();
    while Instant::now() < until {
        let submitted = operator.cli(&["submit", job, "--json"]);
        if submitted.status.success() {
            let view: Value = serde_json::from_slice(&submitted.stdout).expect("JSON");
            acknowledged.insert(view["job"].as_u64().expect("a number"), false);
        }
        if random.below(4) == 0 && !acknowledged.is_empty() {
            let place = random.below(acknowledged.len() as u64) as usize;
            let job = *acknowledged.keys().nth(place).unwrap();
            if operator.cli(&["cancel", &job.to_string()]).status.success() {
                acknowledged.insert(job, true);
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    acknowledged
}

/// What the tasks themselves wrote: how often each attempt began, and ended.
fn ledger(path: &Path) -> BTreeMap<(String, u64), (u32, u32)> {
    let mut attempts: BTreeMap<(String, u64), (u32, u32)> = BTreeMap::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, task, attempt] = words[..] else { panic!("a torn line in the ledger: {line:?}") };
        let entry = attempts.entry((task.to_owned(), attempt.parse().unwrap())).or_default();
        match what {
            "begin" => entry.0 += 1,
            _ => entry.1 += 1,
        }
    }
    attempts
}

/// What was acknowledged is there, each task is committed once, and as the task itself says.
fn check(cluster: &Cluster, acknowledged: &BTreeMap<u64, bool>, jobs: &[Value]) {
    let known: BTreeSet<u64> = jobs.iter().filter_map(|job| job["job"].as_u64()).collect();
    let ran = ledger(&cluster.path("ledger"));
    if let Some((attempt, _)) = ran.iter().find(|(_, (begun, ended))| *begun > 1 || *ended > 1) {
        panic!("{attempt:?} ran more than once");
    }
    for (job, cancelled) in acknowledged {
        assert!(known.contains(job), "job {job} was acknowledged, and is gone");
        let tasks = cluster.cli_json(&["tasks", &job.to_string(), "-n", "1000", "--json"]);
        let tasks = tasks.as_array().expect("rows");
        assert_eq!(tasks.len() as u64, TASKS, "of job {job}");
        for task in tasks {
            let id = task["task"].as_str().unwrap();
            match task["status"].as_str().unwrap() {
                "completed" => {}
                "cancelled" if *cancelled => continue,
                // A cancel whose acknowledgement was lost may have been done all the same.
                "cancelled" => continue,
                other => panic!("task {id} has {other}: {task}"),
            }
            let attempt = task["attempt"].as_u64().unwrap();
            let what = ran.get(&(id.to_owned(), attempt));
            assert_eq!(what, Some(&(1, 1)), "{id} committed attempt {attempt}, which did not run to its end once");
            // One of seven: each costs a process.
            if !task["task"].as_str().unwrap().rsplit('.').next().unwrap().parse::<u64>().unwrap().is_multiple_of(7) {
                continue;
            }
            let result = cluster.cli_ok(&["result", id]);
            assert_eq!(result.trim(), format!("\"{id} {attempt}\""), "the result is another attempt's");
        }
    }
}

#[test]
fn whatever_dies_nothing_acknowledged_is_lost_and_nothing_commits_twice() {
    let network = Network::new(AGENTS).inspect_err(|error| println!("without partitions: {error}")).ok().map(Arc::new);
    let (seconds, seed) = (number("CHAOS_SECONDS", 60), number("CHAOS_SEED", 1));
    let mut chaos = Chaos::new(network, seed);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (operator, file) = (chaos.cluster.operator(), job(&chaos.cluster));
    let worker = std::thread::spawn(move || work(&operator, &file, until));
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(300 + chaos.random.below(1_200)));
        chaos.strike();
        chaos.mend(false);
    }
    chaos.mend(true);
    let acknowledged = worker.join().expect("the worker's record");
    let jobs = chaos.wait_until_all_ended();
    println!("{} jobs, {} acknowledged; {:?}", jobs.len(), acknowledged.len(), chaos.did);
    check(&chaos.cluster, &acknowledged, &jobs);

    // Nobody is left behind.
    for (_, agent) in &mut chaos.cluster.agents {
        agent.terminate();
    }
    let folder = chaos.cluster.folder.path().to_owned();
    wait_for("the last process to be gone", || {
        let scheduler = chaos.cluster.scheduler.as_ref().map(|process| process.id());
        processes_in(&folder, "").into_iter().all(|pid| Some(pid) == scheduler).then_some(())
    });
}

fn signal(pid: u32, signal: Signal, what: &'static str) -> &'static str {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, signal);
    }
    what
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
