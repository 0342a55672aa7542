//! The journal of an agent that has worked for long.
#![allow(clippy::unwrap_used)]

use super::*;
use fleetwire_agent_core::{Config, Effects, Fact, Kept};
use fleetwire_common::{
    fb,
    ids::{AttemptId, JobId, Name, TaskId},
    message::{End, Status},
    resources::Resources,
    time::Time,
};
use std::borrow::Cow;

fn agent() -> Agent {
    Agent::new(Config {
        name: Name::new("pi").unwrap(),
        capacity: Resources::ZERO,
        custom: Default::default(),
        labels: Vec::new(),
        agent_types: Vec::new(),
        executors: Vec::new(),
        data_id: [1; 16],
        address: String::new(),
        software: String::new(),
        host: String::new(),
        heartbeat_interval: std::time::Duration::from_secs(30),
    })
}

/// The facts of one small task: kept, ended, and settled if the scheduler took it.
fn task(index: u32, settled: bool, facts: &mut FactBatch) {
    let attempt = AttemptId { task: TaskId { job: JobId(1), entry: 0, index }, attempt: 1 };
    let kept = Kept {
        attempt,
        resources: Resources::ZERO,
        custom: Default::default(),
        executor: fb::Executor::Process,
        kill_grace_ms: 0,
        deadline_ms: 0,
        stop_on_disconnect_after_ms: 0,
        receipt: Some(fb::Receipt::new(1, index.into(), &[1; 16])),
        incarnation_id: (index == 0).then_some([2; 16]),
        waits: false,
        spec: None,
        job_key: Default::default(),
    };
    let status = Status {
        attempt,
        status: fb::TaskStatus::Completed,
        progress: 1.0,
        note: String::new(),
        metrics: Vec::new(),
        end: Some(Box::new(End { result: Some(vec![7; 200]), ..End::default() })),
        job_key: Default::default(),
    };
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let mut push = |fact: Fact<'_>| facts.push(fact.encode(Time(1), &mut builder));
    push(Fact::AssignmentKept(kept));
    push(Fact::ResultKept(Cow::Owned(status)));
    if settled {
        push(Fact::AttemptSettled(attempt));
    }
}

#[tokio::test]
async fn the_journal_starts_over_and_takes_a_few_mebibytes_whatever_was_written() {
    let place = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(place.path(), 1).unwrap();
    let on_disk = || {
        let files = std::fs::read_dir(place.path().join(JOURNAL)).unwrap();
        // One that was removed in this moment takes nothing.
        files.filter_map(|file| file.unwrap().metadata().ok()).map(|file| file.len()).sum::<u64>()
    };
    let (mut index, mut written) = (0, 0_u64);
    for round in 0..4 {
        let mut agent = agent();
        let mut log = FactLog::open(&folder, &mut agent, [9; 16]).unwrap();
        assert_eq!(agent.state().attempts().len(), round * 2, "what was not settled is there, and nothing else");
        let mut effects = Effects::new();
        agent.start(Time(1), &mut effects);
        let mut facts = effects.facts;
        // The first fact of all was counted by the agent already.
        let mut position = Position(agent.position().0 - u64::from(facts.count()));
        let until = std::time::Instant::now() + PATIENCE;
        for batch in 0.. {
            for _ in 0..20 {
                task(index, !(batch == 7 && index % 10 == 0), &mut facts);
                index += 1;
            }
            written += facts.bytes().len() as u64;
            position = Position(position.0 + u64::from(facts.count()));
            log.append(&mut facts).unwrap();
            while log.durable().unwrap() < position {
                log.moved().await;
            }
            // While it is made, what is written meanwhile comes on top, on a fast disk more than its pace takes
            // away; as soon as less is written, all of that is gone.
            if batch >= 250 {
                if on_disk() < JOURNAL_BYTES_MAX {
                    break;
                }
                tokio::time::sleep(BREATH).await;
            }
            assert!(std::time::Instant::now() < until, "{} bytes are on the disk after {written}", on_disk());
        }
        log.stop().unwrap();
    }
    assert!(written > 8 << 20, "{written}");
}

const JOURNAL_BYTES_MAX: u64 = 6 << 20;
const BREATH: std::time::Duration = std::time::Duration::from_millis(5);
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
