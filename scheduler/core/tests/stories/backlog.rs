//! Work that is given ahead: to agents whose tasks are short, bounded by their pace, and taken back.

use crate::harness::*;
use fleetwire_common::{fb::TaskStatus as S, ids::AttemptId, job::TaskSpec, message::End, resources::Resources};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// `a` has one core and takes a backlog; an array of `count` tasks that want a core each.
fn short_tasks(count: u32) -> (T, u64) {
    let mut t = T::new();
    t.agent("a").capacity(small()).backlog(128).register();
    let job = t.submit(vec![TaskSpec { count, array: true, ..task() }]);
    (t, job)
}

/// Ends what runs on `a`, `count` times, a millisecond each.
fn ends(t: &mut T, count: usize) {
    for _ in 0..count {
        t.pass(MS);
        let model = t.agent("a").model().clone();
        let running = model.holds.keys().find(|attempt| !model.waits.contains(attempt)).copied();
        t.agent("a").completes(running.expect("something runs"));
    }
}

fn waiting(t: &mut T) -> usize {
    t.agent("a").model().waits.len()
}

#[test]
fn an_agent_with_short_tasks_is_given_the_next_ahead_as_many_as_end_in_a_while() {
    let (mut t, job) = short_tasks(1_000);
    assert_eq!(waiting(&mut t), 0, "nothing is known of how long they take");
    ends(&mut t, 1);
    assert_eq!(waiting(&mut t), 1);
    ends(&mut t, 200);
    let ahead = waiting(&mut t);
    assert!((25..=51).contains(&ahead), "50 ms of work, and not less than half: {ahead}");
    // All of it flows to the end, each once.
    ends(&mut t, 799);
    assert_eq!(t.counts(job), [0, 0, 0, 1_000, 0, 0]);
}

#[test]
fn long_tasks_are_not_given_ahead() {
    let (mut t, _) = short_tasks(100);
    for _ in 0..5 {
        t.pass(Duration::from_millis(120));
        ends(&mut t, 1);
        // The window has one end at most; what it brings waits for no longer than one of its kind.
        assert!(waiting(&mut t) <= 1);
    }
    let (mut t, _) = short_tasks(100);
    t.agent("a").model().backlog = 0;
    t.agent("a").register();
    ends(&mut t, 50);
    assert_eq!(waiting(&mut t), 0, "an agent that takes none is given none");
}

#[test]
fn what_waits_holds_nothing_and_another_agent_is_not_kept_waiting() {
    let (mut t, _) = short_tasks(200);
    ends(&mut t, 60);
    t.agent("a").inbox();
    assert!(waiting(&mut t) > 20);
    t.agent("b").capacity(small()).register();
    assert_eq!(t.agent("b").assigned().len(), 1, "the queue is served as ever");
}

#[test]
fn what_waits_too_long_is_recalled_and_goes_elsewhere() {
    let (mut t, job) = short_tasks(70);
    ends(&mut t, 30);
    let ahead = waiting(&mut t);
    t.agent("a").inbox();
    assert!((15..=30).contains(&ahead), "{ahead}");
    // The next takes long: what waits behind it is wanted back, once.
    t.pass(Duration::from_millis(250));
    let recalled = t.agent("a").recalled();
    assert_eq!(recalled.len(), ahead);
    t.pass(secs(1));
    assert!(t.agent("a").recalled().is_empty(), "asked once");
    for attempt in &recalled {
        t.agent("a").releases(*attempt);
    }
    assert_eq!(waiting(&mut t), 0);
    t.agent("b").capacity(Resources { cpu: small().cpu * 100, ..small().times(100) }).register();
    let again = t.agent("b").assigned();
    assert_eq!(again.len(), 39, "those that never were given, and those that came back");
    let second: Vec<&AttemptId> = again.iter().filter(|attempt| attempt.attempt == 2).collect();
    assert_eq!(second.len(), ahead);
    let first = second.first().copied().copied().unwrap();
    let task = t.task(first.task);
    assert_eq!((task.failures, task.losses), (0, 0), "nothing was tried");
    assert_eq!(
        t.agent("a").ends(AttemptId { attempt: 1, ..first }, S::Completed, End::default()).nacked(),
        fleetwire_common::fb::ErrorCode::AttemptEnded
    );
    assert_eq!(t.counts(job)[3], 30);
}

