//! Queues: who is served next of those that share a cluster, what a quota keeps back, how priorities rise, and what
//! policies and jobs are refused.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, EndReason as R, ErrorCode as C, TaskStatus as S},
    ids::{AttemptId, Name, TaskId},
    job::{JobSpec, TaskSpec, Terms},
    message::{Ack, End, Message},
    resources::Resources,
};
use std::time::Duration;

/// A queue of that weight, with a quota of cores.
fn rule(name: &str, weight: u32, cores: Option<u32>) -> fb::QueueRuleT {
    let quota = cores.map(|cores| Box::new(fb::QuotaT { cpu: 1_000 * cores, ..Default::default() }));
    fb::QueueRuleT { name: Some(name.to_owned()), weight, quota, ..Default::default() }
}

fn set(t: &mut T, queues: Vec<fb::QueueRuleT>, ageing: Duration) -> Result<(), (C, String)> {
    let (queues, ageing_every_ms) = (Some(queues), ageing.as_millis() as u64);
    let policy = Some(Box::new(fb::ClusterPolicyT { queues, ageing_every_ms, ..Default::default() }));
    match t.request(|request| fb::SchedulerMessageT::SetPolicy(Box::new(fb::SetPolicyT { request, policy }))) {
        Message::Ack(Ack::Request(_)) => Ok(()),
        Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Err((nack.code, nack.message.unwrap())),
        other => panic!("{other:?}"),
    }
}

/// The job's number, or why it is refused.
fn submit_to(t: &mut T, queue: &str, task: TaskSpec) -> Result<u64, String> {
    let job = JobSpec::new(Name::new("j").unwrap(), vec![task], Terms::lost_after(60)).unwrap();
    let job = job.in_queue(Name::new(queue).unwrap()).to_wire();
    let submit = t.submit_id();
    let message = |request| fb::SubmitJobT { request, submit_id: Some(submit.0.to_vec()), job: Some(job) };
    match t.request(|request| fb::SchedulerMessageT::SubmitJob(Box::new(message(request)))) {
        Message::Rare(fb::SchedulerMessageT::JobSubmitted(done)) => Ok(done.job),
        Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Err(nack.message.unwrap()),
        other => panic!("{other:?}"),
    }
}

fn array(count: u32) -> TaskSpec {
    TaskSpec { count, array: true, ..task() }
}

fn why(t: &mut T, task: TaskId) -> String {
    let query = fb::QueryT { kind: fb::QueryKind::Explain, task_id: Some(task.to_string()), ..fb::QueryT::default() };
    t.query(query).unwrap().explanation.unwrap().summary.unwrap()
}

fn policy(t: &mut T) -> fb::PolicySummaryT {
    let query = fb::QueryT { kind: fb::QueryKind::Policy, ..fb::QueryT::default() };
    *t.query(query).unwrap().policy.unwrap()
}

fn queue(t: &mut T, name: &str) -> fb::QueueSummaryT {
    let queues = policy(t).queues.unwrap();
    let of = |queue: &&fb::QueueSummaryT| queue.rule.as_ref().unwrap().name.as_deref() == Some(name);
    queues.iter().find(of).unwrap().clone()
}

/// How many of these are of that job.
fn of(attempts: &[AttemptId], job: u64) -> usize {
    attempts.iter().filter(|attempt| attempt.task.job.0 == job).count()
}

