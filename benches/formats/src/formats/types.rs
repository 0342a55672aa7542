//! The messages as serde and minicbor see them: texts and bytes are borrowed from what is sent, and from what was received
//! where the format lets them lie there as they are.

use crate::{
    framing::Header,
    sample::{self, Kind, Sample, metric_name},
    visit::Visit,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;

/// A whole message.
#[derive(Serialize, Deserialize)]
pub struct Envelope<M> {
    pub version: u16,
    pub timestamp: u64,
    pub stream: u32,
    pub sequence: u64,
    pub message: M,
}

impl<M> Envelope<M> {
    pub fn new(header: Header, message: M) -> Envelope<M> {
        let Header { version, timestamp, stream, sequence } = header;
        Envelope { version, timestamp, stream, sequence, message }
    }

    pub fn header(&self) -> Header {
        let Envelope { version, timestamp, stream, sequence, .. } = *self;
        Header { version, timestamp, stream, sequence }
    }
}

#[derive(Serialize, Deserialize, Encode, Decode)]
pub enum Message<'a> {
    #[n(0)]
    #[serde(borrow)]
    Status(#[b(0)] Status<'a>),
    #[n(1)]
    #[serde(borrow)]
    Numbers(#[b(0)] Numbers<'a>),
    #[n(2)]
    #[serde(borrow)]
    Assignment(#[b(0)] Assignment<'a>),
    #[n(3)]
    #[serde(borrow)]
    Log(#[b(0)] Log<'a>),
}

#[derive(Serialize, Deserialize, Encode, Decode)]
pub struct Metric<'a> {
    #[b(0)]
    #[serde(borrow)]
    name: Text<'a>,
    #[n(1)]
    value: f64,
}

#[derive(Serialize, Deserialize, Encode, Decode)]
pub struct Status<'a> {
    #[b(0)]
    #[serde(borrow)]
    task_id: Text<'a>,
    #[n(1)]
    attempt: u32,
    #[n(2)]
    status: u8,
    #[n(3)]
    progress: f32,
    #[b(4)]
    metrics: Vec<Metric<'a>>,
}

#[derive(Serialize, Deserialize, Encode, Decode)]
pub struct Numbers<'a> {
    #[b(0)]
    #[serde(borrow)]
    task_id: Text<'a>,
    #[n(1)]
    attempt: u32,
    #[n(2)]
    status: u8,
    #[n(3)]
    progress: f32,
    #[n(4)]
    metric_ids: Vec<u16>,
    #[n(5)]
    metric_values: Vec<f64>,
}

#[derive(Serialize, Deserialize, Encode, Decode)]
pub struct KeyValue<'a> {
    #[b(0)]
    #[serde(borrow)]
    key: Text<'a>,
    #[b(1)]
    value: Text<'a>,
}

#[derive(Serialize, Deserialize, Encode, Decode)]
pub struct Assignment<'a> {
    #[b(0)]
    #[serde(borrow)]
    task_id: Text<'a>,
    #[n(1)]
    attempt: u32,
    #[n(2)]
    agent_type: u8,
    #[n(3)]
    cpu: u32,
    #[n(4)]
    memory: u32,
    #[n(5)]
    gpu: u32,
    #[n(6)]
    storage: u32,
    #[n(7)]
    storage_backend: u8,
    #[n(8)]
    timeout: u64,
    #[n(9)]
    incarnation: u64,
    #[b(10)]
    command: Text<'a>,
    #[b(11)]
    arguments: Vec<Text<'a>>,
    #[b(12)]
    environment: Vec<KeyValue<'a>>,
    #[b(13)]
    parameters: Text<'a>,
    #[n(14)]
    priority: i8,
    #[n(15)]
    position: u64,
    #[b(16)]
    mac: Bytes<'a>,
    #[n(17)]
    kill_grace_ms: u32,
    #[b(18)]
    result_path: Text<'a>,
    #[n(19)]
    job_key: u64,
}

#[derive(Serialize, Deserialize, Encode, Decode)]
pub struct Log<'a> {
    #[n(0)]
    request: u64,
    #[b(1)]
    #[serde(borrow)]
    task_id: Text<'a>,
    #[n(2)]
    attempt: u32,
    #[n(3)]
    stream: u8,
    #[n(4)]
    offset: u64,
    #[b(5)]
    data: Bytes<'a>,
    #[n(6)]
    size: u64,
}

impl From<&'static Sample> for Message<'static> {
    fn from(sample: &'static Sample) -> Self {
        let task_id = Text::from(sample::TASK_ID);
        let (attempt, status, progress) = (sample::ATTEMPT, sample::STATUS, sample::PROGRESS);
        match sample.kind {
            Kind::Status => {
                let metric =
                    |(name, value): &'static (String, f64)| Metric { name: Text::from(&**name), value: *value };
                let metrics = sample.metrics.iter().map(metric).collect();
                Message::Status(Status { task_id, attempt, status, progress, metrics })
            }
            Kind::Numbers => {
                let metric_ids = (0..sample.metrics.len() as u16).collect();
                let metric_values = sample.metrics.iter().map(|(_, value)| *value).collect();
                Message::Numbers(Numbers { task_id, attempt, status, progress, metric_ids, metric_values })
            }
            Kind::Assignment | Kind::Text => Message::Assignment(Assignment::from(sample)),
            Kind::Bytes => Message::Log(Log {
                request: sample::REQUEST,
                task_id,
                attempt,
                stream: sample::LOG_STREAM,
                offset: sample::OFFSET,
                data: Bytes(Cow::Borrowed(&sample.data)),
                size: sample::SIZE,
            }),
        }
    }
}

