//! Agents that fail everything that they get.

use crate::harness::*;
use fleetwire_common::{fb, ids::AttemptId, job::TaskSpec};

/// Fails what it is given, one task at a time, until it is given nothing; returns how many that were.
fn fails_all(t: &mut T, name: &str) -> usize {
    let mut failed = 0;
    while let Some(attempt) = t.agent(name).holds().first().copied() {
        t.agent(name).fails(attempt);
        failed += 1;
        assert!(failed <= 100, "it is given more and more");
    }
    failed
}

fn jobs(t: &mut T, count: usize) {
    for _ in 0..count {
        t.submit(vec![TaskSpec { resources: whole(), ..task() }]);
    }
}

fn whole() -> fleetwire_common::resources::Resources {
    fleetwire_common::resources::Resources { cpu: 4_000, ..small() }
}

fn note(t: &mut T, name: &str) -> Option<String> {
    let query = fb::QueryT { kind: fb::QueryKind::Agent, agent: Some(name.into()), ..Default::default() };
    t.query(query).unwrap().agents.unwrap().remove(0).note
}

fn probe(t: &mut T) -> AttemptId {
    let held = t.agent("a").holds();
    assert_eq!(held.len(), 1, "one task to try with");
    *held.first().unwrap()
}

#[test]
fn who_fails_everything_gets_nothing_for_a_while_and_then_one_task() {
    let mut t = T::new();
    t.agent("a").register();
    jobs(&mut t, 20);
    assert_eq!(fails_all(&mut t, "a"), 8);
    assert!(note(&mut t, "a").unwrap().contains("failed"));
    let query =
        fb::QueryT { kind: fb::QueryKind::Explain, task_id: Some(id(20, 0, 0).to_string()), ..Default::default() };
    let obstacles = t.query(query).unwrap().explanation.unwrap().obstacles.unwrap();
    assert!(obstacles[0].reason.as_ref().unwrap().contains("failed"), "{obstacles:?}");
    t.pass_beating(secs(59));
    assert!(t.agent("a").holds().is_empty());
    t.pass_beating(secs(2));
    let first = probe(&mut t);
    // The try fails: twice as long.
    t.agent("a").fails(first);
    t.pass_beating(secs(118));
    assert!(t.agent("a").holds().is_empty());
    t.pass_beating(secs(4));
    let second = probe(&mut t);
    t.agent("a").completes(second);
    assert_eq!(note(&mut t, "a"), None);
    assert!(!t.agent("a").holds().is_empty());
}

#[test]
fn there_is_one_try_also_where_more_would_fit() {
    let mut t = T::new();
    t.agent("a").register();
    jobs(&mut t, 8);
    assert_eq!(fails_all(&mut t, "a"), 8);
    t.submit(vec![TaskSpec { count: 4, ..task() }]);
    t.pass_beating(secs(61));
    let first = probe(&mut t);
    t.agent("a").completes(first);
    assert_eq!(t.agent("a").holds().len(), 3);
}

#[test]
fn the_longest_cooling_time_is_bounded() {
    let mut t = T::new();
    t.agent("a").register();
    jobs(&mut t, 40);
    fails_all(&mut t, "a");
    for _ in 0..12 {
        t.pass_beating(secs(15 * 60 + 1));
        let attempt = probe(&mut t);
        t.agent("a").fails(attempt);
    }
}

#[test]
fn a_job_of_which_everything_fails_says_nothing_of_the_agent() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 50, resources: whole(), ..task() }]);
    assert_eq!(fails_all(&mut t, "a"), 50);
    assert_eq!(t.counts(job), [0, 0, 0, 0, 50, 0]);
    assert_eq!(note(&mut t, "a"), None);
}

#[test]
fn a_try_that_says_nothing_is_followed_by_another() {
    let mut t = T::new();
    t.agent("a").register();
    jobs(&mut t, 20);
    fails_all(&mut t, "a");
    t.pass_beating(secs(61));
    let first = probe(&mut t);
    t.agent("a").rejects(first);
    t.pass_beating(secs(5));
    let second = probe(&mut t);
    t.cancel(second.task.job.0, None).unwrap();
    t.agent("a").ends(second, fb::TaskStatus::Cancelled, Default::default());
    let third = probe(&mut t);
    t.agent("a").completes(third);
    assert_eq!(note(&mut t, "a"), None);
}