#[test]
fn a_policy_is_kept_with_who_set_it_and_when() {
    let mut t = T::new();
    let none = policy(&mut t);
    assert_eq!((none.set_by, none.set_at, none.queues.unwrap().len()), (None, 0, 1));
    t.pass(secs(7));
    set(&mut t, vec![rule("research", 3, Some(64))], secs(600)).unwrap();
    t.pass(secs(7));
    t.restart();
    let kept = policy(&mut t);
    assert_eq!(kept.set_by.as_deref(), Some("operator/op"));
    assert_eq!(kept.set_at, t.now.as_ms() - 7_000);
    assert_eq!(kept.policy.unwrap().ageing_every_ms, 600_000);
    let research = queue(&mut t, "research");
    assert_eq!((research.rule.unwrap().quota.unwrap().cpu, research.jobs), (64_000, 0));
    // A journal with jobs in queues is replayed as well.
    submit_to(&mut t, "research", array(3)).unwrap();
    t.restart();
    assert_eq!((queue(&mut t, "research").jobs, queue(&mut t, "research").waiting), (1, 3));
    set(&mut t, Vec::new(), Duration::ZERO).unwrap_err();
}

#[test]
fn what_is_free_goes_to_the_queue_that_has_least_for_its_weight() {
    let mut t = T::new();
    set(&mut t, vec![rule("research", 3, None), rule("rare", 1, None)], Duration::ZERO).unwrap();
    let other = t.submit(vec![array(100)]);
    let research = submit_to(&mut t, "research", array(100)).unwrap();
    t.agent("a").register();
    let assigned = t.agent("a").assigned();
    assert_eq!((of(&assigned, other), of(&assigned, research)), (1, 3));
    let shown = queue(&mut t, "research");
    assert_eq!((shown.attempts, shown.waiting, shown.share), (3, 97, 0.75));
    // Whatever ends, the shares stay so.
    let gone = assigned.iter().find(|attempt| attempt.task.job.0 == research).copied().unwrap();
    t.agent("a").completes(gone);
    assert_eq!(of(&t.agent("a").assigned(), research), 1);
    // Who comes anew has had nothing, and is next.
    let rare = submit_to(&mut t, "rare", array(2)).unwrap();
    let words = why(&mut t, id(research, 0, 99));
    assert!(words.contains("queue `research`, of weight 3, has 75.0 % of the cluster, and 2 queues come"), "{words}");
    let gone = assigned.iter().rfind(|attempt| attempt.task.job.0 == research).copied().unwrap();
    t.agent("a").completes(gone);
    assert_eq!(of(&t.agent("a").assigned(), rare), 1);
    // Another weight counts at once.
    set(&mut t, vec![rule("research", 1, None), rule("rare", 9, None)], Duration::ZERO).unwrap();
    t.agent("b").register();
    let assigned = t.agent("b").assigned();
    assert_eq!((of(&assigned, rare), of(&assigned, other), of(&assigned, research)), (1, 2, 1));
}

#[test]
fn the_share_is_that_of_what_a_queue_holds_most_of() {
    let mut t = T::new();
    set(&mut t, vec![rule("research", 1, None)], Duration::ZERO).unwrap();
    // One needs a tenth of the cores for each, the other a tenth of the memory.
    let capacity = Resources { cpu: 10_000, memory: 10_000, gpu: 0, storage: 0 };
    let cores =
        t.submit(vec![TaskSpec { resources: Resources { cpu: 1_000, memory: 250, ..Resources::ZERO }, ..array(50) }]);
    let memory = TaskSpec { resources: Resources { cpu: 250, memory: 1_000, ..Resources::ZERO }, ..array(50) };
    let memory = submit_to(&mut t, "research", memory).unwrap();
    t.agent("a").capacity(capacity).register();
    let assigned = t.agent("a").assigned();
    assert_eq!((of(&assigned, cores), of(&assigned, memory)), (8, 8));
}

#[test]
fn a_priority_comes_before_any_share() {
    let mut t = T::new();
    set(&mut t, vec![rule("research", 100, None)], Duration::ZERO).unwrap();
    submit_to(&mut t, "research", array(9)).unwrap();
    let urgent = t.submit(vec![TaskSpec { priority: 1, ..array(9) }]);
    t.agent("a").register();
    assert_eq!(of(&t.agent("a").assigned(), urgent), 4);
}

