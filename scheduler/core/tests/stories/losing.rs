//! Agents that are not heard: suspects, rivals, losses.

use crate::harness::*;
use fleetwire_common::{
    fb::{EndReason as R, ErrorCode as C, TaskStatus as S},
    ids::AttemptId,
    job::TaskSpec,
};
use fleetwire_scheduler_core::{Event, fact::Fact};

/// `a` runs the only task, `b` is ready; jobs of the harness have a `lost_after` of 60 s.
fn with_two_agents(spec: TaskSpec) -> (T, AttemptId, AttemptId) {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![spec]);
    t.agent("b").register();
    t.agent("a").runs(attempt(job, 0, 1));
    (t, attempt(job, 0, 1), attempt(job, 0, 2))
}

fn facts(t: &T, wanted: fn(&Fact<'_>) -> bool) -> usize {
    t.facts.iter().filter(|fact| wanted(&Fact::decode(fact).unwrap().1)).count()
}

#[test]
fn a_lost_connection_ends_nothing() {
    let (mut t, first, _) = with_two_agents(task());
    t.agent("a").lose();
    t.pass_beating(secs(59));
    assert_eq!(t.counts(first.task.job.0), [0, 0, 1, 0, 0, 0]);
    assert!(!t.task(first.task).suspect);
    t.agent("a").register().completes(first);
    assert_eq!(t.counts(first.task.job.0), [0, 0, 0, 1, 0, 0]);
    assert!(t.agent("b").assigned().is_empty());
}

#[test]
fn a_suspect_gains_one_rival_and_the_first_result_counts() {
    let (mut t, first, second) = with_two_agents(task());
    t.agent("a").lose();
    t.pass_beating(secs(61));
    assert_eq!(t.agent("b").assigned(), [second]);
    t.pass_beating(secs(600));
    assert!(t.agent("b").assigned().is_empty());
    // The one that was away comes back with a result, first.
    assert!(t.agent("a").register().completes(first).acked(first));
    assert_eq!(t.agent("b").cancelled(), [(second, R::Rival)]);
    assert_eq!(t.counts(first.task.job.0), [0, 0, 0, 1, 0, 0]);
    assert_eq!(t.agent("b").completes(second).nacked(), C::AttemptEnded);
    assert_eq!(t.task(first.task).attempt, 1);
}

#[test]
fn a_rival_that_is_first_ends_the_suspect() {
    let (mut t, first, second) = with_two_agents(task());
    t.agent("a").lose();
    t.pass_beating(secs(61));
    assert!(t.agent("b").completes(second).acked(second));
    assert_eq!(t.counts(first.task.job.0), [0, 0, 0, 1, 0, 0]);
    // It lists what has ended, is told to stop, and its result is refused; only then its core is free.
    t.agent("a").register();
    let more = t.submit(vec![TaskSpec { count: 8, ..task() }]);
    assert_eq!(t.counts(more), [1, 7, 0, 0, 0, 0]);
    assert_eq!(t.agent("a").completes(first).nacked(), C::AttemptEnded);
    assert_eq!(t.counts(more), [0, 8, 0, 0, 0, 0]);
}

#[test]
fn an_agent_that_returns_in_time_needs_no_rival() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    t.agent("a").runs(attempt(job, 0, 1)).lose();
    t.pass(secs(61));
    assert!(t.task(id(job, 0, 0)).suspect);
    t.agent("a").register();
    assert!(!t.task(id(job, 0, 0)).suspect);
    t.agent("b").register();
    assert!(t.agent("b").assigned().is_empty());
    t.agent("a").completes(attempt(job, 0, 1));
}

#[test]
fn a_rival_that_fails_leaves_the_task_to_the_suspect_and_another_rival() {
    let (mut t, first, second) = with_two_agents(TaskSpec { max_attempts: 2, ..task() });
    t.agent("a").lose();
    t.pass_beating(secs(61));
    t.agent("b").fails(second);
    let third = AttemptId { attempt: 3, ..second };
    assert_eq!(t.agent("b").assigned(), [second, third]);
    // The second failure is one too many, and ends the suspect with it.
    t.agent("b").fails(third);
    assert_eq!(t.counts(first.task.job.0), [0, 0, 0, 0, 1, 0]);
    assert_eq!(t.agent("a").register().completes(first).nacked(), C::AttemptEnded);
}