impl From<&'static Sample> for Assignment<'static> {
    fn from(sample: &'static Sample) -> Self {
        let pair = |(key, value)| KeyValue { key: Text::from(key), value: Text::from(value) };
        Assignment {
            task_id: Text::from(sample::TASK_ID),
            attempt: sample::ATTEMPT,
            agent_type: sample::AGENT_TYPE,
            cpu: sample::CPU,
            memory: sample::MEMORY,
            gpu: sample::GPU,
            storage: sample::STORAGE,
            storage_backend: sample::STORAGE_BACKEND,
            timeout: sample::TIMEOUT_S,
            incarnation: sample::INCARNATION,
            command: Text::from(sample::COMMAND),
            arguments: sample::ARGUMENTS.map(Text::from).into(),
            environment: sample::ENVIRONMENT.map(pair).into(),
            parameters: Text::from(&*sample.parameters),
            priority: sample::PRIORITY,
            position: sample::POSITION,
            mac: Bytes(Cow::Borrowed(&sample::MAC)),
            kill_grace_ms: sample::KILL_GRACE_MS,
            result_path: Text::from(sample::RESULT_PATH),
            job_key: sample::JOB_KEY,
        }
    }
}

impl Message<'_> {
    /// Shows every field; `None` if a metric's number has no name.
    pub fn show(&self, visitor: &mut impl Visit) -> Option<()> {
        match self {
            Message::Status(status) => {
                visitor.text(&status.task_id.0);
                visitor.number(status.attempt.into());
                visitor.number(status.status.into());
                visitor.float(status.progress.into());
                for metric in &status.metrics {
                    visitor.text(&metric.name.0);
                    visitor.float(metric.value);
                }
            }
            Message::Numbers(status) => {
                visitor.text(&status.task_id.0);
                visitor.number(status.attempt.into());
                visitor.number(status.status.into());
                visitor.float(status.progress.into());
                for (number, value) in status.metric_ids.iter().zip(&status.metric_values) {
                    visitor.text(metric_name(*number)?);
                    visitor.float(*value);
                }
            }
            Message::Assignment(task) => task.show(visitor),
            Message::Log(log) => {
                visitor.number(log.request);
                visitor.text(&log.task_id.0);
                visitor.number(log.attempt.into());
                visitor.number(log.stream.into());
                visitor.number(log.offset);
                visitor.bytes(&log.data.0);
                visitor.number(log.size);
            }
        }
        Some(())
    }
}

impl Assignment<'_> {
    fn show(&self, visitor: &mut impl Visit) {
        visitor.text(&self.task_id.0);
        visitor.number(self.attempt.into());
        visitor.number(self.agent_type.into());
        for number in [self.cpu, self.memory, self.gpu, self.storage] {
            visitor.number(number.into());
        }
        visitor.number(self.storage_backend.into());
        visitor.number(self.timeout);
        visitor.number(self.incarnation);
        visitor.text(&self.command.0);
        self.arguments.iter().for_each(|argument| visitor.text(&argument.0));
        for pair in &self.environment {
            visitor.text(&pair.key.0);
            visitor.text(&pair.value.0);
        }
        visitor.text(&self.parameters.0);
        visitor.number(self.priority as u64);
        visitor.number(self.position);
        visitor.bytes(&self.mac.0);
        visitor.number(self.kill_grace_ms.into());
        visitor.text(&self.result_path.0);
        visitor.number(self.job_key);
    }
}

/// A text that is borrowed from what was received unless it was escaped there.
pub struct Text<'a>(Cow<'a, str>);

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Text(Cow::Borrowed(text))
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.into())))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl<C> Encode<C> for Text<'_> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.str(&self.0)?.ok()
    }
}

impl<'b: 'a, 'a, C> Decode<'b, C> for Text<'a> {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        decoder.str().map(Text::from)
    }
}

/// Bytes, which JSON can only carry as base64.
pub struct Bytes<'a>(Cow<'a, [u8]>);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Bytes<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Bytes<'de>, E> {
                Ok(Bytes(Cow::Borrowed(bytes)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes<'de>, E> {
                BASE64_STANDARD.decode(text).map(|bytes| Bytes(Cow::Owned(bytes))).map_err(E::custom)
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Visitor)
        } else {
            deserializer.deserialize_bytes(Visitor)
        }
    }
}

impl<C> Encode<C> for Bytes<'_> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&self.0)?.ok()
    }
}

impl<'b: 'a, 'a, C> Decode<'b, C> for Bytes<'a> {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        decoder.bytes().map(|bytes| Bytes(Cow::Borrowed(bytes)))
    }
}
