//! Tasks that come after others: put into the queue when those came to what they must, skipped when they cannot.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, DependencyOn as On, EndReason as R, TaskStatus as S},
    graph::Dependency,
    ids::Name,
    job::{JobSpec, TaskSpec, Terms},
    message::End,
};

fn on(task: &str, on: On) -> Dependency {
    Dependency { task: Name::new(task).unwrap(), on, each: false, input: String::new() }
}

fn each(task: &str, on: On) -> Dependency {
    Dependency { task: Name::new(task).unwrap(), on, each: true, input: String::new() }
}

fn named(name: &str, count: u32, after: Vec<Dependency>) -> TaskSpec {
    TaskSpec { name: Name::new(name).unwrap(), count, array: count > 1, after, ..task() }
}

fn of(entry: u16, index: u32, job: u64) -> fleetwire_common::ids::AttemptId {
    fleetwire_common::ids::AttemptId { task: id(job, entry, index), attempt: 1 }
}

/// How the tasks of a job stand, entry by entry.
fn stand(t: &mut T, job: u64) -> Vec<S> {
    let query = fb::QueryT { kind: fb::QueryKind::Tasks, job, ..fb::QueryT::default() };
    t.query(query).unwrap().tasks.unwrap().iter().map(|row| row.status).collect()
}

fn why(t: &mut T, task: fleetwire_common::ids::TaskId) -> String {
    let query = fb::QueryT { kind: fb::QueryKind::Explain, task_id: Some(task.to_string()), ..fb::QueryT::default() };
    t.query(query).unwrap().explanation.unwrap().summary.unwrap()
}

#[test]
fn what_comes_after_waits_for_all_of_it() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![named("build", 3, vec![]), named("test", 2, vec![on("build", On::Success)])]);
    assert_eq!(t.agent("a").assigned(), [of(0, 0, job), of(0, 1, job), of(0, 2, job)]);
    t.agent("a").completes(of(0, 0, job)).completes(of(0, 2, job));
    assert!(t.agent("a").assigned().is_empty(), "there is room, and it is not its turn");
    assert_eq!(why(&mut t, id(job, 1, 1)), "waits for `build` to succeed (1 of its 3 tasks have not ended)");
    t.agent("a").completes(of(0, 1, job));
    assert_eq!(t.agent("a").assigned(), [of(1, 0, job), of(1, 1, job)]);
    t.agent("a").completes(of(1, 0, job)).completes(of(1, 1, job));
    assert!(t.job(job).ended_at > 0);
}

#[test]
fn one_that_did_not_succeed_skips_all_that_come_after_it_and_what_comes_after_those() {
    let mut t = T::new();
    t.agent("a").register();
    let tasks = vec![
        named("build", 2, vec![]),
        named("test", 500_000, vec![on("build", On::Success)]),
        named("ship", 1, vec![on("test", On::Success)]),
        named("regret", 1, vec![on("ship", On::Failure)]),
        named("report", 1, vec![on("ship", On::End)]),
    ];
    let job = t.submit(tasks);
    let facts = t.facts.len();
    t.agent("a").fails(of(0, 0, job));
    // Its end, and three that follow from it: half a million tasks are one fact.
    assert_eq!(t.facts.len(), facts + 1 + 4, "the fourth assigns the report");
    let counts = t.job(job).counts.unwrap();
    assert_eq!((counts.skipped, counts.failed, counts.assigned, counts.cancelled), (500_002, 1, 2, 0));
    assert_eq!(
        why(&mut t, id(job, 2, 0)),
        format!(
            "was skipped: it is after `test`, which was to succeed, and {job}.1.0 was skipped, which is after `build`, which was to succeed, and {job}.0.0 ended as Failed"
        )
    );
    let row = t.task(id(job, 1, 499_999));
    assert_eq!((row.status, row.end.unwrap().reason), (S::Skipped, R::DependencyUnmet));
    // Nothing failed there: whoever waits for a failure waits in vain, whoever waits for the end does not.
    assert_eq!(t.task(id(job, 3, 0)).status, S::Skipped);
    t.agent("a").completes(of(4, 0, job)).completes(of(0, 1, job));
    assert!(t.job(job).ended_at > 0);
    t.restart();
    assert_eq!(t.task(id(job, 1, 7)).status, S::Skipped);
}

#[test]
fn a_failure_is_known_when_all_has_ended() {
    let mut t = T::new();
    t.agent("a").register();
    let mend = |name| named(name, 1, vec![on("build", On::Failure)]);
    let job = t.submit(vec![named("build", 2, vec![]), mend("mend")]);
    t.agent("a").inbox();
    t.agent("a").fails(of(0, 0, job));
    assert!(t.agent("a").assigned().is_empty());
    t.agent("a").completes(of(0, 1, job));
    assert_eq!(t.agent("a").assigned(), [of(1, 0, job)]);
    // Where all goes well there is nothing to mend, and the job has completed.
    let job = t.submit(vec![named("build", 1, vec![]), mend("mend")]);
    t.agent("a").completes(of(0, 0, job));
    assert_eq!(stand(&mut t, job), [S::Completed, S::Skipped]);
    assert!(t.job(job).ended_at > 0);
}

