//! What has waited for long gets its place among what keeps coming, on whole clusters.

use fleetwire_common::{job::TaskSpec, resources::Resources};
use fleetwire_sim::stories::{CAPACITY, Story, runs_for};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const LOST_AFTER: Duration = Duration::from_secs(60);

fn array(count: u32, task: TaskSpec) -> Vec<TaskSpec> {
    vec![TaskSpec { count, array: true, ..task }]
}

/// Runs for so long, and may run for twice that.
fn limited(seconds: u64) -> TaskSpec {
    TaskSpec { timeout_s: 2 * seconds, ..runs_for(Duration::from_secs(seconds)) }
}

#[test]
fn a_large_task_starts_when_it_was_to_and_small_ones_use_the_time_until_then() {
    for seed in 0..20 {
        let mut t = Story::of_seed(2, seed);
        // On each agent one of them runs for longer than the others.
        for _ in 0..2 {
            t.submitted(array(3, limited(35)), LOST_AFTER);
            t.submitted(array(1, limited(60)), LOST_AFTER);
        }
        let large = t.submitted(vec![TaskSpec { resources: CAPACITY, ..runs_for(SECOND) }], LOST_AFTER);
        let endless = t.submitted(array(100, runs_for(50 * SECOND)), LOST_AFTER);
        let short = t.submitted(array(300, limited(2)), LOST_AFTER);
        t.run_for(59 * SECOND);
        assert_eq!(t.attempts(large, 0), 0);
        let ended = t.ended(short);
        assert!(ended >= 20, "seed {seed}: {ended} ran on what was kept");
        // The long one has ended before its time, and so has what went on beside.
        t.run_for(5 * SECOND);
        assert_eq!(t.attempts(large, 0), 1, "seed {seed}");
        t.run_until_idle();
        assert!(t.all_completed(large) && t.all_completed(endless) && t.all_completed(short));
    }
}

#[test]
fn a_whole_agent_becomes_free_among_small_tasks() {
    let mut t = Story::of(1);
    t.submitted(array(4, runs_for(10 * SECOND)), LOST_AFTER);
    let whole = TaskSpec { resources: Resources::ZERO, whole_agent: true, ..runs_for(SECOND) };
    let whole = t.submitted(vec![whole], LOST_AFTER);
    let small = t.submitted(array(400, runs_for(3 * SECOND)), LOST_AFTER);
    t.run_for(45 * SECOND);
    assert!(t.all_completed(whole) && !t.all_completed(small));
    t.run_until_idle();
    assert!(t.all_completed(small));
}

#[test]
fn a_scheduler_that_dies_reserves_anew() {
    let mut t = Story::of(1);
    t.submitted(array(4, runs_for(40 * SECOND)), LOST_AFTER);
    let large = t.submitted(vec![TaskSpec { resources: CAPACITY, ..runs_for(SECOND) }], LOST_AFTER);
    let small = t.submitted(array(400, runs_for(20 * SECOND)), LOST_AFTER);
    t.run_for(31 * SECOND);
    t.scheduler().restart_after(SECOND);
    t.run_for(80 * SECOND);
    assert!(t.all_completed(large) && !t.all_completed(small));
    t.run_until_idle();
}
