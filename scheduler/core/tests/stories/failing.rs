//! Failures, rejections and timeouts.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, EndReason as R, ErrorCode as C, TaskStatus as S},
    ids::{Name, TaskId},
    job::{Constraint, TaskSpec},
    message::End,
};

#[test]
fn a_failed_task_is_tried_again_with_growing_waits_until_it_has_failed() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { max_attempts: 3, ..task() }]);
    for (number, base_ms) in [(1, 1_000), (2, 2_000)] {
        t.agent("a").fails(attempt(job, 0, number));
        assert_eq!(t.counts(job), [1, 0, 0, 0, 0, 0]);
        let summary = t.task(id(job, 0, 0));
        let wait = summary.retry_at - t.now.as_ms();
        assert!((base_ms * 3 / 4..=base_ms * 5 / 4).contains(&wait), "{wait}");
        assert_eq!((summary.failures, summary.end.unwrap().exit_code), (number, 1));
        // The wait survives a restart of the scheduler.
        t.restart();
        t.agent("a").register();
        t.pass_beating(std::time::Duration::from_millis(wait - 10));
        assert_eq!(t.counts(job), [1, 0, 0, 0, 0, 0]);
        t.pass(std::time::Duration::from_millis(20));
        assert_eq!(t.counts(job), [0, 1, 0, 0, 0, 0]);
    }
    t.agent("a").fails(attempt(job, 0, 3));
    let summary = t.task(id(job, 0, 0));
    assert_eq!((summary.status, summary.failures, summary.attempt), (S::Failed, 3, 3));
    assert_eq!(t.counts(job), [0, 0, 0, 0, 1, 0]);
}

#[test]
fn an_attempt_that_has_ended_never_commits_but_a_lost_ack_is_sent_again() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { max_attempts: 2, backoff_ms: 0, ..task() }]);
    let (first, second) = (attempt(job, 0, 1), attempt(job, 0, 2));
    assert!(t.agent("a").fails(first).acked(first));
    assert!(t.agent("a").fails(first).acked(first));
    assert_eq!(t.agent("a").holds().into_iter().collect::<Vec<_>>(), [second]);
    // Another end for the same attempt is not what was committed.
    assert_eq!(t.agent("a").completes(first).nacked(), C::AttemptEnded);
    assert_eq!(t.agent("a").runs(first).nacked(), C::AttemptEnded);
    assert_eq!(t.agent("a").accepts(first).nacked(), C::AttemptEnded);
    assert!(t.agent("a").completes(second).acked(second));
    assert_eq!(t.agent("a").fails(first).nacked(), C::AttemptEnded);
    assert!(t.agent("a").completes(second).acked(second));
    assert_eq!(t.counts(job), [0, 0, 0, 1, 0, 0]);
    assert_eq!(t.agent("a").runs(attempt(job, 0, 3)).nacked(), C::UnknownAttempt);
    assert_eq!(t.agent("a").runs(attempt(job, 0, 0)).nacked(), C::UnknownAttempt);
    assert_eq!(t.agent("a").runs(attempt(job + 1, 0, 1)).nacked(), C::UnknownAttempt);
}

// §role-2
#[test]
fn an_agent_speaks_only_for_its_own_attempts() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    t.agent("b").register();
    let first = attempt(job, 0, 1);
    assert_eq!(t.agent("b").completes(first).nacked(), C::NotYourAttempt);
    assert_eq!(t.agent("b").runs(first).nacked(), C::NotYourAttempt);
    assert_eq!(t.agent("b").accepts(first).nacked(), C::NotYourAttempt);
    assert_eq!(t.agent("b").rejects(first).nacked(), C::NotYourAttempt);
    assert_eq!(t.counts(job), [0, 1, 0, 0, 0, 0]);
    t.agent("a").completes(first);
    // What the right one committed is not acknowledged to the wrong one either.
    assert_eq!(t.agent("b").completes(first).nacked(), C::AttemptEnded);
}

