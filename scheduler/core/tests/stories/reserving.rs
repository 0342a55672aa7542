//! What has waited for long has an agent reserved for it: who may use that meanwhile, and when it is given up.

use crate::harness::*;
use fleetwire_common::{
    fb,
    ids::{AttemptId, TaskId},
    job::TaskSpec,
    resources::Resources,
};
use std::time::Duration;

/// All of an agent's cores.
fn large() -> TaskSpec {
    TaskSpec { resources: Resources { cpu: 4_000, memory: 100, gpu: 0, storage: 0 }, ..task() }
}

fn within(timeout_s: u64) -> TaskSpec {
    TaskSpec { timeout_s, kill_grace_ms: 5_000, ..task() }
}

fn explain(t: &mut T, task: TaskId) -> fb::ExplanationT {
    let query = fb::QueryT { kind: fb::QueryKind::Explain, task_id: Some(task.to_string()), ..fb::QueryT::default() };
    *t.query(query).unwrap().explanation.unwrap()
}

fn says(t: &mut T, task: TaskId, what: &str) -> bool {
    explain(t, task).summary.unwrap().contains(what)
}

fn hinders(t: &mut T, task: TaskId, what: &str) -> bool {
    explain(t, task).obstacles.unwrap().iter().any(|row| row.reason.as_ref().unwrap().contains(what))
}

fn agent_of(t: &mut T, job: u64) -> Option<String> {
    t.task(id(job, 0, 0)).agent
}

/// Four tasks without a limit run on each agent.
fn full(t: &mut T, agents: &[&str]) -> u64 {
    for agent in agents {
        t.agent(agent).register();
    }
    let count = 4 * agents.len() as u32;
    let job = t.submit(vec![TaskSpec { count, array: true, ..task() }]);
    for index in 0..count {
        let agent = t.task(id(job, 0, index)).agent.unwrap();
        t.agent(&agent).runs(attempt(job, index, 1));
    }
    job
}

fn complete(t: &mut T, job: u64, index: u32) {
    let agent = t.task(id(job, 0, index)).agent.unwrap();
    t.agent(&agent).completes(attempt(job, index, 1));
}

#[test]
fn small_tasks_that_keep_coming_do_not_starve_a_large_one() {
    let mut t = T::new();
    let first = full(&mut t, &["a"]);
    let big = t.submit(vec![large()]);
    let small = t.submit(vec![TaskSpec { count: 100, array: true, ..task() }]);
    t.pass_beating(secs(29));
    complete(&mut t, first, 0);
    assert_eq!(agent_of(&mut t, small).as_deref(), Some("a"), "nothing is kept before it has waited for long");
    t.pass_beating(secs(2));
    assert!(says(&mut t, id(big, 0, 0), "agent `a` is reserved for 2.0.0, which starts once enough"));
    assert!(hinders(&mut t, id(small, 0, 1), "it is busy"));
    for index in 1..4 {
        complete(&mut t, first, index);
        assert_eq!(t.counts(small)[1], 1);
        assert!(hinders(&mut t, id(small, 0, 1), "it is reserved for 2.0.0"));
    }
    t.agent("a").completes(attempt(small, 0, 1));
    assert_eq!(agent_of(&mut t, big).as_deref(), Some("a"));
    t.agent("a").completes(attempt(big, 0, 1));
    assert_eq!(t.counts(small)[1], 4, "the agent is everybody's again");
}

#[test]
fn what_surely_ends_before_the_reserved_start_goes_on_meanwhile() {
    let mut t = T::new();
    t.agent("a").register();
    let running = t.submit(vec![TaskSpec { count: 4, array: true, ..within(200) }]);
    for index in 0..4 {
        t.agent("a").runs(attempt(running, index, 1));
    }
    let big = t.submit(vec![large()]);
    t.pass_beating(secs(60));
    assert!(says(&mut t, id(big, 0, 0), "starts in 145 s at the latest"));
    // The way to the agent takes up to ten seconds, killing it five.
    let too_long = t.submit(vec![within(131)]);
    let endless = t.submit(vec![task()]);
    complete(&mut t, running, 0);
    assert!(agent_of(&mut t, too_long).is_none() && agent_of(&mut t, endless).is_none());
    let short = t.submit(vec![TaskSpec { count: 2, array: true, ..within(130) }]);
    assert_eq!(agent_of(&mut t, short).as_deref(), Some("a"), "behind those that wait");
    // The start is no later for it, and earlier as soon as what was waited for has ended.
    assert!(says(&mut t, id(big, 0, 0), "starts in 145 s at the latest"));
    t.agent("a").runs(attempt(short, 0, 1));
    t.pass_beating(secs(10));
    for index in 1..4 {
        complete(&mut t, running, index);
    }
    assert_eq!(t.counts(short)[0], 1, "for this it is too late");
    assert!(says(&mut t, id(big, 0, 0), "starts in 125 s at the latest"));
    complete(&mut t, short, 0);
    assert_eq!(agent_of(&mut t, big).as_deref(), Some("a"));
}

