//! What bodies beside the journal cost on this disk: durable bodies a second with group commit, beside write + fdatasync
//! of the same bytes in the same pieces; and how long it takes until one fact is durable, with a body and without, which
//! shows what the sync more costs that a body takes. Each figure and its counterpart are measured in turn.
//!
//! `cargo run --release -p fleetwire-disk --example bodies -- FOLDER`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_common::{blob::BlobRef, facts::FactBatch, ids::Position};
use fleetwire_disk::{FsDisk, JournalWriter, WriterConfig};
use fleetwire_journal::{Disk, Identity, Journal, JournalConfig};
use std::{
    path::Path,
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

/// Bodies in a batch, as when several results came at once.
const BATCH: u64 = 16;
const FACT: [u8; 200] = [3; 200];
const SECONDS: u64 = 2;

fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let place = Path::new(&folder).join("bodies-example");
    for size in [4 << 10, 64 << 10] {
        let body = noise(size);
        println!(
            "bodies of {} KiB: durable a second, write + fdatasync of the same bytes, bodies in a sync",
            size >> 10
        );
        for _ in 0..3 {
            let (rate, pieces) = rate(&fresh(&place), &body);
            let floor = floor(&fresh(&place), &pieces, size as u64);
            let each = pieces.iter().sum::<u64>() / pieces.len() as u64;
            println!("  {rate:8.0}  {floor:8.0}  {:.2}  {each}", rate / floor);
        }
        println!("until one fact is durable, ms, p50 / p99: alone, with a body, write + fdatasync of both");
        for _ in 0..3 {
            let alone = latency(&fresh(&place), &[]);
            let with = latency(&fresh(&place), &body);
            println!("  {alone}  {with}  {}", written(&fresh(&place), size + FACT.len()));
        }
    }
    std::fs::remove_dir_all(&place).unwrap();
}

fn fresh(place: &Path) -> FsDisk {
    let _ = std::fs::remove_dir_all(place);
    FsDisk::open(place).unwrap()
}

/// Bytes that nothing can shrink.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// A writer, and what it says is durable.
fn start(disk: FsDisk) -> (JournalWriter, Receiver<Position>) {
    let config = JournalConfig::new(Identity::IfNew([1; 16]));
    let journal = Journal::open(disk, &config, |_, _| Ok::<(), ()>(())).unwrap().0;
    let (tell, told) = channel();
    let on_durable = move |durable: Result<Position, _>| tell.send(durable.unwrap()).unwrap();
    (JournalWriter::start(journal, WriterConfig::default(), on_durable).unwrap(), told)
}

/// Where bodies go: end to end, in segments as a scheduler has them.
#[derive(Default)]
struct Places {
    segment: u64,
    end: u64,
}

impl Places {
    fn push(&mut self, batch: &mut FactBatch, body: &[u8]) {
        batch.push(&FACT);
        if body.is_empty() {
            return;
        }
        if self.end - self.segment + body.len() as u64 > (16 << 20) - 512 {
            self.segment = self.end;
        }
        batch.push_blob(BlobRef::of(self.segment, self.end, body), body);
        self.end += body.len() as u64;
    }
}

/// Batches as fast as they are taken: bodies a second, and how many each sync had.
fn rate(disk: &FsDisk, body: &[u8]) -> (f64, Vec<u64>) {
    let (writer, told) = start(disk.clone());
    let (mut places, mut count) = (Places::default(), 0);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(SECONDS) {
        let mut batch = writer.spare();
        (0..BATCH).for_each(|_| places.push(&mut batch, body));
        count += BATCH;
        writer.append(batch).unwrap();
    }
    writer.stop().unwrap();
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    let positions: Vec<u64> = std::iter::once(0).chain(told.try_iter().map(|position| position.0)).collect();
    (rate, positions.windows(2).map(|pair| pair[1] - pair[0]).filter(|bodies| *bodies > 0).collect())
}

/// The same bytes in the same pieces into one file that was written before: bodies a second.
fn floor(disk: &FsDisk, pieces: &[u64], body_bytes: u64) -> f64 {
    let length = 256 << 20;
    let file = disk.create("floor", length).unwrap();
    disk.sync(&file).unwrap();
    let each = body_bytes + FACT.len() as u64;
    let content = noise((pieces.iter().max().unwrap() * each) as usize);
    let mut offset = 0;
    let begin = Instant::now();
    for bodies in pieces {
        let bytes = bodies * each;
        if offset + bytes > length {
            offset = 0;
        }
        disk.write_at(&file, offset, &content[..bytes as usize]).unwrap();
        disk.sync(&file).unwrap();
        offset += bytes;
    }
    pieces.iter().sum::<u64>() as f64 / begin.elapsed().as_secs_f64()
}

/// One batch of one fact after the other.
fn latency(disk: &FsDisk, body: &[u8]) -> String {
    let (writer, told) = start(disk.clone());
    let mut places = Places::default();
    let mut times = Vec::new();
    for number in 1..=400 {
        let mut batch = writer.spare();
        places.push(&mut batch, body);
        let begin = Instant::now();
        writer.append(batch).unwrap();
        while told.recv().unwrap() < Position(number) {}
        times.push(begin.elapsed());
    }
    writer.stop().unwrap();
    in_words(times)
}

/// A write of so many bytes and a sync, one after the other.
fn written(disk: &FsDisk, bytes: usize) -> String {
    let file = disk.create("floor", 64 << 20).unwrap();
    disk.sync(&file).unwrap();
    let content = noise(bytes);
    let mut times = Vec::new();
    for number in 0..400 {
        let begin = Instant::now();
        disk.write_at(&file, number * bytes as u64, &content).unwrap();
        disk.sync(&file).unwrap();
        times.push(begin.elapsed());
    }
    in_words(times)
}

fn in_words(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |permille: usize| times[times.len() * permille / 1_000].as_secs_f64() * 1e3;
    format!("{:.2} / {:.2}", at(500), at(990))
}
