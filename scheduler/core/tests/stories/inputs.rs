//! Results that are handed on: a task finds those of what it comes after as files.

use crate::harness::*;
use fleetwire_common::{
    fb::{DependencyOn as On, EndReason as R, TaskStatus as S},
    graph::Dependency,
    ids::{AttemptId, Name},
    job::{FileSpec, TaskSpec},
    message::{End, Message},
};

fn named(name: &str, count: u32, after: Vec<Dependency>) -> TaskSpec {
    TaskSpec { name: Name::new(name).unwrap(), count, array: count > 1, after, ..task() }
}

fn input(task: &str, path: &str, each: bool) -> Dependency {
    Dependency { task: Name::new(task).unwrap(), on: On::Success, each, input: path.into() }
}

fn of(job: u64, entry: u16, index: u32, attempt: u32) -> AttemptId {
    AttemptId { task: id(job, entry, index), attempt }
}

fn left(bytes: &[u8]) -> End {
    End { result: Some(bytes.to_vec()), ..End::default() }
}

/// Files by their paths.
type Files = Vec<(String, Vec<u8>)>;

/// The files that came with each assignment.
fn files(t: &mut T) -> Vec<(AttemptId, Files)> {
    let messages = t.agent("a").inbox();
    let files = |files: &[FileSpec]| files.iter().map(|file| (file.path.clone(), file.data.clone())).collect();
    let assigned = messages.into_iter().filter_map(|message| match message {
        Message::Assignment(assignment) => Some((assignment.attempt, files(&assignment.spec.files))),
        _ => None,
    });
    assigned.collect()
}

#[test]
fn what_one_left_is_a_file_of_the_next_again_at_each_try_and_after_a_restart() {
    let mut t = T::new();
    t.agent("a").register();
    let own = FileSpec { path: "own".into(), data: vec![9; 2_000], executable: false };
    let tasks = vec![
        named("small", 1, vec![]),
        named("large", 1, vec![]),
        named("none", 1, vec![]),
        TaskSpec {
            files: vec![own],
            max_attempts: 2,
            backoff_ms: 1,
            ..named(
                "sum",
                1,
                vec![
                    input("small", "in/small.json", false),
                    input("large", "in/large", false),
                    input("none", "in/none", false),
                ],
            )
        },
    ];
    let job = t.submit(tasks);
    t.agent("a").ends(of(job, 0, 0, 1), S::Completed, left(b"{}")).completes(of(job, 2, 0, 1)).inbox();
    t.agent("a").ends(of(job, 1, 0, 1), S::Completed, left(&[7; 50_000]));
    let expected: Files = vec![
        ("own".into(), vec![9; 2_000]),
        ("in/small.json".into(), b"{}".to_vec()),
        ("in/large".into(), vec![7; 50_000]),
    ];
    assert_eq!(files(&mut t), [(of(job, 3, 0, 1), expected.clone())], "whoever left nothing hands nothing on");
    t.agent("a").fails(of(job, 3, 0, 1));
    t.pass(secs(1));
    assert_eq!(files(&mut t), [(of(job, 3, 0, 2), expected.clone())]);
    // It never came: it is sent again, from what the journal says.
    t.agent("a").lose();
    t.agent("a").model().holds.clear();
    t.restart();
    t.agent("a").register();
    assert_eq!(files(&mut t), [(of(job, 3, 0, 2), expected)]);
}

#[test]
fn of_an_array_each_is_handed_its_own_or_one_all_of_them() {
    let mut t = T::new();
    t.agent("a").register();
    let tasks = vec![
        named("get", 3, vec![]),
        named("read", 3, vec![input("get", "page", true)]),
        named("sum", 1, vec![input("read", "pages", false)]),
    ];
    let job = t.submit(tasks);
    t.agent("a").inbox();
    for index in [2, 0, 1] {
        t.agent("a").ends(of(job, 0, index, 1), S::Completed, left(&[index as u8; 3]));
        assert_eq!(files(&mut t), [(of(job, 1, index, 1), vec![("page".into(), vec![index as u8; 3])])]);
    }
    // Each as it was left, be it beside the journal.
    let page = |index: u32| vec![index as u8; 2_000 * index as usize];
    t.agent("a").ends(of(job, 1, 2, 1), S::Completed, left(&page(2)));
    t.agent("a").completes(of(job, 1, 0, 1));
    t.agent("a").ends(of(job, 1, 1, 1), S::Completed, left(&page(1)));
    let pages = vec![("pages/1".to_owned(), page(1)), ("pages/2".to_owned(), page(2))];
    assert_eq!(files(&mut t), [(of(job, 2, 0, 1), pages)]);
}

#[test]
fn what_is_handed_more_than_an_assignment_carries_fails_and_says_so() {
    let mut t = T::new();
    t.agent("a").register();
    let tasks = vec![
        named("get", 17, vec![]),
        TaskSpec { max_attempts: 5, ..named("sum", 2, vec![input("get", "pages", false)]) },
        named("tidy", 1, vec![Dependency { on: On::End, ..input("sum", "", false) }]),
    ];
    let job = t.submit(tasks);
    while let Some(attempt) = t.agent("a").holds().pop_first().filter(|attempt| attempt.task.entry == 0) {
        t.agent("a").ends(attempt, S::Completed, left(&[1; 64 << 10]));
    }
    t.pass(secs(0));
    let row = t.task(id(job, 1, 1));
    let end = row.end.unwrap();
    assert_eq!((row.status, row.attempt, end.reason), (S::Failed, 1, R::InputsTooLarge));
    assert_eq!(end.message.unwrap(), "its files and inputs have 1114112 bytes: expected at most 1048576");
    // Nothing of it was sent, and what comes after it goes on.
    let assigned = t.agent("a").assigned();
    assert!(assigned.iter().all(|attempt| attempt.task.entry != 1), "{assigned:?}");
    assert_eq!(assigned.last(), Some(&of(job, 2, 0, 1)));
    t.agent("a").completes(of(job, 2, 0, 1));
    assert!(t.job(job).ended_at > 0);
}
