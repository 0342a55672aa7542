//! What tasks ask of their agents: who gets them, what nobody can give, and what is said about it.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, ConstraintOp as Op},
    ids::{Name, TaskId},
    job::{Constraint, TaskSpec},
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