#[test]
fn half_of_what_waits_is_recalled_when_another_agent_is_idle() {
    let (mut t, _) = short_tasks(60);
    ends(&mut t, 36);
    t.agent("b").capacity(small().times(4)).register();
    let ahead = waiting(&mut t);
    assert_eq!((ahead, t.agent("b").assigned().len()), (23, 0), "nothing is left but what was given ahead");
    t.agent("a").inbox();
    t.pass(Duration::from_millis(60));
    ends(&mut t, 4);
    t.pass(Duration::from_millis(35));
    let recalled = t.agent("a").recalled();
    assert!((10..=20).contains(&recalled.len()), "{}", recalled.len());
    for attempt in recalled {
        t.agent("a").releases(attempt);
    }
    assert_eq!(t.agent("b").assigned().len(), 4);
}

#[test]
fn a_cancelled_job_s_backlog_is_cancelled_and_leaves_the_ledger() {
    let (mut t, job) = short_tasks(100);
    ends(&mut t, 30);
    t.agent("a").inbox();
    t.cancel(job, None).unwrap();
    let cancelled = t.agent("a").cancelled();
    assert_eq!(cancelled.len(), waiting(&mut t) + 1);
    for (attempt, reason) in cancelled {
        t.agent("a").ends(attempt, S::Cancelled, End { reason, ..End::default() });
    }
    let agent = t.scheduler.state().agents.named(&fleetwire_common::ids::Name::new("a").unwrap()).unwrap();
    let live = t.scheduler.live().agent(agent).unwrap();
    assert_eq!((live.in_use(), live.held.len(), live.backlog.waiting.len()), (Resources::ZERO, 0, 0));
}

#[test]
fn an_agent_that_returns_says_what_waits_and_the_ledger_adds_up() {
    let (mut t, job) = short_tasks(100);
    ends(&mut t, 30);
    let ahead = waiting(&mut t);
    t.agent("a").lose();
    t.agent("a").register();
    t.restart();
    t.agent("a").register();
    let agent = t.scheduler.state().agents.named(&fleetwire_common::ids::Name::new("a").unwrap()).unwrap();
    let live = t.scheduler.live().agent(agent).unwrap();
    assert_eq!((live.in_use(), live.backlog.waiting.len()), (small(), ahead));
    ends(&mut t, 70);
    assert_eq!(t.counts(job), [0, 0, 0, 100, 0, 0]);
}

#[test]
fn the_agent_is_believed_about_which_of_them_has_started() {
    let (mut t, _) = short_tasks(100);
    ends(&mut t, 30);
    let model = t.agent("a").model().clone();
    let (first, later) = (model.waits[0], model.waits[5]);
    let running = model.holds.keys().find(|attempt| !model.waits.contains(attempt)).copied().unwrap();
    t.agent("a").completes(running);
    assert_eq!(t.agent("a").model().waits.front(), Some(&model.waits[1]), "the first is thought to run");
    // But another does: the first still waits.
    let mut agent = t.agent("a");
    let model = agent.model();
    model.waits.retain(|attempt| *attempt != later);
    model.waits.push_front(first);
    t.agent("a").runs(later);
    let agent = t.scheduler.state().agents.named(&fleetwire_common::ids::Name::new("a").unwrap()).unwrap();
    let live = t.scheduler.live().agent(agent).unwrap();
    assert_eq!(live.in_use(), small());
    assert!(live.held[&first].waits && !live.held[&later].waits);
}

#[test]
fn tasks_with_other_needs_or_large_specs_are_not_given_ahead() {
    let (mut t, _) = short_tasks(10);
    t.submit(vec![TaskSpec { count: 50, array: true, resources: small().times(2), ..task() }]);
    t.agent("a").model().capacity = small().times(2);
    t.agent("a").register();
    for _ in 0..9 {
        ends(&mut t, 1);
    }
    let model = t.agent("a").model().clone();
    assert!(model.holds.iter().all(|(_, (amount, _))| *amount == small()), "the larger would not fit what ends");
    let large = fleetwire_common::job::FileSpec { path: "f".into(), data: vec![0; 9_000], executable: false };
    let mut t = T::new();
    t.agent("a").capacity(small()).backlog(128).register();
    t.submit(vec![TaskSpec { count: 50, array: true, files: vec![large], ..task() }]);
    ends(&mut t, 40);
    assert_eq!(waiting(&mut t), 0);
}

#[test]
fn tasks_that_end_together_but_take_long_are_not_given_ahead() {
    let mut t = T::new();
    t.agent("a").capacity(small().times(4)).backlog(128).register();
    t.submit(vec![TaskSpec { count: 50, array: true, ..task() }]);
    for _ in 0..3 {
        t.pass(secs(5));
        for attempt in t.agent("a").assigned() {
            t.agent("a").ends(attempt, S::Completed, End { wall_us: 5_000_000, ..End::default() });
        }
        assert_eq!(waiting(&mut t), 0);
    }
}