#[test]
fn a_quota_is_never_exceeded_and_what_it_held_back_goes_on_when_it_may() {
    let mut t = T::new();
    set(&mut t, vec![rule("research", 1, Some(2))], Duration::ZERO).unwrap();
    t.agent("a").register();
    t.agent("b").register();
    let job = submit_to(&mut t, "research", array(9)).unwrap();
    let first: Vec<AttemptId> = t.agent("a").assigned().into_iter().chain(t.agent("b").assigned()).collect();
    assert_eq!(first.len(), 2, "there is room for six more");
    let words = why(&mut t, id(job, 0, 8));
    assert!(
        words.ends_with("its queue are served before it; the quota of queue `research` holds it back: it needs 1000 of cpu, and the queue's attempts hold 2000 of the 2000 that they may"),
        "{words}"
    );
    // Others are not held back.
    let other = t.submit(vec![array(2)]);
    let others: Vec<AttemptId> = t.agent("a").assigned().into_iter().chain(t.agent("b").assigned()).collect();
    assert_eq!(of(&others, other), 2);
    // Cancelled is not gone.
    t.cancel(job, Some(first[0].task)).unwrap();
    t.pass(secs(1));
    assert!(t.agent("a").assigned().is_empty() && t.agent("b").assigned().is_empty());
    let end = End { reason: R::Cancelled, ..End::default() };
    t.agent("a").ends(first[0], S::Cancelled, end);
    assert_eq!(t.agent("a").assigned().len() + t.agent("b").assigned().len(), 1);
    // A start knows again what is held.
    t.restart();
    t.agent("a").register();
    t.agent("b").register();
    assert!(t.agent("a").assigned().is_empty() && t.agent("b").assigned().is_empty());
    assert_eq!(queue(&mut t, "research").held.unwrap().cpu, 2_000);
    // Nor does a rival come beside what is not heard.
    t.agent("a").lose();
    t.pass_beating(secs(300));
    assert_eq!(of(&t.agent("b").assigned(), job), 0, "suspect is not gone");
    t.agent("a").register();
    set(&mut t, vec![rule("research", 1, Some(3))], Duration::ZERO).unwrap();
    assert_eq!(t.agent("a").assigned().len() + t.agent("b").assigned().len(), 1, "it may have one more");
    set(&mut t, vec![rule("research", 1, None)], Duration::ZERO).unwrap();
    assert!(t.agent("a").assigned().len() + t.agent("b").assigned().len() > 0, "it may have whatever is free");
}

#[test]
fn what_is_given_ahead_counts_for_its_queues_quota() {
    let mut t = T::new();
    set(&mut t, vec![rule("research", 1, Some(5))], Duration::ZERO).unwrap();
    t.agent("a").backlog(64).register();
    let job = submit_to(&mut t, "research", array(100)).unwrap();
    for index in 0..16 {
        t.agent("a").runs(attempt(job, index, 1)).completes(attempt(job, index, 1));
        t.pass(Duration::from_millis(1));
        let holds = t.agent("a").model().holds.len();
        assert!(holds <= 5, "{holds} of its attempts are there");
    }
    assert_eq!(t.agent("a").model().holds.len(), 5, "one of them waits there");
}

#[test]
fn priorities_rise_with_the_time_that_a_job_has_waited() {
    let mut t = T::new();
    set(&mut t, Vec::new(), secs(60)).unwrap();
    let low = t.submit(vec![array(1)]);
    // Said again, it changes nothing.
    set(&mut t, Vec::new(), secs(60)).unwrap();
    t.pass(secs(119));
    let high = t.submit(vec![TaskSpec { priority: 2, ..array(9) }]);
    let even = t.submit(vec![TaskSpec { priority: 1, ..array(9) }]);
    t.pass(Duration::from_millis(500));
    t.agent("a").register();
    assert_eq!(of(&t.agent("a").assigned(), high), 4, "it has risen by one only");
    t.pass(secs(1));
    t.agent("b").register();
    let assigned = t.agent("b").assigned();
    assert_eq!((of(&assigned, low), of(&assigned, high), of(&assigned, even)), (1, 3, 0), "the older goes first");
    // Without the rule, what it gave is gone.
    set(&mut t, Vec::new(), Duration::ZERO).unwrap();
    t.pass(secs(20));
    t.agent("c").register();
    assert_eq!(of(&t.agent("c").assigned(), high), 2);
}