#[test]
fn what_leaves_enough_goes_on_beside() {
    let mut t = T::new();
    full(&mut t, &["a"]);
    let memory = Resources { cpu: 0, memory: 900, gpu: 0, storage: 0 };
    let big = t.submit(vec![TaskSpec { resources: memory, ..task() }]);
    t.pass_beating(secs(31));
    assert!(says(&mut t, id(big, 0, 0), "agent `a` is reserved"));
    let takes = |cpu, memory| TaskSpec { resources: Resources { cpu, memory, gpu: 0, storage: 0 }, ..task() };
    let none = t.submit(vec![takes(0, 0)]);
    let some = t.submit(vec![takes(0, 1)]);
    complete(&mut t, 1, 0);
    let cores = t.submit(vec![takes(1_000, 0)]);
    assert_eq!([none, some, cores].map(|job| agent_of(&mut t, job).is_some()), [true, false, true]);
    // One has to end yet, and there is room for ten beside.
    let more = t.submit(vec![TaskSpec { timeout_s: 0, ..takes(0, 10) }]);
    complete(&mut t, 1, 1);
    complete(&mut t, 1, 2);
    assert!(agent_of(&mut t, more).is_none());
    complete(&mut t, 1, 3);
    assert_eq!([big, some, more].map(|job| agent_of(&mut t, job).is_some()), [true, true, true]);
}

#[test]
fn room_that_is_free_when_it_starts_and_not_needed_is_given_away_before() {
    let mut t = T::new();
    t.agent("a").register();
    let half = Resources { cpu: 2_000, memory: 100, gpu: 0, storage: 0 };
    let long = t.submit(vec![TaskSpec { resources: Resources { cpu: 3_000, ..half }, ..within(600) }]);
    t.agent("a").runs(attempt(long, 0, 1));
    let big = t.submit(vec![TaskSpec { resources: half, ..task() }]);
    t.pass_beating(secs(31));
    let endless = t.submit(vec![TaskSpec { count: 2, array: true, ..task() }]);
    assert_eq!(agent_of(&mut t, endless).as_deref(), Some("a"));
    complete(&mut t, long, 0);
    assert_eq!(agent_of(&mut t, big).as_deref(), Some("a"));
    assert_eq!(t.counts(endless)[1], 2);
}

#[test]
fn a_task_that_wants_a_whole_agent_gets_one() {
    let mut t = T::new();
    let first = full(&mut t, &["a"]);
    let whole = t.submit(vec![TaskSpec { whole_agent: true, ..task() }]);
    let small = t.submit(vec![TaskSpec { count: 40, array: true, ..task() }]);
    let nothing = t.submit(vec![TaskSpec { resources: Resources::ZERO, ..task() }]);
    assert_eq!(agent_of(&mut t, nothing).as_deref(), Some("a"));
    t.pass_beating(secs(31));
    let late = t.submit(vec![TaskSpec { resources: Resources::ZERO, ..task() }]);
    for index in 0..4 {
        complete(&mut t, first, index);
    }
    assert!(agent_of(&mut t, small).is_none() && agent_of(&mut t, late).is_none());
    t.agent("a").completes(attempt(nothing, 0, 1));
    assert_eq!(agent_of(&mut t, whole).as_deref(), Some("a"));
}

#[test]
fn the_agent_that_is_free_first_is_reserved() {
    let mut t = T::new();
    for agent in ["a", "b", "c"] {
        t.agent(agent).register();
    }
    let mut start = |agent: &str, spec: TaskSpec| {
        let job = t.submit(vec![TaskSpec { resources: large().resources, ..spec }]);
        assert_eq!(agent_of(&mut t, job).as_deref(), Some(agent));
        t.agent(agent).runs(attempt(job, 0, 1));
    };
    start("a", task());
    start("b", within(900));
    start("c", within(1_000));
    let big = t.submit(vec![large()]);
    t.pass_beating(secs(31));
    assert!(says(&mut t, id(big, 0, 0), "agent `b` is reserved"));
    // Gone for a moment: another is found.
    t.agent("b").lose();
    t.pass(Duration::from_millis(1));
    assert!(says(&mut t, id(big, 0, 0), "agent `c` is reserved"));
    t.agent("c").lose();
    t.pass(Duration::from_millis(1));
    assert!(says(&mut t, id(big, 0, 0), "agent `a` is reserved"));
}

