//! The policy's rules of placement, changed while everything runs: how agents are filled, what is reserved, who makes way.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, TaskStatus as S},
    job::TaskSpec,
    message::{Ack, Message},
    resources::Resources,
};

type Policy = fb::ClusterPolicyT;

fn set(t: &mut T, policy: Policy) -> Result<(), String> {
    let policy = Some(Box::new(policy));
    match t.request(|request| fb::SchedulerMessageT::SetPolicy(Box::new(fb::SetPolicyT { request, policy }))) {
        Message::Ack(Ack::Request(_)) => Ok(()),
        Message::Rare(fb::SchedulerMessageT::Nack(nack)) => Err(nack.message.unwrap()),
        other => panic!("{other:?}"),
    }
}

fn placing(pack: u16, spread: u16) -> Policy {
    Policy { placing: Some(Box::new(fb::PlacingRuleT { packing: pack, spreading: spread })), ..Policy::default() }
}

fn preempt(gap: u8, after_ms: u64) -> Policy {
    let rule = fb::PreemptRuleT { gap, after_ms, per_minute: 60, per_task: 3 };
    Policy { preempt: Some(Box::new(rule)), ..Policy::default() }
}

fn reserve(after_ms: u64, agents: u16) -> Policy {
    Policy { reserve: Some(Box::new(fb::ReserveRuleT { after_ms, agents })), ..Policy::default() }
}

/// One more task; where it goes.
fn place(t: &mut T) -> String {
    let job = t.submit(vec![task()]);
    t.task(id(job, 0, 0)).agent.unwrap()
}

#[test]
fn agents_are_filled_as_the_policy_weighs_it() {
    let mut t = T::new();
    for agent in ["a", "b", "c"] {
        t.agent(agent).register();
    }
    let packed = [place(&mut t), place(&mut t)];
    assert_eq!(packed[0], packed[1], "the fullest first, without a policy");
    // With this all agents are looked at, and so all are in their order.
    t.submit(vec![TaskSpec { resources: Resources { cpu: 5_000, ..task().resources }, ..task() }]);
    set(&mut t, placing(0, 1)).unwrap();
    let spread = [place(&mut t), place(&mut t)];
    assert!(spread[0] != spread[1] && !spread.contains(&packed[0]), "the emptiest first: {spread:?}");
    t.restart();
    for agent in ["a", "b", "c"] {
        t.agent(agent).register();
    }
    set(&mut t, placing(1, 0)).unwrap();
    let packed = [place(&mut t), place(&mut t)];
    assert_eq!(packed[0], packed[1], "and back again");
    assert!(set(&mut t, placing(0, 0)).unwrap_err().contains("one of them above 0"));
}

#[test]
fn who_makes_way_is_the_policys_to_say() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 4, array: true, ..task() }]);
    for index in 0..4 {
        t.agent("a").runs(attempt(job, index, 1));
    }
    t.agent("a").inbox();
    t.submit(vec![TaskSpec { priority: 5, ..task() }]);
    t.pass_beating(secs(20));
    assert!(t.agent("a").cancelled().is_empty(), "less than ten apart");
    set(&mut t, preempt(5, 500)).unwrap();
    t.pass_beating(secs(1));
    assert_eq!(t.agent("a").cancelled().len(), 1, "five are enough now, and half a second");
    set(&mut t, Policy { preempt: Some(Box::default()), reserve: None, ..Policy::default() }).unwrap_err();
    let never = fb::PreemptRuleT { gap: 0, after_ms: 1_000, ..Default::default() };
    set(&mut t, Policy { preempt: Some(Box::new(never)), ..Policy::default() }).unwrap();
    t.submit(vec![TaskSpec { priority: 100, ..task() }]);
    t.pass_beating(secs(20));
    assert!(t.agent("a").cancelled().is_empty(), "nobody makes way any more");
}

#[test]
fn what_is_reserved_is_the_policys_to_say() {
    let large = TaskSpec { resources: Resources { cpu: 4_000, memory: 100, gpu: 0, storage: 0 }, ..task() };
    for (policy, starts) in [(reserve(2_000, 1), true), (reserve(2_000, 0), false)] {
        let mut t = T::new();
        t.agent("a").register();
        set(&mut t, policy).unwrap();
        let first = t.submit(vec![TaskSpec { count: 4, array: true, ..task() }]);
        let waits = t.submit(vec![large.clone()]);
        t.pass_beating(secs(3));
        let small = t.submit(vec![TaskSpec { count: 4, array: true, ..task() }]);
        for index in 0..4 {
            t.agent("a").completes(attempt(first, index, 1));
        }
        assert_eq!(t.task(id(waits, 0, 0)).status == S::Assigned, starts);
        assert_eq!(t.task(id(small, 0, 0)).status == S::Pending, starts);
    }
}
