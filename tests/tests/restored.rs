//! A backup of the scheduler's folder that is put back while agents have gone on: the receipts that they hold prove it,
//! nothing is assigned until the operator says so, and then the work ends, each task committed once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_tests::{Cluster, Operator, Process, wait_for};
use std::{fs, path::Path, process::Command};

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success(), "{} could not be copied", from.display());
}

/// The note of the scheduler that stands under the list of agents.
fn note(operator: &Operator) -> Option<String> {
    let output = operator.cli(&["agents"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    text.lines().find(|line| line.contains("restored backup")).map(str::to_owned)
}

/// Puts the copy in the place of what went on, which stays where `kept` says.
fn restore(cluster: &Cluster, copy: &Path, kept: &Path) {
    let folder = cluster.path("scheduler");
    // Where to listen is not part of a backup, but the agents know no other.
    fs::copy(folder.join("address"), copy.join("address")).unwrap();
    fs::rename(&folder, kept).unwrap();
    fs::rename(copy, &folder).unwrap();
}

/// Whatever each task's record says was committed is what its attempt wrote. Four of the tasks had begun before the backup.
fn check_committed(cluster: &Cluster, job: &str, count: u64) {
    cluster.wait_for_count(job, "completed", count);
    let ledger = cluster.ledger();
    let tasks = cluster.cli_json(&["tasks", job, "-n", "1000", "--json"]);
    let tasks = tasks.as_array().expect("rows");
    assert_eq!(tasks.len() as u64, count);
    for task in tasks {
        let (id, attempt) = (task["task"].as_str().unwrap(), task["attempt"].as_u64().unwrap());
        let name = format!("{id} {attempt}");
        let ran = ledger.get(&name).copied().unwrap_or_default();
        assert!(ran.0 > 0 && ran.0 == ran.1, "what was committed did not run to its end: {task} {ledger:?}");
        // Of these the backup knows to whom they were given: their ends are found there. Others it gives out anew.
        let known = id.rsplit('.').next().unwrap().parse::<u32>().unwrap() < 4;
        assert!(ran.0 == 1 || !known, "it ran again although its device knows how it ended: {task} {ledger:?}");
        assert_eq!(cluster.cli_ok(&["result", id]).trim(), format!("\"{name}\""));
    }
}

#[test]
fn a_backup_that_is_put_back_assigns_nothing_until_it_is_accepted() {
    let mut cluster = Cluster::with_agents(2);
    let job = cluster.submit(&cluster.ledger_job("lost_after = '2s'", 8));
    cluster.wait_for_count(&job, "running", 4);
    cluster.scheduler.as_mut().unwrap().terminate();
    let (backup, kept) = (cluster.path("backup"), cluster.path("went-on"));
    copy(&cluster.path("scheduler"), &backup);

    // It goes on: the first job ends, another is taken, of which the backup knows nothing.
    cluster.start_scheduler();
    cluster.wait_for_agents(2);
    let second = cluster.submit("[[task]]\ncount = 8\ncpu = 1\ncommand = ['sleep', '0.2']\n");
    fs::write(cluster.path("go"), "").unwrap();
    cluster.wait_for_count(&job, "completed", 8);
    // So many that each agent is given some, and so has proof.
    cluster.wait_for_count(&second, "completed", 8);
    cluster.kill_scheduler();

    restore(&cluster, &backup, &kept);
    cluster.start_scheduler();
    let said = wait_for("the agents to prove it", || note(&cluster.operator()));
    assert!(said.contains("--accept-restore"), "{said}");
    let explained = cluster.cli_ok(&["explain", &format!("{job}.0.7")]);
    assert!(explained.contains("restored backup"), "{explained}");
    let file = cluster.job_file("third.toml", "[[task]]\nexecutor = 'noop'\n");
    let refused = cluster.cli(&["submit", &file]);
    let refused = (refused.status, String::from_utf8_lossy(&refused.stderr).into_owned());
    assert!(!refused.0.success() && refused.1.contains("--accept-restore"), "{refused:?}");
    assert_eq!(cluster.count(&job, "completed"), 0, "of this job the backup knows that it runs");

    // A restart alone changes nothing.
    cluster.kill_scheduler();
    cluster.start_scheduler();
    assert!(note(&cluster.operator()).is_some(), "the proof was forgotten");

    cluster.kill_scheduler();
    cluster.scheduler_options = vec!["--accept-restore"];
    cluster.start_scheduler();
    cluster.wait_for_agents(2);
    assert_eq!(note(&cluster.operator()), None);
    check_committed(&cluster, &job, 8);
    let third = cluster.submit("[[task]]\nexecutor = 'noop'\n");
    assert!(third.parse::<u64>().unwrap() > second.parse().unwrap(), "job {third}: a number was given twice");
    cluster.wait_for_count(&third, "completed", 1);
}

#[test]
fn a_copy_that_was_made_while_the_scheduler_ran_is_recognised() {
    let mut cluster = Cluster::with_agents(2);
    let job = cluster.submit(&cluster.ledger_job("lost_after = '2s'", 6));
    cluster.wait_for_count(&job, "running", 4);
    // Not consistent, and its last batch may be torn: what is whole of it is a backup all the same.
    let (backup, kept) = (cluster.path("backup"), cluster.path("went-on"));
    copy(&cluster.path("scheduler"), &backup);
    // What agents are given from here on comes with receipts from beyond the copy.
    fs::write(cluster.path("go"), "").unwrap();
    cluster.wait_for_count(&job, "completed", 6);
    cluster.kill_scheduler();

    restore(&cluster, &backup, &kept);
    cluster.start_scheduler();
    let said = wait_for("the agents to prove it", || note(&cluster.operator()));
    assert!(said.contains("--accept-restore"), "{said}");

    cluster.kill_scheduler();
    cluster.scheduler_options = vec!["--accept-restore"];
    cluster.start_scheduler();
    check_committed(&cluster, &job, 6);
}

/// Needs root and iproute2.
#[test]
fn while_the_original_still_runs_its_copy_touches_nothing() {
    let Some((mut cluster, network)) = Cluster::with_devices(2) else { return };
    cluster.join_agent("a0", &["--cpu", "2"]);
    cluster.wait_for_agents(1);
    let job = cluster.submit(&cluster.ledger_job("lost_after = '1m'", 4));
    cluster.wait_for_count(&job, "running", 2);
    let backup = cluster.path("backup");
    copy(&cluster.path("scheduler"), &backup);
    let second = cluster.submit("[[task]]\nexecutor = 'noop'\n");
    cluster.wait_for_count(&second, "completed", 1);

    // The copy takes the original's address, on another machine.
    let address = fs::read_to_string(backup.join("address")).unwrap();
    fs::remove_file(backup.join("address")).unwrap();
    network.impersonate(1);
    let options = ["--data", backup.to_str().unwrap(), "--listen", address.trim(), "--heartbeat", "1"];
    let other = network.device(1);
    let mut twin = Process::start("fleetwire-scheduler", &options, cluster.path("twin.log"), Some(&other));
    wait_for("the copy's address", || backup.join("address").exists().then_some(()));
    let operator = cluster.operator_of(&backup, &other);
    let said = wait_for("the agent to prove it", || note(&operator));
    assert!(said.contains("--accept-restore"), "{said}");
    assert!(cluster.scheduler.as_mut().unwrap().is_running() && twin.is_running());

    network.restore(1);
    cluster.finish_undisturbed(&job, 4);
}
