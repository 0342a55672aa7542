//! What tools say of a frame, held against what a receiver says: an `Examiner` finds nothing wrong with what `open`
//! takes, and finds the fault for which `open` refuses what it refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use fleetwire_common::{
    envelope::{CONTROL_STREAM, Examiner, Features, Knowledge, OpenError, Violation},
    fb,
    limits::STALE_AFTER_MS,
};
use std::{fs, path::PathBuf};
use support::*;

fn golden(below: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../schemas/golden/0.1").join(below);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "bin"));
    files.sort();
    files
        .into_iter()
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into(), fs::read(&path).unwrap()))
        .collect()
}

/// Frames behind their stream and length, as hostile files hold them.
fn hostile(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut frames = Vec::new();
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    while !bytes.is_empty() {
        let length = number(&bytes[4..8]) as usize;
        frames.push((number(&bytes[..4]), bytes[8..8 + length].to_vec()));
        bytes = &bytes[8 + length..];
    }
    frames
}

fn examiner() -> Examiner {
    Examiner::new(Knowledge { key: Some((key(), KEY_ID)), arrived_ms: Some(NOW_MS), is_whole: true })
}

/// What both say of frames of one session; the session ends with the first that the opener refuses.
fn compare(what: &str, frames: &[(u32, Vec<u8>)]) {
    let (mut opener, mut examiner) = (opener(), examiner());
    for (stream, frame) in frames {
        let found = examiner.examine(frame, Some(*stream)).violations;
        let errors: Vec<OpenError> = match opener.open(frame, *stream, NOW_MS, STALE_AFTER_MS) {
            Ok(opened) => opened.refused().iter().map(|(_, error)| error.clone()).collect(),
            Err(error) => vec![error],
        };
        assert_eq!(found.is_empty(), errors.is_empty(), "{what}: opener {errors:?}, examiner {found:?}");
        // By their words: a number that is none is not equal to itself.
        let says = |error: &OpenError| found.iter().any(|it: &Violation| it.error.to_string() == error.to_string());
        assert!(errors.iter().all(says), "{what}: opener {errors:?}, examiner {found:?}");
        if !errors.is_empty() {
            break;
        }
    }
}

#[test]
fn what_is_honest_has_nothing_wrong_with_it() {
    for (name, bytes) in golden("") {
        let stream = u32::from(name == "Chunks");
        let frames: Vec<_> = frames(&bytes).into_iter().map(|frame| (stream, frame.to_vec())).collect();
        compare(&name, &frames);
        let mut excerpt = Examiner::new(Knowledge::default());
        for (_, frame) in &frames {
            let examined = excerpt.examine(frame, None);
            assert_eq!(examined.violations, [], "{name}");
            assert!(examined.is_readable && examined.is_authentic.is_none());
        }
    }
}

#[test]
fn what_is_refused_has_the_same_fault_among_others() {
    for (name, bytes) in golden("hostile") {
        compare(&name, &hostile(&bytes));
    }
}

#[test]
fn frames_with_changed_bytes_and_a_right_tag_are_judged_alike() {
    let mut random = Random(5);
    for (name, bytes) in golden("") {
        let stream = u32::from(name == "Chunks");
        let honest: Vec<Vec<u8>> = frames(&bytes).into_iter().map(<[u8]>::to_vec).collect();
        for _ in 0..400 {
            let mut frames: Vec<_> = honest.iter().map(|frame| (stream, frame.clone())).collect();
            let (_, frame) = frames.first_mut().unwrap();
            for _ in 0..1 + random.next() % 3 {
                let at = random.next() as usize % frame.len();
                frame[at] = if random.next().is_multiple_of(2) {
                    random.next() as u8
                } else {
                    frame[at] ^ (1 << (random.next() % 8))
                };
            }
            sign_again(frame);
            compare(&name, &frames);
        }
    }
}

#[test]
fn every_rule_that_is_broken_is_named_and_not_only_the_first() {
    let mut update = fb::StatusUpdateT { status: fb::TaskStatus(100), progress: 2.0, ..Default::default() };
    update.metrics = Some(vec![fb::MetricT { name: None, value: f64::NAN }]);
    let mut frame = forge(|builder, args| {
        (args.version, args.stream, args.sequence, args.timestamp) = (9, 4, 7, 0);
        args.message_type = fb::SchedulerMessage::StatusUpdate;
        args.message = Some(update.pack(builder).as_union_value());
        args.batch = Some(builder.create_vector::<flatbuffers::WIPOffset<fb::Item<'_>>>(&[]));
    });
    let last = frame.len() - 1;
    frame[last] ^= 1;
    let found = examiner().examine(&frame, Some(CONTROL_STREAM));
    let named: Vec<&str> = found.violations.iter().map(|violation| violation.requirement).collect();
    let expected = [
        "open-3",
        "open-6",
        "open-7",
        "open-7",
        "fresh-1",
        "envelope-1",
        "status-1",
        "status-1",
        "metric-2",
        "metric-3",
        "envelope-2",
    ];
    assert_eq!((named, found.is_authentic, found.is_readable), (expected.to_vec(), Some(false), true));
    // What cannot be read has no more to be said of it.
    let garbage = examiner().examine(&noise(100), None);
    assert!(garbage.violations.iter().any(|violation| violation.requirement == "open-4") && !garbage.is_readable);
}

#[test]
fn a_batch_item_is_named_by_its_number() {
    let mut frame = Vec::new();
    sealer(Features::ALL).seal(NOW_MS, &[heartbeat(), status(1)], &mut frame);
    assert_eq!(examiner().examine(&frame, None).violations, []);
    let good = fb::ItemT { message: fb::SchedulerMessageT::Heartbeat(Default::default()) };
    let update = fb::StatusUpdateT { progress: 2.0, ..Default::default() };
    let bad = fb::ItemT { message: fb::SchedulerMessageT::StatusUpdate(Box::new(update)) };
    let frame = forge(|builder, args| {
        let items = [good.pack(builder), bad.pack(builder)];
        args.batch = Some(builder.create_vector(&items));
    });
    let found = examiner().examine(&frame, None).violations;
    assert_eq!(found.iter().map(|it| (it.requirement, it.item)).collect::<Vec<_>>(), [("status-1", Some(1))]);
}
