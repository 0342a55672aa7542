//! What is written from front to back is what the generated builder would have written, to those who read it: every
//! type of message, whatever it holds, alone, in batches and in bodies, passes both verifiers and unpacks to the same
//! tables; and a frame ends with its signature, whatever is in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use flatbuffers::FlatBufferBuilder;
use fleetwire_common::{
    custom::Custom,
    envelope::{Features, SIGNATURE_BYTES},
    fb::{self, SchedulerMessageT as M, verify},
    ids::{AttemptId, JobId, JobKey, Name, TaskId},
    job::{FileSpec, TaskSpec},
    limits::*,
    message::{Ack, Assignment, End, Heartbeat, Message, Status},
    resources::Resources,
    verified::verifier_options,
};
use std::sync::Arc;
use support::*;

const WITHOUT_LZ4: Features = Features(Features::ALL.0 & !Features::PACKED.0);

/// Anything, with much that is nothing: what is zero or empty is absent on the wire.
struct Any(Random);

impl Any {
    fn below(&mut self, end: u64) -> u64 {
        (self.0.next() >> 8) % end
    }

    fn number(&mut self) -> u64 {
        let shift = self.below(64);
        if self.below(3) == 0 { 0 } else { self.0.next() >> shift }
    }

    fn text(&mut self) -> String {
        let length = if self.below(3) == 0 { 0 } else { self.below(40) };
        (0..length).map(|_| char::from_u32(0x40 + self.below(0x200) as u32).unwrap()).collect()
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.below(30)).map(|_| self.0.next() as u8).collect()
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| item(self)).collect()
    }

    fn attempt(&mut self) -> AttemptId {
        let task = TaskId { job: JobId(self.number()), entry: self.number() as u16, index: self.number() as u32 };
        AttemptId { task, attempt: self.number() as u32 }
    }

    fn resources(&mut self) -> Resources {
        let mut number = || self.number() as u32;
        Resources { cpu: number(), memory: number(), gpu: number(), storage: number() }
    }

    fn custom(&mut self) -> Custom {
        let amounts: Vec<_> = (0..self.below(4)).map(|number| (format!("n{number}/x"), self.below(9))).collect();
        Custom::new(amounts.iter().map(|(name, amount)| (name.as_str(), *amount))).unwrap()
    }

    fn assignment(&mut self) -> Assignment {
        let file = |any: &mut Self| FileSpec { path: any.text(), data: any.bytes(), executable: any.below(2) == 0 };
        let spec = TaskSpec {
            name: Name::new("any").unwrap(),
            agent_type: (self.below(2) == 0).then(|| fb::AgentType(self.below(5) as i8)),
            resources: self.resources(),
            custom: self.custom(),
            storage_backend: fb::StorageType(self.below(6) as i8),
            timeout_s: self.number(),
            executor: fb::Executor(self.below(2) as u8),
            command: self.text(),
            arguments: self.list(Self::text),
            environment: self.list(|any| (any.text(), any.text())),
            parameters: self.text(),
            files: self.list(file),
            priority: self.0.next() as i8,
            kill_grace_ms: self.number() as u32,
            result_path: self.text(),
            ..TaskSpec::default()
        };
        Assignment {
            attempt: self.attempt(),
            spec: Arc::new(spec),
            receipt: fb::Receipt::new(self.number(), self.number(), &[self.0.next() as u8; 16]),
            deadline_ms: self.number(),
            stop_on_disconnect_after_ms: self.number(),
            job_key: JobKey(self.number()),
        }
    }

    fn end(&mut self) -> End {
        End {
            reason: fb::EndReason(self.below(15) as u8),
            exit_code: self.number() as i32,
            signal: self.number() as u8,
            message: self.text(),
            result: (self.below(2) == 0).then(|| self.bytes()),
            user_us: self.number(),
            system_us: self.number(),
            memory_peak_kb: self.number(),
            wall_us: self.number(),
            stdout_bytes: self.number(),
            stderr_bytes: self.number(),
            started_at_ms: self.number(),
            ended_at_ms: self.number(),
        }
    }

    fn status(&mut self, names: &[Arc<str>]) -> Status {
        let mut metrics = Vec::new();
        for _ in 0..self.below(4) {
            // Runs of names, as tasks send them, known and not.
            let run = self.below(30) as usize;
            let from = self.below(names.len() as u64) as usize;
            for name in names.iter().skip(from).take(run) {
                // Some of the same name, but not the same text in memory.
                let name = if self.below(10) == 0 { Arc::from(&**name) } else { Arc::clone(name) };
                metrics.push((name, f64::from(self.0.next() as u32) - 2e9));
            }
        }
        metrics.truncate(METRICS_MAX);
        Status {
            attempt: self.attempt(),
            status: fb::TaskStatus(self.below(8) as i8),
            progress: self.below(5) as f32 / 4.0,
            note: self.text(),
            metrics,
            end: (self.below(2) == 0).then(|| Box::new(self.end())),
            job_key: JobKey(self.number()),
        }
    }

    fn body(&mut self) -> M {
        let some = |any: &mut Self| (any.below(4) > 0).then(|| any.bytes());
        if self.below(2) == 0 {
            let (submit_id, job) = (some(self), some(self));
            return M::SubmitJob(Box::new(fb::SubmitJobT { request: self.number(), submit_id, job }));
        }
        M::LogChunk(Box::new(fb::LogChunkT {
            request: self.number(),
            task_id: (self.below(4) > 0).then(|| self.text()),
            attempt: self.number() as u32,
            stream: fb::LogStream(self.below(2) as u8),
            offset: self.number(),
            data: some(self),
            ended: self.below(2) == 0,
            dropped: self.number(),
            size: self.number(),
        }))
    }

    fn message(&mut self, names: &[Arc<str>], rare: &[M]) -> Message {
        match self.below(10) {
            0 => Message::Assignment(self.assignment()),
            1 | 2 => Message::Status(self.status(names)),
            3 => Message::Heartbeat(Heartbeat {
                usage: self.resources(),
                running: self.number() as u32,
                answer: self.below(2) == 0,
            }),
            4 => Message::Acceptance(self.attempt()),
            5 => Message::Cancellation(self.attempt(), fb::EndReason(self.below(15) as u8)),
            6 => Message::Recall(self.attempt()),
            7 => Message::Ack(match self.below(3) {
                0 => Ack::Request(self.number()),
                1 => Ack::Final(self.attempt()),
                _ => Ack::Heartbeat(self.number()),
            }),
            8 => Message::Rare(self.body()),
            _ => Message::Rare(rare[self.below(rare.len() as u64) as usize].clone()),
        }
    }
}

