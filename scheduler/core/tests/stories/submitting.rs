//! Submitting jobs.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, ErrorCode as C},
    ids::SubmitId,
    job::TaskSpec,
    message::Message,
};
use fleetwire_scheduler_core::{Config, Policy};

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
}

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
