//! Files and results that are too large for the memory of a scheduler.

use crate::harness::*;
use fleetwire_common::{
    blob::BlobRef,
    fb::{self, ErrorCode as C, TaskStatus as S},
    ids::Name,
    job::{FileSpec, TaskSpec},
    message::{End, Message},
};
use fleetwire_scheduler_core::{Config, Event, Policy, State};

const LARGE: usize = 100_000;

fn file(path: &str, fill: u8, bytes: usize) -> FileSpec {
    FileSpec { path: path.into(), data: vec![fill; bytes], executable: fill == 2 }
}

fn with_files(files: Vec<FileSpec>) -> TaskSpec {
    TaskSpec { files, ..task() }
}

fn end_with(result: Vec<u8>) -> End {
    End { result: Some(result), ..End::default() }
}

fn result_of(t: &mut T, job: u64, index: u32) -> Result<Vec<u8>, C> {
    let task_id = Some(id(job, 0, index).to_string());
    let page = t.query(fb::QueryT { kind: fb::QueryKind::Result, task_id, ..Default::default() })?;
    Ok(page.tasks.unwrap().remove(0).end.unwrap().result.unwrap())
}

/// The files that came with the last assignment.
fn assigned(t: &mut T) -> Vec<FileSpec> {
    let messages = t.agent("a").inbox();
    let assignment = messages.into_iter().rev().find_map(|message| match message {
        Message::Assignment(assignment) => Some(assignment.spec.files.clone()),
        _ => None,
    });
    assignment.unwrap()
}

fn snapshot_bytes(t: &T) -> usize {
    t.snapshot().iter().map(Vec::len).sum()
}

fn small_segments() -> Config {
    Config { policy: Policy { blob_segment_bytes: 4_000, ..Policy::default() }, ..config() }
}

#[test]
fn large_files_and_results_are_beside_the_journal_and_come_back_as_they_were() {
    let mut t = T::new();
    t.agent("a").register();
    let files = vec![file("small", 1, 1_024), file("large", 2, LARGE), file("empty", 3, 0), file("larger", 4, 1_025)];
    let job = t.submit(vec![task(), TaskSpec { name: Name::new("two").unwrap(), ..with_files(files.clone()) }]);
    let entry = |t: &T| t.scheduler.state().jobs.values().next().unwrap().files.to_vec();
    assert_eq!(entry(&t).iter().map(|kept| (kept.entry, kept.file)).collect::<Vec<_>>(), [(1, 1), (1, 3)]);
    assert_eq!(assigned(&mut t), files);
    t.agent("a").ends(attempt(job, 0, 1), S::Completed, end_with(vec![7; 60_000]));
    assert_eq!(result_of(&mut t, job, 0), Ok(vec![7; 60_000]));
    t.restart();
    t.agent("a").register();
    assert_eq!(result_of(&mut t, job, 0), Ok(vec![7; 60_000]));
    assert_eq!(entry(&t).len(), 2);
}

#[test]
fn what_is_in_memory_does_not_grow_with_bodies() {
    let sizes: Vec<(usize, usize)> = [2_000, LARGE]
        .map(|bytes| {
            let mut t = T::new();
            t.agent("a").register();
            let job = t.submit(vec![with_files(vec![file("f", 1, bytes)])]);
            t.agent("a").ends(attempt(job, 0, 1), S::Completed, end_with(vec![7; bytes.min(64 << 10)]));
            assert!(t.scheduler.state().kept_bytes as usize > bytes, "the bounds count it");
            (snapshot_bytes(&t), t.facts.iter().map(Vec::len).sum())
        })
        .into();
    let (small, large) = (sizes[0], sizes[1]);
    assert!(large.0.abs_diff(small.0) < 64 && large.1.abs_diff(small.1) < 64, "{sizes:?}");
}

#[test]
fn a_full_disk_keeps_results_in_the_journals_reserve() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![task()]);
    t.handle(Event::Disk { low: true, blob_segments_max: u64::MAX });
    t.agent("a").ends(attempt(job, 0, 1), S::Completed, end_with(vec![7; 60_000]));
    assert!(t.bodies.is_empty());
    assert_eq!(result_of(&mut t, job, 0), Ok(vec![7; 60_000]));
    assert!(snapshot_bytes(&t) > 60_000);
}

#[test]
fn no_segment_is_begun_for_bodies_that_would_be_one_of_the_reserve() {
    let mut t = T::with(small_segments());
    t.handle(Event::Disk { low: false, blob_segments_max: 1 });
    for fill in 1..4 {
        t.submit(vec![with_files(vec![file("f", fill, 2_500)])]);
        assert_eq!(t.bodies.len(), 1, "file {fill}");
    }
    // What there is room for in the segment that was begun goes there.
    t.submit(vec![with_files(vec![file("f", 4, 1_400)])]);
    t.submit(vec![with_files(vec![file("f", 5, 1_400)])]);
    assert_eq!(t.bodies.len(), 2);
    t.handle(Event::Disk { low: false, blob_segments_max: 2 });
    t.submit(vec![with_files(vec![file("f", 6, 3_000), file("g", 7, 3_000)])]);
    let segments: Vec<u64> = t.bodies.keys().map(|blob| blob.segment).collect();
    assert_eq!(segments, [0, 0, 3_900], "of a job with two files one has room");
}

