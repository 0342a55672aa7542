//! What tasks ask of their agents: who gets them, what nobody can give, and what is said about it.

use crate::harness::*;
use fleetwire_common::{
    custom::Custom,
    fb::{self, ConstraintOp as Op},
    ids::{AttemptId, Name, TaskId},
    job::{Constraint, Preference, TaskSpec},
    resources::Resources,
};

fn on(label: &str, op: Op, value: &str) -> Constraint {
    Constraint::new(Name::new(label).unwrap(), op, value)
}

fn among(label: &str, values: &[&str]) -> Constraint {
    Constraint::one_of(Name::new(label).unwrap(), values.iter().map(|value| (*value).to_owned()).collect())
}

fn obstacles(t: &mut T, task: TaskId) -> Vec<(String, u32)> {
    let query = fb::QueryT { kind: fb::QueryKind::Explain, task_id: Some(task.to_string()), ..fb::QueryT::default() };
    let rows = t.query(query).unwrap().explanation.unwrap().obstacles.unwrap();
    rows.into_iter().map(|row| (row.reason.unwrap(), row.agents)).collect()
}

#[test]
fn sets_patterns_and_versions_decide_who_may_run_a_task() {
    let mut t = T::new();
    for (agent, zone, driver) in [("a", "eu-1", "535.10"), ("b", "eu-2", "535.9"), ("c", "us-1", "unknown")] {
        t.agent(agent).label("zone", zone).label("driver", driver).register();
    }
    let mut given = |constraints: Vec<Constraint>| {
        let job = t.submit(vec![TaskSpec { constraints, ..task() }]);
        t.task(id(job, 0, 0)).agent
    };
    assert_eq!(given(vec![among("zone", &["us-1", "us-2"])]).as_deref(), Some("c"));
    assert_eq!(given(vec![on("zone", Op::Matches, "eu-*"), on("zone", Op::NotEqual, "eu-1")]).as_deref(), Some("b"));
    assert_eq!(given(vec![on("driver", Op::More, "535.9")]).as_deref(), Some("a"));
    assert_eq!(given(vec![on("driver", Op::Less, "535.10")]).as_deref(), Some("b"));

    let nowhere = vec![on("zone", Op::Matches, "?u-1"), on("driver", Op::AtLeast, "535.11")];
    let job = t.submit(vec![TaskSpec { constraints: nowhere, ..task() }]);
    let expected =
        [("its labels do not satisfy `driver >= 535.11`", 1), ("its labels do not satisfy `zone matches ?u-1`", 2)];
    let mut found = obstacles(&mut t, id(job, 0, 0));
    found.sort();
    assert_eq!(found, expected.map(|(reason, agents)| (reason.to_owned(), agents)));
}

fn wants(name: &str, amount: u64) -> TaskSpec {
    TaskSpec { custom: Custom::new([(name, amount)]).unwrap(), resources: Resources::ZERO, ..task() }
}

#[test]
fn custom_resources_are_counted_until_the_last_process_is_gone() {
    let mut t = T::new();
    t.agent("a").custom("fpga", 3).register();
    t.agent("b").register();
    let job = t.submit(vec![TaskSpec { count: 4, array: true, ..wants("fpga", 1) }]);
    assert_eq!(t.agent("a").assigned().len(), 3);
    assert!(t.agent("b").assigned().is_empty());
    let expected =
        [("it is busy: fpga: has free 0, the task needs 1", 1), ("it is too small: fpga: has 0, the task needs 1", 1)];
    let mut found = obstacles(&mut t, id(job, 0, 3));
    found.sort();
    assert_eq!(found, expected.map(|(reason, agents)| (reason.to_owned(), agents)));

    // A scheduler that starts anew counts what the agent lists, and so does one that was never told.
    t.restart();
    t.agent("a").connect().register();
    assert!(t.agent("a").assigned().is_empty());
    t.agent("a").completes(attempt(job, 0, 1));
    assert_eq!(t.agent("a").assigned(), [AttemptId { task: id(job, 0, 3), attempt: 1 }]);
    // What asks for none of it goes past what waits.
    let more = t.submit(vec![wants("fpga", 3)]);
    let plain = t.submit(vec![TaskSpec { resources: Resources::ZERO, ..task() }]);
    assert!(t.task(id(plain, 0, 0)).agent.is_some() && t.task(id(more, 0, 0)).agent.is_none());
    for index in [1, 2, 3] {
        t.agent("a").completes(AttemptId { task: id(job, 0, index), attempt: 1 });
    }
    assert_eq!(t.task(id(more, 0, 0)).agent.as_deref(), Some("a"));
}

#[test]
fn an_agent_that_offers_less_than_it_holds_gets_nothing_more() {
    let mut t = T::new();
    t.agent("a").custom("fpga", 2).register();
    let job = t.submit(vec![wants("fpga", 2)]);
    assert_eq!(t.agent("a").assigned(), [attempt(job, 0, 1)]);
    t.agent("a").lose();
    t.agent("a").custom("fpga", 1).connect().register();
    let plain = t.submit(vec![task()]);
    assert!(t.task(id(plain, 0, 0)).agent.is_none());
    t.agent("a").completes(attempt(job, 0, 1));
    assert_eq!(t.task(id(plain, 0, 0)).agent.as_deref(), Some("a"));
    let one = t.submit(vec![wants("fpga", 1)]);
    assert_eq!(t.task(id(one, 0, 0)).agent.as_deref(), Some("a"));
}