/// What the session's metric names are, as the receiver learns them.
type Names = Vec<String>;

/// The table that should arrive, made by the generated code alone. Takes the numbers of the names that it defines.
fn expected(message: &Message, interned: bool, names: &mut Names) -> M {
    let task_id = |id: &AttemptId| Some(id.task.to_string());
    match message {
        Message::Assignment(assignment) => {
            let mut builder = FlatBufferBuilder::new();
            let root = assignment.write(&mut builder);
            builder.finish(root, None);
            M::TaskAssignment(Box::new(
                flatbuffers::root::<fb::TaskAssignment<'_>>(builder.finished_data()).unwrap().unpack(),
            ))
        }
        Message::Status(status) => {
            let mut update = fb::StatusUpdateT {
                task_id: task_id(&status.attempt),
                attempt: status.attempt.attempt,
                status: status.status,
                progress: status.progress,
                note: Some(status.note.clone()).filter(|note| !note.is_empty()),
                job_key: status.job_key.0,
                ..Default::default()
            };
            if let Some(end) = &status.end {
                let mut builder = FlatBufferBuilder::new();
                let root = end.write(&mut builder);
                builder.finish(root, None);
                let end = flatbuffers::root::<fb::AttemptEnd<'_>>(builder.finished_data()).unwrap().unpack();
                update.end = Some(Box::new(end));
            }
            for (name, value) in &status.metrics {
                if !interned {
                    let metric = fb::MetricT { name: Some(name.to_string()), value: *value };
                    update.metrics.get_or_insert_default().push(metric);
                    continue;
                }
                let number = names.iter().position(|known| **known == **name).unwrap_or_else(|| {
                    names.push(name.to_string());
                    let definition = fb::MetricNameT { id: names.len() as u16 - 1, name: Some(name.to_string()) };
                    update.metric_names.get_or_insert_default().push(definition);
                    names.len() - 1
                });
                update.metric_ids.get_or_insert_default().push(number as u16);
                update.metric_values.get_or_insert_default().push(*value);
            }
            M::StatusUpdate(Box::new(update))
        }
        Message::Heartbeat(Heartbeat { usage, running, answer }) => M::Heartbeat(Box::new(fb::HeartbeatT {
            cpu: usage.cpu,
            memory: usage.memory,
            gpu: usage.gpu,
            storage: usage.storage,
            running: *running,
            answer: *answer,
        })),
        Message::Acceptance(id) => {
            M::TaskAcceptance(Box::new(fb::TaskAcceptanceT { task_id: task_id(id), attempt: id.attempt }))
        }
        Message::Cancellation(id, reason) => M::TaskCancellation(Box::new(fb::TaskCancellationT {
            task_id: task_id(id),
            attempt: id.attempt,
            reason: *reason,
            if_waiting: false,
        })),
        Message::Recall(id) => M::TaskCancellation(Box::new(fb::TaskCancellationT {
            task_id: task_id(id),
            attempt: id.attempt,
            reason: fb::EndReason::Released,
            if_waiting: true,
        })),
        Message::Ack(ack) => M::Ack(Box::new(match ack {
            Ack::Request(request) => fb::AckT { request: *request, ..Default::default() },
            Ack::Final(id) => fb::AckT { task_id: task_id(id), attempt: id.attempt, ..Default::default() },
            Ack::Heartbeat(echo) => fb::AckT { echo: *echo, ..Default::default() },
        })),
        Message::Rare(message) => message.clone(),
    }
}

