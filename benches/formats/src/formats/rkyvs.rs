//! rkyv, validated (bytecheck) and read in place at any address (`unaligned`), as frames lie in a receive buffer. It
//! serialises straight into the frame, with an arena that is used again.

use crate::{
    Format, Refused,
    framing::{Compression, Framing, Header, Order},
    sample::{self, Kind, Sample, metric_name},
    visit::Visit,
};
use rkyv::{Archive, Serialize, access, api::low, rancor::Error, ser::allocator::Arena};
use std::{hint::black_box, mem};

#[derive(Archive, Serialize)]
struct Envelope {
    version: u16,
    timestamp: u64,
    stream: u32,
    sequence: u64,
    message: Message,
}

#[derive(Archive, Serialize)]
enum Message {
    Status(Status),
    Numbers(Numbers),
    Assignment(Assignment),
    Log(Log),
}

#[derive(Archive, Serialize)]
struct Metric {
    name: String,
    value: f64,
}

#[derive(Archive, Serialize)]
struct Status {
    task_id: String,
    attempt: u32,
    status: u8,
    progress: f32,
    metrics: Vec<Metric>,
}

#[derive(Archive, Serialize)]
struct Numbers {
    task_id: String,
    attempt: u32,
    status: u8,
    progress: f32,
    metric_ids: Vec<u16>,
    metric_values: Vec<f64>,
}

#[derive(Archive, Serialize)]
struct KeyValue {
    key: String,
    value: String,
}

#[derive(Archive, Serialize)]
struct Assignment {
    task_id: String,
    attempt: u32,
    agent_type: u8,
    cpu: u32,
    memory: u32,
    gpu: u32,
    storage: u32,
    storage_backend: u8,
    timeout: u64,
    incarnation: u64,
    command: String,
    arguments: Vec<String>,
    environment: Vec<KeyValue>,
    parameters: String,
    priority: i8,
    position: u64,
    mac: [u8; 16],
    kill_grace_ms: u32,
    result_path: String,
    job_key: u64,
}

#[derive(Archive, Serialize)]
struct Log {
    request: u64,
    task_id: String,
    attempt: u32,
    stream: u8,
    offset: u64,
    data: Vec<u8>,
    size: u64,
}

/// rkyv with LZ4.
pub struct Rkyv {
    envelope: Envelope,
    arena: Arena,
    framing: Framing,
    order: Order,
}

impl Format for Rkyv {
    fn new(sample: &'static Sample) -> Self {
        let envelope = Envelope { version: 0, timestamp: 0, stream: 0, sequence: 0, message: message(sample) };
        Rkyv { envelope, arena: Arena::new(), framing: Framing::new(Compression::Lz4), order: Order::default() }
    }

    fn seal(&mut self, out: &mut Vec<u8>) {
        let Header { version, timestamp, stream, sequence } = self.order.next();
        (self.envelope.version, self.envelope.timestamp) = (version, timestamp);
        (self.envelope.stream, self.envelope.sequence) = (stream, sequence);
        let (envelope, arena) = (black_box(&self.envelope), &mut self.arena);
        self.framing.seal(out, |out| {
            *out = low::to_bytes_in_with_alloc::<_, _, Error>(envelope, mem::take(out), arena.acquire()).unwrap();
        });
    }

    fn open<V: Visit>(&mut self, frame: &[u8], visitor: &mut V) -> Result<(), Refused> {
        let bytes = self.framing.open(frame)?;
        let envelope = black_box(access::<ArchivedEnvelope, Error>(bytes).map_err(Refused::malformed)?);
        let (version, timestamp) = (envelope.version.to_native(), envelope.timestamp.to_native());
        let (stream, sequence) = (envelope.stream.to_native(), envelope.sequence.to_native());
        self.order.check(Header { version, timestamp, stream, sequence })?;
        if V::READS { show(&envelope.message, visitor).ok_or(Refused::Order) } else { Ok(()) }
    }
}

