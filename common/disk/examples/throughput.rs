//! How many durable facts a second the journal's writer takes, beside its floor: the same bytes, written
//! in the same pieces into a file of the same kind, each piece followed by fdatasync.
//!
//! `cargo run --release -p fleetwire-disk --example throughput -- FOLDER`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fleetwire_disk::{FsDisk, JournalWriter, WriterConfig};
use fleetwire_journal::{Disk, Identity, Journal, JournalConfig};
use std::{
    convert::Infallible,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    sync::{Arc, mpsc::channel},
    time::{Duration, Instant},
};

const FACT_BYTES: usize = 200;

fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let place = Path::new(&folder).join("throughput");
    std::fs::create_dir_all(&place).unwrap();
    println!("facts of {FACT_BYTES} bytes; facts/s of the writer, and of write + fdatasync of the same pieces");
    for facts_per_batch in [1, 32, 1024] {
        let pairs: Vec<(f64, f64)> =
            (0..3).map(|_| (writer_rate(&place, facts_per_batch), floor_rate(&place, facts_per_batch))).collect();
        for (writer, floor) in pairs {
            println!("one batch of {facts_per_batch:5} at a time: {writer:9.0}  {floor:9.0}  {:.2}", writer / floor);
        }
    }
    let (rate, syncs) = stream_rate(&place);
    println!("batches of 32, as fast as they are taken: {rate:9.0}, {syncs:.0} syncs/s");
    replay_rate(&place);
    std::fs::remove_dir_all(&place).unwrap();
}

fn fresh(place: &Path) -> Journal<FsDisk> {
    let _ = std::fs::remove_dir_all(place.join("journal"));
    let disk = FsDisk::open(&place.join("journal")).unwrap();
    let nothing = |_, _: &[u8]| Ok::<(), Infallible>(());
    Journal::open(disk, &JournalConfig::new(Identity::IfNew([1; 16])), nothing).unwrap().0
}

/// Each batch waits until the one before it is durable.
fn writer_rate(place: &Path, facts_per_batch: u64) -> f64 {
    let (tell, announced) = channel();
    let on_durable = move |durable| tell.send(durable).unwrap();
    let writer = JournalWriter::start(fresh(place), WriterConfig::default(), on_durable).unwrap();
    let rate = rate(facts_per_batch, || {
        let mut batch = writer.spare();
        (0..facts_per_batch).for_each(|fact| batch.push(&[fact as u8; FACT_BYTES]));
        writer.append(batch).unwrap();
        announced.recv().unwrap().unwrap();
    });
    writer.stop().unwrap();
    rate
}

/// The same bytes into files that were prepared in the same way.
fn floor_rate(place: &Path, facts_per_batch: u64) -> f64 {
    let disk = FsDisk::open(&place.join("journal")).unwrap();
    let bytes = vec![7; facts_per_batch as usize * (FACT_BYTES + 4)];
    let length = 256 << 20;
    let file = disk.create("floor", length).unwrap();
    disk.sync(&file).unwrap();
    let mut offset = 0;
    let rate = rate(facts_per_batch, || {
        if offset + bytes.len() as u64 > length {
            offset = 0;
        }
        disk.write_at(&file, offset, &bytes).unwrap();
        disk.sync(&file).unwrap();
        offset += bytes.len() as u64;
    });
    disk.remove("floor").unwrap();
    rate
}

/// Batches as fast as the queue takes them: the group commit.
fn stream_rate(place: &Path) -> (f64, f64) {
    let syncs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&syncs);
    let on_durable = move |durable: Result<_, _>| {
        durable.unwrap();
        counted.fetch_add(1, Ordering::Relaxed);
    };
    let writer = JournalWriter::start(fresh(place), WriterConfig::default(), on_durable).unwrap();
    let start = Instant::now();
    let mut facts = 0;
    while start.elapsed() < Duration::from_secs(5) {
        let mut batch = writer.spare();
        (0..32).for_each(|fact| batch.push(&[fact; FACT_BYTES]));
        writer.append(batch).unwrap();
        facts += 32;
    }
    writer.stop().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    (f64::from(facts) / seconds, syncs.load(Ordering::Relaxed) as f64 / seconds)
}

fn replay_rate(place: &Path) {
    let disk = FsDisk::open(&place.join("journal")).unwrap();
    let start = Instant::now();
    let nothing = |_, _: &[u8]| Ok::<(), Infallible>(());
    let (_, recovery) = Journal::open(disk, &JournalConfig::new(Identity::IfNew([1; 16])), nothing).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    println!("opening: {} facts in {seconds:.3} s, {:.0} facts/s", recovery.facts, recovery.facts as f64 / seconds);
    fresh(place);
    let mut starts: Vec<f64> = (0..9)
        .map(|start| {
            let disk = FsDisk::open(&place.join(format!("new-{start}"))).unwrap();
            let begun = Instant::now();
            Journal::open(disk, &JournalConfig::new(Identity::IfNew([1; 16])), nothing).unwrap();
            begun.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    starts.sort_by(f64::total_cmp);
    println!("opening an empty folder: {:.1} ms at the median of {}", starts[starts.len() / 2], starts.len());
}

fn rate(facts: u64, mut step: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut steps = 0_u64;
    while start.elapsed() < Duration::from_secs(1) {
        step();
        steps += 1;
    }
    (steps * facts) as f64 / start.elapsed().as_secs_f64()
}
