//! Numbers that a journal and its backup both gave, before anybody could prove that there are two: each side counts what is
//! its own, by the jobs' keys, and takes nothing of the other's.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, AttemptVerdict as V, ErrorCode as C, TaskStatus as S},
    ids::{AttemptId, JobKey, Name},
    job::TaskSpec,
    message::{End, Message},
    resources::Resources,
};

fn large() -> Resources {
    Resources { cpu: 3_000, memory: 500, gpu: 0, storage: 0 }
}

/// `a` holds attempt 1 of a large job that the original took after the backup was made; the backup has the number for a
/// small one, which it has given to nobody. No agent has proved anything.
fn forked() -> (T, AttemptId) {
    let mut t = T::new();
    t.agent("a").register();
    let backup = t.facts.clone();
    let job = t.submit(vec![TaskSpec { resources: large(), ..task() }]);
    let id = attempt(job, 0, 1);
    assert!(t.agent("a").holds().contains(&id));
    t.restore(backup, 4, false);
    (t, id)
}

fn in_use(t: &T, name: &str) -> Resources {
    let agent = t.scheduler.state().agents.named(&Name::new(name).unwrap()).unwrap();
    t.scheduler.live().agent(agent).unwrap().in_use()
}

/// The backup, in which `a` was given attempt 1 of a small job of that number. Then `a` was the original's for a while, and
/// holds what that gave it.
fn both_on_one_agent() -> (T, AttemptId) {
    let (mut t, id) = forked();
    let theirs = t.agent("a").model().clone();
    t.agent("a").model().holds.clear();
    t.agent("a").register();
    assert_eq!(t.submit(vec![task()]), id.task.job.0);
    assert_eq!(t.agent("a").assigned(), [id]);
    t.agent("a").lose();
    let ours = t.agent("a").model().keys[&id];
    assert!(ours.differs(theirs.keys[&id]));
    (t.agent("a").model().holds, t.agent("a").model().keys) = (theirs.holds, theirs.keys);
    (t, id)
}

// §job-3 §job-4
#[test]
fn what_another_journals_scheduler_gave_is_not_taken_for_ours() {
    let (mut t, id) = both_on_one_agent();
    t.agent("a").register();
    assert_eq!(t.agent("a").verdict(id), V::Unknown);
    assert_eq!(in_use(&t, "a"), large().plus(small()), "theirs by what the agent says that it takes");
    let next = AttemptId { attempt: 2, ..id };
    assert!(t.agent("a").holds().contains(&next), "ours is not there, and is tried again");
    // It ends, as it was told to: nothing of it counts.
    t.agent("a").ends(id, S::Cancelled, End { reason: fb::EndReason::AgentForgotten, ..End::default() });
    assert_eq!(t.agent("a").nacked(), C::ForeignAttempt);
    assert_eq!(in_use(&t, "a"), small());
}

// §job-3
#[test]
fn a_kept_result_of_another_journals_job_never_commits() {
    let (mut t, id) = both_on_one_agent();
    t.agent("a").model().holds.get_mut(&id).unwrap().1 = S::Completed;
    t.agent("a").register();
    assert_eq!(t.agent("a").verdict(id), V::Unknown);
    let kept = |result: &[u8]| End { result: Some(result.to_vec()), ..End::default() };
    t.agent("a").ends(id, S::Completed, kept(b"theirs"));
    assert_eq!(t.agent("a").nacked(), C::ForeignAttempt);
    let next = AttemptId { attempt: 2, ..id };
    assert!(t.agent("a").holds().contains(&next));
    t.agent("a").ends(next, S::Completed, kept(b"ours"));
    assert_eq!(t.counts(id.task.job.0), [0, 0, 0, 1, 0, 0]);
    let result = t.scheduler.state().last_end(id.task).unwrap().result().unwrap();
    assert_eq!(result, b"ours");
}

// §job-3
#[test]
fn a_result_that_is_sent_twice_does_not_commit_to_what_was_assigned_between() {
    let (mut t, id) = forked();
    t.agent("a").register();
    let theirs = t.agent("a").model().keys[&id];
    t.submit(vec![task()]);
    assert!(t.agent("a").assigned().is_empty(), "not while another job's attempt of that number is there");
    assert_eq!(in_use(&t, "a"), large());
    t.agent("a").completes(id);
    assert_eq!(t.agent("a").nacked(), C::ForeignAttempt);
    t.pass_beating(secs(120));
    assert_eq!(t.agent("a").assigned(), [id], "it was excluded for a while");
    // A peer that sends it again although it was refused.
    let ours = t.agent("a").model().keys.insert(id, theirs).unwrap();
    let held = t.agent("a").model().holds.clone();
    t.agent("a").completes(id);
    assert_eq!(t.agent("a").nacked(), C::ForeignAttempt);
    assert_eq!(in_use(&t, "a"), small(), "ours is still there");
    t.agent("a").model().keys.insert(id, ours);
    t.agent("a").model().holds = held;
    t.agent("a").completes(id);
    assert!(t.agent("a").acked(id));
    assert_eq!(t.counts(id.task.job.0), [0, 0, 0, 1, 0, 0]);
}

