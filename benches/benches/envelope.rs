//! The codec: sealing and opening at 256 B, 1 KB, 10 KB, 100 KB and 1 MB, with and without LZ4, each beside its
//! floor, measured in the same run.
//!
//! A seal's floor is the HMAC of those bytes and one memcpy of them (and the LZ4 compression of the same
//! body); an open's floor is the HMAC and one pass that sums the frame as `u64`s (and the LZ4
//! decompression). What is sealed is an assignment with a JSON text of that size, and so many bytes of interned
//! metrics: status updates of at most 64, in batches of at most 48 KB, so beyond that in several frames. `cargo bench -p fleetwire-benches --bench envelope` prints the table, then
//! criterion's figures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput};
use fleetwire_common::{
    envelope::{
        CONTROL_STREAM, Features, Opener, Sealer,
        keys::{MacKey, Secret},
    },
    fb,
    ids::{AttemptId, JobId, Name, TaskId},
    job::TaskSpec,
    limits::*,
    message::{Ack, Assignment, Heartbeat, Message, MessageRef, Status},
    resources::Resources,
};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use std::{
    fmt::Write,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

const NOW_MS: u64 = 1_700_000_000_000;
const KEY_ID: u32 = 7;
const WITHOUT_LZ4: Features = Features(Features::ALL.0 & !Features::PACKED.0);
/// Payload bytes, and seed 004's table for them: serialisation and deserialisation in µs.
const SIZES: [(usize, Option<(f64, f64)>); 5] = [
    (256, None),
    (1 << 10, Some((200.0, 100.0))),
    (10 << 10, Some((500.0, 300.0))),
    (100 << 10, Some((2_100.0, 1_400.0))),
    (1 << 20, Some((15_000.0, 9_000.0))),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` passes `--bench`; with a filter, only criterion answers.
    if arguments.iter().any(|argument| argument == "--bench") && arguments.iter().all(|a| a.starts_with("--")) {
        print_table();
    }
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();
    for (payload, _) in SIZES {
        for (name, features) in [("json", WITHOUT_LZ4), ("json+lz4", Features::ALL)] {
            bench(&mut criterion, name, Case::new(features, vec![assignment(payload)], payload));
        }
        bench(&mut criterion, "metrics", Case::new(WITHOUT_LZ4, metrics(payload), payload));
    }
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion, name: &str, mut case: Case) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(case.payload as u64));
    for (what, measure) in MEASURES {
        group.bench_function(BenchmarkId::new(what, case.payload), |bencher| {
            bencher.iter_custom(|rounds| measure(&mut case, rounds));
        });
    }
    group.finish();
}

type Measure = fn(&mut Case, u64) -> Duration;
const MEASURES: [(&str, Measure); 4] =
    [("seal", Case::seal), ("seal-floor", Case::seal_floor), ("open", Case::open), ("open-floor", Case::open_floor)];

/// One payload in one session, with everything that both the codec and its floors use again.
struct Case {
    payload: usize,
    messages: Vec<Message>,
    key: MacKey,
    /// What sealing is measured with.
    sealer: Sealer,
    /// The session that opening is measured in.
    peer: Sealer,
    opener: Opener,
    /// The frames as they are in the steady state, and the body of the only one before compression.
    frame: Vec<u8>,
    raw: Option<Vec<u8>>,
    packed: Vec<u8>,
    out: Vec<u8>,
    buffer: Vec<u8>,
    table: CompressTable,
}

impl Case {
    fn new(features: Features, messages: Vec<Message>, payload: usize) -> Case {
        let key = MacKey::new(&Secret::new([0x42; 32]));
        let new_sealer = || Sealer::new(key.clone(), KEY_ID, features).with_frame_bytes_max(FRAME_BYTES_CODEC_MAX);
        let (mut sealer, mut peer) = (new_sealer(), new_sealer());
        let mut opener = Opener::new(key.clone(), KEY_ID).with_frame_bytes_max(FRAME_BYTES_CODEC_MAX);
        let mut frame = Vec::new();
        for _ in 0..3 {
            // The first one defines the metric names.
            frame.clear();
            seal_all(&mut sealer, &messages, &mut frame);
            frame.clear();
            seal_all(&mut peer, &messages, &mut frame);
            for frame in frames(&frame) {
                opener.open(frame, CONTROL_STREAM, NOW_MS, STALE_AFTER_MS).unwrap();
            }
        }
        let envelope = flatbuffers::size_prefixed_root::<fb::MessageEnvelope<'_>>(&frame).unwrap();
        let packed: Vec<u8> = envelope.packed().map(|p| p.data().unwrap().bytes().to_vec()).unwrap_or_default();
        let raw = envelope.packed().map(|p| lz4_flex::block::decompress(&packed, p.raw_len() as usize).unwrap());
        let large = raw.as_ref().is_some_and(|raw| raw.len() >= usize::from(u16::MAX));
        let room = get_maximum_output_size(raw.as_ref().map_or(0, Vec::len));
        let table = if large { CompressTable::large() } else { CompressTable::small() };
        let (out, buffer) = (Vec::new(), vec![0; room]);
        Case { payload, messages, key, sealer, peer, opener, frame, raw, packed, out, buffer, table }
    }

    fn seal(&mut self, rounds: u64) -> Duration {
        let begin = Instant::now();
        for _ in 0..rounds {
            self.out.clear();
            seal_all(&mut self.sealer, black_box(&self.messages), &mut self.out);
            black_box(&self.out);
        }
        begin.elapsed()
    }

    fn seal_floor(&mut self, rounds: u64) -> Duration {
        let begin = Instant::now();
        for _ in 0..rounds {
            if let Some(raw) = &self.raw {
                black_box(compress_into_with_table(black_box(raw), &mut self.buffer, &mut self.table).unwrap());
            }
            self.out.clear();
            self.out.extend_from_slice(black_box(&self.frame));
            for frame in frames(&self.out) {
                black_box(self.key.tag(frame));
            }
        }
        begin.elapsed()
    }

    /// Seals some frames, which is not measured, and opens them, so that the session goes on.
    fn open(&mut self, rounds: u64) -> Duration {
        let mut measured = Duration::ZERO;
        let mut left = rounds;
        while left > 0 {
            let some = left.min(self.some());
            left -= some;
            self.out.clear();
            for _ in 0..some {
                seal_all(&mut self.peer, &self.messages, &mut self.out);
            }
            let begin = Instant::now();
            for frame in frames(&self.out) {
                let opened = self.opener.open(frame, CONTROL_STREAM, NOW_MS, STALE_AFTER_MS).unwrap();
                for (_, message) in opened.messages() {
                    black_box(read(message));
                }
            }
            measured += begin.elapsed();
        }
        measured
    }

    fn open_floor(&mut self, rounds: u64) -> Duration {
        self.out.clear();
        for _ in 0..self.some() {
            self.out.extend_from_slice(&self.frame);
        }
        let mut measured = Duration::ZERO;
        let mut left = rounds;
        while left > 0 {
            let some = left.min(self.some());
            left -= some;
            let begin = Instant::now();
            for frame in self.out.chunks(self.frame.len()).take(some as usize).flat_map(frames) {
                let (bytes, tag) = frame.split_at(frame.len() - 32);
                assert!(self.key.verify(bytes, tag));
                black_box(sum(frame));
                if let Some(raw) = &mut self.raw {
                    black_box(decompress_into(black_box(&self.packed), raw).unwrap());
                }
            }
            measured += begin.elapsed();
        }
        measured
    }

    /// How many frames are opened at a time: as many as the second-level cache holds.
    fn some(&self) -> u64 {
        (256 << 10) / self.frame.len() as u64 + 1
    }
}

fn seal_all(sealer: &mut Sealer, mut messages: &[Message], out: &mut Vec<u8>) {
    while !messages.is_empty() {
        let taken = sealer.seal(NOW_MS, messages, out);
        assert!(taken > 0);
        messages = &messages[taken..];
    }
}

fn frames(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let prefix = rest.first_chunk::<4>()?;
        let (frame, after) = rest.split_at(4 + u32::from_le_bytes(*prefix) as usize);
        rest = after;
        Some(frame)
    })
}

fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(words, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

/// Reads what a receiver would act on. Numbers are added as integers, for sums of floats have to wait for each other.
fn read(message: MessageRef<'_>) -> u64 {
    match message {
        MessageRef::StatusUpdate(status) => {
            let sum = |sum: u64, (name, value): (&str, f64)| sum.wrapping_add(name.len() as u64 ^ value.to_bits());
            let update = status.update;
            let begin = u64::from(update.progress().to_bits()) + update.task_id().map_or(0, |id| id.len() as u64);
            status.metrics().fold(begin, sum)
        }
        MessageRef::TaskAssignment(task) => {
            let resources = Resources::from_wire(task.resources());
            let texts = [task.task_id(), task.command(), task.parameters()].into_iter().flatten().map(str::len);
            let arguments = task.arguments().into_iter().flatten().map(str::len);
            texts.chain(arguments).sum::<usize>() as u64 + u64::from(resources.cpu) + u64::from(task.attempt())
        }
        other => u64::from(other.kind().0),
    }
}

/// The table: each figure and its floor in turn, round by round, and the best of sixty rounds, which the
/// machine's other work disturbs least.
fn print_table() {
    println!("\nThe codec, CPU µs per frame; beside each figure its floor in the same run, and seed 004's table.\n");
    println!("| payload | content | frame bytes | seal | floor | × | open | floor | × | seed 004 | beaten |");
    println!("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (payload, seed) in SIZES {
        for (name, features) in [("JSON text", WITHOUT_LZ4), ("JSON text, LZ4", Features::ALL)] {
            let case = Case::new(features, vec![assignment(payload)], payload);
            print_row(&label(payload), name, case, seed);
        }
        let case = Case::new(WITHOUT_LZ4, metrics(payload), payload);
        print_row(&label(payload), "metrics, interned", case, None);
    }
    let beat = Heartbeat { usage: Resources { cpu: 250, memory: 512, gpu: 0, storage: 3 }, running: 2, answer: true };
    print_row("–", "heartbeat", Case::new(Features::ALL, vec![Message::Heartbeat(beat)], 0), None);
    print_row("–", "16 metrics, interned", Case::new(WITHOUT_LZ4, vec![status(16)], 0), None);
    let acks: Vec<Message> = (0..16).map(|_| Message::Ack(Ack::Final(attempt()))).collect();
    print_row("–", "a batch of 16 acks", Case::new(WITHOUT_LZ4, acks, 0), None);
    let text = Case::new(Features::BATCH, metrics(10 << 10), 10 << 10);
    print_row(&label(10 << 10), "metrics, as text", text, None);
    print_status();
    print_hostile();
    println!();
}

/// A status update with 16 metrics, beside what the HMAC of 2 KB takes in the same rounds.
fn print_status() {
    let mut case = Case::new(WITHOUT_LZ4, vec![status(16)], 0);
    let bytes = vec![7; 2 << 10];
    let mut best = [f64::INFINITY; 3];
    for _ in 0..60 {
        let begin = Instant::now();
        for _ in 0..500 {
            black_box(case.key.tag(black_box(&bytes)));
        }
        let mac = begin.elapsed();
        for (best, time) in best.iter_mut().zip([case.seal(500), case.open(500), mac]) {
            *best = best.min(time.as_secs_f64() * 1e6 / 500.0);
        }
    }
    let [seal, open, mac] = best;
    println!(
        "\nA status update with 16 interned metrics is sealed in {seal:.2} and opened in {open:.2} µs, {:.2} and {:.2} × \
         what the HMAC of 2 KB takes ({mac:.2} µs).",
        seal / mac,
        open / mac,
    );
}

/// What a key holder can make a receiver do with 10 KB: rows that are all the same row, each with a text
/// that the verifier would read again.
fn print_hostile() {
    let key = MacKey::new(&Secret::new([0x42; 32]));
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let mut tail = [0u8; 36];
    tail[..4].copy_from_slice(&KEY_ID.to_le_bytes());
    let signature = Some(builder.create_vector(&tail));
    let note = Some(builder.create_string(&"x".repeat(5_000)));
    let row = fb::TaskSummary::create(&mut builder, &fb::TaskSummaryArgs { note, ..Default::default() });
    let tasks = Some(builder.create_vector(&[row; 1_250]));
    let page = fb::Page::create(&mut builder, &fb::PageArgs { tasks, ..Default::default() });
    let args = fb::MessageEnvelopeArgs {
        timestamp: NOW_MS,
        message_type: fb::SchedulerMessage::Page,
        message: Some(page.as_union_value()),
        signature,
        ..Default::default()
    };
    let root = fb::MessageEnvelope::create(&mut builder, &args);
    builder.finish_size_prefixed(root, None);
    let mut frame = builder.finished_data().to_vec();
    let signed = frame.len() - 32;
    let tag = key.tag(&frame[..signed]);
    frame[signed..].copy_from_slice(&tag);
    let mut opener = Opener::new(key.clone(), KEY_ID);
    let best = |work: &mut dyn FnMut()| {
        let once = |_| {
            let begin = Instant::now();
            work();
            begin.elapsed().as_secs_f64() * 1e6
        };
        (0..200).map(once).fold(f64::INFINITY, f64::min)
    };
    let refused = best(&mut || drop(opener.open(&frame, CONTROL_STREAM, NOW_MS, STALE_AFTER_MS).unwrap_err()));
    let mac = best(&mut || {
        black_box(key.tag(&frame));
    });
    println!(
        "\nA hostile frame of {} bytes, rightly signed, is refused in {refused:.1} µs; its HMAC alone takes {mac:.1} µs.",
        frame.len()
    );
}

fn print_row(payload: &str, content: &str, mut case: Case, seed: Option<(f64, f64)>) {
    let rounds = (2_000_000 / (case.frame.len() + 2_000)).max(1) as u64;
    let mut samples: [Vec<f64>; 4] = Default::default();
    for _ in 0..60 {
        for ((_, measure), samples) in MEASURES.iter().zip(&mut samples) {
            samples.push(measure(&mut case, rounds).as_secs_f64() * 1e6 / rounds as f64);
        }
    }
    let [seal, seal_floor, open, open_floor] = samples.map(|samples| samples.into_iter().fold(f64::INFINITY, f64::min));
    let (seed, beaten) = seed.map_or((String::from("–"), String::from("–")), |(a, b)| {
        (format!("{a} / {b}"), format!("{:.0} / {:.0} ×", a / seal, b / open))
    });
    println!(
        "| {payload} | {content} | {} | {seal:.2} | {seal_floor:.2} | {:.2} | {open:.2} | {open_floor:.2} | {:.2} | {seed} | {beaten} |",
        case.frame.len(),
        seal / seal_floor,
        open / open_floor,
    );
}

fn label(bytes: usize) -> String {
    match bytes {
        0x10_0000.. => format!("{} MB", bytes >> 20),
        1_024.. => format!("{} KB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

fn attempt() -> AttemptId {
    AttemptId { task: TaskId { job: JobId(7), entry: 0, index: 42 }, attempt: 1 }
}

fn assignment(payload: usize) -> Message {
    let spec = TaskSpec {
        name: Name::new("train").unwrap(),
        resources: Resources { cpu: 500, memory: 64, gpu: 0, storage: 1 },
        command: "/usr/bin/train".into(),
        arguments: vec!["--epochs".into(), "7".into()],
        parameters: json_text(payload),
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

/// Status updates with so many bytes of interned metrics, ten bytes each.
fn metrics(bytes: usize) -> Vec<Message> {
    let count = bytes.div_ceil(10);
    let updates = count.div_ceil(METRICS_MAX);
    vec![status(count / updates); updates]
}

fn status(metrics: usize) -> Message {
    let metrics = (0..metrics).map(|n| (Arc::from(format!("train.layer_{n}.loss")), n as f64 * 0.25)).collect();
    Message::Status(Status {
        attempt: attempt(),
        status: fb::TaskStatus::Running,
        progress: 0.5,
        note: String::new(),
        metrics,
        end: None,
        job_key: Default::default(),
    })
}

/// Text as jobs carry it: it compresses about threefold.
fn json_text(bytes: usize) -> String {
    let mut text = String::from("{\"samples\":[");
    let mut random = 1u64;
    while text.len() < bytes {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (a, b) = ((random >> 33) % 100_000, (random >> 40) % 1_000);
        write!(text, "{{\"id\":{a},\"label\":\"class_{}\",\"score\":0.{b:03}}},", a % 17).unwrap();
    }
    text.truncate(bytes);
    text
}
