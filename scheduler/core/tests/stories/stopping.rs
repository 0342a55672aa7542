//! Jobs that their own terms keep from starting, or stop: a later start, a deadline, a budget of failures.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, DependencyOn as On, EndReason as R, TaskStatus as S},
    graph::Dependency,
    ids::{Name, TaskId},
    job::{JobSpec, TaskSpec, Terms},
    message::End,
};

fn many(count: u32) -> TaskSpec {
    TaskSpec { count, array: true, ..task() }
}

fn ended(reason: R) -> End {
    End { reason, ..End::default() }
}

fn why(t: &mut T, task: TaskId) -> String {
    let query = fb::QueryT { kind: fb::QueryKind::Explain, task_id: Some(task.to_string()), ..fb::QueryT::default() };
    t.query(query).unwrap().explanation.unwrap().summary.unwrap()
}

#[test]
fn nothing_of_a_job_is_assigned_before_its_time_also_after_a_restart() {
    let mut t = T::new();
    t.agent("a").register();
    let spec = TaskSpec { queue_timeout_s: 100, ..many(6) };
    let terms = Terms { start_after_ms: 600_000, ..Terms::default() };
    let job = t.submit_with(spec, terms).unwrap();
    t.pass_beating(secs(300));
    assert_eq!(why(&mut t, id(job, 0, 3)), "waits: its job starts in 300.0 s");
    assert_eq!(t.job(job).note.as_deref(), Some("starts in 300.0 s"));
    t.restart();
    t.agent("a").register();
    t.pass_beating(secs(299));
    assert_eq!(t.counts(job), [6, 0, 0, 0, 0, 0]);
    t.pass_beating(secs(1));
    assert_eq!(t.agent("a").assigned().len(), 4);
    // The wait for an agent is counted from when it could have one.
    t.pass_beating(secs(99));
    assert_eq!(t.counts(job), [2, 4, 0, 0, 0, 0]);
    t.pass_beating(secs(1));
    assert_eq!(t.counts(job), [0, 4, 0, 0, 2, 0]);
    assert_eq!(t.job(job).note, None);
}

#[test]
fn a_job_starts_at_its_moment_also_after_a_restart() {
    let mut t = T::new();
    t.agent("a").register();
    let starts_in = |t: &T, ms: u64| Terms { start_at_ms: t.now.as_ms() + ms, ..Terms::default() };
    let terms = starts_in(&t, 600_000);
    let job = t.submit_with(many(2), terms).unwrap();
    t.pass_beating(secs(300));
    assert_eq!(why(&mut t, id(job, 0, 1)), "waits: its job starts in 300.0 s");
    t.restart();
    t.agent("a").register();
    t.pass_beating(secs(299));
    assert_eq!(t.counts(job)[0], 2);
    t.pass_beating(secs(1));
    assert_eq!(t.counts(job)[1], 2);
    // One that has passed keeps nothing back.
    let passed = Terms { start_at_ms: 1, ..Terms::default() };
    let job = t.submit_with(many(2), passed).unwrap();
    assert_eq!(t.counts(job)[1], 2);
    // What would never be, or not in anybody's time, is refused.
    let late = Terms { deadline_ms: 5_000, ..starts_in(&t, 5_000) };
    assert_eq!(t.submit_with(task(), late), Err(fb::ErrorCode::Validation));
    let far = starts_in(&t, 6 * 366 * 86_400_000);
    assert_eq!(t.submit_with(task(), far), Err(fb::ErrorCode::Validation));
}

#[test]
fn what_is_not_ready_at_its_jobs_start_waits_on() {
    let mut t = T::new();
    t.agent("a").register();
    let after = Dependency { task: task().name, on: On::Success, each: false, input: String::new() };
    let second = TaskSpec { name: Name::new("second").unwrap(), after: vec![after], ..task() };
    let terms = Terms { start_after_ms: 5_000, ..Terms::default() };
    let spec = JobSpec::new(Name::new("j").unwrap(), vec![task(), second], terms).unwrap();
    let submit = t.submit_id();
    let (job, _) = t.submit_as(submit, &spec).unwrap();
    t.pass(secs(5));
    assert_eq!(t.agent("a").assigned(), [attempt(job, 0, 1)]);
    t.agent("a").completes(attempt(job, 0, 1));
    assert_eq!(t.counts(job), [0, 1, 0, 1, 0, 0]);
}

