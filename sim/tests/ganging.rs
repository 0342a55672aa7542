//! Gangs start together or not at all, and none keeps another from that for ever, on whole clusters.

use fleetwire_common::{fb::OnLost, job::TaskSpec, terms::Terms};
use fleetwire_sim::stories::{CAPACITY, Story, runs_for};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// As soon as the attempts of an agent that is not heard can be gone.
fn terms() -> Terms {
    Terms { stop_on_disconnect_after_ms: 30_000, ..Terms::lost_after(38) }
}

/// So many tasks, each of which needs a whole agent.
fn gang(size: u32, duration: Duration) -> TaskSpec {
    TaskSpec {
        count: size,
        array: true,
        gang: size,
        resources: CAPACITY,
        max_attempts: 5,
        max_losses: 9,
        kill_grace_ms: 5_000,
        ..runs_for(duration)
    }
}

#[test]
fn gangs_that_each_need_more_than_half_of_the_agents_all_end_however_much_comes_beside_them() {
    for seed in 0..10 {
        let mut t = Story::of_seed(5, seed);
        // As in a queue at a counter: nobody has anything yet, and all of them want most of it at once.
        let small = TaskSpec { count: 300, array: true, ..runs_for(7 * SECOND) };
        let before = t.submitted_on(vec![TaskSpec { max_losses: 9, ..small.clone() }], Terms::lost_after(60));
        let gangs: Vec<_> = [3, 4, 5, 3, 4].map(|size| t.submit_on(vec![gang(size, 20 * SECOND)], terms())).into();
        t.run_for(20 * SECOND);
        let beside = t.submitted_on(vec![TaskSpec { max_losses: 9, ..small }], Terms::lost_after(60));
        if seed % 2 == 1 {
            t.scheduler().restart_after(SECOND);
        }
        t.run_until_idle();
        for job in gangs.into_iter().map(|submit| t.job_of(submit)).chain([before, beside]).collect::<Vec<_>>() {
            assert!(t.all_completed(job), "seed {seed}: {job:?}");
        }
    }
}

#[test]
fn a_gang_that_loses_an_agent_starts_anew_together_or_gets_another_member() {
    for seed in 0..10 {
        for on_lost in [OnLost::Restart, OnLost::Replace] {
            let mut t = Story::of_seed(3, seed);
            let job = t.submitted_on(vec![TaskSpec { gang_lost: on_lost, ..gang(2, 120 * SECOND) }], terms());
            t.run_for(15 * SECOND);
            let lost = ["a", "b", "c"].into_iter().find(|agent| t.agent(agent).running() > 0);
            let Some(lost) = lost else { panic!("it runs nowhere") };
            t.partition(lost);
            t.run_for(90 * SECOND);
            // That no two are on one agent is looked at after every event.
            let attempts = [0, 1].map(|index| t.attempts(job, index));
            let replaced = on_lost == OnLost::Replace;
            assert_eq!(attempts.iter().sum::<usize>(), if replaced { 3 } else { 4 }, "seed {seed}");
            t.heal(lost);
            t.run_until_idle();
            assert!(t.all_completed(job), "seed {seed}");
        }
    }
}
