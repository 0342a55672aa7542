//! Stories of queues that share a cluster. Each holds every promise after every event, that of quotas too.
#![allow(clippy::expect_used)]

use fleetwire_common::{
    ids::{JobId, Name},
    job::TaskSpec,
    policy::{Ageing, ClusterPolicy, QueueRule, Quota},
};
use fleetwire_sim::stories::{Story, runs_for};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn array(count: u32, spec: TaskSpec) -> Vec<TaskSpec> {
    vec![TaskSpec { count, array: true, ..spec }]
}

fn policy(queues: &[(&str, u32, Option<u32>)], ageing: Option<Ageing>) -> ClusterPolicy {
    let rule = |(queue, weight, cpu): &(&str, u32, Option<u32>)| {
        let quota = Quota { cpu: *cpu, ..Quota::default() };
        (Name::new(queue).expect("a name"), QueueRule { weight: *weight, quota, ..QueueRule::default() })
    };
    ClusterPolicy::new(queues.iter().map(rule), ageing).expect("a valid policy")
}

fn accepted(t: &mut Story, queue: &str, tasks: Vec<TaskSpec>) -> JobId {
    let submit = t.submit_to(queue, tasks);
    t.run_until(|cluster| cluster.clients.iter().any(|client| client.jobs.contains_key(&submit)));
    t.job_of(submit)
}

#[test]
fn shares_converge_to_the_weights() {
    let mut t = Story::of(4);
    t.policy(&policy(&[("research", 3, None), ("rare", 1, None)], None));
    // One of them comes later, and finds everything taken.
    let research = accepted(&mut t, "research", array(2_000, runs_for(SECOND)));
    t.run_for(10 * SECOND);
    let alone = t.ended(research);
    assert!(alone > 100, "alone it has all: {alone}");
    let rare = accepted(&mut t, "rare", array(1_000, runs_for(SECOND)));
    t.run_for(5 * SECOND);
    let before = (t.ended(research), t.ended(rare));
    t.run_for(60 * SECOND);
    let (of_research, of_rare) = (t.ended(research) - before.0, t.ended(rare) - before.1);
    let ratio = of_research as f64 / of_rare as f64;
    assert!((2.8..3.2).contains(&ratio), "{of_research} of one ended, and {of_rare} of the other");
}

#[test]
fn no_race_takes_more_than_a_quota() {
    let mut t = Story::of(4);
    t.policy(&policy(&[("research", 1, Some(5_000)), ("rare", 1, Some(3_000))], None));
    let jobs: Vec<JobId> = (0..6)
        .map(|number| {
            let queue = if number % 2 == 0 { "research" } else { "rare" };
            accepted(&mut t, queue, array(20, runs_for((3 + number) * SECOND)))
        })
        .collect();
    let running = |t: &mut Story| ["a", "b", "c", "d"].map(|agent| t.agent(agent).running()).iter().sum::<usize>();
    t.run_for(4 * SECOND);
    assert_eq!(running(&mut t), 8, "both quotas are used");
    // What is cancelled, cut off, lost and not known after a start is held until it is gone.
    t.partition("a");
    t.agent("b").crash();
    t.run_for(20 * SECOND);
    t.scheduler().restart_after(2 * SECOND);
    t.run_for(90 * SECOND);
    t.heal("a");
    t.agent("b").start();
    t.policy(&policy(&[("research", 1, Some(2_000)), ("rare", 1, Some(6_000))], None));
    t.agent("c").reboot();
    t.run_for(30 * SECOND);
    t.agent("c").start();
    t.policy(&policy(&[("research", 9, Some(7_000)), ("rare", 1, None)], None));
    t.run_until_idle();
    assert!(jobs.iter().all(|job| t.all_completed(*job)));
}

/// Somebody submits urgent work for ever, more than the cluster does; so long does a task without urgency wait.
fn waits(ageing: Option<Ageing>) -> Option<Duration> {
    let mut t = Story::of(1);
    t.policy(&policy(&[], ageing));
    let urgent = || array(8, TaskSpec { priority: 3, ..runs_for(10 * SECOND) });
    accepted(&mut t, "default", urgent());
    let low = accepted(&mut t, "default", vec![runs_for(SECOND)]);
    let since = t.now();
    for _ in 0..60 {
        accepted(&mut t, "default", urgent());
        t.run_for(10 * SECOND);
        if t.attempts(low, 0) > 0 {
            return Some(t.now().since(since));
        }
    }
    None
}

#[test]
fn ageing_lets_what_is_not_urgent_run_under_a_steady_stream_of_what_is() {
    assert_eq!(waits(None), None, "strictly by priority it never runs");
    let waited = waits(Some(Ageing { every: 20 * SECOND, most: 255 })).expect("it runs");
    // It comes before all that was submitted a minute after it; what came until then takes 140 s.
    assert!(waited > 60 * SECOND && waited < 160 * SECOND, "{waited:?}");
}