#[test]
fn a_rejected_task_goes_elsewhere_and_is_no_failure() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    t.agent("a").rejects(attempt(job, 0, 1));
    assert_eq!(t.counts(job), [1, 0, 0, 0, 0, 0]);
    t.agent("b").register();
    assert_eq!(t.agent("b").assigned(), [attempt(job, 0, 2)]);
    let other = t.submit(vec![task()]);
    assert_eq!(t.task(id(other, 0, 0)).agent.as_deref(), Some("b"));
    t.agent("b").completes(attempt(job, 0, 2));
    assert_eq!(t.task(id(job, 0, 0)).failures, 0);
}

#[test]
fn an_agent_that_rejects_is_asked_again_but_ever_less_often() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    for (number, wait) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        assert_eq!(t.agent("a").assigned(), [attempt(job, 0, number)]);
        t.agent("a").rejects(attempt(job, 0, number));
        t.pass(secs(wait) - std::time::Duration::from_millis(1));
        assert!(t.agent("a").assigned().is_empty());
        t.pass(std::time::Duration::from_millis(1));
    }
    assert_eq!(t.agent("a").assigned(), [attempt(job, 0, 5)]);
    // What it accepted it cannot reject; and once it takes one, its rejections are forgotten.
    t.agent("a").accepts(attempt(job, 0, 5)).rejects(attempt(job, 0, 5));
    assert_eq!(t.agent("a").nacked(), C::WrongState);
    t.agent("a").completes(attempt(job, 0, 5));
    let job = t.submit(vec![task()]);
    t.agent("a").inbox();
    t.agent("a").rejects(attempt(job, 0, 1));
    t.pass(secs(1));
    assert_eq!(t.agent("a").assigned(), [attempt(job, 0, 2)]);
    t.agent("a").runs(attempt(job, 0, 2));
    assert_eq!(t.agent("a").rejects(attempt(job, 0, 2)).nacked(), C::WrongState);
}

#[test]
fn a_task_that_waits_too_long_for_an_agent_ends() {
    let mut t = T::new();
    let waits = TaskSpec { queue_timeout_s: 10, count: 5, max_attempts: 2, ..task() };
    t.agent("a").register();
    let job = t.submit(vec![waits]);
    assert_eq!(t.counts(job), [1, 4, 0, 0, 0, 0]);
    t.pass(secs(9));
    assert_eq!(t.counts(job), [1, 4, 0, 0, 0, 0]);
    t.pass(secs(1));
    assert_eq!(t.counts(job), [0, 4, 0, 0, 1, 0]);
    assert_eq!(t.task(id(job, 0, 4)).status, S::TimedOut);
    // One that was started waits anew, from its retry on.
    t.agent("a").fails(attempt(job, 0, 1)).lose();
    t.pass(secs(5));
    t.restart();
    t.pass(secs(4));
    assert_eq!(t.counts(job)[0], 1);
    t.pass(secs(3));
    assert_eq!(t.counts(job), [0, 3, 0, 0, 2, 0]);
    let summary = t.task(id(job, 0, 0));
    assert_eq!((summary.status, summary.end.unwrap().reason), (S::TimedOut, R::QueueTimeout));
}

#[test]
fn a_run_timeout_is_the_agents_and_the_schedulers_in_the_end() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { timeout_s: 10, ..task() }; 1]);
    let first = attempt(job, 0, 1);
    t.agent("a").runs(first).inbox();
    t.pass_beating(secs(74));
    assert_eq!(t.counts(job), [0, 0, 1, 0, 0, 0]);
    t.pass_beating(secs(2));
    assert_eq!(t.counts(job), [0, 0, 0, 0, 1, 0]);
    assert_eq!(t.agent("a").cancelled(), [(first, R::RunTimeout)]);
    // Ended is not released: it still holds its core.
    let more = t.submit(vec![TaskSpec { count: 4, ..task() }]);
    assert_eq!(t.counts(more), [1, 3, 0, 0, 0, 0]);
    t.agent("a").ends(first, S::TimedOut, End { reason: R::RunTimeout, ..End::default() });
    assert_eq!(t.counts(more), [0, 4, 0, 0, 0, 0]);
}

