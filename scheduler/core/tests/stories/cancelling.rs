//! Cancelling jobs and tasks.

use crate::harness::*;
use fleetwire_common::{
    fb::{EndReason as R, ErrorCode as C, TaskStatus as S},
    job::TaskSpec,
    message::End,
};

fn stopped() -> End {
    End { reason: R::Cancelled, ..End::default() }
}

#[test]
fn what_waits_ends_at_once_and_what_runs_when_its_agent_says_so() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 1_000, ..task() }]);
    t.agent("a").fails(attempt(job, 0, 1));
    t.agent("a").runs(attempt(job, 1, 1)).inbox();
    let more = t.submit(vec![task()]);
    t.cancel(job, None).unwrap();
    assert_eq!(t.counts(job), [0, 3, 1, 0, 1, 995]);
    assert_eq!(t.agent("a").cancelled().len(), 4);
    // Cancel frees nothing: the other job waits until an agent has said that a process is gone.
    assert_eq!(t.counts(more), [1, 0, 0, 0, 0, 0]);
    t.cancel(job, None).unwrap();
    for attempt in t.agent("a").holds() {
        t.agent("a").ends(attempt, S::Cancelled, stopped());
    }
    assert_eq!(t.counts(job), [0, 0, 0, 0, 1, 999]);
    assert_eq!(t.counts(more), [0, 1, 0, 0, 0, 0]);
    let facts = t.facts.len();
    t.cancel(job, None).unwrap();
    assert_eq!(t.facts.len(), facts);
    t.restart();
    assert_eq!(t.counts(job), [0, 0, 0, 0, 1, 999]);
}

#[test]
fn one_task_of_many_is_cancelled_alone() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 10, ..task() }]);
    t.cancel(job, Some(id(job, 0, 7))).unwrap();
    assert_eq!(t.counts(job), [5, 4, 0, 0, 0, 1]);
    t.cancel(job, Some(id(job, 0, 0))).unwrap();
    t.cancel(job, Some(id(job, 0, 0))).unwrap();
    t.agent("a").inbox();
    t.agent("a").ends(attempt(job, 0, 1), S::Cancelled, stopped());
    assert_eq!(t.task(id(job, 0, 0)).status, S::Cancelled);
    while let Some(attempt) = t.agent("a").holds().pop_first() {
        t.agent("a").completes(attempt);
    }
    assert_eq!(t.counts(job), [0, 0, 0, 8, 0, 2]);
}

#[test]
fn a_result_that_comes_before_the_stop_counts() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 2, max_attempts: 5, ..task() }]);
    t.cancel(job, None).unwrap();
    t.agent("a").completes(attempt(job, 0, 1)).fails(attempt(job, 1, 1));
    assert_eq!(t.counts(job), [0, 0, 0, 1, 0, 1]);
}

#[test]
fn a_cancelled_task_waits_for_no_retry() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { max_attempts: 5, ..task() }]);
    t.agent("a").fails(attempt(job, 0, 1));
    t.cancel(job, Some(id(job, 0, 0))).unwrap();
    let summary = t.task(id(job, 0, 0));
    assert_eq!((summary.status, summary.failures, summary.end.unwrap().exit_code), (S::Cancelled, 1, 1));
    t.pass(secs(10));
    assert_eq!(t.counts(job), [0, 0, 0, 0, 0, 1]);
}

#[test]
fn a_cancel_reaches_an_agent_that_was_away() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 2, ..task() }]);
    t.agent("a").runs(attempt(job, 0, 1)).lose();
    t.agent("a").model().holds.remove(&attempt(job, 1, 1));
    t.cancel(job, None).unwrap();
    t.restart();
    t.agent("a").register();
    // The one that never arrived is not sent again; the other is to be stopped.
    assert!(t.agent("a").assigned().is_empty());
    assert_eq!(t.counts(job), [0, 0, 1, 0, 0, 1]);
    t.agent("a").ends(attempt(job, 0, 1), S::Cancelled, stopped());
    assert_eq!(t.counts(job), [0, 0, 0, 0, 0, 2]);
}

#[test]
fn a_cancelled_task_whose_agent_is_lost_is_cancelled() {
    let mut t = T::new();
    t.agent("a").register();
    t.agent("b").register();
    let job = t.submit(vec![task()]);
    let first = attempt(job, 0, 1);
    let owner = t.task(first.task).agent.unwrap();
    t.agent(&owner).runs(first).lose();
    t.cancel(job, None).unwrap();
    t.pass_beating(secs(61));
    assert_eq!(t.counts(job), [0, 0, 0, 0, 0, 1]);
    assert_eq!(t.agent(&owner).register().completes(first).nacked(), C::AttemptEnded);
}

#[test]
fn a_suspect_that_waits_for_its_rival_ends_at_a_cancel() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    t.agent("a").runs(attempt(job, 0, 1)).lose();
    t.pass(secs(61));
    t.cancel(job, None).unwrap();
    assert_eq!(t.counts(job), [0, 0, 0, 0, 0, 1]);
    t.agent("b").register();
    assert!(t.agent("b").assigned().is_empty());
}

#[test]
fn what_does_not_exist_is_not_cancelled() {
    let mut t = T::new();
    let job = t.submit(vec![task()]);
    assert_eq!(t.cancel(job + 1, None), Err(C::UnknownJob));
    assert_eq!(t.cancel(job, Some(id(job, 1, 0))), Err(C::UnknownTask));
    assert_eq!(t.cancel(job, Some(id(job, 0, 1))), Err(C::UnknownTask));
    t.cancel(job, None).unwrap();
    assert_eq!(t.counts(job), [0, 0, 0, 0, 0, 1]);
}
