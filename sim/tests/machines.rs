//! Stories of machines that fail: supervisors, spawners, disks, clocks, and cards that are copied.

use fleetwire_common::{fb::TaskStatus, job::TaskSpec};
use fleetwire_sim::{
    Fault, Setting,
    stories::{Story, runs_for},
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const LOST_AFTER: Duration = Duration::from_secs(90);

fn array(count: u32, spec: TaskSpec) -> Vec<TaskSpec> {
    vec![TaskSpec { count, array: count > 1, ..spec }]
}

#[test]
fn a_killed_supervisor_costs_its_attempt_and_nothing_else() {
    let mut t = Story::of(1);
    let job = t.submitted(array(4, TaskSpec { max_losses: 3, ..runs_for(20 * SECOND) }), LOST_AFTER);
    t.run_for(5 * SECOND);
    t.strike(Fault::SupervisorKilled);
    t.run_until_idle();
    assert!(t.all_completed(job));
    assert_eq!(t.agent("a").started(), 5, "one of the four ran twice");
}

#[test]
fn a_supervisor_that_is_forked_after_its_agents_death_finds_the_verdict_and_goes() {
    for seed in 0..20 {
        let mut t = Story::of_seed(1, seed);
        t.strike(Fault::LateSpawner);
        let job = t.submitted(array(4, TaskSpec { max_losses: 5, ..runs_for(SECOND) }), LOST_AFTER);
        t.run_for(SECOND / 2);
        t.agent("a").crash();
        t.agent("a").start();
        // Promises P2 and P3 hold meanwhile, however late the four are forked.
        t.run_until_idle();
        assert!(t.all_completed(job));
    }
}

#[test]
fn a_scheduler_whose_disk_cannot_sync_ends_and_has_lost_nothing_that_it_acknowledged() {
    for seed in 0..20 {
        let mut t = Story::of_seed(2, seed);
        let first = t.submitted(array(4, runs_for(5 * SECOND)), LOST_AFTER);
        t.cluster.scheduler.disk.fail_syncs(1);
        let second = t.submit(array(4, runs_for(5 * SECOND)), LOST_AFTER);
        t.run_until(|cluster| cluster.scheduler.up.is_none());
        assert!(t.cluster.clients.iter().all(|client| !client.jobs.contains_key(&second)), "nothing was said");
        t.run_until(|cluster| cluster.scheduler.up.is_some());
        // What the kernel had called clean is written anew: the power may go now.
        t.scheduler().restart_after(SECOND);
        t.run_until_idle();
        assert!(t.all_completed(first) && t.all_completed(t.job_of(second)));
    }
}

#[test]
fn a_full_disk_refuses_new_jobs_and_lets_results_through() {
    let mut t = Story::of(1);
    let running = t.submitted(array(4, runs_for(10 * SECOND)), LOST_AFTER);
    let disk = t.cluster.scheduler.disk.clone();
    disk.set_capacity(Some(disk.used_bytes()));
    let large = TaskSpec { arguments: vec!["x".repeat(5_000), "for=100".into()], ..runs_for(SECOND) };
    let submits: Vec<_> = (0..10)
        .map(|_| {
            t.run_for(SECOND / 10);
            t.submit(array(1, large.clone()), LOST_AFTER)
        })
        .collect();
    t.run_for(30 * SECOND);
    assert!(t.all_completed(running), "what ran has ended, and its results are kept");
    let taken = t.cluster.clients.first().map_or(0, |client| client.jobs.len());
    assert!((2..11).contains(&taken), "{taken}: some were taken, and then no more");
    disk.set_capacity(None);
    t.run_until_idle();
    assert!(submits.into_iter().all(|submit| t.all_completed(t.job_of(submit))));
    assert_eq!(t.cluster.scheduler.life, 1, "it went on all the time");
}

#[test]
fn a_slow_disk_only_makes_everything_slow() {
    let mut t = Story::of(2);
    t.cluster.scheduler.slow_until = t.now() + 60 * SECOND;
    let job = t.submitted(array(8, runs_for(SECOND)), LOST_AFTER);
    t.run_until_idle();
    assert!(t.all_completed(job));
    assert!((0..8).all(|index| t.attempts(job, index) == 1));
}

#[test]
fn a_clock_that_jumps_an_hour_ahead_costs_a_session_and_no_work() {
    let mut t = Story::of(1);
    let job = t.submitted(array(4, runs_for(60 * SECOND)), LOST_AFTER);
    t.run_for(5 * SECOND);
    let now = t.now();
    if let Some(agent) = t.cluster.agents.first_mut() {
        agent.device.clock.jump(now, 3_600 * SECOND);
    }
    t.run_until_idle();
    assert!(t.all_completed(job));
    assert_eq!(t.agent("a").started(), 4);
}

#[test]
fn a_copied_card_commits_every_task_once() {
    for seed in 0..20 {
        let mut t = Story::with(Setting { agents: 1, ..Setting::calm() }, seed);
        let job = t.submitted(array(8, TaskSpec { max_losses: 9, ..runs_for(20 * SECOND) }), LOST_AFTER);
        t.run_for(5 * SECOND);
        t.strike(Fault::Clone);
        t.run_for(60 * SECOND);
        let stopped = t.cluster.stop_faults();
        t.expect(stopped);
        t.run_until_idle();
        let ends = t.ends(job);
        assert!(ends.iter().all(|end| matches!(end, Some(TaskStatus::Completed | TaskStatus::Lost))), "{ends:?}");
    }
}