#[test]
fn what_could_never_run_is_refused_and_says_why() {
    let mut t = T::new();
    let research = fb::QueueRuleT { priority_max: 10, ..rule("research", 1, Some(4)) };
    set(&mut t, vec![research.clone()], Duration::ZERO).unwrap();
    let refused = |t: &mut T, queue: &str, task: TaskSpec| submit_to(t, queue, task).unwrap_err();
    assert!(refused(&mut t, "reserch", task()).contains("did you mean `research`?"));
    let large = TaskSpec { resources: Resources { cpu: 4_001, ..small() }, ..task() };
    assert!(
        refused(&mut t, "research", large).contains("needs 4001 of cpu, and the quota of queue `research` is 4000")
    );
    assert!(refused(&mut t, "research", TaskSpec { priority: 11, ..task() }).contains("may be 10 at most"));
    let job = submit_to(&mut t, "research", TaskSpec { resources: Resources { cpu: 3_000, ..small() }, ..task() });
    let facts = t.facts.len();
    let (code, words) = set(&mut t, vec![rule("other", 1, None)], Duration::ZERO).unwrap_err();
    assert!(code == C::WrongState && words.contains("queue `research` has 1 jobs that have not ended"), "{words}");
    let (code, words) = set(&mut t, vec![rule("research", 1, Some(2))], Duration::ZERO).unwrap_err();
    assert!(code == C::WrongState && words.contains("tasks that need 3000"), "{words}");
    let (code, words) = set(&mut t, vec![research, rule("heavy", 2_000, None)], Duration::ZERO).unwrap_err();
    assert!(code == C::Validation && words.contains("would starve"), "{words}");
    assert_eq!(t.facts.len(), facts);
    // Once its jobs have ended a queue may go, and come back.
    t.cancel(job.unwrap(), None).unwrap();
    set(&mut t, vec![rule("other", 1, None)], Duration::ZERO).unwrap();
    assert!(refused(&mut t, "research", task()).contains("the queues are default, other"));
    set(&mut t, vec![rule("research", 1, None)], Duration::ZERO).unwrap();
    submit_to(&mut t, "research", task()).unwrap();
    t.restart();
    let query = fb::QueryT { kind: fb::QueryKind::Jobs, queue: Some("research".to_owned()), ..Default::default() };
    let jobs = t.query(query).unwrap().jobs.unwrap();
    assert_eq!(jobs.iter().map(|job| job.job).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn a_queue_that_is_gone_is_counted_until_its_last_attempt_is() {
    let mut t = T::new();
    set(&mut t, vec![rule("research", 1, None)], Duration::ZERO).unwrap();
    t.agent("a").register();
    let job = submit_to(&mut t, "research", task()).unwrap();
    let attempt = t.agent("a").assigned()[0];
    t.agent("a").lose();
    t.pass(secs(3_600));
    // Its agent has not said that it is gone, but the job has ended.
    t.cancel(job, None).unwrap();
    set(&mut t, Vec::new(), Duration::ZERO).unwrap();
    set(&mut t, vec![rule("research", 2, Some(1))], Duration::ZERO).unwrap();
    assert_eq!(queue(&mut t, "research").attempts, 1);
    t.agent("b").register();
    submit_to(&mut t, "research", task()).unwrap();
    assert!(t.agent("b").assigned().is_empty(), "its quota is taken");
    t.agent("a").register();
    let end = End { reason: R::Cancelled, ..End::default() };
    t.agent("a").ends(attempt, S::Cancelled, end);
    assert_eq!(t.agent("a").assigned().len() + t.agent("b").assigned().len(), 1);
}
