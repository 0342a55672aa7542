//! What happens to a device: all of the agent's unit is killed at once, its power goes, its agent is replaced by a newer
//! build. What ran goes on where it can, and where it cannot it is lost and tried again, never under the same number.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_tests::{Cluster, Process, binaries, name_of, processes_in, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::{fs, path::Path, process::Command};

/// A device with two tasks that run.
fn at_work() -> (Cluster, String) {
    let cluster = Cluster::with_agents(1);
    let job = cluster.submit(&cluster.ledger_job("", 2));
    wait_for("both to begin", || (cluster.ledger().len() == 2).then_some(()));
    cluster.wait_for_count(&job, "running", 2);
    (cluster, job)
}

/// Agent, spawner, supervisors and tasks: none is spared.
fn kill_all(cluster: &mut Cluster) {
    cluster.kill_agent("a0");
    let folder = cluster.path("a0");
    wait_for("the last process to be gone", || {
        let left = processes_in(&folder, "");
        for pid in &left {
            let _ = kill_process(Pid::from_raw(*pid as i32).unwrap(), Signal::KILL);
        }
        left.is_empty().then_some(())
    });
}

/// Both were lost and tried again: no attempt began twice, and the first never ended.
fn check_tried_again(cluster: &Cluster, job: &str) {
    fs::write(cluster.path("go"), "").unwrap();
    cluster.wait_for_count(job, "completed", 2);
    let ledger = cluster.ledger();
    let of_attempt = |number: &str| {
        let attempts = ledger.iter().filter(|(attempt, _)| attempt.ends_with(number));
        attempts.map(|(_, ran)| *ran).collect::<Vec<_>>()
    };
    assert_eq!(of_attempt(" 1"), [(1, 0), (1, 0)], "{ledger:?}");
    assert_eq!(of_attempt(" 2"), [(1, 1), (1, 1)], "{ledger:?}");
}

#[test]
fn a_unit_that_is_killed_as_a_whole_loses_what_ran_and_it_is_tried_again() {
    let (mut cluster, job) = at_work();
    kill_all(&mut cluster);
    cluster.start_agent("a0", &["--cpu", "2"]);
    check_tried_again(&cluster, &job);
}

#[test]
fn after_a_loss_of_power_what_may_have_run_does_not_run_again_under_the_same_number() {
    // Another boot, as the kernel tells it: seen by this agent alone.
    let program = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    let allowed = Command::new("unshare").args(["-m", "sh", "-c", program, "/dev/null", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this system does not let a test have mounts of its own");
        return;
    }
    let (mut cluster, job) = at_work();
    kill_all(&mut cluster);
    // What the slots said was not synced, and went with the power.
    fs::remove_dir_all(cluster.path("a0/slots")).unwrap();
    let boot = cluster.path("boot_id");
    fs::write(&boot, "01234567-89ab-cdef-0123-456789abcdef\n").unwrap();
    let (agent, data) = (binaries().join("fleetwire-agent"), cluster.path("a0"));
    let options = ["-m", "sh", "-c", program, text(&boot), text(&agent), "--data", text(&data), "--cpu", "2"];
    let process = Process::start("/usr/bin/unshare", &options, cluster.path("a0.log"), None);
    cluster.agents.push(("a0".to_owned(), process));
    check_tried_again(&cluster, &job);
}

#[test]
fn an_agent_whose_executable_was_replaced_starts_its_own_spawner_and_the_next_one_adopts_its_work() {
    let mut cluster = Cluster::start();
    cluster.join_agent("a0", &["--cpu", "3"]);
    cluster.wait_for_agents(1);
    cluster.agent("a0").terminate();
    cluster.agents.clear();
    let (installed, data) = (cluster.path("installed-agent"), cluster.path("a0"));
    let install = || {
        let new = installed.with_extension("new");
        fs::copy(binaries().join("fleetwire-agent"), &new).unwrap();
        fs::rename(&new, &installed).unwrap();
    };
    let start = |cluster: &mut Cluster| {
        let options = ["--data", text(&data), "--cpu", "3"];
        let process = Process::start(text(&installed), &options, cluster.path("a0.log"), None);
        cluster.agents.push(("a0".to_owned(), process));
    };
    install();
    start(&mut cluster);
    let job = cluster.submit(&cluster.ledger_job("", 2));
    cluster.wait_for_count(&job, "running", 2);

    install();
    // The file that it was started from is gone, and it still is its own spawner.
    let spawner = || processes_in(&data, "fw-spawner").first().copied();
    let first = spawner().expect("a spawner");
    kill_process(Pid::from_raw(first as i32).unwrap(), Signal::KILL).unwrap();
    let other = cluster.submit("[[task]]\ncpu = 1\ncommand = ['true']\n");
    cluster.wait_for_count(&other, "completed", 1);
    assert!(spawner().is_some_and(|spawner| spawner != first));

    let supervisors = processes_in(&data, "fw-supervisor");
    cluster.agent("a0").terminate();
    cluster.agents.clear();
    start(&mut cluster);
    wait_for("the new agent to look", || cluster.agents[0].1.log().contains("found after the restart").then_some(()));
    let still = supervisors.iter().filter(|pid| name_of(**pid) == "fw-supervisor").count();
    assert!(still >= 2, "{still} of {supervisors:?} are left");
    cluster.finish_undisturbed(&job, 2);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
