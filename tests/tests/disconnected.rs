//! A real network that is cut. Work that stops when the scheduler is not heard: the supervisors stop it by themselves,
//! also when their agent is dead, and on return it is reported so and its job's terms decide what comes next. Work that goes
//! on: once both agents are heard, of a task's two attempts the one goes on that the job's terms say.
//!
//! Needs root and iproute2; skipped elsewhere, and said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_tests::{Cluster, wait_for};
use std::fs;

/// The first attempt goes on until it is stopped, any other ends at once.
fn job(cluster: &Cluster, retry_lost: bool) -> String {
    let ledger = cluster.path("ledger").display().to_string();
    cluster.submit(&format!(
        r#"
stop_on_disconnect_after = '3s'
lost_after = '1m'
retry_lost = {retry_lost}
[[task]]
cpu = 1
script = """
me="$FLEETWIRE_TASK_ID $FLEETWIRE_ATTEMPT"
trap 'echo "stopped $me" >>"{ledger}"; exit 8' TERM
echo "begin $me" >>"{ledger}"
i=0
while [ $FLEETWIRE_ATTEMPT = 1 ] && [ $i -lt 12000 ]; do sleep 0.01; i=$((i+1)); done
"""
"#
    ))
}

#[test]
fn work_stops_on_the_device_when_the_network_is_cut_and_is_retried_on_return() {
    let Some((mut cluster, network)) = Cluster::with_devices(1) else { return };
    cluster.join_agent("a0", &["--cpu", "2"]);
    cluster.wait_for_agents(1);
    let (retried, not_retried) = (job(&cluster, true), job(&cluster, false));
    cluster.wait_for_count(&retried, "running", 1);
    cluster.wait_for_count(&not_retried, "running", 1);

    network.cut(0);
    cluster.kill_agent("a0");
    let stopped = || fs::read_to_string(cluster.path("ledger")).unwrap().matches("stopped").count();
    wait_for("the supervisors to stop both", || (stopped() == 2).then_some(()));
    for job in [&retried, &not_retried] {
        assert_eq!(cluster.count(job, "running"), 1, "the scheduler cannot know yet");
    }

    network.heal(0);
    cluster.start_agent("a0", &["--cpu", "2"]);
    cluster.wait_for_count(&retried, "completed", 1);
    let task = &cluster.cli_json(&["tasks", &retried, "--json"])[0];
    assert_eq!(task["attempt"], 2, "{task}");
    let task = wait_for("the other's end", || {
        let task = cluster.cli_json(&["tasks", &not_retried, "--json"])[0].clone();
        (task["status"] != "running").then_some(task)
    });
    assert_eq!(task["attempt"], 1, "{task}");
    assert!(task.to_string().contains("the scheduler was not heard for 3 s"), "{task}");
    let ledger = fs::read_to_string(cluster.path("ledger")).unwrap();
    assert_eq!(ledger.matches("begin").count(), 3, "{ledger}");
}

/// A task's two attempts say how far they have come, `first` and `second`, and go on until they are let. The first one's
/// agent is cut off, and comes back. Returns the attempt that then goes on, to whose end all waits.
fn best_of(first: &str, second: &str) -> Option<u64> {
    let (mut cluster, network) = Cluster::with_devices(2)?;
    cluster.join_agent("a0", &["--cpu", "1"]);
    cluster.wait_for_agents(1);
    let (go, ledger) = (cluster.path("go"), cluster.path("ledger"));
    let job = cluster.submit(&format!(
        r#"
lost_after = '2s'
keep = 'best_progress'
[[task]]
cpu = 1
script = """
progress={first}
[ $FLEETWIRE_ATTEMPT = 1 ] || progress={second}
trap 'echo "stopped $FLEETWIRE_ATTEMPT" >>"{ledger}"; exit 8' TERM
echo "progress $progress" >&"$FLEETWIRE_REPORT_FD"
i=0
while [ ! -e "{go}" ] && [ $i -lt 12000 ]; do sleep 0.01; i=$((i+1)); done
"""
"#,
        go = go.display(),
        ledger = ledger.display(),
    ));
    let task = |cluster: &Cluster| cluster.cli_json(&["tasks", &job, "--json"])[0].clone();
    let reported = |cluster: &Cluster, attempt: u64, progress: &str| {
        let progress: f64 = progress.parse().unwrap();
        wait_for(&format!("attempt {attempt} to report {progress}"), || {
            let task = task(cluster);
            let as_far = (task["progress"].as_f64().unwrap_or_default() - progress).abs() < 1e-6;
            (task["attempt"] == attempt && as_far).then_some(())
        });
    };
    reported(&cluster, 1, first);
    cluster.join_agent("a1", &["--cpu", "1"]);
    cluster.wait_for_agents(2);
    network.cut(0);
    reported(&cluster, 2, second);
    network.heal(0);
    let stopped = wait_for("one of them to be stopped", || {
        let ledger = fs::read_to_string(&ledger).unwrap_or_default();
        ledger.strip_prefix("stopped ").and_then(|rest| rest.trim().parse::<u64>().ok())
    });
    fs::write(go, "").unwrap();
    cluster.wait_for_count(&job, "completed", 1);
    let task = task(&cluster);
    assert_eq!((task["failures"].as_u64(), task["losses"].as_u64()), (Some(0), Some(0)), "{task}");
    let kept = task["attempt"].as_u64();
    assert_eq!(kept, Some(3 - stopped), "{task}");
    kept
}

#[test]
fn of_two_attempts_the_one_goes_on_that_has_come_further() {
    let Some(kept) = best_of("0.75", "0.25") else { return };
    assert_eq!(kept, 1);
    assert_eq!(best_of("0.25", "0.75"), Some(2));
}