#[test]
fn once_too_many_have_failed_all_the_others_are_stopped() {
    let mut t = T::new();
    t.agent("a").register();
    let spec = TaskSpec { max_attempts: 2, backoff_ms: 1, ..many(1_000) };
    let job = t.submit_with(spec, Terms { stop_after_failures: 2, ..Terms::default() }).unwrap();
    // What is tried again has not failed yet.
    t.agent("a").fails(attempt(job, 0, 1)).fails(attempt(job, 1, 1)).fails(attempt(job, 2, 1));
    t.pass(secs(1));
    t.agent("a").completes(attempt(job, 3, 1));
    assert_eq!(t.agent("a").model().holds.len(), 4);
    t.agent("a").fails(attempt(job, 0, 2));
    let before = t.counts(job);
    assert_eq!(before[3..], [1, 1, 0]);
    t.agent("a").inbox();
    let facts = t.facts.len();
    t.agent("a").fails(attempt(job, 1, 2));
    // The end, that the job is stopped, and what waited: one that was tried before, and a range. Nothing is assigned.
    assert_eq!(t.facts.len(), facts + 4);
    assert_eq!(t.counts(job), [0, 3, 0, 1, 2, 994]);
    let stops = t.agent("a").cancelled();
    assert_eq!(stops.len(), 3);
    assert!(stops.iter().all(|(_, reason)| *reason == R::FailureBudget), "{stops:?}");
    let running = stops[0].0;
    assert!(why(&mut t, running.task).ends_with("it was asked to stop; its job was stopped: stop_after_failures is 2"));
    t.restart();
    // An agent that comes back is told again.
    t.agent("a").register();
    assert_eq!(t.agent("a").verdict(running), fb::AttemptVerdict::Stop);
    t.agent("a").ends(running, S::Cancelled, ended(R::FailureBudget));
    let row = t.task(running.task);
    assert_eq!((row.status, row.end.unwrap().reason), (S::Cancelled, R::FailureBudget));
    // A result that comes before the stop counts.
    t.agent("a").completes(stops[1].0).fails(stops[2].0);
    assert_eq!(t.counts(job), [0, 0, 0, 2, 2, 996]);
    assert!(t.job(job).ended_at > 0);
    assert_eq!(t.job(job).note.as_deref(), Some("was stopped: stop_after_failures is 2"));
    assert!(why(&mut t, id(job, 0, 999)).contains("its job was stopped: stop_after_failures is 2"));
}

#[test]
fn a_budget_that_is_spent_by_the_last_task_stops_nothing() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit_with(many(2), Terms { stop_after_failures: 2, ..Terms::default() }).unwrap();
    t.agent("a").fails(attempt(job, 0, 1)).fails(attempt(job, 1, 1));
    assert_eq!((t.counts(job), t.job(job).note), ([0, 0, 0, 0, 2, 0], None));
}

#[test]
fn what_waited_too_long_for_an_agent_counts_as_failed() {
    let mut t = T::new();
    let spec = TaskSpec { queue_timeout_s: 10, ..task() };
    let other = TaskSpec { name: Name::new("other").unwrap(), ..many(7) };
    let terms = Terms { stop_after_failures: 1, ..Terms::default() };
    let spec = JobSpec::new(Name::new("j").unwrap(), vec![spec, other], terms).unwrap();
    let submit = t.submit_id();
    let (job, _) = t.submit_as(submit, &spec).unwrap();
    t.pass(secs(10));
    assert_eq!(t.counts(job), [0, 0, 0, 0, 1, 7]);
    assert!(t.job(job).ended_at > 0);
}

#[test]
fn what_has_not_ended_at_the_deadline_is_timed_out() {
    let mut t = T::new();
    t.agent("a").register();
    let spec = TaskSpec { max_attempts: 3, backoff_ms: 60_000, ..many(10) };
    let job = t.submit_with(spec, Terms { deadline_ms: 60_000, ..Terms::default() }).unwrap();
    let due_ms = t.now.as_ms() + 60_000;
    assert!(t.agent("a").deadlines().iter().all(|deadline| *deadline == due_ms));
    t.agent("a").runs(attempt(job, 0, 1)).completes(attempt(job, 1, 1)).fails(attempt(job, 2, 1)).inbox();
    t.pass_beating(secs(60));
    // Those that wait, be it for their retry, end at once.
    assert_eq!(t.counts(job), [0, 3, 1, 1, 5, 0]);
    let stops = t.agent("a").cancelled();
    assert!(stops.len() == 4 && stops.iter().all(|(_, reason)| *reason == R::DeadlinePassed), "{stops:?}");
    t.agent("a").ends(attempt(job, 0, 1), S::Cancelled, ended(R::DeadlinePassed));
    let row = t.task(id(job, 0, 0));
    assert_eq!((row.status, row.end.unwrap().reason), (S::TimedOut, R::DeadlinePassed));
    assert_eq!(t.task(id(job, 0, 2)).end.unwrap().reason, R::DeadlinePassed);
    assert!(why(&mut t, id(job, 0, 9)).ends_with("; its job was stopped: its deadline has passed"));
    // Its agent is lost while the stop is on its way: timed out it is.
    t.agent("a").lose();
    t.pass(secs(301));
    assert_eq!(t.counts(job), [0, 0, 0, 1, 9, 0]);
    assert_eq!(t.job(job).note.as_deref(), Some("was stopped: its deadline has passed"));
}

#[test]
fn a_deadline_that_passed_while_the_scheduler_was_away_stops_the_job_before_anything_is_assigned() {
    let mut t = T::new();
    let job = t.submit_with(many(10), Terms { deadline_ms: 60_000, ..Terms::default() }).unwrap();
    t.now = t.now + secs(61);
    t.restart();
    assert_eq!(t.counts(job), [0, 0, 0, 0, 10, 0]);
}

#[test]
fn a_job_that_ended_in_time_has_no_deadline_any_more() {
    let mut t = T::new();
    t.agent("a").register();
    let armed = t.scheduler.live().deadlines.count();
    let terms = Terms { deadline_ms: 60_000, start_after_ms: 10_000, ..Terms::default() };
    let job = t.submit_with(task(), terms).unwrap();
    t.pass(secs(10));
    t.agent("a").completes(attempt(job, 0, 1));
    assert_eq!(t.scheduler.live().deadlines.count(), armed);
    let job = t.submit_with(task(), terms).unwrap();
    t.cancel(job, None).unwrap();
    assert_eq!(t.scheduler.live().deadlines.count(), armed);
}
