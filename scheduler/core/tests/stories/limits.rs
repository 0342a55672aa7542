//! Every bound of the core refuses what goes beyond it, says so with its code, and goes on. What a job may be is
//! in `common/src/job.rs`, floods and pages are in `sessions` and `asking`, retention is in `submitting`.

use crate::{
    forgetting::forget,
    harness::*,
    joining::{enrol, issue},
};
use fleetwire_common::{
    fb::{self, ErrorCode as C, Role, TaskStatus as S},
    job::{TaskSpec, Terms},
    limits::{AGENT_ATTEMPTS_MAX, LABELS_MAX, NAME_BYTES_MAX, RESULT_BYTES_MAX, VALUE_BYTES_MAX},
    message::{End, Message},
};
use fleetwire_scheduler_core::{Config, Event, Policy};

fn bounded(policy: Policy) -> T {
    T::with(Config { policy, ..config() })
}

/// A bound that is new does not compile here before somebody has said where it is tested.
#[test]
fn every_bound_has_its_test() {
    let Policy {
        // Times, and how often: `sessions`, `losing`, `forgetting`, `breaking`, `failing`.
        answer_every: _,
        silent_intervals: _,
        register_within: _,
        unreachable_after: _,
        unreachable_every: _,
        flapping_losses: _,
        flapping_within: _,
        quarantine: _,
        quarantine_max: _,
        breaker_failures: _,
        breaker_cooling: _,
        breaker_cooling_max: _,
        forget_after: _,
        backoff_max: _,
        readmit_after: _,
        readmit_max: _,
        backstop_after: _,
        // `asking`
        watch_min: _,
        log_within: _,
        watches_max: _,
        logs_max: _,
        page_bytes: _,
        // `sessions`
        messages_per_s: _,
        messages_burst: _,
        // `submitting`
        submits_max: _,
        jobs_max: _,
        tasks_max: _,
        ended_kept: _,
        ended_jobs_max: _,
        // `joining`
        tokens_max: _,
        // `running`: what one step leaves, the next takes up.
        placements_per_step: _,
        deadlines_per_step: _,
        // `bodies`
        blob_segment_bytes: _,
        blob_segments_max: _,
        // Here.
        kept_bytes_max: _,
        ended_tasks_max: _,
        ended_bytes_max: _,
        agents_max: _,
        principals_max: _,
        token_uses_max: _,
        sessions_max: _,
        attempts_per_agent: _,
        // `reserving`.
        reserve: _,
        // `preempting`.
        preempt: _,
    } = Policy::default();
}

#[test]
fn agents_are_bounded_and_those_that_are_forgotten_do_not_count() {
    let mut t = bounded(Policy { agents_max: 1, ..Policy::default() });
    t.agent("a").register();
    assert_eq!(t.agent("b").register().nacked(), C::Busy);
    t.agent("b").lose();
    t.agent("a").lose();
    assert_eq!(forget(&mut t, "a"), Ok(()));
    t.agent("b").register();
    assert_eq!(t.agent("a").register().nacked(), C::Busy, "its place is taken");
    t.agent("a").lose();
    assert_eq!(t.scheduler.state().agents.known_count(), 1);
    t.agent("b").lose();
    assert_eq!(forget(&mut t, "b"), Ok(()));
    t.restart();
    assert_eq!(t.scheduler.state().agents.known_count(), 0);
    t.agent("a").register();
}

#[test]
fn sessions_are_bounded() {
    let mut t = bounded(Policy { sessions_max: 2, ..Policy::default() });
    let (one, two) = (t.connect(Role::Viewer, "v"), t.connect(Role::Viewer, "w"));
    let three = t.connect(Role::Viewer, "x");
    assert_eq!(t.closed, [(three, C::Busy)]);
    t.disconnect(one);
    t.connect(Role::Viewer, "y");
    assert_eq!(t.closed.len(), 1);
    t.disconnect(two);
}

#[test]
fn names_are_bounded_and_so_are_the_uses_of_a_token() {
    let mut t = bounded(Policy { principals_max: 2, token_uses_max: 5, ..Policy::default() });
    t.handle(Event::IssueToken { role: Role::Agent, uses: 6, expires_in: secs(60) });
    assert!(t.other.is_empty(), "no token with so many uses");
    let token = issue(&mut t, Role::Agent, 5).id;
    let mut enrol = |name, key| enrol(&mut t, token, name, Role::Agent, key);
    assert_eq!((enrol("a", 1), enrol("b", 2)), (Ok("agent/a".to_owned()), Ok("agent/b".to_owned())));
    assert_eq!(enrol("c", 3), Err(C::Busy));
    assert_eq!(enrol("a", 1), Ok("agent/a".to_owned()), "who is known may ask again");
}

