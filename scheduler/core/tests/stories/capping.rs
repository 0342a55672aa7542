//! Caps: how many attempts of a job, or of one of its entries, are assigned or run at once. The harness checks after every
//! event that no more are, and that nothing is held back that has a place.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, DependencyOn as On, EndReason as R, TaskStatus as S},
    graph::Dependency,
    ids::{AttemptId, Name, TaskId},
    job::{JobSpec, TaskSpec, Terms},
    message::End,
    resources::Resources,
};

fn named(name: &str, count: u32, max_running: u32) -> TaskSpec {
    TaskSpec { name: Name::new(name).unwrap(), count, array: true, max_running, ..task() }
}

fn submit(t: &mut T, tasks: Vec<TaskSpec>, max_running: u32) -> u64 {
    let terms = Terms { max_running, await_agents: true, ..Terms::lost_after(60) };
    let spec = JobSpec::new(Name::new("j").unwrap(), tasks, terms).unwrap();
    let submit = t.submit_id();
    t.submit_as(submit, &spec).unwrap().0
}

fn why(t: &mut T, task: TaskId) -> String {
    let query = fb::QueryT { kind: fb::QueryKind::Explain, task_id: Some(task.to_string()), ..fb::QueryT::default() };
    t.query(query).unwrap().explanation.unwrap().summary.unwrap()
}

#[test]
fn no_more_of_an_entry_runs_than_its_cap_allows() {
    let mut t = T::new();
    t.agent("a").register();
    let job = submit(&mut t, vec![named("slow", 1_000_000, 2), named("other", 2, 0)], 0);
    let other = |index| AttemptId { task: id(job, 1, index), attempt: 1 };
    assert_eq!(t.agent("a").assigned(), [attempt(job, 0, 1), attempt(job, 1, 1), other(0), other(1)]);
    assert_eq!(
        why(&mut t, id(job, 0, 999_999)),
        "waits for its turn: max_running of `slow` is 2, and 2 attempts are assigned or run"
    );
    let waits = |t: &T| t.scheduler.live().waits(id(job, 0, 2));
    assert!(waits(&t), "although it is not in the queue");
    t.agent("a").completes(other(0));
    assert!(t.agent("a").assigned().is_empty(), "there is room on the agent, and no place");
    t.agent("a").completes(attempt(job, 0, 1));
    assert_eq!(t.agent("a").assigned(), [attempt(job, 2, 1)]);
    // A place is left by whatever ends, and by what is tried again.
    t.agent("a").fails(attempt(job, 1, 1));
    assert_eq!(t.agent("a").assigned(), [attempt(job, 3, 1)]);
    t.restart();
    t.agent("a").register();
    assert!(t.agent("a").assigned().is_empty());
    t.agent("a").completes(attempt(job, 2, 1));
    assert_eq!(t.agent("a").assigned(), [attempt(job, 4, 1)]);
    let facts = t.facts.len();
    t.cancel(job, Some(id(job, 0, 7))).unwrap();
    t.cancel(job, None).unwrap();
    assert_eq!(t.facts.len(), facts + 1 + 1 + 2, "what is held back ends in ranges");
}

#[test]
fn entries_share_the_cap_of_their_job() {
    let mut t = T::new();
    t.agent("a").register();
    let large = Resources { cpu: 8_000, ..small() };
    let tasks = vec![
        TaskSpec { resources: large, priority: 1, ..named("large", 9, 0) },
        named("low", 9, 0),
        TaskSpec { priority: 2, ..named("high", 9, 1) },
    ];
    let job = submit(&mut t, tasks, 3);
    // What fits nowhere keeps no place from the others.
    let assigned = t.agent("a").assigned();
    let low = |index| AttemptId { task: id(job, 1, index), attempt: 1 };
    let high = |index| AttemptId { task: id(job, 2, index), attempt: 1 };
    assert_eq!(assigned, [high(0), low(0), low(1)]);
    assert_eq!(
        why(&mut t, id(job, 1, 2)),
        "waits for its turn: max_running of its job is 3, and 3 attempts are assigned or run"
    );
    t.agent("a").completes(low(0));
    assert_eq!(t.agent("a").assigned(), [low(2)]);
    t.agent("a").completes(high(0));
    assert_eq!(t.agent("a").assigned(), [high(1)]);
    // More may be planned in a step than there are places: what has none is given back its room.
    t.agent("b").register();
    t.agent("a").completes(low(1)).completes(low(2)).completes(high(1));
    t.pass(secs(1));
    assert_eq!(t.counts(job)[1], 3);
    let other = t.submit(vec![TaskSpec { count: 9, ..task() }]);
    t.pass(secs(1));
    assert_eq!(t.counts(other)[1], 5, "all eight places of both agents are taken");
}

