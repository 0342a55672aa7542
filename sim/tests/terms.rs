//! Stories of a job's terms: what becomes of its attempts when their agents are not heard (docs/jobs.md).

use fleetwire_common::{
    fb::{Keep, TaskStatus},
    ids::{JobId, Name},
    job::{Semaphore, TaskSpec},
    terms::Terms,
};
use fleetwire_sim::{
    Behaviour,
    stories::{Story, runs_for, task},
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// As soon as the attempts of an agent that is not heard can be gone.
const EXCLUSIVE: Terms = Terms {
    lost_after_s: 38,
    stop_on_disconnect_after_ms: 30_000,
    retry_lost: true,
    keep: Keep::Original,
    exclusive: true,
    stop_after_failures: 0,
    deadline_ms: 0,
    start_after_ms: 0,
    start_at_ms: 0,
    max_running: 0,
    await_agents: false,
};

fn long() -> TaskSpec {
    TaskSpec { max_losses: 5, kill_grace_ms: 5_000, ..runs_for(600 * SECOND) }
}

/// The agents on which something runs.
fn where_it_runs(t: &mut Story) -> Vec<&'static str> {
    ["a", "b"].into_iter().filter(|agent| t.agent(agent).running() > 0).collect()
}

/// One task runs on an agent that is cut off until another agent has it too; then both are heard.
fn two_of_one(keep: Keep, spec: TaskSpec) -> (Story, JobId) {
    let mut t = Story::of(2);
    let job = t.submitted_on(vec![spec], Terms { keep, ..Terms::lost_after(20) });
    t.run_for(5 * SECOND);
    let Some(original) = where_it_runs(&mut t).pop() else { panic!("it runs nowhere") };
    t.partition(original);
    t.run_until(|cluster| cluster.agents.iter().all(|agent| agent.device.running() == 1));
    t.run_for(5 * SECOND);
    t.heal(original);
    t.run_for(60 * SECOND);
    (t, job)
}

#[test]
fn what_is_kept_is_what_the_job_says() {
    let reports = task(&Behaviour { runs_for: 600 * SECOND, reports_every: SECOND, ..Behaviour::default() });
    let reports = TaskSpec { max_losses: 5, ..reports };
    for (keep, attempt) in [(Keep::Original, 1), (Keep::Replacement, 2), (Keep::BestProgress, 1)] {
        let (mut t, job) = two_of_one(keep, reports.clone());
        assert_eq!(where_it_runs(&mut t).len(), 1, "{keep:?}: one of the two goes on");
        t.run_until_idle();
        assert!(t.all_completed(job));
        assert_eq!(t.committed(job, 0), Some(attempt), "{keep:?}");
    }
}

#[test]
fn exclusive_work_starts_elsewhere_only_once_it_has_stopped() {
    for seed in 0..20 {
        let mut t = Story::of_seed(2, seed);
        let job = t.submitted_on(vec![long()], EXCLUSIVE);
        t.run_for(15 * SECOND);
        let Some(first) = where_it_runs(&mut t).pop() else { panic!("it runs nowhere") };
        // That they never run together is looked at after every event.
        t.partition(first);
        t.run_for(90 * SECOND);
        assert_eq!((where_it_runs(&mut t).len(), t.attempts(job, 0)), (1, 2));
        assert_eq!(t.agent(first).running(), 0);
        t.heal(first);
        t.run_until_idle();
        assert!(t.all_completed(job));
    }
}

#[test]
fn what_holds_a_semaphore_holds_it_until_its_agent_has_stopped_it() {
    for seed in 0..20 {
        let mut t = Story::of_seed(2, seed);
        let Ok(name) = Name::new("only") else { panic!("it is a name") };
        let only = Semaphore { name, max: 1, units: 1 };
        let spec = TaskSpec { semaphores: vec![only], ..long() };
        let first = t.submitted_on(vec![spec.clone()], EXCLUSIVE);
        t.run_for(15 * SECOND);
        let second = t.submitted_on(vec![spec], EXCLUSIVE);
        let Some(holder) = where_it_runs(&mut t).pop() else { panic!("it runs nowhere") };
        // That they never run together is looked at after every event.
        t.partition(holder);
        t.run_for(30 * SECOND);
        t.scheduler().restart_after(SECOND);
        t.run_for(60 * SECOND);
        assert_eq!(t.agent(holder).running(), 0);
        assert_eq!(t.attempts(first, 0) + t.attempts(second, 0), 2, "one of both runs by now");
        t.heal(holder);
        t.run_until_idle();
        assert!(t.all_completed(first) && t.all_completed(second));
    }
}

#[test]
fn a_supervisor_stops_unheard_work_although_its_agent_has_died() {
    let mut t = Story::of(1);
    let job = t.submitted_on(vec![TaskSpec { max_losses: 1, ..long() }], EXCLUSIVE);
    t.run_for(15 * SECOND);
    t.agent("a").crash();
    t.run_for(20 * SECOND);
    assert_eq!(t.agent("a").running(), 1);
    t.run_for(20 * SECOND);
    assert_eq!(t.agent("a").running(), 0, "nobody told it to");
    t.agent("a").start();
    t.run_until_idle();
    assert_eq!(t.ends(job), [Some(TaskStatus::Lost)]);
}

#[test]
fn a_device_that_slept_for_too_long_gives_stubborn_exclusive_work_no_more_grace() {
    let mut t = Story::of(2);
    let stubborn = task(&Behaviour { stubborn: true, runs_for: 600 * SECOND, ..Behaviour::default() });
    let stubborn = TaskSpec { max_losses: 5, kill_grace_ms: 5_000, ..stubborn };
    let job = t.submitted_on(vec![stubborn], EXCLUSIVE);
    t.run_for(15 * SECOND);
    let until = t.now() + 100 * SECOND;
    for agent in t.cluster.agents.iter_mut().filter(|agent| agent.device.running() > 0) {
        agent.suspended_until = until;
    }
    t.run_until_idle();
    assert!(t.all_completed(job));
    assert_eq!(t.committed(job, 0), Some(2));
}

#[test]
fn work_that_is_not_to_be_retried_is_lost_once() {
    let mut t = Story::of(2);
    let job = t.submitted_on(vec![long()], Terms { retry_lost: false, ..Terms::lost_after(20) });
    t.run_for(5 * SECOND);
    let Some(first) = where_it_runs(&mut t).pop() else { panic!("it runs nowhere") };
    t.partition(first);
    t.run_for(60 * SECOND);
    t.heal(first);
    t.run_until_idle();
    assert_eq!((t.ends(job), t.attempts(job, 0)), (vec![Some(TaskStatus::Lost)], 1));
}

#[test]
fn what_is_lost_too_often_is_lost() {
    let mut t = Story::of(3);
    let job = t.submitted_on(vec![TaskSpec { max_losses: 2, ..long() }], Terms::lost_after(20));
    for _ in 0..2 {
        t.run_for(5 * SECOND);
        for agent in ["a", "b"] {
            if t.agent(agent).running() > 0 {
                t.partition(agent);
            }
        }
        t.run_for(100 * SECOND);
    }
    for agent in ["a", "b"] {
        t.heal(agent);
    }
    t.run_until_idle();
    assert_eq!((t.ends(job), t.attempts(job, 0)), (vec![Some(TaskStatus::Lost)], 2));
}
