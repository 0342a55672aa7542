//! A fact of every kind, and a job, every field filled.

use super::{Builder, samples};
use fleetwire_common::fb::{self, FactBodyT as F, SchedulerMessageT as M};

/// Facts of every kind, each whole.
pub fn all() -> Vec<Vec<u8>> {
    bodies().into_iter().map(|fact| packed(&fb::FactRecordT { at: 1_700_000_000_000_000, fact })).collect()
}

/// A job with a task that has everything, and one that has nothing.
pub fn job() -> Vec<u8> {
    let task = fb::TaskSpecT {
        name: text("train"),
        count: 3,
        array: true,
        resources: Some(Box::new(fb::ResourceSpecT { cpu: 500, memory: 64, gpu: 1, storage: 2, custom: custom() })),
        command: text("/bin/sh"),
        arguments: Some(vec!["-c".into(), "true".into()]),
        environment: Some(vec![fb::KeyValueT { key: text("HOME"), value: text("/") }]),
        parameters: text("{}"),
        files: Some(vec![fb::FileT { path: text("a"), data: Some(b"bytes".to_vec()), executable: true }]),
        constraints: Some(vec![fb::ConstraintT {
            label: text("zone"),
            values: Some(vec!["eu".into()]),
            ..Default::default()
        }]),
        result_path: text("out.json"),
        ..Default::default()
    };
    let job = fb::JobSpecT {
        name: text("a job"),
        tasks: Some(vec![task, fb::TaskSpecT::default()]),
        lost_after: 60_000_000,
        stop_on_disconnect_after_ms: 5_000,
        retry_lost: true,
        keep: fb::Keep::Replacement,
        exclusive: true,
        stop_after_failures: 3,
        deadline_ms: 9,
        ..Default::default()
    };
    let mut builder = Builder::new();
    let root = job.pack(&mut builder);
    builder.finish_minimal(root);
    builder.finished_data().to_vec()
}