#[test]
fn what_is_suspect_keeps_its_place_until_it_has_ended() {
    let mut t = T::new();
    t.agent("a").register();
    let job = submit(&mut t, vec![TaskSpec { max_losses: 9, ..named("one", 2, 1) }], 0);
    t.agent("a").runs(attempt(job, 0, 1)).lose();
    t.agent("b").register();
    t.pass_beating(secs(120));
    assert!(t.agent("b").assigned().is_empty(), "neither a rival nor the next");
    assert_eq!(
        why(&mut t, id(job, 0, 1)),
        "waits for its turn: max_running of `one` is 1, and 1 attempts are assigned or run"
    );
    t.agent("a").register();
    assert!(t.agent("b").assigned().is_empty());
    t.agent("a").completes(attempt(job, 0, 1));
    assert_eq!(t.counts(job), [0, 1, 0, 1, 0, 0]);
    // With two places the rival has the second.
    let job = submit(&mut t, vec![TaskSpec { max_losses: 9, ..named("two", 1, 2) }], 0);
    let (first, second) = (attempt(job, 0, 1), attempt(job, 0, 2));
    let (here, there) = if t.agent("a").holds().contains(&first) { ("a", "b") } else { ("b", "a") };
    t.agent(there).inbox();
    t.agent(here).runs(first).lose();
    t.pass_beating(secs(120));
    assert_eq!(t.agent(there).assigned(), [second]);
    t.agent(there).completes(second);
    assert!(t.job(job).ended_at > 0);
}

#[test]
fn what_comes_after_others_and_what_starts_later_is_capped_too() {
    let mut t = T::new();
    t.agent("a").register();
    let after =
        |each| vec![Dependency { task: Name::new("get").unwrap(), on: On::Success, each, input: String::new() }];
    let tasks = vec![
        named("get", 4, 3),
        TaskSpec { after: after(true), ..named("read", 4, 1) },
        TaskSpec { after: after(false), ..named("sum", 4, 1) },
    ];
    let terms = Terms { start_after_ms: 5_000, ..Terms::lost_after(60) };
    let spec = JobSpec::new(Name::new("j").unwrap(), tasks, terms).unwrap();
    let submit = t.submit_id();
    let (job, _) = t.submit_as(submit, &spec).unwrap();
    t.pass(secs(5));
    assert_eq!(t.counts(job)[1], 3);
    let get = |index| attempt(job, index, 1);
    let read = |index| AttemptId { task: id(job, 1, index), attempt: 1 };
    t.agent("a").inbox();
    t.agent("a").completes(get(2)).completes(get(1));
    assert_eq!(t.agent("a").assigned(), [get(3), read(2)]);
    t.restart();
    t.agent("a").register();
    t.agent("a").completes(get(0)).completes(read(2));
    assert_eq!(t.agent("a").assigned(), [read(0)]);
    t.agent("a").ends(get(3), S::Failed, End { reason: R::Exited, ..End::default() });
    assert_eq!(t.job(job).counts.unwrap().skipped, 5);
    t.agent("a").completes(read(0)).completes(read(1));
    assert!(t.job(job).ended_at > 0);
}

#[test]
fn a_rejected_attempt_leaves_its_place() {
    let mut t = T::new();
    t.agent("a").register();
    let job = submit(&mut t, vec![named("one", 2, 1)], 0);
    t.agent("a").rejects(attempt(job, 0, 1));
    t.agent("b").register();
    assert_eq!(t.agent("b").assigned(), [attempt(job, 0, 2)]);
}

#[test]
fn what_is_held_back_waits_for_an_agent_too_long_like_any_other() {
    let mut t = T::new();
    t.agent("a").register();
    let job = submit(&mut t, vec![TaskSpec { queue_timeout_s: 10, ..named("one", 5, 1) }], 0);
    t.pass(secs(10));
    assert_eq!(t.counts(job), [0, 1, 0, 0, 4, 0]);
}