// §job-3
#[test]
fn a_result_like_one_that_was_committed_is_not_acknowledged_for_another_job() {
    let (mut t, id) = forked();
    let theirs = t.agent("a").model().clone();
    t.agent("a").model().holds.clear();
    t.agent("a").register();
    t.submit(vec![task()]);
    t.agent("a").completes(id).lose();
    (t.agent("a").model().holds, t.agent("a").model().keys) = (theirs.holds, theirs.keys);
    t.agent("a").model().holds.get_mut(&id).unwrap().1 = S::Completed;
    t.agent("a").register();
    assert_eq!(in_use(&t, "a"), large());
    t.agent("a").inbox();
    t.agent("a").completes(id);
    assert_eq!(t.agent("a").nacked(), C::ForeignAttempt);
    assert_eq!(in_use(&t, "a"), Resources::ZERO);
}

// §job-4
#[test]
fn what_was_asked_to_stop_and_is_not_there_has_stopped() {
    let (mut t, id) = both_on_one_agent();
    t.cancel(id.task.job.0, None).unwrap();
    t.agent("a").register();
    assert_eq!(t.agent("a").verdict(id), V::Unknown);
    assert_eq!(t.counts(id.task.job.0), [0, 0, 0, 0, 0, 1]);
    assert_eq!(in_use(&t, "a"), large());
}

// §job-1
#[test]
fn the_same_submit_is_the_same_job_in_both_journals() {
    let mut t = T::new();
    t.agent("a").register();
    let backup = t.facts.clone();
    let (submit, spec) = (t.submit_id(), job(vec![task()]));
    let (number, _) = t.submit_as(submit, &spec).unwrap();
    let id = attempt(number, 0, 1);
    t.restore(backup, 4, false);
    let ran = t.agent("a").model().clone();
    t.agent("a").model().holds.clear();
    t.agent("a").register();
    assert_eq!(t.submit_as(submit, &spec), Ok((number, false)));
    t.agent("a").lose();
    t.agent("a").model().holds = ran.holds;
    t.agent("a").register();
    assert_eq!(t.agent("a").verdict(id), V::Keep, "what already runs of it counts");
    t.agent("a").completes(id);
    assert_eq!(t.counts(number), [0, 0, 0, 1, 0, 0]);
}

// §job-2
#[test]
fn an_agent_that_knows_no_keys_is_told_apart_by_number_alone() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    let id = attempt(job, 0, 1);
    assert_ne!(t.agent("a").model().keys[&id], JobKey(0));
    t.agent("a").lose();
    t.agent("a").model().keys.clear();
    t.agent("a").register();
    assert_eq!(t.agent("a").verdict(id), V::Keep);
    t.agent("a").completes(id);
    assert_eq!(t.counts(job), [0, 0, 0, 1, 0, 0]);
}

// §job-1 §job-3
#[test]
fn a_request_for_output_says_which_job_is_meant() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    let id = attempt(job, 0, 1);
    t.restart();
    t.agent("a").register();
    let operator = t.operator();
    let request = fb::LogRequestT { request: 1, task_id: Some(id.task.to_string()), limit: 10, ..Default::default() };
    t.send(operator, Message::Rare(fb::SchedulerMessageT::LogRequest(Box::new(request))));
    let forwarded = t.agent("a").inbox().into_iter().find_map(|message| match message {
        Message::Rare(fb::SchedulerMessageT::LogRequest(forwarded)) => Some(forwarded.job_key),
        _ => None,
    });
    assert_eq!(forwarded.map(JobKey), Some(t.agent("a").model().keys[&id]), "a snapshot keeps it");
}

// §job-4
#[test]
fn what_had_to_wait_for_another_jobs_attempt_is_cancelled_with_its_job() {
    let (mut t, id) = forked();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 3, ..task() }]);
    assert_eq!(job, id.task.job.0);
    assert!(t.agent("a").assigned().is_empty());
    t.cancel(job, None).unwrap();
    assert_eq!(t.counts(job), [0, 0, 0, 0, 0, 3]);
    t.agent("a").ends(id, S::Cancelled, End::default());
    t.pass_beating(secs(120));
    assert!(t.agent("a").assigned().is_empty(), "nothing of it is left in the queue");
}