#[test]
fn who_wants_a_whole_agent_is_alone_there() {
    let mut t = T::new();
    t.agent("a").register();
    t.agent("b").register();
    let small = t.submit(vec![task()]);
    let on = t.task(id(small, 0, 0)).agent.unwrap();
    let other = if on == "a" { "b" } else { "a" };
    let whole = t.submit(vec![TaskSpec { count: 2, array: true, whole_agent: true, ..task() }]);
    let more = t.submit(vec![task()]);
    assert_eq!(t.task(id(whole, 0, 0)).agent.as_deref(), Some(other), "where nothing is");
    assert_eq!(t.task(id(more, 0, 0)).agent.as_deref(), Some(on.as_str()), "not beside what is alone");
    let expected = [
        ("it is busy: it holds 2 attempts, and the task wants it for itself", 1),
        ("it is busy: what is there has it for itself", 1),
    ];
    let mut found = obstacles(&mut t, id(whole, 0, 1));
    found.sort();
    assert_eq!(found, expected.map(|(reason, agents)| (reason.to_owned(), agents)));

    t.restart();
    t.agent("a").connect().register();
    t.agent("b").connect().register();
    let least = t.submit(vec![TaskSpec { resources: Resources::ZERO, count: 3, array: true, ..task() }]);
    assert!((0..3).all(|index| t.task(id(least, 0, index)).agent.as_deref() == Some(on.as_str())));
    // It goes where all of it is free first, and what waits goes there after it.
    t.agent(other).completes(attempt(whole, 0, 1));
    assert_eq!(t.task(id(whole, 0, 1)).agent.as_deref(), Some(other));
    let last = t.submit(vec![TaskSpec { count: 40, array: true, ..task() }]);
    assert!((0..40).all(|index| t.task(id(last, 0, index)).agent.as_deref() != Some(other)));
    t.agent(other).completes(AttemptId { task: id(whole, 0, 1), attempt: 1 });
    assert!((0..40).any(|index| t.task(id(last, 0, index)).agent.as_deref() == Some(other)));
}

#[test]
fn tasks_that_want_distinct_agents_are_never_two_on_one() {
    let mut t = T::new();
    for agent in ["a", "b"] {
        t.agent(agent).register();
    }
    let apart = TaskSpec { count: 4, array: true, distinct_agents: true, resources: Resources::ZERO, ..task() };
    let job = t.submit(vec![apart.clone()]);
    let agent = |t: &mut T, job, index| t.task(id(job, 0, index)).agent;
    let first = [agent(&mut t, job, 0).unwrap(), agent(&mut t, job, 1).unwrap()];
    assert_ne!(first[0], first[1]);
    assert!(agent(&mut t, job, 2).is_none());
    let why = "it has a task of the same entry, and those are to be on distinct agents";
    assert_eq!(obstacles(&mut t, id(job, 0, 2)), [(why.to_owned(), 2)]);
    // Others of another job are nothing to them.
    let other = t.submit(vec![TaskSpec { count: 2, ..apart }]);
    assert_ne!(agent(&mut t, other, 0), agent(&mut t, other, 1));

    t.restart();
    t.agent("a").connect().register();
    t.agent("b").connect().register();
    assert!(agent(&mut t, job, 2).is_none());
    t.agent("c").register();
    assert_eq!(agent(&mut t, job, 2).as_deref(), Some("c"));
    assert!(agent(&mut t, job, 3).is_none());
    t.agent(&first[1]).completes(AttemptId { task: id(job, 0, 1), attempt: 1 });
    assert_eq!(agent(&mut t, job, 3), Some(first[1].clone()));
}

#[test]
fn preferences_rank_the_agents_on_which_a_task_fits() {
    let mut t = T::new();
    for (agent, zone, disk) in [("a", "eu", "hdd"), ("b", "eu", "ssd"), ("c", "us", "ssd"), ("d", "us", "hdd")] {
        t.agent(agent).label("zone", zone).label("disk", disk).capacity(small()).register();
    }
    let prefer = |constraint, weight| Preference { constraint, weight };
    let ssd = prefer(on("disk", Op::Equal, "ssd"), 50);
    let not_eu = prefer(on("zone", Op::Equal, "eu"), -20);
    let full = TaskSpec { resources: small(), prefer: vec![ssd, not_eu], ..task() };
    let job = t.submit(vec![TaskSpec { count: 5, array: true, ..full }]);
    // 50, 30, 0 and -20.
    let agents: Vec<_> = (0..5).map(|index| t.task(id(job, 0, index)).agent).collect();
    assert_eq!(
        agents,
        ["c", "b", "d", "a"].map(|agent| Some(agent.to_owned())).into_iter().chain([None]).collect::<Vec<_>>()
    );
    // What waits takes what comes, and an agent that changes is ranked anew.
    t.agent("a").completes(attempt(job, 3, 1));
    assert_eq!(t.task(id(job, 0, 4)).agent.as_deref(), Some("a"));
    for (agent, index) in [("b", 1), ("c", 0), ("d", 2)] {
        t.agent(agent).completes(attempt(job, index, 1));
    }
    t.agent("d").lose();
    t.agent("d").label("disk", "ssd").label("zone", "asia").connect().register();
    t.agent("c").lose();
    let last = TaskSpec { resources: small(), prefer: vec![prefer(on("zone", Op::Equal, "asia"), 1)], ..task() };
    let last = t.submit(vec![last]);
    assert_eq!(t.task(id(last, 0, 0)).agent.as_deref(), Some("d"));
}
