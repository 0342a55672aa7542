//! A disk whose syncs fail, and one that stands still, under the real scheduler and the real agent: after a failed sync
//! nothing more is acknowledged, the process says so and ends, and the next start goes on with everything that was; a
//! disk that stands still for longer than `lost_after` costs nothing but time.
//!
//! Needs a C compiler; skipped elsewhere, and said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_tests::{Cluster, faulty_disk::FaultyDisk, wait_for};
use std::{path::PathBuf, time::Duration};

/// Longer than the job's `lost_after`, and than the tolerance of the session's clock.
const STALL: Duration = Duration::from_secs(6);
const TERMS: &str = "lost_after = '2s'";

fn faulty_disk(cluster: &Cluster, name: &str) -> Option<FaultyDisk> {
    let folder: PathBuf = cluster.path(name);
    FaultyDisk::new(&folder).inspect_err(|error| eprintln!("skipped: no C compiler here: {error}")).ok()
}

/// A scheduler on a faulty disk, with an agent whose disk is sound.
fn on_faulty_disk() -> Option<(Cluster, FaultyDisk)> {
    let mut cluster = Cluster::start();
    let disk = faulty_disk(&cluster, "faults")?;
    cluster.scheduler.as_mut().unwrap().terminate();
    cluster.environment = disk.environment();
    cluster.start_scheduler();
    cluster.environment.clear();
    cluster.join_agent("a0", &["--cpu", "2"]);
    cluster.wait_for_agents(1);
    Some((cluster, disk))
}

/// A scheduler whose disk is sound, with an agent on a faulty one.
fn agent_on_faulty_disk() -> Option<(Cluster, FaultyDisk)> {
    let mut cluster = Cluster::start();
    let disk = faulty_disk(&cluster, "faults")?;
    cluster.environment = disk.environment();
    cluster.join_agent("a0", &["--cpu", "2"]);
    cluster.environment.clear();
    cluster.wait_for_agents(1);
    Some((cluster, disk))
}

#[test]
fn after_a_failed_sync_the_scheduler_ends_and_the_next_start_has_all_that_was_acknowledged() {
    let Some((mut cluster, disk)) = on_faulty_disk() else { return };
    let job = cluster.submit(&cluster.ledger_job(TERMS, 4));
    cluster.wait_for_count(&job, "running", 2);
    disk.fail();
    let file = cluster.job_file("second.toml", "name = 'second'\n[[task]]\nexecutor = 'noop'\n");
    let operator = cluster.operator();
    let second = std::thread::spawn(move || operator.cli(&["submit", &file, "--json"]));
    let status = cluster.scheduler.as_mut().unwrap().wait();
    assert!(disk.has_failed());
    let log = cluster.scheduler.as_ref().unwrap().log();
    assert_eq!(status.code(), Some(1), "{log}");
    let says = "everything that was acknowledged is durable. Start it again once the disk is well";
    assert!(log.contains(says) && log.contains("could not make the journal durable"), "{log}");

    disk.heal();
    cluster.start_scheduler();
    cluster.wait_for_agents(1);
    let second = second.join().unwrap();
    let jobs = cluster.cli_json(&["jobs", "--json"]);
    let second_known = jobs.as_array().unwrap().iter().filter(|job| job["name"] == "second").count();
    assert!(second_known <= 1, "one submit made two jobs: {jobs}");
    assert!(!second.status.success() || second_known == 1, "it was acknowledged, and is gone: {jobs}");
    cluster.finish_undisturbed(&job, 4);
}

#[test]
fn after_a_failed_sync_the_agent_ends_and_the_next_start_adopts_its_work() {
    let Some((mut cluster, disk)) = agent_on_faulty_disk() else { return };
    let job = cluster.submit(&cluster.ledger_job("", 4));
    cluster.wait_for_count(&job, "running", 2);
    disk.fail();
    // What ends now cannot be written down, and so is not reported.
    std::fs::write(cluster.path("go"), "").unwrap();
    let status = cluster.agent("a0").wait();
    let log = cluster.agent("a0").log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("could not make the journal durable"), "{log}");
    assert!(log.contains("what runs goes on, start the agent again once the disk is fine"), "{log}");
    assert_eq!(cluster.count(&job, "completed"), 0, "an end was reported that the agent could not keep");

    disk.heal();
    cluster.kill_agent("a0");
    cluster.start_agent("a0", &["--cpu", "2"]);
    cluster.finish_undisturbed(&job, 4);
}

#[test]
fn a_disk_of_the_scheduler_that_stands_still_loses_no_agent() {
    let Some((cluster, disk)) = on_faulty_disk() else { return };
    let job = cluster.submit(&cluster.ledger_job(TERMS, 4));
    cluster.wait_for_count(&job, "running", 2);
    disk.stall();
    let file = cluster.job_file("second.toml", "[[task]]\nexecutor = 'noop'\n");
    let operator = cluster.operator();
    let second = std::thread::spawn(move || operator.cli(&["submit", &file, "--json"]));
    wait_for("a write that stands still", || disk.has_stalled().then_some(()));
    std::thread::sleep(STALL);
    assert!(!second.is_finished(), "it was answered although nothing can be kept");
    disk.heal();
    assert!(second.join().unwrap().status.success());
    cluster.finish_undisturbed(&job, 4);
}

#[test]
fn a_disk_of_an_agent_that_stands_still_restarts_nothing() {
    let Some((cluster, disk)) = agent_on_faulty_disk() else { return };
    let job = cluster.submit(&cluster.ledger_job(TERMS, 4));
    cluster.wait_for_count(&job, "running", 2);
    disk.stall();
    std::fs::write(cluster.path("go"), "").unwrap();
    wait_for("a write that stands still", || disk.has_stalled().then_some(()));
    std::thread::sleep(STALL);
    assert_eq!(cluster.count(&job, "completed"), 0, "an end was reported that the agent has not kept");
    disk.heal();
    cluster.finish_undisturbed(&job, 4);
}
