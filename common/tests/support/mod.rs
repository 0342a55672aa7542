//! What the envelope's tests share: sessions with fixed keys, messages of each size, and a forge that
//! builds and signs what no honest peer would send.
// A field that a later version appends must not break the samples of this one.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::needless_update)]

pub mod facts;
pub mod samples;

use flatbuffers::FlatBufferBuilder;
use fleetwire_common::{
    envelope::{
        CONTROL_STREAM, Features, OpenError, Opened, Opener, SIGNATURE_BYTES, Sealer,
        keys::{MacKey, Secret},
    },
    fb,
    ids::{AttemptId, JobId, Name, TaskId},
    job::TaskSpec,
    limits::*,
    message::{Assignment, Heartbeat, Message, Status},
    resources::Resources,
};
use std::sync::Arc;

/// Cluster time of every test.
pub const NOW_MS: u64 = 1_700_000_000_000;
/// The key id, an epoch's number, of every test.
pub const KEY_ID: u32 = 7;

pub fn key() -> MacKey {
    MacKey::new(&Secret::new([0x42; 32]))
}

pub fn sealer(features: Features) -> Sealer {
    Sealer::new(key(), KEY_ID, features)
}

pub fn opener() -> Opener {
    Opener::new(key(), KEY_ID)
}

/// Opens as the control stream's receiver does, on time.
pub fn open<'a>(opener: &'a mut Opener, frame: &'a [u8]) -> Result<Opened<'a>, OpenError> {
    opener.open(frame, CONTROL_STREAM, NOW_MS, STALE_AFTER_MS)
}

/// What a fresh session says of this one frame.
pub fn refusal(frame: &[u8]) -> OpenError {
    let mut opener = opener();
    open(&mut opener, frame).map(|opened| format!("{opened:?}")).expect_err("a frame that must be refused")
}

/// Seals one message in a fresh session, as one frame.
pub fn sealed(message: &Message, features: Features) -> Vec<u8> {
    let mut frame = Vec::new();
    assert_eq!(sealer(features).seal(NOW_MS, std::slice::from_ref(message), &mut frame), 1);
    frame
}

/// Splits frames that were sealed into one buffer.
pub fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some(prefix) = bytes.first_chunk::<4>() {
        let (frame, rest) = bytes.split_at(4 + u32::from_le_bytes(*prefix) as usize);
        frames.push(frame);
        bytes = rest;
    }
    frames
}

pub fn attempt() -> AttemptId {
    AttemptId { task: TaskId { job: JobId(7), entry: 0, index: 42 }, attempt: 1 }
}

pub fn heartbeat() -> Message {
    let usage = Resources { cpu: 250, memory: 512, gpu: 0, storage: 3 };
    Message::Heartbeat(Heartbeat { usage, running: 2, answer: true })
}

pub fn plain_status() -> Status {
    Status {
        attempt: attempt(),
        status: fb::TaskStatus::Running,
        progress: 0.5,
        note: String::new(),
        metrics: Vec::new(),
        end: None,
        job_key: Default::default(),
    }
}

pub fn metrics(count: usize) -> Vec<(Arc<str>, f64)> {
    (0..count).map(|n| (Arc::from(format!("train.layer_{n}.loss")), n as f64 * 0.25)).collect()
}

pub fn status(metric_count: usize) -> Message {
    Message::Status(Status { metrics: metrics(metric_count), note: "epoch 3 of 7".into(), ..plain_status() })
}

/// An assignment whose JSON parameters have this many bytes.
pub fn assignment(parameter_bytes: usize) -> Message {
    let spec = TaskSpec {
        name: Name::new("train").unwrap(),
        agent_type: Some(fb::AgentType::Trainer),
        resources: Resources { cpu: 500, memory: 64, gpu: 1, storage: 2 },
        command: "/usr/bin/train".into(),
        arguments: vec!["--epochs".into(), "7".into()],
        environment: vec![("MODE".into(), "fast".into())],
        parameters: json_text(parameter_bytes),
        timeout_s: 60,
        ..TaskSpec::default()
    };
    let receipt = fb::Receipt::new(1, 2, &[3; 16]);
    Message::Assignment(Assignment {
        attempt: attempt(),
        spec: Arc::new(spec),
        receipt,
        deadline_ms: 0,
        stop_on_disconnect_after_ms: 0,
        job_key: Default::default(),
    })
}

