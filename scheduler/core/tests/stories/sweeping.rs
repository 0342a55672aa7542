//! Parameter sweeps: each task of an array has its own values, and nothing but the lists is kept of them.

use crate::harness::*;
use fleetwire_common::{
    ids::AttemptId,
    job::{FileSpec, TaskSpec},
    message::Message,
    sweep::{Axis, Sweep, Value},
};

fn axis(name: &str, values: std::ops::Range<u32>) -> Axis {
    let value = |number: u32| Value { text: number.to_string(), quoted: false };
    Axis { name: name.into(), values: values.map(value).collect() }
}

fn swept(axes: Vec<Axis>) -> TaskSpec {
    let sweep = Sweep { axes, zip: false };
    let count = u32::try_from(sweep.count().unwrap()).unwrap();
    TaskSpec { count, array: true, sweep: Some(Box::new(sweep)), ..task() }
}

/// What came with each assignment: its parameters, the last variable of its environment, and its files' bytes.
fn assigned(t: &mut T) -> Vec<(AttemptId, String, String, usize)> {
    let messages = t.agent("a").inbox().into_iter();
    let assigned = messages.filter_map(|message| match message {
        Message::Assignment(assignment) => {
            let spec = &assignment.spec;
            let (name, value) = spec.environment.last().cloned().unwrap_or_default();
            let bytes = spec.files.iter().map(|file| file.data.len()).sum();
            Some((assignment.attempt, spec.parameters.clone(), format!("{name}={value}"), bytes))
        }
        _ => None,
    });
    assigned.collect()
}

#[test]
fn each_task_has_its_combination_at_every_try_and_after_a_restart() {
    let mut t = T::new();
    t.agent("a").register();
    let files = vec![FileSpec { path: "large".into(), data: vec![1; 5_000], executable: false }];
    let spec = TaskSpec { files, max_attempts: 2, backoff_ms: 1, ..swept(vec![axis("a", 0..2), axis("b", 5..7)]) };
    let job = t.submit(vec![TaskSpec { parameters: r#"{"fixed":true}"#.into(), ..spec }]);
    let of = |index: u32, number: u32, a: u32, b: u32| {
        let parameters = format!(r#"{{"fixed":true,"a":{a},"b":{b}}}"#);
        (attempt(job, index, number), parameters, format!("FLEETWIRE_PARAM_B={b}"), 5_000)
    };
    assert_eq!(assigned(&mut t), [of(0, 1, 0, 5), of(1, 1, 0, 6), of(2, 1, 1, 5), of(3, 1, 1, 6)]);
    t.agent("a").fails(attempt(job, 2, 1));
    t.pass(secs(1));
    assert_eq!(assigned(&mut t), [of(2, 2, 1, 5)]);
    t.agent("a").lose();
    t.agent("a").model().holds.clear();
    t.restart();
    t.agent("a").register();
    assert_eq!(assigned(&mut t).len(), 4);
}

#[test]
fn a_million_combinations_are_as_many_bytes_as_their_lists() {
    let mut t = T::new();
    let job = t.submit(vec![swept(vec![axis("a", 0..1_000), axis("b", 0..1_000)])]);
    assert_eq!(t.counts(job)[0], 1_000_000);
    let bytes: usize = t.facts.iter().map(Vec::len).sum();
    assert!(bytes < 100_000, "{bytes} bytes");
    t.restart();
    assert_eq!(t.counts(job)[0], 1_000_000);
}
