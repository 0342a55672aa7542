//! Work that stops when the scheduler is not heard, over a real network that is cut: the supervisors stop it by themselves,
//! also when their agent is dead, and on return it is reported so and its job's terms decide what comes next.
//!
//! Needs root and iproute2; skipped elsewhere, and said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_tests::{Cluster, network::Network, wait_for};
use std::{fs, sync::Arc};

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
    let network = match Network::new(1) {
        Ok(network) => Arc::new(network),
        Err(error) => {
            eprintln!("skipped: no network of its own: {error}");
            return;
        }
    };
    let mut cluster = Cluster::start_on(Some(Arc::clone(&network)));
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
