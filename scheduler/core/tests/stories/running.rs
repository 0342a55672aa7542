//! From submit to result.

use crate::harness::*;
use fleetwire_common::{
    fb::{self, TaskStatus as S},
    job::TaskSpec,
    message::End,
    resources::Resources,
};

#[test]
fn a_task_goes_from_submit_to_its_result() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    let first = attempt(job, 0, 1);
    assert_eq!(t.agent("a").assigned(), [first]);
    assert_eq!(t.counts(job), [0, 1, 0, 0, 0, 0]);
    t.agent("a").accepts(first).reports(first, S::Running, 0.5);
    assert_eq!(t.counts(job), [0, 0, 1, 0, 0, 0]);
    assert_eq!((t.task(first.task).progress, t.job(job).progress), (0.5, 0.5));
    let end = End { exit_code: 0, result: Some(b"42".to_vec()), ..End::default() };
    assert!(t.agent("a").ends(first, S::Completed, end).acked(first));
    assert_eq!(t.counts(job), [0, 0, 0, 1, 0, 0]);
    let query =
        fb::QueryT { kind: fb::QueryKind::Result, task_id: Some(first.task.to_string()), ..fb::QueryT::default() };
    let summary = t.query(query).unwrap().tasks.unwrap().remove(0);
    assert_eq!(summary.end.unwrap().result.unwrap(), b"42");
    assert_eq!(summary.metrics.unwrap()[0].name.as_deref(), Some("loss"));
    assert!(t.job(job).ended_at > 0);
    t.restart();
    assert_eq!(t.counts(job), [0, 0, 0, 1, 0, 0]);
}

#[test]
fn an_array_fills_the_agents_and_flows_through_them() {
    let mut t = T::new();
    for name in ["a", "b"] {
        t.agent(name).register();
    }
    let job = t.submit(vec![TaskSpec { count: 100, array: true, ..task() }]);
    assert_eq!(t.counts(job), [92, 8, 0, 0, 0, 0]);
    let mut rounds = 0;
    while t.job(job).ended_at == 0 {
        rounds += 1;
        for name in ["a", "b"] {
            for attempt in t.agent(name).holds() {
                t.agent(name).runs(attempt).completes(attempt);
            }
        }
    }
    assert_eq!(t.counts(job), [0, 0, 0, 100, 0, 0]);
    assert!(rounds < 20, "{rounds}");
}

#[test]
fn nothing_is_placed_where_it_does_not_fit() {
    let mut t = T::new();
    t.agent("a").capacity(Resources { cpu: 4_000, memory: 150, gpu: 1, storage: 0 }).register();
    let gpu = TaskSpec { resources: Resources { cpu: 100, gpu: 1, ..Resources::ZERO }, ..task() };
    let large = TaskSpec { resources: Resources { cpu: 5_000, ..Resources::ZERO }, ..task() };
    let job = t.submit(vec![task()]);
    assert_eq!(t.counts(job), [0, 1, 0, 0, 0, 0]);
    // Memory is what is lacking for the second.
    let second = t.submit(vec![task()]);
    assert_eq!(t.counts(second), [1, 0, 0, 0, 0, 0]);
    let third = t.submit(vec![TaskSpec { count: 2, ..gpu }]);
    assert_eq!(t.counts(third), [1, 1, 0, 0, 0, 0]);
    let fourth = t.submit(vec![large]);
    assert_eq!(t.counts(fourth), [1, 0, 0, 0, 0, 0]);
    t.agent("a").completes(attempt(job, 0, 1));
    assert_eq!(t.counts(second), [0, 1, 0, 0, 0, 0]);
}
