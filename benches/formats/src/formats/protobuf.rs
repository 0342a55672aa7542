//! Protocol Buffers by prost. The types are what protoc would generate, written by hand; the message to be sealed is built
//! beforehand, which spares its strings the copies that most users make.

use crate::{
    Format, Refused,
    framing::{Compression, Framing, Header, Order},
    sample::{self, Kind, Sample, metric_name},
    visit::Visit,
};
use prost::Message;
use std::hint::black_box;

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    timestamp: u64,
    #[prost(uint32, tag = "3")]
    stream: u32,
    #[prost(uint64, tag = "4")]
    sequence: u64,
    #[prost(oneof = "Body", tags = "5, 6, 7, 8")]
    body: Option<Body>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Body {
    #[prost(message, tag = "5")]
    Status(Status),
    #[prost(message, tag = "6")]
    Numbers(Numbers),
    #[prost(message, tag = "7")]
    Assignment(Assignment),
    #[prost(message, tag = "8")]
    Log(Log),
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(double, tag = "2")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "1")]
    task_id: String,
    #[prost(uint32, tag = "2")]
    attempt: u32,
    #[prost(uint32, tag = "3")]
    status: u32,
    #[prost(float, tag = "4")]
    progress: f32,
    #[prost(message, repeated, tag = "5")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Numbers {
    #[prost(string, tag = "1")]
    task_id: String,
    #[prost(uint32, tag = "2")]
    attempt: u32,
    #[prost(uint32, tag = "3")]
    status: u32,
    #[prost(float, tag = "4")]
    progress: f32,
    #[prost(uint32, repeated, tag = "5")]
    metric_ids: Vec<u32>,
    #[prost(double, repeated, tag = "6")]
    metric_values: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Assignment {
    #[prost(string, tag = "1")]
    task_id: String,
    #[prost(uint32, tag = "2")]
    attempt: u32,
    #[prost(uint32, tag = "3")]
    agent_type: u32,
    #[prost(uint32, tag = "4")]
    cpu: u32,
    #[prost(uint32, tag = "5")]
    memory: u32,
    #[prost(uint32, tag = "6")]
    gpu: u32,
    #[prost(uint32, tag = "7")]
    storage: u32,
    #[prost(uint32, tag = "8")]
    storage_backend: u32,
    #[prost(uint64, tag = "9")]
    timeout: u64,
    #[prost(uint64, tag = "10")]
    incarnation: u64,
    #[prost(string, tag = "11")]
    command: String,
    #[prost(string, repeated, tag = "12")]
    arguments: Vec<String>,
    #[prost(message, repeated, tag = "13")]
    environment: Vec<KeyValue>,
    #[prost(string, tag = "14")]
    parameters: String,
    #[prost(sint32, tag = "15")]
    priority: i32,
    #[prost(uint64, tag = "16")]
    position: u64,
    #[prost(bytes = "vec", tag = "17")]
    mac: Vec<u8>,
    #[prost(uint32, tag = "18")]
    kill_grace_ms: u32,
    #[prost(string, tag = "19")]
    result_path: String,
    #[prost(fixed64, tag = "20")]
    job_key: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Log {
    #[prost(uint64, tag = "1")]
    request: u64,
    #[prost(string, tag = "2")]
    task_id: String,
    #[prost(uint32, tag = "3")]
    attempt: u32,
    #[prost(uint32, tag = "4")]
    stream: u32,
    #[prost(uint64, tag = "5")]
    offset: u64,
    #[prost(bytes = "vec", tag = "6")]
    data: Vec<u8>,
    #[prost(uint64, tag = "7")]
    size: u64,
}

/// prost with LZ4.
pub struct Protobuf {
    envelope: Envelope,
    framing: Framing,
    order: Order,
}

impl Format for Protobuf {
    fn new(sample: &'static Sample) -> Self {
        let envelope = Envelope { body: Some(body(sample)), ..Envelope::default() };
        Protobuf { envelope, framing: Framing::new(Compression::Lz4), order: Order::default() }
    }

    fn seal(&mut self, out: &mut Vec<u8>) {
        let Header { version, timestamp, stream, sequence } = self.order.next();
        (self.envelope.version, self.envelope.timestamp) = (version.into(), timestamp);
        (self.envelope.stream, self.envelope.sequence) = (stream, sequence);
        let envelope = black_box(&self.envelope);
        self.framing.seal(out, |out| envelope.encode(out).unwrap());
    }

    fn open<V: Visit>(&mut self, frame: &[u8], visitor: &mut V) -> Result<(), Refused> {
        let envelope = black_box(Envelope::decode(self.framing.open(frame)?)).map_err(Refused::malformed)?;
        let version = u16::try_from(envelope.version).map_err(Refused::malformed)?;
        let Envelope { timestamp, stream, sequence, .. } = envelope;
        self.order.check(Header { version, timestamp, stream, sequence })?;
        let body = envelope.body.as_ref().ok_or(Refused::Order)?;
        if V::READS { show(body, visitor).ok_or(Refused::Order) } else { Ok(()) }
    }
}

fn body(sample: &Sample) -> Body {
    let task_id = sample::TASK_ID.into();
    let (attempt, status, progress) = (sample::ATTEMPT, sample::STATUS.into(), sample::PROGRESS);
    let pair = |(key, value): (&str, &str)| KeyValue { key: key.into(), value: value.into() };
    match sample.kind {
        Kind::Status => {
            let metric = |(name, value): &(String, f64)| Metric { name: name.clone(), value: *value };
            Body::Status(Status {
                task_id,
                attempt,
                status,
                progress,
                metrics: sample.metrics.iter().map(metric).collect(),
            })
        }
        Kind::Numbers => Body::Numbers(Numbers {
            task_id,
            attempt,
            status,
            progress,
            metric_ids: (0..sample.metrics.len() as u32).collect(),
            metric_values: sample.metrics.iter().map(|(_, value)| *value).collect(),
        }),
        Kind::Assignment | Kind::Text => Body::Assignment(Assignment {
            task_id,
            attempt,
            agent_type: sample::AGENT_TYPE.into(),
            cpu: sample::CPU,
            memory: sample::MEMORY,
            gpu: sample::GPU,
            storage: sample::STORAGE,
            storage_backend: sample::STORAGE_BACKEND.into(),
            timeout: sample::TIMEOUT_S,
            incarnation: sample::INCARNATION,
            command: sample::COMMAND.into(),
            arguments: sample::ARGUMENTS.map(String::from).into(),
            environment: sample::ENVIRONMENT.map(pair).into(),
            parameters: sample.parameters.clone(),
            priority: sample::PRIORITY.into(),
            position: sample::POSITION,
            mac: sample::MAC.into(),
            kill_grace_ms: sample::KILL_GRACE_MS,
            result_path: sample::RESULT_PATH.into(),
            job_key: sample::JOB_KEY,
        }),
        Kind::Bytes => Body::Log(Log {
            request: sample::REQUEST,
            task_id,
            attempt,
            stream: sample::LOG_STREAM.into(),
            offset: sample::OFFSET,
            data: sample.data.clone(),
            size: sample::SIZE,
        }),
    }
}

fn show(body: &Body, visitor: &mut impl Visit) -> Option<()> {
    match body {
        Body::Status(status) => {
            visitor.text(&status.task_id);
            visitor.number(status.attempt.into());
            visitor.number(status.status.into());
            visitor.float(status.progress.into());
            for metric in &status.metrics {
                visitor.text(&metric.name);
                visitor.float(metric.value);
            }
        }
        Body::Numbers(status) => {
            visitor.text(&status.task_id);
            visitor.number(status.attempt.into());
            visitor.number(status.status.into());
            visitor.float(status.progress.into());
            for (number, value) in status.metric_ids.iter().zip(&status.metric_values) {
                visitor.text(metric_name(u16::try_from(*number).ok()?)?);
                visitor.float(*value);
            }
        }
        Body::Assignment(task) => show_assignment(task, visitor),
        Body::Log(log) => {
            visitor.number(log.request);
            visitor.text(&log.task_id);
            visitor.number(log.attempt.into());
            visitor.number(log.stream.into());
            visitor.number(log.offset);
            visitor.bytes(&log.data);
            visitor.number(log.size);
        }
    }
    Some(())
}

fn show_assignment(task: &Assignment, visitor: &mut impl Visit) {
    visitor.text(&task.task_id);
    visitor.number(task.attempt.into());
    visitor.number(task.agent_type.into());
    for number in [task.cpu, task.memory, task.gpu, task.storage, task.storage_backend] {
        visitor.number(number.into());
    }
    visitor.number(task.timeout);
    visitor.number(task.incarnation);
    visitor.text(&task.command);
    task.arguments.iter().for_each(|argument| visitor.text(argument));
    for pair in &task.environment {
        visitor.text(&pair.key);
        visitor.text(&pair.value);
    }
    visitor.text(&task.parameters);
    visitor.number(task.priority as u64);
    visitor.number(task.position);
    visitor.bytes(&task.mac);
    visitor.number(task.kill_grace_ms.into());
    visitor.text(&task.result_path);
    visitor.number(task.job_key);
}