/// The messages of a frame that both verifiers accept and that ends with the signature.
fn messages_of(frame: &[u8]) -> Vec<M> {
    let options = verifier_options(frame.len());
    let envelope = flatbuffers::size_prefixed_root_with_opts::<fb::MessageEnvelope<'_>>(&options, frame).unwrap();
    assert!(verify::envelope(&options, frame).is_some());
    let signature = envelope.signature().unwrap().bytes();
    assert_eq!(signature.as_ptr_range(), frame[frame.len() - SIGNATURE_BYTES..].as_ptr_range());
    let body = match envelope.packed() {
        None => fb::BodyT { message: envelope.unpack().message, batch: envelope.unpack().batch },
        Some(packed) => {
            let raw = lz4_flex::block::decompress(packed.data().unwrap().bytes(), packed.raw_len() as usize).unwrap();
            body_of(&raw)
        }
    };
    match body.batch {
        Some(items) => items.into_iter().map(|item| item.message).collect(),
        None => vec![body.message],
    }
}

fn body_of(raw: &[u8]) -> fb::BodyT {
    let options = verifier_options(raw.len());
    assert!(verify::body(&options, raw).is_some());
    flatbuffers::root_with_opts::<fb::Body<'_>>(&options, raw).unwrap().unpack()
}

/// Without those that are not sent so: metric names are numbered by the sealer, and pieces belong to a bulk stream.
fn rare() -> Vec<M> {
    let all = samples::all().into_iter().map(|(_, message)| message);
    all.filter(|message| !matches!(message, M::StatusUpdate(_) | M::Chunk(_))).collect()
}