fn message(sample: &Sample) -> Message {
    let task_id = sample::TASK_ID.into();
    let (attempt, status, progress) = (sample::ATTEMPT, sample::STATUS, sample::PROGRESS);
    let pair = |(key, value): (&str, &str)| KeyValue { key: key.into(), value: value.into() };
    match sample.kind {
        Kind::Status => {
            let metric = |(name, value): &(String, f64)| Metric { name: name.clone(), value: *value };
            let metrics = sample.metrics.iter().map(metric).collect();
            Message::Status(Status { task_id, attempt, status, progress, metrics })
        }
        Kind::Numbers => {
            let metric_ids = (0..sample.metrics.len() as u16).collect();
            let metric_values = sample.metrics.iter().map(|(_, value)| *value).collect();
            Message::Numbers(Numbers { task_id, attempt, status, progress, metric_ids, metric_values })
        }
        Kind::Assignment | Kind::Text => Message::Assignment(Assignment {
            task_id,
            attempt,
            agent_type: sample::AGENT_TYPE,
            cpu: sample::CPU,
            memory: sample::MEMORY,
            gpu: sample::GPU,
            storage: sample::STORAGE,
            storage_backend: sample::STORAGE_BACKEND,
            timeout: sample::TIMEOUT_S,
            incarnation: sample::INCARNATION,
            command: sample::COMMAND.into(),
            arguments: sample::ARGUMENTS.map(String::from).into(),
            environment: sample::ENVIRONMENT.map(pair).into(),
            parameters: sample.parameters.clone(),
            priority: sample::PRIORITY,
            position: sample::POSITION,
            mac: sample::MAC,
            kill_grace_ms: sample::KILL_GRACE_MS,
            result_path: sample::RESULT_PATH.into(),
            job_key: sample::JOB_KEY,
        }),
        Kind::Bytes => Message::Log(Log {
            request: sample::REQUEST,
            task_id,
            attempt,
            stream: sample::LOG_STREAM,
            offset: sample::OFFSET,
            data: sample.data.clone(),
            size: sample::SIZE,
        }),
    }
}

fn show(message: &ArchivedMessage, visitor: &mut impl Visit) -> Option<()> {
    match message {
        ArchivedMessage::Status(status) => {
            visitor.text(&status.task_id);
            visitor.number(status.attempt.to_native().into());
            visitor.number(status.status.into());
            visitor.float(status.progress.to_native().into());
            for metric in status.metrics.iter() {
                visitor.text(&metric.name);
                visitor.float(metric.value.to_native());
            }
        }
        ArchivedMessage::Numbers(status) => {
            visitor.text(&status.task_id);
            visitor.number(status.attempt.to_native().into());
            visitor.number(status.status.into());
            visitor.float(status.progress.to_native().into());
            for (number, value) in status.metric_ids.iter().zip(status.metric_values.iter()) {
                visitor.text(metric_name(number.to_native())?);
                visitor.float(value.to_native());
            }
        }
        ArchivedMessage::Assignment(task) => show_assignment(task, visitor),
        ArchivedMessage::Log(log) => {
            visitor.number(log.request.to_native());
            visitor.text(&log.task_id);
            visitor.number(log.attempt.to_native().into());
            visitor.number(log.stream.into());
            visitor.number(log.offset.to_native());
            visitor.bytes(&log.data);
            visitor.number(log.size.to_native());
        }
    }
    Some(())
}

fn show_assignment(task: &ArchivedAssignment, visitor: &mut impl Visit) {
    visitor.text(&task.task_id);
    visitor.number(task.attempt.to_native().into());
    visitor.number(task.agent_type.into());
    for number in [task.cpu, task.memory, task.gpu, task.storage] {
        visitor.number(number.to_native().into());
    }
    visitor.number(task.storage_backend.into());
    visitor.number(task.timeout.to_native());
    visitor.number(task.incarnation.to_native());
    visitor.text(&task.command);
    task.arguments.iter().for_each(|argument| visitor.text(argument));
    for pair in task.environment.iter() {
        visitor.text(&pair.key);
        visitor.text(&pair.value);
    }
    visitor.text(&task.parameters);
    visitor.number(task.priority as u64);
    visitor.number(task.position.to_native());
    visitor.bytes(&task.mac);
    visitor.number(task.kill_grace_ms.to_native().into());
    visitor.text(&task.result_path);
    visitor.number(task.job_key.to_native());
}
