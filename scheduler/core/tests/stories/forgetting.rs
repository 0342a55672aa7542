//! Agents that are not expected back, and agents that offer less than they hold.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, AttemptVerdict as V, EndReason as R, ErrorCode as C, TaskStatus as S},
    job::TaskSpec,
    message::{Ack, Message},
    resources::Resources,
};

const DAY: u64 = 24 * 3600;

pub fn forget(t: &mut T, name: &str) -> Result<(), C> {
    let agent = Some(name.to_owned());
    let ask =
        |request| fb::SchedulerMessageT::CancelWork(Box::new(fb::CancelWorkT { request, agent, ..Default::default() }));
    match t.request(ask) {
        Message::Ack(Ack::Request(_)) => Ok(()),
        Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Err(nack.code),
        other => panic!("{other:?}"),
    }
}

fn agents(t: &mut T) -> Vec<String> {
    let page = t.query(fb::QueryT { kind: fb::QueryKind::Agents, ..Default::default() }).unwrap();
    page.agents.unwrap().into_iter().filter_map(|agent| agent.name).collect()
}

#[test]
fn an_agent_that_is_away_for_a_month_is_forgotten() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { max_losses: 1, ..task() }]);
    t.agent("a").runs(attempt(job, 0, 1)).lose();
    // Its only attempt ended long before, and is held by it nevertheless.
    t.pass(secs(29 * DAY));
    assert_eq!(agents(&mut t), ["a"]);
    t.pass(secs(2 * DAY));
    assert!(agents(&mut t).is_empty());
    let live = t.scheduler.live().agents().next().unwrap().1;
    assert!(live.held.is_empty() && live.free() == Resources::ZERO, "neither ledger nor capacity is left");
    t.restart();
    assert!(agents(&mut t).is_empty());
}

#[test]
fn the_month_goes_on_over_a_restart_but_nobody_is_forgotten_before_it_could_return() {
    let mut t = T::new();
    for name in ["away", "left", "back"] {
        t.agent(name).register();
    }
    let goodbye = Message::Rare(fb::SchedulerMessageT::Deregister(Box::default()));
    t.agent("left").send(goodbye);
    t.agent("left").lose();
    t.agent("away").lose();
    t.pass_beating(secs(20 * DAY));
    // The scheduler is not there for longer than the rest of the month.
    t.now = t.now + secs(20 * DAY);
    t.restart();
    t.agent("back").register();
    t.pass_beating(secs(3_000));
    assert_eq!(agents(&mut t), ["away", "left", "back"]);
    t.agent("away").register();
    t.pass_beating(secs(700));
    assert_eq!(agents(&mut t), ["away", "back"], "an hour to return is over");
}

#[test]
fn a_forgotten_agent_that_returns_registers_anew() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { max_losses: 2, ..task() }]);
    let first = attempt(job, 0, 1);
    t.agent("a").runs(first);
    assert_eq!(forget(&mut t, "a"), Err(C::WrongState), "it is connected");
    t.agent("a").lose();
    assert_eq!(forget(&mut t, "a"), Ok(()));
    assert_eq!(forget(&mut t, "a"), Err(C::UnknownAgent));
    assert_eq!(t.task(first.task).losses, 1);
    t.agent("b").register();
    assert_eq!(t.agent("b").assigned(), [attempt(job, 0, 2)]);
    t.agent("a").register();
    assert_eq!(t.agent("a").verdict(first), V::Stop);
    assert_eq!(t.agent("a").completes(first).nacked(), C::AttemptEnded);
    assert_eq!(agents(&mut t), ["a", "b"]);
    let more = t.submit(vec![TaskSpec { count: 7, ..task() }]);
    assert_eq!(t.counts(more), [0, 7, 0, 0, 0, 0], "its whole capacity is there again");
}

#[test]
fn what_a_forgotten_agent_had_ends_with_its_reason() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { max_losses: 1, ..task() }]);
    t.agent("a").runs(attempt(job, 0, 1)).lose();
    forget(&mut t, "a").unwrap();
    let summary = t.task(id(job, 0, 0));
    assert_eq!((summary.status, summary.end.unwrap().reason), (S::Lost, R::AgentForgotten));
}

#[test]
fn only_operators_forget_agents() {
    let mut t = T::new();
    t.agent("a").register().lose();
    t.connect(fb::Role::Service, "svc");
    assert_eq!(forget(&mut t, "a"), Err(C::Authorization));
}

#[test]
fn an_agent_that_offers_less_than_it_holds_gets_nothing_until_it_fits() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 4, ..task() }]);
    let smaller = Resources { cpu: 1_500, memory: 1_000, gpu: 0, storage: 0 };
    // It holds 4 cores of 1.5; what it says is taken, and free is none rather than less.
    t.agent("a").lose();
    let shrunk = t.agent("a").capacity(smaller);
    drop(shrunk);
    t.skip_fit = true;
    t.agent("a").register();
    let live = t.scheduler.live().agents().next().unwrap().1;
    assert_eq!((live.in_use().cpu, live.free().cpu), (4_000, 0));
    let more = t.submit(vec![task()]);
    for index in 0..3 {
        assert_eq!(t.counts(more)[1], 0, "{index}");
        t.agent("a").completes(attempt(job, index, 1));
    }
    assert_eq!(t.counts(more)[1], 0);
    t.agent("a").completes(attempt(job, 3, 1));
    assert_eq!(t.counts(more)[1], 1);
}
