//! Submitting jobs.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, ErrorCode as C, TaskStatus as S},
    ids::SubmitId,
    job::TaskSpec,
    message::Message,
};
use fleetwire_scheduler_core::{Config, Event, Policy};

#[test]
fn a_repeated_submit_is_the_same_job_also_after_a_restart() {
    let mut t = T::new();
    let submit = t.submit_id();
    let (one, other) = (job(vec![task()]), job(vec![TaskSpec { count: 2, ..task() }]));
    assert_eq!(t.submit_as(submit, &one), Ok((1, false)));
    assert_eq!(t.submit_as(submit, &one), Ok((1, true)));
    assert_eq!(t.submit_as(submit, &other), Err(C::Conflict));
    t.restart();
    assert_eq!(t.submit_as(submit, &one), Ok((1, true)));
    assert_eq!(t.submit(vec![task()]), 2);
}

#[test]
fn submit_ids_are_kept_for_a_day_and_then_too_old() {
    let mut t = T::new();
    let submit = t.submit_id();
    let one = job(vec![task()]);
    t.submit_as(submit, &one).unwrap();
    t.pass(secs(24 * 3600));
    assert_eq!(t.submit_as(submit, &one), Ok((1, true)));
    t.pass(secs(1));
    t.submit(vec![task()]);
    assert_eq!(t.scheduler.state().submits.len(), 1);
    assert_eq!(t.submit_as(submit, &one), Err(C::TooOld));
    let ahead = SubmitId::new(t.now.as_ms() + 25 * 3_600_000, [0; 10]);
    assert_eq!(t.submit_as(ahead, &one), Err(C::Validation));
}

#[test]
fn a_full_scheduler_says_so() {
    let policy = Policy { jobs_max: 3, tasks_max: 100, submits_max: 2, ..Policy::default() };
    let mut t = T::with(Config { policy, ..config() });
    let many = job(vec![TaskSpec { count: 101, ..task() }]);
    let submit = t.submit_id();
    assert_eq!(t.submit_as(submit, &many), Err(C::Busy));
    t.submit(vec![task()]);
    t.submit(vec![task()]);
    let submit = t.submit_id();
    assert_eq!(t.submit_as(submit, &job(vec![task()])), Err(C::Busy));
    // The ids of today are not what keeps tomorrow's jobs out.
    t.pass(secs(25 * 3600));
    assert_eq!(t.submit(vec![task()]), 3);
    assert_eq!(t.scheduler.state().submits.len(), 1);
}

#[test]
fn a_full_disk_takes_no_new_job_but_every_end() {
    let mut t = T::new();
    t.agent("a").register();
    let running = t.submit(vec![TaskSpec { count: 2, ..task() }]);
    t.agent("a").runs(attempt(running, 0, 1)).runs(attempt(running, 1, 1));
    let (submit, known) = (t.submit_id(), t.submit_id());
    let one = job(vec![task()]);
    assert_eq!(t.submit_as(known, &one), Ok((2, false)));
    t.handle(Event::Disk { low: true, blob_segments_max: 1 });
    assert_eq!(t.submit_as(submit, &one), Err(C::DiskFull));
    assert_eq!(t.submit_as(known, &one), Ok((2, true)), "what was taken is said to be");
    t.agent("a").completes(attempt(running, 0, 1));
    assert_eq!(t.task(id(running, 0, 0)).status, S::Completed);
    t.cancel(running, None).unwrap();
    t.has_room();
    assert_eq!(t.submit_as(submit, &one), Ok((3, false)));
}

// §session-8
#[test]
fn jobs_that_make_no_sense_are_refused() {
    let mut t = T::new();
    let mut submit = |submit_id: Option<Vec<u8>>, job: Option<Vec<u8>>| {
        let answer =
            t.request(|request| fb::SchedulerMessageT::SubmitJob(Box::new(fb::SubmitJobT { request, submit_id, job })));
        match answer {
            Message::Rare(fb::SchedulerMessageT::Nack(nack)) => {
                assert_ne!(nack.request, 0);
                nack.code
            }
            other => panic!("{other:?}"),
        }
    };
    let good = Some(SubmitId::new(1_700_000_000_000, [0; 10]).0.to_vec());
    assert_eq!(submit(None, Some(job(vec![task()]).to_wire())), C::Validation);
    assert_eq!(submit(Some(vec![1; 15]), Some(job(vec![task()]).to_wire())), C::Validation);
    assert_eq!(submit(good.clone(), None), C::Validation);
    assert_eq!(submit(good, Some(vec![0xff; 64])), C::Validation);
    assert!(t.scheduler.state().jobs.is_empty());
}