#[test]
fn an_agent_gets_no_more_attempts_than_it_may_hold() {
    let mut t = bounded(Policy { attempts_per_agent: 3, ..Policy::default() });
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 5, resources: fleetwire_common::resources::Resources::ZERO, ..task() }]);
    assert_eq!(t.counts(job)[..2], [2, 3]);
    t.agent("a").completes(attempt(job, 0, 1));
    assert_eq!(t.counts(job)[..2], [1, 3]);
}

#[test]
fn a_job_for_which_there_is_no_room_is_refused() {
    let mut t = bounded(Policy { kept_bytes_max: 4_000, ..Policy::default() });
    let large = job(vec![TaskSpec { parameters: format!("\"{}\"", "x".repeat(4_000)), ..task() }]);
    let submit = t.submit_id();
    assert_eq!(t.submit_as(submit, &large), Err(C::Busy));
    assert_eq!(t.submit(vec![task()]), 1);
}

#[test]
fn what_has_ended_is_bounded_in_tasks_and_in_bytes() {
    for policy in
        [Policy { ended_tasks_max: 25, ..Policy::default() }, Policy { ended_bytes_max: 2_500, ..Policy::default() }]
    {
        let mut t = bounded(policy);
        for _ in 0..5 {
            let parameters = format!("\"{}\"", "x".repeat(800));
            let job = t.submit(vec![TaskSpec { count: 10, parameters, ..task() }]);
            t.cancel(job, None).unwrap();
        }
        let kept: Vec<_> = t.scheduler.state().jobs.keys().map(|job| job.0).collect();
        assert_eq!(kept, [4, 5]);
    }
}

#[test]
fn an_agent_says_no_more_of_itself_than_it_may() {
    let mut t = T::new();
    t.agent("a").connect();
    let label = |key: String, value: String| fleetwire_common::job::key_values(&[(key, value)]);
    let many: Vec<_> = (0..=LABELS_MAX).map(|n| (format!("k{n}"), String::new())).collect();
    let report = |n: usize| fb::AttemptReportT {
        task_id: Some(format!("1.0.{n}")),
        attempt: 1,
        ..fb::AttemptReportT::default()
    };
    let wrong = [
        fb::RegisterT { labels: Some(label("k".repeat(NAME_BYTES_MAX + 1), String::new())), ..Default::default() },
        fb::RegisterT { labels: Some(label("k".into(), "v".repeat(VALUE_BYTES_MAX + 1))), ..Default::default() },
        fb::RegisterT { labels: Some(fleetwire_common::job::key_values(&many)), ..Default::default() },
        fb::RegisterT { attempts: Some((0..=AGENT_ATTEMPTS_MAX).map(report).collect()), ..Default::default() },
    ];
    for mut register in wrong {
        register.data_id = Some(vec![0; 16]);
        let message = Message::Rare(fb::SchedulerMessageT::Register(Box::new(register)));
        assert_eq!(t.agent("a").send(message).nacked(), C::Validation);
    }
    assert_eq!(t.scheduler.state().agents.count(), 0);
}

#[test]
fn a_result_that_no_agent_would_send_is_dropped_and_said_to_be() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 2, ..task() }]);
    for (index, bytes) in [(0, RESULT_BYTES_MAX), (1, RESULT_BYTES_MAX + 1)] {
        let end = End { result: Some(vec![7; bytes]), ..End::default() };
        t.agent("a").runs(attempt(job, index, 1)).ends(attempt(job, index, 1), S::Completed, end);
    }
    let end = |t: &mut T, index| t.task(id(job, 0, index)).end.unwrap();
    assert_eq!(end(&mut t, 0).message, None);
    assert_eq!(end(&mut t, 1).message.unwrap(), "the result of 65537 bytes was dropped: at most 65536 are kept");
    assert_eq!(t.scheduler.state().last_end(id(job, 0, 1)).unwrap().result(), None);
}

/// No job file can say such times, and every other client can.
#[test]
fn what_may_take_for_ever_is_taken_like_anything_else() {
    let mut t = T::new();
    let endless = TaskSpec {
        timeout_s: u64::MAX,
        queue_timeout_s: u64::MAX,
        kill_grace_ms: u32::MAX,
        backoff_ms: u32::MAX,
        max_attempts: 2,
        ..task()
    };
    let job = t.submit(vec![endless.clone()]);
    t.agent("a").register();
    let terms = Terms { lost_after_s: u64::MAX, deadline_ms: u64::MAX, ..Terms::default() };
    let other = t.submit_with(endless, terms).unwrap();
    for job in [job, other] {
        t.agent("a").accepts(attempt(job, 0, 1)).runs(attempt(job, 0, 1)).fails(attempt(job, 0, 1));
        assert_eq!(t.task(id(job, 0, 0)).failures, 1);
    }
    t.pass(secs(3_600));
}
