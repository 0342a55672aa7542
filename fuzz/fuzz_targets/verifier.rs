//! Our verification pass beside flatc's generated verifier, on arbitrary bytes and on honest frames that were changed:
//! what ours accepts, the generated one accepts, and is read to its last field without a panic. What is honest, ours
//! accepts.
#![no_main]

use fleetwire_common::{
    envelope::{
        Features, Sealer,
        keys::{MacKey, Secret},
    },
    fb::{self, verify},
    ids::{AttemptId, JobId, JobKey, TaskId},
    message::{Ack, Message, Status},
    verified::verifier_options,
};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use std::sync::Arc;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Envelope(&'a [u8]),
    Body(&'a [u8]),
    Job(&'a [u8]),
    Fact(&'a [u8]),
    /// An honest frame, and bytes of it that change.
    Changed { metrics: u8, kinds: u8, features: u8, changes: Vec<(u16, u8)> },
}

fn compare_envelope(bytes: &[u8]) -> bool {
    let options = verifier_options(bytes.len());
    let theirs = flatbuffers::size_prefixed_root_with_opts::<fb::MessageEnvelope<'_>>(&options, bytes);
    let ours = verify::envelope(&options, bytes);
    assert!(ours.is_none() || theirs.is_ok(), "accepted what the generated verifier refuses");
    // Debug reads every field.
    ours.is_some_and(|envelope| !format!("{envelope:?}").is_empty())
}

fn compare_body(bytes: &[u8]) -> bool {
    let options = verifier_options(bytes.len());
    let theirs = flatbuffers::root_with_opts::<fb::Body<'_>>(&options, bytes);
    let ours = verify::body(&options, bytes);
    assert!(ours.is_none() || theirs.is_ok(), "accepted what the generated verifier refuses");
    ours.is_some_and(|body| !format!("{body:?}").is_empty())
}

fn compare_job(bytes: &[u8]) -> bool {
    let options = verifier_options(bytes.len());
    let theirs = flatbuffers::root_with_opts::<fb::JobSpec<'_>>(&options, bytes);
    let ours = verify::job_spec(&options, bytes);
    assert!(ours.is_none() || theirs.is_ok(), "accepted what the generated verifier refuses");
    ours.is_some_and(|job| !format!("{job:?}").is_empty())
}

fn compare_fact(bytes: &[u8]) -> bool {
    let options = verifier_options(bytes.len());
    let theirs = flatbuffers::root_with_opts::<fb::FactRecord<'_>>(&options, bytes);
    let ours = verify::fact_record(&options, bytes);
    assert!(ours.is_none() || theirs.is_ok(), "accepted what the generated verifier refuses");
    ours.is_some_and(|fact| !format!("{fact:?}").is_empty())
}

fn honest(metrics: u8, kinds: u8, features: u8) -> Vec<u8> {
    let attempt = AttemptId { task: TaskId { job: JobId(7), entry: 0, index: u32::from(kinds) }, attempt: 1 };
    let metrics = (0..metrics % 65).map(|n| (Arc::from(format!("loss_{n}")), f64::from(n))).collect();
    let status = fb::TaskStatus::Running;
    let update = Status { attempt, status, progress: 0.5, note: "a note".into(), metrics, end: None, job_key: JobKey(7) };
    let log = fb::LogChunkT { data: Some(vec![kinds; 40]), task_id: Some("7.0.1".into()), ..Default::default() };
    let all = [
        Message::Status(update),
        Message::Ack(Ack::Final(attempt)),
        Message::Acceptance(attempt),
        Message::Rare(fb::SchedulerMessageT::LogChunk(Box::new(log))),
    ];
    let chosen: Vec<Message> = (0..4).filter(|n| kinds == 0 || kinds >> n & 1 == 1).map(|n| all[n].clone()).collect();
    let first = if chosen.is_empty() { &all[..1] } else { &chosen[..] };
    let key = MacKey::new(&Secret::new([7; 32]));
    let mut frame = Vec::new();
    Sealer::new(key, 1, Features(u64::from(features & 0b1111))).seal(1_700_000_000_000, first, &mut frame);
    frame
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Envelope(bytes) => drop(compare_envelope(bytes)),
        Input::Body(bytes) => drop(compare_body(bytes)),
        Input::Job(bytes) => drop(compare_job(bytes)),
        Input::Fact(bytes) => drop(compare_fact(bytes)),
        Input::Changed { metrics, kinds, features, changes } => {
            let mut frame = honest(metrics, kinds, features);
            assert!(compare_envelope(&frame), "an honest frame is asked about twice");
            for (at, value) in changes {
                let length = frame.len();
                frame[usize::from(at) % length] = value;
                compare_envelope(&frame);
            }
        }
    }
});
