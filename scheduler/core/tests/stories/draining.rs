//! Agents that an operator takes out of service, for a while or for good.

use crate::{forgetting::forget, harness::*};
use fleetwire_common::{
    fb::{self, AgentAction as A, EndReason as R, ErrorCode as C, TaskStatus as S},
    job::TaskSpec,
    message::{Ack, End, Message},
};
use std::time::Duration;

fn change(t: &mut T, name: &str, action: A, within: Duration) -> Result<(), C> {
    let change = fb::ChangeAgentT {
        agent: Some(name.to_owned()),
        action,
        within_ms: within.as_millis() as u64,
        reason: Some("a new disk".to_owned()),
        ..Default::default()
    };
    match t.request(|request| fb::SchedulerMessageT::ChangeAgent(Box::new(fb::ChangeAgentT { request, ..change }))) {
        Message::Ack(Ack::Request(_)) => Ok(()),
        Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Err(nack.code),
        other => panic!("{other:?}"),
    }
}

fn note(t: &mut T, name: &str) -> Option<String> {
    let query = fb::QueryT { kind: fb::QueryKind::Agent, agent: Some(name.to_owned()), ..Default::default() };
    t.query(query).unwrap().agents.unwrap().remove(0).note
}

fn made_way() -> End {
    End { reason: R::Drained, ..End::default() }
}

#[test]
fn a_cordoned_agent_keeps_what_it_has_and_gets_no_more() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 2, ..task() }]);
    change(&mut t, "a", A::Cordon, Duration::ZERO).unwrap();
    let more = t.submit(vec![task()]);
    assert_eq!(t.counts(more)[0], 1, "it waits");
    assert!(t.agent("a").cancelled().is_empty());
    assert!(note(&mut t, "a").unwrap().contains("cordoned by"));
    t.agent("a").completes(attempt(job, 0, 1));
    assert_eq!(t.counts(more)[0], 1, "also once there is room");
    // Neither a restart of the scheduler nor one of the agent gives it work.
    t.restart();
    t.agent("a").register();
    assert_eq!(t.counts(more)[0], 1);
    change(&mut t, "a", A::Uncordon, Duration::ZERO).unwrap();
    assert_eq!(t.counts(more)[1], 1);
    assert_eq!(note(&mut t, "a"), None);
}

#[test]
fn a_drain_lets_work_end_until_its_time_is_over_and_what_is_stopped_then_was_no_try() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 2, max_attempts: 1, max_losses: 1, ..task() }]);
    let (first, second) = (attempt(job, 0, 1), attempt(job, 1, 1));
    t.agent("a").runs(first).runs(second);
    change(&mut t, "a", A::Drain, secs(600)).unwrap();
    assert!(note(&mut t, "a").unwrap().starts_with("drains: 2 attempts are left, stopped in 600 s"));
    t.pass_beating(secs(590));
    assert!(t.agent("a").cancelled().is_empty());
    t.agent("a").completes(first);
    t.pass_beating(secs(20));
    assert_eq!(t.agent("a").cancelled(), [(second, R::Drained)]);
    t.agent("b").register();
    assert!(t.agent("b").assigned().is_empty(), "nobody has said that it is gone");
    t.agent("a").ends(second, S::Cancelled, made_way());
    assert_eq!(t.agent("b").assigned(), [attempt(job, 1, 2)]);
    let summary = t.task(second.task);
    assert_eq!((summary.failures, summary.losses), (0, 0));
    assert!(note(&mut t, "a").unwrap().starts_with("drained by"));
}

#[test]
fn what_was_asked_to_make_way_was_no_try_although_its_agent_works_again() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { max_losses: 1, ..task() }]);
    let first = attempt(job, 0, 1);
    t.agent("a").runs(first);
    change(&mut t, "a", A::Drain, secs(1)).unwrap();
    t.pass_beating(secs(2));
    change(&mut t, "a", A::Uncordon, Duration::ZERO).unwrap();
    t.agent("a").ends(first, S::Cancelled, made_way());
    assert_eq!(t.agent("a").assigned().last(), Some(&attempt(job, 0, 2)));
    assert_eq!(t.task(first.task).losses, 0);
}

#[test]
fn a_drain_goes_on_over_restarts_and_is_told_to_who_comes_back_later() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    let first = attempt(job, 0, 1);
    t.agent("a").runs(first).lose();
    change(&mut t, "a", A::Drain, secs(30)).unwrap();
    t.restart();
    t.pass(secs(60));
    t.agent("a").register();
    assert_eq!(t.agent("a").cancelled(), [(first, R::Drained)]);
    // Its word comes on another session: it is told again.
    t.agent("a").lose();
    t.agent("a").register();
    assert_eq!(t.agent("a").cancelled(), [(first, R::Drained)]);
}

#[test]
fn who_says_drained_unasked_is_not_believed() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { max_losses: 1, ..task() }]);
    let first = attempt(job, 0, 1);
    change(&mut t, "a", A::Drain, secs(60)).unwrap();
    t.agent("a").runs(first).ends(first, S::Cancelled, made_way());
    assert_eq!(t.task(first.task).status, S::Lost, "its time is not over");
}

#[test]
fn what_waits_on_a_cordoned_agent_is_wanted_back() {
    let mut t = T::new();
    t.agent("a").capacity(small()).backlog(128).register();
    let job = t.submit(vec![TaskSpec { count: 100, array: true, ..task() }]);
    for index in 0..40 {
        t.pass(Duration::from_millis(1));
        t.agent("a").completes(attempt(job, index, 1));
    }
    let waits = t.agent("a").model().waits.len();
    t.agent("a").inbox();
    assert!(waits > 0);
    change(&mut t, "a", A::Cordon, Duration::ZERO).unwrap();
    let recalled = t.agent("a").recalled();
    assert_eq!(recalled.len(), waits);
    for attempt in recalled {
        t.agent("a").releases(attempt);
    }
    t.agent("a").completes(attempt(job, 40, 1));
    let [pending, assigned, running, completed, ..] = t.counts(job);
    assert_eq!((pending, assigned + running, completed), (59, 0, 41));
}

#[test]
fn a_forgotten_agent_leaves_its_cordon_behind() {
    let mut t = T::new();
    t.agent("a").register().lose();
    change(&mut t, "a", A::Cordon, Duration::ZERO).unwrap();
    forget(&mut t, "a").unwrap();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    assert_eq!(t.counts(job)[1], 1);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let mut t = T::new();
    t.agent("a").register();
    let year = secs(365 * 86_400);
    assert_eq!(change(&mut t, "nobody", A::Cordon, Duration::ZERO), Err(C::UnknownAgent));
    assert_eq!(change(&mut t, "a", A(9), Duration::ZERO), Err(C::Validation));
    assert_eq!(change(&mut t, "a", A::Cordon, secs(1)), Err(C::Validation));
    assert_eq!(change(&mut t, "a", A::Drain, year + secs(1)), Err(C::Validation));
    assert_eq!(change(&mut t, "a", A::Drain, year), Ok(()));
}

#[test]
fn only_operators_change_agents() {
    let mut t = T::new();
    t.agent("a").register();
    t.connect(fb::Role::Service, "svc");
    assert_eq!(change(&mut t, "a", A::Cordon, Duration::ZERO), Err(C::Authorization));
}
