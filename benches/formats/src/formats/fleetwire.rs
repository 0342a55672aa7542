//! Fleetwire's own envelope, by its public interface, with everything that both peers of a session know: LZ4 and numbers for
//! metric names, which the first frame of a session defines. `NamesAsText` is what a session does without those numbers.

use crate::{
    Format, Refused,
    framing::{KEY_ID, NOW_MS, key},
    sample::{self, Kind, Sample},
    visit::Visit,
};
use fleetwire_common::{
    envelope::{CONTROL_STREAM, Features, Opener, Sealer},
    fb,
    ids::{AttemptId, JobId, JobKey, TaskId},
    job::TaskSpec,
    limits::STALE_AFTER_MS,
    message::{Assignment, Message, MessageRef, Status},
    resources::Resources,
};
use std::{hint::black_box, sync::Arc};

/// As sessions do it.
pub type Fleetwire = With<true>;
/// Without numbers for metric names.
pub type NamesAsText = With<false>;

/// With numbers for metric names, or without.
pub struct With<const NUMBERS: bool> {
    message: [Message; 1],
    sealer: Sealer,
    opener: Opener,
}

impl<const NUMBERS: bool> Format for With<NUMBERS> {
    fn has(kind: Kind) -> bool {
        NUMBERS || kind == Kind::Status
    }

    fn new(sample: &'static Sample) -> Self {
        let features = if NUMBERS { Features::ALL } else { Features(Features::ALL.0 & !Features::INTERNED_METRICS.0) };
        let sealer = Sealer::new(key(), KEY_ID, features);
        With { message: [message(sample)], sealer, opener: Opener::new(key(), KEY_ID) }
    }

    fn seal(&mut self, out: &mut Vec<u8>) {
        assert_eq!(self.sealer.seal(NOW_MS, black_box(&self.message), out), 1);
    }

    fn open<V: Visit>(&mut self, frame: &[u8], visitor: &mut V) -> Result<(), Refused> {
        let opened = self.opener.open(frame, CONTROL_STREAM, NOW_MS, STALE_AFTER_MS).map_err(Refused::malformed)?;
        let message = black_box(opened.message()).ok_or(Refused::Order)?;
        if V::READS { show(message, visitor).ok_or(Refused::Order) } else { Ok(()) }
    }
}

fn message(sample: &Sample) -> Message {
    let attempt = AttemptId { task: TaskId { job: JobId(7), entry: 0, index: 42 }, attempt: sample::ATTEMPT };
    match sample.kind {
        Kind::Status | Kind::Numbers => Message::Status(Status {
            attempt,
            status: fb::TaskStatus(sample::STATUS as i8),
            progress: sample::PROGRESS,
            note: String::new(),
            metrics: sample.metrics.iter().map(|(name, value)| (Arc::from(&**name), *value)).collect(),
            end: None,
            job_key: JobKey(0),
        }),
        Kind::Assignment | Kind::Text => Message::Assignment(Assignment {
            attempt,
            spec: Arc::new(spec(sample)),
            receipt: fb::Receipt::new(sample::INCARNATION, sample::POSITION, &sample::MAC),
            deadline_ms: 0,
            stop_on_disconnect_after_ms: 0,
            job_key: JobKey(sample::JOB_KEY),
        }),
        Kind::Bytes => Message::Rare(fb::SchedulerMessageT::LogChunk(Box::new(fb::LogChunkT {
            request: sample::REQUEST,
            task_id: Some(sample::TASK_ID.into()),
            attempt: sample::ATTEMPT,
            stream: fb::LogStream(sample::LOG_STREAM),
            offset: sample::OFFSET,
            data: Some(sample.data.clone()),
            size: sample::SIZE,
            ..Default::default()
        }))),
    }
}

fn spec(sample: &Sample) -> TaskSpec {
    let pair = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    TaskSpec {
        agent_type: Some(fb::AgentType(sample::AGENT_TYPE as i8)),
        resources: Resources { cpu: sample::CPU, memory: sample::MEMORY, gpu: sample::GPU, storage: sample::STORAGE },
        storage_backend: fb::StorageType(sample::STORAGE_BACKEND as i8),
        command: sample::COMMAND.into(),
        arguments: sample::ARGUMENTS.map(String::from).into(),
        environment: sample::ENVIRONMENT.map(pair).into(),
        parameters: sample.parameters.clone(),
        priority: sample::PRIORITY,
        timeout_s: sample::TIMEOUT_S,
        kill_grace_ms: sample::KILL_GRACE_MS,
        result_path: sample::RESULT_PATH.into(),
        ..TaskSpec::default()
    }
}

fn show(message: MessageRef<'_>, visitor: &mut impl Visit) -> Option<()> {
    match message {
        MessageRef::StatusUpdate(status) => {
            visitor.text(status.update.task_id()?);
            visitor.number(status.update.attempt().into());
            visitor.number(status.update.status().0 as u64);
            visitor.float(status.update.progress().into());
            for (name, value) in status.metrics() {
                visitor.text(name);
                visitor.float(value);
            }
        }
        MessageRef::TaskAssignment(task) => show_assignment(task, visitor)?,
        MessageRef::LogChunk(log) => {
            visitor.number(log.request());
            visitor.text(log.task_id()?);
            visitor.number(log.attempt().into());
            visitor.number(log.stream().0.into());
            visitor.number(log.offset());
            visitor.bytes(log.data()?.bytes());
            visitor.number(log.size());
        }
        _ => return None,
    }
    Some(())
}

fn show_assignment(task: fb::TaskAssignment<'_>, visitor: &mut impl Visit) -> Option<()> {
    visitor.text(task.task_id()?);
    visitor.number(task.attempt().into());
    visitor.number(task.agent_type().0 as u64);
    let resources = task.resources()?;
    for number in [resources.cpu(), resources.memory(), resources.gpu(), resources.storage()] {
        visitor.number(number.into());
    }
    visitor.number(task.storage_backend().0 as u64);
    visitor.number(task.timeout());
    visitor.number(task.incarnation());
    visitor.text(task.command()?);
    for argument in task.arguments()? {
        visitor.text(argument);
    }
    for pair in task.environment()? {
        visitor.text(pair.key()?);
        visitor.text(pair.value()?);
    }
    visitor.text(task.parameters()?);
    visitor.number(task.priority() as u64);
    let receipt = task.receipt()?;
    visitor.number(receipt.position());
    visitor.bytes(&receipt.0[16..]);
    visitor.number(task.kill_grace_ms().into());
    visitor.text(task.result_path()?);
    visitor.number(task.job_key());
    Some(())
}