#[test]
fn of_two_arrays_each_waits_for_its_own() {
    let mut t = T::new();
    t.agent("a").register();
    let tasks = vec![
        named("get", 4, vec![]),
        named("read", 4, vec![each("get", On::Success)]),
        named("mend", 4, vec![each("get", On::Failure)]),
        named("sum", 1, vec![on("read", On::End), on("mend", On::End)]),
    ];
    let job = t.submit(tasks);
    t.agent("a").inbox();
    t.agent("a").completes(of(0, 2, job));
    assert_eq!(t.agent("a").assigned(), [of(1, 2, job)]);
    assert_eq!(why(&mut t, id(job, 1, 3)), format!("waits for `get` {job}.0.3 to succeed"));
    t.agent("a").fails(of(0, 1, job));
    assert_eq!(t.agent("a").assigned(), [of(2, 1, job)]);
    let skipped = |t: &mut T, entry, index| t.task(id(job, entry, index)).status == S::Skipped;
    assert!(skipped(&mut t, 2, 2) && skipped(&mut t, 1, 1) && !skipped(&mut t, 1, 3));
    t.cancel(job, Some(id(job, 0, 0))).unwrap();
    t.agent("a").ends(of(0, 0, job), S::Cancelled, End { reason: R::Cancelled, ..End::default() });
    assert!(skipped(&mut t, 1, 0) && skipped(&mut t, 2, 0), "cancelled is neither");
    t.agent("a").completes(of(0, 3, job)).completes(of(1, 2, job)).completes(of(2, 1, job));
    t.agent("a").inbox();
    t.agent("a").completes(of(1, 3, job));
    assert_eq!(t.agent("a").assigned(), [of(3, 0, job)]);
}

#[test]
fn a_start_passes_on_what_had_ended() {
    let mut t = T::new();
    t.agent("a").register();
    let tasks = vec![
        named("get", 3, vec![]),
        named("read", 3, vec![each("get", On::Success)]),
        named("once", 1, vec![]),
        named("sum", 2, vec![on("read", On::End), on("once", On::Success)]),
    ];
    let job = t.submit(tasks);
    t.agent("a").completes(of(2, 0, job)).completes(of(0, 1, job)).fails(of(0, 2, job));
    // The journal ends before what followed from the failure: the start decides it again.
    let skips = t.facts.len();
    let cut: Vec<_> = t.facts[..skips - 1].to_vec();
    t.restore(cut, 9, false);
    assert_eq!(t.task(id(job, 1, 2)).status, S::Skipped);
    t.agent("a").register();
    t.restart();
    t.agent("a").register();
    t.agent("a").completes(of(1, 1, job)).completes(of(0, 0, job));
    t.restart();
    t.agent("a").register().inbox();
    t.agent("a").completes(of(1, 0, job));
    assert_eq!(t.agent("a").assigned(), [of(3, 0, job), of(3, 1, job)]);
}

#[test]
fn a_cancelled_job_takes_all_with_it_and_a_cancelled_task_only_what_wanted_it() {
    let mut t = T::new();
    t.agent("a").register();
    let tasks = || {
        vec![
            named("get", 30, vec![]),
            named("read", 30, vec![each("get", On::End)]),
            named("sum", 1, vec![on("get", On::Success)]),
            named("tidy", 1, vec![on("get", On::End)]),
        ]
    };
    let job = t.submit(tasks());
    t.agent("a").completes(of(0, 1, job)).completes(of(0, 3, job));
    // Some of `read` wait for an agent, most for `get`, and all end.
    t.cancel(job, None).unwrap();
    let counts = t.job(job).counts.unwrap();
    assert_eq!((counts.pending, counts.skipped), (0, 0));
    for attempt in t.agent("a").holds() {
        t.agent("a").ends(attempt, S::Cancelled, End { reason: R::Cancelled, ..End::default() });
    }
    assert_eq!(t.counts(job), [0, 0, 0, 2, 0, 60]);
    let job = t.submit(tasks());
    t.cancel(job, Some(id(job, 0, 20))).unwrap();
    assert_eq!(t.task(id(job, 2, 0)).status, S::Skipped);
    assert_eq!(t.counts(job)[5], 1);
    for index in (0..30).filter(|index| *index != 20) {
        while !t.agent("a").holds().contains(&of(0, index, job)) {
            let first = *t.agent("a").holds().first().unwrap();
            t.agent("a").completes(first);
        }
        t.agent("a").completes(of(0, index, job));
    }
    while let Some(first) = t.agent("a").holds().first().copied() {
        t.agent("a").completes(first);
    }
    assert_eq!(t.counts(job), [0, 0, 0, 60, 0, 1], "whoever waits for the end runs");
}