#[test]
fn no_more_segments_of_blobs_are_kept_than_may_be() {
    let policy = Policy { blob_segment_bytes: 4_000, blob_segments_max: 3, ..Policy::default() };
    let mut t = T::with(Config { policy, ..config() });
    for fill in 0..5 {
        t.submit(vec![with_files(vec![file("f", fill, 3_000)])]);
    }
    assert_eq!((t.bodies.len(), t.scheduler.state().blobs.segments()), (3, 3));
}

#[test]
fn a_task_whose_file_is_lost_fails_at_once_and_is_not_tried_again() {
    let mut t = T::new();
    let spec = TaskSpec { max_attempts: 3, backoff_ms: 10, ..with_files(vec![file("f", 1, LARGE)]) };
    let job = t.submit(vec![spec]);
    let other = t.submit(vec![with_files(vec![file("g", 2, LARGE)])]);
    let first = *t.bodies.keys().next().unwrap();
    t.bodies.remove(&first);
    t.agent("a").register();
    t.pass(secs(60));
    let lost = t.task(id(job, 0, 0));
    assert_eq!((lost.status, lost.failures, t.task(id(other, 0, 0)).status), (S::Failed, 1, S::Assigned));
    let end = lost.end.unwrap();
    assert!(end.reason == fb::EndReason::FilesLost && end.message.unwrap().contains("it is gone"));
    let held: Vec<_> = t.scheduler.live().agents().flat_map(|(_, live)| live.held.keys().copied()).collect();
    assert_eq!(held, [attempt(other, 0, 1)], "nothing is held for what was never sent");
}

#[test]
fn a_result_that_is_lost_is_said_to_be() {
    let mut t = T::new();
    t.agent("a").register();
    let job = t.submit(vec![TaskSpec { count: 2, array: true, ..task() }]);
    t.agent("a").ends(attempt(job, 0, 1), S::Completed, end_with(vec![7; 2_000]));
    t.agent("a").ends(attempt(job, 1, 1), S::Completed, end_with(vec![8; 2_000]));
    let first = *t.bodies.keys().next().unwrap();
    t.bodies.remove(&first);
    assert_eq!((result_of(&mut t, job, 0), result_of(&mut t, job, 1)), (Err(C::Damaged), Ok(vec![8; 2_000])));
}

#[test]
fn a_segment_is_needed_as_long_as_anything_in_it_is_named() {
    let mut t = T::with(small_segments());
    t.agent("a").register();
    let one = t.submit(vec![TaskSpec { backoff_ms: 1, max_attempts: 2, ..with_files(vec![file("f", 1, 1_500)]) }]);
    // A first attempt's result goes when there is a later one.
    t.agent("a").ends(attempt(one, 0, 1), S::Failed, end_with(vec![1; 2_000]));
    let two = t.submit(vec![with_files(vec![file("f", 2, 3_000)])]);
    t.pass(secs(1));
    t.agent("a").ends(attempt(one, 0, 2), S::Completed, end_with(vec![2; 2_000]));
    let segments: Vec<u64> = t.bodies.keys().map(|blob| blob.segment).collect();
    assert_eq!(segments, [0, 0, 3_500, 6_500]);
    let named = |state: &State| state.named_blobs().map(|blob| (blob.segment, blob.length)).collect::<Vec<_>>();
    assert_eq!(named(t.scheduler.state()), [(0, 1_500), (6_500, 2_000), (3_500, 3_000)]);
    t.pass(secs(8 * 24 * 3_600));
    t.handle(Event::Deadline);
    t.restart();
    let state = t.scheduler.state();
    assert!(!state.jobs.contains_key(&fleetwire_common::ids::JobId(one)));
    assert_eq!([0, 3_500, 6_500].map(|segment| state.blobs.needs(segment)), [false, true, true]);
    t.cancel(two, None).unwrap();
}

#[test]
fn a_fact_that_names_a_blob_where_none_can_be_is_refused() {
    let mut t = T::new();
    t.submit(vec![with_files(vec![file("f", 1, LARGE)])]);
    let mut twice = t.scheduler.state().clone();
    let blobs: Vec<BlobRef> = t.bodies.keys().copied().collect();
    assert_eq!(twice.named_blobs().collect::<Vec<_>>(), blobs);
    let fact = t.facts.last().unwrap().clone();
    assert!(twice.apply_bytes(&fact).is_err());
}
