//! What is more urgent makes others give way: whom, how many, how often, and what becomes of them.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, EndReason as R, TaskStatus as S},
    ids::{AttemptId, TaskId},
    job::TaskSpec,
    message::End,
    policy::Preempt,
    resources::Resources,
};
use fleetwire_scheduler_core::{Config, Policy};
use std::{collections::BTreeSet, time::Duration};

fn urgent(cpu: u32) -> TaskSpec {
    TaskSpec { priority: 10, resources: Resources { cpu, memory: 100, gpu: 0, storage: 0 }, ..task() }
}

/// Tasks of one job, the later of which run for less long.
fn running(t: &mut T, count: u32, spec: TaskSpec) -> u64 {
    let job = t.submit(vec![TaskSpec { count, array: count > 1, max_attempts: 1, max_losses: 1, ..spec }]);
    for index in 0..count {
        let agent = t.task(id(job, 0, index)).agent.unwrap();
        t.agent(&agent).runs(attempt(job, index, 1));
        t.pass_beating(secs(10));
    }
    t.agent("a").inbox();
    job
}

fn gives_way(t: &mut T, agent: &str, attempt: AttemptId) {
    t.agent(agent).ends(attempt, S::Cancelled, End { reason: R::Preempted, ..End::default() });
}

fn summary(t: &mut T, task: TaskId) -> String {
    let query = fb::QueryT { kind: fb::QueryKind::Explain, task_id: Some(task.to_string()), ..fb::QueryT::default() };
    t.query(query).unwrap().explanation.unwrap().summary.unwrap()
}

#[test]
fn the_least_work_makes_way_and_that_was_no_try() {
    let mut t = T::new();
    t.agent("a").register();
    let job = running(&mut t, 4, task());
    let big = t.submit(vec![urgent(2_000)]);
    t.pass_beating(Duration::from_millis(999));
    assert!(t.agent("a").cancelled().is_empty());
    t.pass(Duration::from_millis(1));
    let asked = [(attempt(job, 3, 1), R::Preempted), (attempt(job, 2, 1), R::Preempted)];
    assert_eq!(t.agent("a").cancelled().into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(asked));
    assert!(summary(&mut t, id(big, 0, 0)).contains("agent `a` is reserved for 2.0.0, where 2 attempts make way"));
    // Nothing is free before its agent has said so, and then it is for nobody else.
    gives_way(&mut t, "a", asked[0].0);
    let small = t.submit(vec![task()]);
    assert!(t.agent("a").assigned().is_empty());
    gives_way(&mut t, "a", asked[1].0);
    assert_eq!(t.agent("a").assigned(), [attempt(big, 0, 1)]);
    let victim = t.task(id(job, 0, 3));
    assert_eq!((victim.status, victim.failures, victim.losses), (S::Pending, 0, 0));
    assert!(summary(&mut t, id(job, 0, 3)).contains("its attempt 1 made way for 2.0.0"));
    t.agent("a").completes(attempt(big, 0, 1));
    assert_eq!(t.counts(job)[0], 0, "they are tried again");
    assert_eq!(t.counts(small)[0], 1);
}

#[test]
fn who_is_not_less_urgent_by_enough_goes_on() {
    let mut t = T::new();
    t.agent("a").register();
    running(&mut t, 2, TaskSpec { priority: 1, ..task() });
    running(&mut t, 2, task());
    // Two would have to go that need not.
    let big = t.submit(vec![urgent(3_000)]);
    t.pass_beating(secs(25));
    assert!(t.agent("a").cancelled().is_empty());
    t.cancel(big, None).unwrap();
    t.submit(vec![urgent(2_000)]);
    t.pass_beating(secs(2));
    assert_eq!(t.agent("a").cancelled().len(), 2);
}