#[test]
fn the_wait_for_an_agent_begins_when_nothing_else_is_waited_for() {
    let mut t = T::new();
    t.agent("a").register();
    let timed = |spec| TaskSpec { queue_timeout_s: 100, ..spec };
    let small = named("get", 2, vec![]);
    let tasks = vec![
        small,
        timed(named("read", 2, vec![each("get", On::Success)])),
        timed(named("sum", 1, vec![on("get", On::Success)])),
    ];
    let job = t.submit(tasks);
    t.agent("a").runs(of(0, 0, job)).runs(of(0, 1, job));
    t.pass_beating(secs(1_000));
    assert_eq!(t.counts(job), [3, 0, 2, 0, 0, 0]);
    t.agent("a").lose();
    t.agent("a").register().completes(of(0, 0, job));
    t.restart();
    t.pass(secs(50));
    t.agent("a").register().ends(of(0, 1, job), S::Completed, End::default());
    t.agent("a").lose();
    // Those that were given to it are its; nothing else is left to time out, until it says that it has not got them.
    let mut held = t.agent("a").model().holds.clone();
    held.clear();
    t.agent("a").model().holds = held;
    t.agent("a").model().data_id[1] = 9;
    t.agent("a").capacity(small_but_busy()).register();
    t.pass_beating(secs(99));
    assert_eq!(t.counts(job)[4], 0);
    t.pass_beating(secs(2));
    assert_eq!(t.counts(job)[4], 3, "all three waited 100 s");
}

fn small_but_busy() -> fleetwire_common::resources::Resources {
    fleetwire_common::resources::Resources { cpu: 10, ..fleetwire_common::resources::Resources::ZERO }
}

#[test]
fn what_times_out_in_the_queue_has_failed() {
    let mut t = T::new();
    let timed = TaskSpec { queue_timeout_s: 10, ..named("get", 2, vec![]) };
    let job = t.submit(vec![
        timed,
        named("read", 2, vec![each("get", On::Success)]),
        named("mend", 1, vec![on("get", On::Failure)]),
    ]);
    t.pass(secs(11));
    assert_eq!(stand(&mut t, job), [S::TimedOut, S::TimedOut, S::Skipped, S::Skipped, S::Pending]);
    t.agent("a").register();
    assert_eq!(t.agent("a").assigned(), [of(2, 0, job)]);
}

#[test]
fn exclusive_work_of_a_backup_waits_for_both() {
    let terms = Terms { exclusive: true, stop_on_disconnect_after_ms: 90_000, ..Terms::lost_after(120) };
    let waits = terms.gone_after(task().kill_grace_ms).unwrap();
    let mut t = T::new();
    t.agent("a").register().lose();
    let tasks = vec![named("get", 1, vec![]), named("read", 2, vec![on("get", On::End)])];
    let spec = JobSpec::new(Name::new("j").unwrap(), tasks, terms).unwrap();
    let submit = t.submit_id();
    let job = t.submit_as(submit, &spec).unwrap().0;
    let facts = t.facts.clone();
    t.agent("a").register();
    t.agent("a").model().proof = Some(t.scheduler.proof(t.scheduler.position()));
    t.restore(facts, 4, false);
    let _ = t.agent("a").connect();
    let facts = t.facts.clone();
    t.restore(facts, 5, true);
    t.agent("b").register();
    t.cancel(job, Some(id(job, 0, 0))).unwrap();
    assert_eq!(t.task(id(job, 0, 0)).status, S::Cancelled);
    assert_eq!(t.agent("b").assigned(), [], "it is their turn, and they may run elsewhere");
    t.pass_beating(waits);
    assert_eq!(t.agent("b").assigned(), [of(1, 0, job), of(1, 1, job)]);
}

#[test]
fn no_attempt_of_an_agents_is_ever_skipped() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    t.agent("a").runs(attempt(job, 0, 1)).inbox();
    t.agent("a").reports(attempt(job, 0, 1), S::Skipped, 1.0);
    assert_eq!(t.agent("a").nacked(), fb::ErrorCode::Validation);
    assert_eq!(t.counts(job), [0, 0, 1, 0, 0, 0]);
}

#[test]
fn a_million_that_wait_for_a_million_are_a_few_ranges() {
    let mut t = T::new();
    let job = t.submit(vec![
        named("get", 1_000_000, vec![]),
        named("read", 1_000_000, vec![each("get", On::Success)]),
        named("sum", 1_000_000, vec![on("get", On::End)]),
    ]);
    t.agent("a").register();
    let done = *t.agent("a").holds().first().unwrap();
    t.agent("a").completes(done);
    let state = t.scheduler.state();
    let ranges =
        |entry: usize| state.jobs[&fleetwire_common::ids::JobId(job)].entries[entry].unstarted.ranges(()).count();
    assert!(ranges(1) + ranges(2) <= 3);
    t.cancel(job, None).unwrap();
    assert_eq!(t.counts(job)[0], 0);
}