#[test]
fn what_comes_first_is_held_back_by_no_reservation() {
    let mut t = T::new();
    let first = full(&mut t, &["a"]);
    let big = t.submit(vec![large()]);
    t.pass_beating(secs(31));
    let urgent = t.submit(vec![TaskSpec { priority: 1, ..task() }]);
    let later = t.submit(vec![task()]);
    complete(&mut t, first, 0);
    assert_eq!(agent_of(&mut t, urgent).as_deref(), Some("a"));
    complete(&mut t, first, 1);
    assert!(agent_of(&mut t, later).is_none() && agent_of(&mut t, big).is_none());
}

#[test]
fn a_reservation_is_given_up_when_nobody_needs_it() {
    let mut t = T::new();
    let first = full(&mut t, &["a", "b"]);
    let big = t.submit(vec![large()]);
    let small = t.submit(vec![TaskSpec { count: 100, array: true, ..task() }]);
    t.pass_beating(secs(31));
    let on: Vec<String> = (0..8).map(|index| t.task(id(first, 0, index)).agent.unwrap()).collect();
    let reserved = if says(&mut t, id(big, 0, 0), "agent `a` is reserved") { "a" } else { "b" };
    let there: Vec<u32> = (0..8).filter(|index| on[*index as usize] == reserved).collect();
    complete(&mut t, first, there[0]);
    assert_eq!(t.counts(small)[1], 0);
    t.cancel(big, None).unwrap();
    assert_eq!(t.counts(small)[1], 1, "it was cancelled");

    // Placed elsewhere: the other agent was never to be free.
    let big = t.submit(vec![TaskSpec { priority: 1, ..large() }]);
    t.pass_beating(secs(31));
    let place = explain(&mut t, id(big, 0, 0)).summary.unwrap();
    let reserved = if place.contains("agent `a`") { "a" } else { "b" };
    let on = |t: &mut T, job: u64, index| t.task(id(job, 0, index)).agent;
    for index in there.iter().skip(1).copied().chain((0..8).filter(|index| !there.contains(index))) {
        if on(&mut t, first, index).as_deref() == Some(reserved) {
            complete(&mut t, first, index);
            break;
        }
    }
    let waits = t.counts(small)[0];
    t.agent("c").register();
    assert_eq!(agent_of(&mut t, big).as_deref(), Some("c"));
    assert_eq!(t.counts(small)[0], waits - 1, "what was kept is everybody's");
}

#[test]
fn only_a_part_of_the_agents_is_reserved() {
    let mut t = T::new();
    let agents = ["a", "b", "c", "d", "e", "f", "g", "h"];
    full(&mut t, &agents);
    // Three requests that each want nearly all of an agent.
    let jobs = [3_998, 3_999, 4_000].map(|cpu| {
        let resources = Resources { cpu, ..small() };
        t.submit(vec![TaskSpec { resources, ..task() }])
    });
    t.pass_beating(secs(31));
    let reserved = jobs.map(|job| says(&mut t, id(job, 0, 0), "is reserved for"));
    assert_eq!(reserved, [true, true, false], "the first ones, on two of eight agents");
    t.cancel(jobs[0], None).unwrap();
    t.pass(Duration::from_millis(1));
    assert!(says(&mut t, id(jobs[2], 0, 0), "is reserved for"), "it is the next one's turn at once");
}

#[test]
fn what_waits_on_a_reserved_agent_is_wanted_back_and_nothing_more_is_given_ahead() {
    let mut t = T::new();
    t.agent("a").capacity(small()).backlog(128).register();
    let job = t.submit(vec![TaskSpec { count: 300, array: true, ..task() }]);
    let whole = t.submit(vec![TaskSpec { whole_agent: true, priority: 1, ..task() }]);
    let mut done = 0;
    let mut recalled = Vec::new();
    // A task each 100 ms, and so some ahead, until the agent is reserved.
    t.agent("a").inbox();
    while recalled.is_empty() && done < 290 {
        t.pass(Duration::from_millis(10));
        t.agent("a").completes(attempt(job, done, 1));
        done += 1;
        if done == 200 {
            t.pass(secs(25));
        }
        if done == 210 {
            t.pass(secs(6));
        }
        recalled = t.agent("a").recalled();
    }
    for attempt in recalled {
        t.agent("a").releases(attempt);
    }
    let held: Vec<AttemptId> = t.agent("a").holds().into_iter().collect();
    for attempt in held {
        t.agent("a").completes(attempt);
    }
    assert_eq!(agent_of(&mut t, whole).as_deref(), Some("a"));
}

#[test]
fn a_restart_reserves_anew() {
    let mut t = T::new();
    let first = full(&mut t, &["a"]);
    let big = t.submit(vec![large()]);
    let small = t.submit(vec![TaskSpec { count: 100, array: true, ..task() }]);
    t.pass_beating(secs(31));
    t.restart();
    t.agent("a").register();
    assert!(!says(&mut t, id(big, 0, 0), "is reserved"));
    t.pass_beating(secs(31));
    complete(&mut t, first, 0);
    assert_eq!(t.counts(small)[1], 0);
}