#[test]
fn no_more_make_way_than_must() {
    let mut t = T::new();
    for agent in ["a", "b"] {
        t.agent(agent).register();
    }
    // On a one of a core and one of three, on b four of a core; the small one on a has run for the shortest time.
    let large = running(&mut t, 1, TaskSpec { resources: Resources { cpu: 3_000, ..small() }, ..task() });
    assert_eq!(t.task(id(large, 0, 0)).agent.as_deref(), Some("a"));
    let little = running(&mut t, 1, task());
    assert_eq!(t.task(id(little, 0, 0)).agent.as_deref(), Some("a"));
    t.pass_beating(secs(600));
    let rest = running(&mut t, 4, task());
    t.submit(vec![urgent(3_000)]);
    t.pass_beating(secs(2));
    let mut asked: Vec<AttemptId> = t.agent("b").cancelled().into_iter().map(|(attempt, _)| attempt).collect();
    asked.sort();
    assert_eq!(asked, [1, 2, 3].map(|index| attempt(rest, index, 1)), "three that have just begun");
    // A second one: the large one alone is enough, and the small one, which has lost less, need not go too.
    t.submit(vec![TaskSpec { priority: 11, ..urgent(3_000) }]);
    t.submit(vec![TaskSpec { count: 8, array: true, ..task() }]);
    t.pass_beating(secs(3));
    assert!(t.agent("a").cancelled().is_empty(), "one of two agents may be emptied at a time");
    for attempt in asked {
        gives_way(&mut t, "b", attempt);
    }
    t.pass_beating(secs(2));
    assert_eq!(t.agent("a").cancelled(), [(attempt(large, 0, 1), R::Preempted)]);
}

#[test]
fn a_task_makes_way_three_times_and_no_more() {
    let mut t = T::new();
    t.agent("a").capacity(small()).register();
    let job = t.submit(vec![TaskSpec { max_losses: 1, ..task() }]);
    for number in 1..=3 {
        t.agent("a").runs(attempt(job, 0, number));
        let next = t.submit(vec![urgent(1_000)]);
        t.pass_beating(secs(2));
        gives_way(&mut t, "a", attempt(job, 0, number));
        t.agent("a").runs(attempt(next, 0, 1)).completes(attempt(next, 0, 1));
        // Also what a start reads of a snapshot knows.
        t.restart();
        t.agent("a").register();
    }
    t.agent("a").runs(attempt(job, 0, 4));
    t.agent("a").inbox();
    t.submit(vec![urgent(1_000)]);
    t.pass_beating(secs(25));
    assert!(t.agent("a").cancelled().is_empty());
    // Whoever says so now is not believed.
    gives_way(&mut t, "a", attempt(job, 0, 4));
    assert_eq!(t.task(id(job, 0, 0)).status, S::Lost);
}

#[test]
fn only_so_many_make_way_in_a_minute() {
    let mut t = T::with(Config {
        policy: Policy { preempt: Preempt { per_minute: 2, ..Preempt::default() }, ..Policy::default() },
        ..config()
    });
    t.agent("a").register();
    running(&mut t, 4, task());
    t.submit(vec![urgent(4_000)]);
    t.pass_beating(secs(20));
    assert!(t.agent("a").cancelled().is_empty(), "four at once are too many");
    t.submit(vec![TaskSpec { priority: 11, ..urgent(2_000) }]);
    t.pass_beating(secs(2));
    assert_eq!(t.agent("a").cancelled().len(), 2);
}

#[test]
fn a_restart_forgets_who_was_asked_and_asks_again_or_believes() {
    let mut t = T::new();
    t.agent("a").register();
    let job = running(&mut t, 4, task());
    let big = t.submit(vec![urgent(2_000)]);
    t.pass_beating(secs(2));
    assert_eq!(t.agent("a").cancelled().len(), 2);
    t.restart();
    t.agent("a").register();
    // One of them had heard of it.
    gives_way(&mut t, "a", attempt(job, 3, 1));
    assert_eq!(t.task(id(job, 0, 3)).losses, 0);
    t.agent("a").inbox();
    t.pass_beating(secs(2));
    // It was given to that task again, of which nothing is lost.
    let asked: Vec<AttemptId> = t.agent("a").cancelled().into_iter().map(|(attempt, _)| attempt).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.contains(&attempt(job, 3, 2)));
    asked.into_iter().for_each(|attempt| gives_way(&mut t, "a", attempt));
    assert_eq!(t.task(id(big, 0, 0)).agent.as_deref(), Some("a"));
}

#[test]
fn one_after_the_other_finds_room() {
    let mut t = T::new();
    t.agent("a").register();
    let job = running(&mut t, 4, task());
    let many = t.submit(vec![TaskSpec { count: 4, array: true, ..urgent(1_000) }]);
    t.pass_beating(secs(1));
    for index in (0..4).rev() {
        assert_eq!(t.agent("a").cancelled(), [(attempt(job, index, 1), R::Preempted)]);
        gives_way(&mut t, "a", attempt(job, index, 1));
        t.pass(Duration::from_millis(1));
    }
    assert_eq!(t.counts(many)[1], 4);
}