fn packed(record: &fb::FactRecordT) -> Vec<u8> {
    let mut builder = Builder::new();
    let root = record.pack(&mut builder);
    builder.finish_minimal(root);
    builder.finished_data().to_vec()
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn id() -> Option<Vec<u8>> {
    Some(vec![0xcd; 16])
}

fn key() -> Option<Vec<u8>> {
    Some(vec![0xef; 32])
}

fn blob() -> fb::BlobT {
    fb::Blob::new(1 << 24, (1 << 24) + 64, 0x1234_5678_9abc_def0, 4096).unpack()
}

fn files() -> Option<Vec<fb::FileKeptT>> {
    Some(vec![fb::FileKeptT { blob: blob(), entry: 1, file: 2 }; 2])
}

fn metrics() -> Option<Vec<fb::MetricT>> {
    Some(vec![fb::MetricT { name: text("loss"), value: 0.25 }])
}

fn sample<T>(choose: impl Fn(M) -> Option<T>) -> T {
    samples::all().into_iter().find_map(|(_, message)| choose(message)).unwrap()
}

fn assignment() -> Box<fb::TaskAssignmentT> {
    sample(|message| if let M::TaskAssignment(assignment) = message { Some(assignment) } else { None })
}

fn update() -> Box<fb::StatusUpdateT> {
    sample(|message| if let M::StatusUpdate(update) = message { Some(update) } else { None })
}

fn bodies() -> Vec<F> {
    let restored = fb::BackupRestoredT { incarnation: 3, id: id(), position: 99, agent: text("edge-7"), last_job: 12 };
    let indices = Some(Box::new(fb::IndicesT { length: 70, words: Some(vec![u64::MAX, 3]) }));
    let entry = fb::EntryKeptT {
        unstarted: Some(vec![0, 4, 9, 12]),
        completed: indices.clone(),
        failed: indices.clone(),
        cancelled: indices.clone(),
        skipped: indices,
        ended_at: 1_700_000_000_000_000,
    };
    let end = fb::EndKeptT {
        attempt: 2,
        latest: 3,
        agent: 4,
        status: fb::TaskStatus::Failed,
        end: update().end,
        metrics: metrics(),
        result: Some(blob()),
        ..Default::default()
    };
    vec![
        F::IncarnationStarted(Box::new(fb::IncarnationStartedT {
            incarnation: 3,
            id: id(),
            software: text("0.1.0"),
            position: 77,
        })),
        F::TokenIssued(Box::new(fb::TokenIssuedT { token: 1, uses: 2, issued_by: text("root"), ..Default::default() })),
        F::PrincipalEnrolled(Box::new(fb::PrincipalEnrolledT {
            role: fb::Role::Agent,
            name: text("edge-7"),
            key: key(),
            token: 1,
        })),
        F::AgentRegistered(Box::new(fb::AgentRegisteredT {
            agent: 7,
            name: text("edge-7"),
            capacity: Some(Box::new(fb::ResourceSpecT {
                cpu: 4_000,
                memory: 1_024,
                gpu: 0,
                storage: 8,
                custom: custom(),
            })),
            labels: Some(vec![fb::KeyValueT { key: text("zone"), value: text("roof") }]),
            agent_types: Some(vec![fb::AgentType::Crawler]),
            executors: Some(vec![fb::Executor::Process]),
            data_id: id(),
            software: text("0.1.0"),
            host: text("pi"),
            address: text("pi.local"),
        })),
        F::AgentUnreachable(Box::new(fb::AgentUnreachableT { agent: 7 })),
        F::AgentReturned(Box::new(fb::AgentReturnedT { agent: 7 })),
        F::AgentDeregistered(Box::new(fb::AgentDeregisteredT { agent: 7 })),
        F::JobAccepted(Box::new(fb::JobAcceptedT {
            job: 9,
            submit_id: id(),
            digest: key(),
            owner: text("ops"),
            spec: Some(job()),
            files: files(),
        })),
        F::AttemptAssigned(Box::new(fb::AttemptAssignedT { job: 9, entry: 1, index: 2, attempt: 3, agent: 7 })),
        F::AttemptEnded(Box::new(fb::AttemptEndedT {
            job: 9,
            attempt: 3,
            status: fb::TaskStatus::Completed,
            loss: true,
            end: update().end,
            metrics: metrics(),
            result: Some(blob()),
            ..Default::default()
        })),
        F::TasksEnded(Box::new(fb::TasksEndedT { job: 9, from: 3, to: 8, ..Default::default() })),
        F::CancelRequested(Box::new(fb::CancelRequestedT {
            job: 9,
            all: false,
            entry: 1,
            index: 2,
            ..Default::default()
        })),
        F::DataCreated(Box::new(fb::DataCreatedT { id: id(), receipt: assignment().receipt, incarnation_id: id() })),
        F::AssignmentKept(Box::new(fb::AssignmentKeptT {
            assignment: Some(assignment()),
            waits: true,
            incarnation_id: id(),
        })),
        F::ResultKept(Box::new(fb::ResultKeptT { update: Some(update()) })),
        F::AttemptSettled(Box::new(fb::AttemptSettledT { task_id: text("9.1.2"), attempt: 3 })),
        F::JobForgotten(Box::new(fb::JobForgottenT { job: 9 })),
        F::SnapshotBegun(Box::new(fb::SnapshotBegunT {
            incarnation: 3,
            id: id(),
            metric_names: Some(vec!["loss".into(), "lr".into()]),
            incarnations: Some(vec![fb::IncarnationKeptT { incarnation: 1, id: id(), position: 1 }]),
            restored: Some(Box::new(restored.clone())),
            ..Default::default()
        })),
        F::TokenKept(Box::new(fb::TokenKeptT {
            token: 1,
            redeemed: Some(vec![fb::TokenUseT { role: fb::Role::Operator, name: text("ops"), key: key() }]),
            ..Default::default()
        })),
        F::SubmitKept(Box::new(fb::SubmitKeptT { submit_id: id(), digest: key(), job: 9 })),
        F::JobKept(Box::new(fb::JobKeptT {
            job: 9,
            owner: text("ops"),
            spec: Some(job()),
            entries: Some(vec![entry; 2]),
            files: files(),
            key: 5,
            ..Default::default()
        })),
        F::TaskKept(Box::new(fb::TaskKeptT { job: 9, attempts: 3, last: Some(Box::new(end)), ..Default::default() })),
        F::AttemptStarted(Box::new(fb::AttemptStartedT { task_id: text("9.1.2"), attempt: 3 })),
        F::BackupRestored(Box::new(restored)),
        F::RestoreAccepted(Box::new(fb::RestoreAcceptedT { incarnation: 3 })),
        F::AgentForgotten(Box::new(fb::AgentForgottenT { agent: 7 })),
        F::AgentChanged(Box::new(fb::AgentChangedT {
            agent: 7,
            action: fb::AgentAction::Drain,
            stop_at: 8,
            reason: text("a new disk"),
            by: text("operator/local"),
        })),
        F::PolicySet(Box::new(fb::PolicySetT {
            policy: Some(Box::new(super::samples::cluster_policy())),
            by: text("operator/local"),
        })),
        F::ScheduleSet(Box::new(fb::ScheduleSetT {
            schedule: Some(Box::new(super::samples::schedule())),
            by: text("operator/local"),
        })),
        F::ScheduleChanged(Box::new(fb::ScheduleChangedT { name: text("night"), action: fb::ScheduleAction::Resume })),
        F::ScheduleHeeded(Box::new(fb::ScheduleHeededT {
            name: text("night"),
            moment: 1_800_000_000_000,
            job: 9,
            why: text("job 8 had not ended"),
        })),
        F::ScheduleKept(Box::new(fb::ScheduleKeptT {
            name: text("night"),
            paused: true,
            since: 5,
            last_at: 4,
            last_job: 9,
            why: text("job 8 had not ended"),
            runs: 2,
            left_out: 1,
        })),
    ]
}

fn custom() -> Option<Vec<fb::CustomResourceT>> {
    Some(vec![fb::CustomResourceT { name: text("fpga"), amount: 2 }])
}