/// Text like that of a job's JSON parameters: it compresses about threefold.
pub fn json_text(bytes: usize) -> String {
    use std::fmt::Write;
    let mut text = String::from("{\"samples\":[");
    let mut random = Random(1);
    while text.len() < bytes {
        let (a, b) = (random.next() % 100_000, random.next() % 1_000);
        write!(text, "{{\"id\":{a},\"label\":\"class_{}\",\"score\":0.{b:03}}},", a % 17).unwrap();
    }
    text.truncate(bytes);
    text
}

/// Bytes that do not compress.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut random = Random(2);
    (0..bytes).map(|_| (random.next() >> 24) as u8).collect()
}

/// A log chunk of any bytes, for bodies that are not text.
pub fn log_chunk(data: Vec<u8>) -> Message {
    Message::Rare(fb::SchedulerMessageT::LogChunk(Box::new(fb::LogChunkT { data: Some(data), ..Default::default() })))
}

/// xorshift64*, Vigna 2016.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

pub type Builder = FlatBufferBuilder<'static>;
pub type Args = fb::MessageEnvelopeArgs<'static>;

/// Builds an envelope as anyone who holds the session's key could, and signs it.
pub fn forge(fill: impl FnOnce(&mut Builder, &mut Args)) -> Vec<u8> {
    let mut builder = Builder::new();
    let mut tail = [0u8; SIGNATURE_BYTES];
    tail[..4].copy_from_slice(&KEY_ID.to_le_bytes());
    let signature = Some(builder.create_vector(&tail));
    let mut args = Args { version: 1, timestamp: NOW_MS, signature, ..Default::default() };
    fill(&mut builder, &mut args);
    let root = fb::MessageEnvelope::create(&mut builder, &args);
    builder.finish_size_prefixed(root, None);
    let mut frame = builder.finished_data().to_vec();
    sign_again(&mut frame);
    frame
}

/// An envelope with one status update.
pub fn forge_status(status: &fb::StatusUpdateT) -> Vec<u8> {
    forge(|builder, args| {
        args.message_type = fb::SchedulerMessage::StatusUpdate;
        args.message = Some(status.pack(builder).as_union_value());
    })
}

/// An envelope with one chunk on a bulk stream.
pub fn forge_chunk(stream: u32, sequence: u64, chunk: &fb::ChunkT) -> Vec<u8> {
    forge(|builder, args| {
        (args.stream, args.sequence) = (stream, sequence);
        args.message_type = fb::SchedulerMessage::Chunk;
        args.message = Some(chunk.pack(builder).as_union_value());
    })
}

/// An envelope with a packed body.
pub fn forge_packed(compression: fb::Compression, raw_len: u32, data: &[u8]) -> Vec<u8> {
    forge(|builder, args| {
        let data = Some(builder.create_vector(data));
        args.packed = Some(fb::Packed::create(builder, &fb::PackedArgs { compression, raw_len, data }));
    })
}

/// A `Body` as bytes.
pub fn body(fill: impl FnOnce(&mut Builder, &mut fb::BodyArgs)) -> Vec<u8> {
    let mut builder = Builder::new();
    let mut args = fb::BodyArgs::default();
    fill(&mut builder, &mut args);
    let root = fb::Body::create(&mut builder, &args);
    builder.finish_minimal(root);
    builder.finished_data().to_vec()
}

/// Sets length prefix and tag right.
pub fn sign_again(frame: &mut [u8]) {
    let length = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    let signed = frame.len() - 32;
    let tag = key().tag(&frame[..signed]);
    frame[signed..].copy_from_slice(&tag);
}