#[test]
fn when_the_rival_is_suspect_too_the_older_ends() {
    let (mut t, first, second) = with_two_agents(TaskSpec { max_losses: 3, ..task() });
    t.agent("a").lose();
    t.pass_beating(secs(61));
    t.agent("b").lose();
    t.pass(secs(61));
    let summary = t.task(first.task);
    assert_eq!((summary.losses, summary.attempt, summary.suspect), (1, 2, true));
    t.agent("c").register();
    let third = AttemptId { attempt: 3, ..second };
    assert_eq!(t.agent("c").assigned(), [third]);
    assert_eq!(t.agent("a").register().completes(first).nacked(), C::AttemptEnded);
    t.agent("c").lose();
    t.pass_beating(secs(61));
    // Two suspects and one loss: it has cost as many agents as it may.
    let summary = t.task(first.task);
    assert_eq!((summary.status, summary.end.unwrap().reason), (S::Lost, R::AgentLost));
    assert_eq!(t.agent("b").register().completes(second).nacked(), C::AttemptEnded);
}

#[test]
fn a_task_that_may_be_lost_once_ends_with_its_agent() {
    let (mut t, first, _) = with_two_agents(TaskSpec { max_losses: 1, ..task() });
    t.agent("a").lose();
    t.pass_beating(secs(61));
    assert_eq!(t.counts(first.task.job.0), [0, 0, 0, 0, 1, 0]);
    assert!(t.agent("b").assigned().is_empty());
}

#[test]
fn an_agent_that_says_itself_that_it_lost_an_attempt_is_believed() {
    let (mut t, first, second) = with_two_agents(task());
    assert!(t.agent("a").ends(first, S::Lost, Default::default()).acked(first));
    let summary = t.task(first.task);
    assert_eq!((summary.losses, summary.failures, summary.attempt), (1, 0, second.attempt));
}

#[test]
fn what_the_scheduler_ended_as_lost_is_not_acknowledged_as_a_result() {
    let (mut t, first, _) = with_two_agents(TaskSpec { max_losses: 1, ..task() });
    t.agent("a").lose();
    t.pass_beating(secs(61));
    assert_eq!(t.agent("a").register().completes(first).nacked(), C::AttemptEnded);
}

#[test]
fn our_own_standstill_makes_nobody_suspect() {
    let (mut t, first, second) = with_two_agents(task());
    t.agent("a").lose();
    t.pass_beating(secs(30));
    t.now = t.now + secs(40);
    t.handle(Event::Stalled { gap: secs(40) });
    t.pass_beating(secs(29));
    assert!(!t.task(first.task).suspect);
    t.pass_beating(secs(2));
    assert_eq!(t.agent("b").assigned(), [second]);
}

#[test]
fn a_restart_begins_all_leases_afresh() {
    let (mut t, first, second) = with_two_agents(task());
    t.agent("a").lose();
    t.pass_beating(secs(50));
    t.restart();
    t.agent("b").register();
    t.pass_beating(secs(59));
    assert!(!t.task(first.task).suspect);
    t.pass_beating(secs(2));
    assert_eq!(t.agent("b").assigned(), [second]);
}

#[test]
fn a_restart_between_suspect_and_rival_loses_nothing() {
    let (mut t, first, second) = with_two_agents(task());
    t.agent("a").lose();
    t.pass_beating(secs(61));
    t.restart();
    // Both attempts are in the state; both may be listed.
    t.agent("b").register().completes(second);
    assert_eq!(t.counts(first.task.job.0), [0, 0, 0, 1, 0, 0]);
}

#[test]
fn absence_is_noted_once_and_not_for_every_short_break() {
    let mut t = T::new();
    for _ in 0..50 {
        t.agent("a").register().lose();
        t.pass(secs(1));
    }
    let unreachable = |fact: &Fact<'_>| matches!(fact, Fact::AgentUnreachable { .. });
    let returned = |fact: &Fact<'_>| matches!(fact, Fact::AgentReturned { .. });
    let registered = |fact: &Fact<'_>| matches!(fact, Fact::AgentRegistered { .. });
    assert_eq!((facts(&t, unreachable), facts(&t, registered)), (0, 1));
    for _ in 0..10 {
        t.pass(secs(6));
        t.agent("a").register().lose();
    }
    assert!(facts(&t, unreachable) <= 2);
    t.pass(secs(120));
    t.agent("a").register();
    assert_eq!(facts(&t, unreachable), facts(&t, returned));
}
