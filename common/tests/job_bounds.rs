//! Each bound on a job takes what reaches it, and refuses one more with what it counted, how much, and the bound.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use fleetwire_common::{
    fb,
    ids::Name,
    job::{Constraint, FileSpec, JobError, JobSpec, TaskSpec},
    limits::*,
};

fn task() -> TaskSpec {
    TaskSpec { command: "true".into(), ..TaskSpec::default() }
}

fn job(task: TaskSpec) -> Result<JobSpec, JobError> {
    JobSpec::new(Name::new("j").unwrap(), vec![task], 300)
}

fn file(n: usize, bytes: usize) -> FileSpec {
    FileSpec { path: format!("f{n}"), data: vec![0; bytes], executable: false }
}

fn constraint() -> Constraint {
    Constraint::new(Name::new("k").unwrap(), fb::ConstraintOp::Equal, "v")
}

fn one_of(values: Vec<String>) -> TaskSpec {
    TaskSpec { constraints: vec![Constraint::one_of(Name::new("k").unwrap(), values)], ..task() }
}

/// A bound, and a task that counts so many of what it bounds.
type Bound = (&'static str, usize, fn(usize) -> TaskSpec);

const BOUNDS: [Bound; 14] = [
    ("count", ARRAY_TASKS_MAX as usize, |n| TaskSpec { count: n as u32, ..task() }),
    ("number of arguments", ARGUMENTS_MAX, |n| TaskSpec { arguments: vec!["a".into(); n], ..task() }),
    ("number of environment variables", ENVIRONMENT_MAX, |n| TaskSpec {
        environment: (0..n).map(|n| (format!("V{n}"), String::new())).collect(),
        ..task()
    }),
    ("number of files", FILES_MAX, |n| TaskSpec { files: (0..n).map(|n| file(n, 0)).collect(), ..task() }),
    ("number of constraints", CONSTRAINTS_MAX, |n| TaskSpec { constraints: vec![constraint(); n], ..task() }),
    ("number of values of a constraint", CONSTRAINT_VALUES_MAX, |n| one_of(vec!["v".into(); n])),
    ("bytes of a value of a constraint", CONSTRAINT_VALUE_BYTES_MAX, |n| one_of(vec!["x".repeat(n)])),
    ("bytes of a pattern of a constraint", PATTERN_BYTES_MAX, |n| TaskSpec {
        constraints: vec![Constraint { op: fb::ConstraintOp::Matches, value: "*".repeat(n), ..constraint() }],
        ..task()
    }),
    ("bytes of parameters", PARAMETERS_BYTES_MAX, |n| TaskSpec {
        parameters: format!("\"{}\"", "x".repeat(n - 2)),
        ..task()
    }),
    ("max_attempts", ATTEMPTS_MAX as usize, |n| TaskSpec { max_attempts: n as u32, ..task() }),
    ("max_losses", ATTEMPTS_MAX as usize, |n| TaskSpec { max_losses: n as u32, ..task() }),
    ("bytes of an argument or environment value", VALUE_BYTES_MAX, |n| TaskSpec {
        arguments: vec!["x".repeat(n)],
        ..task()
    }),
    ("bytes of an argument or environment value", VALUE_BYTES_MAX, |n| TaskSpec {
        environment: vec![("V".into(), "x".repeat(n))],
        ..task()
    }),
    ("bytes of all files", FILES_BYTES_MAX, |n| TaskSpec { files: vec![file(0, n - 1), file(1, 1)], ..task() }),
];

#[test]
fn what_reaches_a_bound_is_taken_and_one_more_is_refused() {
    for (what, max, of) in BOUNDS {
        let whole = job(of(max)).unwrap_or_else(|error| panic!("{what} of {max}: {error}"));
        assert_eq!(JobSpec::from_wire(&whole.to_wire()), Ok(whole), "{what}");
        let error = job(of(max + 1)).unwrap_err();
        let JobError::TooMuch { what: counted, found, max: bound, .. } = &error else { panic!("{what}: {error}") };
        assert_eq!((*counted, *found, *bound), (what, max as u64 + 1, max as u64), "{error}");
    }
}

#[test]
fn task_entries_are_bounded() {
    let entries = |n| (0..n).map(|n| TaskSpec { name: Name::new(&format!("t{n}")).unwrap(), ..task() }).collect();
    let job = |n| JobSpec::new(Name::new("j").unwrap(), entries(n), 300);
    assert!(job(TASK_ENTRIES_MAX).is_ok());
    let error = job(TASK_ENTRIES_MAX + 1).unwrap_err();
    assert!(
        matches!(error, JobError::TooMuch { what: "number of tasks", max, .. } if max == TASK_ENTRIES_MAX as u64),
        "{error}"
    );
}

#[test]
fn the_bytes_of_a_job_and_of_a_name_are_bounded() {
    let error = JobSpec::from_wire(&vec![0; JOB_BYTES_MAX + 1]).unwrap_err();
    assert!(matches!(error, JobError::TooMuch { what: "bytes", max, .. } if max == JOB_BYTES_MAX as u64), "{error}");
    assert!(Name::new(&"n".repeat(NAME_BYTES_MAX)).is_ok());
    assert!(Name::new(&"n".repeat(NAME_BYTES_MAX + 1)).is_err());
}