#[test]
fn ended_jobs_are_forgotten_when_there_are_too_many_or_their_time_is_over() {
    let policy = Policy { ended_jobs_max: 3, ..Policy::default() };
    let mut t = T::with(Config { policy, ..config() });
    t.agent("a").register();
    let waits = t.submit(vec![TaskSpec { resources: fleetwire_common::limits::RESOURCES_MAX, ..task() }]);
    let submit = t.submit_id();
    let spec = job(vec![task()]);
    let (first, _) = t.submit_as(submit, &spec).unwrap();
    t.agent("a").completes(attempt(first, 0, 1));
    for _ in 0..3 {
        let job = t.submit(vec![task()]);
        t.agent("a").completes(attempt(job, 0, 1));
    }
    let kept: Vec<u64> = t.scheduler.state().jobs.keys().map(|job| job.0).collect();
    assert_eq!(kept, [waits, first + 1, first + 2, first + 3]);
    // What is forgotten is unknown; but its submit id is not used for another job.
    let query = fb::QueryT { kind: fb::QueryKind::Job, job: first, ..fb::QueryT::default() };
    assert_eq!(t.query(query), Err(C::UnknownJob));
    assert_eq!(t.submit_as(submit, &spec), Ok((first, true)));
    assert_eq!(t.agent("a").completes(attempt(first, 0, 1)).nacked(), C::UnknownAttempt);
    t.restart();
    t.pass(secs(7 * 24 * 3600 + 1));
    t.agent("a").register();
    assert_eq!(t.scheduler.state().jobs.len(), 1);
    assert_eq!((t.scheduler.state().ended_task_count, t.scheduler.state().ended_bytes), (0, 0));
}

#[test]
fn the_jobs_that_ended_first_are_forgotten_first_whatever_their_numbers() {
    let policy = Policy { ended_jobs_max: 2, ended_kept: secs(1_000), ..Policy::default() };
    let mut t = T::with(Config { policy, ..config() });
    t.agent("a").register();
    let jobs: Vec<u64> = (0..4).map(|_| t.submit(vec![task()])).collect();
    for place in [3, 1, 0] {
        t.agent("a").completes(attempt(jobs[place], 0, 1));
        t.pass(secs(100));
        t.agent("a").register();
    }
    let kept = |t: &T| t.scheduler.state().jobs.keys().map(|job| job.0).collect::<Vec<_>>();
    assert_eq!(kept(&t), [jobs[0], jobs[1], jobs[2]]);
    t.restart();
    assert_eq!(kept(&t), [jobs[0], jobs[1], jobs[2]]);
    // The second job's time is over before that of the first, which ended later.
    t.pass(secs(850));
    t.agent("a").register();
    assert_eq!(kept(&t), [jobs[0], jobs[2]]);
}

fn with_result(bytes: usize) -> fleetwire_common::message::End {
    fleetwire_common::message::End { result: Some(vec![7; bytes]), ..Default::default() }
}

#[test]
fn a_result_that_the_scheduler_cannot_keep_is_refused_until_it_can() {
    let policy = Policy { kept_bytes_max: 4_000, ..Policy::default() };
    let mut t = T::with(Config { policy, ..config() });
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 3, ..task() }]);
    let kept = attempt(job, 0, 1);
    assert!(t.agent("a").ends(kept, fb::TaskStatus::Completed, with_result(2_000)).acked(kept));
    for index in [1, 2] {
        let attempt = attempt(job, index, 1);
        t.agent("a").inbox();
        let nacked = t.agent("a").ends(attempt, fb::TaskStatus::Completed, with_result(2_000)).nacked();
        assert_eq!(nacked, C::Busy);
        assert_eq!(t.scheduler.state().task_status(attempt.task), Some(fb::TaskStatus::Assigned));
    }
    // What takes no room ends; and who has a task cancelled does without its result.
    let (small, large) = (attempt(job, 1, 1), attempt(job, 2, 1));
    assert!(t.agent("a").ends(small, fb::TaskStatus::Completed, Default::default()).acked(small));
    t.cancel(job, None).unwrap();
    assert!(t.agent("a").ends(large, fb::TaskStatus::Completed, with_result(2_000)).acked(large));
    let message = t.task(large.task).end.unwrap().message.unwrap();
    assert!(message.contains("2000 bytes was not kept"), "{message}");
    assert_eq!(t.counts(job), [0, 0, 0, 3, 0, 0]);
    assert!(t.scheduler.state().kept_bytes < 5_000);
}

#[test]
fn a_new_result_takes_the_room_of_jobs_that_have_ended() {
    let policy = Policy { kept_bytes_max: 4_000, ..Policy::default() };
    let mut t = T::with(Config { policy, ..config() });
    t.agent("a").register();
    let mut last = 0;
    for _ in 0..5 {
        last = t.submit(vec![task()]);
        let attempt = attempt(last, 0, 1);
        assert!(t.agent("a").ends(attempt, fb::TaskStatus::Completed, with_result(2_000)).acked(attempt));
    }
    let query =
        fb::QueryT { kind: fb::QueryKind::Result, task_id: Some(id(last, 0, 0).to_string()), ..fb::QueryT::default() };
    assert_eq!(t.query(query).unwrap().tasks.unwrap().remove(0).end.unwrap().result.unwrap().len(), 2_000);
    assert_eq!(t.scheduler.state().jobs.len(), 1);
    t.restart();
}

#[test]
fn a_large_array_is_placed_step_by_step() {
    let policy = Policy { placements_per_step: 10, ..Policy::default() };
    let mut t = T::with(Config { policy, ..config() });
    let none = fleetwire_common::resources::Resources::ZERO;
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 95, resources: none, ..task() }]);
    assert_eq!(t.agent("a").holds().len(), 10);
    // What is left goes on at once, as soon as nothing else has arrived.
    t.pass(secs(0));
    assert_eq!(t.agent("a").holds().len(), 95);
    assert_eq!(t.counts(job), [0, 95, 0, 0, 0, 0]);
}