// §seal-1 §seal-2
#[test]
fn whatever_is_written_reads_as_the_generated_code_would_have_written_it() {
    let mut any = Any(Random(0x5eed));
    let rare = rare();
    let pool: Vec<Arc<str>> = (0..90).map(|n| Arc::from(format!("metric {n}"))).collect();
    let mut kinds = std::collections::BTreeSet::new();
    for round in 0..400 {
        let features = [Features::ALL, WITHOUT_LZ4, Features(Features::ALL.0 & !Features::INTERNED_METRICS.0)];
        let features = features[round % features.len()];
        let interned = features.has(Features::INTERNED_METRICS);
        let (mut sealer, mut opener, mut names) = (sealer(features), opener(), Names::new());
        for _ in 0..4 {
            let count = if any.below(3) == 0 { 1 } else { 1 + any.below(40) };
            let messages: Vec<Message> = (0..count).map(|_| any.message(&pool, &rare)).collect();
            let mut rest = messages.as_slice();
            while !rest.is_empty() {
                // Frames begin anywhere.
                let mut out = noise(any.below(20) as usize);
                let before = out.len();
                let taken = sealer.seal(NOW_MS, rest, &mut out);
                let frame = &out[before..];
                let wanted: Vec<M> =
                    rest[..taken].iter().map(|message| expected(message, interned, &mut names)).collect();
                kinds.extend(wanted.iter().map(M::scheduler_message_type));
                assert_eq!(messages_of(frame), wanted);
                open(&mut opener, frame).unwrap();
                rest = &rest[taken..];
            }
        }
    }
    assert_eq!(kinds.len(), usize::from(fb::SchedulerMessage::ENUM_MAX) - 1, "all but pieces");
}

#[test]
fn bodies_in_pieces_read_as_the_generated_code_would_have_written_them() {
    let mut any = Any(Random(0xb0d1e5));
    let rare = rare();
    let pool: Vec<Arc<str>> = (0..90).map(|n| Arc::from(format!("metric {n}"))).collect();
    for round in 0..300 {
        let message = any.message(&pool, &rare);
        let mut out = Vec::new();
        let features = if round % 2 == 0 { Features::ALL } else { WITHOUT_LZ4 };
        sealer(features).seal_bulk(NOW_MS, 1, &message, &mut out).unwrap();
        let [M::Chunk(chunk)] = &messages_of(&out)[..] else { panic!() };
        let data = chunk.data.as_deref().unwrap();
        let raw = match chunk.compression {
            fb::Compression::None => data.to_vec(),
            _ => lz4_flex::block::decompress(data, chunk.raw_len as usize).unwrap(),
        };
        // No name is numbered on a bulk stream.
        assert_eq!(body_of(&raw).message, expected(&message, false, &mut Names::new()));
    }
}

/// A batch that is closed by its bytes leaves no item behind that would not be there.
#[test]
fn a_batch_that_is_cut_short_is_whole() {
    let long = |n: usize| (0..n).map(|n| (Arc::from(format!("{n:060}")), 1.0)).collect::<Vec<_>>();
    let messages: Vec<Message> = (0..BATCH_ITEMS_MAX)
        .map(|_| Message::Status(Status { metrics: long(METRICS_MAX), ..plain_status() }))
        .collect();
    let mut out = Vec::new();
    let taken = sealer(Features::BATCH).seal(NOW_MS, &messages, &mut out);
    assert!((2..40).contains(&taken), "{taken}");
    assert_eq!(messages_of(&out).len(), taken);
    assert!(out.len() < BATCH_BYTES_MAX + 8_192, "{}", out.len());
}

/// Readers in other languages cast numbers where they lie.
#[test]
fn numbers_are_aligned_from_the_frames_first_byte() {
    for count in 0..20 {
        let mut sealer = sealer(WITHOUT_LZ4);
        let mut out = Vec::new();
        let messages = vec![Message::Ack(Ack::Final(attempt())), status(count), status(METRICS_MAX)];
        sealer.seal(NOW_MS, &messages, &mut out);
        let envelope = flatbuffers::size_prefixed_root::<fb::MessageEnvelope<'_>>(&out).unwrap();
        for item in envelope.batch().unwrap() {
            let Some(update) = item.message_as_status_update() else { continue };
            let Some(values) = update.metric_values() else { continue };
            assert_eq!((values.bytes().as_ptr() as usize - out.as_ptr() as usize) % 8, 0);
        }
    }
}
