//! What is more urgent gets its room, and what made way is not the worse for it, on whole clusters.

use fleetwire_common::job::TaskSpec;
use fleetwire_sim::{
    Behaviour,
    stories::{CAPACITY, Story, runs_for, task},
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const LOST_AFTER: Duration = Duration::from_secs(60);

fn array(count: u32, task: TaskSpec) -> Vec<TaskSpec> {
    vec![TaskSpec { count, array: true, max_attempts: 1, max_losses: 1, ..task }]
}

#[test]
fn what_is_urgent_starts_once_the_processes_that_make_way_are_gone() {
    for seed in 0..10 {
        let mut t = Story::of_seed(2, seed);
        // Their processes ignore SIGTERM.
        let stubborn = task(&Behaviour { stubborn: true, runs_for: 300 * SECOND, ..Behaviour::default() });
        let job = t.submitted(array(8, TaskSpec { kill_grace_ms: 20_000, ..stubborn }), LOST_AFTER);
        t.run_for(10 * SECOND);
        let urgent = TaskSpec { resources: CAPACITY, priority: 10, ..runs_for(30 * SECOND) };
        let urgent = t.submitted(vec![urgent], LOST_AFTER);
        let small = t.submitted(array(40, runs_for(10 * SECOND)), LOST_AFTER);
        t.run_for(18 * SECOND);
        assert_eq!((t.agent("a").running(), t.agent("b").running()), (4, 4), "seed {seed}: they have their grace");
        assert_eq!(t.attempts(urgent, 0), 0);
        t.run_for(6 * SECOND);
        assert_eq!(t.attempts(urgent, 0), 1, "seed {seed}");
        t.run_until_idle();
        assert!(t.all_completed(urgent) && t.all_completed(job) && t.all_completed(small));
        assert_eq!((0..8).filter(|index| t.attempts(job, *index) == 2).count(), 4, "seed {seed}");
    }
}

#[test]
fn a_scheduler_that_dies_while_others_make_way_counts_nothing_against_them() {
    for seed in 0..10 {
        let mut t = Story::of_seed(1, seed);
        let job = t.submitted(array(4, runs_for(60 * SECOND)), LOST_AFTER);
        t.run_for(5 * SECOND);
        let urgent = TaskSpec { resources: CAPACITY, priority: 10, ..runs_for(5 * SECOND) };
        let urgent = t.submitted(vec![urgent], LOST_AFTER);
        t.run_for(Duration::from_millis(990 + 4 * seed));
        t.scheduler().restart_after(SECOND);
        t.run_until_idle();
        assert!(t.all_completed(urgent) && t.all_completed(job), "seed {seed}");
    }
}
