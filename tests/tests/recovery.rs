//! Processes die half-way: every task is committed once by the record, and every task really ran.
//!
//! Each task appends its attempt to a ledger of its own, outside the cluster, so that what the cluster
//! says can be compared with what happened.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_tests::{Cluster, wait_for};
use serde_json::Value;
use std::{collections::BTreeMap, fs};

const TASKS: usize = 24;

/// Tasks that take a moment each, so that there is a half-way.
fn job(cluster: &Cluster) -> String {
    let ledger = cluster.path("ledger");
    cluster.job_file(
        "job.toml",
        &format!(
            r#"
name = "half-way"
lost_after = "1s"
[[task]]
name = "step"
count = {TASKS}
cpu = 1
max_attempts = 3
script = '''
sleep 0.2
echo "$FLEETWIRE_INDEX $FLEETWIRE_ATTEMPT" >>"{}"
printf '{{"index":%s,"attempt":%s}}' "$FLEETWIRE_INDEX" "$FLEETWIRE_ATTEMPT" >"$FLEETWIRE_RESULT"
'''
"#,
            ledger.display()
        ),
    )
}

fn completed(cluster: &Cluster, job: &str) -> u64 {
    let output = cluster.cli(&["job", job, "--json"]);
    let view: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    view["counts"]["completed"].as_u64().unwrap_or(0)
}

fn submit(cluster: &Cluster) -> String {
    let view = cluster.cli_json(&["submit", &job(cluster), "--json"]);
    view["job"].as_u64().expect("a job number").to_string()
}

/// Every task is completed, exactly once by the record, and the attempt that the record names is one
/// that really ran.
fn check(cluster: &Cluster, job: &str) {
    wait_for("the job to end", || (completed(cluster, job) == TASKS as u64).then_some(()));
    let tasks = cluster.cli_json(&["tasks", job, "--json"]);
    let tasks = tasks.as_array().expect("rows");
    assert_eq!(tasks.len(), TASKS);
    let mut ran: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for line in fs::read_to_string(cluster.path("ledger")).unwrap().lines() {
        let (index, attempt) = line.split_once(' ').expect("two numbers");
        *ran.entry((index.parse().unwrap(), attempt.parse().unwrap())).or_default() += 1;
    }
    for task in tasks {
        assert_eq!(task["status"], "completed", "{task}");
        let id = task["task"].as_str().unwrap();
        let index: u64 = id.rsplit('.').next().unwrap().parse().unwrap();
        let attempt = task["attempt"].as_u64().unwrap();
        assert_eq!(
            ran.get(&(index, attempt)),
            Some(&1),
            "task {id} committed attempt {attempt}, which did not run once"
        );
    }
}

#[test]
fn an_agent_killed_half_way_leaves_every_task_committed_once() {
    let mut cluster = Cluster::with_agents(3);
    let job = submit(&cluster);
    wait_for("a third of the tasks", || (completed(&cluster, &job) >= TASKS as u64 / 3).then_some(()));
    // Not between two of its tasks: something of it must be open, and be run elsewhere.
    wait_for("a1 to run something", || {
        let agent = cluster.cli_json(&["agent", "a1", "--json"]);
        (agent["running"].as_u64()? > 0).then_some(())
    });
    cluster.kill_agent("a1");
    check(&cluster, &job);
}

#[test]
fn an_agent_killed_half_way_and_started_again_goes_on() {
    let mut cluster = Cluster::with_agents(2);
    let job = submit(&cluster);
    wait_for("a third of the tasks", || (completed(&cluster, &job) >= TASKS as u64 / 3).then_some(()));
    cluster.kill_agent("a1");
    cluster.start_agent("a1", &[]);
    check(&cluster, &job);
}

#[test]
fn a_scheduler_killed_half_way_comes_back_and_the_job_ends_the_same() {
    let mut cluster = Cluster::with_agents(3);
    let job = submit(&cluster);
    wait_for("a third of the tasks", || (completed(&cluster, &job) >= TASKS as u64 / 3).then_some(()));
    cluster.kill_scheduler();
    cluster.start_scheduler();
    check(&cluster, &job);
    let view = cluster.cli_json(&["job", &job, "--json"]);
    assert_eq!(view["counts"]["failed"], 0);
}

/// `cargo test --release -p fleetwire-tests --test recovery -- --ignored --nocapture`
#[test]
#[ignore = "a measurement: it wants the machine for itself"]
fn how_long_a_restart_under_load_takes() {
    let mut cluster = Cluster::with_agents(3);
    let ledger = cluster.path("ledger");
    let text = format!(
        "name = \"load\"\n[[task]]\nname = \"t\"\ncount = 20000\ncpu = 1\nscript = 'echo $FLEETWIRE_TASK_ID $FLEETWIRE_ATTEMPT >>{}; sleep 0.05'\n",
        ledger.display()
    );
    let file = cluster.job_file("load.toml", &text);
    let job = cluster.cli_json(&["submit", &file, "--json"])["job"].as_u64().expect("a number").to_string();
    let lines = || fs::read_to_string(&ledger).unwrap_or_default().lines().count();
    for _ in 0..5 {
        wait_for("some tasks", || (completed(&cluster, &job) > 50).then_some(()));
        cluster.kill_scheduler();
        let began = std::time::Instant::now();
        cluster.start_scheduler();
        let ready = began.elapsed();
        cluster.wait_for_agents(3);
        let connected = began.elapsed();
        let before = lines();
        // More than the agents held: work that was placed anew.
        wait_for("placement to go on", || (lines() > before + 3 * 128).then_some(()));
        println!("ready {ready:?}, agents back {connected:?}, 384 more tasks started {:?}", began.elapsed());
    }
    let tasks = fs::read_to_string(&ledger).unwrap_or_default();
    let attempts: std::collections::BTreeSet<&str> = tasks.lines().collect();
    assert_eq!(attempts.len(), tasks.lines().count(), "an attempt ran twice");
    assert!(attempts.iter().all(|line| line.ends_with(" 1")), "a task was restarted because of it");
}