#[test]
fn a_run_timeout_is_the_schedulers_also_after_its_restart() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { timeout_s: 10, ..task() }]);
    let first = attempt(job, 0, 1);
    t.agent("a").runs(first);
    t.restart();
    // The agent lists it as running, and is never heard of it again. Its time begins anew.
    t.agent("a").register().inbox();
    t.pass_beating(secs(60));
    t.agent("a").register();
    t.pass_beating(secs(14));
    assert_eq!(t.counts(job), [0, 0, 1, 0, 0, 0]);
    t.pass_beating(secs(2));
    assert_eq!(t.counts(job), [0, 0, 0, 0, 1, 0]);
    assert_eq!(t.agent("a").cancelled(), [(first, R::RunTimeout)]);
}

#[test]
fn an_agent_that_is_away_is_not_timed_out_by_the_scheduler() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { timeout_s: 10, ..task() }]);
    let first = attempt(job, 0, 1);
    t.agent("a").runs(first).lose();
    t.pass(secs(300));
    t.agent("a").register().completes(first);
    assert_eq!(t.counts(job), [0, 0, 0, 1, 0, 0]);
}

#[test]
fn higher_priority_goes_first_then_who_came_first() {
    let mut t = T::new();
    let with = |priority| vec![TaskSpec { priority, ..task() }];
    let jobs: Vec<u64> = [0, -1, 5, 0, 5].into_iter().map(|priority| t.submit(with(priority))).collect();
    t.agent("a").capacity(small()).register();
    let mut order = Vec::new();
    while let Some(attempt) = t.agent("a").holds().pop_first() {
        order.push(attempt.task.job.0);
        t.agent("a").completes(attempt);
    }
    assert_eq!(order, [jobs[2], jobs[4], jobs[0], jobs[3], jobs[1]]);
}

#[test]
fn kinds_and_labels_decide_who_may_run_a_task() {
    use fb::ConstraintOp as Op;
    let mut t = T::new();
    t.agent("a").kind(fb::AgentType::Trainer).label("zone", "x").register();
    t.agent("b").kind(fb::AgentType::Rater).label("zone", "y").register();
    t.agent("c").kind(fb::AgentType::Crawler).kind(fb::AgentType::Labeller).register();
    let constraint = |label: &str, op, value: &str| Constraint::new(Name::new(label).unwrap(), op, value);
    let mut on = |agent_type, constraints: Vec<_>| {
        let job = t.submit(vec![TaskSpec { agent_type, constraints, ..task() }]);
        t.task(TaskId { job: fleetwire_common::ids::JobId(job), entry: 0, index: 0 }).agent
    };
    assert_eq!(on(Some(fb::AgentType::Rater), vec![constraint("zone", Op::Exists, "")]).as_deref(), Some("b"));
    assert_eq!(on(None, vec![constraint("zone", Op::Equal, "x")]).as_deref(), Some("a"));
    assert_eq!(on(None, vec![constraint("zone", Op::NotExists, "")]).as_deref(), Some("c"));
    assert_eq!(on(Some(fb::AgentType::Crawler), vec![]).as_deref(), Some("c"));
    let not_b = vec![constraint("zone", Op::NotEqual, "y"), constraint("zone", Op::Exists, "")];
    assert_eq!(on(Some(fb::AgentType::Trainer), not_b).as_deref(), Some("a"));
    assert_eq!(on(Some(fb::AgentType::Crawler), vec![constraint("zone", Op::Exists, "")]), None);
    // An agent of no kind takes what asks for none.
    t.agent("d").register();
    let job = t.submit(vec![TaskSpec { count: 12, ..task() }]);
    let more = t.submit(vec![TaskSpec { agent_type: Some(fb::AgentType::Labeller), count: 4, ..task() }]);
    let agents: std::collections::BTreeSet<_> = (0..9).filter_map(|index| t.task(id(job, 0, index)).agent).collect();
    assert!(agents.contains("d"), "{agents:?}");
    assert!((0..4).all(|index| t.task(id(more, 0, index)).agent.as_deref() != Some("d")));
}
